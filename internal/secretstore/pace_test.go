//go:build !race

// The Go runtime crashes now and then under the race detector where a bubble selects on a timer's
// channel, as the AWS SDK and x/time/rate do (runtime.(*timer).maybeRunChan). So tests in bubbles
// run without it.

package secretstore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"entra-connector/internal/connector"
	"entra-connector/internal/secretstore"
	"entra-connector/internal/secretstore/secretstoretest"
)

// bubble runs a test on a clock that does not wait.
func bubble(t *testing.T, s setup, test func(*testing.T, *world)) {
	synctest.Test(t, func(t *testing.T) {
		s.retries = true
		test(t, open(t, s))
	})
}

// An answer that is lost, or breaks off, is asked for again, whether the call has taken effect or
// not.
func TestLostAnswers(t *testing.T) {
	for _, fault := range []secretstoretest.Fault{{Drop: true}, {Break: true}, {Drop: true, After: true}, {Break: true, After: true}} {
		bubble(t, setup{}, func(t *testing.T, w *world) {
			ctx := t.Context()
			use := connector.AppUse{App: app}
			var c connector.Connection
			for _, call := range []struct {
				loses string
				do    func() error
			}{
				{"CreateSecret", func() (err error) { _, err = w.CreateApp(ctx, app); return err }},
				{"GetSecretValue", func() (err error) { _, err = w.App(ctx, "default"); return err }},
				{"DescribeSecret", func() (err error) { use, err = w.LookAtApp(ctx, "default"); return err }},
				{"TagResource", func() error { return w.Announce(ctx, use, connection(tenantA)) }},
				{"UntagResource", func() error {
					ctx, cancel := context.WithTimeout(ctx, time.Minute)
					defer cancel()
					release, err := w.Hold(ctx, use)
					release(ctx)
					return err
				}},
				{"CreateSecret", func() (err error) {
					c, err = w.CreateConnection(ctx, connection(tenantA), tokenOf(tenantA, 0))
					return err
				}},
				{"UpdateSecret", func() error {
					return w.SaveToken(ctx, with(c, tokenOf(tenantA, time.Hour)), tokenOf(tenantA, time.Hour))
				}},
				{"ListSecrets", func() (err error) { _, _, err = w.Connections(ctx, "", 100, ""); return err }},
				{"TagResource", func() error { return w.DeleteConnection(ctx, ref) }},
				{"RestoreSecret", func() (err error) {
					_, err = w.take(t.Context(), tenantB, 0)
					return err
				}},
				{"DeleteSecret", func() error { return w.DeleteConnection(ctx, ref) }},
				{"DescribeSecret", func() error { return w.DeleteApp(ctx, use) }},
			} {
				w.server.ResetCalls()
				fault.Op, fault.Times = call.loses, 1
				w.server.Fail(fault)
				if err := call.do(); err != nil {
					t.Errorf("%+v: %v", fault, err)
				}
				read := !fault.Break || !strings.HasSuffix(call.loses, "agResource") // their answers are empty
				if n := w.server.Count(call.loses); n < 2 && read {
					t.Errorf("%+v: the call was not tried again", fault)
				}
			}
			if names := w.server.Names(); len(names) != 0 {
				t.Errorf("%+v: not deleted: %v", fault, names)
			}
		})
	}
}

// What a call has written whose answers are all lost is not known, until the next write.
func TestAllAnswersLost(t *testing.T) {
	for after, want := range map[bool]string{false: "ok of a until 01:59:59", true: "retrying: The state of the connection is unknown"} {
		bubble(t, setup{}, func(t *testing.T, w *world) {
			c, next := w.create(), tokenOf(tenantA, time.Hour)
			w.server.Fail(secretstoretest.Fault{Op: "UpdateSecret", Drop: true, After: after, Times: 3})
			failed := new(connector.StoreError)
			if err := w.SaveToken(t.Context(), with(c, next), next); !errors.As(err, &failed) || !failed.Unanswered || shown(w.read()) != want {
				t.Errorf("written %t: %v, it is %s", after, err, shown(w.read()))
			}
			if w.must(w.SaveToken(t.Context(), with(w.read(), next), next)); shown(w.read()) != "ok of a until 02:59:59" {
				t.Errorf("written %t, and again: %s", after, shown(w.read()))
			}
		})
	}
}

