package connector_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"entra-connector/internal/connector"
	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/pkg/entra"
	"entra-connector/pkg/entra/entratest"
)

// due is how long a token of 3599 seconds is not due: half its life is shorter than the window of 30
// minutes.
const due = 3599 * time.Second / 2

type (
	report  = connector.SweepReport
	failure = connector.SweepFailure
)

// A refresh costs one write and no read of a token, and a sweep one read of each app.
func TestSweepRefreshesWhatIsDue(t *testing.T) {
	w := newWorld(t, setup{})
	c := w.provision(tenantA)
	w.advance(due)
	w.expect("at half of its life", report{Checked: 1})
	w.advance(time.Second)
	w.secrets.ResetCalls()
	w.expect("a second later", report{Checked: 1, Due: 1, Refreshed: 1})
	calls := make(map[string]int)
	for _, call := range w.secrets.Calls() {
		calls[strings.TrimSpace(call.Op+" "+call.Secret)]++
	}
	if want := map[string]int{"ListSecrets": 1, "GetSecretValue entra/apps/default": 1, "UpdateSecret " + c.SecretName: 1}; !maps.Equal(calls, want) {
		t.Errorf("calls %v, want %v", calls, want)
	}
	value, _ := w.secrets.Value(c.SecretName)
	var six map[string]string
	tokens := w.entra.Tokens()
	if err := json.Unmarshal([]byte(value), &six); err != nil || len(six) != 6 || len(tokens) != 2 || six[entra.KeyAccessToken] != tokens[1] ||
		six[entra.KeyExpiresAt] != fmt.Sprint(w.Now().Add(3599*time.Second).Unix()) {
		t.Errorf("the secret holds %d values, not of the newest token: %v", len(six), err)
	}
	w.expect("again", report{Checked: 1})
}

// One connection's trouble never touches another's. A failure that passes is tried again by the next
// sweep, at the time that Entra asks for, and one that needs a person later and later.
func TestSweepIsolatesFailures(t *testing.T) {
	for _, tt := range []struct {
		name     string
		response entratest.Response
		code     string
		status   connector.Status
		wait     time.Duration
	}{
		{"refused", entratest.Refused(refusedAtOnce), "AADSTS7000112", connector.StatusRefused, 15 * time.Minute},
		{"throttled", entratest.Throttled("600"), "throttled", connector.StatusRetrying, 10 * time.Minute},
		{"unavailable", entratest.HTML(503), "unavailable", connector.StatusRetrying, 0},
		{"dropped", entratest.Drop(), "unavailable", connector.StatusRetrying, 0},
		{"malformed", entratest.HTML(200), "invalid_response", connector.StatusRetrying, 0},
		{"a passing code", entratest.Refused(90033), "AADSTS90033", connector.StatusRetrying, 0},
	} {
		w := newWorld(t, setup{})
		a, b := w.provision(tenantA), w.provision(tenantB)
		before, _ := w.secrets.Value(a.SecretName)
		w.advance(due + time.Second)
		w.entra.Fail(entratest.Fault{Tenant: tenantA, Times: 1, Response: tt.response})
		w.expect(tt.name, report{Checked: 2, Due: 2, Refreshed: 1, Failed: 1}, failure{a.String(), tt.code, tt.status})
		got, other := w.connection(a.ConnectionRef), w.connection(b.ConnectionRef)
		if after, _ := w.secrets.Value(a.SecretName); after != before || !got.ExpiresAt.Equal(a.ExpiresAt) || got.Status() != tt.status || got.Failure.CorrelationID == "" && tt.code != "invalid_response" {
			t.Errorf("%s: the connection is %s until %v, %+v, its value changed %t", tt.name, got.Status(), got.ExpiresAt, got.Failure, after != before)
		}
		if other.Status() != connector.StatusOK || !other.RefreshedAt.Equal(w.Now()) {
			t.Errorf("%s: the other connection is %s as of %v", tt.name, other.Status(), other.RefreshedAt)
		}
		w.tenants()
		if tt.wait > 0 {
			w.advance(tt.wait - time.Second)
			w.expect(tt.name+", before its time", report{Checked: 2, Waiting: 1})
			if asked := w.tenants(); len(asked) != 0 {
				t.Errorf("%s: before its time Entra is asked for %v", tt.name, asked)
			}
			w.advance(time.Second)
		}
		w.expect(tt.name+", at its time", report{Checked: 2, Due: 1, Refreshed: 1})
		if got := w.connection(a.ConnectionRef); got.Status() != connector.StatusOK {
			t.Errorf("%s: after a refresh that worked the connection is %s", tt.name, got.Status())
		}
	}
}

