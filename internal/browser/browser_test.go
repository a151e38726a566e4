package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"entra-connector/internal/stack"
	"entra-connector/pkg/entra/entratest"
)

// What `make build` and scripts/e2e.sh leave, and where pictures go.
const (
	built = "../../build"
	axe   = built + "/browser/node_modules/axe-core/axe.min.js"
	shots = built + "/browser/shots"
)

const (
	clientID = "11111111-aaaa-4aaa-8aaa-111111111111"
	secret   = "c4nary-secret"
	contoso  = "c0000000-0000-4000-8000-000000000001" // has consented
	newco    = "d0000000-0000-4000-8000-000000000003"
	litware  = "b0000000-0000-4000-8000-000000000004" // has device filters

	admin, member = "ada@contoso.example", "bob@contoso.example"
	guest         = "gus@partner.example"
	fresh         = "ada@newco.example"
	filtered      = "lee@litware.example"
	personal      = "pat@outlook.example"
)

// world is the built functions, the page at a host name of its own, and a browser.
type world struct {
	*stack.Stack
	t       *testing.T
	api     http.Handler
	browser context.Context
	axe     string
}

func start(t *testing.T, o entratest.Options) *world {
	t.Helper()
	if os.Getenv("CHROMIUM") == "" {
		t.Skip("make e2e runs it, with a browser and axe")
	}
	script, err := os.ReadFile(axe)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	base := fmt.Sprintf("http://localhost:%d", listener.Addr().(*net.TCPAddr).Port)
	o.PersonalAccounts = true
	s, err := stack.Start(stack.Options{
		Provision: built + "/provision/bootstrap", Refresh: built + "/refresh/bootstrap", Connect: built + "/connect/bootstrap",
		Env:        []string{"CONNECT_PAGE=true", "CONNECT_URL=" + base},
		ConnectEnv: []string{"CONNECT_PRODUCT=Acme Reports", "CONNECT_CONTACT=help@acme.example"},
		Entra:      o,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	server := &http.Server{Handler: s.API()}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })

	s.Entra.AddApp(entratest.App{ClientID: clientID, Secrets: []entratest.Secret{{Value: secret}},
		RedirectURIs: []string{base + "/connect/callback"}, Roles: []string{"User.Read.All"}})
	for _, id := range []string{contoso, newco, litware} {
		s.Entra.AddTenant(entratest.Tenant{ID: id, DeviceFilter: id == litware})
	}
	s.Entra.Consent(contoso, clientID, "User.Read.All")
	global := []string{entratest.GlobalAdministrator}
	for _, u := range []entratest.User{
		{Account: admin, Name: "Ada", TenantID: contoso, Roles: global}, {Account: member, Name: "Bob", TenantID: contoso},
		{Account: guest, Name: "Gus", TenantID: contoso, Guest: true}, {Account: fresh, Name: "Ada", TenantID: newco, Roles: global},
		{Account: filtered, Name: "Lee", TenantID: litware, Roles: global}, {Account: personal, Name: "Pat", TenantID: entratest.Consumers},
	} {
		s.Entra.AddUser(u)
	}
	w := &world{Stack: s, t: t, api: s.API(), axe: string(script)}
	w.call("PUT", "/apps/default", `{"client_id":"`+clientID+`","client_secret":"`+secret+`","service":"microsoft-graph"}`)

	options := []chromedp.ExecAllocatorOption{chromedp.ExecPath(os.Getenv("CHROMIUM")), chromedp.Headless,
		// A page that comes from this cache would not be asked for again.
		chromedp.Flag("disable-features", "BackForwardCache")}
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	allocator, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	w.browser, cancel = chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	if err := chromedp.Do(w.browser); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) call(method, path, body string) (int, []byte) {
	recorder := httptest.NewRecorder()
	w.api.ServeHTTP(recorder, httptest.NewRequest(method, path, strings.NewReader(body)))
	return recorder.Code, recorder.Body.Bytes()
}

func (w *world) invite(name, body string) string {
	w.t.Helper()
	status, answer := w.call("POST", "/connections/default/"+name+"/invitation", body)
	var invitation struct{ URL string }
	if err := json.Unmarshal(answer, &invitation); err != nil || status > 201 {
		w.t.Fatalf("%d %s", status, answer)
	}
	return invitation.URL
}

func (w *world) status(name string) string {
	_, answer := w.call("GET", "/connections/default/"+name, "")
	var c struct{ Status any }
	_ = json.Unmarshal(answer, &c)
	return fmt.Sprint(c.Status)
}

