package entra_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
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
		key, _ := rsa.GenerateKey(rand.Reader, bits)
		return key
	}
}

func certificate(key crypto.Signer, from, to time.Time) *x509.Certificate {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "connector"}, NotBefore: from, NotAfter: to}
	der, _ := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return &x509.Certificate{Raw: der, PublicKey: key.Public(), NotBefore: from, NotAfter: to}
}

func pemOf(parts ...any) string {
	var b bytes.Buffer
	for _, part := range parts {
		switch part := part.(type) {
		case *x509.Certificate:
			pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: part.Raw})
		case crypto.Signer:
			der, _ := x509.MarshalPKCS8PrivateKey(part)
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
	good := certificate(rsaKey(), start, year)
	other := certificate(otherKey(), start, year)
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	pkcs1 := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey())}
	// What Go neither parses nor makes: a serial number of -1, and a key for RSASSA-PSS alone.
	negative := &pem.Block{Type: "CERTIFICATE", Bytes: bytes.Replace(good.Raw, []byte{2, 1, 1}, []byte{2, 1, 0xff}, 1)}
	pss, _ := asn1.Marshal(struct {
		Version   int
		Algorithm struct{ Algorithm asn1.ObjectIdentifier }
		Key       []byte
	}{0, struct{ Algorithm asn1.ObjectIdentifier }{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}}, pkcs1.Bytes})
	tests := []struct {
		name, file, says string // says is empty where the file is good
	}{
		{"key first", pemOf(rsaKey(), good), ""},
		{"certificate first", pemOf(good, rsaKey()), ""},
		{"PKCS #1", pemOf(pkcs1, good), ""},
		{"with its chain", pemOf(rsaKey(), good, other), ""},
		{"without the last line break", strings.TrimSpace(pemOf(rsaKey(), good)), ""},
		{"no PEM", "MIIC…", "not PEM"},
		{"text around it", "# ours\n" + pemOf(rsaKey(), good, "# renewed\n"), ""},
		{"behind a byte order mark", "\ufeff" + pemOf(rsaKey(), good), ""},
		{"line breaks lost", strings.ReplaceAll(pemOf(rsaKey(), good), "\n", " "), "line breaks"},
		{"line breaks as two characters", strings.ReplaceAll(pemOf(rsaKey(), good), "\n", `\n`), "line breaks"},
		{"one block lost its line breaks", pemOf(rsaKey()) + strings.ReplaceAll(pemOf(good), "\n", " "), "line breaks"},
		{"PKCS #1 under the other label", pemOf(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs1.Bytes}, good), ""},
		{"no key", pemOf(good), "no private key"},
		{"no certificate", pemOf(rsaKey()), "no certificate"},
		{"two keys", pemOf(rsaKey(), otherKey(), good), "more than one"},
		{"other key", pemOf(otherKey(), good), "does not belong"},
		{"chain first", pemOf(rsaKey(), other, good), ""},
		{"renewed, the old one first", pemOf(rsaKey(), certificate(rsaKey(), start.AddDate(-1, 0, 0), start.Add(-time.Second)), good), ""},
		{"renewed, the old one last", pemOf(rsaKey(), good, certificate(rsaKey(), start.AddDate(-1, 0, 0), start.AddDate(0, 0, 1))), ""},
		{"renewed for later", pemOf(rsaKey(), certificate(rsaKey(), start.AddDate(0, 1, 0), start.AddDate(2, 0, 0)), good), ""},
		{"a certificate beside it that nobody can read", pemOf(rsaKey(), &pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}, good), ""},
		{"negative serial number", pemOf(rsaKey(), negative), ""},
		{"elliptic curve, with its parameters", pemOf(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte("x")}, ec, good), "RSA"},
		{"RSASSA-PSS", pemOf(&pem.Block{Type: "PRIVATE KEY", Bytes: pss}, good), "RSASSA-PSS"},
		{"1024 bits", pemOf(shortKey(), certificate(shortKey(), start, year)), "2048"},
		{"elliptic curve", pemOf(ec, certificate(ec, start, year)), "RSA"},
		{"encrypted, PKCS #8", pemOf(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")}, good), "encrypted"},
		{"encrypted, OpenSSL's way", pemOf(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}, Bytes: []byte("x")}, good), "encrypted"},
		{"broken key", pemOf(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}, good), "cannot be read"},
		{"broken certificate", pemOf(rsaKey(), &pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), "cannot be read"},
		{"something else", pemOf(rsaKey(), good, &pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte("x")}), "something other"},
		{"expired", pemOf(rsaKey(), certificate(rsaKey(), start.AddDate(-1, 0, 0), start.Add(-time.Second))), "expired at 2026-11-23T00:59:59Z"},
		{"not yet valid", pemOf(rsaKey(), certificate(rsaKey(), start.Add(time.Hour), year)), "not valid before 2026-11-23T02:00:00Z"},
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

// issuer is an assertion source that signs by itself.
type issuer struct {
	url, subject string
	err          error
}

