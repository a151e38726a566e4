package entratest_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"entra-connector/pkg/entra/entratest"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

func TestTokenGranted(t *testing.T) {
	s := start(t)
	r := ask(t, s, tenant, form())
	if r.Status != 200 || r.TokenType != "Bearer" || r.ExpiresIn != 3599.0 || r.ExtExpiresIn != 3599.0 {
		t.Fatalf("got %d %s", r.Status, r.Body)
	}
	c := claims(t, r.AccessToken)
	want := map[string]any{
		"aud": "https://graph.microsoft.com", "iss": s.URL() + "/" + tenant + "/v2.0", "tid": tenant, "appid": client,
		"roles": []any{"User.Read.All"}, "iat": float64(now.Unix()), "exp": float64(now.Unix() + 3599),
	}
	for k, v := range want {
		if got := fmt.Sprint(c[k]); got != fmt.Sprint(v) {
			t.Errorf("claim %s = %s, want %v", k, got, v)
		}
	}
	if got := fmt.Sprint(s.Tokens()); got != "["+r.AccessToken+"]" {
		t.Errorf("Tokens() = %s", got)
	}
	got := last(t, s)
	if wantRequest := (entratest.Request{
		Method: "POST", Path: "/" + tenant + "/oauth2/v2.0/token", Endpoint: "token", Tenant: tenant, ClientID: client,
		Scope: graph, CredentialKind: "secret", SecretIndex: 1, Status: 200, Token: r.AccessToken,
	}); got != wantRequest {
		t.Errorf("recorded\n%+v, want\n%+v", got, wantRequest)
	}
	if strings.Contains(fmt.Sprintf("%#v", s.Requests()), secret) {
		t.Error("the secret was recorded")
	}

	again := ask(t, s, "CONTOSO.com", form()) // by domain, in any case
	if again.Status != 200 || claims(t, again.AccessToken)["tid"] != tenant {
		t.Fatalf("by domain: %d %s", again.Status, again.Body)
	}
	if claims(t, again.AccessToken)["uti"] == c["uti"] {
		t.Error("two tokens have the same uti")
	}
}

// The real client, in both of its styles, and what MSAL adds to the scope.
func TestTokenWithOAuth2(t *testing.T) {
	s := start(t)
	for name, style := range map[string]oauth2.AuthStyle{"form": oauth2.AuthStyleInParams, "basic": oauth2.AuthStyleInHeader} {
		t.Run(name, func(t *testing.T) {
			c := clientcredentials.Config{
				ClientID: client, ClientSecret: secret, AuthStyle: style,
				TokenURL: s.URL() + "/" + tenant + "/oauth2/v2.0/token",
				Scopes:   []string{graph, "openid", "offline_access", "profile"},
			}
			tok, err := c.Token(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if ext := tok.Extra("ext_expires_in"); ext != 3599.0 || tok.AccessToken != last(t, s).Token {
				t.Errorf("got %v s, token %q", ext, tok.AccessToken)
			}
		})
	}
}

func TestTokenRefused(t *testing.T) {
	const md = "499b84ac-1321-427f-aa17-267ca6975798/.default"
	for _, tt := range []struct {
		name   string
		tenant string
		form   url.Values
		code   int
		error  string
	}{
		{"no_grant_type", tenant, form("grant_type", ""), 900144, "invalid_request"},
		{"grant_type", tenant, form("grant_type", "password"), 70003, "unsupported_grant_type"},
		{"no_client", tenant, form("client_id", ""), 900144, "invalid_request"},
		{"client_not_guid", tenant, form("client_id", "app"), 700016, "unauthorized_client"},
		{"client_unknown", tenant, form("client_id", other), 700016, "unauthorized_client"},
		{"no_scope", tenant, form("scope", ""), 900144, "invalid_request"},
		{"scope_of_one_permission", tenant, form("scope", "https://graph.microsoft.com/User.Read"), 1002012, "invalid_scope"},
		{"scope_encoded_twice", tenant, form("scope", url.QueryEscape(graph)), 1002012, "invalid_scope"},
		{"scope_with_space", tenant, form("scope", graph+" "), 1002012, "invalid_scope"},
		{"scope_with_line_break", tenant, form("scope", graph+"\n"), 1002012, "invalid_scope"},
		{"scope_without_resource", tenant, form("scope", "/.default"), 1002012, "invalid_scope"},
		{"scope_of_sign_in", tenant, form("scope", "openid"), 1002012, "invalid_scope"},
		{"scope_twice", tenant, form("scope", graph+" "+graph), 70011, "invalid_scope"},
		{"two_resources", tenant, form("scope", graph+" "+md), 700022, "invalid_scope"},
		{"no_credential", tenant, form("client_secret", ""), 7000216, "invalid_client"},
		{"wrong_secret", tenant, form("client_secret", secret+" "), 7000215, "invalid_client"},
		{"expired_secret", tenant, form("client_secret", expired), 7000222, "invalid_client"},
		{"tenant_unknown", client, form(), 90002, "invalid_request"},
		{"domain_unknown", "fabrikam.com", form(), 90002, "invalid_request"},
		{"tenant_of_one_label", "contoso", form(), 900023, "invalid_request"},
		{"tenant_with_slash", "contoso.com%2Fx", form(), 900023, "invalid_request"},
		{"common", "common", form(), 9001023, "invalid_request"},
		{"consumers", "consumers", form(), 9001023, "invalid_request"},
		{"consumers_by_guid", "9188040d-6c67-4c5b-b112-36a304b66dad", form(), 9001023, "invalid_request"},
		{"organizations", "organizations", form(), 50059, "invalid_request"},
		{"other_cloud", gov, form(), 90038, "invalid_request"},
		{"no_consent", other, form(), 7000229, "invalid_client"},
		{"resource_unknown", tenant, form("scope", "https://graph.microsoft.us/.default"), 500011, "invalid_resource"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := start(t)
			r := ask(t, s, tt.tenant, tt.form)
			wantRefusal(t, s, r, tt.code, tt.error)
			if n, _ := url.PathUnescape(tt.tenant); tt.code == 700016 && !strings.Contains(r.Description, n) {
				t.Errorf("text does not name the tenant: %s", r.Description)
			}
		})
	}
}

