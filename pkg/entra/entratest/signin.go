package entratest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// User is a person who can sign in. Entra's own sign-in asks for a password; this one believes
// whoever chooses an account.
type User struct {
	Account  string // the user name, such as ada@contoso.example
	Name     string
	TenantID string   // the home tenant; [Consumers] for a personal account
	Roles    []string // template IDs of directory roles, for the wids claim
	Guest    bool     // of TenantID
}

// Consumers is the tenant of personal accounts.
const Consumers = "9188040d-6c67-4c5b-b112-36a304b66dad"

// Template IDs of directory roles.
// Source: Microsoft Entra, "Built-in roles". Member is what a person without a role has.
const (
	GlobalAdministrator           = "62e90394-69f5-4237-9190-012177145e10"
	PrivilegedRoleAdministrator   = "e8611ab8-c189-46e8-94e1-60213ab1f814"
	ApplicationAdministrator      = "9b895d92-2cd3-44c7-9d02-a6ac2d5ea5c3"
	CloudApplicationAdministrator = "158c047a-c907-4556-b7ef-446551a6b5f7"
	Member                        = "b79fbf4d-3ef9-4689-8143-76b194e85509"
)

// AddUser adds a person, or replaces the one with the account.
func (s *Server) AddUser(u User) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.people.users = append(slices.DeleteFunc(s.people.users, func(old User) bool { return old.Account == u.Account }), u)
}

// ForgeIDTokens lets a test change what is about to be signed as an ID token. The key that it
// returns signs the token, or the server's own if that is nil. A nil forge ends it.
func (s *Server) ForgeIDTokens(forge func(header, claims map[string]any) *rsa.PrivateKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.people.forge = forge
}

// IDTokens returns the ID tokens issued so far, and Codes the authorization codes.
func (s *Server) IDTokens() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.people.idTokens)
}

// Codes returns the authorization codes issued so far.
func (s *Server) Codes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.people.codes))
}

// people are those who can sign in, and how far they have come.
type people struct {
	users    []User
	codes    map[string]signIn
	idTokens []string
	forge    func(header, claims map[string]any) *rsa.PrivateKey
}

// signIn is what a code stands for.
type signIn struct {
	user                                 User
	clientID, redirectURI, nonce, tenant string
	challenge                            string
	issued                               time.Time
	used                                 bool
}

const (
	codeLife      = 10 * time.Minute
	sessionCookie = "entratest-account"
)

func (s *Server) handlePeople() {
	s.people.codes = make(map[string]signIn)
	s.mux.HandleFunc("/{tenant}/oauth2/v2.0/authorize", s.authorize)
	s.mux.HandleFunc("/{tenant}/v2.0/adminconsent", s.adminConsent)
}

// authorize shows the accounts, and redirects with a code for the one that is chosen. Until the client
// and the redirect URI are known to belong together, errors stay on this page.
// Source: v2-oauth2-auth-code-flow.md.
func (s *Server) authorize(w http.ResponseWriter, r *http.Request) {
	app, ok := s.client(w, r)
	if !ok {
		return
	}
	q := r.URL.Query()
	if wrong := wrongSignIn(r.PathValue("tenant"), q); wrong != 0 {
		s.sendBack(w, r, "invalid_request", wrong, "")
		return
	}
	account := r.PostFormValue("account")
	if r.Method != http.MethodPost {
		s.showPage(w, "Pick an account", map[string]any{"Accounts": s.accounts("")})
		return
	}
	if account == "" { // the back arrow; see MicrosoftDocs/azure-docs issue 41053
		s.redirect(w, r, url.Values{"error": {"access_denied"}, "error_subcode": {"cancel"}})
		return
	}
	user, known := s.user(account)
	switch tenant := r.PathValue("tenant"); {
	case !known:
		s.sendBack(w, r, "access_denied", 50034, "")
		return
	case user.TenantID == Consumers && tenant == "organizations" && !s.personal():
		// Source: Microsoft Entra authentication error codes, AADSTS500200.
		s.showError(w, 500200, "User account '"+account+"' is a personal Microsoft account. Personal Microsoft accounts are not supported for this application unless explicitly invited to an organization.")
		return
	}
	code := "0.entratest-code-" + rand.Text()
	s.mu.Lock()
	s.people.codes[code] = signIn{
		user: user, clientID: app.ClientID, redirectURI: q.Get("redirect_uri"), nonce: q.Get("nonce"),
		tenant: r.PathValue("tenant"), challenge: q.Get("code_challenge"), issued: s.options.Now(),
	}
	// Signing in creates the service principal, without a role. Source:
	// howto-convert-app-to-be-multi-tenant.md.
	if key := principal(user.TenantID, app.ClientID); s.consents[key] == nil {
		s.consents[key] = []string{}
	}
	s.mu.Unlock()
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Value: url.QueryEscape(account), Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode})
	s.redirect(w, r, url.Values{"code": {code}, "session_state": {newGUID()}})
}