// person is somebody with a browser profile of her own.
type person struct {
	*world
	ctx context.Context
}

func (w *world) person() *person {
	w.t.Helper()
	tab, cancel := chromedp.NewContext(w.browser, chromedp.WithNewBrowserContext())
	w.t.Cleanup(cancel)
	ctx, cancel := context.WithTimeout(tab, 15*time.Minute)
	w.t.Cleanup(cancel)
	return &person{w, ctx}
}

func (p *person) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, steps...); err != nil {
		p.t.Fatal(err)
	}
}

func get[T any](p *person, a chromedp.Action[T]) T {
	p.t.Helper()
	v, err := chromedp.Run(p.ctx, a)
	if err != nil {
		p.t.Fatal(err)
	}
	return v
}

// open goes to an address. want checks the page's status and heading.
func (p *person) open(address string) *person {
	p.t.Helper()
	p.do(chromedp.Navigate(address))
	return p
}

// press clicks a button by its label or its value, and waits for the next page.
func (p *person) press(text string) *person {
	p.t.Helper()
	button := chromedp.Search(fmt.Sprintf(`//button[contains(., %q) or @value=%q]`, text, text))
	if _, err := chromedp.RunResponse(p.ctx, chromedp.Click(button)); err != nil {
		p.t.Fatalf("pressing %s: %v", text, err)
	}
	return p
}

func (p *person) want(status int, title string) *person {
	p.t.Helper()
	gotStatus := get(p, chromedp.Evaluate[int](`performance.getEntriesByType("navigation")[0].responseStatus`))
	if got := get(p, chromedp.Text(chromedp.CSS("h1"))); got != title || gotStatus != status {
		p.t.Fatalf("%d %q at %s, want %d %q", gotStatus, got, get(p, chromedp.Location()), status, title)
	}
	return p
}

func (p *person) signIn(account string) *person {
	p.t.Helper()
	return p.press("Continue with Microsoft").press(account)
}

// look takes pictures of the page, and checks it: for people who cannot see it, at the width of a
// small phone, which is also what a zoom of 200 % leaves of a window, and in both colour schemes.
func (p *person) look(name string) *person {
	p.t.Helper()
	for _, scheme := range []string{"light", "dark"} {
		if _, err := chromedp.Call(p.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}); err != nil {
			p.t.Fatal(err)
		}
		for size, width := range map[string]int64{"phone": 390, "desktop": 1280, "small": 320} {
			p.do(chromedp.EmulateViewport(width, 844))
			if wide := get(p, chromedp.Evaluate[int](`document.documentElement.scrollWidth`)); wide > int(width) {
				p.t.Errorf("%s: at %d pixels it is %d wide", name, width, wide)
			}
			if size != "small" {
				p.save(filepath.Join(shots, name+"-"+size+"-"+scheme+".png"), get(p, chromedp.FullScreenshot(100)))
			}
		}
		found := get(p, chromedp.Evaluate[string](p.axe+`;axe.run().then(r => r.violations.concat(r.incomplete).map(v =>
			v.id + ": " + v.nodes.map(n => n.html).join(" ")).join("\n"))`, chromedp.EvalAwaitPromise))
		if found != "" {
			p.t.Errorf("%s, %s: axe finds\n%s", name, scheme, found)
		}
	}
	p.do(chromedp.ResetViewport())
	return p
}

func (p *person) save(name string, content []byte) {
	p.t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err == nil {
		err = os.WriteFile(name, content, 0o644)
		if err != nil {
			p.t.Fatal(err)
		}
	}
}

// history wants nothing in the browser's history but the link itself: no code, state or token of
// ours.
func (p *person) history() {
	p.t.Helper()
	for _, entry := range get(p, chromedp.NavigationEntries()).Entries {
		if strings.HasPrefix(entry.URL, "http://localhost") && strings.ContainsAny(entry.URL, "?#") || strings.Contains(entry.URL, "code=") {
			p.t.Errorf("the history has %s", entry.URL)
		}
	}
}

const (
	welcome   = "Connect your Microsoft tenant to Acme Reports"
	confirm   = "Is this the right tenant?"
	connected = "Connected"
	used      = "This invitation has been used"
	noLink    = "There is no such invitation"
)

