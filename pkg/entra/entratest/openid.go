package entratest

import "net/http"

// openid answers with the tenant's OpenID configuration, which needs no credential and turns a
// domain into a GUID. A tenant of another cloud gets that cloud's addresses, as the real Entra
// gives them.
func (c *call) openid() answer {
	c.s.mu.Lock()
	code := c.findTenant()
	c.s.mu.Unlock()
	root := c.base + "/" + c.tenant.ID
	switch code {
	case 0:
	case 90038:
		root = "https://login.microsoftonline.us/" + c.tenant.ID
	default:
		return c.refuse(code)
	}
	return c.json(http.StatusOK, map[string]string{
		"issuer":                 root + "/v2.0",
		"token_endpoint":         root + "/oauth2/v2.0/token",
		"authorization_endpoint": root + "/oauth2/v2.0/authorize", // which MSAL wants to be there
		"jwks_uri":               root + "/discovery/v2.0/keys",
	})
}
