package main_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/stack"
	. "entra-connector/internal/stack/stacktest"
	"entra-connector/pkg/entra/entratest"
)

func TestMain(m *testing.M) { MainWithPage(m) }

// Who can sign in.
const (
	admin     = "ada@contoso.com"     // Global Administrator of TenantA
	second    = "eve@contoso.com"     // Privileged Role Administrator of TenantA
	appAdmin  = "cal@contoso.com"     // Cloud Application Administrator of TenantA
	member    = "bob@contoso.com"     // of TenantA
	guest     = "gus@partner.example" // a guest in TenantA
	otherOne  = "fay@fabrikam.com"    // Global Administrator of TenantB
	personal  = "pat@outlook.com"
	fresh     = "new@newco.example" // Global Administrator of a tenant that has not consented
	newTenant = "eeeeeeee-0000-4000-8000-000000000005"
)

// world is a connector with the customer's page.
type world struct {
	*Connector
	t *testing.T
}

func (w world) browser() *Browser { return w.Browser() }

func start(t *testing.T, o stack.Options) world {
	t.Helper()
	o.Connect = ConnectBinary
	o.Env = append(o.Env, "CONNECT_PAGE=true")
	o.ConnectEnv = append(o.ConnectEnv, "CONNECT_PRODUCT=Acme <Cloud>", "CONNECT_CONTACT=help@acme.example")
	w := world{Start(t, o), t}
	w.Entra.AddApp(entratest.App{ClientID: ClientID, Secrets: []entratest.Secret{{Value: Secret}}, Roles: []string{"User.Read.All"},
		RedirectURIs: []string{"https://connect.example/connect/callback"}})
	w.Entra.AddTenant(entratest.Tenant{ID: newTenant, Domains: []string{"newco.example"}})
	for _, u := range []entratest.User{
		{Account: admin, Name: "Ada", TenantID: TenantA, Roles: []string{entratest.GlobalAdministrator}},
		{Account: second, Name: "Eve", TenantID: TenantA, Roles: []string{entratest.PrivilegedRoleAdministrator}},
		{Account: appAdmin, Name: "Cal", TenantID: TenantA, Roles: []string{entratest.CloudApplicationAdministrator}},
		{Account: member, Name: "Bob", TenantID: TenantA},
		{Account: guest, Name: "Gus", TenantID: TenantA, Guest: true},
		{Account: otherOne, Name: "Fay", TenantID: TenantB, Roles: []string{entratest.GlobalAdministrator}},
		{Account: personal, Name: "Pat", TenantID: entratest.Consumers},
		{Account: fresh, Name: "New", TenantID: newTenant, Roles: []string{entratest.GlobalAdministrator}},
	} {
		w.Entra.AddUser(u)
	}
	w.Call("PUT", "/apps/default", AppBody()).Want(t, 201)
	return w
}

// invite returns the path of a link.
func (w world) invite(connection string, fields ...string) string {
	w.t.Helper()
	reply := w.Call("POST", "/connections/default/"+connection+"/invitation", Object(fields...))
	if reply.Status != 200 && reply.Status != 201 {
		w.t.Fatalf("the invitation is answered %d %s", reply.Status, reply.Body)
	}
	link := Text(reply.JSON(w.t), "url")
	path, ok := strings.CutPrefix(link, "https://example.com") // where httptest's requests go
	if !ok || !strings.HasPrefix(path, "/connect/default~"+connection+"~") {
		w.t.Fatalf("the link is %s", link)
	}
	return path
}

func (w world) connection(name string) map[string]any {
	w.t.Helper()
	reply := w.Call("GET", "/connections/default/"+name, "")
	if reply.Status != 200 {
		return map[string]any{"status": reply.Status}
	}
	return reply.JSON(w.t)
}

const (
	welcomeTitle = "Connect your Microsoft tenant to Acme <Cloud>"
	confirmTitle = "Is this the right tenant?"
)

