package connector_test

import (
	"context"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"entra-connector/internal/connector"
	"entra-connector/pkg/entra"
	"entra-connector/pkg/entra/entratest"
)

func TestCredentialFields(t *testing.T) {
	secret := entra.NewSecret(canary)
	file, _ := certified(t, start, start.AddDate(1, 0, 0))
	federation := &connector.FederationFields{}
	tests := []struct {
		name   string
		fields connector.AppFields
		wrong  string
	}{
		{"secret", connector.AppFields{ClientSecret: secret}, ""},
		{"secret with a date", connector.AppFields{ClientSecret: secret, ClientSecretExpiresAt: "2027-01-31"}, ""},
		{"secret with a time", connector.AppFields{ClientSecret: secret, ClientSecretExpiresAt: "2027-01-31T12:00:00+01:00"}, ""},
		{"secret of 24 months", connector.AppFields{ClientSecret: secret, ClientSecretExpiresAt: "2028-11-23"}, ""},
		{"federation", connector.AppFields{Federation: federation}, ""},
		{"federation for another audience", connector.AppFields{Federation: &connector.FederationFields{Audience: "api://AzureADTokenExchangeUSGov"}}, ""},
		{"secret and certificate", connector.AppFields{ClientSecret: secret, Certificate: file}, "client_secret"},
		{"certificate and federation", connector.AppFields{Certificate: file, Federation: federation}, "client_secret"},
		{"none", connector.AppFields{}, "client_secret"},
		{"date gone by", connector.AppFields{ClientSecret: secret, ClientSecretExpiresAt: "2026-11-23"}, "client_secret_expires_at"},
		{"no date", connector.AppFields{ClientSecret: secret, ClientSecretExpiresAt: "31.1.2027"}, "client_secret_expires_at"},
		{"no such date", connector.AppFields{ClientSecret: secret, ClientSecretExpiresAt: "2027-02-30"}, "client_secret_expires_at"},
		{"date of a certificate", connector.AppFields{Certificate: file, ClientSecretExpiresAt: "2027-01-31"}, "client_secret_expires_at"},
		{"audience with a space", connector.AppFields{Federation: &connector.FederationFields{Audience: "a b"}}, "federation"},
		{"long audience", connector.AppFields{Federation: &connector.FederationFields{Audience: strings.Repeat("a", 601)}}, "federation"},
	}
	for _, tt := range tests {
		tt.fields.ClientID, tt.fields.Scope = clientID, graph
		_, err := connector.ParseAppRequest("a", tt.fields, start)
		if got := strings.Join(fieldsOf(t, err), " "); got != tt.wrong {
			t.Errorf("%s: complains of %q, want %q", tt.name, got, tt.wrong)
		}
	}
}

func TestExpiringCredentials(t *testing.T) {
	tests := []struct {
		left time.Duration
		days int // -1: not yet
	}{
		{31 * 24 * time.Hour, -1}, {30*24*time.Hour + 1, -1}, {30 * 24 * time.Hour, 30}, {8 * 24 * time.Hour, 30}, {7 * 24 * time.Hour, 7}, {24 * time.Hour, 1}, {1, 1}, {0, 0}, {-time.Hour, 0},
	}
	for _, tt := range tests {
		app := connector.App{Name: "a", Registration: entra.Registration{Credential: entra.Credential{ClientSecret: entra.NewSecret(canary), SecretExpiresAt: start.Add(tt.left)}}}
		got, soon := app.Expiring(start)
		if soon != (tt.days >= 0) || soon && (got.WithinDays != tt.days || got.App != "a" || got.Credential != "client_secret") {
			t.Errorf("%v left: %+v, %t", tt.left, got, soon)
		}
	}

	w := newWorld(t)
	request := validRequest()
	request.AppFields.ClientSecretExpiresAt = "2026-11-30"
	if _, _, err := w.provisionAs(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	report := w.sweep(t)
	if want := (connector.Expiring{App: "default", Credential: "client_secret", ExpiresAt: time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC), WithinDays: 7}); len(report.Expiring) != 1 || report.Expiring[0] != want {
		t.Errorf("the sweep reports %+v, want %+v", report.Expiring, want)
	}
	if log := w.log.String(); !strings.Contains(log, `"level":"WARN","msg":"credential expires"`) {
		t.Errorf("nothing at WARN: %s", log)
	}
}

func TestRotationBetweenKinds(t *testing.T) {
	w := newWorld(t)
	c := w.provision(t, tenantA)
	file, leaf := certified(t, start, start.AddDate(1, 0, 0))
	certificate, err := entra.ParseCertificate(file, start)
	if err != nil {
		t.Fatal(err)
	}
	byCertificate := w.app()
	byCertificate.Credential = entra.Credential{Certificate: certificate}
	before := w.secrets.Snapshot()
	brief, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, _, err := w.put(brief, byCertificate); asEntraError(t, err).Code != "AADSTS700027" || w.secrets.Snapshot() != before {
		t.Errorf("a certificate that Entra does not know: %v", err)
	}
	w.entra.AddApp(entratest.App{ClientID: clientID, Secrets: []entratest.Secret{{Value: canary}}, Certificates: []*x509.Certificate{leaf}})
	for _, app := range []connector.App{byCertificate, w.app()} {
		w.clock.advance(time.Second)
		if _, _, err := w.put(t.Context(), app); err != nil {
			t.Fatal(err)
		}
		w.clock.advance(time.Second)
		checkReport(t, app.Credential.Kind(), w.sweep(t), connector.SweepReport{Checked: 1, Due: 1, Refreshed: 1})
		requests := w.entra.Requests()
		want := map[string]string{"certificate": "certificate", "client_secret": "secret"}[app.Credential.Kind()]
		if got := requests[len(requests)-1].CredentialKind; got != want {
			t.Errorf("Entra saw a %s, want a %s", got, want)
		}
	}
	if got := w.connection(t, c.ConnectionRef).Status(); got != connector.StatusOK {
		t.Errorf("the connection is %s", got)
	}
}

// assertions is a source of assertions that the stand-in Entra does not look into.
type assertions struct{}

func (assertions) Assertion(context.Context, string) (entra.Secret, error) {
	return entra.NewSecret("eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViIjoicm9sZSJ9.c2ln"), nil // {"iss":"https://issuer.example","sub":"role"}
}

// An app that uses federation is stored with what a person has to enter in Entra.
func TestFederationIsStoredWithItsIdentity(t *testing.T) {
	w := newWorld(t)
	apps := *w.apps
	apps.Prover.Entra = entra.NewClient(entra.ClientConfig{Authority: w.entra.URL(), Assertions: assertions{}})
	app := w.app()
	app.Credential = entra.Credential{Federation: &entra.Federation{Audience: entra.DefaultAudience}}
	if _, _, err := put(t.Context(), &apps, app); err != nil {
		t.Fatal(err)
	}
	want := entra.Federation{Audience: entra.DefaultAudience, Issuer: "https://issuer.example", Subject: "role"}
	if stored, err := w.store.LookAtApp(t.Context(), "default"); err != nil || stored.Credential.Federation == nil || *stored.Credential.Federation != want {
		t.Errorf("the app says %+v, %v", stored.Credential.Federation, err)
	}
}
