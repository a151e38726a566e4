package connector_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"entra-connector/internal/connector"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"entra-connector/internal/secretstore"
	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/pkg/entra"
	"entra-connector/pkg/entra/entratest"
)

// world is the library between the two stand-ins, on a clock that the test
// moves, with the real Secrets Manager adapter as its store.
type world struct {
	clock       *clock
	entra       *entratest.Server
	secrets     *secretstoretest.Server
	client      *entra.Client
	store       *secretstore.Store
	provisioner *connector.Provisioner
	refresher   *connector.Refresher
	apps        *connector.Apps
	sweeper     *connector.Sweeper
	log         *bytes.Buffer
}

type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

const canary = "c4nary-secret"

var start = time.Date(2026, 11, 23, 1, 0, 0, 0, time.UTC)

// newWorld knows one app, consented to in two tenants.
func newWorld(t *testing.T) *world {
	return newWorldWith(t, secretstoretest.Options{})
}

func newWorldWith(t *testing.T, o secretstoretest.Options) *world {
	c := &clock{t: start}
	o.Now = c.Now
	w := &world{
		clock:   c,
		entra:   entratest.Start(t, entratest.Options{Now: c.Now}),
		secrets: secretstoretest.Start(t, o),
		log:     new(bytes.Buffer),
	}
	w.entra.AddApp(entratest.App{ClientID: clientID, Secrets: []entratest.Secret{{Value: canary}}})
	for tenant, domain := range map[string]string{tenantA: "contoso.com", tenantB: "fabrikam.com"} {
		w.entra.AddTenant(entratest.Tenant{ID: tenant, Domains: []string{domain}})
		w.entra.Consent(tenant, clientID, "User.Read.All")
	}
	w.client = entra.NewClient(entra.ClientConfig{Authority: w.entra.URL(), Now: c.Now})
	w.store = secretstore.New(secretsmanager.New(secretsmanager.Options{
		Region:       "us-east-1",
		BaseEndpoint: aws.String(w.secrets.URL()),
		Credentials:  credentials.NewStaticCredentialsProvider("id", "key", ""),
		// Tests that fail a call mean each try of it.
		RetryMaxAttempts: 1,
	}), secretstore.Config{Prefix: "entra"})
	logger := slog.New(slog.NewJSONHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	prover := connector.Prover{Store: w.store, Entra: w.client}
	w.provisioner = &connector.Provisioner{Store: w.store, Prover: prover, Now: c.Now}
	w.refresher = &connector.Refresher{Store: w.store, Prover: prover, Now: c.Now, Log: logger}
	w.apps = &connector.Apps{Store: w.store, Prover: prover, Now: c.Now}
	w.sweeper = &connector.Sweeper{Store: w.store, Entra: w.client, Window: 30 * time.Minute, Now: c.Now, Log: logger}
	t.Cleanup(func() {
		for _, secret := range append(w.entra.Tokens(), canary) {
			if strings.Contains(w.log.String(), secret) {
				t.Errorf("a secret is in the log")
			}
		}
	})
	return w
}

// app is the app as it is registered, not stored.
func (w *world) app() connector.App {
	return connector.App{Name: "default", Scope: graph, Registration: entra.Registration{
		ClientID: clientID, Credential: entra.Credential{ClientSecret: entra.NewSecret(canary)}, Cloud: entra.Public,
	}}
}

// put asks for the app as it is.
func (w *world) put(ctx context.Context, app connector.App) (connector.App, bool, error) {
	return put(ctx, w.apps, app)
}

func put(ctx context.Context, apps *connector.Apps, app connector.App) (connector.App, bool, error) {
	f := connector.AppFields{
		ClientID: app.ClientID, ClientSecret: app.Credential.ClientSecret, Cloud: string(app.Cloud),
		ScopeFields: connector.ScopeFields{Scope: app.Scope},
	}
	if at := app.Credential.SecretExpiresAt; !at.IsZero() {
		f.ClientSecretExpiresAt = at.Format(time.RFC3339)
	}
	if c := app.Credential.Certificate; c != nil {
		f.Certificate = c.PEM
	}
	if c := app.Credential.Federation; c != nil {
		f.Federation = &connector.FederationFields{Audience: c.Audience}
	}
	request, err := connector.ParseAppRequest(app.Name, f, apps.Now())
	if err != nil {
		return app, false, err
	}
	return apps.Put(ctx, request)
}

// provisionAs parses the request and provisions.
func (w *world) provisionAs(ctx context.Context, f connector.ProvisionFields) (connector.Connection, bool, error) {
	request, err := connector.ParseProvisioning(f, w.clock.Now())
	if err != nil {
		return connector.Connection{}, false, err
	}
	return w.provisioner.Provision(ctx, request)
}

// provision provisions a tenant and returns its connection.
func (w *world) provision(t *testing.T, tenant string) connector.Connection {
	t.Helper()
	r := validRequest()
	r.TenantID = tenant
	c, _, err := w.provisionAs(t.Context(), r)
	if err != nil {
		t.Fatalf("provisioning %s: %v", tenant, err)
	}
	return c
}

func (w *world) sweep(t *testing.T) connector.SweepReport {
	t.Helper()
	report, err := w.sweeper.Sweep(t.Context(), connector.SweepRequest{})
	if err != nil {
		t.Fatalf("sweep: %v", err)
	}
	return report
}

// force refreshes everything, due or not.
func (w *world) force(t *testing.T) connector.SweepReport {
	t.Helper()
	report, err := w.sweeper.Sweep(t.Context(), connector.SweepRequest{Force: true})
	if err != nil {
		t.Fatalf("sweep: %v", err)
	}
	return report
}

func (w *world) connection(t *testing.T, ref connector.ConnectionRef) connector.Connection {
	t.Helper()
	c, err := w.store.Connection(t.Context(), ref)
	if err != nil {
		t.Fatalf("reading %s: %v", ref, err)
	}
	return c
}

// certified returns a certificate with its key as a PEM file, and by itself.
func certified(t *testing.T, from, to time.Time) (entra.Secret, *x509.Certificate) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: to}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	pem.Encode(&file, &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	pem.Encode(&file, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	return entra.NewSecret(file.String()), leaf
}

const otherClient = "cccccccc-0000-4000-8000-000000000033"

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func asEntraError(t *testing.T, err error) *entra.Error {
	t.Helper()
	var refused *entra.Error
	if !errors.As(err, &refused) {
		t.Fatalf("error is %T (%v), want *entra.Error", err, err)
	}
	return refused
}