// A request makes at most 40 calls to AWS, whatever becomes of them.
func TestCallsHaveALimit(t *testing.T) {
	bubble(t, setup{}, func(t *testing.T, w *world) {
		w.server.Fail(secretstoretest.Fault{Op: "UpdateSecret", Error: "ThrottlingException"})
		for name, call := range map[string]func(context.Context) error{
			"reading":            func(ctx context.Context) error { _, err := w.App(ctx, "default"); return err },
			"listing":            func(ctx context.Context) error { _, err := w.Apps(ctx); return err },
			"writing, throttled": func(ctx context.Context) error { return w.SaveFailure(ctx, connection(tenantA)) },
		} {
			w.server.ResetCalls()
			ctx := connector.WithCalls(t.Context())
			var err error
			for range 41 {
				err = call(ctx)
			}
			if n := len(w.server.Calls()); n != 40 || outcome(err) != connector.CodeTooManyCalls {
				t.Errorf("%s: %d calls, then %v", name, n, err)
			}
		}
		for range 41 {
			if _, err := w.App(t.Context(), "default"); err != connector.ErrNotFound {
				t.Fatalf("a caller without a limit: %v", err)
			}
		}
		// Each edited Description costs a call.
		for n := range 41 {
			name := fmt.Sprintf("a%02d", n)
			_, err := w.CreateApp(t.Context(), connector.App{Name: name, Registration: app.Registration})
			w.must(err)
			w.server.Edit("entra/apps/"+name, func(x *secret) { x.Description = "" })
		}
		apps, err := w.Apps(connector.WithCalls(t.Context()))
		if err != nil || len(apps) != 41 || apps[38].ClientID == "" || apps[40].Name != "a40" {
			t.Errorf("edited apps: %+v, %v", apps, err)
		}
	})
}

// Each write of whatever kind takes its turn below the ceiling, and no read does.
func TestWritesKeepToTheCeiling(t *testing.T) {
	bubble(t, setup{Config: secretstore.Config{WritesPerSecond: 10}}, func(t *testing.T, w *world) {
		ctx := t.Context()
		use := connector.AppUse{App: app}
		begin, writes := time.Now(), -1 // the first does not wait
		for _, call := range []struct {
			name   string
			writes int
			do     func() error
		}{
			{"creating", 1, func() (err error) { use.Version, err = w.CreateApp(ctx, app); return err }},
			{"looking", 0, func() (err error) { use, err = w.LookAtApp(ctx, "default"); return err }},
			{"announcing", 1, func() error { return w.Announce(ctx, use, connection(tenantA)) }},
			{"holding", 1, func() (err error) { _, err = w.Hold(ctx, use); return err }},
			{"replacing", 1, func() (err error) {
				next := app
				next.Version = use.Version
				_, err = w.UpdateApp(ctx, use, next)
				return err
			}},
			{"reading", 0, func() (err error) { _, err = w.App(ctx, "default"); return err }},
			{"marking and deleting", 2, func() error { return w.DeleteApp(ctx, use) }},
			{"trying to create, restoring, untagging, tagging, replacing and tagging", 6, func() (err error) { _, err = w.CreateApp(ctx, app); return err }},
		} {
			writes += call.writes
			w.must(call.do())
			if took, want := time.Since(begin), time.Duration(writes)*100*time.Millisecond; took != want {
				t.Errorf("after %s %v have gone by, want %v", call.name, took, want)
			}
		}
		// A wait that the deadline does not allow is refused at once.
		ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		if _, err := w.CreateApp(ctx, app); !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			t.Errorf("with no time left: %v", err)
		}
	})
	// Without a ceiling nothing waits, except that listings leave others some of AWS's hundred a
	// second.
	bubble(t, setup{}, func(t *testing.T, w *world) {
		c := w.create()
		for want, call := range map[string]func() error{
			"0s":   func() error { return w.SaveFailure(t.Context(), c) },
			"1.1s": func() error { _, _, err := w.Connections(t.Context(), "", 1, ""); return err },
		} {
			begin := time.Now()
			for range 101 {
				w.must(call())
			}
			if took := time.Since(begin); took.Round(100*time.Millisecond).String() != want {
				t.Errorf("101 calls take %v, want %v", took, want)
			}
		}
	})
}

// Of many writes that wait, several go on at the same moment, and still no second has more than AWS allows.
func TestTurnsComeTogether(t *testing.T) {
	const many, ceiling = 225, 45
	bubble(t, setup{Config: secretstore.Config{WritesPerSecond: ceiling}}, func(t *testing.T, w *world) {
		c := w.create()
		var mu sync.Mutex
		var at []time.Duration
		begin := time.Now()
		w.server.Before(func(string, string) {
			mu.Lock()
			defer mu.Unlock()
			at = append(at, time.Since(begin))
		})
		var writers sync.WaitGroup
		for range many {
			writers.Go(func() { w.must(w.SaveFailure(t.Context(), c)) })
		}
		writers.Wait()
		slices.Sort(at)
		if moments := len(slices.Compact(slices.Clone(at))); len(at) != many || moments > many/4 || at[many-1] > 5100*time.Millisecond {
			t.Errorf("%d writes at %d moments in %v", len(at), moments, at[len(at)-1])
		}
		for i := range at[50:] {
			if at[i+50]-at[i] < time.Second {
				t.Fatalf("51 writes from %v to %v", at[i], at[i+50])
			}
		}
	})
}

