package connector_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"entra-connector/internal/connector"
	"entra-connector/internal/secretstore"
	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/pkg/entra"
	"entra-connector/pkg/entra/entratest"
)

const (
	tenantA  = "aaaaaaaa-0000-4000-8000-000000000001"
	tenantB  = "bbbbbbbb-0000-4000-8000-000000000002"
	clientID = "cccccccc-0000-4000-8000-000000000003"
	graph    = "https://graph.microsoft.com/.default"
	devOps   = "499b84ac-1321-427f-aa17-267ca6975798/.default"
	canary   = "c4nary-secret"
	rotated  = "n3w-secret" // which Entra knows as well

	// refusedAtOnce is a code that no change of the app settles: the app is disabled.
	refusedAtOnce = 7000112
)

// app is the app as it is registered.
var app = connector.App{Name: "default", Scope: graph, Registration: entra.Registration{
	ClientID: clientID, Credential: entra.Credential{ClientSecret: entra.NewSecret(canary)}, Cloud: entra.Public}}

var start = time.Date(2026, 11, 23, 1, 0, 0, 0, time.UTC)

// world is the package between the two stand-ins, with the real Secrets Manager adapter as its
// store and without a network. Its clock stands still until it is moved, or is that of a bubble.
type world struct {
	t           *testing.T
	entra       *entratest.Server
	secrets     *secretstoretest.Server
	store       *secretstore.Store
	provisioner *connector.Provisioner
	refresher   *connector.Refresher
	apps        *connector.Apps
	sweeper     *connector.Sweeper

	bubble bool
	ahead  atomic.Int64        // of start
	asking func(tenant string) // is called before each token request; may be nil

	mu   sync.Mutex // guards everything below
	told []string   // what Changed was told
	log  bytes.Buffer
}

// setup says how a world differs from one whose lists are up to date.
type setup struct {
	lag    time.Duration // of lists
	bubble bool          // on the clock of a bubble
}

// newWorld knows one app with two secrets, which has consent in two tenants.
func newWorld(t *testing.T, s setup) *world {
	w := &world{t: t, bubble: s.bubble}
	w.entra = entratest.New(entratest.Options{Now: w.Now})
	w.entra.AddApp(entratest.App{ClientID: clientID, Secrets: []entratest.Secret{{Value: canary}, {Value: rotated}}})
	for tenant, domain := range map[string]string{tenantA: "contoso.com", tenantB: "fabrikam.com"} {
		w.entra.AddTenant(entratest.Tenant{ID: tenant, Domains: []string{domain}})
		w.entra.Consent(tenant, clientID, "User.Read.All")
	}
	client := entra.NewClient(entra.ClientConfig{Authority: "https://entra.invalid", Now: w.Now, Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		if w.asking != nil && strings.HasSuffix(r.URL.Path, "/token") {
			w.asking(strings.Split(r.URL.Path, "/")[1])
		}
		return inMemory(w.entra)(r)
	})})
	var err error
	if w.secrets, err = secretstoretest.New(secretstoretest.Options{Now: w.Now, ListLag: s.lag}); err != nil {
		t.Fatal(err)
	}
	w.store = openStore(&http.Client{Transport: inMemory(w.secrets)}, 1, 0) // a test that fails a call means each try of it
	log := slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
	prover := connector.Prover{Entra: client}
	w.provisioner = &connector.Provisioner{Store: w.store, Prover: prover, Now: w.Now, Changed: w.changed}
	w.refresher = &connector.Refresher{Store: w.store, Prover: prover, Now: w.Now, Log: log, Changed: w.changed}
	w.apps = &connector.Apps{Store: w.store, Prover: prover, Now: w.Now}
	w.sweeper = &connector.Sweeper{Store: w.store, Entra: client, Window: 30 * time.Minute, Now: w.Now, Log: log, Changed: w.changed}
	t.Cleanup(func() {
		for _, secret := range append(w.entra.Tokens(), canary, rotated) {
			if strings.Contains(w.log.String(), secret) {
				t.Errorf("a secret is in the log")
			}
		}
	})
	return w
}

