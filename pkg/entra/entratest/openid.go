package entratest

import "net/http"

// openid answers with the tenant's OpenID configuration, which needs no credential and turns a domain
// into a GUID. A tenant of another cloud gets that cloud's addresses, as the real Entra gives them.
func (c *call) openid() answer {
	c.s.mu.Lock()
	code := c.findTenant()
	c.s.mu.Unlock()
	base, graph, instance, region := c.base, "graph.microsoft.com", "microsoftonline.com", "WW"
	switch code {
	case 0:
	case 90038:
		base, graph, instance, region = "https://login.microsoftonline.us", "graph.microsoft.us", "microsoftonline.us", "USGov"
	default:
		return c.refuse(code)
	}
	root := base + "/" + c.tenant.ID
	a := c.json(http.StatusOK, map[string]any{
		"issuer":                                root + "/v2.0",
		"token_endpoint":                        root + "/oauth2/v2.0/token",
		"authorization_endpoint":                root + "/oauth2/v2.0/authorize",
		"jwks_uri":                              root + "/discovery/v2.0/keys",
		"token_endpoint_auth_methods_supported": []string{"client_secret_post", "private_key_jwt"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
		"tenant_region_scope":                   region,
		"cloud_instance_name":                   instance,
		"msgraph_host":                          graph,
	})
	a.header.Set("Cache-Control", "max-age=86400, private")
	a.header.Del("Pragma")
	return a
}