// What AWS throttles is written in the end, unless that goes on for ever, and slows other writes
// down. A secret with too many versions is that secret's trouble alone.
func TestThrottledWrites(t *testing.T) {
	for _, tt := range []struct {
		code    string
		times   int
		ceiling float64
		stored  bool
		least   time.Duration // for eleven writes afterwards
		most    time.Duration
	}{
		{"LimitExceededException", 3, 10, false, time.Second, time.Second},
		{"ThrottlingException", 10, 10, true, 1100 * time.Millisecond, 10 * time.Second},
		{"ThrottlingException", 0, 10, false, 1100 * time.Millisecond, 10 * time.Second},
		{"ThrottlingException", 1, 0.5, true, 19 * time.Second, 30 * time.Second},
	} {
		bubble(t, setup{Config: secretstore.Config{WritesPerSecond: tt.ceiling}}, func(t *testing.T, w *world) {
			c := w.create()
			w.server.Fail(secretstoretest.Fault{Op: "UpdateSecret", Error: tt.code, Times: tt.times})
			if err := w.SaveFailure(t.Context(), c); (err == nil) != tt.stored {
				t.Errorf("%+v: %v", tt, err)
			}
			w.server.ClearFaults()
			time.Sleep(time.Second)
			begin := time.Now()
			for range 11 {
				w.must(w.SaveFailure(t.Context(), c))
			}
			if took := time.Since(begin); took < tt.least || took > tt.most {
				t.Errorf("%+v: eleven writes take %v", tt, took)
			}
		})
	}
}

// Each version has one successor, so of several writes that replace it only the first succeeds. A
// person who moves the staging label back leaves the successor taken. Then there is another, but
// not forever.
func TestOneSuccessor(t *testing.T) {
	bubble(t, setup{}, func(t *testing.T, w *world) {
		first := w.create()
		for n := range 7 {
			token, want := tokenOf(tenantA, time.Duration(n+1)*time.Minute), "done"
			if n == 6 {
				want = connector.CodeContended
			}
			if got := outcome(w.SaveToken(t.Context(), with(first, token), token)); got != want {
				t.Errorf("with the label moved back %d times: %s, want %s", n, got, want)
			}
			if got := outcome(w.SaveToken(t.Context(), with(first, tokenOf(tenantA, 0)), tokenOf(tenantA, time.Hour))); got != "changed since it was read" && want == "done" {
				t.Errorf("over the successor: %s", got)
			}
			w.server.Edit(secretName, func(x *secret) { x.Version = first.Version })
		}
	})
	bubble(t, setup{}, func(t *testing.T, w *world) { // meanwhile it is being deleted
		first, token := w.create(), tokenOf(tenantA, time.Hour)
		w.must(w.SaveToken(t.Context(), with(first, token), token))
		w.server.Edit(secretName, func(x *secret) { x.Version, x.Tags[tagState] = first.Version, "deleting 1" })
		token = tokenOf(tenantA, 2*time.Hour)
		if err := w.SaveToken(t.Context(), with(first, token), token); err != connector.ErrChanged {
			t.Errorf("with the label moved back and a deletion begun: %v", err)
		}
	})
	bubble(t, setup{}, func(t *testing.T, w *world) {
		first := w.create()
		w.must(w.DeleteConnection(t.Context(), ref))
		for _, want := range []string{"not found", "changed since it was read", "not found"} { // deleted, taken again, purged and taken again
			if got := outcome(w.SaveToken(t.Context(), first, tokenOf(tenantA, 2*time.Hour))); got != want {
				t.Errorf("over the same name: %s, want %s", got, want)
			}
			if c, err := w.Connection(t.Context(), ref); err == nil && shown(c) != "ok of b until 01:59:59" {
				t.Errorf("the connection of another tenant is %s", shown(c))
			}
			if want != "not found" {
				w.must(w.DeleteConnection(t.Context(), ref))
				w.ahead += 31 * 24 * time.Hour
			}
			if _, err := w.take(t.Context(), tenantB, 0); err != connector.ErrExists {
				w.must(err)
			}
		}
	})
}
