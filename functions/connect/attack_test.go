package main_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"entra-connector/internal/stack"
	. "entra-connector/internal/stack/stacktest"
	"entra-connector/pkg/entra/entratest"
)

const (
	altered   = "This answer does not fit"
	lost      = "We cannot tell what this belongs to"
	unproved  = "The sign-in could not be verified"
	brokenOff = "The sign-in did not finish"
	cookie    = "__Host-connect"
)

// callbackAfter presses a button at Microsoft, and returns the address that the browser is sent to
// without going there.
func (b *browser) callbackAfter(name, value string) *url.URL {
	b.t.Helper()
	b.do("POST", b.where, url.Values{name: {value}})
	to, err := url.Parse(b.header.Get("Location"))
	if err != nil || to.Path != "/connect/callback" {
		b.t.Fatalf("Microsoft sends to %s", to)
	}
	to.Fragment = ""
	return to
}

// with returns an address with other parameters.
func with(to *url.URL, pairs ...string) string {
	changed, query := *to, to.Query()
	for i := 0; i < len(pairs); i += 2 {
		query.Set(pairs[i], pairs[i+1])
	}
	changed.RawQuery = query.Encode()
	return changed.String()
}

// pass is what is in the browser's cookie, and setPass replaces it.
func (b *browser) pass() (p map[string]any) {
	b.t.Helper()
	text, err := base64.RawURLEncoding.DecodeString(b.cookies["connect.example"][cookie])
	if err != nil || json.Unmarshal(text, &p) != nil {
		b.t.Fatalf("the cookie is %q", text)
	}
	return p
}

func (b *browser) setPass(p map[string]any) {
	text, _ := json.Marshal(p)
	b.cookies["connect.example"] = map[string]string{cookie: base64.RawURLEncoding.EncodeToString(text)}
}

// An answer that nobody signed does not decide which tenant is connected.
func TestForgedTenant(t *testing.T) {
	w := start(t, stack.Options{})
	link := w.invite("newco")
	b := w.browser().open(link).signIn(fresh).press("step", "connect")
	answer := b.callbackAfter("answer", "cancel")
	forged := with(answer, "admin_consent", "True", "tenant", TenantB)
	forged = strings.NewReplacer("error=access_denied&", "", "error_description", "x").Replace(forged)
	b.open(forged).want(400, altered)
	w.waiting("newco", "answer_tampered")
	// Nor does a cookie, which nobody signed either.
	p := b.pass()
	p["t"], p["s"], p["e"], p["c"] = TenantB, "approved", "", time.Now().Unix()
	b.setPass(p)
	b.open(link).want(200, "Waiting for Microsoft") // for the tenant that was proved
	p["k"] = "made-up"
	b.setPass(p)
	b.open(link).want(200, welcomeTitle)
	b.press("step", "start").want(200, "Pick an account")
	w.waiting("newco", "answer_tampered")
}

// A sign-in counts for one invitation.
func TestSignInForAnotherInvitation(t *testing.T) {
	w := start(t, stack.Options{})
	one, two := w.invite("one"), w.invite("two", "tenant_id", TenantB)
	b := w.browser().open(one).signIn(admin).want(200, confirmTitle)
	p := b.pass()
	p["l"] = strings.TrimPrefix(two, "/connect/")
	b.setPass(p)
	b.open(two).want(200, welcomeTitle)
}

