package connector

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"entra-connector/pkg/entra"
)

var now = time.Date(2026, 11, 23, 1, 0, 0, 0, time.UTC)

// aged returns a connection with a token of this life, and this much of it left.
func aged(life, left time.Duration) Connection {
	at := now.Add(left - life)
	return Connection{TenantID: "contoso.com", Lifetime: life, ExpiresAt: now.Add(left), RefreshedAt: at, AppRotatedAt: at}
}

func (c Connection) failing(status Status, next time.Duration) Connection {
	c.Failure = &Failure{Status: status, AppChangedAt: now.Add(-time.Hour), NextAttempt: now.Add(next)}
	return c
}

func TestDue(t *testing.T) {
	const day = 24 * time.Hour
	put, rotated := App{ChangedAt: now.Add(-time.Minute)}, App{RotatedAt: now.Add(-time.Minute)}
	for _, tt := range []struct {
		name string
		c    Connection
		app  App
		want bool
	}{
		{"half of its life is left", aged(time.Hour, 30*time.Minute), App{}, false},
		{"less than half of its life", aged(time.Hour, 30*time.Minute-1), App{}, true},
		{"half of a short life", aged(10*time.Minute, 5*time.Minute), App{}, false},
		{"less than half of a short life", aged(10*time.Minute, 5*time.Minute-1), App{}, true},
		{"half of a long life", aged(day, 12*time.Hour), App{}, false},
		{"the window of a long life", aged(day, 30*time.Minute), App{}, false},
		{"less than the window of a long life", aged(day, 30*time.Minute-1), App{}, true},
		{"expired", aged(time.Hour, -time.Hour), App{}, true},
		{"nothing is known", Connection{}, App{}, true},
		{"the app was put since", aged(time.Hour, 45*time.Minute), put, false},
		{"the app was rotated since", aged(time.Hour, 45*time.Minute), rotated, true},
		{"refused", aged(time.Hour, 45*time.Minute).failing(StatusRefused, time.Hour), App{}, false},
		{"refused, and the app was put since", aged(time.Hour, 45*time.Minute).failing(StatusRefused, time.Hour), put, true},
		{"failed, and the app was put since", aged(time.Hour, 45*time.Minute).failing(StatusRetrying, time.Hour), put, false},
		{"a day old, whatever its life", aged(10*day, 9*day), App{}, false},
		{"more than a day old", aged(10*day, 9*day-1), App{}, true},
		{"from the future, as clocks differ", aged(time.Hour, time.Hour+10*time.Minute), App{}, false},
		{"from the future of a wrong clock", aged(time.Hour, time.Hour+10*time.Minute+1), App{}, true},
	} {
		if got := due(tt.c, tt.app, 30*time.Minute, 0, now); got != tt.want {
			t.Errorf("%s: due %t", tt.name, got)
		}
	}
}

// Connections that were provisioned together do not fall due together for ever, however punctual
// the schedule is.
func TestJitter(t *testing.T) {
	for _, late := range []time.Duration{0, time.Minute} {
		const many, slots = 120, 24 * 12
		all := slices.Repeat([]Connection{aged(time.Hour, 0)}, many)
		random := rand.New(rand.NewPCG(1, 0))
		refreshed := make([]int, 2*slots) // two days
		for slot := range refreshed {
			at := now.Add(time.Duration(slot)*5*time.Minute + time.Duration(random.Int64N(int64(late)+1)))
			for n, c := range all {
				if c.Name = fmt.Sprint(n); due(c, App{}, 30*time.Minute, 0.25, at) {
					all[n].RefreshedAt, all[n].ExpiresAt = at, at.Add(time.Hour)
					refreshed[slot]++
				} else if left := c.ExpiresAt.Sub(at); left < 30*time.Minute {
					t.Errorf("one has %v left and is not due", left)
				}
			}
		}
		if first, most := refreshed[0], slices.Max(refreshed[slots/4:]); first != many || most > many/3 {
			t.Errorf("late by at most %v: %d due together at first, %d after a quarter of a day", late, first, most)
		}
	}
}