func TestNamedConnections(t *testing.T) {
	w := newWorld(t, setup{})
	a, b := w.provision(tenantA), w.provision(tenantB)
	gone := connector.ConnectionRef{App: "default", Name: "gone"}
	named := func(force bool, refs ...connector.ConnectionRef) report {
		return w.sweep(connector.SweepRequest{Only: append([]connector.ConnectionRef{}, refs...), Force: force})
	}
	w.check("not due", named(false, a.ConnectionRef, gone), report{Checked: 2, Due: 1, Failed: 1}, failure{"default/gone", "connection_not_found", connector.StatusRefused})
	w.check("none", named(true), report{})
	w.advance(time.Minute)
	w.deny(tenantA, refusedAtOnce, 1)
	w.check("refused", named(true, a.ConnectionRef), report{Checked: 1, Due: 1, Failed: 1}, failure{a.String(), "AADSTS7000112", connector.StatusRefused})
	w.check("forced, twice", named(true, a.ConnectionRef, a.ConnectionRef), report{Checked: 1, Due: 1, Refreshed: 1})
	w.check("all", w.sweep(force), report{Checked: 2, Due: 2, Refreshed: 2})
	if got := w.connection(b.ConnectionRef); !got.RefreshedAt.Equal(w.Now()) {
		t.Errorf("%s was not forced", b)
	}
}

