// Package secretstore keeps apps and connections in AWS Secrets Manager. It is
// the [connector.Store] of both functions.
//
// What is known of an app or a connection, other than its credential or token,
// rides in the secret's Description, written by the same UpdateSecret call that
// writes the value. So ListSecrets is all that a sweep reads, a refresh is one
// write, and the console shows each connection's health.
package secretstore

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"

	"entra-connector/internal/connector"
	"entra-connector/pkg/entra"
)

// maxNextToken is the longest NextToken that ListSecrets takes, in characters.
const maxNextToken = 4096

// Config configures a [Store].
type Config struct {
	Prefix          string  // first part of every secret's name
	WritesPerSecond float64 // ceiling on writes; 0 is none
	KMSKeyID        string  // of the key that new secrets are encrypted with; empty: Secrets Manager's own
	RecoveryDays    int64   // how long a deleted secret can be restored, 7 to 30; 0: AWS's default of 30
}

// Store implements [connector.Store]. It is safe for concurrent use.
type Store struct {
	client *secretsmanager.Client
	prefix string
	key    *string
	days   *int64
	writes *pace
	lists  *pace
}

var _ connector.Store = (*Store)(nil)

// New returns a Store below cfg.Prefix.
func New(client *secretsmanager.Client, cfg Config) *Store {
	attempts := cmp.Or(client.Options().RetryMaxAttempts, retry.DefaultMaxAttempts)
	s := &Store{
		client: client, prefix: cfg.Prefix,
		writes: newPace(cfg.WritesPerSecond, writesQuota, attempts),
		lists:  newPace(0.9*listsQuota, listsQuota, attempts),
	}
	if cfg.KMSKeyID != "" {
		s.key = &cfg.KMSKeyID
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

// App returns an app with its credential.
func (s *Store) App(ctx context.Context, name string) (connector.App, error) {
	out, err := s.client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: aws.String(s.appName(name))})
	if err != nil {
		return connector.App{}, storeError(ctx, "reading app", err)
	}
	app, err := decodeApp(name, aws.ToString(out.SecretString))
	app.Version = aws.ToString(out.VersionId)
	return app, err
}

// AppWithoutCredential returns an app as its Description has it.
func (s *Store) AppWithoutCredential(ctx context.Context, name string) (connector.App, error) {
	out, err := s.find(ctx, s.appName(name))
	if err != nil {
		return connector.App{}, err
	}
	return decodeAppDescription(name, aws.ToString(out.Description)), nil
}

// Apps returns every app without its credential.
func (s *Store) Apps(ctx context.Context) ([]connector.App, error) {
	var apps []connector.App
	for cursor := ""; ; {
		page, next, err := s.list(ctx, s.appsPrefix(), connector.PageLimit, cursor)
		if err != nil {
			return nil, err
		}
		for _, entry := range page {
			// A secret that merely lies below the prefix is not an app.
			if name := aws.ToString(entry.Name)[len(s.appsPrefix()):]; connector.CheckName(name) == nil {
				apps = append(apps, decodeAppDescription(name, aws.ToString(entry.Description)))
			}
		}
		if next == "" {
			return apps, nil
		}
		cursor = next
	}
}

// CreateApp stores a new app.
func (s *Store) CreateApp(ctx context.Context, app connector.App) error {
	_, err := s.create(ctx, s.appName(app.Name), encodeApp(app), encodeAppDescription(app))
	return err
}

// UpdateApp replaces an app.
func (s *Store) UpdateApp(ctx context.Context, app connector.App) error {
	return s.replace(ctx, s.appName(app.Name), app.Version, encodeApp(app), encodeAppDescription(app))
}

// NoteConnection writes the name into the app's Description as that now is, and
// no new version.
func (s *Store) NoteConnection(ctx context.Context, ref connector.ConnectionRef) error {
	app, err := s.AppWithoutCredential(ctx, ref.App)
	if err != nil {
		return err
	}
	app.LastConnection = ref.Name
	return s.writeDescription(ctx, s.appName(app.Name), encodeAppDescription(app))
}

// DeleteApp deletes an app with a recovery window.
func (s *Store) DeleteApp(ctx context.Context, name string) error {
	return s.delete(ctx, s.appName(name))
}

// Connection returns one connection.
func (s *Store) Connection(ctx context.Context, ref connector.ConnectionRef) (connector.Connection, error) {
	out, err := s.find(ctx, s.connectionName(ref))
	if err != nil {
		return connector.Connection{}, err
	}
	return decodeConnection(ref, out.Name, out.ARN, out.Description, out.VersionIdsToStages), nil
}

