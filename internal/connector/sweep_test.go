package connector_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"entra-connector/internal/connector"

	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/pkg/entra"
	"entra-connector/pkg/entra/entratest"
)

// due is how far a token of 3599 seconds is from being due: half its life is
// shorter than the window of 30 minutes.
const due = 3599 * time.Second / 2

func checkReport(t *testing.T, what string, got, want connector.SweepReport) {
	t.Helper()
	if want.Failures == nil {
		want.Failures = []connector.SweepFailure{}
	}
	slices.SortFunc(got.Failures, func(a, b connector.SweepFailure) int { return strings.Compare(a.Connection, b.Connection) })
	g, _ := json.Marshal(got)
	w, _ := json.Marshal(want)
	if string(g) != string(w) {
		t.Errorf("%s: report\n got %s\nwant %s", what, g, w)
	}
}

func TestSweepRefreshesWhatIsDue(t *testing.T) {
	w := newWorld(t)
	c := w.provision(t, tenantA)

	checkReport(t, "at once", w.sweep(t), connector.SweepReport{Checked: 1})
	w.clock.advance(due)
	checkReport(t, "at half the life", w.sweep(t), connector.SweepReport{Checked: 1})

	w.clock.advance(time.Second)
	w.secrets.ResetCalls()
	checkReport(t, "past half the life", w.sweep(t), connector.SweepReport{Checked: 1, Due: 1, Refreshed: 1})
	for op, want := range map[string]int{"ListSecrets": 1, "GetSecretValue": 1, "UpdateSecret": 1} {
		if n := w.secrets.Count(op); n != want {
			t.Errorf("%d calls of %s, want %d", n, op, want)
		}
	}
	for _, call := range w.secrets.Calls() {
		if call.Op != "UpdateSecret" && strings.HasPrefix(call.Secret, "entra/connections/") {
			t.Errorf("the sweep calls %s on a connection", call.Op)
		}
	}
	value, _ := w.secrets.Value(c.SecretName)
	var six map[string]string
	if err := json.Unmarshal([]byte(value), &six); err != nil || len(six) != 6 {
		t.Fatalf("the secret holds %d values: %v", len(six), err)
	}
	tokens := w.entra.Tokens()
	if len(tokens) != 2 || six[entra.KeyAccessToken] != tokens[1] {
		t.Error("the secret does not hold the newest token")
	}
	if want := fmt.Sprint(w.clock.Now().Add(3599 * time.Second).Unix()); six[entra.KeyExpiresAt] != want {
		t.Errorf("EXPIRES_AT = %s, want %s", six[entra.KeyExpiresAt], want)
	}
	checkReport(t, "again", w.sweep(t), connector.SweepReport{Checked: 1})
}

func TestDueFollowsTheTokensLife(t *testing.T) {
	tests := []struct {
		name     string
		lifetime int // seconds
		notDue   time.Duration
	}{
		{"a day: the window decides", 86400, 23*time.Hour + 30*time.Minute},
		{"ten minutes: half the life decides", 600, 5 * time.Minute},
	}
	for _, tt := range tests {
		w := newWorld(t)
		w.provision(t, tenantA)
		w.entra.Fail(entratest.Fault{Response: entratest.Lifetime(tt.lifetime)})
		w.force(t)
		w.clock.advance(tt.notDue)
		checkReport(t, tt.name+", just before", w.sweep(t), connector.SweepReport{Checked: 1})
		w.clock.advance(time.Second)
		checkReport(t, tt.name+", just after", w.sweep(t), connector.SweepReport{Checked: 1, Due: 1, Refreshed: 1})
	}
}

