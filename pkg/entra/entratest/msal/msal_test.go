// Package msal holds entratest to what Microsoft's own library expects of Entra: MSAL for Go gets
// its tokens there, and is refused where Entra would refuse it. If only our own client were tested
// against our own stand-in, both could share a mistake of ours.
//
// It is a module of its own, so that MSAL and what it needs never appear in the product's go.mod.
// go test ./... in the root therefore does not come here; run it in this directory.
package msal_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"math/big"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	msalerrors "github.com/AzureAD/microsoft-authentication-library-for-go/apps/errors"
	"github.com/golang-jwt/jwt/v5"

	"entra-connector/pkg/entra/entratest"
)

const (
	tenant = "11111111-aaaa-4bbb-8ccc-000000000001" // contoso.com
	bare   = "11111111-aaaa-4bbb-8ccc-000000000002" // without the app
	client = "22222222-aaaa-4bbb-8ccc-000000000001"
	secret = "c4nary~secret+with/odd=chars&more"
	graph  = "https://graph.microsoft.com/.default"
)

// trusted is the federated identity, in the form that AWS gives a role's.
var trusted = jwt.MapClaims{
	"iss": "https://00000000-1111-4222-8333-444444444444.tokens.sts.global.api.aws", "aud": "api://AzureADTokenExchange",
	"sub": "arn:aws:iam::123456789012:role/refresh", "exp": time.Now().Add(time.Hour).Unix(),
}

// must is for what a test needs and cannot go wrong.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func certify(key *rsa.PrivateKey, serial int64) *x509.Certificate {
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour)}
	return must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))))
}

func bySecret(value string) confidential.Credential {
	return must(confidential.NewCredFromSecret(value))
}

func byCertificate(key *rsa.PrivateKey, cert *x509.Certificate) confidential.Credential {
	return must(confidential.NewCredFromCert([]*x509.Certificate{cert}, key))
}

func byAssertion(key *rsa.PrivateKey, claims jwt.MapClaims) confidential.Credential {
	return confidential.NewCredFromAssertionCallback(func(context.Context, confidential.AssertionRequestOptions) (string, error) {
		return jwt.NewWithClaims(jwt.SigningMethodRS256, claims).SignedString(key)
	})
}

func TestTokens(t *testing.T) {
	appKey := must(rsa.GenerateKey(rand.Reader, 2048))
	issuerKey := must(rsa.GenerateKey(rand.Reader, 2048))
	stranger := must(rsa.GenerateKey(rand.Reader, 2048))
	cert := certify(appKey, 1)
	otherRole := jwt.MapClaims{"iss": trusted["iss"], "aud": trusted["aud"], "sub": "arn:aws:iam::123456789012:role/other", "exp": trusted["exp"]}

	s := entratest.New(entratest.Options{})
	s.AddTenant(entratest.Tenant{ID: tenant, Domains: []string{"contoso.com"}})
	s.AddTenant(entratest.Tenant{ID: bare})
	s.AddApp(entratest.App{ClientID: client, Secrets: []entratest.Secret{{Value: secret}}, Certificates: []*x509.Certificate{cert},
		Federated: []entratest.Federated{{Issuer: trusted["iss"].(string), Subject: trusted["sub"].(string), Audience: trusted["aud"].(string), Key: &issuerKey.PublicKey}},
	})
	s.Consent(tenant, client, "User.Read.All")
	ts := httptest.NewTLSServer(s) // MSAL takes no other authority
	defer ts.Close()

	for _, tt := range []struct {
		name, tenant, scope string
		cred                confidential.Credential
		kind                string // of credential; "": refused before the token is asked for
		code, status        int    // of a refusal
	}{
		{"secret", tenant, graph, bySecret(secret), "secret", 0, 200},
		{"certificate", tenant, graph, byCertificate(appKey, cert), "certificate", 0, 200},
		{"assertion", tenant, graph, byAssertion(issuerKey, trusted), "federated", 0, 200},
		{"domain and secret", "contoso.com", graph, bySecret(secret), "secret", 0, 200},
		{"domain and certificate", "contoso.com", graph, byCertificate(appKey, cert), "certificate", 0, 200},

		{"wrong secret", tenant, graph, bySecret(secret + "x"), "secret", 7000215, 401},
		{"unregistered certificate", tenant, graph, byCertificate(stranger, certify(stranger, 1)), "certificate", 700027, 401},
		{"reissued certificate", tenant, graph, byCertificate(appKey, certify(appKey, 2)), "certificate", 700027, 401},
		{"assertion of another key", tenant, graph, byAssertion(stranger, trusted), "federated", 700027, 401},
		{"assertion of another subject", tenant, graph, byAssertion(issuerKey, otherRole), "federated", 700213, 401},
		{"no consent", bare, graph, bySecret(secret), "secret", 7000229, 401},
		{"not a .default scope", tenant, "https://graph.microsoft.com/User.Read.All", bySecret(secret), "secret", 1002012, 400},
		{"unknown domain", "fabrikam.com", graph, bySecret(secret), "", 90002, 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.ResetRequests()
			// Instance discovery would ask login.microsoftonline.com whether it knows this
			// authority.
			app := must(confidential.New(ts.URL+"/"+tt.tenant, client, tt.cred, confidential.WithHTTPClient(ts.Client()), confidential.WithInstanceDiscovery(false)))
			got, err := app.AcquireTokenByCredential(t.Context(), []string{tt.scope})
			requests := s.Requests()
			if r := requests[len(requests)-1]; r.CredentialKind != tt.kind || r.Code != tt.code || r.Status != tt.status {
				t.Errorf("recorded %+v", r)
			}
			if tt.code != 0 {
				if refused := new(msalerrors.CallErr); !errors.As(err, refused) || refused.Resp.StatusCode != tt.status {
					t.Errorf("MSAL got %v, want a refusal", err)
				}
				return
			}
			if err != nil || got.AccessToken != s.Tokens()[0] || time.Until(got.ExpiresOn) < 3500*time.Second || time.Until(got.ExpiresOn) > 3630*time.Second {
				t.Fatalf("MSAL got %q until %v, %v", got.AccessToken, got.ExpiresOn, err)
			}
			claims := jwt.MapClaims{}
			if _, _, err := jwt.NewParser().ParseUnverified(got.AccessToken, claims); err != nil || claims["tid"] != tenant || claims["iss"] != ts.URL+"/"+tenant+"/v2.0" {
				t.Errorf("the token says %v, %v", claims, err)
			}
			// The answer says enough for MSAL to keep the token.
			again, err := app.AcquireTokenByCredential(t.Context(), []string{tt.scope})
			if err != nil || again.AccessToken != got.AccessToken || len(s.Requests()) != len(requests) {
				t.Errorf("the second time MSAL got %q, %v, after %d requests", again.AccessToken, err, len(s.Requests()))
			}
		})
	}
}
