// Package entratoken reads the token of one of the connector's connections from Secrets Manager,
// and keeps it until the connector will have stored a newer one.
//
// A token comes with its true expiry, and never when it has expired. clients/README.md says when a
// [Reader] reads. The Python and TypeScript clients behave the same.
package entratoken

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/smithy-go"
	"golang.org/x/oauth2"

	"entra-connector/pkg/entra"
)

// What can be wrong, for errors.Is. Any other error is that of a call that Secrets Manager did not
// answer, or of the caller's context.
var (
	// ErrNotFound also stands for a connection that has no token yet, or is being deleted.
	ErrNotFound     = errors.New("there is no such secret, or it has no token")
	ErrNotPermitted = errors.New("AWS does not permit it")
	ErrMalformed    = errors.New("the secret is not as the connector writes it")
	ErrExpired      = errors.New("the stored token has expired: the connector is behind")
)

// SecretsManager is what a Reader calls. Where it also has DescribeSecret, as the SDK's client
// does, [Reader.Scope] works without Options.Scope.
type SecretsManager interface {
	GetSecretValue(context.Context, *secretsmanager.GetSecretValueInput, ...func(*secretsmanager.Options)) (*secretsmanager.GetSecretValueOutput, error)
}

// Options are optional.
type Options struct {
	Prefix string           // the connector's SECRET_PREFIX; "entra" if empty
	Window time.Duration    // the connector's REFRESH_WINDOW; 30 minutes if zero
	Scope  string           // the connection's scope; looked up if empty
	Client SecretsManager   // if nil, a client with the SDK's default configuration
	Now    func() time.Time // if nil, time.Now
}

// Reader reads the token of one connection. It is safe for concurrent use.
type Reader struct {
	connection string // app/connection
	secret     string // name or ARN
	window     time.Duration
	client     SecretsManager
	token      kept[entra.Token]
	scope      kept[string]
}

// Token is one token and its expiry. It prints without the token: AccessToken.Reveal returns that.
type Token struct {
	entra.Token
	RefreshAt time.Time // when the Reader will look for a newer one
}

const part = `[a-z0-9][a-z0-9._-]*`

var (
	namePattern = regexp.MustCompile(`^([A-Za-z0-9/_+=.@-]+/connections/)?(` + part + `/` + part + `)$`)
	arnPattern  = regexp.MustCompile(`^arn:[^:]+:secretsmanager:([^:]+):[0-9]{12}:secret:.+/connections/(` + part + `/` + part + `)-[A-Za-z0-9]{6}$`)
)

// New returns a Reader of a connection: "app/connection", or the full name or the ARN of its
// secret. It does not read yet.
func New(ctx context.Context, connection string, o Options) (*Reader, error) {
	r := &Reader{secret: connection, window: cmp.Or(o.Window, 30*time.Minute), client: o.Client}
	var region string
	if m := arnPattern.FindStringSubmatch(connection); m != nil {
		region, r.connection = m[1], m[2]
	} else if m := namePattern.FindStringSubmatch(connection); m != nil {
		r.connection = m[2]
		if m[1] == "" {
			r.secret = cmp.Or(o.Prefix, "entra") + "/connections/" + connection
		}
	}
	if r.connection == "" || strings.Contains(r.connection, "..") {
		return nil, fmt.Errorf("entra-connector: %q is neither app/connection nor the name or ARN of a connection's secret", connection)
	}
	if r.client == nil {
		c, err := config.LoadDefaultConfig(ctx)
		if err != nil {
			return nil, fmt.Errorf("entra-connector: connection %s: the AWS configuration: %w", r.connection, err)
		}
		r.client = secretsmanager.NewFromConfig(c, func(o *secretsmanager.Options) { o.Region = cmp.Or(region, o.Region) })
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	r.token = kept[entra.Token]{now: o.Now, read: r.readToken, due: r.refreshed, ends: entra.Token.ExpiresAt, gone: r.expired}
	never := func(string) time.Time { return time.Unix(1<<40, 0) }
	r.scope = kept[string]{now: o.Now, read: r.readScope, due: never, ends: never}
	if o.Scope != "" {
		r.scope.value = &o.Scope
	}
	return r, nil
}

// The connector sweeps every five minutes, and a sweep takes a moment.
const sweep = 5*time.Minute + time.Minute

// refreshed is when the connector will have refreshed a token: it is due with less than the window
// left, or than half of its life where that is shorter, and the next sweep refreshes it.
func (r *Reader) refreshed(t entra.Token) time.Time {
	left := min(r.window, time.Duration(t.ExpiresIn/2)*time.Second) - sweep
	return t.ExpiresAt().Add(-max(left, 0))
}

// Connection returns the name of the connection, app/connection.
func (r *Reader) Connection() string { return r.connection }

// Token returns a token that has not expired.
func (r *Reader) Token(ctx context.Context) (Token, error) {
	t, again, err := r.token.get(ctx)
	return Token{t, again}, err
}

// Values returns the six values by their keys, of a token that has not expired.
func (r *Reader) Values(ctx context.Context) (map[string]entra.Secret, error) {
	t, err := r.Token(ctx)
	if err != nil {
		return nil, err
	}
	values := make(map[string]entra.Secret, 6)
	for key, value := range t.Token.Values() {
		values[key] = entra.NewSecret(value)
	}
	return values, nil
}

// Scope returns the connection's scope, {resource}/.default: the one of the Options, or that of the
// secret's tag, which takes the permission for DescribeSecret.
func (r *Reader) Scope(ctx context.Context) (string, error) {
	scope, _, err := r.scope.get(ctx)
	return scope, err
}

// TokenSource returns what [oauth2.NewClient] takes. It looks for a newer token as the Reader does,
// not only when the old one is about to expire. Valid is false of a token in the last part of its
// life, in which the source is to be asked again; Expiry is true. ctx is for all reads.
func (r *Reader) TokenSource(ctx context.Context) oauth2.TokenSource {
	// A source of any other type would be wrapped by NewClient, and asked 10 seconds before expiry.
	return oauth2.ReuseTokenSourceWithExpiry(nil, source{ctx, r}, max(r.window-sweep, 0))
}

type source struct {
	ctx context.Context
	r   *Reader
}

func (s source) Token() (*oauth2.Token, error) {
	t, err := s.r.Token(s.ctx)
	if err != nil {
		return nil, err
	}
	return &oauth2.Token{TokenType: t.Type, AccessToken: t.AccessToken.Reveal(), Expiry: t.ExpiresAt(), ExpiresIn: t.ExpiresIn}, nil
}

func (r *Reader) readToken(ctx context.Context) (entra.Token, error) {
	out, err := r.client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &r.secret})
	if err != nil {
		return entra.Token{}, r.failed(err)
	}
	t, err := decode(aws.ToString(out.SecretString))
	if err != nil {
		return t, r.fail(ErrMalformed, err)
	}
	return t, nil
}