// Connections returns a page of connections from ListSecrets, which may be five
// minutes behind.
func (s *Store) Connections(ctx context.Context, app string, limit int, cursor string) ([]connector.Connection, string, error) {
	prefix := s.connectionsPrefix()
	if app != "" {
		prefix += app + "/"
	}
	page, next, err := s.list(ctx, prefix, limit, cursor)
	if err != nil {
		return nil, "", err
	}
	connections := make([]connector.Connection, 0, len(page))
	for _, entry := range page {
		// A secret that merely lies below the prefix is not a connection.
		ref, err := connector.ParseConnectionRef(aws.ToString(entry.Name)[len(s.connectionsPrefix()):])
		if err == nil {
			connections = append(connections, decodeConnection(ref, entry.Name, entry.ARN, entry.Description, entry.SecretVersionsToStages))
		}
	}
	return connections, next, nil
}

// CreateConnection stores a new connection with its first token.
func (s *Store) CreateConnection(ctx context.Context, c connector.Connection, token entra.Token) (connector.Connection, error) {
	c.SecretName = s.connectionName(c.ConnectionRef)
	arn, err := s.create(ctx, c.SecretName, encodeToken(token), encodeConnection(c))
	c.SecretARN = arn
	return c, err
}

// SaveToken stores a token and what it says of the connection in one write.
func (s *Store) SaveToken(ctx context.Context, c connector.Connection, token entra.Token) error {
	return s.replace(ctx, s.connectionName(c.ConnectionRef), c.Version, encodeToken(token), encodeConnection(c))
}

// SaveFailure records a failure in the Description, which makes no new version
// of the secret.
func (s *Store) SaveFailure(ctx context.Context, c connector.Connection) error {
	return s.writeDescription(ctx, s.connectionName(c.ConnectionRef), encodeConnection(c))
}

// DeleteConnection deletes a connection with a recovery window.
func (s *Store) DeleteConnection(ctx context.Context, ref connector.ConnectionRef) error {
	return s.delete(ctx, s.connectionName(ref))
}

// look returns what there is under a name, even if it has been deleted: Secrets Manager goes on
// describing that until the recovery window ends.
func (s *Store) look(ctx context.Context, name string) (*secretsmanager.DescribeSecretOutput, error) {
	out, err := s.client.DescribeSecret(ctx, &secretsmanager.DescribeSecretInput{SecretId: aws.String(name)})
	return out, storeError(ctx, "describing secret", err)
}

// find returns the live secret of a name, or fails with ErrNotFound.
func (s *Store) find(ctx context.Context, name string) (*secretsmanager.DescribeSecretOutput, error) {
	out, err := s.look(ctx, name)
	if err == nil && (out.DeletedDate != nil || isTombstone(out.Description)) {
		return nil, connector.ErrNotFound
	}
	return out, err
}

// list returns a page of the live secrets below prefix, and the next cursor.
func (s *Store) list(ctx context.Context, prefix string, limit int, cursor string) ([]types.SecretListEntry, string, error) {
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
	if err != nil {
		return nil, "", storeError(ctx, "listing secrets", err)
	}
	var live []types.SecretListEntry
	for _, entry := range out.SecretList {
		if strings.HasPrefix(aws.ToString(entry.Name), prefix) && entry.DeletedDate == nil && !isTombstone(entry.Description) {
			live = append(live, entry)
		}
	}
	return live, base64.RawURLEncoding.EncodeToString([]byte(aws.ToString(out.NextToken))), nil
}

// create stores a new secret and returns its ARN. A name that was deleted and can still be restored is
// restored, and then holds the new value alone.
func (s *Store) create(ctx context.Context, name, value, description string) (string, error) {
	out, err := s.client.CreateSecret(ctx, &secretsmanager.CreateSecretInput{
		Name: aws.String(name), SecretString: aws.String(value), Description: aws.String(description), KmsKeyId: s.key,
	}, s.writes.of)
	if err == nil {
		return aws.ToString(out.ARN), nil
	}
	// AWS answers InvalidRequestException where the name is pending deletion. Emulators answer
	// ResourceExistsException.
	var exists *types.ResourceExistsException
	var invalid *types.InvalidRequestException
	if !errors.As(err, &exists) && !errors.As(err, &invalid) {
		return "", storeError(ctx, "creating secret", err)
	}
	found, err := s.look(ctx, name)
	switch {
	case err != nil:
		return "", err
	case found.DeletedDate != nil:
		if _, err := s.client.RestoreSecret(ctx, &secretsmanager.RestoreSecretInput{SecretId: aws.String(name)}, s.writes.of); err != nil {
			return "", storeError(ctx, "restoring secret", err)
		}
	case !isTombstone(found.Description):
		return "", connector.ErrExists
	}
	err = s.replace(ctx, name, current(found.VersionIdsToStages), value, description)
	if errors.Is(err, connector.ErrChanged) {
		err = connector.ErrExists // another call has restored it
	}
	return aws.ToString(found.ARN), err
}