// Each claim that the ID token is checked for is wrong once.
func TestIDTokens(t *testing.T) {
	w := start(t, stack.Options{})
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	w.Entra.AddTenant(entratest.Tenant{ID: newTenant, Key: other})
	w.Entra.Consent(newTenant, ClientID, "User.Read.All")
	issuer := func(tenant string) string { return "https://login.example/" + tenant + "/v2.0" }
	link := w.invite("one")
	for name, forge := range map[string]func(header, claims map[string]any) *rsa.PrivateKey{
		"signature by nobody": func(map[string]any, map[string]any) *rsa.PrivateKey { return other },
		"key of another tenant": func(_, claims map[string]any) *rsa.PrivateKey {
			claims["iss"] = strings.Replace(claims["iss"].(string), TenantA, newTenant, 1)
			claims["tid"] = newTenant
			return nil
		},
		"issuer of another tenant": func(_, claims map[string]any) *rsa.PrivateKey {
			claims["iss"] = strings.Replace(claims["iss"].(string), TenantA, TenantB, 1)
			return nil
		},
		"tenant of another issuer": func(_, claims map[string]any) *rsa.PrivateKey { claims["tid"] = TenantB; return nil },
		"issuer of another cloud": func(_, claims map[string]any) *rsa.PrivateKey {
			claims["iss"] = "https://login.microsoftonline.us/" + TenantA + "/v2.0"
			return nil
		},
		"issuer for any tenant": func(_, claims map[string]any) *rsa.PrivateKey { claims["iss"] = issuer("{tenantid}"); return nil },
		"another app":           func(_, claims map[string]any) *rsa.PrivateKey { claims["aud"] = OtherID; return nil },
		"two apps": func(_, claims map[string]any) *rsa.PrivateKey {
			claims["aud"] = []string{claims["aud"].(string), OtherID}
			return nil
		},
		"expired": func(_, claims map[string]any) *rsa.PrivateKey { claims["exp"] = time.Now().Unix() - 3600; return nil },
		"not valid yet": func(_, claims map[string]any) *rsa.PrivateKey {
			claims["nbf"] = time.Now().Unix() + 3600
			return nil
		},
		"replayed":      func(_, claims map[string]any) *rsa.PrivateKey { claims["nonce"] = strings.Repeat("A", 43); return nil },
		"without nonce": func(_, claims map[string]any) *rsa.PrivateKey { delete(claims, "nonce"); return nil },
		"version 1":     func(_, claims map[string]any) *rsa.PrivateKey { claims["ver"] = "1.0"; return nil },
		"no tenant":     func(_, claims map[string]any) *rsa.PrivateKey { delete(claims, "tid"); return nil },
		"a domain":      func(_, claims map[string]any) *rsa.PrivateKey { claims["tid"] = "contoso.com"; return nil },
		"a path":        func(_, claims map[string]any) *rsa.PrivateKey { claims["tid"] = "../" + TenantA; return nil },
		"no algorithm":  func(header, _ map[string]any) *rsa.PrivateKey { header["alg"] = "none"; return nil },
		"symmetric":     func(header, _ map[string]any) *rsa.PrivateKey { header["alg"] = "HS256"; return nil },
	} {
		w.Entra.ForgeIDTokens(forge)
		b := w.browser().open(link).signIn(admin)
		if b.status != 403 || b.title() != unproved {
			t.Errorf("%s: %d %s", name, b.status, b.title())
		}
		w.waiting("one", "id_token_invalid")
	}
	w.Entra.ForgeIDTokens(nil)
	w.browser().open(link).signIn(fresh).want(200, confirmTitle) // with its own key
}

// A code counts in the browser that asked for it.
func TestCodeInjection(t *testing.T) {
	w := start(t, stack.Options{})
	link := w.invite("one")
	theirs := w.browser().open(link).press("step", "start").callbackAfter("account", admin)
	mine := w.browser().open(link).press("step", "start")
	answer := mine.callbackAfter("account", member)
	mine.open(with(answer, "code", theirs.Query().Get("code"))).want(422, "Microsoft does not accept the app")
	if codes := w.connection("one"); Text(codes["error"], "code") != "AADSTS501481" {
		t.Errorf("PKCE did not stop it: %v", codes["error"])
	}
}

func TestPKCE(t *testing.T) {
	w := start(t, stack.Options{})
	link := w.invite("one")
	seen := map[string]bool{}
	for range 2 {
		query := w.browser().open(link).press("step", "start").where.Query()
		if query.Get("code_challenge_method") != "S256" || len(query.Get("code_challenge")) != 43 {
			t.Errorf("the challenge is %v", query)
		}
		for _, name := range []string{"state", "nonce", "code_challenge"} {
			if value := query.Get(name); len(value) != 43 || seen[value] {
				t.Errorf("%s is %q, too short or not new", name, value)
			} else {
				seen[value] = true
			}
		}
	}
}