func (r *Reader) expired(t entra.Token) error {
	return r.fail(ErrExpired, errors.New("it ended at "+t.ExpiresAt().UTC().Format(time.RFC3339)))
}

var (
	text   = regexp.MustCompile(`.`)
	number = regexp.MustCompile(`^[0-9]{1,10}$`)
	six    = map[string]*regexp.Regexp{
		entra.KeyTokenType: regexp.MustCompile(`^Bearer$`), entra.KeyAccessToken: text, entra.KeyTenantID: text,
		entra.KeyExpiresAt: number, entra.KeyExpiresIn: number, entra.KeyExtExpiresIn: number,
	}
)

// decode reads a secret's value. Its error names a key, but quotes nothing of what stands there.
func decode(value string) (entra.Token, error) {
	var stored map[string]any
	if json.Unmarshal([]byte(value), &stored) != nil {
		return entra.Token{}, errors.New("it is not a JSON object")
	}
	values, numbers := make(map[string]string), make(map[string]int64)
	for key, form := range six {
		values[key], _ = stored[key].(string)
		if !form.MatchString(values[key]) {
			return entra.Token{}, errors.New(key + " is missing or wrong")
		}
		numbers[key], _ = strconv.ParseInt(values[key], 10, 64)
	}
	t := entra.Token{
		Type: values[entra.KeyTokenType], AccessToken: entra.NewSecret(values[entra.KeyAccessToken]), TenantID: values[entra.KeyTenantID],
		ExpiresIn: numbers[entra.KeyExpiresIn], ExtExpiresIn: numbers[entra.KeyExtExpiresIn],
	}
	t.RequestedAt = time.Unix(numbers[entra.KeyExpiresAt], 0).Add(-t.Lifetime())
	return t, nil
}

const scopeTag = "entra-connector:scope"

// escaped are the characters of a scope that a tag may not have.
var escaped = regexp.MustCompile(`=([0-9A-F]{2})`)

func (r *Reader) readScope(ctx context.Context) (string, error) {
	client, ok := r.client.(interface {
		DescribeSecret(context.Context, *secretsmanager.DescribeSecretInput, ...func(*secretsmanager.Options)) (*secretsmanager.DescribeSecretOutput, error)
	})
	if !ok {
		return "", r.fail(ErrNotPermitted, errors.New("the client has no DescribeSecret, and Options.Scope is empty"))
	}
	out, err := client.DescribeSecret(ctx, &secretsmanager.DescribeSecretInput{SecretId: &r.secret})
	if err != nil {
		return "", r.failed(err)
	}
	for _, tag := range out.Tags {
		if aws.ToString(tag.Key) == scopeTag {
			return escaped.ReplaceAllStringFunc(aws.ToString(tag.Value), func(s string) string {
				n, _ := strconv.ParseUint(s[1:], 16, 8)
				return string(rune(n))
			}) + "/.default", nil
		}
	}
	return "", r.fail(ErrMalformed, errors.New("it has no tag "+scopeTag))
}

// failed says what an error of Secrets Manager means.
func (r *Reader) failed(err error) error {
	err = fmt.Errorf("%s: %w", r.secret, err)
	var api smithy.APIError
	if errors.As(err, &api) {
		switch api.ErrorCode() {
		case "ResourceNotFoundException", "InvalidRequestException": // the latter while it is being deleted
			return r.fail(ErrNotFound, err)
		case "AccessDeniedException":
			return r.fail(ErrNotPermitted, err)
		}
	}
	return r.fail(errors.New("the secret cannot be read"), err)
}

func (r *Reader) fail(kind, cause error) error {
	return fmt.Errorf("entra-connector: connection %s: %w: %w", r.connection, kind, cause)
}