// One connection's trouble never touches another's, and what it means for the
// connection is told.
func TestSweepIsolatesFailures(t *testing.T) {
	w := newWorld(t)
	a, b := w.provision(t, tenantA), w.provision(t, tenantB)
	before, _ := w.secrets.Value(a.SecretName)
	w.clock.advance(due + time.Second)
	w.entra.Revoke(tenantA, clientID)
	w.clock.advance(15 * time.Minute) // a new app may be slow to be known

	checkReport(t, "consent withdrawn", w.sweep(t), connector.SweepReport{Checked: 2, Due: 2, Refreshed: 1, Failed: 1,
		Failures: []connector.SweepFailure{{Connection: a.String(), Code: "AADSTS7000229", Status: connector.StatusRefused}}})
	if after, _ := w.secrets.Value(a.SecretName); after != before {
		t.Error("a failed refresh changed the stored token")
	}
	if got := w.connection(t, b.ConnectionRef); got.Status() != connector.StatusOK || !got.RefreshedAt.Equal(w.clock.Now()) {
		t.Errorf("the other connection is %s as of %v", got.Status(), got.RefreshedAt)
	}
	got := w.connection(t, a.ConnectionRef)
	if got.Failure == nil || got.Failure.TraceID == "" || got.Failure.CorrelationID == "" || !got.ExpiresAt.Equal(a.ExpiresAt) {
		t.Errorf("recorded failure %+v, expiry %v", got.Failure, got.ExpiresAt)
	}

	checkReport(t, "next sweep", w.sweep(t), connector.SweepReport{Checked: 2, Waiting: 1})
	w.entra.Consent(tenantA, clientID)
	report, err := w.sweeper.Sweep(t.Context(), connector.SweepRequest{Only: []connector.ConnectionRef{a.ConnectionRef, a.ConnectionRef}, Force: true})
	if err != nil {
		t.Fatal(err)
	}
	checkReport(t, "forced", report, connector.SweepReport{Checked: 1, Due: 1, Refreshed: 1})
	if got := w.connection(t, a.ConnectionRef); got.Status() != connector.StatusOK {
		t.Errorf("after a refresh that worked the connection is %s", got.Status())
	}
}

// A refusal that needs a person waits longer each time, up to six hours.
func TestRefusalBacksOff(t *testing.T) {
	w := newWorld(t)
	c := w.provision(t, tenantA)
	w.clock.advance(2 * time.Hour)
	w.entra.Fail(entratest.Fault{Response: entratest.Refused(7000222)})
	var waits []string
	for range 8 {
		if report := w.sweep(t); report.Failed != 1 {
			t.Fatalf("report %+v, want one failure", report)
		}
		next := w.connection(t, c.ConnectionRef).Failure.NextAttempt
		waits = append(waits, next.Sub(w.clock.Now()).String())
		w.clock.advance(next.Sub(w.clock.Now()) - time.Second)
		if report := w.sweep(t); report.Waiting != 1 || report.Failed != 0 {
			t.Fatalf("a second before the next attempt: %+v", report)
		}
		w.clock.advance(time.Second)
	}
	if got, want := strings.Join(waits, " "), "15m0s 30m0s 1h0m0s 2h0m0s 4h0m0s 6h0m0s 6h0m0s 6h0m0s"; got != want {
		t.Errorf("waits %s, want %s", got, want)
	}
}

// How long the next refusal waits depends on those before it: a failure that
// passes neither counts nor forgets them, a change of the app does forget them.
func TestWhatCountsAsARefusal(t *testing.T) {
	w := newWorld(t)
	c := w.provision(t, tenantA)
	w.clock.advance(2 * time.Hour)
	for _, step := range []struct {
		name, wait string
		response   entratest.Response
		put        bool // the app, beforehand
	}{
		{"first refusal", "15m0s", entratest.Refused(7000222), false},
		{"second", "30m0s", entratest.Refused(7000222), false},
		{"a failure that passes", "0s", entratest.HTML(503), false},
		{"third", "1h0m0s", entratest.Refused(7000222), false},
		{"first since the app changed", "15m0s", entratest.Refused(7000222), true},
		{"second since", "30m0s", entratest.Refused(7000222), false},
		{"a failure that passes, the app changed", "0s", entratest.HTML(503), true},
		{"first since the app changed again", "15m0s", entratest.Refused(7000222), false},
	} {
		w.entra.ClearFaults()
		if step.put {
			w.clock.advance(time.Second)
			if _, _, err := w.put(t.Context(), w.app()); err != nil {
				t.Fatal(err)
			}
		}
		w.entra.Fail(entratest.Fault{Response: step.response})
		w.clock.advance(time.Second)
		w.force(t)
		if got := w.connection(t, c.ConnectionRef).Failure.NextAttempt.Sub(w.clock.Now()).String(); got != step.wait {
			t.Errorf("%s: waits %s, want %s", step.name, got, step.wait)
		}
	}
}

// A Description is open to everyone with a console. Odd numbers in it end no sweep.
func TestRefusalsEditedByHand(t *testing.T) {
	for refusals, want := range map[string]string{
		"-1": "15m0s", "-9223372036854775808": "15m0s", "64": "6h0m0s", "9223372036854775807": "6h0m0s",
	} {
		w := newWorld(t)
		c := w.provision(t, tenantA)
		w.clock.advance(2 * time.Hour)
		w.entra.Fail(entratest.Fault{Response: entratest.Refused(7000222)})
		w.force(t)
		value, _ := w.secrets.Value(c.SecretName)
		description, _ := w.secrets.Description(c.SecretName)
		edited := strings.Replace(description, `"refusals":1`, `"refusals":`+refusals, 1)
		if edited == description {
			t.Fatalf("nothing to edit in %s", description)
		}
		w.secrets.Put(c.SecretName, value, edited)
		w.force(t)
		if got := w.connection(t, c.ConnectionRef).Failure.NextAttempt.Sub(w.clock.Now()).String(); got != want {
			t.Errorf("%s refusals: the next waits %s, want %s", refusals, got, want)
		}
		w.force(t) // with the number that came of it
	}
}