// Whatever the store says, or somebody has done to it, a sweep does its work and reports the rest.
func TestSweepOutlivesItsStore(t *testing.T) {
	denied := func(op, secret, code string, times int) func(*world, connector.Connection) {
		return func(w *world, _ connector.Connection) {
			w.secrets.Fail(secretstoretest.Fault{Op: op, Secret: secret, Error: code, Times: times})
		}
	}
	refused := connector.StatusRefused
	var a string // the connection
	for _, tt := range []struct {
		name   string
		happen func(*world, connector.Connection)
		sweep  report
		failed failure
		next   report // of a sweep after that
		again  failure
	}{
		{"nothing", func(*world, connector.Connection) {}, report{Checked: 2, Due: 2, Refreshed: 2}, failure{}, report{Checked: 2}, failure{}},
		{"a token is not stored", denied("UpdateSecret", "entra/connections/default/aaaa", "InternalServiceError", 1), report{Checked: 2, Due: 2, Refreshed: 1, Failed: 1},
			failure{a, "InternalServiceError", connector.StatusRetrying}, report{Checked: 2, Due: 1, Refreshed: 1}, failure{}},
		{"the listing breaks off", func(w *world, c connector.Connection) {
			w.seedAll(0, 100, 0, nil)
			denied("ListSecrets", "", "", 1)(w, c) // which goes through
			w.secrets.ClearFaults()
			w.secrets.Fail(secretstoretest.Fault{Op: "ListSecrets", Delay: 1, Times: 1})
			denied("ListSecrets", "", "InternalServiceError", 1)(w, c)
		}, report{Checked: 100, Due: 100, Refreshed: 100, Incomplete: true}, failure{}, report{Checked: 102, Due: 2, Refreshed: 2}, failure{}},
		{"it was deleted by hand", func(w *world, c connector.Connection) { w.must(w.store.DeleteConnection(t.Context(), c.ConnectionRef)) },
			report{Checked: 1, Due: 1, Refreshed: 1}, failure{}, report{Checked: 1}, failure{}},
		{"its deletion broke off just now", func(w *world, c connector.Connection) {
			w.secrets.Edit(c.SecretName, func(x *secretstoretest.Secret) { x.Tags["entra-connector:state"] = "deleting" })
		}, report{Checked: 2, Due: 1, Refreshed: 1}, failure{}, report{Checked: 2, Due: 1, Failed: 1}, failure{a, "deletion_unfinished", refused}},
		{"somebody took its tags", (*world).spoil, report{Checked: 2, Due: 2, Refreshed: 1, Failed: 1}, failure{a, "unreadable_state", refused},
			report{Checked: 2, Due: 1, Failed: 1}, failure{a, "unreadable_state", refused}},
		{"somebody edited its Description", func(w *world, c connector.Connection) {
			w.secrets.Edit(c.SecretName, func(x *secretstoretest.Secret) { x.Description = "do not touch" })
		}, report{Checked: 2, Due: 2, Refreshed: 2}, failure{}, report{Checked: 2}, failure{}},
		{"somebody moved its label back", func(w *world, c connector.Connection) {
			w.sweep(force)
			w.secrets.Edit(c.SecretName, func(x *secretstoretest.Secret) { x.Version = x.Versions[0] })
		}, report{Checked: 2, Due: 1, Refreshed: 1}, failure{}, report{Checked: 2}, failure{}},
		{"it asks for a day and never dies", func(w *world, c connector.Connection) { // as a wrong clock might write
			c.RefreshedAt, c.Lifetime = w.Now().Add(time.Hour), 365*24*time.Hour
			c.ExpiresAt = c.RefreshedAt.Add(c.Lifetime)
			c.Failure = &connector.Failure{Status: connector.StatusRetrying, NextAttempt: c.ExpiresAt}
			c.WholeAt = c.ExpiresAt
			w.must(w.store.SaveFailure(t.Context(), c))
		}, report{Checked: 2, Due: 2, Refreshed: 2}, failure{}, report{Checked: 2}, failure{}},
		{"the app is gone", func(w *world, c connector.Connection) {
			w.must(w.store.DeleteApp(t.Context(), connector.AppUse{App: w.app()}))
		},
			report{Checked: 2, Due: 2, Failed: 2}, failure{"", "app_not_found", refused}, report{Checked: 2, Waiting: 2}, failure{}},
		{"the app cannot be read", denied("GetSecretValue", "", "AccessDeniedException", 0),
			report{Checked: 2, Due: 2, Failed: 2}, failure{"", "AccessDeniedException", connector.StatusRetrying}, report{Checked: 2, Due: 2, Failed: 2}, failure{"", "AccessDeniedException", connector.StatusRetrying}},
		{"somebody wrote over the app", func(w *world, c connector.Connection) {
			w.secrets.Edit("entra/apps/default", func(x *secretstoretest.Secret) { x.Value = "{}" })
		}, report{Checked: 2, Due: 2, Failed: 2}, failure{"", "unreadable_state", connector.StatusRetrying}, report{Checked: 2, Due: 2, Failed: 2}, failure{"", "unreadable_state", connector.StatusRetrying}},
	} {
		w := newWorld(t, setup{})
		c, b := w.provision(tenantA), w.provision(tenantB)
		w.advance(due + time.Second)
		tt.happen(w, c)
		failures := func(f failure) (all []failure) {
			if f.Code == "" {
				return nil
			}
			all = append(all, failure{c.String(), f.Code, f.Status})
			if f.Connection == "" && strings.Contains(tt.name, "the app") {
				all = append(all, failure{b.String(), f.Code, f.Status})
			}
			return all
		}
		w.expect(tt.name, tt.sweep, failures(tt.failed)...)
		w.advance(61 * time.Second)
		w.expect(tt.name+", and again", tt.next, failures(tt.again)...)
		if log := w.log.String(); strings.Contains(tt.name, "cannot be read") && (!strings.Contains(log, "app not read") || !strings.Contains(log, "AccessDeniedException")) {
			t.Errorf("%s: nobody is told: %s", tt.name, log)
		}
		// Provisioning sets everything right.
		w.secrets.ClearFaults()
		if strings.Contains(tt.name, "the app") {
			w.must(w.putSecret(t.Context(), canary))
		}
		if w.provision(tenantA); w.connection(c.ConnectionRef).Status() != connector.StatusOK {
			t.Errorf("%s: provisioned again it is %s", tt.name, w.connection(c.ConnectionRef).Status())
		}
	}

	w := newWorld(t, setup{})
	w.expect("nothing at all", report{})
	c := w.provision(tenantA)
	for op, request := range map[string]connector.SweepRequest{"ListSecrets": {}, "DescribeSecret": {Only: []connector.ConnectionRef{c.ConnectionRef}}} {
		denied(op, "", "AccessDeniedException", 1)(w, c)
		if _, err := w.sweeper.Sweep(t.Context(), request); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
			t.Errorf("a sweep that cannot do its work at all, for want of %s: %v", op, err)
		}
	}
}

