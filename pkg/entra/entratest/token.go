package entratest

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// grant is a token request that nothing speaks against.
type grant struct {
	tenant   Tenant
	app      App
	roles    []string
	audience string
}

// tokenResponse is what v2-oauth2-client-creds-grant-flow.md shows; the numbers are any, since a
// [Response] may want strings or none.
type tokenResponse struct {
	TokenType    string `json:"token_type"`
	ExpiresIn    any    `json:"expires_in,omitempty"`
	ExtExpiresIn any    `json:"ext_expires_in,omitempty"`
	Padding      string `json:"padding,omitempty"`
	AccessToken  string `json:"access_token"`
}

// token answers the token endpoint.
func (c *call) token() answer {
	g, code := c.judge()
	if code != 0 {
		return c.refuse(code, c.detail)
	}
	seconds := 3599
	switch {
	case c.lifetime != nil:
		seconds = *c.lifetime
	case g.app.ExpiresIn != 0:
		seconds = g.app.ExpiresIn
	case g.tenant.ExpiresIn != 0:
		seconds = g.tenant.ExpiresIn
	}
	r := tokenResponse{
		TokenType: "Bearer", ExpiresIn: seconds, ExtExpiresIn: seconds,
		Padding: strings.Repeat("x", c.padding), AccessToken: c.mint(g, seconds),
	}
	if c.stringified {
		r.ExpiresIn, r.ExtExpiresIn = strconv.Itoa(seconds), strconv.Itoa(seconds)
	}
	if c.noExpires {
		r.ExpiresIn = nil
	}
	if c.noExt {
		r.ExtExpiresIn = nil
	}
	a := c.json(http.StatusOK, r)
	a.token = r.AccessToken
	return a
}

// judge returns the grant, or the code of the first thing wrong. Which of several wrongs Entra names
// is not documented; this order goes from the outside in.
func (c *call) judge() (g grant, code int) {
	var ok bool
	if code = c.malformed(); code != 0 {
		return g, code
	}
	if g.tenant, code = c.tenant(); code != 0 {
		return g, code
	}
	g.app, ok = c.s.apps[strings.ToLower(c.request.ClientID)]
	if !ok || g.app.SingleTenant && g.app.HomeTenant != g.tenant.ID {
		return g, 700016
	}
	if g.audience, code = c.resource(); code != 0 {
		return g, code
	}
	if code = c.authenticate(g); code != 0 {
		return g, code
	}
	if g.app.Disabled {
		return g, 7000112
	}
	if g.roles, ok = c.s.consents[principal{g.tenant.ID, g.app.ClientID}]; !ok {
		return g, 7000229
	}
	c.detail = g.audience
	switch {
	case has(g.tenant.Disabled, g.audience):
		return g, 500014
	case !has(g.tenant.Resources, g.audience):
		return g, 500011
	}
	return g, 0
}

// malformed checks the form by itself.
func (c *call) malformed() int {
	if c.request.Method != http.MethodPost {
		c.detail = "POST requests. Received a " + c.request.Method
		return 900561
	}
	if c.bad != "" {
		c.detail = c.bad
		return 9002313
	}
	for k, v := range c.form {
		if len(v) > 1 {
			c.detail = k
			return 9000411
		}
	}
	switch g := c.form.Get("grant_type"); {
	case g == "":
		c.detail = "grant_type"
		return 900144
	case g != "client_credentials":
		c.detail = g
		return 70003
	case c.request.ClientID == "":
		c.detail = "client_id"
		return 900144
	case c.request.Scope == "":
		c.detail = "scope"
		return 900144
	}
	return 0
}

// tenant finds the tenant in the path. An app has a tenant or nothing: the shared authorities are for users.
func (c *call) tenant() (Tenant, int) {
	name := strings.ToLower(c.request.Tenant)
	switch name {
	case "common", "consumers", consumers:
		return Tenant{}, 9001023
	case "organizations":
		return Tenant{}, 50059
	}
	if !guid.MatchString(name) && !domain.MatchString(name) {
		return Tenant{}, 900023
	}
	t, ok := c.s.tenantLocked(name)
	if !ok {
		return Tenant{}, 90002
	}
	if t.Cloud != c.s.cloud {
		c.detail = clouds[t.Cloud].instance
		return Tenant{}, 90038
	}
	return t, 0
}

// signIn are the scopes that Microsoft's own libraries add to every request, and that mean nothing here.
var signIn = []string{"openid", "profile", "email", "offline_access"}

// resource takes the resource from the scope, which must be exactly one "{resource}/.default" (scopes-oidc.md).
func (c *call) resource() (string, int) {
	var found []string
	for scope := range strings.SplitSeq(c.request.Scope, " ") {
		if slices.Contains(signIn, scope) {
			continue
		}
		resource, ok := strings.CutSuffix(scope, "/.default")
		if !ok || resource == "" {
			return "", 1002012
		}
		found = append(found, resource)
	}
	switch {
	case len(found) == 1:
		return found[0], 0
	case len(found) == 0:
		return "", 1002012
	case len(slices.Compact(found)) == 1:
		return "", 70011
	}
	return "", 700022
}

// authenticate checks the one credential that the request must have.
func (c *call) authenticate(g grant) int {
	assertion := c.form.Has("client_assertion") || c.form.Has("client_assertion_type")
	switch {
	case assertion && c.secret != "":
		c.detail = "more than one credential"
		return 9002313
	case assertion:
		return c.assert(g)
	case c.secret == "":
		return 7000216
	case c.request.SecretIndex < 0:
		return 7000215
	}
	if e := g.app.Secrets[c.request.SecretIndex].Expires; !e.IsZero() && !c.s.now().Before(e) {
		return 7000222
	}
	return 0
}

// mint makes an access token: a JWT to look at, with a signature of random bytes that nobody may verify.
func (c *call) mint(g grant, seconds int) string {
	at := c.s.now()
	claims := map[string]any{
		"aud": g.audience, "iss": c.base + "/" + g.tenant.ID + "/v2.0", "tid": g.tenant.ID,
		"appid": g.app.ClientID, "idtyp": "app", "uti": newGUID(),
		"iat": at.Unix(), "nbf": at.Unix(), "exp": at.Unix() + int64(seconds),
	}
	if len(g.roles) > 0 { // no claim at all without roles
		claims["roles"] = g.roles
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err) // our own types only
	}
	var signature [256]byte
	rand.Read(signature[:])
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"typ":"JWT","alg":"RS256","kid":"entratest"}`)) + "." + enc(payload) + "." + enc(signature[:])
}
