package entratest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// token answers the token endpoint, with the body that v2-oauth2-client-creds-grant-flow.md shows.
func (c *call) token() answer {
	c.s.spread()
	if c.form.Get("grant_type") == "authorization_code" && !c.malformed {
		return c.redeem()
	}
	if code := c.judge(); code != 0 {
		return c.refuse(code)
	}
	token := c.mint()
	body := map[string]any{
		"token_type": "Bearer", "expires_in": c.lifetime, "ext_expires_in": c.lifetime, "access_token": token,
	}
	for i := 0; i < len(c.changes); i += 2 {
		field := c.changes[i].(string)
		if body[field] = c.changes[i+1]; body[field] == nil {
			delete(body, field)
		}
	}
	a := c.json(http.StatusOK, body)
	a.token = token
	return a
}

// judge returns the code of the first thing wrong, or 0. Which of several wrongs Entra names is not
// documented; this order goes from the outside in.
func (c *call) judge() int {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	for _, check := range []func() int{c.checkForm, c.findTenant, c.readScope, c.authenticate} {
		if code := check(); code != 0 {
			return code
		}
	}
	var ok bool
	if c.roles, ok = c.s.consents[principal(c.tenant.ID, c.app.ClientID)]; !ok {
		return 7000229
	}
	if c.app.Disabled {
		return 7000112
	}
	// One trailing slash makes no difference here, though it does to the token's audience.
	if resource := strings.TrimSuffix(c.audience, "/"); !slices.Contains(resources, strings.ToLower(resource)) && !slices.Contains(c.tenant.Resources, resource) {
		c.detail = c.audience
		return 500011
	}
	return 0
}

func (c *call) checkForm() int {
	if c.malformed {
		c.detail = "the form cannot be decoded"
		return 9002313
	}
	for k, v := range c.form {
		if len(v) > 1 {
			c.detail = k
			return 9000411
		}
	}
	for _, field := range []string{"grant_type", "client_id", "scope"} {
		if c.form.Get(field) == "" {
			c.detail = field
			return 900144
		}
	}
	if c.detail = c.form.Get("grant_type"); c.detail != "client_credentials" {
		return 70003
	}
	return 0
}

// findTenant finds the tenant in the path. The shared authorities, such as common, are for users.
func (c *call) findTenant() int {
	name := c.request.Tenant
	if !tenantName.MatchString(name) {
		return 900023
	}
	var ok bool
	if c.tenant, ok = c.s.tenants[c.s.tenantIDLocked(name)]; !ok {
		return 90002
	}
	if c.detail = c.tenant.Cloud; c.detail != "" {
		return 90038
	}
	return 0
}

// readScope takes the resource from the scope, which must be exactly one "{resource}/.default"
// (scopes-oidc.md). The scopes of sign-in, which Microsoft's libraries always add, mean nothing
// here.
func (c *call) readScope() int {
	signIn := []string{"openid", "profile", "email", "offline_access"}
	scopes := slices.DeleteFunc(strings.Split(c.form.Get("scope"), " "), func(s string) bool { return slices.Contains(signIn, s) })
	for _, scope := range scopes {
		var ok bool
		if c.audience, ok = strings.CutSuffix(scope, "/.default"); !ok || c.audience == "" {
			return 1002012
		}
	}
	switch {
	case len(scopes) == 1:
		return 0
	case len(scopes) == 0:
		return 1002012
	case len(slices.Compact(scopes)) == 1:
		return 70011
	}
	return 700022
}

// authenticate checks the app and the one credential that the request must have.
func (c *call) authenticate() int {
	var ok bool
	c.app, ok = c.s.apps[strings.ToLower(c.request.ClientID)]
	secret := c.form.Get("client_secret")
	switch {
	case !ok:
		return 700016
	case c.form.Has("client_assertion") && secret != "":
		c.detail = "more than one credential"
		return 9002313
	case c.form.Has("client_assertion"):
		return c.checkAssertion()
	case secret == "":
		return 7000216
	case c.request.SecretIndex < 0:
		return 7000215
	}
	if e := c.app.Secrets[c.request.SecretIndex].Expires; !e.IsZero() && !c.s.options.Now().Before(e) {
		return 7000222
	}
	return 0
}

// mint makes an access token: a JWT that a resource can verify with the key at jwks_uri.
func (c *call) mint() string {
	at := c.s.options.Now().Unix()
	issuer, version := c.base+"/"+c.tenant.ID+"/v2.0", "2.0"
	if c.audience == "https://storage.azure.com" { // which has tokens of version 1.0, and so has Azurite
		issuer, version = "https://sts.windows.net/"+c.tenant.ID+"/", "1.0"
	}
	claims := map[string]any{
		"aud": c.audience, "iss": issuer, "tid": c.tenant.ID, "ver": version,
		"appid": c.app.ClientID, "azp": c.app.ClientID, "idtyp": "app", "uti": newGUID(),
		"iat": at, "nbf": at, "exp": at + int64(c.lifetime),
	}
	if len(c.roles) > 0 { // no claim at all without roles
		claims["roles"] = c.roles
	}
	payload, _ := json.Marshal(claims) // our own types only
	signed := encode([]byte(`{"typ":"JWT","alg":"RS256","kid":"`+keyID+`"}`)) + "." + encode(payload)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(nil, signingKey(), crypto.SHA256, sum[:])
	if err != nil {
		panic(err) // a good key and a digest of the right size
	}
	return signed + "." + encode(signature)
}

var encode = base64.RawURLEncoding.EncodeToString

// signingKey signs the tokens of all servers in this process.
var signingKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// keyID differs from process to process, as the key does.
var keyID = newGUID()

// keys publishes the key in the form of RFC 7517.
func (c *call) keys() answer {
	c.s.mu.Lock()
	key, kid := c.s.tenants[c.s.tenantIDLocked(c.request.Tenant)].signingKey()
	c.s.mu.Unlock()
	return c.json(http.StatusOK, map[string]any{"keys": []map[string]string{{
		"kty": "RSA", "use": "sig", "kid": kid, "n": encode(key.N.Bytes()), "e": encode(big.NewInt(int64(key.E)).Bytes()),
	}}})
}