// connected wants a connection of a tenant with a token that Entra issued.
func (w world) connected(name, tenant string) {
	w.t.Helper()
	c := w.connection(name)
	if c["status"] != "ok" || c["tenant_id"] != tenant || w.Token("default/"+name) == "" {
		w.t.Errorf("%s is %v", name, c)
	}
}

// waiting wants a connection that is still invited, with this code of the last refusal.
func (w world) waiting(name, code string) {
	w.t.Helper()
	c := w.connection(name)
	if c["status"] != "invited" || c["tenant_id"] != "" || Text(c["error"], "code") != code {
		w.t.Errorf("%s is %v, want it to wait after %q", name, c, code)
	}
	if value, _ := w.Secrets.Value("entra/connections/default/" + name); value != "{}" {
		w.t.Errorf("before it is accepted, %s holds %s", name, value)
	}
}

func TestHappyWay(t *testing.T) {
	w := start(t, stack.Options{})
	link := w.invite("newco")
	w.waiting("newco", "")
	b := w.browser().Open(link).Want(200, welcomeTitle)
	if w.connection("newco")["opened_at"] == nil {
		t.Error("nobody sees that the link was opened")
	}
	b.SignIn(fresh).Want(200, confirmTitle)
	if text := b.Text(); !strings.Contains(text, fresh) || !strings.Contains(text, newTenant) {
		t.Errorf("the page asks without saying who and where: %s", text)
	}
	if w.connection("newco")["signed_in_at"] == nil {
		t.Error("nobody sees that somebody signed in")
	}
	b.Press("step", "connect").Want(200, "Permissions requested").Press("answer", "accept").Want(200, "Connected")
	w.connected("newco", newTenant)
	b.Open(link).Want(200, "Connected")
	w.browser().Open(link).Want(410, "This invitation has been used")
	events := w.Events.Events()
	if n := len(events); n != 1 || events[0].DetailType != "entra.connection.connected" {
		t.Errorf("the events are %+v", events)
	}
}

func TestConsentedAlready(t *testing.T) {
	w := start(t, stack.Options{})
	b := w.browser().Open(w.invite("one")).SignIn(admin).Want(200, confirmTitle)
	b.Press("step", "connect").Want(200, "Connected")
	w.connected("one", TenantA)
	if len(b.Visited) > 0 && strings.Contains(strings.Join(b.Visited, " "), "adminconsent") {
		t.Error("a tenant that has consented is asked again")
	}
}

// Every end has its page, its status and its code for the operator, and the link goes on working.
func TestRefusals(t *testing.T) {
	w := start(t, stack.Options{Entra: entratest.Options{PersonalAccounts: true}})
	for name, test := range map[string]struct {
		fields  []string
		account string
		status  int
		title   string
		code    string
	}{
		"member":        {nil, member, 403, "An administrator is needed", "not_an_administrator"},
		"app-admin":     {nil, appAdmin, 403, "An administrator is needed", "not_an_administrator"}, // for Graph
		"devops-admin":  {[]string{"service", "azure-devops"}, appAdmin, 200, confirmTitle, ""},
		"guest":         {nil, guest, 403, "You are a guest in this tenant", "guest_account"},
		"guest-named":   {[]string{"tenant_id", TenantA}, guest, 403, "You are a guest in this tenant", "guest_account"},
		"member-named":  {[]string{"tenant_id", "contoso.com"}, member, 200, confirmTitle, ""},
		"other-tenant":  {[]string{"tenant_id", TenantA}, otherOne, 403, "This is another tenant", "other_tenant"},
		"personal":      {nil, personal, 403, "This is a personal account", "personal_account"},
		"back":          {nil, "", 403, "Not approved", "consent_declined"},
		"administrator": {nil, second, 200, confirmTitle, ""},
	} {
		link := w.invite(name, test.fields...)
		b := w.browser().Open(link).SignIn(test.account).Want(test.status, test.title)
		w.waiting(name, test.code)
		b.Open(link).Want(test.status, test.title) // it survives a reload
		// Somebody else can go on with the same link.
		w.browser().Open(link).Want(200, welcomeTitle).SignIn(admin).Press("step", "connect").Want(200, "Connected")
	}
}