// Nobody can make somebody else's browser begin, or finish, what it did not ask for.
func TestCrossSiteRequests(t *testing.T) {
	w := start(t, stack.Options{})
	link := w.invite("one")
	b := w.browser().open(link).signIn(admin).want(200, confirmTitle)
	address := b.where
	b.where = nil // the form is on another site
	b.do("POST", address, url.Values{"step": {"connect"}})
	b.want(400, altered)
	w.waiting("one", "")

	answer := w.browser().open(link).press("step", "start").callbackAfter("account", otherOne)
	w.browser().open(answer.String()).want(400, lost) // a browser that knows nothing
	mine := w.browser().open(link).press("step", "start")
	sent := mine.where
	mine.open(answer.String()).want(400, altered)
	mine.where = sent // what was begun goes on
	mine.do("GET", sent, nil)
	mine.press("account", admin).want(200, confirmTitle)
}

// A cookie that somebody knew before the sign-in is worth nothing after it.
func TestFixation(t *testing.T) {
	w := start(t, stack.Options{})
	link := w.invite("one")
	victim, thief := w.browser().open(link).press("step", "start"), w.browser()
	known := maps.Clone(victim.cookies["connect.example"])
	victim.press("account", admin).want(200, confirmTitle)
	thief.cookies["connect.example"] = known
	p := thief.pass()
	p["s"] = "signed"
	thief.setPass(p)
	thief.open(link).want(200, welcomeTitle)
}

func TestStates(t *testing.T) {
	w := start(t, stack.Options{})
	link := w.invite("one")
	b := w.browser().open(link).press("step", "start")
	answer := b.callbackAfter("account", admin)
	for name, change := range map[string]func(url.Values){
		"text appended": func(q url.Values) { q.Set("state", q.Get("state")+"Sign in to your account") },
		"cut":           func(q url.Values) { q.Set("state", q.Get("state")[:20]) },
		"empty":         func(q url.Values) { q.Set("state", "") },
		"twice":         func(q url.Values) { q.Add("state", q.Get("state")) },
		"code twice":    func(q url.Values) { q.Add("code", "x") },
	} {
		query := answer.Query()
		change(query)
		b.open("/connect/callback?" + query.Encode())
		if b.status != 400 || b.title() != altered {
			t.Errorf("%s: %d %s", name, b.status, b.title())
		}
	}
	b.open("/connect/callback?code=x").want(400, lost)
	b.open("/connect/callback?error=access_denied&admin_consent=True").want(400, lost)
	// From the portal's own button, which knows no state.
	b.open("/connect/callback?admin_consent=True&tenant="+TenantA).want(200, "Approved at Microsoft")
	b.open(answer.String()).want(200, confirmTitle)
	b.open(answer.String()).want(400, altered) // a second time
	b.open(link).want(200, confirmTitle)
	b.press("step", "connect").want(200, "Connected")
}

// Whatever a cookie says, a redirect leads to a page of ours or to Microsoft.
func TestOpenRedirect(t *testing.T) {
	w := start(t, stack.Options{})
	link := w.invite("one")
	b := w.browser().open(link).press("step", "start")
	state := b.where.Query().Get("state")
	for _, to := range []string{"//evil.example", "https://evil.example", "../../evil", "/evil", "\\\\evil.example"} {
		p := b.pass()
		p["l"] = to
		b.setPass(p)
		b.do("GET", must(url.Parse("https://connect.example/connect/callback?code=x&state="+state)), nil)
		if got := b.header.Get("Location"); got != "./lost" {
			t.Errorf("it leads to %s", got)
		}
	}
}

func must(u *url.URL, _ error) *url.URL { return u }

// Text from outside stays text.
func TestTextsFromOutside(t *testing.T) {
	w := start(t, stack.Options{})
	const nasty = `"><script>alert(1)</script>@contoso.com`
	w.Entra.AddUser(entratest.User{Account: nasty, Name: nasty, TenantID: TenantA, Roles: []string{entratest.GlobalAdministrator}})
	b := w.browser().open(w.invite("one")).press("step", "start")
	b.do("POST", b.where, url.Values{"account": {nasty}})
	b.follow().want(200, confirmTitle)
	if !strings.Contains(b.text(), nasty) || strings.Contains(b.body, "<script") {
		t.Errorf("the page is %s", b.body)
	}
	answer := b.open(w.invite("two")).press("step", "start").where.Query()
	b.open("/connect/callback?error=%3Cscript%3E&error_description=%3Cscript%3E&state="+answer.Get("state")).want(400, brokenOff)
	if strings.Contains(b.body, "<script") || Text(w.connection("two")["error"], "code") != "sign_in_failed" {
		t.Errorf("%s\n%v", b.body, w.connection("two"))
	}
}