func (s *Server) personal() bool { return s.options.PersonalAccounts }

// wrongSignIn returns the code of the first thing wrong with a sign-in, or 0.
func wrongSignIn(tenant string, q url.Values) int {
	scopes := strings.Fields(q.Get("scope"))
	switch {
	case tenant == "common" || tenant == "consumers":
		return 50194
	case q.Get("response_type") != "code" || !slices.Contains(scopes, "openid") || q.Get("nonce") == "":
		return 900144
	case q.Get("response_mode") != "query" || q.Get("code_challenge") == "" || q.Get("code_challenge_method") != "S256":
		return 9002313
	case q.Get("prompt") != "select_account": // only what this project sends
		return 901001
	}
	return 0
}

// adminConsent asks the account that signed in to approve the app for its tenant.
// Source: v2-admin-consent.md, and the redirects recorded in MicrosoftDocs/azure-docs issues 114009,
// 41053 and 108593.
func (s *Server) adminConsent(w http.ResponseWriter, r *http.Request) {
	app, ok := s.client(w, r)
	if !ok {
		return
	}
	resource, scoped := strings.CutSuffix(r.URL.Query().Get("scope"), "/.default")
	s.mu.Lock()
	tenant, found := s.tenants[s.tenantIDLocked(r.PathValue("tenant"))]
	s.mu.Unlock()
	cookie, _ := r.Cookie(sessionCookie)
	account := r.PostFormValue("account")
	if account == "" && cookie != nil {
		account, _ = url.QueryUnescape(cookie.Value)
	}
	user, known := s.user(account)
	switch {
	case r.URL.Query().Get("scope") == "":
		s.showError(w, 900144, "The request body must contain the following parameter: 'scope'.")
		return
	case !found:
		s.showError(w, 90002, "Tenant '"+r.PathValue("tenant")+"' not found.")
		return
	case !scoped || resource == "":
		s.sendBack(w, r, "invalid_scope", 70011, "True")
		return
	case tenant.DeviceFilter:
		s.sendBack(w, r, "invalid_grant", 50097, "True")
		return
	case !known:
		s.showPage(w, "Pick an account", map[string]any{"Accounts": s.accounts(tenant.ID)})
		return
	case !strings.EqualFold(user.TenantID, tenant.ID):
		s.sendBack(w, r, "access_denied", 50020, "True")
		return
	case !mayConsent(user, resource):
		if r.Method != http.MethodPost {
			s.showPage(w, "Need admin approval", map[string]any{"App": app, "Account": account, "Needs": true})
			return
		}
		s.redirect(w, r, url.Values{"error": {"access_denied"}, "error_subcode": {"cancel"}})
		return
	case r.Method != http.MethodPost:
		s.showPage(w, "Permissions requested", map[string]any{"App": app, "Account": account, "Roles": app.Roles, "Resource": resource})
		return
	case r.PostFormValue("answer") != "accept":
		s.sendBack(w, r, "access_denied", 65004, "True")
		return
	}
	s.grant(tenant.ID, app)
	s.redirect(w, r, url.Values{"admin_consent": {"True"}, "tenant": {tenant.ID}, "scope": {r.URL.Query().Get("scope")}})
}

