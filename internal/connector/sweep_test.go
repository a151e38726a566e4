package connector_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"entra-connector/internal/connector"
	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/pkg/entra"
	"entra-connector/pkg/entra/entratest"
)

// due is how long a token of 3599 seconds is not due: half its life is shorter than the window of
// 30 minutes.
const due = 3599 * time.Second / 2

type (
	report  = connector.SweepReport
	failure = connector.SweepFailure
)

// A refresh costs one write and no read of a token, and a sweep one read of each app, and one
// request to Entra for connections that need the same token.
func TestSweepRefreshesWhatIsDue(t *testing.T) {
	w := newWorld(t, setup{})
	c := w.provision(tenantA)
	f := asked(tenantA)
	f.Connection = "second"
	second, _, err := w.provisionAs(t.Context(), f)
	w.must(err)
	w.advance(due)
	w.expect("at half of its life", report{Checked: 2})
	w.advance(time.Second)
	w.secrets.ResetCalls()
	w.expect("a second later", report{Checked: 2, Due: 2, Refreshed: 2})
	calls := make(map[string]int)
	for _, call := range w.secrets.Calls() {
		calls[strings.TrimSpace(call.Op+" "+call.Secret)]++
	}
	if want := map[string]int{"ListSecrets": 1, "GetSecretValue entra/apps/default": 1, "UpdateSecret " + c.SecretName: 1, "UpdateSecret " + second.SecretName: 1}; !maps.Equal(calls, want) {
		t.Errorf("calls %v, want %v", calls, want)
	}
	value, _ := w.secrets.Value(c.SecretName)
	var six map[string]string
	tokens := w.entra.Tokens()
	if err := json.Unmarshal([]byte(value), &six); err != nil || len(six) != 6 || len(tokens) != 3 || six[entra.KeyAccessToken] != tokens[2] ||
		six[entra.KeyExpiresAt] != fmt.Sprint(w.Now().Add(3599*time.Second).Unix()) {
		t.Errorf("the secret holds %d values, not of the newest token: %v", len(six), err)
	}
	w.expect("again", report{Checked: 2})
}