// The listing is five minutes behind. What has become of a connection since is not undone, whatever the
// sweep does and Entra says.
func TestOldListings(t *testing.T) {
	moved := func(w *world, c connector.Connection) {
		w.must(w.store.DeleteConnection(t.Context(), c.ConnectionRef))
		f := asked(tenantB)
		f.Connection = c.Name
		_, _, err := w.provisionAs(t.Context(), f)
		w.must(err)
	}
	refreshed := func(w *world, c connector.Connection) {
		_, err := w.refresher.Refresh(t.Context(), c.ConnectionRef)
		w.must(err)
	}
	for _, tt := range []struct {
		name     string
		meantime func(*world, connector.Connection)
		response entratest.Response // of Entra for tenant A during the sweep
		report   report
		shown    string // tenant, status, and minutes since the token was requested
		news     string
	}{
		{"deleted", func(w *world, c connector.Connection) { w.must(w.store.DeleteConnection(t.Context(), c.ConnectionRef)) }, entratest.Response{}, report{Checked: 1}, "", ""},
		{"deleted, and refused", func(w *world, c connector.Connection) { w.must(w.store.DeleteConnection(t.Context(), c.ConnectionRef)) }, entratest.Refused(refusedAtOnce),
			report{Checked: 1, Due: 1, Failed: 1}, "", ""},
		{"another tenant's now", moved, entratest.Response{}, report{Checked: 1}, "b ok 1", ""},
		{"another tenant's now, and refused", moved, entratest.Refused(refusedAtOnce), report{Checked: 1, Due: 1, Failed: 1}, "b ok 1", ""},
		{"refreshed", refreshed, entratest.Response{}, report{Checked: 1, Due: 1, Refreshed: 1}, "a ok 1", ""},
		{"refreshed, and Entra is unavailable", refreshed, entratest.HTML(503), report{Checked: 1, Due: 1, Failed: 1}, "a ok 1", ""},
		{"refreshed, and the app rotated since", func(w *world, c connector.Connection) {
			refreshed(w, c)
			w.advance(time.Second)
			w.must(w.putSecret(t.Context(), rotated))
		}, entratest.Response{}, report{Checked: 1, Due: 1, Refreshed: 1}, "a ok 0", ""},
		{"refused already", func(w *world, c connector.Connection) {
			w.deny(tenantA, refusedAtOnce, 1)
			w.refresher.Refresh(t.Context(), c.ConnectionRef)
		}, entratest.Refused(refusedAtOnce), report{Checked: 1, Due: 1, Failed: 1}, "a refused 121", "a refused"},
		{"edited by hand", func(w *world, c connector.Connection) {
			w.secrets.Edit(c.SecretName, func(x *secretstoretest.Secret) { x.Value = "theirs" })
		}, entratest.HTML(503), report{Checked: 1, Due: 1, Failed: 1}, "a retrying ?", ""},
	} {
		w := newWorld(t, setup{lag: 5 * time.Minute})
		c := w.provision(tenantA)
		w.advance(2 * time.Hour)
		tt.meantime(w, c)
		w.advance(time.Minute)
		w.entra.Fail(entratest.Fault{Tenant: tenantA, Response: tt.response})
		got := w.sweep(connector.SweepRequest{})
		got.Failures = []failure{}
		w.check(tt.name, got, tt.report)
		shown := ""
		now, err := w.store.Connection(t.Context(), c.ConnectionRef)
		if value, _ := w.secrets.Value(c.SecretName); err == nil && now.ExpiresAt.IsZero() {
			shown = fmt.Sprintf("%s %s ?", now.TenantID[:1], now.Status())
		} else if err == nil {
			shown = fmt.Sprintf("%s %s %.0f", now.TenantID[:1], now.Status(), w.Now().Sub(now.RefreshedAt).Minutes())
			if !strings.Contains(value, now.TenantID) || !strings.Contains(value, fmt.Sprint(now.ExpiresAt.Unix())) {
				t.Errorf("%s: it is shown as %s, and holds %s", tt.name, shown, value)
			}
		}
		if news := w.news(); shown != tt.shown || news != tt.news {
			t.Errorf("%s: it is shown as %q, and told was %q, want %q and %q", tt.name, shown, news, tt.shown, tt.news)
		}
		if tt.name == "refused already" && now.Failure.Refusals != 2 {
			t.Errorf("%s: %d refusals, want 2", tt.name, now.Failure.Refusals)
		}
	}
}

