package msal_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
)

func TestToken(t *testing.T) {
	for _, by := range []struct {
		name, kind string
		cred       func(*testing.T) confidential.Credential
		options    []confidential.Option
	}{
		{"secret", "secret", func(t *testing.T) confidential.Credential { return secretCred(t, secret) }, nil},
		{"certificate", "certificate", func(t *testing.T) confidential.Credential { return certCred(t, certificates()[0], appKey()) }, nil},
		{"certificate_with_chain", "certificate", func(t *testing.T) confidential.Credential { return certCred(t, certificates()[0], appKey()) },
			[]confidential.Option{confidential.WithX5C()}},
		{"assertion", "federated", func(t *testing.T) confidential.Credential { return assertionCred(sign(t, issuerKey(), claims())) }, nil},
	} {
		for _, name := range []string{tenant, "contoso.com"} {
			t.Run(by.name+"/"+name, func(t *testing.T) {
				w := start(t)
				app := w.app(t, name, by.cred(t), by.options...)
				before := time.Now()
				got, err := app.AcquireTokenByCredential(t.Context(), []string{graph})
				if err != nil {
					t.Fatal(err)
				}
				issued := w.Tokens()
				if len(issued) != 1 || got.AccessToken != issued[0] {
					t.Fatalf("MSAL got %q, issued were %q", got.AccessToken, issued)
				}
				if left := got.ExpiresOn.Sub(before); left < 3598*time.Second || left > 3629*time.Second {
					t.Errorf("MSAL takes the token to live %v, want 3599 s", left)
				}
				c := payload(t, got.AccessToken)
				if c["tid"] != tenant || c["appid"] != client || c["iss"] != w.url+"/"+tenant+"/v2.0" || c["aud"] != "https://graph.microsoft.com" {
					t.Errorf("token says %v", c)
				}

				// MSAL posts where the OpenID configuration points it, which names the tenant by its GUID.
				asked := w.asked("token")
				if len(asked) != 1 {
					t.Fatalf("%d token requests, want 1", len(asked))
				}
				r := asked[0]
				if r.Tenant != tenant || r.ClientID != client || r.CredentialKind != by.kind || r.Status != 200 {
					t.Errorf("recorded %+v", r)
				}
				// What makes a stand-in need to know the sign-in scopes.
				if fields := strings.Fields(r.Scope); len(fields) != 4 || fields[0] != graph {
					t.Errorf("MSAL asked for scope %q", r.Scope)
				}
				if w.asked("openid")[0].Tenant != name {
					t.Errorf("MSAL discovered %q", w.asked("openid")[0].Tenant)
				}

				// The answer says enough for MSAL to keep the token.
				again, err := app.AcquireTokenByCredential(t.Context(), []string{graph})
				if err != nil || again.AccessToken != got.AccessToken || again.Metadata.TokenSource != confidential.TokenSourceCache {
					t.Errorf("second time %q from source %v, %v", again.AccessToken, again.Metadata.TokenSource, err)
				}
				if n := len(w.asked("token")); n != 1 {
					t.Errorf("%d token requests, want still 1", n)
				}
			})
		}
	}
}

// One app serves many tenants, each with an assertion of its own: the audience is the tenant's.
func TestTenantsOfOneApp(t *testing.T) {
	w := start(t)
	app := w.app(t, tenant, certCred(t, certificates()[0], appKey()))
	for _, id := range []string{tenant, second} {
		got, err := app.AcquireTokenByCredential(t.Context(), []string{graph}, confidential.WithTenantID(id))
		if err != nil {
			t.Fatal(err)
		}
		if tid := payload(t, got.AccessToken)["tid"]; tid != id {
			t.Errorf("token is of tenant %v, want %s", tid, id)
		}
	}
	if n := len(w.Tokens()); n != 2 {
		t.Errorf("%d tokens were issued, want 2", n)
	}
}

// MSAL tells the callback where the assertion goes: the address that a self-signed one has as its audience.
func TestAssertionCallback(t *testing.T) {
	w := start(t)
	var told confidential.AssertionRequestOptions
	cred := confidential.NewCredFromAssertionCallback(func(_ context.Context, o confidential.AssertionRequestOptions) (string, error) {
		told = o
		return sign(t, issuerKey(), claims()), nil
	})
	if _, err := w.app(t, "contoso.com", cred).AcquireTokenByCredential(t.Context(), []string{graph}); err != nil {
		t.Fatal(err)
	}
	if want := w.url + "/" + tenant + "/oauth2/v2.0/token"; told.TokenEndpoint != want || told.ClientID != client {
		t.Errorf("callback got %+v, want token endpoint %s", told, want)
	}
}

// payload reads a token's claims.
func payload(t *testing.T, token string) map[string]any {
	t.Helper()
	part := strings.Split(token, ".")
	if len(part) != 3 {
		t.Fatalf("token has %d parts, want 3", len(part))
	}
	b, err := base64.RawURLEncoding.DecodeString(part[1])
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	return c
}