// Whatever Entra and the store say, and whatever has become of a connection since the listing,
// which may be five minutes behind, a sweep does its work. One connection's trouble never touches
// another's, nothing that others did is undone, and what nobody has to mend is mended.
func TestSweepsInTrouble(t *testing.T) {
	type secret = secretstoretest.Secret
	fails := func(op, secret, code string, times int) func(*world, connector.Connection) {
		return func(w *world, _ connector.Connection) {
			w.secrets.Fail(secretstoretest.Fault{Op: op, Secret: secret, Error: code, Times: times, Delay: 1})
		}
	}
	edited := func(f func(*secret)) func(*world, connector.Connection) {
		return func(w *world, c connector.Connection) { w.secrets.Edit(c.SecretName, f) }
	}
	nothing := func(*world, connector.Connection) {}
	refreshed := func(w *world, c connector.Connection) { w.refresher.Refresh(t.Context(), c.ConnectionRef) }
	refusedBefore := func(w *world, c connector.Connection) {
		w.deny(tenantA, refusedAtOnce, 1)
		refreshed(w, c)
		w.advance(15 * time.Minute)
	}
	deleted := func(w *world, c connector.Connection) { w.must(w.store.DeleteConnection(t.Context(), c.ConnectionRef)) }
	moved := func(w *world, c connector.Connection) {
		deleted(w, c)
		f := asked(tenantB)
		f.Connection = c.Name
		_, _, err := w.provisionAs(t.Context(), f)
		w.must(err)
	}
	unavailable, refuses := entratest.HTML(503), entratest.Refused(refusedAtOnce)
	var (
		both   = report{Checked: 2, Due: 2, Refreshed: 2}
		one    = report{Checked: 2, Due: 2, Refreshed: 1, Failed: 1}
		other  = report{Checked: 2, Due: 1, Refreshed: 1} // it alone was due
		failed = report{Checked: 2, Due: 1, Failed: 1}    // the same
		none   = report{Checked: 2, Due: 2, Failed: 2}
		done   = report{Checked: 2}
	)
	for _, tt := range []struct {
		name     string
		lag      int // of the listing, in minutes
		meantime func(*world, connector.Connection)
		response entratest.Response // of Entra for tenant A during the sweep
		report   report
		code     string // of the failures, if there are any
		shown    string // tenant, status, hour and minute of the token; then what Changed was told
		wait     time.Duration
		next     report
	}{
		{"nothing", 0, nothing, entratest.Response{}, both, "", "a ok 01:31 ", 0, done},
		{"refused", 0, nothing, refuses, one, "AADSTS7000112 refused", "a refused 01:00 a refused", 15 * time.Minute, other},
		{"refused, which is not recorded", 0, fails("UpdateSecret", "entra/connections/default/aaaa", "InternalServiceError", 1), refuses,
			one, "AADSTS7000112 refused", "a ok 01:00 ", 0, other},
		{"refused before", 0, refusedBefore, entratest.Response{}, both, "", "a ok 01:46 a ok, a refused", 0, done},
		{"refused before, and unavailable", 0, refusedBefore, unavailable, one, "unavailable retrying", "a retrying 01:00 a refused", 0, other},
		{"refused before, and provisioned again", 0, func(w *world, c connector.Connection) {
			refusedBefore(w, c)
			w.provision(tenantA)
		}, entratest.Response{}, other, "", "a ok 01:45 a ok, a refused", 0, done},
		{"throttled", 0, nothing, entratest.Throttled("600"), one, "throttled retrying", "a retrying 01:00 ", 10 * time.Minute, other},
		{"unavailable", 0, nothing, unavailable, one, "unavailable retrying", "a retrying 01:00 ", 0, other},
		{"dropped", 0, nothing, entratest.Drop(), one, "unavailable retrying", "a retrying 01:00 ", 0, other},
		{"malformed", 0, nothing, entratest.HTML(200), one, "invalid_response retrying", "a retrying 01:00 ", 0, other},
		{"a passing code", 0, nothing, entratest.Refused(90033), one, "AADSTS90033 retrying", "a retrying 01:00 ", 0, other},

		{"a token is not stored", 0, fails("UpdateSecret", "entra/connections/default/aaaa", "InternalServiceError", 1), entratest.Response{},
			one, "InternalServiceError retrying", "a ok 01:00 ", 0, other},
		{"the listing breaks off", 0, func(w *world, c connector.Connection) {
			w.seedAll(0, 100, 0, nil)
			fails("ListSecrets", "", "", 1)(w, c) // goes through
			fails("ListSecrets", "", "InternalServiceError", 1)(w, c)
		}, entratest.Response{}, report{Checked: 100, Due: 100, Refreshed: 100, Incomplete: true}, "", "a ok 01:31 ", 0, report{Checked: 102, Due: 2, Refreshed: 2}},
		{"its deletion may be under way", 0, edited(func(x *secret) { x.Tags["entra-connector:state"] = "deleting" }), entratest.Response{},
			other, "", " retrying 00:00 ", time.Minute, failed},
		{"its tags are gone", 0, (*world).spoil, entratest.Response{}, one, "unreadable_state refused", " refused 00:00 ", 0, failed},
		{"its Description is edited", 0, edited(func(x *secret) { x.Description = "do not touch" }), entratest.Response{}, both, "", "a ok 01:31 ", 0, done},
		{"its label is moved back", 0, func(w *world, c connector.Connection) {
			w.sweep(force)
			edited(func(x *secret) { x.Version = x.Versions[0] })(w, c)
		}, entratest.Response{}, other, "", "a ok 01:31 ", 0, done},
		{"a wrong clock wrote its times", 0, func(w *world, c connector.Connection) {
			c.RefreshedAt, c.Lifetime = w.Now().Add(time.Hour), 365*24*time.Hour
			c.ExpiresAt = c.RefreshedAt.Add(c.Lifetime)
			c.WholeAt, c.Failure = c.ExpiresAt, &connector.Failure{Status: retrying, NextAttempt: c.ExpiresAt}
			w.must(w.store.SaveFailure(t.Context(), c))
		}, entratest.Response{}, both, "", "a ok 01:31 ", 0, done},
		{"the app is gone", 0, func(w *world, _ connector.Connection) {
			w.must(w.store.DeleteApp(t.Context(), connector.AppUse{App: app}))
		}, entratest.Response{},
			none, "app_not_found refused", "a refused 01:00 a refused, b refused", 0, report{Checked: 2, Waiting: 2}},
		{"the app cannot be read", 0, fails("GetSecretValue", "", "AccessDeniedException", 2), entratest.Response{}, none, "AccessDeniedException retrying", "a ok 01:00 ", 0, none},
		{"the app is edited", 0, func(w *world, _ connector.Connection) {
			w.secrets.Edit("entra/apps/default", func(x *secret) { x.Value = "{}" })
		}, entratest.Response{}, none, "unreadable_state retrying", "a ok 01:00 ", 0, none},

		{"deleted", 5, deleted, entratest.Response{}, other, "", "gone", 0, report{Checked: 1}},
		{"deleted, and refused", 5, deleted, refuses, one, "AADSTS7000112 refused", "gone", 0, report{Checked: 1}},
		{"another tenant's now", 5, moved, entratest.Response{}, other, "", "b ok 01:30 ", 0, done},
		{"another tenant's now, and refused", 5, moved, refuses, one, "AADSTS7000112 refused", "b ok 01:30 ", 0, done},
		{"refreshed", 5, refreshed, entratest.Response{}, both, "", "a ok 01:30 ", 0, done},
		{"refreshed, and its Description edited", 5, func(w *world, c connector.Connection) {
			refreshed(w, c)
			edited(func(x *secret) { x.Description = "" })(w, c)
		}, entratest.Response{}, both, "", "a ok 01:31 ", 0, done},
		{"for another scope now", 5, func(w *world, c connector.Connection) {
			deleted(w, c)
			f := asked(tenantA)
			f.AppFields.Scope = devOps
			_, _, err := w.provisionAs(t.Context(), f)
			w.must(err)
		}, entratest.Response{}, other, "", "a ok 01:30 ", 0, done},
		{"refreshed, and Entra is unavailable", 5, refreshed, unavailable, one, "unavailable retrying", "a ok 01:30 ", 0, done},
		{"refreshed, and the app rotated since", 5, func(w *world, c connector.Connection) {
			refreshed(w, c)
			w.advance(time.Second)
			w.must(w.put(t.Context(), rotated))
		}, entratest.Response{}, both, "", "a ok 01:31 ", 0, done},
		{"refused already", 5, func(w *world, c connector.Connection) {
			w.deny(tenantA, refusedAtOnce, 1)
			refreshed(w, c)
		}, refuses, one, "AADSTS7000112 refused", "a refused 01:00 twice a refused", 0, report{Checked: 2, Waiting: 1}},
		{"edited by hand, and unavailable", 5, edited(func(x *secret) { x.Value = "theirs" }), unavailable, one, "unavailable retrying", "a retrying 00:00 ", 0, other},
	} {
		w := newWorld(t, setup{lag: time.Duration(tt.lag) * time.Minute})
		a, b := w.provision(tenantA), w.provision(tenantB)
		w.advance(due + time.Second)
		tt.meantime(w, a)
		w.advance(time.Minute)
		w.entra.Fail(entratest.Fault{Tenant: tenantA, Times: 1, Response: tt.response})
		code, status, _ := strings.Cut(tt.code, " ")
		failures := []failure{{a.String(), code, connector.Status(status)}, {b.String(), code, connector.Status(status)}}
		w.expect(tt.name, tt.report, failures[:tt.report.Failed]...)
		shown := "gone"
		if now, err := w.store.Connection(t.Context(), a.ConnectionRef); err == nil {
			shown = fmt.Sprintf("%.1s %s %s ", now.TenantID, now.Status(), now.RefreshedAt.Format("15:04"))
			if f := now.Failure; f != nil && f.Refusals == 2 {
				shown += "twice "
			}
			shown += w.news()
			value, _ := w.secrets.Value(a.SecretName)
			if !now.ExpiresAt.IsZero() && (!strings.Contains(value, now.TenantID) || !strings.Contains(value, fmt.Sprint(now.ExpiresAt.Unix()))) {
				t.Errorf("%s: it is shown as %s, and holds %s", tt.name, shown, value)
			}
		}
		if shown != tt.shown {
			t.Errorf("%s: it is shown as %q, want %q", tt.name, shown, tt.shown)
		}
		if log := w.log.String(); code == "AccessDeniedException" && (!strings.Contains(log, "app not read") || !strings.Contains(log, code)) {
			t.Errorf("%s: nobody is told: %s", tt.name, log)
		}
		if w.advance(max(tt.wait-1, 0)); tt.wait > time.Minute {
			w.expect(tt.name+", before its time", report{Checked: 2, Waiting: 1})
		}
		w.advance(time.Duration(tt.lag)*time.Minute + time.Second)
		next := w.sweep(connector.SweepRequest{})
		next.Failures = []failure{}
		w.check(tt.name+", the next time", next, tt.next)
	}

	w := newWorld(t, setup{})
	w.expect("nothing at all", report{})
	c := w.provision(tenantA)
	only := []connector.ConnectionRef{c.ConnectionRef, c.ConnectionRef, {App: "default", Name: "gone"}}
	w.check("named, twice", w.sweep(connector.SweepRequest{Only: only, Force: true}), report{Checked: 2, Due: 2, Refreshed: 1, Failed: 1},
		failure{"default/gone", "connection_not_found", refused})
	for op, request := range map[string]connector.SweepRequest{"ListSecrets": {}, "DescribeSecret": {Only: only}} {
		fails(op, "", "AccessDeniedException", 0)(w, c)
		if _, err := w.sweeper.Sweep(t.Context(), request); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
			t.Errorf("a sweep that cannot do its work at all, for want of %s: %v", op, err)
		}
	}
}