func TestFailuresThatPassAreTriedAtTheNextSweep(t *testing.T) {
	for name, response := range map[string]entratest.Response{
		"unavailable": entratest.HTML(503), "dropped": entratest.Drop(), "malformed": entratest.HTML(200), "passing code": entratest.Refused(90033),
	} {
		w := newWorld(t)
		c := w.provision(t, tenantA)
		w.clock.advance(due + time.Second)
		w.entra.Fail(entratest.Fault{Times: 1, Response: response})
		if report := w.sweep(t); report.Failed != 1 || report.Failures[0].Status != connector.StatusRetrying {
			t.Errorf("%s: report %+v", name, report)
		}
		if got := w.connection(t, c.ConnectionRef); got.Status() != connector.StatusRetrying {
			t.Errorf("%s: the connection is %s", name, got.Status())
		}
		checkReport(t, name, w.sweep(t), connector.SweepReport{Checked: 1, Due: 1, Refreshed: 1})
	}
}

func TestRetryAfterIsHonouredAcrossSweeps(t *testing.T) {
	w := newWorld(t)
	a, b := w.provision(t, tenantA), w.provision(t, tenantB)
	w.clock.advance(due + time.Second)
	w.entra.Fail(entratest.Fault{Tenant: tenantA, Times: 1, Response: entratest.Throttled("600")})
	checkReport(t, "throttled", w.sweep(t), connector.SweepReport{Checked: 2, Due: 2, Refreshed: 1, Failed: 1,
		Failures: []connector.SweepFailure{{Connection: a.String(), Code: "throttled", Status: connector.StatusRetrying}}})

	w.entra.ResetRequests()
	w.clock.advance(10*time.Minute - time.Second)
	checkReport(t, "before the time", w.sweep(t), connector.SweepReport{Checked: 2, Waiting: 1})
	// A change of the app does not end a wait that Entra asked for.
	w.entra.SetSecrets(clientID, entratest.Secret{Value: "n3w-secret"})
	rotated := w.app()
	rotated.Credential.ClientSecret = entra.NewSecret("n3w-secret")
	if _, _, err := w.put(t.Context(), rotated); err != nil {
		t.Fatal(err)
	}
	checkReport(t, "before the time, with the app changed", w.sweep(t), connector.SweepReport{Checked: 2, Due: 1, Refreshed: 1, Waiting: 1})
	for _, r := range w.entra.Requests() {
		if r.Tenant == tenantA && r.Status != 200 {
			t.Error("Entra was asked before the time")
		}
	}
	w.clock.advance(time.Second)
	checkReport(t, "at the time", w.sweep(t), connector.SweepReport{Checked: 2, Due: 1, Refreshed: 1})
	_ = b
}

// A refusal that may pass counts as one only after the time in which it does.
func TestUnsettledRefusal(t *testing.T) {
	w := newWorld(t)
	c := w.provision(t, tenantA)
	w.entra.Fail(entratest.Fault{Response: entratest.Refused(7000215)})
	force := func() connector.Status {
		if _, err := w.sweeper.Sweep(t.Context(), connector.SweepRequest{Force: true}); err != nil {
			t.Fatal(err)
		}
		return w.connection(t, c.ConnectionRef).Status()
	}
	w.clock.advance(14 * time.Minute)
	if got := force(); got != connector.StatusRetrying {
		t.Errorf("14 minutes after the app changed: %s", got)
	}
	w.clock.advance(time.Minute)
	if got := force(); got != connector.StatusRefused {
		t.Errorf("15 minutes after the app changed: %s", got)
	}
	if f := w.connection(t, c.ConnectionRef).Failure; f.Refusals != 1 {
		t.Errorf("the first refusal counts as %d", f.Refusals)
	}
}

