package entra_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"entra-connector/pkg/entra"
	"entra-connector/pkg/entra/entratest"
)

// keys are made once, since that takes time.
var rsaKey, otherKey, shortKey = sync.OnceValue(newKey(2048)), sync.OnceValue(newKey(2048)), sync.OnceValue(newKey(1024))

func newKey(bits int) func() *rsa.PrivateKey {
	return func() *rsa.PrivateKey {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			panic(err)
		}
		return key
	}
}

// certificate is valid from start for a year, unless said otherwise.
func certificate(t *testing.T, key crypto.Signer, from, to time.Time) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "connector"}, NotBefore: from, NotAfter: to}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func pemOf(t *testing.T, parts ...any) string {
	t.Helper()
	var b bytes.Buffer
	for _, part := range parts {
		switch part := part.(type) {
		case *x509.Certificate:
			pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: part.Raw})
		case crypto.Signer:
			der, err := x509.MarshalPKCS8PrivateKey(part)
			if err != nil {
				t.Fatal(err)
			}
			pem.Encode(&b, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
		case *pem.Block:
			pem.Encode(&b, part)
		case string:
			b.WriteString(part)
		}
	}
	return b.String()
}

func TestCertificateRules(t *testing.T) {
	year := start.AddDate(1, 0, 0)
	good := certificate(t, rsaKey(), start, year)
	other := certificate(t, otherKey(), start, year)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pkcs1 := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey())}
	tests := []struct {
		name, file, says string // says is empty where the file is good
	}{
		{"key first", pemOf(t, rsaKey(), good), ""},
		{"certificate first", pemOf(t, good, rsaKey()), ""},
		{"PKCS #1", pemOf(t, pkcs1, good), ""},
		{"with its chain", pemOf(t, rsaKey(), good, other), ""},
		{"without the last line break", strings.TrimSpace(pemOf(t, rsaKey(), good)), ""},
		{"no PEM", "MIIC…", "not PEM"},
		{"text after it", pemOf(t, rsaKey(), good, "trailing"), "not PEM"},
		{"no key", pemOf(t, good), "no private key"},
		{"no certificate", pemOf(t, rsaKey()), "no certificate"},
		{"two keys", pemOf(t, rsaKey(), otherKey(), good), "more than one"},
		{"other key", pemOf(t, otherKey(), good), "does not belong"},
		{"chain the wrong way round", pemOf(t, rsaKey(), other, good), "does not belong"},
		{"1024 bits", pemOf(t, shortKey(), certificate(t, shortKey(), start, year)), "2048"},
		{"elliptic curve", pemOf(t, ec, certificate(t, ec, start, year)), "RSA"},
		{"encrypted, PKCS #8", pemOf(t, &pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")}, good), "encrypted"},
		{"encrypted, OpenSSL's way", pemOf(t, &pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}, Bytes: []byte("x")}, good), "encrypted"},
		{"broken key", pemOf(t, &pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}, good), "cannot be read"},
		{"broken certificate", pemOf(t, rsaKey(), &pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), "cannot be read"},
		{"something else", pemOf(t, rsaKey(), good, &pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte("x")}), "something other"},
		{"expired", pemOf(t, rsaKey(), certificate(t, rsaKey(), start.AddDate(-1, 0, 0), start.Add(-time.Second))), "expired at 2026-11-23T00:59:59Z"},
		{"not yet valid", pemOf(t, rsaKey(), certificate(t, rsaKey(), start.Add(time.Hour), year)), "not valid before 2026-11-23T02:00:00Z"},
	}
	for _, tt := range tests {
		app, err := entra.NewApp("a", entra.AppFields{ClientID: clientID, Certificate: entra.NewSecret(tt.file), Scope: graph}, start)
		if tt.says == "" {
			if err != nil || !app.Credential.ExpiresAt().Equal(year) {
				t.Errorf("%s: %v, expires at %v", tt.name, err, app.Credential.ExpiresAt())
			}
			continue
		}
		if got := strings.Join(fieldsOf(t, err), " "); got != "certificate" || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want something of %q", tt.name, err, tt.says)
		}
		if err != nil && (strings.Contains(err.Error(), "BEGIN") || strings.Contains(err.Error(), "MII")) {
			t.Errorf("%s: quotes the file: %v", tt.name, err)
		}
	}
}