func TestWaysThrough(t *testing.T) {
	w := start(t, entratest.Options{Spread: 8 * time.Second})
	link := w.invite("newco", "")
	w.person().open(link).want(200, welcome).look("welcome") // a program that looks at mail

	p := w.person().open(link).want(200, welcome).signIn(fresh).want(200, confirm).look("confirm")
	p.press("Connect this tenant").press("Accept").want(200, "Waiting for Microsoft").look("waiting")
	p.do(chromedp.WaitVisible(chromedp.CSS("main.good"))) // the page looks again by itself
	p.want(200, connected).look("connected").history()
	if got := w.status("newco"); got != "ok" {
		t.Errorf("the connection is %s", got)
	}
	// Back leads to Microsoft's page, and from there to where the question was.
	p.do(chromedp.NavigateBack(), chromedp.NavigateBack())
	p.want(200, connected)
	p.open(link).want(200, connected)
	w.person().open(link).want(410, used).look("used")

	// One that has consented already.
	w.person().open(w.invite("contoso", "")).signIn(admin).press("Connect this tenant").want(200, connected).history()
}

func TestEnds(t *testing.T) {
	w := start(t, entratest.Options{})
	link := w.invite("newco", "")
	p := w.person().open(link).signIn(fresh).press("Connect this tenant").press("Cancel").want(403, "Not approved").look("declined")
	p.press("Try again").press("Accept").want(200, connected)

	for account, end := range map[string][2]string{
		member:   {"An administrator is needed", "no-administrator"},
		guest:    {"You are a guest in this tenant", "guest"},
		personal: {"This is a personal account", "personal"},
	} {
		link := w.invite(end[1], "")
		w.person().open(link).signIn(account).want(403, end[0]).look(end[1]).history()
		w.person().open(link).want(200, welcome) // nothing is spent
	}
	w.person().open(w.invite("other", `{"tenant_id":"`+newco+`"}`)).signIn(admin).want(403, "This is another tenant").look("other-tenant")
	p = w.person().open(w.invite("litware", "")).signIn(filtered).press("Connect this tenant").
		want(403, "Your organization's policy stops this page").look("conditional-access")
	w.Entra.Consent(litware, clientID, "User.Read.All") // in the portal
	p.press("I have approved it, check now").want(200, connected)

	// Closed and opened again.
	link = w.invite("reopened", "")
	p = w.person().open(link).press("Continue with Microsoft")
	p.open(link).want(200, welcome).signIn(admin).want(200, confirm)
	p.open("about:blank").open(link).want(200, confirm).press("Connect this tenant").want(200, connected)

	// Two at once.
	link = w.invite("both", "")
	one, two := w.person().open(link).signIn(admin), w.person().open(link).signIn(fresh)
	one.want(200, confirm).press("Connect this tenant").want(200, connected)
	two.want(200, confirm).press("Connect this tenant").want(410, used)

	// Replaced, revoked and mistyped.
	link = w.invite("gone", "")
	p = w.person().open(link).press("Continue with Microsoft")
	newer := w.invite("gone", "")
	p.press(admin).want(404, noLink).look("unknown")
	p.open(newer).press("Continue with Microsoft")
	w.call("DELETE", "/connections/default/gone", "")
	p.press(admin).want(410, "This invitation has been withdrawn").look("withdrawn")
	p.open(strings.TrimSuffix(newer, newer[len(newer)-3:])).want(404, noLink)

	// Answers that do not fit.
	link = w.invite("odd", "")
	base, _, _ := strings.Cut(link, "/connect/")
	p = w.person().open(link).press("Continue with Microsoft")
	state := get(p, chromedp.Evaluate[string](`new URL(location).searchParams.get("state")`))
	p.open(base+"/connect/callback?code=x&state="+state+"Sign%20in").want(400, "This answer does not fit").look("altered")
	p.open(base+"/connect/callback?admin_consent=True&tenant="+newco).want(200, "Approved at Microsoft").look("from-the-portal")
	p.open(base+"/connect/callback?code=x").want(400, "We cannot tell what this belongs to").look("lost").history()
}

// The way needs no script, and can be gone with the keyboard alone.
func TestWithoutScriptAndMouse(t *testing.T) {
	w := start(t, entratest.Options{})
	p := w.person()
	if _, err := chromedp.Call(p.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		t.Fatal(err)
	}
	next := func(keys string) {
		t.Helper()
		if _, err := chromedp.RunResponse(p.ctx, chromedp.KeyEvent(keys)); err != nil {
			t.Fatal(err)
		}
	}
	p.open(w.invite("one", "")).press("Continue with Microsoft").press(admin)
	next("\t\r") // the first button is what most people want
	if got := w.status("one"); got != "ok" {
		t.Errorf("the connection is %s at %s", got, get(p, chromedp.Location()))
	}
}