func openStore(client *http.Client, attempts int, writesPerSecond float64) *secretstore.Store {
	return secretstore.New(secretsmanager.New(secretsmanager.Options{
		Region: "us-east-1", BaseEndpoint: aws.String("http://aws.invalid"), HTTPClient: client, RetryMaxAttempts: attempts,
		Credentials: credentials.NewStaticCredentialsProvider("id", "key", ""),
	}), secretstore.Config{Prefix: "entra", WritesPerSecond: writesPerSecond})
}

func (w *world) Now() time.Time {
	if w.bubble {
		return time.Now()
	}
	return start.Add(time.Duration(w.ahead.Load()))
}

func (w *world) advance(d time.Duration) {
	if w.bubble {
		time.Sleep(d)
	}
	w.ahead.Add(int64(d))
}

// Write takes a line of the log.
func (w *world) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(line)
}

func (w *world) changed(_ context.Context, c connector.Connection) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = append(w.told, fmt.Sprint(c.TenantID[:1], " ", c.Status()))
}

// news returns what Changed was told since the last time, sorted.
func (w *world) news() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer func() { w.told = nil }()
	return strings.Join(slices.Sorted(slices.Values(w.told)), ", ")
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// inMemory reaches a stand-in without a network.
func inMemory(h http.Handler) roundTripper {
	return func(r *http.Request) (response *http.Response, err error) {
		defer func() {
			if recover() != nil { // it cuts the connection
				response, err = nil, io.ErrUnexpectedEOF
			}
		}()
		in, answer := r.Clone(r.Context()), httptest.NewRecorder()
		if in.Body == nil {
			in.Body = http.NoBody
		}
		h.ServeHTTP(answer, in)
		response = answer.Result()
		response.Request = r
		return response, nil
	}
}

// put creates or replaces the app, with this client secret.
func (w *world) put(ctx context.Context, secret string) error {
	f := *asked("").AppFields
	f.ClientSecret = entra.NewSecret(secret)
	return w.putAs(ctx, "default", f)
}

func (w *world) putAs(ctx context.Context, name string, f connector.AppFields) error {
	request, err := connector.ParseAppRequest(name, f, w.Now())
	w.must(err)
	_, _, err = w.apps.Put(ctx, request)
	return err
}

// asked is a request for a connection with its app.
func asked(tenant string) connector.ProvisionFields {
	return connector.ProvisionFields{TenantID: tenant, App: "default", AppFields: &connector.AppFields{
		ClientID: clientID, ClientSecret: entra.NewSecret(canary), ScopeFields: connector.ScopeFields{Scope: graph}}}
}

func (w *world) provisionAs(ctx context.Context, f connector.ProvisionFields) (connector.Connection, bool, error) {
	request, err := connector.ParseProvisioning(f, w.Now())
	w.must(err)
	return w.provisioner.Provision(ctx, request)
}

// provision returns the connection of a tenant.
func (w *world) provision(tenant string) connector.Connection {
	w.t.Helper()
	c, _, err := w.provisionAs(w.t.Context(), asked(tenant))
	w.must(err)
	return c
}

// tenant is the GUID of one of any number of tenants.
func tenant(n int) string { return fmt.Sprintf("dddddddd-0000-4000-8000-%012d", n) }