func TestCredentialFields(t *testing.T) {
	secret := entra.NewSecret(canary)
	file := entra.NewSecret(pemOf(t, rsaKey(), certificate(t, rsaKey(), start, start.AddDate(1, 0, 0))))
	federation := &entra.FederationFields{}
	tests := []struct {
		name   string
		fields entra.AppFields
		wrong  string
	}{
		{"secret", entra.AppFields{ClientSecret: secret}, ""},
		{"secret with a date", entra.AppFields{ClientSecret: secret, ClientSecretExpiresAt: "2027-01-31"}, ""},
		{"secret with a time", entra.AppFields{ClientSecret: secret, ClientSecretExpiresAt: "2027-01-31T12:00:00+01:00"}, ""},
		{"secret of 24 months", entra.AppFields{ClientSecret: secret, ClientSecretExpiresAt: "2028-11-23"}, ""},
		{"federation", entra.AppFields{Federation: federation}, ""},
		{"federation for another audience", entra.AppFields{Federation: &entra.FederationFields{Audience: "api://AzureADTokenExchangeUSGov"}}, ""},
		{"secret and certificate", entra.AppFields{ClientSecret: secret, Certificate: file}, "client_secret"},
		{"certificate and federation", entra.AppFields{Certificate: file, Federation: federation}, "client_secret"},
		{"none", entra.AppFields{}, "client_secret"},
		{"date gone by", entra.AppFields{ClientSecret: secret, ClientSecretExpiresAt: "2026-11-23"}, "client_secret_expires_at"},
		{"date too far", entra.AppFields{ClientSecret: secret, ClientSecretExpiresAt: "2028-11-25"}, "client_secret_expires_at"},
		{"no date", entra.AppFields{ClientSecret: secret, ClientSecretExpiresAt: "31.1.2027"}, "client_secret_expires_at"},
		{"no such date", entra.AppFields{ClientSecret: secret, ClientSecretExpiresAt: "2027-02-30"}, "client_secret_expires_at"},
		{"date of a certificate", entra.AppFields{Certificate: file, ClientSecretExpiresAt: "2027-01-31"}, "client_secret_expires_at"},
		{"audience with a space", entra.AppFields{Federation: &entra.FederationFields{Audience: "a b"}}, "federation"},
		{"long audience", entra.AppFields{Federation: &entra.FederationFields{Audience: strings.Repeat("a", 601)}}, "federation"},
	}
	for _, tt := range tests {
		tt.fields.ClientID, tt.fields.Scope = clientID, graph
		_, err := entra.NewApp("a", tt.fields, start)
		if got := strings.Join(fieldsOf(t, err), " "); got != tt.wrong {
			t.Errorf("%s: complains of %q, want %q", tt.name, got, tt.wrong)
		}
	}
}

// The stand-in verifies the assertion as Entra documents it; what it remembers
// of it is checked here.
func TestCertificateGetsTokens(t *testing.T) {
	w := newWorld(t)
	leaf := certificate(t, rsaKey(), start, start.AddDate(1, 0, 0))
	w.entra.AddApp(entratest.App{ClientID: clientID, Certificates: []*x509.Certificate{leaf}})
	app, err := entra.NewApp("default", entra.AppFields{ClientID: clientID, Certificate: entra.NewSecret(pemOf(t, rsaKey(), leaf)), Scope: graph}, start)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // a jti is good once
		if _, err := w.client.Token(t.Context(), app, tenantA); err != nil {
			t.Fatal(err)
		}
	}
	if r := w.entra.Requests()[0]; r.CredentialKind != "certificate" {
		t.Errorf("Entra saw a %s", r.CredentialKind)
	}
	unknown := certificate(t, otherKey(), start, start.AddDate(1, 0, 0))
	app, err = entra.NewApp("default", entra.AppFields{ClientID: clientID, Certificate: entra.NewSecret(pemOf(t, otherKey(), unknown)), Scope: graph}, start)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.Token(t.Context(), app, tenantA); asEntraError(t, err).Code != "AADSTS700027" {
		t.Errorf("with a certificate that is not registered: %v", err)
	}
}

// issuer is an assertion source that signs by itself.
type issuer struct {
	url, subject string
	now          func() time.Time
	err          error
}

func (i issuer) Assertion(_ context.Context, audience string) (entra.Secret, error) {
	if i.err != nil {
		return entra.Secret{}, i.err
	}
	t := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"iss": i.url, "sub": i.subject, "aud": audience, "iat": i.now().Unix(), "nbf": i.now().Unix(), "exp": i.now().Add(time.Minute).Unix(),
	})
	signed, err := t.SignedString(rsaKey())
	return entra.NewSecret(signed), err
}