// A new client secret is in use everywhere after one sweep, although nothing is due, the listing
// does not show the change yet, or a sweep was under way with the old secret.
func TestRotation(t *testing.T) {
	w := newWorld(t, setup{lag: 5 * time.Minute})
	w.provision(tenantA)
	w.provision(tenantB)
	sweep := func(what string, secret int) {
		t.Helper()
		w.entra.ClearFaults()
		w.entra.ResetRequests()
		w.expect(what, report{Checked: 2, Due: 2, Refreshed: 2})
		for _, r := range w.entra.Requests() {
			if r.SecretIndex != secret {
				t.Errorf("%s: %s was asked with secret %d", what, r.Tenant, r.SecretIndex)
			}
		}
	}
	w.advance(6 * time.Minute)
	w.must(w.put(t.Context(), rotated))
	w.advance(time.Second)
	sweep("after the rotation", 1)
	w.advance(time.Hour)
	var under atomic.Bool
	w.asking = func(tenant string) {
		if tenant == tenantB && under.CompareAndSwap(false, true) {
			w.must(w.put(t.Context(), canary))
			w.deny(tenantB, refusedAtOnce, 1)
			w.advance(time.Second)
		}
	}
	if r := w.sweep(connector.SweepRequest{}); r.Refreshed != 1 || r.Failed != 1 {
		t.Errorf("with a rotation meanwhile: %+v", r)
	}
	w.advance(6 * time.Minute)
	sweep("after that", 0)
}

