// Package secretstore keeps apps and connections in AWS Secrets Manager. It is
// the [connector.Store] of both functions.
//
// A secret's tags say whose it is. Its Description says how it is, for one version, and is written
// by the same UpdateSecret call that writes the value. So ListSecrets is all that a sweep reads, a
// refresh is one write, and the console shows each connection's health.
package secretstore

import (
	"cmp"
	"context"
	"encoding/base64"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"

	"entra-connector/internal/connector"
)

// maxNextToken is the longest NextToken that ListSecrets takes, in characters.
const maxNextToken = 4096

// Config configures a [Store].
type Config struct {
	Prefix          string            // first part of every secret's name
	WritesPerSecond float64           // ceiling on writes; 0 is none
	KMSKeyID        string            // of the key that new secrets are encrypted with; empty: Secrets Manager's own
	Tags            map[string]string // of new secrets, besides the connector's own
	Readers         []string          // IDs of accounts that may read new connections, with KMSKeyID
	RecoveryDays    int64             // how long a deleted secret can be restored, 7 to 30; 0: AWS's default of 30
}

// Store implements [connector.Store], which says what each method does. It is safe for concurrent
// use.
type Store struct {
	client *secretsmanager.Client
	prefix string
	key    *string
	policy *string // of new connections; nil: none
	days   *int64
	tags   map[string]string
	now    func() time.Time
	reads  *pace
	writes *pace
	lists  *pace
}

var _ connector.Store = (*Store)(nil)

// New returns a Store below cfg.Prefix.
func New(client *secretsmanager.Client, cfg Config) *Store {
	attempts := cmp.Or(client.Options().RetryMaxAttempts, retry.DefaultMaxAttempts)
	s := &Store{
		client: client, prefix: cfg.Prefix, tags: cfg.Tags, now: time.Now,
		reads:  newPace(0, readsQuota, attempts),
		writes: newPace(cfg.WritesPerSecond, writesQuota, attempts),
		lists:  newPace(0.9*listsQuota, listsQuota, attempts),
	}
	if s.tags == nil {
		s.tags = make(map[string]string)
	}
	if cfg.KMSKeyID != "" {
		s.key = &cfg.KMSKeyID
	}
	if len(cfg.Readers) > 0 {
		s.policy = aws.String(readersPolicy(cfg.Readers))
	}
	if cfg.RecoveryDays != 0 {
		s.days = &cfg.RecoveryDays
	}
	return s
}

func (s *Store) appsPrefix() string         { return s.prefix + "/apps/" }
func (s *Store) connectionsPrefix() string  { return s.prefix + "/connections/" }
func (s *Store) appName(name string) string { return s.appsPrefix() + name }
func (s *Store) connectionName(ref connector.ConnectionRef) string {
	return s.connectionsPrefix() + ref.String()
}

// list returns a page of the secrets below prefix, and the cursor of the next page.
func (s *Store) list(ctx context.Context, prefix string, limit int, cursor string) ([]secret, string, error) {
	in := &secretsmanager.ListSecretsInput{
		Filters:    []types.Filter{{Key: types.FilterNameStringTypeName, Values: []string{prefix}}},
		MaxResults: aws.Int32(int32(limit)),
		SortBy:     types.SortByTypeName,
		SortOrder:  types.SortOrderTypeAsc,
	}
	if cursor != "" {
		token, err := base64.RawURLEncoding.DecodeString(cursor)
		if err != nil || len(token) > maxNextToken {
			return nil, "", errCursor
		}
		in.NextToken = aws.String(string(token))
	}
	out, err := s.client.ListSecrets(ctx, in, s.lists.of)
	if err == nil && out.SecretList == nil {
		err = errEmpty
	}
	if err != nil {
		return nil, "", storeError(ctx, "ListSecrets", prefix, err)
	}
	var page []secret
	for _, entry := range out.SecretList {
		if strings.HasPrefix(aws.ToString(entry.Name), prefix) {
			page = append(page, s.secret(entry, out.ResultMetadata))
		}
	}
	return page, base64.RawURLEncoding.EncodeToString([]byte(aws.ToString(out.NextToken))), nil
}
