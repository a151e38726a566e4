package main

import (
	"maps"
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
	"entra-connector/internal/templatetest"
	"entra-connector/pkg/entra/entratest"
)

const tick = 5 * time.Minute // between two sweeps of the schedule

// watch is the connector in an account: the schedule starts sweeps, and CloudWatch takes their
// metrics and evaluates the template's alarms. Its time is simulated: instead of the clock going
// forward, everything that is stored gets older.
type watch struct {
	*Connector
	t       *testing.T
	now     time.Time
	metrics cloudwatchtest.Metrics
	alarms  []cloudwatchtest.Alarm
	states  map[string]cloudwatchtest.State
	rang    map[string]bool // since the last call of want
	failed  int             // sweeps in the queue FailedSweeps
	aged    atomic.Int64    // how often everything got older
}

// newWatch makes two connections that have been fine for half an hour.
func newWatch(t *testing.T, options stack.Options) *watch {
	t.Helper()
	alarms, err := cloudwatchtest.Alarms(templatetest.Read(t, nil))
	if err != nil || len(alarms) == 0 {
		t.Fatalf("%d alarms, %v", len(alarms), err)
	}
	w := &watch{t: t, now: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC), alarms: alarms,
		metrics: make(cloudwatchtest.Metrics), states: make(map[string]cloudwatchtest.State), rang: make(map[string]bool)}
	// Each time that something gets older makes a secret version, and Secrets Manager keeps all
	// versions of the last day. So for it an hour passes each time.
	options.Secrets.Now = func() time.Time { return time.Now().Add(time.Duration(w.aged.Load()) * time.Hour) }
	w.Connector = Start(t, options)
	provision(t, w.Connector)
	w.settle()
	return w
}

// sweep runs the refresh function as the schedule does, and then lets time pass.
func (w *watch) sweep(then time.Duration) {
	w.t.Helper()
	log := said(w.Connector, func() {
		if w.Invoke(w.Refresh, `{}`).FunctionError != "" {
			w.failed++
		}
	})
	if err := w.metrics.Read(log, w.now); err != nil {
		w.t.Fatal(err)
	}
	w.pass(then)
}

func (w *watch) sweepFor(d time.Duration) {
	w.t.Helper()
	for range d / tick {
		w.sweep(tick)
	}
}

// pass lets time pass. CloudWatch evaluates the alarms every minute.
func (w *watch) pass(d time.Duration) {
	const queue = "AWS/SQS ApproximateNumberOfMessagesVisible QueueName=FailedSweeps.QueueName"
	for end := w.now.Add(d); w.now.Before(end); {
		w.metrics[queue] = append(w.metrics[queue], cloudwatchtest.Point{At: w.now, Value: float64(w.failed)})
		w.now = w.now.Add(time.Minute)
		for _, a := range w.alarms {
			w.states[a.Name] = a.Evaluate(w.metrics, w.now, w.states[a.Name])
			if w.states[a.Name] == cloudwatchtest.InAlarm {
				w.rang[a.Name] = true
			}
		}
	}
	w.older(d)
}

var storedTime = regexp.MustCompile(`"20\d\d-[^"]+Z"`)

// older makes everything that is stored older, except for the tokens themselves.
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
		var before string
		w.Secrets.Edit(name, func(x *secretstoretest.Secret) {
			before, x.Value, x.Description = x.Version, age(x.Value), age(x.Description)
		})
		w.Secrets.Edit(name, func(x *secretstoretest.Secret) { // a description is about one version
			x.Description = strings.Replace(x.Description, before, x.Version, 1)
		})
	}
}

// want compares the alarms that have gone off, or still been on, since the last call.
func (w *watch) want(names ...string) {
	w.t.Helper()
	if got := slices.Sorted(maps.Keys(w.rang)); !slices.Equal(got, names) {
		w.t.Fatalf("%s: alarms %q, want %q", w.now.Format(time.TimeOnly), got, names)
	}
	clear(w.rang)
}

// settle waits half an hour, after which no alarm may be on.
func (w *watch) settle() {
	w.t.Helper()
	w.sweepFor(30 * time.Minute)
	clear(w.rang)
	w.sweep(tick)
	w.want()
}

// killedSweep is a sweep whose process ends in the middle of it.
func (w *watch) killedSweep() {
	w.t.Helper()
	w.Secrets.Fail(secretstoretest.Fault{Op: "ListSecrets", Times: 1, Delay: time.Minute})
	listed := w.Secrets.Count("ListSecrets")
	log := said(w.Connector, func() {
		twin := w.Twin()
		ended := make(chan error)
		go func() {
			_, err := twin.Sweep(w.t.Context(), []byte(`{}`))
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
			w.t.Error("the sweep ended by itself")
		}
	})
	if strings.Contains(log, `"_aws"`) {
		w.t.Errorf("a killed sweep leaves metrics: %s", log)
	}
	w.failed++ // Lambda tells the queue
}