func TestHeaders(t *testing.T) {
	w := start(t, stack.Options{})
	link := w.invite("one")
	b := w.browser()
	for _, page := range []string{link, "/connect/none", "/connect/lost", "/connect/approved"} {
		b.open(page)
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; style-src 'sha256-", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Content-Type": "text/html; charset=utf-8",
		} {
			if got := b.header.Get(name); !strings.HasPrefix(got, want) {
				t.Errorf("%s: %s is %q", page, name, got)
			}
		}
		if policy := b.header.Get("Content-Security-Policy"); !strings.Contains(policy, "frame-ancestors 'none'") || strings.Contains(policy, "form-action") {
			t.Errorf("the policy is %s", policy)
		}
		if strings.Contains(b.body, "http://") || strings.Contains(b.body, "https://") || strings.Contains(b.body, "<script") {
			t.Errorf("%s asks others for something: %s", page, b.body)
		}
	}
	b.open(link)
	b.do("POST", b.where, url.Values{"step": {"start"}})
	if got := b.header.Get("Set-Cookie"); !strings.Contains(got, "; Path=/; Max-Age=3600; HttpOnly; Secure; SameSite=Lax") || strings.Contains(got, "Domain") {
		t.Errorf("the cookie is %s", got)
	}
}

// Programs that look at mail open links, and may press buttons. That spends nothing.
func TestMailScanner(t *testing.T) {
	w := start(t, stack.Options{})
	link := w.invite("one")
	for range 3 {
		w.browser().open(link).want(200, welcomeTitle).press("step", "start").want(200, "Pick an account")
	}
	w.browser().open(link).signIn(admin).press("step", "connect").want(200, "Connected")
}

// Nothing secret is in a log, an event or a metric, in a page, in a tag, or in an address that stays
// in the browser.
func TestSecretsStaySecret(t *testing.T) {
	w := start(t, stack.Options{})
	link := w.invite("newco")
	invitation := strings.TrimPrefix(link, "/connect/")
	b := w.browser()
	bodies, keys := "", map[string]bool{}
	look := func() {
		bodies += b.body
		if b.cookies["connect.example"][cookie] != "" {
			if key, _ := b.pass()["k"].(string); key != "" {
				keys[key] = true
			}
		}
	}
	b.open(link)
	look()
	b.press("step", "start")
	look()
	state := b.where.Query().Get("state")
	b.press("account", fresh)
	look()
	b.press("step", "connect")
	look()
	b.press("answer", "accept").want(200, "Connected")
	look()
	secrets := slices.Concat(w.Entra.Codes(), w.Entra.IDTokens(), w.Entra.Tokens(), slices.Collect(maps.Keys(keys)), []string{Secret, state})
	secrets = append(secrets, invitation[strings.LastIndex(invitation, "~")+1:])
	seen, _ := w.Secrets.Look("entra/connections/default/newco")
	log := w.Output()
	if at := strings.Index(log, `"url":"`); at >= 0 { // the answer to the operator has the link
		log = log[:at] + log[at+strings.Index(log[at:], "\n"):]
	}
	places := map[string]string{"the log": log, "a page": bodies, "events": fmt.Sprint(w.Events.Events()),
		"tags": fmt.Sprint(seen.Tags, seen.Description)}
	for place, text := range places {
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("%s has %s:\n%s", place, secret, text)
			}
		}
	}
	for _, address := range b.visited {
		if strings.HasPrefix(address, "https://connect.example") && strings.Contains(address, "?") {
			t.Errorf("the browser remembers %s", address)
		}
	}
	if len(keys) < 2 {
		t.Error("the key of the cookie stays the same")
	}
}
