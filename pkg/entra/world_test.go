package entra_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"entra-connector/pkg/entra"
	"entra-connector/pkg/entra/entratest"
)

const (
	canary   = "c4nary-secret"
	tenantA  = "aaaaaaaa-0000-4000-8000-000000000001"
	tenantB  = "bbbbbbbb-0000-4000-8000-000000000002"
	clientID = "cccccccc-0000-4000-8000-000000000003"
	graph    = "https://graph.microsoft.com/.default"
)

var start = time.Date(2026, 11, 23, 1, 0, 0, 0, time.UTC)

// world is a client of the stand-in Entra, on a clock that the test moves.
type world struct {
	now    time.Time
	entra  *entratest.Server
	client *entra.Client
}

// newWorld knows one app, which has consent in one tenant.
func newWorld(t *testing.T) *world {
	w := &world{now: start}
	w.entra = entratest.Start(t, entratest.Options{Now: w.clock})
	w.entra.AddApp(entratest.App{ClientID: clientID, Secrets: []entratest.Secret{{Value: canary}}})
	w.entra.AddTenant(entratest.Tenant{ID: tenantA, Domains: []string{"contoso.com"}})
	w.entra.AddTenant(entratest.Tenant{ID: tenantB, Domains: []string{"fabrikam.com"}})
	w.entra.Consent(tenantA, clientID, "User.Read.All")
	w.client = w.newClient(entra.ClientConfig{})
	return w
}

func (w *world) clock() time.Time { return w.now }

func (w *world) newClient(cfg entra.ClientConfig) *entra.Client {
	cfg.Authority, cfg.Now = w.entra.URL(), w.clock
	return entra.NewClient(cfg)
}

var registration = entra.Registration{
	ClientID: clientID, Credential: entra.Credential{ClientSecret: entra.NewSecret(canary)}, Cloud: entra.Public,
}

func ask(ctx context.Context, client *entra.Client) (entra.Token, error) {
	return client.Token(ctx, registration, graph, tenantA)
}

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
