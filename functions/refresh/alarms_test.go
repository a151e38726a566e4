package main

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/signals/cloudwatchtest"
	"entra-connector/internal/stack"
	. "entra-connector/internal/stack/stacktest"
	"entra-connector/pkg/entra/entratest"
)

// watch is the connector in its account: the schedule starts sweeps, CloudWatch
// takes their metrics and evaluates the template's alarms. Its time is simulated:
// what is stored gets older instead.
type watch struct {
	*Connector
	t       *testing.T
	now     time.Time
	metrics cloudwatchtest.Metrics
	alarms  []cloudwatchtest.Alarm
	states  map[string]cloudwatchtest.State
	rang    map[string]bool // since the last call of alarmed
	failed  int             // sweeps in the queue FailedSweeps
	aged    *atomic.Int64   // how often what is stored got older
}

const (
	tick   = 5 * time.Minute // the schedule's
	warmUp = 6               // sweeps before something happens
)

// newWatch provisions two connections and lets them be well for half an hour.
func newWatch(t *testing.T, app string, options stack.Options) *watch {
	t.Helper()
	t.Parallel()
	template, err := os.ReadFile("../../template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// Each time that what is stored gets older makes a version, of which Secrets
	// Manager keeps all that are of its last day. For it, an hour has passed.
	aged := new(atomic.Int64)
	options.Secrets.Now = func() time.Time { return time.Now().Add(time.Duration(aged.Load()) * time.Hour) }
	w := &watch{Connector: Start(t, options), t: t, aged: aged, now: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC),
		states: make(map[string]cloudwatchtest.State), rang: make(map[string]bool)}
	if w.alarms, err = cloudwatchtest.Alarms(template); err != nil {
		t.Fatal(err)
	}
	w.Call("PUT", "/apps/default", app).Want(t, 201)
	w.Call("POST", "/connections", Object("connection", "a", "tenant_id", TenantA)).Want(t, 201)
	w.Call("POST", "/connections", Object("connection", "b", "tenant_id", TenantB)).Want(t, 201)
	for range warmUp {
		w.sweep()
	}
	clear(w.rang) // there was no sweep before the first
	w.sweep()
	w.want()
	return w
}

// sweep is one tick of the schedule, and the time until the next.
func (w *watch) sweep() {
	w.t.Helper()
	log := said(w.Connector, func() {
		if w.Invoke(w.Refresh, `{}`).FunctionError != "" {
			w.failed++
		}
	})
	w.read(log)
	w.pass(tick)
}

func (w *watch) read(log string) {
	w.t.Helper()
	if err := w.metrics.Read(log, w.now); err != nil {
		w.t.Fatal(err)
	}
}

// pass lets time go by, a minute at a time, in which CloudWatch evaluates.
func (w *watch) pass(d time.Duration) {
	w.t.Helper()
	for end := w.now.Add(d); w.now.Before(end); {
		w.metrics.Put("AWS/SQS", "ApproximateNumberOfMessagesVisible", map[string]string{"QueueName": "FailedSweeps"}, w.now, float64(w.failed))
		w.now = w.now.Add(time.Minute)
		for _, a := range w.alarms {
			state, err := a.Evaluate(&w.metrics, w.now, w.states[a.Name])
			if err != nil {
				w.t.Fatal(err)
			}
			if w.states[a.Name] = state; state == cloudwatchtest.InAlarm {
				w.rang[a.Name] = true
			}
		}
	}
	w.older(d)
}

var storedTime = regexp.MustCompile(`"20\d\d-[^"]+Z"`)

