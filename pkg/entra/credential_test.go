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
	"encoding/asn1"
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
	// What Go neither parses nor makes: a serial number of -1, and a key for RSASSA-PSS alone.
	negative := &pem.Block{Type: "CERTIFICATE", Bytes: bytes.Replace(good.Raw, []byte{2, 1, 1}, []byte{2, 1, 0xff}, 1)}
	pss, err := asn1.Marshal(struct {
		Version   int
		Algorithm struct{ Algorithm asn1.ObjectIdentifier }
		Key       []byte
	}{0, struct{ Algorithm asn1.ObjectIdentifier }{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}}, pkcs1.Bytes})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, file, says string // says is empty where the file is good
	}{
		{"key first", pemOf(t, rsaKey(), good), ""},
		{"certificate first", pemOf(t, good, rsaKey()), ""},
		{"PKCS #1", pemOf(t, pkcs1, good), ""},
		{"with its chain", pemOf(t, rsaKey(), good, other), ""},
		{"without the last line break", strings.TrimSpace(pemOf(t, rsaKey(), good)), ""},
		{"no PEM", "MIIC…", "not PEM"},
		{"text around it", "# ours\n" + pemOf(t, rsaKey(), good, "# renewed\n"), ""},
		{"behind a byte order mark", "\ufeff" + pemOf(t, rsaKey(), good), ""},
		{"line breaks lost", strings.ReplaceAll(pemOf(t, rsaKey(), good), "\n", " "), "line breaks"},
		{"line breaks as two characters", strings.ReplaceAll(pemOf(t, rsaKey(), good), "\n", `\n`), "line breaks"},
		{"one block lost its line breaks", pemOf(t, rsaKey()) + strings.ReplaceAll(pemOf(t, good), "\n", " "), "line breaks"},
		{"PKCS #1 under the other label", pemOf(t, &pem.Block{Type: "PRIVATE KEY", Bytes: pkcs1.Bytes}, good), ""},
		{"no key", pemOf(t, good), "no private key"},
		{"no certificate", pemOf(t, rsaKey()), "no certificate"},
		{"two keys", pemOf(t, rsaKey(), otherKey(), good), "more than one"},
		{"other key", pemOf(t, otherKey(), good), "does not belong"},
		{"chain first", pemOf(t, rsaKey(), other, good), ""},
		{"renewed, the old one first", pemOf(t, rsaKey(), certificate(t, rsaKey(), start.AddDate(-1, 0, 0), start.Add(-time.Second)), good), ""},
		{"renewed, the old one last", pemOf(t, rsaKey(), good, certificate(t, rsaKey(), start.AddDate(-1, 0, 0), start.AddDate(0, 0, 1))), ""},
		{"renewed for later", pemOf(t, rsaKey(), certificate(t, rsaKey(), start.AddDate(0, 1, 0), start.AddDate(2, 0, 0)), good), ""},
		{"a certificate beside it that nobody can read", pemOf(t, rsaKey(), &pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}, good), ""},
		{"negative serial number", pemOf(t, rsaKey(), negative), ""},
		{"elliptic curve, with its parameters", pemOf(t, &pem.Block{Type: "EC PARAMETERS", Bytes: []byte("x")}, ec, good), "RSA"},
		{"RSASSA-PSS", pemOf(t, &pem.Block{Type: "PRIVATE KEY", Bytes: pss}, good), "RSASSA-PSS"},
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
		c, err := entra.ParseCertificate(entra.NewSecret(tt.file), start)
		if err == nil {
			err = c.CheckTime(start)
		}
		if tt.says == "" {
			if err != nil || !c.NotAfter.Equal(year) {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want something of %q", tt.name, err, tt.says)
		}
		if err != nil && (strings.Contains(err.Error(), "BEGIN") || strings.Contains(err.Error(), "MII")) {
			t.Errorf("%s: quotes the file: %v", tt.name, err)
		}
	}
}

// The stand-in verifies the assertion as Entra documents it; what it remembers
// of it is checked here.
func TestCertificateGetsTokens(t *testing.T) {
	w := newWorld(t)
	leaf := certificate(t, rsaKey(), start, start.AddDate(1, 0, 0))
	w.entra.AddApp(entratest.App{ClientID: clientID, Certificates: []*x509.Certificate{leaf}})
	app := registration
	for _, tt := range []struct {
		key  *rsa.PrivateKey
		leaf *x509.Certificate
		code string
	}{
		{rsaKey(), leaf, ""},
		{rsaKey(), leaf, ""}, // a jti is good once
		{otherKey(), certificate(t, otherKey(), start, start.AddDate(1, 0, 0)), "AADSTS700027"},
	} {
		parsed, err := entra.ParseCertificate(entra.NewSecret(pemOf(t, tt.key, tt.leaf)), start)
		if err != nil {
			t.Fatal(err)
		}
		app.Credential = entra.Credential{Certificate: parsed}
		_, err = w.client.Token(t.Context(), app, graph, tenantA)
		if tt.code == "" && err != nil || tt.code != "" && asEntraError(t, err).Code != tt.code {
			t.Errorf("%v, want %q", err, tt.code)
		}
	}
	if r := w.entra.Requests()[0]; r.CredentialKind != "certificate" {
		t.Errorf("Entra saw a %s", r.CredentialKind)
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
	const url, subject, audience = "https://issuer.example", "arn:aws:iam::123456789012:role/provision", "api://AzureADTokenExchange"
	w.entra.AddApp(entratest.App{ClientID: clientID, Federated: []entratest.Federated{
		{Issuer: url, Subject: subject, Audience: audience, Key: &rsaKey().PublicKey},
	}})
	denied := &entra.Error{Class: entra.Refused, Code: "issuer_says_no"}
	for _, tt := range []struct {
		source entra.AssertionSource
		code   string
	}{
		{issuer{url: url, subject: subject, now: w.clock}, ""},
		{issuer{url: url, subject: subject + "2", now: w.clock}, "AADSTS700213"},
		{issuer{err: denied}, "issuer_says_no"},
		{nil, entra.CodeNoAssertion},
	} {
		client := w.newClient(entra.ClientConfig{Assertions: tt.source})
		federation, err := client.Identify(t.Context(), entra.Federation{Audience: audience})
		app := registration
		app.Credential = entra.Credential{Federation: &federation}
		if err == nil {
			_, err = client.Token(t.Context(), app, graph, tenantA)
		}
		if tt.code == "" {
			if err != nil || federation.Issuer != url || federation.Subject != subject {
				t.Errorf("%+v, %v", federation, err)
			}
			continue
		}
		e := asEntraError(t, err)
		if e.Code != tt.code {
			t.Errorf("code %s, want %s", e.Code, tt.code)
		}
		if e.Code == "AADSTS700213" && (!strings.Contains(e.Action, subject+"2") || !strings.Contains(e.Action, url)) {
			t.Errorf("the advice does not say what to enter: %s", e.Action)
		}
	}
	if got := w.entra.Requests()[0].CredentialKind; got != "federated" {
		t.Errorf("Entra saw a %s", got)
	}
}
