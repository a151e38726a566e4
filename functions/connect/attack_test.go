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

	"entra-connector/internal/secretstore/secretstoretest"
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
func callbackAfter(b *Browser, name, value string) *url.URL {
	b.T.Helper()
	b.Do("POST", b.Where, url.Values{name: {value}})
	to, err := url.Parse(b.Header.Get("Location"))
	if err != nil || to.Path != "/connect/callback" {
		b.T.Fatalf("Microsoft sends to %s", to)
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
func passOf(b *Browser) (p map[string]any) {
	b.T.Helper()
	text, err := base64.RawURLEncoding.DecodeString(b.Cookies["connect.example"][cookie])
	if err != nil || json.Unmarshal(text, &p) != nil {
		b.T.Fatalf("the cookie is %q", text)
	}
	return p
}

func setPass(b *Browser, p map[string]any) {
	text, _ := json.Marshal(p)
	b.Cookies["connect.example"] = map[string]string{cookie: base64.RawURLEncoding.EncodeToString(text)}
}

// An answer that nobody signed does not decide which tenant is connected.
func TestForgedTenant(t *testing.T) {
	w := start(t, stack.Options{})
	link := w.invite("newco")
	b := w.browser().Open(link).SignIn(fresh).Press("step", "connect")
	answer := callbackAfter(b, "answer", "cancel")
	forged := with(answer, "admin_consent", "True", "tenant", TenantB)
	forged = strings.NewReplacer("error=access_denied&", "", "error_description", "x").Replace(forged)
	b.Open(forged).Want(400, altered)
	w.waiting("newco", "answer_tampered")
	// Nor does a cookie, which nobody signed either.
	p := passOf(b)
	p["t"], p["s"], p["e"], p["c"] = TenantB, "approved", "", time.Now().Unix()
	setPass(b, p)
	b.Open(link).Want(200, "Waiting for Microsoft") // for the tenant that was proved
	p["k"] = "made-up"
	setPass(b, p)
	b.Open(link).Want(200, welcomeTitle)
	b.Press("step", "start").Want(200, "Pick an account")
	w.waiting("newco", "answer_tampered")
}

// A sign-in counts for one invitation.
func TestSignInForAnotherInvitation(t *testing.T) {
	w := start(t, stack.Options{})
	one, two := w.invite("one"), w.invite("two", "tenant_id", TenantB)
	b := w.browser().Open(one).SignIn(admin).Want(200, confirmTitle)
	p := passOf(b)
	p["l"] = strings.TrimPrefix(two, "/connect/")
	setPass(b, p)
	b.Open(two).Want(200, welcomeTitle)
	// Nor does it count when the other one is put in while somebody is at Microsoft.
	b = w.browser().Open(one).Press("step", "start")
	answer := callbackAfter(b, "account", otherOne)
	p = passOf(b)
	p["l"] = strings.TrimPrefix(two, "/connect/")
	setPass(b, p)
	b.Open(answer.String()).Want(400, altered)
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
		b := w.browser().Open(link).SignIn(admin)
		if b.Status != 403 || b.Title() != unproved {
			t.Errorf("%s: %d %s", name, b.Status, b.Title())
		}
		w.waiting("one", "id_token_invalid")
	}
	w.Entra.ForgeIDTokens(nil)
	w.browser().Open(link).SignIn(fresh).Want(200, confirmTitle) // with its own key
}

// A code counts in the browser that asked for it.
func TestCodeInjection(t *testing.T) {
	w := start(t, stack.Options{})
	link := w.invite("one")
	theirs := callbackAfter(w.browser().Open(link).Press("step", "start"), "account", admin)
	mine := w.browser().Open(link).Press("step", "start")
	answer := callbackAfter(mine, "account", member)
	mine.Open(with(answer, "code", theirs.Query().Get("code"))).Want(422, "Microsoft does not accept the app")
	if codes := w.connection("one"); Text(codes["error"], "code") != "AADSTS501481" {
		t.Errorf("PKCE did not stop it: %v", codes["error"])
	}
}

func TestPKCE(t *testing.T) {
	w := start(t, stack.Options{})
	link := w.invite("one")
	seen := map[string]bool{}
	for range 2 {
		query := w.browser().Open(link).Press("step", "start").Where.Query()
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
	b := w.browser().Open(link).SignIn(admin).Want(200, confirmTitle)
	address := b.Where
	b.Where = nil // the form is on another site
	b.Do("POST", address, url.Values{"step": {"connect"}})
	b.Want(400, altered)
	w.waiting("one", "")

	answer := callbackAfter(w.browser().Open(link).Press("step", "start"), "account", otherOne)
	w.browser().Open(answer.String()).Want(400, lost) // a browser that knows nothing
	mine := w.browser().Open(link).Press("step", "start")
	sent := mine.Where
	mine.Open(answer.String()).Want(400, altered)
	mine.Where = sent // what was begun goes on
	mine.Do("GET", sent, nil)
	mine.Press("account", admin).Want(200, confirmTitle)
}

// A cookie that somebody knew before the sign-in is worth nothing after it.
func TestFixation(t *testing.T) {
	w := start(t, stack.Options{})
	link := w.invite("one")
	victim, thief := w.browser().Open(link).Press("step", "start"), w.browser()
	known := maps.Clone(victim.Cookies["connect.example"])
	victim.Press("account", admin).Want(200, confirmTitle)
	thief.Cookies["connect.example"] = known
	p := passOf(thief)
	p["s"] = "signed"
	setPass(thief, p)
	thief.Open(link).Want(200, welcomeTitle)
}

func TestStates(t *testing.T) {
	w := start(t, stack.Options{})
	link := w.invite("one")
	b := w.browser().Open(link).Press("step", "start")
	answer := callbackAfter(b, "account", admin)
	for name, change := range map[string]func(url.Values){
		"text appended": func(q url.Values) { q.Set("state", q.Get("state")+"Sign in to your account") },
		"cut":           func(q url.Values) { q.Set("state", q.Get("state")[:20]) },
		"empty":         func(q url.Values) { q.Set("state", "") },
		"twice":         func(q url.Values) { q.Add("state", q.Get("state")) },
		"code twice":    func(q url.Values) { q.Add("code", "x") },
	} {
		query := answer.Query()
		change(query)
		b.Open("/connect/callback?" + query.Encode())
		if b.Status != 400 || b.Title() != altered {
			t.Errorf("%s: %d %s", name, b.Status, b.Title())
		}
	}
	b.Open("/connect/callback?code=x").Want(400, lost)
	b.Open("/connect/callback?error=access_denied&admin_consent=True").Want(400, lost)
	// From the portal's own button, which knows no state.
	b.Open("/connect/callback?admin_consent=True&tenant="+TenantA).Want(200, "Approved at Microsoft")
	b.Open(answer.String()).Want(200, confirmTitle)
	b.Open(answer.String()).Want(400, altered) // a second time
	b.Open(link).Want(200, confirmTitle)
	b.Press("step", "connect").Want(200, "Connected")
}

// Whatever a cookie says, a redirect leads to a page of ours or to Microsoft.
func TestOpenRedirect(t *testing.T) {
	w := start(t, stack.Options{})
	link := w.invite("one")
	b := w.browser().Open(link).Press("step", "start")
	state := b.Where.Query().Get("state")
	for _, to := range []string{"//evil.example", "https://evil.example", "../../evil", "/evil", "\\\\evil.example"} {
		p := passOf(b)
		p["l"] = to
		setPass(b, p)
		b.Do("GET", must(url.Parse("https://connect.example/connect/callback?code=x&state="+state)), nil)
		if got := b.Header.Get("Location"); got != "./lost" {
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
	b := w.browser().Open(w.invite("one")).Press("step", "start")
	b.Do("POST", b.Where, url.Values{"account": {nasty}})
	b.Follow().Want(200, confirmTitle)
	if !strings.Contains(b.Text(), nasty) || strings.Contains(b.Body, "<script") {
		t.Errorf("the page is %s", b.Body)
	}
	answer := b.Open(w.invite("two")).Press("step", "start").Where.Query()
	b.Open("/connect/callback?error=%3Cscript%3E&error_description=%3Cscript%3E&state="+answer.Get("state")).Want(400, brokenOff)
	if strings.Contains(b.Body, "<script") || Text(w.connection("two")["error"], "code") != "sign_in_failed" {
		t.Errorf("%s\n%v", b.Body, w.connection("two"))
	}
}

func TestHeaders(t *testing.T) {
	w := start(t, stack.Options{})
	link := w.invite("one")
	b := w.browser()
	for _, page := range []string{link, "/connect/none", "/connect/lost", "/connect/approved"} {
		b.Open(page)
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; style-src 'sha256-", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Content-Type": "text/html; charset=utf-8",
		} {
			if got := b.Header.Get(name); !strings.HasPrefix(got, want) {
				t.Errorf("%s: %s is %q", page, name, got)
			}
		}
		if policy := b.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "frame-ancestors 'none'") || strings.Contains(policy, "form-action") {
			t.Errorf("the policy is %s", policy)
		}
		if strings.Contains(b.Body, "http://") || strings.Contains(b.Body, "https://") || strings.Contains(b.Body, "<script") {
			t.Errorf("%s asks others for something: %s", page, b.Body)
		}
	}
	b.Open(link)
	b.Do("POST", b.Where, url.Values{"step": {"start"}})
	if got := b.Header.Get("Set-Cookie"); !strings.Contains(got, "; Path=/; Max-Age=3600; HttpOnly; Secure; SameSite=Lax") || strings.Contains(got, "Domain") {
		t.Errorf("the cookie is %s", got)
	}
}

// Programs that look at mail open links, and may press buttons. That spends nothing.
func TestMailScanner(t *testing.T) {
	w := start(t, stack.Options{})
	link := w.invite("one")
	for range 3 {
		w.browser().Open(link).Want(200, welcomeTitle).Press("step", "start").Want(200, "Pick an account")
	}
	w.browser().Open(link).SignIn(admin).Press("step", "connect").Want(200, "Connected")
}

// Nothing secret is in a log, an event or a metric, in a page, in a tag, or in an address that
// stays in the browser.
func TestSecretsStaySecret(t *testing.T) {
	w := start(t, stack.Options{})
	link := w.invite("newco")
	invitation := strings.TrimPrefix(link, "/connect/")
	b := w.browser()
	bodies, keys := "", map[string]bool{}
	look := func() {
		bodies += b.Body
		if b.Cookies["connect.example"][cookie] != "" {
			if key, _ := passOf(b)["k"].(string); key != "" {
				keys[key] = true
			}
		}
	}
	b.Open(link)
	look()
	b.Press("step", "start")
	look()
	state := b.Where.Query().Get("state")
	b.Press("account", fresh)
	look()
	b.Press("step", "connect")
	look()
	b.Press("answer", "accept").Want(200, "Connected")
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
	for _, address := range b.Visited {
		if strings.HasPrefix(address, "https://connect.example") && strings.Contains(address, "?") {
			t.Errorf("the browser remembers %s", address)
		}
	}
	if len(keys) < 2 {
		t.Error("the key of the cookie stays the same")
	}
}

// A page that says what went wrong has no address with a code in it either.
func TestTroubleWithAnAnswer(t *testing.T) {
	w := start(t, stack.Options{})
	link := w.invite("one")
	for code, want := range map[string]struct {
		status int
		title  string
	}{
		"InternalServiceError":  {503, "This takes longer than usual"},
		"AccessDeniedException": {500, "Something is wrong on our side"},
	} {
		b := w.browser().Open(link).Press("step", "start")
		answer := callbackAfter(b, "account", admin)
		w.Secrets.Fail(secretstoretest.Fault{Op: "GetSecretValue", Times: 1, Error: code})
		b.Open(answer.String()).Want(want.status, want.title)
		if b.Where.Path != link || b.Where.RawQuery != "" {
			t.Errorf("the page is at %s", b.Where)
		}
		b.Open(link).Want(200, welcomeTitle)
		w.waiting("one", "")
	}
	w.browser().Open(link).SignIn(admin).Want(200, confirmTitle)
}