// older makes all that is stored, but for the tokens themselves, that much older.
func (w *watch) older(d time.Duration) {
	age := func(s string) string {
		return storedTime.ReplaceAllStringFunc(s, func(quoted string) string {
			at, err := time.Parse(`"`+time.RFC3339Nano+`"`, quoted)
			if err != nil {
				return quoted
			}
			return at.Add(-d).Format(`"` + time.RFC3339Nano + `"`)
		})
	}
	w.aged.Add(1)
	for _, name := range w.Secrets.Names() {
		w.Secrets.Edit(name, func(s *secretstoretest.Secret) { s.Value, s.Description = age(s.Value), age(s.Description) })
	}
}

// want compares the alarms that went off since the last call, or still are.
func (w *watch) want(names ...string) {
	w.t.Helper()
	got := slices.Sorted(maps.Keys(w.rang))
	if !slices.Equal(got, names) {
		w.t.Fatalf("%s: alarms %q, want %q", w.now.Format(time.TimeOnly), got, names)
	}
	clear(w.rang)
}

// over waits until all alarms are over.
func (w *watch) over() {
	w.t.Helper()
	for range 6 {
		w.sweep()
	}
	clear(w.rang)
	w.sweep()
	w.want()
}

func TestNoAlarmOnAHealthyDay(t *testing.T) {
	w := newWatch(t, AppBody(), stack.Options{})
	tokens := len(w.Entra.Tokens())
	for range 24 * time.Hour / tick {
		w.sweep()
	}
	w.want()
	// Two connections, each refreshed about every half an hour.
	if n := len(w.Entra.Tokens()) - tokens; n < 2*40 || n > 2*60 {
		t.Errorf("%d tokens in a day", n)
	}
	if events := w.Events.Events(); len(events) > 0 {
		t.Errorf("events %v", events)
	}
	if len(w.alarms) == 0 {
		t.Error("the template has no alarms")
	}
}

// A stack that has nothing to do is well, too.
func TestNoAlarmWithoutConnections(t *testing.T) {
	w := newWatch(t, AppBody(), stack.Options{})
	for _, name := range []string{"a", "b"} {
		w.Call("DELETE", "/connections/default/"+name, "").Want(t, 204)
	}
	for range time.Hour / tick {
		w.sweep()
	}
	w.want()
	if got := w.states["TokenAboutToExpire"]; got != cloudwatchtest.InsufficientData {
		t.Errorf("of no token there is %s to say", got)
	}
}

func TestAlarmOnAKilledSweep(t *testing.T) {
	w := newWatch(t, AppBody(), stack.Options{})
	w.Secrets.Fail(secretstoretest.Fault{Op: "ListSecrets", Times: 1, Delay: time.Minute})
	listed := w.Secrets.Count("ListSecrets")
	twin := w.Twin()
	ended := make(chan error)
	log := said(w.Connector, func() {
		go func() {
			_, err := twin.Sweep(t.Context(), []byte(`{}`))
			ended <- err
		}()
		for range 10_000 {
			if w.Secrets.Count("ListSecrets") > listed {
				break
			}
			time.Sleep(time.Millisecond)
		}
		twin.Close()
		if err := <-ended; err == nil {
			t.Error("the sweep ended by itself")
		}
	})
	if strings.Contains(log, `"_aws"`) {
		t.Errorf("a killed sweep leaves metrics: %s", log)
	}
	w.failed++ // as Lambda does, which tells the queue
	w.pass(tick)
	// The next one takes nearly all the time that it has.
	w.pass(tick - time.Minute)
	w.read(said(w.Connector, func() { w.Invoke(w.Refresh, `{}`) }))
	w.pass(time.Minute)
	w.want("SweepFailed")
	w.failed = 0 // a person has read it
	w.over()
}

func TestAlarmsOnSweepsThatCannotWork(t *testing.T) {
	w := newWatch(t, AppBody(), stack.Options{})
	w.Secrets.Fail(secretstoretest.Fault{Op: "ListSecrets", Error: "AccessDeniedException"})
	w.sweep()
	w.want("SweepFailed")
	w.sweep()
	w.sweep()
	w.want("NoSweepSucceeded", "SweepFailed")
	w.Secrets.ClearFaults()
	w.failed = 0
	w.over()
}

