package entratest_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net/url"
	"sync"
	"testing"
	"time"

	"entra-connector/pkg/entra/entratest"
)

const (
	issuer  = "https://00000000-1111-4222-8333-444444444444.tokens.sts.global.api.aws"
	subject = "arn:aws:iam::123456789012:role/refresh"
	tokenX  = "api://AzureADTokenExchange"
)

var newKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

func certificate(t *testing.T, serial int64, until time.Time) *x509.Certificate {
	t.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "app"},
		NotBefore: now.Add(-time.Hour), NotAfter: until,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, newKey().Public(), newKey())
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return c
}

// sign makes a JWT; alg says how.
func sign(t *testing.T, header, claims map[string]any) string {
	t.Helper()
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	signed := part(header) + "." + part(claims)
	sum := sha256.Sum256([]byte(signed))
	var sig []byte
	var err error
	switch header["alg"] {
	case "PS256":
		sig, err = rsa.SignPSS(rand.Reader, newKey(), crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	default:
		sig, err = rsa.SignPKCS1v15(rand.Reader, newKey(), crypto.SHA256, sum[:])
	}
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func assertionForm(jwt string, change ...string) url.Values {
	return form(append([]string{
		"client_secret", "", "client_assertion", jwt,
		"client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
	}, change...)...)
}

// with copies m with changes; nil deletes.
func with(m map[string]any, change ...any) map[string]any {
	m = maps.Clone(m)
	for i := 0; i < len(change); i += 2 {
		m[change[i].(string)] = change[i+1]
		if change[i+1] == nil {
			delete(m, change[i].(string))
		}
	}
	return m
}

func TestCertificateAssertion(t *testing.T) {
	cert, old, stranger := certificate(t, 1, now.Add(time.Hour)), certificate(t, 2, now.Add(-time.Second)), certificate(t, 3, now.Add(time.Hour))
	s := start(t)
	s.AddApp(entratest.App{ClientID: client, Certificates: []*x509.Certificate{old, cert}})
	sum := func(c *x509.Certificate) []byte { d := sha256.Sum256(c.Raw); return d[:] }
	sum1 := sha1.Sum(cert.Raw)
	header := map[string]any{"alg": "PS256", "typ": "JWT", "x5t#S256": base64.RawURLEncoding.EncodeToString(sum(cert))}
	rs256 := map[string]any{"alg": "RS256", "typ": "JWT", "x5t": base64.RawURLEncoding.EncodeToString(sum1[:])}
	tokenURL := s.URL() + "/" + tenant + "/oauth2/v2.0/token"
	good := map[string]any{
		"aud": tokenURL, "iss": client, "sub": client, "nbf": now.Unix(), "exp": now.Unix() + 1,
	}
	serial := 0
	for _, tt := range []struct {
		name   string
		header map[string]any
		claims map[string]any
		tenant string
		code   int
		error  string
	}{
		{"ps256", header, good, tenant, 0, ""},
		{"standard_base64", with(header, "x5t#S256", base64.StdEncoding.EncodeToString(sum(cert))), good, tenant, 0, ""},
		{"rs256", rs256, good, tenant, 0, ""},
		{"numbers_as_strings", header, with(good, "nbf", fmt.Sprint(now.Unix()), "exp", fmt.Sprint(now.Unix()+1)), tenant, 0, ""},
		{"aud_of_guid_by_domain", header, good, "contoso.com", 0, ""},
		{"aud_of_domain", header, with(good, "aud", s.URL()+"/contoso.com/oauth2/v2.0/token"), "contoso.com", 0, ""},
		{"aud_of_other_tenant", header, with(good, "aud", s.URL()+"/"+other+"/oauth2/v2.0/token"), tenant, 50012, "invalid_client"},
		{"aud_of_real_entra", header, with(good, "aud", "https://login.microsoftonline.com/"+tenant+"/oauth2/v2.0/token"), tenant, 50012, "invalid_client"},
		{"two_audiences", header, with(good, "aud", []string{tokenURL, "x"}), tenant, 50012, "invalid_client"},
		{"no_jti", header, with(good, "jti", ""), tenant, 50012, "invalid_client"},
		{"expired", header, with(good, "exp", now.Unix()), tenant, 700024, "invalid_client"},
		{"not_yet", header, with(good, "nbf", now.Unix()+1), tenant, 700024, "invalid_client"},
		{"no_exp", header, with(good, "exp", nil), tenant, 700024, "invalid_client"},
		{"no_nbf", header, with(good, "nbf", nil), tenant, 700024, "invalid_client"},
		{"iss_is_not_sub", header, with(good, "iss", other), tenant, 50048, "invalid_client"},
		{"of_other_app", header, with(good, "iss", other, "sub", other), tenant, 700021, "invalid_client"},
		{"no_thumbprint", with(header, "x5t#S256", nil), good, tenant, 700027, "invalid_client"},
		{"unknown_certificate", with(header, "x5t#S256", base64.RawURLEncoding.EncodeToString(sum(stranger))), good, tenant, 700027, "invalid_client"},
		{"expired_certificate", with(header, "x5t#S256", base64.RawURLEncoding.EncodeToString(sum(old))), good, tenant, 700027, "invalid_client"},
		{"rs256_with_sha256", with(header, "alg", "RS256"), good, tenant, 700027, "invalid_client"},
		{"alg_none", with(header, "alg", "none"), good, tenant, 700027, "invalid_client"},
		{"no_aud", header, with(good, "aud", nil), tenant, 50027, "invalid_request"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.ResetRequests()
			serial++
			if _, ok := tt.claims["jti"]; !ok {
				tt.claims = with(tt.claims, "jti", fmt.Sprint(serial))
			}
			jwt := sign(t, tt.header, tt.claims)
			r := ask(t, s, tt.tenant, assertionForm(jwt))
			if kind := last(t, s).CredentialKind; kind != "certificate" {
				t.Errorf("recorded credential %q", kind)
			}
			if tt.code != 0 {
				wantRefusal(t, s, r, tt.code, tt.error)
				return
			}
			if r.Status != 200 {
				t.Fatalf("got %d %s", r.Status, r.Body)
			}
			s.ResetRequests()
			wantRefusal(t, s, ask(t, s, tt.tenant, assertionForm(jwt)), 50012, "invalid_client") // replayed
		})
	}

	jwt := sign(t, header, with(good, "jti", "x"))
	forged := jwt[:len(jwt)-8] + "AAAAAAAA"
	for _, tt := range []struct {
		name  string
		form  url.Values
		code  int
		error string
	}{
		{"forged", assertionForm(forged), 700027, "invalid_client"},
		{"not_a_jwt", assertionForm("x"), 50027, "invalid_request"},
		{"no_type", assertionForm(jwt, "client_assertion_type", ""), 900144, "invalid_request"},
		{"no_assertion", assertionForm(""), 900144, "invalid_request"},
		{"other_type", assertionForm(jwt, "client_assertion_type", "jwt"), 9002313, "invalid_request"},
		{"and_a_secret", assertionForm(jwt, "client_secret", secret), 9002313, "invalid_request"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.ResetRequests()
			wantRefusal(t, s, ask(t, s, tenant, tt.form), tt.code, tt.error)
		})
	}
}

