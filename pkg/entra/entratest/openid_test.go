package entratest_test

import (
	"encoding/json"
	"net/http/httptest"
	"testing"

	"entra-connector/pkg/entra/entratest"
)

func TestOpenIDConfiguration(t *testing.T) {
	s := start(t)
	const us = "https://login.microsoftonline.us/"
	for _, tt := range []struct{ tenant, issuer, tokenURL, region, instance, msgraph string }{
		{tenant, s.URL() + "/" + tenant, s.URL() + "/" + tenant, "WW", "microsoftonline.com", "graph.microsoft.com"},
		{"Contoso.com", s.URL() + "/" + tenant, s.URL() + "/" + tenant, "WW", "microsoftonline.com", "graph.microsoft.com"},
		{"agency.us", us + gov, us + gov, "USGov", "microsoftonline.us", "graph.microsoft.us"},
		{"common", s.URL() + "/{tenantid}", s.URL() + "/common", "", "microsoftonline.com", "graph.microsoft.com"},
		{"organizations", s.URL() + "/{tenantid}", s.URL() + "/organizations", "", "microsoftonline.com", "graph.microsoft.com"},
		{"consumers", s.URL() + "/9188040d-6c67-4c5b-b112-36a304b66dad", s.URL() + "/consumers", "", "microsoftonline.com", "graph.microsoft.com"},
	} {
		t.Run(tt.tenant, func(t *testing.T) {
			r, err := do(t, "GET", s.URL()+"/"+tt.tenant+"/v2.0/.well-known/openid-configuration", "")
			if err != nil {
				t.Fatal(err)
			}
			var got struct {
				Issuer        string
				TokenEndpoint string `json:"token_endpoint"`
				Region        string `json:"tenant_region_scope"`
				Instance      string `json:"cloud_instance_name"`
				Graph         string `json:"cloud_graph_host_name"`
				MSGraph       string `json:"msgraph_host"`
			}
			if err := json.Unmarshal([]byte(r.Body), &got); err != nil {
				t.Fatal(err)
			}
			if got.Issuer != tt.issuer+"/v2.0" || got.TokenEndpoint != tt.tokenURL+"/oauth2/v2.0/token" {
				t.Errorf("issuer %s, token_endpoint %s", got.Issuer, got.TokenEndpoint)
			}
			if got.Region != tt.region || got.Instance != tt.instance || got.MSGraph != tt.msgraph || got.Graph != "graph.windows.net" {
				t.Errorf("got %+v", got)
			}
			if q := last(t, s); q.Endpoint != "openid" || q.Tenant != tt.tenant || q.Status != 200 {
				t.Errorf("recorded %+v", q)
			}
		})
	}
	for name, code := range map[string]int{"fabrikam.com": 90002, client: 90002, "contoso": 900023} {
		r, err := do(t, "GET", s.URL()+"/"+name+"/v2.0/.well-known/openid-configuration", "")
		if err != nil {
			t.Fatal(err)
		}
		if r.Status != 400 || r.code() != code || r.Error != "invalid_tenant" || last(t, s).Code != code {
			t.Errorf("%s: %d %s", name, r.Status, r.Body)
		}
	}
	r, err := do(t, "POST", s.URL()+"/"+tenant+"/v2.0/.well-known/openid-configuration", "")
	if err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, s, r, 900561, "invalid_request")
	if r, err := do(t, "GET", s.URL()+"/"+tenant+"/discovery/v2.0/keys", ""); err != nil || r.Body != `{"keys":[]}` {
		t.Errorf("keys: %v %s", err, r.Body)
	}
}

// Mounted under another listener, the server speaks of the host and scheme that the client sees.
func TestIssuerUnderTLS(t *testing.T) {
	s := entratest.New(entratest.Options{Cloud: "usgov"})
	s.AddTenant(entratest.Tenant{ID: tenant})
	srv := httptest.NewTLSServer(s)
	defer srv.Close()
	res, err := srv.Client().Get(srv.URL + "/" + tenant + "/v2.0/.well-known/openid-configuration")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var got struct{ Issuer string }
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil || got.Issuer != srv.URL+"/"+tenant+"/v2.0" {
		t.Errorf("issuer %q, %v", got.Issuer, err)
	}
	if s.URL() != "" {
		t.Errorf("URL() of a server that does not listen is %q", s.URL())
	}
}