// A new client secret is in use everywhere after one sweep, although nothing is due and the listing does
// not show the change yet. An app that is put as it is only has what was refused tried again.
func TestRotation(t *testing.T) {
	w := newWorld(t, setup{lag: 5 * time.Minute})
	w.provision(tenantA)
	w.provision(tenantB)
	w.advance(6 * time.Minute)
	w.deny("", refusedAtOnce, 2)
	if err := w.putSecret(t.Context(), rotated); codeOf(err) != "AADSTS7000112" {
		t.Errorf("a secret that is refused: %v", err)
	}
	w.expect("after a refused rotation", report{Checked: 2})
	w.must(w.putSecret(t.Context(), rotated))
	w.advance(time.Second)
	w.entra.ResetRequests()
	w.expect("after the rotation", report{Checked: 2, Due: 2, Refreshed: 2})
	for _, r := range w.entra.Requests() {
		if r.SecretIndex != 1 {
			t.Errorf("%s was asked with secret %d", r.Tenant, r.SecretIndex)
		}
	}

	w.advance(10 * time.Minute)
	w.deny(tenantA, refusedAtOnce, 1)
	w.sweep(force)
	w.must(w.putSecret(t.Context(), rotated))
	w.advance(6 * time.Minute)
	w.tenants()
	w.expect("put as it is", report{Checked: 2, Due: 1, Refreshed: 1})
	if asked := w.tenants(); !slices.Equal(asked, []string{tenantA}) {
		t.Errorf("asked for %v, want the refused one", asked)
	}

	// The app is put while a sweep is under way with the old secret.
	w.advance(due)
	first := true
	var mu sync.Mutex
	w.asking = func(string) {
		mu.Lock()
		turn := first
		first = false
		mu.Unlock()
		if turn {
			w.must(w.putSecret(t.Context(), canary))
			w.deny(tenantB, refusedAtOnce, 1)
			w.advance(time.Second)
		}
	}
	w.sweep(connector.SweepRequest{})
	w.entra.ClearFaults()
	w.entra.ResetRequests()
	w.advance(6 * time.Minute)
	w.expect("put during the sweep before", report{Checked: 2, Due: 2, Refreshed: 2})
	for _, r := range w.entra.Requests() {
		if r.SecretIndex != 0 {
			t.Errorf("%s was asked with secret %d", r.Tenant, r.SecretIndex)
		}
	}
}

