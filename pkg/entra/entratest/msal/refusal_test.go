package msal_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	msalerrors "github.com/AzureAD/microsoft-authentication-library-for-go/apps/errors"

	"entra-connector/pkg/entra/entratest"
)

func TestRefused(t *testing.T) {
	good := func(t *testing.T) confidential.Credential { return secretCred(t, secret) }
	assert := func(change ...any) func(*testing.T) confidential.Credential {
		return func(t *testing.T) confidential.Credential {
			return assertionCred(sign(t, issuerKey(), claims(change...)))
		}
	}
	for _, tt := range []struct {
		name, tenant, scope string
		cred                func(*testing.T) confidential.Credential
		endpoint            string // that refuses
		code, status        int
		oauth               string
	}{
		{"wrong_secret", tenant, graph, func(t *testing.T) confidential.Credential { return secretCred(t, secret+"x") },
			"token", 7000215, 401, "invalid_client"},
		{"expired_secret", tenant, graph, func(t *testing.T) confidential.Credential { return secretCred(t, expired) },
			"token", 7000222, 401, "invalid_client"},
		{"unregistered_certificate", tenant, graph, func(t *testing.T) confidential.Credential {
			return certCred(t, certify(strangerKey()), strangerKey())
		}, "token", 700027, 401, "invalid_client"},
		// The same key in a certificate that was never uploaded: it is the certificate that is registered.
		{"reissued_certificate", tenant, graph, func(t *testing.T) confidential.Credential {
			return certCred(t, certify(appKey()), appKey())
		}, "token", 700027, 401, "invalid_client"},

		{"subject", tenant, graph, assert("sub", subject+"-other"), "token", 700213, 401, "invalid_client"},
		{"issuer", tenant, graph, assert("iss", issuer+"/"), "token", 700211, 401, "invalid_client"},
		{"audience", tenant, graph, assert("aud", "sts.amazonaws.com"), "token", 700212, 401, "invalid_client"},
		{"assertion_of_other_key", tenant, graph, func(t *testing.T) confidential.Credential {
			return assertionCred(sign(t, strangerKey(), claims()))
		}, "token", 700027, 401, "invalid_client"},
		{"assertion_expired", tenant, graph, assert("exp", time.Now().Add(-time.Minute).Unix()), "token", 700024, 401, "invalid_client"},

		// MSAL asks for the tenant's OpenID configuration first, and that is what refuses.
		{"unknown_tenant", nowhere, graph, good, "openid", 90002, 400, "invalid_tenant"},
		{"unknown_domain", "fabrikam.com", graph, good, "openid", 90002, 400, "invalid_tenant"},
		{"no_consent", bare, graph, good, "token", 7000229, 401, "invalid_client"},
		{"not_default_scope", tenant, "https://graph.microsoft.com/User.Read.All", good, "token", 1002012, 400, "invalid_scope"},
		{"unknown_resource", tenant, "https://contoso.example/.default", good, "token", 500011, 400, "invalid_resource"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := start(t)
			got, err := w.app(t, tt.tenant, tt.cred(t)).AcquireTokenByCredential(t.Context(), []string{tt.scope})
			call := refusal(t, got, err)
			var body struct {
				Error       string `json:"error"`
				Description string `json:"error_description"`
				Codes       []int  `json:"error_codes"`
			}
			if err := json.NewDecoder(call.Resp.Body).Decode(&body); err != nil {
				t.Fatal(err)
			}
			if len(body.Codes) != 1 || body.Codes[0] != tt.code || body.Error != tt.oauth || call.Resp.StatusCode != tt.status {
				t.Fatalf("MSAL got %d %s %v, want %d %s [%d]", call.Resp.StatusCode, body.Error, body.Codes, tt.status, tt.oauth, tt.code)
			}
			if !strings.HasPrefix(body.Description, fmt.Sprintf("AADSTS%d: ", tt.code)) {
				t.Errorf("error_description is %q", body.Description)
			}
			all := w.Requests()
			if last := all[len(all)-1]; last.Endpoint != tt.endpoint || last.Code != tt.code {
				t.Errorf("recorded %+v", last)
			}
			if n := len(w.Tokens()); n != 0 {
				t.Errorf("%d tokens were issued", n)
			}
		})
	}
}

// An app without federated credentials has another code than one whose credentials match nothing.
func TestNoFederatedCredential(t *testing.T) {
	w := start(t)
	w.AddApp(entratest.App{ClientID: client, Secrets: []entratest.Secret{{Value: secret}}})
	cred := assertionCred(sign(t, issuerKey(), claims()))
	got, err := w.app(t, tenant, cred).AcquireTokenByCredential(t.Context(), []string{graph})
	if refusal(t, got, err); w.asked("token")[0].Code != 70021 {
		t.Errorf("got %v, want AADSTS70021", err)
	}
}

func TestThrottled(t *testing.T) {
	w := start(t)
	w.Fail(entratest.Fault{Endpoint: "token", Response: entratest.Throttled("60")})
	got, err := w.app(t, tenant, secretCred(t, secret)).AcquireTokenByCredential(t.Context(), []string{graph})
	call := refusal(t, got, err)
	if call.Resp.StatusCode != http.StatusTooManyRequests || call.Resp.Header.Get("Retry-After") != "60" {
		t.Errorf("MSAL got %d, Retry-After %q", call.Resp.StatusCode, call.Resp.Header.Get("Retry-After"))
	}
}

// MSAL takes the addresses in a tenant's OpenID configuration to be that tenant's cloud's, and goes there.
func TestTenantOfAnotherCloud(t *testing.T) {
	w := start(t)
	_, err := w.app(t, gov, secretCred(t, secret)).AcquireTokenByCredential(t.Context(), []string{graph})
	if !errors.Is(err, errLeft) || !strings.Contains(err.Error(), "https://login.microsoftonline.us/"+gov+"/oauth2/v2.0/token") {
		t.Errorf("got %v, want a request to the other cloud", err)
	}
	if n := len(w.asked("token")); n != 0 {
		t.Errorf("%d token requests here", n)
	}
}

// refusal is the answer that MSAL made an error of. It fails the test if there is none.
func refusal(t *testing.T, got confidential.AuthResult, err error) msalerrors.CallErr {
	t.Helper()
	var call msalerrors.CallErr
	if !errors.As(err, &call) || got.AccessToken != "" {
		t.Fatalf("MSAL got a token of %d bytes and error %v, want a refusal", len(got.AccessToken), err)
	}
	return call
}