func TestWaiting(t *testing.T) {
	put := App{ChangedAt: now}
	for _, tt := range []struct {
		name   string
		status Status
		next   time.Duration
		app    App
		want   bool
	}{
		{"after a failure", StatusRetrying, 1, App{}, true},
		{"until its time", StatusRetrying, 0, App{}, false},
		{"as long as Entra asked, although the app was put", StatusRetrying, 1, put, true},
		{"after a refusal", StatusRefused, 1, App{}, true},
		{"after a refusal until the app is put", StatusRefused, 1, put, false},
		{"as long as anything may wait", StatusRefused, 6 * time.Hour, App{}, true},
		{"longer, which a wrong clock wrote", StatusRefused, 6*time.Hour + 1, App{}, false},
	} {
		if got := waiting(Connection{}.failing(tt.status, tt.next), tt.app, now); got != tt.want {
			t.Errorf("%s: waits %t", tt.name, got)
		}
	}
	if waiting(Connection{}, App{}, now) {
		t.Error("a healthy connection waits")
	}
}

// The wait after a refusal depends on those before it. A failure that passes neither counts nor
// forgets them, and a change of the app forgets them. Since when it needs a person is kept until it
// recovers.
func TestFailures(t *testing.T) {
	c := Connection{}
	app := App{ChangedAt: now.Add(-24 * time.Hour)}
	at := now
	since := now.Add(time.Minute)
	for _, step := range []struct {
		name   string
		class  entra.Class
		asks   time.Duration // for a wait
		put    bool          // the app, beforehand
		status Status
		wait   time.Duration
	}{
		{"first", entra.Refused, 0, false, StatusRefused, 15 * time.Minute},
		{"second", entra.Refused, 0, false, StatusRefused, 30 * time.Minute},
		{"a failure that passes", entra.Unavailable, 0, false, StatusRetrying, 0},
		{"third", entra.Unsettled, 0, false, StatusRefused, time.Hour},
		{"first since the app changed", entra.Refused, 0, true, StatusRefused, 15 * time.Minute},
		{"not settled since the app changed", entra.Unsettled, 0, true, StatusRetrying, 0},
		{"not settled within 15 minutes", entra.Unsettled, 0, false, StatusRetrying, 0},
		{"throttled", entra.Throttled, time.Hour, false, StatusRetrying, time.Hour},
		{"throttled for longer than is believed", entra.Throttled, 7 * time.Hour, true, StatusRetrying, 6 * time.Hour},
		{"malformed", entra.Malformed, 0, false, StatusRetrying, 0},
		{"no answer", entra.Timeout, 0, false, StatusRetrying, 0},
		{"first again", entra.Refused, 0, false, StatusRefused, 15 * time.Minute},
	} {
		if at = at.Add(time.Minute); step.put {
			app.ChangedAt = at
		}
		c = c.withFailure(&entra.Error{Class: step.class, Code: "code", RetryAfter: step.asks}, app, at)
		if f := c.Failure; f.Status != step.status || f.NextAttempt.Sub(at) != step.wait || !f.RefusedSince.Equal(since) || !f.At.Equal(at) {
			t.Errorf("%s: %s, waits %v, refused since %v", step.name, f.Status, f.NextAttempt.Sub(at), f.RefusedSince)
		}
	}
	if c = c.withToken(app, entra.Token{RequestedAt: at}); c.Failure != nil {
		t.Errorf("with a token it is %s", c.Status())
	}
	for minutes, want := range map[time.Duration]Status{14: StatusRetrying, 15: StatusRefused} {
		at := app.ChangedAt.Add(minutes * time.Minute)
		if got := c.withFailure(&entra.Error{Class: entra.Unsettled}, app, at).Status(); got != want {
			t.Errorf("%d minutes after the app changed: %s, want %s", minutes, got, want)
		}
	}

	var waits []time.Duration
	for n := range 8 {
		waits = append(waits, backOff(n+1)/time.Minute)
	}
	if !slices.Equal(waits, []time.Duration{15, 30, 60, 120, 240, 360, 360, 360}) {
		t.Errorf("refusals wait %v minutes", waits)
	}
	// A Description is open to everyone with a console. No number in it ends a sweep.
	for _, refusals := range []int{-1 << 63, -1, 64, 1<<63 - 1} {
		c.Failure = &Failure{Status: StatusRefused, Refusals: refusals, AppChangedAt: app.ChangedAt}
		for range 2 {
			c = c.withFailure(&entra.Error{Class: entra.Refused}, app, at)
			if wait := c.Failure.NextAttempt.Sub(at); wait < 15*time.Minute || wait > 6*time.Hour {
				t.Errorf("after %d refusals it waits %v", refusals, wait)
			}
		}
	}
}