// mayConsent: Application and Cloud Application Administrators may approve anything but the roles
// of Microsoft Graph. Source: grant-admin-consent.md.
func mayConsent(u User, resource string) bool {
	has := func(role string) bool { return slices.Contains(u.Roles, role) }
	return has(GlobalAdministrator) || has(PrivilegedRoleAdministrator) ||
		(has(ApplicationAdministrator) || has(CloudApplicationAdministrator)) && !strings.Contains(resource, "graph")
}

// grant consents now, or once the consent has spread.
func (s *Server) grant(tenantID string, app App) {
	if s.options.Spread > 0 {
		s.mu.Lock()
		s.spreading = append(s.spreading, spreading{s.options.Now().Add(s.options.Spread), tenantID, app})
		s.mu.Unlock()
		return
	}
	s.Consent(tenantID, app.ClientID, app.Roles...)
}

// spreading is a consent that replicas do not know yet.
type spreading struct {
	at       time.Time
	tenantID string
	app      App
}

// spread applies the consents whose time has come.
func (s *Server) spread() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spreading = slices.DeleteFunc(s.spreading, func(c spreading) bool {
		if s.options.Now().Before(c.at) {
			return false
		}
		s.consents[principal(c.tenantID, c.app.ClientID)] = c.app.Roles
		return true
	})
}

// client finds the app of a request from a browser. It shows an error if the redirect URI is not
// one that is registered, to the letter.
func (s *Server) client(w http.ResponseWriter, r *http.Request) (App, bool) {
	q := r.URL.Query()
	s.mu.Lock()
	app, ok := s.apps[strings.ToLower(q.Get("client_id"))]
	s.mu.Unlock()
	switch {
	case !ok:
		s.showError(w, 700016, "Application with identifier '"+q.Get("client_id")+"' was not found in the directory.")
	case !slices.Contains(app.RedirectURIs, q.Get("redirect_uri")):
		s.showError(w, 50011, "The redirect URI '"+q.Get("redirect_uri")+"' specified in the request does not match the redirect URIs configured for the application.")
		ok = false
	}
	return app, ok
}

func (s *Server) user(account string) (User, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.people.users, func(u User) bool { return u.Account == account })
	if i < 0 {
		return User{}, false
	}
	return s.people.users[i], true
}

func (s *Server) accounts(tenantID string) []User {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.people.users), func(u User) bool { return tenantID != "" && u.TenantID != tenantID })
}

// sendBack redirects with an error, as both endpoints do.
func (s *Server) sendBack(w http.ResponseWriter, r *http.Request, oauthError string, code int, adminConsent string) {
	q := url.Values{"error": {oauthError}, "error_uri": {fmt.Sprintf("http://%s/error?code=%d", r.Host, code)},
		"error_description": {fmt.Sprintf("AADSTS%d: The request was not completed.\r\nTrace ID: %s", code, newGUID())}}
	if adminConsent != "" {
		q.Set("admin_consent", adminConsent)
	}
	s.redirect(w, r, q)
}

func (s *Server) redirect(w http.ResponseWriter, r *http.Request, answer url.Values) {
	q := r.URL.Query()
	if state := q.Get("state"); state != "" {
		answer.Set("state", state)
	}
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+answer.Encode()+"#", http.StatusFound)
}

// redeem answers the token endpoint for the code of a sign-in.
func (c *call) redeem() answer {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	var known bool
	if c.app, known = c.s.apps[strings.ToLower(c.request.ClientID)]; !known {
		return c.refuse(700016)
	}
	code := c.form.Get("code")
	given, ok := c.s.people.codes[code]
	sum := sha256.Sum256([]byte(c.form.Get("code_verifier")))
	switch {
	case !ok || given.clientID != c.app.ClientID:
		return c.refuse(70000)
	case given.used:
		return c.refuse(54005)
	case c.s.options.Now().Sub(given.issued) > codeLife:
		return c.refuse(70008)
	case given.tenant != c.request.Tenant:
		return c.refuse(700005)
	case given.redirectURI != c.form.Get("redirect_uri"):
		return c.refuse(500112)
	case encode(sum[:]) != given.challenge:
		return c.refuse(501481)
	}
	if wrong := c.authenticate(); wrong != 0 {
		return c.refuse(wrong)
	}
	given.used = true
	c.s.people.codes[code] = given
	token := c.idToken(given)
	c.s.people.idTokens = append(c.s.people.idTokens, token)
	return c.json(http.StatusOK, map[string]any{
		"token_type": "Bearer", "scope": "openid profile", "expires_in": 3599, "ext_expires_in": 3599,
		"access_token": "entratest-user-token-" + rand.Text(), "id_token": token,
	})
}