// replace writes value and description in the place of a version, and fails with ErrChanged if that is
// no longer the current one. UpdateSecret has no condition of its own, but it refuses the ID of a
// version that exists. So each version has one successor, whose ID follows from its own, and only the
// first who writes that succeeds. Where the version is unknown, nothing is checked.
func (s *Store) replace(ctx context.Context, name, version, value, description string) error {
	in := &secretsmanager.UpdateSecretInput{
		SecretId: aws.String(name), ClientRequestToken: successor(version), SecretString: aws.String(value), Description: aws.String(description),
	}
	err := s.update(ctx, in)
	var taken *types.ResourceExistsException
	if !errors.As(err, &taken) {
		return storeError(ctx, "updating secret", err)
	}
	// Either somebody else was first, or our own first try has landed after all.
	found, err := s.look(ctx, name)
	switch {
	case err != nil:
		return err
	case aws.ToString(found.Description) == description:
		return nil
	case found.DeletedDate != nil:
		return connector.ErrNotFound
	case current(found.VersionIdsToStages) == version:
		// The ID is taken, but not by what is current: a person has moved the staging label back. Then
		// there is nobody to give way to.
		in.ClientRequestToken = nil
		return storeError(ctx, "updating secret", s.update(ctx, in))
	}
	return connector.ErrChanged
}

// writeDescription writes a description alone.
func (s *Store) writeDescription(ctx context.Context, name, description string) error {
	return storeError(ctx, "updating secret", s.update(ctx, &secretsmanager.UpdateSecretInput{
		SecretId: aws.String(name), Description: aws.String(description),
	}))
}

// throttledWrites is how many times in a row the SDK may give the same write up
// because AWS throttles. Each of its attempts has waited for its turn, so they
// come no faster for it; and a token that is not stored waits for the next sweep.
const throttledWrites = 5

func (s *Store) update(ctx context.Context, in *secretsmanager.UpdateSecretInput) (err error) {
	for range throttledWrites {
		if _, err = s.client.UpdateSecret(ctx, in, s.writes.of); throttles.IsErrorThrottle(err) != aws.TrueTernary {
			break
		}
	}
	return err
}

// delete clears and marks the secret before it deletes it. The mark is a version, so it defeats a
// refresh that is still under way. And between a later restore and the write that follows it, when the
// secret is live with what it last held, the mark keeps that from passing for what was deleted.
func (s *Store) delete(ctx context.Context, name string) error {
	err := connector.Retry(ctx, "deleting secret", func() (beaten bool, err error) {
		found, err := s.look(ctx, name)
		switch {
		case err != nil:
			return false, err
		case found.DeletedDate != nil:
			return false, connector.ErrNotFound
		case isTombstone(found.Description):
			return false, nil
		}
		err = s.replace(ctx, name, current(found.VersionIdsToStages), tombstone, tombstone)
		return errors.Is(err, connector.ErrChanged), err
	})
	if err != nil {
		return err
	}
	_, err = s.client.DeleteSecret(ctx, &secretsmanager.DeleteSecretInput{
		SecretId: aws.String(name), RecoveryWindowInDays: s.days,
	}, s.writes.of)
	var invalid *types.InvalidRequestException
	if !errors.As(err, &invalid) {
		return storeError(ctx, "deleting secret", err)
	}
	// Either the SDK's retry finds that the first try has landed, or AWS will not delete the secret, as
	// when it has replicas.
	found, err := s.look(ctx, name)
	if err == nil && found.DeletedDate == nil {
		return &connector.StoreError{Op: "deleting secret", Code: invalid.ErrorCode()}
	}
	return err
}

// current returns the ID of the current version.
func current(versions map[string][]string) string {
	for id, stages := range versions {
		if slices.Contains(stages, "AWSCURRENT") {
			return id
		}
	}
	return ""
}

// successor returns the ID of the version that follows one, in the form of a
// UUID as the SDK's own are.
func successor(version string) *string {
	if version == "" {
		return nil
	}
	sum := sha256.Sum256([]byte("successor of " + version))
	return aws.String(fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16]))
}