func TestAlarmOnAStoppedSchedule(t *testing.T) {
	w := newWatch(t, AppBody(), stack.Options{})
	w.pass(9 * time.Minute) // two ticks that did not come
	w.want()
	w.pass(2 * time.Minute) // and a third
	w.want("NoSweepSucceeded")
	w.pass(time.Hour)
	clear(w.rang)
	w.pass(time.Minute)
	w.want("NoSweepSucceeded") // still
	w.over()
}

func TestAlarmOnARefusal(t *testing.T) {
	w := newWatch(t, AppBody(), stack.Options{})
	w.Entra.Fail(entratest.Fault{Tenant: TenantA, Response: entratest.Refused(7000112)})
	for range 6 {
		w.sweep()
	}
	w.want("ConnectionRefused")
	// It tells of what is new; the person's work may take a while.
	for range 12 * time.Hour / tick {
		w.sweep()
	}
	if w.states["ConnectionRefused"] != cloudwatchtest.OK {
		t.Error("hours later the refusal still counts as new")
	}
	w.over()
	w.Entra.ClearFaults()
	for range 7 * time.Hour / tick { // as long as the wait may take
		w.sweep()
	}
	w.want()
	var kinds []string
	for _, event := range w.Events.Events() {
		kinds = append(kinds, event.DetailType)
	}
	if want := []string{"entra.connection.refused", "entra.connection.recovered"}; !slices.Equal(kinds, want) {
		t.Errorf("events %q, want %q", kinds, want)
	}
}

func TestAlarmOnAnExpiringCredential(t *testing.T) {
	w := newWatch(t, AppBody("client_secret_expires_at", time.Now().Add(30*24*time.Hour+2*time.Hour).UTC().Format(time.RFC3339)), stack.Options{})
	for range 2 * time.Hour / tick {
		w.sweep()
	}
	w.want("CredentialExpires")
	w.Call("PUT", "/apps/default", AppBody("client_secret", NewSecret, "client_secret_expires_at", time.Now().AddDate(1, 0, 0).UTC().Format(time.RFC3339))).Want(t, 200)
	w.over()
}

// A connection that fails for a reason that passes is nobody's work, until its
// token is about to expire.
func TestAlarmOnATokenAboutToExpire(t *testing.T) {
	w := newWatch(t, AppBody(), stack.Options{})
	w.Entra.Fail(entratest.Fault{Tenant: TenantB, Response: entratest.Throttled("60")})
	left := func() time.Duration {
		t.Helper()
		at, err := time.Parse(time.RFC3339, Text(w.Call("GET", "/connections/default/b", "").Want(t, 200).JSON(t), "expires_at"))
		if err != nil {
			t.Fatal(err)
		}
		return time.Until(at)
	}
	for left() > 15*time.Minute {
		w.sweep()
	}
	w.want() // the last one has seen it with more
	w.sweep()
	w.want("TokenAboutToExpire")
	w.Entra.ClearFaults()
	w.over()
}

// Once is no trouble.
func TestAlarmOnDeferredWork(t *testing.T) {
	// The sweep's time ends while Entra still thinks.
	w := newWatch(t, AppBody(), stack.Options{SweepTimeout: 3 * time.Second})
	deferred := func() float64 {
		values := w.metrics.Values("EntraConnector", "Deferred", map[string]string{"FunctionName": "RefreshFunction"})
		return values[len(values)-1]
	}
	for _, alarm := range [][]string{nil, {"WorkDeferred"}} {
		w.Entra.Fail(entratest.Fault{Tenant: TenantA, Endpoint: "token", Delay: time.Minute})
		for range 8 {
			if w.sweep(); deferred() > 0 {
				break
			}
		}
		if alarm != nil {
			w.sweep()
		}
		w.want(alarm...)
		w.Entra.ClearFaults()
		w.over()
	}
}