// idToken has the claims of id-token-claims-reference.md. wids is there only if the manifest asks
// for it; acct only with the optional claim, which this project recommends.
func (c *call) idToken(given signIn) string {
	at := c.s.options.Now().Unix()
	user := given.user
	claims := map[string]any{
		"ver": "2.0", "iss": c.base + "/" + user.TenantID + "/v2.0", "aud": c.app.ClientID, "tid": user.TenantID,
		"oid": guidOf(user.Account), "sub": guidOf(user.Account + c.app.ClientID), "nonce": given.nonce,
		"preferred_username": user.Account, "name": user.Name, "iat": at, "nbf": at, "exp": at + 3600,
	}
	if !c.app.NoWids {
		claims["wids"] = append([]string{Member}, user.Roles...)
	}
	if user.Guest {
		claims["acct"] = 1
	}
	key, kid := c.s.tenants[user.TenantID].signingKey()
	header := map[string]any{"typ": "JWT", "alg": "RS256", "kid": kid}
	if c.s.people.forge != nil {
		if forged := c.s.people.forge(header, claims); forged != nil {
			key = forged
		}
	}
	return sign(header, claims, key)
}

func sign(header, claims map[string]any, key *rsa.PrivateKey) string {
	first, _ := json.Marshal(header) // our own types only
	second, _ := json.Marshal(claims)
	signed := encode(first) + "." + encode(second)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	if err != nil {
		panic(err) // a good key and a digest of the right size
	}
	return signed + "." + encode(signature)
}

// signingKey returns the key of the tenant's ID tokens, with its ID.
func (t Tenant) signingKey() (*rsa.PrivateKey, string) {
	if t.Key != nil {
		return t.Key, guidOf(t.ID)
	}
	return signingKey(), keyID
}

// guidOf is a GUID that is always the same for a name.
func guidOf(name string) string {
	b := sha256.Sum256([]byte(name))
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

func (s *Server) showError(w http.ResponseWriter, code int, text string) {
	w.WriteHeader(http.StatusBadRequest)
	s.showPage(w, "Sorry, but we're having trouble signing you in", map[string]any{"Error": fmt.Sprintf("AADSTS%d: %s", code, text)})
}

func (s *Server) showPage(w http.ResponseWriter, title string, data map[string]any) {
	data["Title"] = title
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_ = standInPage.Execute(w, data)
}

var standInPage = template.Must(template.New("").Parse(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{{.Title}}</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:28rem;margin:3rem auto;padding:0 1rem}button{font:inherit;padding:.5rem 1rem;margin:.25rem 0}</style></head>
<body><p>Stand-in for Microsoft Entra</p><h1>{{.Title}}</h1>
{{with .Error}}<p id="error">{{.}}</p>{{end}}
{{with .Accounts}}<form method="post">{{range .}}<p><button name="account" value="{{.Account}}">{{.Name}} – {{.Account}}</button></p>{{end}}
<p><button name="account" value="">Back</button></p></form>{{end}}
{{if .App}}<p>{{.Account}}</p>
{{if .Needs}}<p>This app needs permission to access resources in your organization that only an admin can grant.</p>
<form method="post"><button name="answer" value="back">Return to the application without granting consent</button></form>
{{else}}<p>App {{.App.ClientID}} would like to, on {{.Resource}}:</p><ul>{{range .Roles}}<li>{{.}}</li>{{end}}</ul>
<form method="post"><button name="answer" value="accept">Accept</button> <button name="answer" value="cancel">Cancel</button></form>{{end}}{{end}}
</body></html>
`))