func TestSpending(t *testing.T) {
	isSpent := func(whole, at time.Time) bool { return spent(Connection{WholeAt: whole}, at) }
	whole := now.Add(-time.Hour)
	writes := 0
	for ; !isSpent(whole, now) && writes < 1000; writes++ {
		whole = spend(whole, now)
	}
	if writes != 30 || isSpent(whole, now.Add(pace)) || !isSpent(spend(whole, now.Add(pace)), now.Add(pace)) {
		t.Errorf("%d writes at once, and then one more in each %v: want 30", writes, pace)
	}
	whole = now
	for n := range 1000 { // as often as an ordinary token is due
		at := now.Add(time.Duration(n) * 30 * time.Minute)
		if whole = spend(whole, at); isSpent(whole, at) {
			t.Fatalf("an ordinary token waits after %d writes", n+1)
		}
	}
	wrong := now.Add(101 * pace) // which no right clock has written
	if isSpent(wrong, now) || !spend(wrong, now).Equal(now.Add(pace)) {
		t.Errorf("a wrong clock parks a connection until %v", spend(wrong, now))
	}
}

// A token can be issued although it is good for nothing, or will be refused by its service.
func TestWarnings(t *testing.T) {
	jwt := func(claims string) string {
		return "eyJhbGciOiJub25lIn0." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + "."
	}
	none, some := jwt(`{"roles":[]}`), jwt(`{"roles":["User.Read.All"]}`)
	const graph, devOps, sharePoint = "https://graph.microsoft.com/.default", "499b84ac-1321-427f-aa17-267ca6975798/.default", "https://contoso.sharepoint.com/.default"
	for _, tt := range []struct {
		name, scope, kind, token string
		seconds                  int64
		want                     []string
	}{
		{"Graph with a role", graph, "", some, 3599, nil},
		{"Graph without", graph, "", none, 3599, []string{WarnNoRoles}},
		{"Graph without, trailing slash", "https://graph.microsoft.com//.default", "", none, 3599, []string{WarnNoRoles}},
		{"Graph by its application ID without", "00000003-0000-0000-C000-000000000000/.default", "", none, 3599, []string{WarnNoRoles}},
		{"Business Central without", "https://api.businesscentral.dynamics.com/.default", "", none, 3599, []string{WarnNoRoles}},
		{"Storage, which knows no roles", "https://storage.azure.com/.default", "", none, 3599, nil},
		{"SQL, which knows no roles", "https://database.windows.net/.default", "", none, 3599, nil},
		{"a token that cannot be read", graph, "", "opaque", 3599, nil},
		{"Azure DevOps", devOps, "", none, 3599, []string{WarnDevOps}},
		{"SharePoint with a client secret", sharePoint, entra.KindClientSecret, some, 3599, []string{WarnSharePoint}},
		{"SharePoint with a certificate", sharePoint, entra.KindCertificate, some, 3599, nil},
		{"the shortest life that can be kept fresh", graph, "", some, 1728, nil},
		{"a shorter one", devOps, "", some, 1727, []string{WarnDevOps, WarnShortLived}},
	} {
		got := warnings(tt.scope, tt.kind, entra.Token{AccessToken: entra.NewSecret(tt.token), ExpiresIn: tt.seconds})
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// A token that has expired is never shown as healthy.
func TestSeen(t *testing.T) {
	fresh, expired := aged(time.Hour, 1), aged(time.Hour, 0)
	if got := fresh.Seen(now); got.Status() != StatusOK {
		t.Errorf("with a token it is %s", got.Status())
	}
	if got := expired.Seen(now); got.Status() != StatusRetrying || got.Failure.Code != CodeExpired || got.Failure.Action == "" || !got.Failure.At.Equal(now) {
		t.Errorf("without one it is %s: %+v", got.Status(), got.Failure)
	}
	if got := expired.failing(StatusRefused, 0).Seen(now); got.Status() != StatusRefused {
		t.Errorf("refused it is %s", got.Status())
	}
}

// What the metrics are made of: connections as they were before a sweep, and as it leaves them.
func TestHealth(t *testing.T) {
	fine := aged(time.Hour, 40*time.Minute)
	since := func(status Status, ago time.Duration) Connection {
		c := aged(time.Hour, 20*time.Minute).failing(status, 0)
		c.Failure.At, c.Failure.RefusedSince = now, now.Add(-ago)
		return c
	}
	var all Health
	for _, tt := range []struct {
		name          string
		before, after Connection
		want          Health
	}{
		{"healthy", fine, fine, Health{Healthy: 1}},
		{"newly refused", fine, since(StatusRefused, 0), Health{Refused: 1, NewlyRefused: 1}},
		{"still refused", since(StatusRefused, time.Hour), since(StatusRefused, time.Hour), Health{Refused: 1}},
		{"refused before, which the listing does not show", fine, since(StatusRefused, time.Hour), Health{Refused: 1}},
		{"recovered", since(StatusRefused, time.Hour), fine, Health{Recovered: 1, Healthy: 1}},
		{"between the two", since(StatusRefused, time.Hour), since(StatusRetrying, time.Hour), Health{Healthy: 1}},
		{"unreadable", Connection{}.failing(StatusRefused, 0), Connection{}.failing(StatusRefused, 0), Health{Refused: 1, NewlyRefused: 1}},
		{"unknown", fine, Connection{TenantID: "contoso.com"}.failing(StatusRetrying, 0), Health{}},
	} {
		var got Health
		got.see(tt.before, tt.after)
		if got.FirstExpiry = (time.Time{}); fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
		all.see(tt.before, tt.after)
		all.fail("refused")
	}
	all.fail("store")
	want := Health{Refused: 4, NewlyRefused: 2, Recovered: 1, Healthy: 3, FirstExpiry: now.Add(20 * time.Minute), FailedBy: map[string]int{"refused": 8, "store": 1}}
	if fmt.Sprint(all) != fmt.Sprint(want) {
		t.Errorf("together: %+v, want %+v", all, want)
	}
}

// A credential is reported a month, a week and a day before its end.
func TestExpiring(t *testing.T) {
	const day = 24 * time.Hour
	for left, days := range map[time.Duration]int{30*day + 1: -1, 30 * day: 30, 7*day + 1: 30, 7 * day: 7, day: 1, 1: 1, 0: 0, -day: 0} {
		app := App{Name: "a", Registration: entra.Registration{Credential: entra.Credential{SecretExpiresAt: now.Add(left)}}}
		got, soon := app.Expiring(now)
		if soon != (days >= 0) || soon && got != (Expiring{"a", "client_secret", now.Add(left), days}) {
			t.Errorf("%v left: %+v, %t", left, got, soon)
		}
	}
}

// Connections of the same credential, tenant and scope need the same token, also across apps.
func TestNeeds(t *testing.T) {
	app := App{Name: "a", Registration: entra.Registration{ClientID: "id", Cloud: entra.Public, Credential: entra.Credential{ClientSecret: entra.NewSecret("s")}}}
	c := Connection{ConnectionRef: ConnectionRef{"a", "one"}, TenantID: "t", Scope: "s"}
	all := make(needs)
	first := all.of(app, c)
	for name, change := range map[string]func(*App, *Connection){
		"":           func(a *App, c *Connection) { a.Name, c.App, c.Name, c.Version = "b", "b", "two", "v" },
		"credential": func(a *App, _ *Connection) { a.Credential.ClientSecret = entra.NewSecret("other") },
		"client":     func(a *App, _ *Connection) { a.ClientID = "other" },
		"cloud":      func(a *App, _ *Connection) { a.Cloud = entra.China },
		"tenant":     func(_ *App, c *Connection) { c.TenantID = "other" },
		"scope":      func(_ *App, c *Connection) { c.Scope = "other" },
	} {
		otherApp, other := app, c
		if change(&otherApp, &other); (all.of(otherApp, other) == first) != (name == "") {
			t.Errorf("connections that differ in %q share a token: %t", name, name != "")
		}
	}
}

// What is left out of a request for an app stays as it is stored, and a service is one of the app's
// cloud.
func TestAppRequest(t *testing.T) {
	secret, other := entra.NewSecret("secret"), entra.NewSecret("other")
	expires := now.AddDate(1, 0, 0)
	stored := App{Scope: "api://own/.default", Registration: entra.Registration{
		Cloud: entra.China, Credential: entra.Credential{ClientSecret: secret, SecretExpiresAt: expires}}}
	const china, usgov = "https://microsoftgraph.chinacloudapi.cn/.default", "https://graph.microsoft.us/.default"
	for _, tt := range []struct {
		name    string
		f       AppFields
		stored  App
		cloud   entra.Cloud
		scope   string // "-": the request is invalid
		expires time.Time
	}{
		{"all is left out of a new app", AppFields{}, App{}, entra.Public, "", time.Time{}},
		{"all is left out", AppFields{ClientSecret: secret}, stored, entra.China, "api://own/.default", expires},
		{"another secret", AppFields{ClientSecret: other}, stored, entra.China, "api://own/.default", time.Time{}},
		{"a date", AppFields{ClientSecret: secret, ClientSecretExpiresAt: "2027-01-31"}, stored, entra.China, "api://own/.default", time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC)},
		{"a scope", AppFields{ScopeFields: ScopeFields{Scope: "api://new/.default"}}, stored, entra.China, "api://new/.default", time.Time{}},
		{"a service of the stored cloud", AppFields{ScopeFields: ScopeFields{Service: "microsoft-graph"}}, stored, entra.China, china, time.Time{}},
		{"a service of another cloud", AppFields{Cloud: "usgov", ScopeFields: ScopeFields{Service: "microsoft-graph"}}, stored, entra.USGov, usgov, time.Time{}},
		{"a service that the stored cloud lacks", AppFields{ScopeFields: ScopeFields{Service: "azure-devops"}}, stored, "", "-", time.Time{}},
	} {
		tt.f.ClientID = "cccccccc-0000-4000-8000-000000000003"
		if tt.f.ClientSecret == (entra.Secret{}) {
			tt.f.ClientSecret = other
		}
		request, err := ParseAppRequest("a", tt.f, now)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		app, err := request.on(tt.stored)
		if tt.scope == "-" {
			if invalid := new(InvalidError); !errors.As(err, &invalid) || invalid.Fields[0].Field != "service" {
				t.Errorf("%s: %v", tt.name, err)
			}
		} else if err != nil || app.Name != "a" || app.Cloud != tt.cloud || app.Scope != tt.scope || !app.Credential.SecretExpiresAt.Equal(tt.expires) {
			t.Errorf("%s: %+v, %v", tt.name, app, err)
		}
	}
}