// Each kind of trouble sets off its own alarm, and no other. When it is over, so is the alarm.
func TestAlarms(t *testing.T) {
	for _, trouble := range []struct {
		name    string
		timeout time.Duration // of a sweep, if it is not the template's
		happens func(*watch)
	}{
		{"none, for a day", 0, func(w *watch) {
			tokens := len(w.Entra.Tokens())
			w.sweepFor(24 * time.Hour)
			w.want()
			// Each of the two connections is refreshed about every half hour.
			if n := len(w.Entra.Tokens()) - tokens; n < 2*40 || n > 2*60 || len(w.Events.Events()) > 0 {
				w.t.Errorf("%d tokens and %d events in a day", n, len(w.Events.Events()))
			}
		}},
		{"none, without connections", 0, func(w *watch) {
			w.Call("DELETE", "/connections/default/a", "").Want(w.t, 204)
			w.Call("DELETE", "/connections/default/b", "").Want(w.t, 204)
			w.sweepFor(time.Hour)
			w.want()
			if got := w.states["TokenAboutToExpire"]; got != cloudwatchtest.InsufficientData {
				w.t.Errorf("without a token TokenAboutToExpire is %s", got)
			}
		}},
		{"a killed sweep", 0, func(w *watch) {
			w.killedSweep()
			w.pass(tick)
			// The next sweep takes nearly all of its time.
			w.pass(tick - time.Minute)
			w.sweep(time.Minute)
			w.want("SweepFailed")
		}},
		{"sweeps that cannot work", 0, func(w *watch) {
			w.Secrets.Fail(secretstoretest.Fault{Op: "ListSecrets", Error: "AccessDeniedException"})
			w.sweep(tick)
			w.want("SweepFailed")
			w.sweepFor(2 * tick)
			w.want("NoSweepSucceeded", "SweepFailed")
		}},
		{"a stopped schedule", 0, func(w *watch) {
			w.pass(9 * time.Minute) // two ticks are missing
			w.want()
			w.pass(2 * time.Minute) // and a third
			w.want("NoSweepSucceeded")
			w.pass(time.Hour)
			clear(w.rang)
			w.pass(time.Minute)
			w.want("NoSweepSucceeded") // still
		}},
		{"a refusal", 0, func(w *watch) {
			w.Entra.Fail(entratest.Fault{Tenant: TenantA, Response: entratest.Refused(7000112)})
			w.sweepFor(30 * time.Minute)
			w.want("ConnectionRefused")
			// The alarm is about new refusals. A person may take a while to act.
			w.sweepFor(12 * time.Hour)
			w.settle()
			w.Entra.ClearFaults()
			w.sweepFor(7 * time.Hour) // the longest wait between two attempts is shorter
			w.want()
			if events := w.Events.Events(); len(events) != 2 { // refused, recovered
				w.t.Errorf("events %+v", events)
			}
		}},
		{"an expiring credential", 0, func(w *watch) {
			expires := func(at time.Time) string {
				return AppBody("client_secret", NewSecret, "client_secret_expires_at", at.UTC().Format(time.RFC3339))
			}
			w.Call("PUT", "/apps/default", expires(time.Now().AddDate(0, 0, 30).Add(time.Hour))).Want(w.t, 200)
			w.sweepFor(30 * time.Minute)
			w.want()
			w.sweepFor(time.Hour)
			w.want("CredentialExpires")
			w.Call("PUT", "/apps/default", expires(time.Now().AddDate(1, 0, 0))).Want(w.t, 200)
		}},
		// A failure that passes needs nobody, until a token is about to expire.
		{"a token about to expire", 0, func(w *watch) {
			w.Entra.Fail(entratest.Fault{Tenant: TenantB, Response: entratest.Throttled("60")})
			for range time.Hour / tick {
				at, err := time.Parse(time.RFC3339, Text(w.Call("GET", "/connections/default/b", "").Want(w.t, 200).JSON(w.t), "expires_at"))
				if err != nil || time.Until(at) <= 15*time.Minute {
					break
				}
				w.sweep(tick)
			}
			w.want() // the last sweep has seen it with more
			w.sweep(tick)
			w.want("TokenAboutToExpire")
		}},
		// Once is no trouble.
		{"deferred work", 3 * time.Second, func(w *watch) {
			w.Entra.Fail(entratest.Fault{Tenant: TenantA, Endpoint: "token", Delay: time.Minute}) // longer than a sweep may take
			for range 8 {
				w.sweep(tick)
				if all := w.metrics["EntraConnector Deferred FunctionName=RefreshFunction"]; all[len(all)-1].Value > 0 {
					break
				}
			}
			w.want()
			w.sweep(tick)
			w.want("WorkDeferred")
		}},
	} {
		t.Run(trouble.name, func(t *testing.T) {
			t.Parallel()
			w := newWatch(t, stack.Options{SweepTimeout: trouble.timeout})
			trouble.happens(w)
			w.Secrets.ClearFaults()
			w.Entra.ClearFaults()
			w.failed = 0 // a person has read the messages
			w.settle()
		})
	}
}