func TestNoRolesInTheToken(t *testing.T) {
	w := start(t, stack.Options{})
	w.Entra.AddApp(entratest.App{ClientID: ClientID, Secrets: []entratest.Secret{{Value: Secret}}, NoWids: true,
		RedirectURIs: []string{"https://connect.example/connect/callback"}})
	b := w.browser().Open(w.invite("one")).SignIn(admin).Want(422, "We cannot see that you are an administrator")
	if !strings.Contains(b.Text(), "groupMembershipClaims") || !strings.Contains(Text(w.connection("one")["error"], "action"), "groupMembershipClaims") {
		t.Error("nobody is told the name of the setting")
	}
	w.browser().Open(w.invite("two", "tenant_id", TenantA)).SignIn(admin).Want(200, confirmTitle)
}

func TestConsentDeclined(t *testing.T) {
	w := start(t, stack.Options{})
	link := w.invite("newco")
	b := w.browser().Open(link).SignIn(fresh).Press("step", "connect").Press("answer", "cancel").Want(403, "Not approved")
	w.waiting("newco", "consent_declined")
	b.Press("step", "connect").Press("answer", "accept").Want(200, "Connected")
	w.connected("newco", newTenant)
}

func TestConditionalAccess(t *testing.T) {
	w := start(t, stack.Options{})
	w.Entra.AddTenant(entratest.Tenant{ID: newTenant, DeviceFilter: true})
	b := w.browser().Open(w.invite("newco")).SignIn(fresh).Press("step", "connect").Want(403, "Your organization's policy stops this page")
	if !strings.Contains(b.Text(), "Enterprise applications") || !strings.Contains(b.Text(), ClientID) {
		t.Error("the page does not say where else to approve what")
	}
	w.waiting("newco", "AADSTS50097")
	w.Entra.Consent(newTenant, ClientID, "User.Read.All") // in the portal
	b.Press("step", "check").Want(200, "Connected")
	w.connected("newco", newTenant)
}

// A new consent takes its time. The page asks for patience, and a reload goes on.
func TestConsentThatSpreads(t *testing.T) {
	now := time.Now()
	clock := func() time.Time { return now }
	w := start(t, stack.Options{Entra: entratest.Options{Spread: time.Minute, Now: clock}})
	link := w.invite("newco")
	b := w.browser().Open(link).SignIn(fresh).Press("step", "connect").Press("answer", "accept").Want(200, "Waiting for Microsoft")
	if b.Header.Get("Refresh") == "" {
		t.Error("the page does not look again")
	}
	w.waiting("newco", "")
	b.Open(link).Want(200, "Waiting for Microsoft")
	now = now.Add(2 * time.Minute)
	b.Open(link).Want(200, "Connected")
	w.connected("newco", newTenant)
}

func TestLinksThatDoNotWork(t *testing.T) {
	now := time.Now()
	w := start(t, stack.Options{Secrets: secretstoretest.Options{Now: func() time.Time { return now }}})
	b := w.browser()
	link := w.invite("one")
	b.Open(link+"x").Want(404, "There is no such invitation")
	b.Open("/connect/a/b/c").Want(404, "There is no such invitation")
	b.Open("/connect/default~one~"+strings.Repeat("A", 26)).Want(404, "There is no such invitation")
	b.Open("/connect/default~none~"+strings.Repeat("A", 26)).Want(404, "There is no such invitation")
	newer := w.invite("one")
	b.Open(link).Want(404, "There is no such invitation")
	now = now.Add(7*24*time.Hour + time.Minute)
	b.Open(newer).Want(410, "This invitation has expired")
	w.Call("DELETE", "/connections/default/one", "").Want(t, 204)
	b.Open(newer).Want(410, "This invitation has been withdrawn")
	if got := w.connection("one"); got["status"] != 404 {
		t.Errorf("a revoked invitation is listed as %v", got)
	}
	now = time.Now() // by which the provision function goes
	again := w.invite("one")
	b.Open(newer).Want(404, "There is no such invitation")
	b.Open(again).Want(200, welcomeTitle)
}