func TestNamedConnections(t *testing.T) {
	w := newWorld(t)
	a, b := w.provision(t, tenantA), w.provision(t, tenantB)
	gone := connector.ConnectionRef{App: "default", Name: "gone"}
	report, err := w.sweeper.Sweep(t.Context(), connector.SweepRequest{Only: []connector.ConnectionRef{a.ConnectionRef, gone}})
	if err != nil {
		t.Fatal(err)
	}
	checkReport(t, "not due", report, connector.SweepReport{Checked: 2, Due: 1, Failed: 1,
		Failures: []connector.SweepFailure{{Connection: "default/gone", Code: "connection_not_found", Status: connector.StatusRefused}}})
	report, err = w.sweeper.Sweep(t.Context(), connector.SweepRequest{Only: []connector.ConnectionRef{}, Force: true})
	if err != nil {
		t.Fatal(err)
	}
	checkReport(t, "none named", report, connector.SweepReport{})
	w.clock.advance(time.Minute)
	if _, err = w.sweeper.Sweep(t.Context(), connector.SweepRequest{Force: true}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []connector.Connection{a, b} {
		if got := w.connection(t, c.ConnectionRef); !got.RefreshedAt.Equal(w.clock.Now()) {
			t.Errorf("%s was not forced", c)
		}
	}
}

func TestSweepOutlivesItsStore(t *testing.T) {
	t.Run("nothing listed", func(t *testing.T) {
		w := newWorld(t)
		w.provision(t, tenantA)
		w.secrets.Fail(secretstoretest.Fault{Op: "ListSecrets", Error: "AccessDeniedException"})
		if _, err := w.sweeper.Sweep(t.Context(), connector.SweepRequest{}); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("none of the named readable", func(t *testing.T) {
		w := newWorld(t)
		c := w.provision(t, tenantA)
		w.secrets.Fail(secretstoretest.Fault{Op: "DescribeSecret", Error: "AccessDeniedException"})
		if _, err := w.sweeper.Sweep(t.Context(), connector.SweepRequest{Only: []connector.ConnectionRef{c.ConnectionRef}}); err == nil {
			t.Error("no error")
		}
	})
	t.Run("listing breaks off", func(t *testing.T) {
		w := newWorld(t)
		c := w.provision(t, tenantA)
		description, _ := w.secrets.Description(c.SecretName)
		value, _ := w.secrets.Value(c.SecretName)
		for i := range 120 {
			w.secrets.Put(fmt.Sprintf("entra/connections/default/z%03d", i), value, description)
		}
		w.clock.advance(due + time.Second)
		w.secrets.Fail(secretstoretest.Fault{Op: "ListSecrets", Delay: time.Nanosecond, Times: 1})
		w.secrets.Fail(secretstoretest.Fault{Op: "ListSecrets", Error: "InternalServiceError"})
		checkReport(t, "half seen", w.sweep(t), connector.SweepReport{Checked: 100, Due: 100, Refreshed: 100, Incomplete: true})
	})
	t.Run("token not stored", func(t *testing.T) {
		w := newWorld(t)
		a := w.provision(t, tenantA)
		w.provision(t, tenantB)
		w.clock.advance(due + time.Second)
		w.secrets.Fail(secretstoretest.Fault{Op: "UpdateSecret", Secret: a.SecretName, Error: "InternalServiceError", Times: 1})
		checkReport(t, "write failed", w.sweep(t), connector.SweepReport{Checked: 2, Due: 2, Refreshed: 1, Failed: 1,
			Failures: []connector.SweepFailure{{Connection: a.String(), Code: "InternalServiceError", Status: connector.StatusRetrying}}})
		checkReport(t, "next sweep", w.sweep(t), connector.SweepReport{Checked: 2, Due: 1, Refreshed: 1})
	})
	t.Run("app not readable", func(t *testing.T) {
		w := newWorld(t)
		c := w.provision(t, tenantA)
		w.secrets.Fail(secretstoretest.Fault{Op: "GetSecretValue", Error: "AccessDeniedException"})
		checkReport(t, "not due", w.sweep(t), connector.SweepReport{Checked: 1})
		if log := w.log.String(); !strings.Contains(log, "app not read") || !strings.Contains(log, "AccessDeniedException") {
			t.Errorf("nobody is told: %s", log)
		}
		w.clock.advance(due + time.Second)
		checkReport(t, "due", w.sweep(t), connector.SweepReport{Checked: 1, Due: 1, Failed: 1,
			Failures: []connector.SweepFailure{{Connection: c.String(), Code: "AccessDeniedException", Status: connector.StatusRetrying}}})
	})
	t.Run("app gone", func(t *testing.T) {
		w := newWorld(t)
		c := w.provision(t, tenantA)
		if err := w.store.DeleteApp(t.Context(), "default"); err != nil {
			t.Fatal(err)
		}
		checkReport(t, "not due", w.sweep(t), connector.SweepReport{Checked: 1})
		w.clock.advance(due + time.Second)
		checkReport(t, "due", w.sweep(t), connector.SweepReport{Checked: 1, Due: 1, Failed: 1,
			Failures: []connector.SweepFailure{{Connection: c.String(), Code: "app_not_found", Status: connector.StatusRefused}}})
		w.clock.advance(time.Second)
		if _, created, err := w.put(t.Context(), w.app()); !created || err != nil {
			t.Fatalf("created %t, %v", created, err)
		}
		checkReport(t, "app back", w.sweep(t), connector.SweepReport{Checked: 1, Due: 1, Refreshed: 1})
	})
	t.Run("connection deleted since it was listed", func(t *testing.T) {
		w := newWorldWith(t, secretstoretest.Options{ListLag: 5 * time.Minute})
		c := w.provision(t, tenantA)
		w.clock.advance(due + time.Second)
		if err := w.store.DeleteConnection(t.Context(), c.ConnectionRef); err != nil {
			t.Fatal(err)
		}
		w.clock.advance(time.Minute)
		report := w.sweep(t)
		checkReport(t, "still listed", report, connector.SweepReport{Checked: 1})
		if report.Health.Healthy > 0 {
			t.Error("it counts as healthy")
		}
		w.clock.advance(5 * time.Minute)
		checkReport(t, "no more", w.sweep(t), connector.SweepReport{})
	})
	t.Run("description written over by hand", func(t *testing.T) {
		w := newWorld(t)
		c := w.provision(t, tenantA)
		value, _ := w.secrets.Value(c.SecretName)
		w.secrets.Put(c.SecretName, value, "do not touch")
		checkReport(t, "unreadable", w.sweep(t), connector.SweepReport{Checked: 1, Due: 1, Failed: 1,
			Failures: []connector.SweepFailure{{Connection: c.String(), Code: "unreadable_state", Status: connector.StatusRefused}}})
		w.provision(t, tenantA)
		checkReport(t, "provisioned again", w.sweep(t), connector.SweepReport{Checked: 1})
	})
	t.Run("nothing at all", func(t *testing.T) {
		checkReport(t, "empty", newWorld(t).sweep(t), connector.SweepReport{})
	})
}

// With no time left nothing is started, and the next sweep takes it.
func TestSweepStopsBeforeTheDeadline(t *testing.T) {
	w := newWorld(t)
	w.provision(t, tenantA)
	w.provision(t, tenantB)
	w.clock.advance(due + time.Second)
	w.entra.Fail(entratest.Fault{Tenant: tenantA, Response: entratest.Hang()})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	report, err := w.sweeper.Sweep(ctx, connector.SweepRequest{})
	if err != nil {
		t.Fatal(err)
	}
	checkReport(t, "one hangs", report, connector.SweepReport{Checked: 2, Due: 2, Refreshed: 1, Deferred: 1})
	if ctx.Err() != nil {
		t.Error("the report is out after the deadline")
	}
	w.entra.ClearFaults()
	checkReport(t, "next sweep", w.sweep(t), connector.SweepReport{Checked: 2, Due: 1, Refreshed: 1})
}

// A new client secret is in use everywhere after one sweep, although nothing is
// due, and although the listing does not show the change yet.
func TestRotationReachesEveryConnection(t *testing.T) {
	w := newWorldWith(t, secretstoretest.Options{ListLag: 5 * time.Minute})
	w.provision(t, tenantA)
	w.provision(t, tenantB)
	w.clock.advance(6 * time.Minute)

	rotated := w.app()
	rotated.Credential.ClientSecret = entra.NewSecret("n3w-secret")
	// Too short a time to wait for the secret to be known.
	brief, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, _, err := w.put(brief, rotated)
	if e := asEntraError(t, err); e.Code != "AADSTS7000215" {
		t.Errorf("wrong new secret: %v", err)
	}
	checkReport(t, "after a refused rotation", w.sweep(t), connector.SweepReport{Checked: 2})

	w.entra.SetSecrets(clientID, entratest.Secret{Value: canary}, entratest.Secret{Value: "n3w-secret"})
	if _, created, err := w.put(t.Context(), rotated); created || err != nil {
		t.Fatalf("rotation: created %t, %v", created, err)
	}
	w.clock.advance(time.Second)
	w.entra.ResetRequests()
	checkReport(t, "after the rotation", w.sweep(t), connector.SweepReport{Checked: 2, Due: 2, Refreshed: 2})
	for _, r := range w.entra.Requests() {
		if r.SecretIndex != 1 {
			t.Errorf("%s was asked with secret %d", r.Tenant, r.SecretIndex)
		}
	}
}
