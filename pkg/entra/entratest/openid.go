package entratest

import (
	"net/http"
	"strings"
)

// consumers is the GUID of the tenant that holds personal Microsoft accounts (v2-protocols-oidc.md).
const consumers = "9188040d-6c67-4c5b-b112-36a304b66dad"

// openid answers with the tenant's OpenID configuration, which needs no credential and turns a domain
// into a GUID. A tenant of another cloud gets that cloud's addresses, as it does from the real one.
func (c *call) openid() answer {
	if c.request.Method != http.MethodGet {
		return c.refuse(900561, "GET, OPTIONS requests. Received a "+c.request.Method)
	}
	home, issued, region := c.s.cloud, strings.ToLower(c.request.Tenant), any(nil)
	path := issued
	switch issued {
	case "common", "organizations":
		issued = "{tenantid}" // literally
	case "consumers", consumers:
		issued = consumers
	default:
		t, ok := c.s.tenantLocked(issued)
		if !ok {
			return c.noSuchTenant()
		}
		home, issued, path, region = t.Cloud, t.ID, t.ID, clouds[t.Cloud].region
	}
	cl, base := clouds[home], c.base
	if home != c.s.cloud {
		base = cl.authority
	}
	root := base + "/" + path
	a := c.json(http.StatusOK, map[string]any{
		"issuer":                                base + "/" + issued + "/v2.0",
		"token_endpoint":                        root + "/oauth2/v2.0/token",
		"authorization_endpoint":                root + "/oauth2/v2.0/authorize",
		"device_authorization_endpoint":         root + "/oauth2/v2.0/devicecode",
		"end_session_endpoint":                  root + "/oauth2/v2.0/logout",
		"jwks_uri":                              root + "/discovery/v2.0/keys",
		"userinfo_endpoint":                     "https://" + cl.msgraph + "/oidc/userinfo",
		"token_endpoint_auth_methods_supported": []string{"client_secret_post", "private_key_jwt"},
		"response_types_supported":              []string{"code", "id_token", "code id_token", "id_token token"},
		"response_modes_supported":              []string{"query", "fragment", "form_post"},
		"subject_types_supported":               []string{"pairwise"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
		"scopes_supported":                      []string{"openid", "profile", "email", "offline_access"},
		"tenant_region_scope":                   region,
		"cloud_instance_name":                   cl.instance,
		"cloud_graph_host_name":                 cl.graph,
		"msgraph_host":                          cl.msgraph,
	})
	a.header.Set("Cache-Control", "max-age=86400, private")
	a.header.Del("Pragma")
	return a
}

// noSuchTenant is the token endpoint's refusal, with the error string that discovery has instead.
func (c *call) noSuchTenant() answer {
	code := 90002
	if !guid.MatchString(c.request.Tenant) && !domain.MatchString(c.request.Tenant) {
		code = 900023
	}
	b := c.errorBody(code, "")
	b.Error = "invalid_tenant"
	a := c.json(http.StatusBadRequest, b)
	a.code = code
	return a
}