// Many connections that are refused all at once keep nobody else from a token. The report stays
// below what Lambda can return, and its numbers stay true.
func TestAThousandFailures(t *testing.T) {
	w := newWorld(t, setup{})
	w.seedAll(0, 1001, 0, nil)
	w.deny("", refusedAtOnce, 0)
	healthy := w.seed(2000, 40*time.Minute, nil)
	r := w.sweep(connector.SweepRequest{})
	if r.Checked != 1002 || r.Failed != 1001 || len(r.Failures) != 1000 || r.Health.NewlyRefused != 1001 || r.Health.Healthy != 1 || w.connection(healthy.ConnectionRef).Status() != ok {
		t.Errorf("checked %d, failed %d, named %d, %+v", r.Checked, r.Failed, len(r.Failures), r.Health)
	}
	w.expect("the next sweep leaves them alone", report{Checked: 1002, Waiting: 1001})
	if value, _ := w.secrets.Value("entra/connections/default/" + tenant(7)); !strings.Contains(value, "seeded") {
		t.Error("the stored token did not stand")
	}
}

// greedy is a store that makes as many calls as it may.
type greedy struct {
	connector.SweepStore
	calls atomic.Int32
}

func (g *greedy) SaveToken(ctx context.Context, _ connector.Connection, _ entra.Token) error {
	for g.calls.Load() < 1000 && connector.SpendCall(ctx) {
		g.calls.Add(1)
	}
	return nil
}

// Each connection of a sweep may cost 40 calls.
func TestCallsOfASweep(t *testing.T) {
	w := newWorld(t, setup{})
	w.seedAll(0, 3, 0, nil)
	g := &greedy{SweepStore: w.store}
	w.sweeper.Store = g
	if w.sweep(force); g.calls.Load() != 3*40 {
		t.Errorf("three connections cost %d calls", g.calls.Load())
	}
}