// seed stores the connection of tenant n, which Entra then knows, without a request to Entra. So
// much of its token's life of an hour is left, and its last refresh failed with the failure, if
// there is one.
func (w *world) seed(n int, left time.Duration, failure *connector.Failure) connector.Connection {
	w.t.Helper()
	w.entra.AddTenant(entratest.Tenant{ID: tenant(n)})
	w.entra.Consent(tenant(n), clientID, "User.Read.All")
	if _, ok := w.secrets.Look("entra/apps/default"); !ok {
		_, err := w.store.CreateApp(w.t.Context(), app)
		w.must(err)
	}
	token := entra.Token{TenantID: tenant(n), Type: "Bearer", AccessToken: entra.NewSecret("seeded"), ExpiresIn: 3600, RequestedAt: w.Now().Add(left - time.Hour)}
	c := seeded(n, token, failure)
	before, _ := w.store.Connection(w.t.Context(), c.ConnectionRef)
	c.Version = before.Version
	c, err := w.store.CreateConnection(w.t.Context(), c, token)
	w.must(err)
	return c
}

// seeded returns the connection of tenant n as it is with a token and a failure.
func seeded(n int, token entra.Token, failure *connector.Failure) connector.Connection {
	return connector.Connection{
		ConnectionRef: connector.ConnectionRef{App: "default", Name: tenant(n)}, TenantID: tenant(n), Scope: graph, Cloud: entra.Public,
		TokenType: token.Type, ExpiresAt: token.ExpiresAt(), Lifetime: token.Lifetime(), RefreshedAt: token.RequestedAt, Failure: failure,
	}
}

// seedAll stores so many connections, from that of tenant first.
func (w *world) seedAll(first, many int, left time.Duration, failure *connector.Failure) {
	w.t.Helper()
	for n := range many {
		w.seed(first+n, left, failure)
	}
}

// failed is how a refresh may have failed.
func failed(status connector.Status) *connector.Failure {
	return &connector.Failure{Status: status, Code: "AADSTS7000112"}
}

// junk leaves pages of a listing empty, where a name would come.
func (w *world) junk(name string, pages int) {
	for n := range 100 * pages {
		w.secrets.Edit(fmt.Sprintf("entra/connections/default/%s/%04d", name, n), func(*secretstoretest.Secret) {})
	}
}

// spoil takes the tags from a connection's secret, which is then unreadable.
func (w *world) spoil(c connector.Connection) {
	w.secrets.Edit(c.SecretName, func(x *secretstoretest.Secret) { x.Tags = nil })
}

const (
	ok       = connector.StatusOK
	retrying = connector.StatusRetrying
	refused  = connector.StatusRefused
	spoiled  = connector.Status("spoiled") // by somebody else
)

var force = connector.SweepRequest{Force: true}

func (w *world) sweep(request connector.SweepRequest) connector.SweepReport {
	w.t.Helper()
	report, err := w.sweeper.Sweep(w.t.Context(), request)
	w.must(err)
	return report
}

// expect sweeps over what is due.
func (w *world) expect(what string, want connector.SweepReport, failures ...connector.SweepFailure) {
	w.t.Helper()
	w.check(what, w.sweep(connector.SweepRequest{}), want, failures...)
}

func (w *world) check(what string, got, want connector.SweepReport, failures ...connector.SweepFailure) {
	w.t.Helper()
	want.Failures = append([]connector.SweepFailure{}, failures...)
	slices.SortFunc(got.Failures, func(a, b connector.SweepFailure) int { return strings.Compare(a.Connection, b.Connection) })
	g, _ := json.Marshal(got)
	if want, _ := json.Marshal(want); string(g) != string(want) {
		w.t.Errorf("%s: report\n got %s\nwant %s", what, g, want)
	}
}

func (w *world) connection(ref connector.ConnectionRef) connector.Connection {
	w.t.Helper()
	c, err := w.store.Connection(w.t.Context(), ref)
	w.must(err)
	return c
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// deny makes Entra refuse a tenant, or every tenant, with a code, so many times or from now on.
func (w *world) deny(tenant string, code, times int) {
	w.entra.Fail(entratest.Fault{Tenant: tenant, Times: times, Response: entratest.Refused(code)})
}

// codeOf returns the code of an error of Entra, or else the error's text.
func codeOf(err error) string {
	var refused *entra.Error
	if errors.As(err, &refused) {
		return refused.Code
	}
	return fmt.Sprint(err)
}