func TestTokenMalformed(t *testing.T) {
	s := start(t)
	target := s.URL() + "/" + tenant + "/oauth2/v2.0/token"
	basic := "Basic Y2xpZW50OnNlY3JldA==" // client:secret
	for _, tt := range []struct {
		name, method, body string
		header             []string
		code               int
	}{
		{"get", "GET", "", nil, 900561},
		{"json", "POST", `{"grant_type":"client_credentials"}`, []string{"Content-Type", "application/json"}, 900144},
		{"form_as_text", "POST", form().Encode(), []string{"Content-Type", "text/plain"}, 900144},
		{"query_is_not_form", "POST", "", []string{"Content-Type", formType}, 900144},
		{"field_twice", "POST", form().Encode() + "&scope=x", []string{"Content-Type", formType}, 9000411},
		{"bad_escape", "POST", form().Encode() + "&x=%zz", []string{"Content-Type", formType}, 9002313},
		{"secret_twice", "POST", form().Encode(), []string{"Content-Type", formType, "Authorization", basic}, 9002313},
		{"basic_of_another", "POST", form("client_secret", "").Encode(), []string{"Content-Type", formType, "Authorization", basic}, 9002313},
		{"too_large", "POST", form().Encode() + "&x=" + strings.Repeat("x", 1<<20), []string{"Content-Type", formType}, 9002313},
	} {
		t.Run(tt.name, func(t *testing.T) {
			to := target
			if tt.name == "query_is_not_form" {
				to += "?" + form().Encode()
			}
			r, err := do(t, tt.method, to, tt.body, tt.header...)
			if err != nil {
				t.Fatal(err)
			}
			wantRefusal(t, s, r, tt.code, "invalid_request")
		})
	}
}

func TestCorrelation(t *testing.T) {
	s := start(t)
	const id = "33333333-aaaa-4bbb-8ccc-000000000001"
	r := ask(t, s, tenant, form("scope", "x"), "client-request-id", id)
	if r.CorrelationID != id || r.Header.Get("client-request-id") != id || last(t, s).RequestID != id {
		t.Errorf("correlation_id %q, header %q, recorded %q", r.CorrelationID, r.Header.Get("client-request-id"), last(t, s).RequestID)
	}
	if r.TraceID == id || r.Header.Get("x-ms-request-id") != r.TraceID {
		t.Errorf("trace_id %q, header %q", r.TraceID, r.Header.Get("x-ms-request-id"))
	}
	if r := ask(t, s, tenant, form(), "client-request-id", id); r.Header.Get("client-request-id") != id {
		t.Error("a success does not echo client-request-id")
	}
}

