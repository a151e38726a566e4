package entratest_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"maps"
	"math/big"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"entra-connector/pkg/entra/entratest"
)

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// must is for what a test needs and cannot go wrong.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// certify returns a certificate and its thumbprint.
func certify(key *rsa.PrivateKey, serial int64, until time.Time) (*x509.Certificate, []byte) {
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotBefore: now.Add(-time.Hour), NotAfter: until}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	sum := sha256.Sum256(der)
	return must(x509.ParseCertificate(der)), sum[:]
}

func TestAssertions(t *testing.T) {
	s := start(t)
	key := must(rsa.GenerateKey(rand.Reader, 2048))
	stranger := must(rsa.GenerateKey(rand.Reader, 2048))
	cert, sum := certify(key, 1, now.Add(time.Hour))
	old, oldSum := certify(key, 2, now.Add(-time.Second))
	_, reissuedSum := certify(key, 3, now.Add(time.Hour))
	trust := entratest.Federated{
		Issuer: "https://issuer.example", Subject: "arn:aws:iam::123456789012:role/refresh", Audience: "api://AzureADTokenExchange", Key: &key.PublicKey,
	}
	decoy := trust
	decoy.Subject = "arn:aws:iam::123456789012:role/decoy"
	s.AddApp(entratest.App{ClientID: client, Certificates: []*x509.Certificate{old, cert}, Federated: []entratest.Federated{decoy, trust}})

	url64 := base64.RawURLEncoding.EncodeToString
	tokenURL := func(tenant string) string { return s.URL() + "/" + tenant + "/oauth2/v2.0/token" }
	type claims = jwt.MapClaims
	own := claims{"aud": tokenURL(tenant), "iss": client, "sub": client, "nbf": now.Unix(), "exp": now.Unix() + 1}
	foreign := claims{"iss": trust.Issuer, "sub": trust.Subject, "aud": trust.Audience, "exp": now.Unix() + 1}
	ps256, rs256, none := jwt.SigningMethodPS256, jwt.SigningMethodRS256, jwt.SigningMethodNone
	for i, tt := range []struct {
		name       string
		method     jwt.SigningMethod
		key        any
		thumbprint string
		claims     claims
		change     claims // nil deletes
		tenant     string
		code       int
	}{
		{"certificate", ps256, key, url64(sum), own, nil, tenant, 0},
		{"in standard base64", ps256, key, base64.StdEncoding.EncodeToString(sum), own, nil, tenant, 0},
		{"aud of GUID by domain", ps256, key, url64(sum), own, nil, "contoso.com", 0},
		{"aud of domain", ps256, key, url64(sum), own, claims{"aud": tokenURL("contoso.com")}, "contoso.com", 0},
		{"aud of other tenant", ps256, key, url64(sum), own, claims{"aud": tokenURL(other)}, tenant, 50012},
		{"no aud", ps256, key, url64(sum), own, claims{"aud": nil}, tenant, 50027},
		{"no jti", ps256, key, url64(sum), own, claims{"jti": nil}, tenant, 50012},
		{"expired", ps256, key, url64(sum), own, claims{"exp": now.Unix()}, tenant, 700024},
		{"not yet", ps256, key, url64(sum), own, claims{"nbf": now.Unix() + 1}, tenant, 700024},
		{"no exp", ps256, key, url64(sum), own, claims{"exp": nil}, tenant, 700024},
		{"no nbf", ps256, key, url64(sum), own, claims{"nbf": nil}, tenant, 700024},
		{"iss is not sub", ps256, key, url64(sum), own, claims{"iss": other}, tenant, 50048},
		{"of other app", ps256, key, url64(sum), own, claims{"iss": other, "sub": other}, tenant, 700021},
		{"no thumbprint", ps256, key, "", own, nil, tenant, 700027},
		{"certificate reissued", ps256, key, url64(reissuedSum), own, nil, tenant, 700027},
		{"certificate expired", ps256, key, url64(oldSum), own, nil, tenant, 700027},
		{"certificate with RS256", rs256, key, url64(sum), own, nil, tenant, 700027},
		{"no signature", none, jwt.UnsafeAllowNoneSignatureType, url64(sum), own, nil, tenant, 700027},
		{"forged", ps256, stranger, url64(sum), own, nil, tenant, 700027},

		{"federated", rs256, key, "", foreign, nil, tenant, 0},
		{"issuer", rs256, key, "", foreign, claims{"iss": trust.Issuer + "/"}, tenant, 700211},
		{"subject in another case", rs256, key, "", foreign, claims{"sub": "ARN:aws:iam::123456789012:role/refresh"}, tenant, 700213},
		{"audience", rs256, key, "", foreign, claims{"aud": "sts.amazonaws.com"}, tenant, 700212},
		{"federated with PS256", ps256, key, "", foreign, nil, tenant, 700027},
		{"federated, other key", rs256, stranger, "", foreign, nil, tenant, 700027},
		{"federated, expired", rs256, key, "", foreign, claims{"exp": now.Unix()}, tenant, 700024},
		{"federated, not yet", rs256, key, "", foreign, claims{"nbf": now.Unix() + 1}, tenant, 700024},
	} {
		t.Run(tt.name, func(t *testing.T) {
			token := jwt.NewWithClaims(tt.method, maps.Clone(tt.claims))
			payload := token.Claims.(claims)
			payload["jti"] = fmt.Sprint(i)
			maps.Copy(payload, tt.change)
			maps.DeleteFunc(payload, func(_ string, v any) bool { return v == nil })
			kind, again := "federated", 0
			if tt.claims["iss"] == client {
				kind, again = "certificate", 50012 // such an assertion is good for once
			}
			if tt.thumbprint != "" {
				token.Header["x5t#S256"] = tt.thumbprint
			}
			assertion := form("client_secret", "", "client_assertion", must(token.SignedString(tt.key)), "client_assertion_type", assertionType)
			s.ResetRequests()
			r, _ := ask(t, s, tt.tenant, assertion)
			wantCode(t, s, r, tt.code)
			if got := last(s).CredentialKind; got != kind {
				t.Errorf("recorded credential %q", got)
			}
			if tt.code == 0 {
				s.ResetRequests()
				r, _ := ask(t, s, tt.tenant, assertion)
				wantCode(t, s, r, again)
			}
		})
	}

	s.AddApp(entratest.App{ClientID: client, Secrets: []entratest.Secret{{Value: secret}}})
	signed := must(jwt.NewWithClaims(rs256, foreign).SignedString(key))
	for _, tt := range []struct {
		jwt, secret, kind string
		code              int
	}{
		{signed, "", assertionType, 70021}, // there is no federated credential
		{"x", "", assertionType, 50027},
		{signed, "", "jwt", 9002313},
		{signed, secret, assertionType, 9002313},
	} {
		s.ResetRequests()
		r, _ := ask(t, s, tenant, form("client_secret", tt.secret, "client_assertion", tt.jwt, "client_assertion_type", tt.kind))
		wantCode(t, s, r, tt.code)
	}
}
