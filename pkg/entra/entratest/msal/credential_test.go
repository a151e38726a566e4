package msal_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
)

// The federated issuer's identity, of the form that AWS gives a role's.
const (
	issuer   = "https://00000000-1111-4222-8333-444444444444.tokens.sts.global.api.aws"
	subject  = "arn:aws:iam::123456789012:role/refresh"
	exchange = "api://AzureADTokenExchange"
)

var appKey, issuerKey, strangerKey = sync.OnceValue(newKey), sync.OnceValue(newKey), sync.OnceValue(newKey)

func newKey() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
}

// certificates are what the app registration has.
var certificates = sync.OnceValue(func() []*x509.Certificate { return []*x509.Certificate{certify(appKey())} })

// certify makes a self-signed certificate, as most apps use: another one each time, of the same key too.
func certify(key *rsa.PrivateKey) *x509.Certificate {
	c := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "app"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		panic(err)
	}
	c.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err == nil {
		c, err = x509.ParseCertificate(der)
	}
	if err != nil {
		panic(err)
	}
	return c
}

func secretCred(t *testing.T, value string) confidential.Credential {
	t.Helper()
	c, err := confidential.NewCredFromSecret(value)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// certCred goes through PEM, as a certificate that an operator pastes does.
func certCred(t *testing.T, cert *x509.Certificate, key *rsa.PrivateKey) confidential.Credential {
	t.Helper()
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	certs, private, err := confidential.CertFromPEM(text, "")
	if err != nil {
		t.Fatal(err)
	}
	c, err := confidential.NewCredFromCert(certs, private)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func assertionCred(jwt string) confidential.Credential {
	return confidential.NewCredFromAssertionCallback(func(context.Context, confidential.AssertionRequestOptions) (string, error) {
		return jwt, nil
	})
}

// claims are those of the issuer's JWT that the app trusts, with changes.
func claims(change ...any) map[string]any {
	at := time.Now().Unix()
	m := map[string]any{"iss": issuer, "sub": subject, "aud": exchange, "iat": at, "nbf": at, "exp": at + 300, "jti": "1"}
	for i := 0; i < len(change); i += 2 {
		m[change[i].(string)] = change[i+1]
	}
	return m
}

// sign makes the RS256 JWT of an issuer.
func sign(t *testing.T, key *rsa.PrivateKey, claims map[string]any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	enc := base64.RawURLEncoding.EncodeToString
	signed := enc([]byte(`{"alg":"RS256","typ":"JWT","kid":"1"}`)) + "." + enc(payload)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + enc(signature)
}