func TestDirectoryChanges(t *testing.T) {
	s := start(t)
	want := func(what string, r reply, code int) {
		t.Helper()
		if r.code() != code || (code == 0) != (r.Status == 200) {
			t.Errorf("%s: got %d %s, want AADSTS%d", what, r.Status, r.Body, code)
		}
	}
	s.SetSecrets(client, entratest.Secret{Value: "rotated"})
	want("old secret", ask(t, s, tenant, form()), 7000215)
	if i := last(t, s).SecretIndex; i != -1 {
		t.Errorf("unknown secret has index %d", i)
	}
	want("new secret", ask(t, s, tenant, form("client_secret", "rotated")), 0)
	if i := last(t, s).SecretIndex; i != 0 {
		t.Errorf("first secret has index %d", i)
	}
	s.SetSecrets(client, entratest.Secret{Value: secret})

	s.Consent(other, client)
	r := ask(t, s, other, form())
	want("consented", r, 0)
	if _, ok := claims(t, r.AccessToken)["roles"]; ok {
		t.Error("token without roles has a roles claim")
	}
	s.AddTenant(entratest.Tenant{ID: tenant, Domains: []string{"fabrikam.com"}}) // a domain moves
	want("old domain", ask(t, s, "contoso.com", form()), 90002)
	want("new domain", ask(t, s, "fabrikam.com", form()), 0)
	s.Revoke("fabrikam.com", client)
	want("revoked", ask(t, s, tenant, form()), 7000229)
	s.Consent(tenant, client)

	app := entratest.App{ClientID: strings.ToUpper(client), Secrets: []entratest.Secret{{Value: secret}}}
	app.Disabled = true
	s.AddApp(app)
	want("disabled app", ask(t, s, tenant, form()), 7000112)
	app.Disabled, app.SingleTenant, app.HomeTenant = false, true, other
	s.AddApp(app)
	want("single-tenant app abroad", ask(t, s, tenant, form()), 700016)
	want("single-tenant app at home", ask(t, s, other, form()), 0)

	const res = "https://storage.azure.com"
	s.AddTenant(entratest.Tenant{ID: other, Resources: []string{res, "api://x"}, Disabled: []string{"api://x"}, ExpiresIn: 600})
	want("resource not in tenant", ask(t, s, other, form()), 500011)
	want("disabled resource", ask(t, s, other, form("scope", "api://x/.default")), 500014)
	r = ask(t, s, other, form("scope", res+"//.default"))
	want("resource with a slash", r, 0)
	if aud := claims(t, r.AccessToken)["aud"]; aud != res+"/" {
		t.Errorf("aud = %v, want the resource with its slash", aud)
	}
	if r.ExpiresIn != 600.0 {
		t.Errorf("tenant's lifetime: expires_in = %v", r.ExpiresIn)
	}
	app.ExpiresIn = 86399
	s.AddApp(app)
	if r = ask(t, s, other, form("scope", res+"/.default")); r.ExpiresIn != 86399.0 || claims(t, r.AccessToken)["exp"] != float64(now.Unix()+86399) {
		t.Errorf("app's lifetime: expires_in = %v", r.ExpiresIn)
	}

	s.ResetRequests()
	if len(s.Requests()) != 0 || len(s.Tokens()) != 0 {
		t.Error("ResetRequests left something")
	}
}

func TestUnexpectedPath(t *testing.T) {
	s := start(t)
	for _, path := range []string{"/", "/" + tenant + "/oauth2/token", "/" + tenant + "/oauth2/v2.0/token/", "//oauth2/v2.0/token"} {
		r, err := do(t, "POST", s.URL()+path, form().Encode(), "Content-Type", formType)
		if err != nil {
			t.Fatal(err)
		}
		if q := last(t, s); r.Status != http.StatusNotFound || q.Status != 404 || q.Endpoint != "" || q.Path != path {
			t.Errorf("%s: status %d, recorded %+v", path, r.Status, q)
		}
	}
}

// A whole sweep's worth of requests at once. Each gets its own token and is recorded once.
func TestManyAtOnce(t *testing.T) {
	s := start(t)
	const workers, each = 20, 100
	pool := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: workers}}
	defer pool.CloseIdleConnections()
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				res, err := pool.PostForm(s.URL()+"/"+tenant+"/oauth2/v2.0/token", form())
				if err != nil {
					t.Error(err)
					return
				}
				res.Body.Close()
				s.Fail(entratest.Fault{Times: 1, Tenant: other, Response: entratest.Drop()})
				s.ClearFaults()
			}
		})
	}
	wg.Wait()
	unique := map[string]bool{}
	for _, token := range s.Tokens() {
		unique[token] = true
	}
	if len(unique) != workers*each || len(s.Requests()) != workers*each {
		t.Errorf("%d tokens, %d requests, want %d", len(unique), len(s.Requests()), workers*each)
	}
}