func TestFederationGetsTokens(t *testing.T) {
	w := newWorld(t)
	const url, subject = "https://issuer.example", "arn:aws:iam::123456789012:role/provision"
	w.entra.AddApp(entratest.App{ClientID: clientID, Federated: []entratest.Federated{
		{Issuer: url, Subject: subject, Audience: "api://AzureADTokenExchange", Key: &rsaKey().PublicKey},
	}})
	federated := func(i entra.AssertionSource) {
		w.provisioner.Entra = entra.NewClient(entra.ClientConfig{Authority: w.entra.URL(), Now: w.clock.Now, Assertions: i})
	}
	request := entra.ProvisionRequest{TenantID: tenantA, App: "default",
		AppFields: &entra.AppFields{ClientID: clientID, Federation: &entra.FederationFields{}, Scope: graph}}
	brief, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()

	federated(issuer{url: url, subject: "arn:aws:iam::123456789012:role/other", now: w.clock.Now})
	_, _, err := w.provisioner.Provision(brief, request)
	if e := asEntraError(t, err); e.Code != "AADSTS700213" || !strings.Contains(e.Action(), "role/other") || !strings.Contains(e.Action(), url) {
		t.Errorf("with another subject: %v, %s", err, e.Action())
	}
	federated(issuer{err: &entra.Error{Class: entra.Refused, Code: entra.CodeFederationDisabled}})
	if _, _, err := w.provisioner.Provision(brief, request); asEntraError(t, err).Code != entra.CodeFederationDisabled {
		t.Errorf("with federation off: %v", err)
	}
	federated(nil)
	if _, _, err := w.provisioner.Provision(brief, request); asEntraError(t, err).Class != entra.Refused {
		t.Errorf("without a source: %v", err)
	}

	federated(issuer{url: url, subject: subject, now: w.clock.Now})
	if _, _, err := w.provisioner.Provision(brief, request); err != nil {
		t.Fatal(err)
	}
	app, err := w.store.DescribeApp(t.Context(), "default")
	if f := app.Credential.Federation; err != nil || f == nil || f.Issuer != url || f.Subject != subject || f.Audience != "api://AzureADTokenExchange" {
		t.Errorf("the app says %+v, %v", f, err)
	}
	requests := w.entra.Requests()
	if got := requests[len(requests)-1].CredentialKind; got != "federated" {
		t.Errorf("Entra saw a %s", got)
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
		app := entra.App{Name: "a", Credential: entra.Credential{ClientSecret: entra.NewSecret(canary), SecretExpiresAt: start.Add(tt.left)}}
		got, soon := app.Expiring(start)
		if soon != (tt.days >= 0) || soon && (got.WithinDays != tt.days || got.App != "a" || got.Credential != "client_secret") {
			t.Errorf("%v left: %+v, %t", tt.left, got, soon)
		}
	}

	w := newWorld(t)
	request := validRequest()
	request.AppFields.ClientSecretExpiresAt = "2026-11-30"
	if _, _, err := w.provisioner.Provision(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	report := w.sweep(t)
	if want := (entra.Expiring{App: "default", Credential: "client_secret", ExpiresAt: time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC), WithinDays: 7}); len(report.Expiring) != 1 || report.Expiring[0] != want {
		t.Errorf("the sweep reports %+v, want %+v", report.Expiring, want)
	}
	if log := w.log.String(); !strings.Contains(log, `"level":"WARN","msg":"credential expires"`) {
		t.Errorf("nothing at WARN: %s", log)
	}
}

func TestRotationBetweenKinds(t *testing.T) {
	w := newWorld(t)
	c := w.provision(t, tenantA)
	leaf := certificate(t, rsaKey(), start, start.AddDate(1, 0, 0))
	byCertificate, err := entra.NewApp("default", entra.AppFields{ClientID: clientID, Certificate: entra.NewSecret(pemOf(t, rsaKey(), leaf)), Scope: graph}, start)
	if err != nil {
		t.Fatal(err)
	}
	before := w.secrets.Snapshot()
	brief, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, _, err := w.provisioner.PutApp(brief, byCertificate); asEntraError(t, err).Code != "AADSTS700027" || w.secrets.Snapshot() != before {
		t.Errorf("a certificate that Entra does not know: %v", err)
	}
	w.entra.AddApp(entratest.App{ClientID: clientID, Secrets: []entratest.Secret{{Value: canary}}, Certificates: []*x509.Certificate{leaf}})
	for _, app := range []entra.App{byCertificate, w.app()} {
		w.clock.advance(time.Second)
		if _, _, err := w.provisioner.PutApp(t.Context(), app); err != nil {
			t.Fatal(err)
		}
		w.clock.advance(time.Second)
		checkReport(t, app.Credential.Kind(), w.sweep(t), entra.SweepReport{Checked: 1, Due: 1, Refreshed: 1})
		requests := w.entra.Requests()
		want := map[string]string{"certificate": "certificate", "client_secret": "secret"}[app.Credential.Kind()]
		if got := requests[len(requests)-1].CredentialKind; got != want {
			t.Errorf("Entra saw a %s, want a %s", got, want)
		}
	}
	if got := w.connection(t, c.ConnectionRef).Status(); got != entra.OK {
		t.Errorf("the connection is %s", got)
	}
}