// What the operator does while somebody is at Microsoft holds.
func TestWhileSomebodyIsAtMicrosoft(t *testing.T) {
	w := start(t, stack.Options{})
	for name, test := range map[string]struct {
		meanwhile func(name string)
		status    int
		title     string
	}{
		"revoked":  {func(name string) { w.Call("DELETE", "/connections/default/"+name, "").Want(t, 204) }, 410, "This invitation has been withdrawn"},
		"replaced": {func(name string) { w.invite(name) }, 404, "There is no such invitation"},
		"provisioned": {func(name string) {
			w.Call("POST", "/connections", Object("tenant_id", TenantB, "connection", name)).Want(t, 201)
		}, 410, "This invitation has been used"},
	} {
		for _, at := range []string{"sign-in", "confirmation"} {
			name := name + "-" + at
			b := w.browser().Open(w.invite(name)).Press("step", "start")
			if at == "confirmation" {
				b.Press("account", admin)
			}
			test.meanwhile(name)
			if at == "confirmation" {
				b.Press("step", "connect")
			} else {
				b.Press("account", admin)
			}
			b.Want(test.status, test.title)
			if c := w.connection(name); c["tenant_id"] == TenantA {
				t.Errorf("%s is %v", name, c)
			}
		}
	}
}

func TestTwoAdministrators(t *testing.T) {
	w := start(t, stack.Options{})
	link := w.invite("one")
	first, other := w.browser().Open(link).SignIn(admin).Want(200, confirmTitle), w.browser().Open(link).SignIn(otherOne).Want(200, confirmTitle)
	other.Press("step", "connect").Want(200, "Connected")
	first.Press("step", "connect").Want(410, "This invitation has been used")
	w.connected("one", TenantB)
}

func TestOperatorsView(t *testing.T) {
	w := start(t, stack.Options{})
	w.invite("one")
	w.Call("POST", "/connections/default/one/refresh", "").Want(t, 409)
	w.Call("DELETE", "/apps/default", "").Want(t, 409)
	w.Call("POST", "/connections/none/one/invitation", "").Want(t, 404)
	w.Call("POST", "/connections/default/one/invitation", `{"expires_in_days":31,"tenant_id":"common"}`).Want(t, 400)
	w.Call("POST", "/connections/default/one/invitation", `{"expires_in_days":"7"}`).Want(t, 400)
	w.Call("POST", "/connections/default/one/invitation", `{"expires_in_days":7.5}`).Want(t, 400)
	w.Call("POST", "/connections/default/one/invitation", `{"expires_in_days":null}`).Want(t, 400)
	w.Call("POST", "/connections/default/one/invitation", `{"expires_in_days":7.0}`).Want(t, 200)
	w.Call("POST", "/connections/default/one/invitation", "").Want(t, 200)
	report := w.sweepAll(t)
	if report["due"] != 0. || report["failed"] != 0. {
		t.Errorf("a sweep does not leave an invitation alone: %v", report)
	}
	w.Call("POST", "/connections", Object("tenant_id", TenantA, "connection", "two")).Want(t, 201)
	w.Call("POST", "/connections/default/two/invitation", "").Want(t, 409)
}

// sweepAll forces a sweep over everything.
func (w world) sweepAll(t *testing.T) (report map[string]any) {
	t.Helper()
	result, err := w.Sweep(t.Context(), []byte(`{"force":true}`))
	if err != nil || json.Unmarshal(result.Payload, &report) != nil {
		t.Fatal(err, string(result.Payload))
	}
	return report
}