func (i issuer) Assertion(_ context.Context, audience string) (entra.Secret, error) {
	t := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"iss": i.url, "sub": i.subject, "aud": audience, "iat": start.Unix(), "nbf": start.Unix(), "exp": start.Add(time.Minute).Unix(),
	})
	signed, err := t.SignedString(rsaKey())
	return entra.NewSecret(signed), cmp.Or(i.err, err)
}

// The stand-in verifies assertions as Entra documents them. Who they are issued for is told where
// Entra does not know it.
func TestAssertionsGetTokens(t *testing.T) {
	const url, subject, audience = "https://issuer.example", "arn:aws:iam::123456789012:role/provision", entra.DefaultAudience
	w := newWorld(t)
	leaf := certificate(rsaKey(), start, start.AddDate(1, 0, 0))
	w.entra.AddApp(entratest.App{ClientID: clientID, Certificates: []*x509.Certificate{leaf},
		Federated: []entratest.Federated{{Issuer: url, Subject: subject, Audience: audience, Key: &rsaKey().PublicKey}}})
	certified := func(file string) entra.Credential {
		c, err := entra.ParseCertificate(entra.NewSecret(file), start)
		if err != nil {
			t.Fatal(err)
		}
		return entra.Credential{Certificate: c}
	}
	known, other := certified(pemOf(rsaKey(), leaf)), certified(pemOf(otherKey(), certificate(otherKey(), start, start.AddDate(1, 0, 0))))
	federation := func(subject string) entra.Credential {
		return entra.Credential{Federation: &entra.Federation{Audience: audience, Issuer: url, Subject: subject}}
	}
	for _, tt := range []struct {
		name       string
		credential entra.Credential
		source     entra.AssertionSource
		kind       string // that Entra saw
		code       string // or that of the refusal
	}{
		{"certificate", known, nil, "certificate", ""},
		{"certificate, again with another jti", known, nil, "certificate", ""},
		{"another certificate", other, nil, "certificate", "AADSTS700027"},
		{"federation", federation(subject), issuer{url: url, subject: subject}, "federated", ""},
		{"another subject", federation(subject + "2"), issuer{url: url, subject: subject + "2"}, "federated", "AADSTS700213"},
		{"an issuer that refuses", federation(""), issuer{err: &entra.Error{Code: "issuer_says_no"}}, "", "issuer_says_no"},
		{"no issuer", federation(""), nil, "", entra.CodeNoAssertion},
	} {
		w.entra.ResetRequests()
		client := w.newClient(entra.ClientConfig{Assertions: tt.source})
		app := registration
		app.Credential = tt.credential
		_, err := client.Token(t.Context(), app, graph, tenantA)
		if tt.code == "" && err != nil || tt.code != "" && asEntraError(t, err).Code != tt.code {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.code)
		}
		if r := w.entra.Requests(); tt.kind != "" && r[0].CredentialKind != tt.kind || tt.kind == "" && len(r) > 0 {
			t.Errorf("%s: Entra saw %+v, want a %s", tt.name, r, tt.kind)
		}
		if tt.code == "AADSTS700213" && !strings.Contains(asEntraError(t, err).Action, url+", subject "+subject+"2 and audience "+audience) {
			t.Errorf("the advice does not say what to enter: %s", asEntraError(t, err).Action)
		}
		if f := app.Credential.Federation; f != nil {
			if got, err := client.Identify(t.Context(), entra.Federation{Audience: audience}); (err == nil) != (tt.kind != "") || err == nil && got != *f {
				t.Errorf("%s: identified as %+v, %v", tt.name, got, err)
			}
		}
	}
}

// A secret must not show through any verb or encoder, whatever holds it.
func TestSecretNeverPrints(t *testing.T) {
	type exported struct{ S entra.Secret }
	type unexported struct{ s entra.Secret }
	type nested struct {
		inner unexported
		list  []entra.Secret
		any   any
	}
	secret := entra.NewSecret(canary)
	for _, holder := range []any{
		secret, &secret, exported{secret}, unexported{secret}, nested{unexported{secret}, []entra.Secret{secret}, unexported{secret}},
		map[string]entra.Secret{"k": secret}, fmt.Errorf("wrapped: %v", secret), entra.Token{AccessToken: secret},
		entra.Registration{Credential: entra.Credential{ClientSecret: secret, Certificate: &entra.Certificate{PEM: secret}}},
	} {
		var b bytes.Buffer
		for _, verb := range strings.Split("%v %+v %#v %s %q %x %X %d %t %T %p %08b", " ") {
			fmt.Fprintf(&b, verb, holder)
		}
		slog.New(slog.NewTextHandler(&b, nil)).Info("m", "k", holder)
		slog.New(slog.NewJSONHandler(&b, nil)).Info("m", "k", holder)
		json.NewEncoder(&b).Encode(holder)
		if got := b.String(); strings.Contains(got, canary) || strings.Contains(strings.ToLower(got), fmt.Sprintf("%x", canary)) {
			t.Errorf("%T prints %s", holder, got)
		}
	}
	if secret.Reveal() != canary || !secret.Equal(entra.NewSecret(canary)) || secret.Equal(entra.NewSecret("x")) || secret.Equal(entra.Secret{}) {
		t.Error("a secret is not what it was made of")
	}
}