// Connections of the same credential, tenant and scope need one token request, also across apps. What
// differs in one of these asks for itself.
func TestOneRequestForOneNeed(t *testing.T) {
	w := newWorld(t, setup{})
	const otherClient = "cccccccc-0000-4000-8000-000000000033"
	w.entra.AddApp(entratest.App{ClientID: otherClient, Secrets: []entratest.Secret{{Value: canary}}})
	values := make(map[string]bool)
	var refs []connector.ConnectionRef
	for name, change := range map[string]func(*connector.AppFields, *connector.ProvisionFields){
		"default":    func(*connector.AppFields, *connector.ProvisionFields) {},
		"second":     func(*connector.AppFields, *connector.ProvisionFields) {},
		"credential": func(a *connector.AppFields, _ *connector.ProvisionFields) { a.ClientSecret = entra.NewSecret(rotated) },
		"client":     func(a *connector.AppFields, _ *connector.ProvisionFields) { a.ClientID = otherClient },
		"scope":      func(a *connector.AppFields, _ *connector.ProvisionFields) { a.Scope = devOps },
		"cloud":      func(a *connector.AppFields, _ *connector.ProvisionFields) { a.Cloud = "usgov" },
	} {
		for _, tenant := range []string{tenantA, tenantB} {
			w.entra.Consent(tenant, otherClient, "User.Read.All")
			for _, one := range []string{"one", "two"} {
				f := asked(tenant)
				f.App, f.Connection = name, one+tenant[:1]
				change(f.AppFields, &f)
				c, _, err := w.provisionAs(t.Context(), f)
				w.must(err)
				refs = append(refs, c.ConnectionRef)
			}
		}
	}
	for n, want := range []report{{Checked: 24, Due: 24, Refreshed: 24}, {Checked: 24, Due: 24, Refreshed: 24}, {Checked: 24, Due: 24, Refreshed: 12, Failed: 12}} {
		w.advance(time.Hour)
		if n == 2 {
			w.entra.Fail(entratest.Fault{Tenant: tenantA, Response: entratest.Throttled("60")})
		}
		w.tenants()
		got := w.sweep(connector.SweepRequest{})
		got.Failures = []failure{}
		w.check(fmt.Sprint("sweep ", n), got, want)
		// Of default and second together one, of each other app another. Nothing is kept between sweeps.
		asked := w.tenants()
		slices.Sort(asked)
		if !slices.Equal(asked, slices.Concat(slices.Repeat([]string{tenantA}, 5), slices.Repeat([]string{tenantB}, 5))) {
			t.Errorf("sweep %d: asked %v, want five times for each tenant", n, asked)
		}
	}
	for _, ref := range refs {
		value, _ := w.secrets.Value("entra/connections/" + ref.String())
		values[value] = true
	}
	if len(values) != 10 {
		t.Errorf("%d different values are stored, want 10", len(values))
	}
}

// Two sweeps at once, as when the schedule fires twice, write each connection once.
func TestTwoSweepsAtOnce(t *testing.T) {
	w := newWorld(t, setup{})
	w.seedAll(0, 150, 0, nil)
	w.secrets.ResetCalls()
	w.ticks = 1 // no two of their tokens are of the same moment
	reports := make([]report, 2)
	var sweeps sync.WaitGroup
	for i := range reports {
		sweeps.Go(func() { reports[i], _ = w.sweeper.Sweep(t.Context(), connector.SweepRequest{}) })
	}
	sweeps.Wait()
	for _, r := range reports {
		// One may come so late that the other has done some of its work.
		if r.Checked != 150 || r.Refreshed != r.Due || r.Failed > 0 || reports[0].Refreshed+reports[1].Refreshed < 150 {
			t.Errorf("report %+v", r)
		}
	}
	stored := make(map[string]int)
	for _, call := range w.secrets.Calls() {
		if call.Op == "UpdateSecret" && call.Error == "" {
			stored[call.Secret]++
		}
	}
	for n := range 150 {
		if name := "entra/connections/default/" + tenant(n); stored[name] != 1 {
			t.Errorf("%s was written %d times", name, stored[name])
		}
	}
	w.expect("afterwards", report{Checked: 150})
}

// Many connections that are refused all at once keep nobody else from a token. The report stays below
// what Lambda can return, and its numbers stay true.
func TestAThousandFailures(t *testing.T) {
	w := newWorld(t, setup{})
	w.seedAll(0, 1001, 0, nil)
	healthy := w.provision(tenantB)
	w.advance(time.Hour)
	w.deny("", refusedAtOnce, 0)
	w.asking = func(tenant string) {
		if tenant == tenantB {
			w.entra.ClearFaults()
		}
	}
	first := w.sweep(connector.SweepRequest{Only: []connector.ConnectionRef{healthy.ConnectionRef}})
	w.asking = nil
	w.deny("", refusedAtOnce, 0)
	got := w.sweep(connector.SweepRequest{})
	if first.Refreshed != 1 || got.Checked != 1002 || got.Failed != 1001 || len(got.Failures) != 1000 || got.Health.NewlyRefused != 1001 || got.Health.Healthy != 1 {
		t.Errorf("refreshed %d, checked %d, failed %d, named %d, %+v", first.Refreshed, got.Checked, got.Failed, len(got.Failures), got.Health)
	}
	w.expect("the next sweep leaves them alone", report{Checked: 1002, Waiting: 1001})
	if value, _ := w.secrets.Value("entra/connections/default/" + tenant(7)); !strings.Contains(value, "seeded") {
		t.Error("the stored token did not stand")
	}
}
