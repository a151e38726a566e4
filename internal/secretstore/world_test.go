package secretstore_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"entra-connector/internal/connector"
	"entra-connector/internal/secretstore"
	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/pkg/entra"
)

const (
	tenantA    = "aaaaaaaa-0000-4000-8000-000000000001"
	tenantB    = "bbbbbbbb-0000-4000-8000-000000000002"
	secretName = "entra/connections/default/acme"
	appName    = "entra/apps/default"
)

var (
	start = time.Date(2026, 11, 23, 1, 0, 0, 0, time.UTC)
	ref   = connector.ConnectionRef{App: "default", Name: "acme"}
	app   = connector.App{
		Name: "default", Scope: "https://graph.microsoft.com/.default", ChangedAt: start,
		Registration: entra.Registration{
			ClientID: "cccccccc-0000-4000-8000-000000000003", Cloud: entra.Public,
			Credential: entra.Credential{ClientSecret: entra.NewSecret("s3cret <&>")},
		},
	}
)

// tokenOf returns a token that was requested so long after start.
func tokenOf(tenant string, after time.Duration) entra.Token {
	return entra.Token{
		TenantID: tenant, Type: "Bearer", AccessToken: entra.NewSecret("t0ken of " + after.String()),
		ExpiresIn: 3599, ExtExpiresIn: 7199, RequestedAt: start.Add(after),
	}
}

// with returns the connection as it is with a token.
func with(c connector.Connection, t entra.Token) connector.Connection {
	c.TokenType, c.ExpiresAt, c.Lifetime, c.RefreshedAt, c.Failure = t.Type, t.ExpiresAt(), t.Lifetime(), t.RequestedAt, nil
	return c
}

// connection returns default/acme of a tenant, which is not stored yet.
func connection(tenant string) connector.Connection {
	return with(connector.Connection{ConnectionRef: ref, TenantID: tenant, Cloud: entra.Public, Scope: app.Scope}, tokenOf(tenant, 0))
}

// setup says how a world differs from one that tries every call once.
type setup struct {
	secretstoretest.Options
	secretstore.Config
	retries bool // as the SDK does, whose pauses need a bubble
}

// world is a Store on the stand-in Secrets Manager, without a network.
type world struct {
	*secretstore.Store
	t      *testing.T
	client *secretsmanager.Client
	server *secretstoretest.Server
	ahead  time.Duration                       // of the stand-in's clock
	change func(op string, body []byte) []byte // what becomes of a request on its way; may be nil
	answer func() *http.Response               // to everything, instead of the stand-in's; may be nil
}

func open(t *testing.T, s setup) *world {
	t.Helper()
	w := &world{t: t}
	s.Now = func() time.Time { return time.Now().Add(w.ahead) }
	var err error
	if w.server, err = secretstoretest.New(s.Options); err != nil {
		t.Fatal(err)
	}
	w.client = secretsmanager.New(secretsmanager.Options{
		Region: "us-east-1", BaseEndpoint: aws.String("http://stand-in.invalid"), HTTPClient: w,
		Credentials: credentials.NewStaticCredentialsProvider("id", "key", ""),
	}, func(o *secretsmanager.Options) {
		if !s.retries {
			o.RetryMaxAttempts = 1
		}
	})
	s.Prefix = "entra"
	w.Store = secretstore.New(w.client, s.Config)
	return w
}

// Do takes a request to the stand-in.
func (w *world) Do(r *http.Request) (response *http.Response, err error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if w.change != nil {
		body = w.change(strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "secretsmanager."), body)
	}
	if w.answer != nil {
		return w.answer(), nil
	}
	answer := httptest.NewRecorder()
	defer func() {
		if recover() == nil {
			return
		}
		// The connection is cut, before the answer or in the middle of it.
		if response, err = nil, io.ErrUnexpectedEOF; answer.Body.Len() > 0 {
			response, err = answer.Result(), nil
			response.Body = io.NopCloser(io.MultiReader(response.Body, iotest.ErrReader(io.ErrUnexpectedEOF)))
		}
	}()
	in := httptest.NewRequestWithContext(r.Context(), r.Method, "/", bytes.NewReader(body))
	in.Header = r.Header
	w.server.ServeHTTP(answer, in)
	return answer.Result(), nil
}

// must fails the test at an error.
func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// create stores the app and default/acme of tenant A.
func (w *world) create() connector.Connection {
	w.t.Helper()
	_, err := w.CreateApp(w.t.Context(), app)
	w.must(err)
	c, err := w.CreateConnection(w.t.Context(), connection(tenantA), tokenOf(tenantA, 0))
	w.must(err)
	return c
}

// read returns default/acme as it is stored.
func (w *world) read() connector.Connection {
	w.t.Helper()
	c, err := w.Connection(w.t.Context(), ref)
	w.must(err)
	return c
}

// outcome names an error in a few words.
func outcome(err error) string {
	var conflict *connector.ConflictError
	var failed *connector.StoreError
	switch {
	case err == nil:
		return "done"
	case errors.As(err, &conflict) && conflict.Reason == connector.Replicated:
		return "conflict: replicas in " + strings.Join(conflict.Fields, ", ")
	case errors.As(err, &conflict):
		return "conflict: " + conflict.Advice.Title
	case errors.As(err, &failed):
		return failed.Code
	}
	return err.Error()
}
