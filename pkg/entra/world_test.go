package entra_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

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
	provisioner *entra.Provisioner
	sweeper     *entra.Sweeper
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
	w.provisioner = &entra.Provisioner{Store: w.store, Entra: w.client, Now: c.Now, Log: logger}
	w.sweeper = &entra.Sweeper{Store: w.store, Entra: w.client, Window: 30 * time.Minute, Now: c.Now, Log: logger}
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
func (w *world) app() entra.App {
	return entra.App{Name: "default", ClientID: clientID, Credential: entra.Credential{ClientSecret: entra.NewSecret(canary)}, Scope: graph, Cloud: entra.Public}
}

// provision provisions a tenant and returns its connection.
func (w *world) provision(t *testing.T, tenant string) entra.Connection {
	t.Helper()
	r := validRequest()
	r.TenantID = tenant
	c, _, err := w.provisioner.Provision(t.Context(), r)
	if err != nil {
		t.Fatalf("provisioning %s: %v", tenant, err)
	}
	return c
}

func (w *world) sweep(t *testing.T) entra.SweepReport {
	t.Helper()
	report, err := w.sweeper.Sweep(t.Context(), entra.SweepRequest{})
	if err != nil {
		t.Fatalf("sweep: %v", err)
	}
	return report
}

// force refreshes everything, due or not.
func (w *world) force(t *testing.T) entra.SweepReport {
	t.Helper()
	report, err := w.sweeper.Sweep(t.Context(), entra.SweepRequest{Force: true})
	if err != nil {
		t.Fatalf("sweep: %v", err)
	}
	return report
}

func (w *world) connection(t *testing.T, ref entra.ConnectionRef) entra.Connection {
	t.Helper()
	c, err := w.store.Connection(t.Context(), ref)
	if err != nil {
		t.Fatalf("reading %s: %v", ref, err)
	}
	return c
}

func asEntraError(t *testing.T, err error) *entra.Error {
	t.Helper()
	var refused *entra.Error
	if !errors.As(err, &refused) {
		t.Fatalf("error is %T (%v), want *entra.Error", err, err)
	}
	return refused
}