func TestFederatedAssertion(t *testing.T) {
	s := start(t)
	trust := entratest.Federated{Issuer: issuer, Subject: subject, Audience: tokenX, Key: &newKey().PublicKey}
	decoy := trust
	decoy.Subject = "arn:aws:iam::123456789012:role/decoy"
	header := map[string]any{"alg": "RS256", "typ": "JWT", "kid": "1"}
	good := map[string]any{"iss": issuer, "sub": subject, "aud": tokenX, "exp": now.Unix() + 1, "jti": "1"}
	for _, tt := range []struct {
		name   string
		trust  []entratest.Federated
		header map[string]any
		claims map[string]any
		code   int
		error  string
	}{
		{"match", []entratest.Federated{decoy, trust}, header, good, 0, ""},
		{"audience_list_of_one", []entratest.Federated{trust}, header, with(good, "aud", []string{tokenX}), 0, ""},
		{"no_credential", nil, header, good, 70021, "invalid_request"},
		{"issuer", []entratest.Federated{trust}, header, with(good, "iss", issuer+"/"), 700211, "invalid_client"},
		{"subject_case", []entratest.Federated{trust}, header, with(good, "sub", "ARN:aws:iam::123456789012:role/refresh"), 700213, "invalid_client"},
		{"audience", []entratest.Federated{trust}, header, with(good, "aud", "sts.amazonaws.com"), 700212, "invalid_client"},
		{"two_audiences", []entratest.Federated{trust}, header, with(good, "aud", []string{tokenX, "x"}), 700212, "invalid_client"},
		{"not_rs256", []entratest.Federated{trust}, with(header, "alg", "PS256"), good, 700027, "invalid_client"},
		{"expired", []entratest.Federated{trust}, header, with(good, "exp", now.Unix()), 700024, "invalid_client"},
		{"not_yet", []entratest.Federated{trust}, header, with(good, "nbf", now.Unix()+1), 700024, "invalid_client"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.ResetRequests()
			s.AddApp(entratest.App{ClientID: client, Federated: tt.trust})
			f := assertionForm(sign(t, tt.header, tt.claims))
			r := ask(t, s, tenant, f)
			if kind := last(t, s).CredentialKind; kind != "federated" {
				t.Errorf("recorded credential %q", kind)
			}
			if tt.code != 0 {
				wantRefusal(t, s, r, tt.code, tt.error)
				return
			}
			if again := ask(t, s, tenant, f); r.Status != 200 || again.Status != 200 {
				t.Errorf("got %d %s, then %d", r.Status, r.Body, again.Status)
			}
		})
	}
	t.Run("signature_of_another", func(t *testing.T) {
		s.ResetRequests()
		stranger, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		bad := trust
		bad.Key = &stranger.PublicKey
		s.AddApp(entratest.App{ClientID: client, Federated: []entratest.Federated{bad}})
		wantRefusal(t, s, ask(t, s, tenant, assertionForm(sign(t, header, good))), 700027, "invalid_client")
	})
}
