//go:build !race

// The Go runtime crashes now and then under the race detector where a bubble selects on a timer's
// channel, as the AWS SDK and x/time/rate do (runtime.(*timer).maybeRunChan). So tests in bubbles run
// without it.

package connector_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"entra-connector/internal/connector"
	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/pkg/entra/entratest"
)

// bubble runs a test in a world on a clock that does not wait.
func bubble(t *testing.T, test func(*testing.T, *world)) {
	synctest.Test(t, func(t *testing.T) { test(t, newWorld(t, setup{bubble: true})) })
}

// slow makes Entra and each page of a listing take some time, and notes when each tenant is asked for.
func (w *world) slow(entra, page time.Duration) (asked map[string][]time.Duration) {
	w.entra.Fail(entratest.Fault{Delay: entra})
	if page > 0 {
		w.secrets.Fail(secretstoretest.Fault{Op: "ListSecrets", Delay: page})
	}
	return w.watch()
}

func (w *world) watch() map[string][]time.Duration {
	var mu sync.Mutex
	begin, asked := time.Now(), make(map[string][]time.Duration)
	w.asking = func(tenant string) {
		mu.Lock()
		defer mu.Unlock()
		asked[tenant] = append(asked[tenant], time.Since(begin).Round(time.Second))
	}
	return asked
}

// sweepWithin sweeps as long as a time allows, and says how long it took.
func (w *world) sweepWithin(within time.Duration) (r report, took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), within)
	defer cancel()
	begin := time.Now()
	r, err = w.sweeper.Sweep(ctx, connector.SweepRequest{})
	return r, time.Since(begin).Round(100 * time.Millisecond), err
}

// The nearest expiry comes first, whether the last refresh failed or not. At most half of the workers are
// for connections that failed. Those of them that have run out come last, the one tried longest ago first.
func TestSweepTakesTheMostUrgentFirst(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		const workers = 64
		groups := []struct {
			name    string
			many    int
			left    time.Duration
			tried   time.Duration // ago, in vain; 0: healthy
			asked   time.Duration // after the sweep's beginning
			numbers []int
		}{
			{"all of the first page", workers, 20 * time.Minute, 0, 0, nil},
			{"failed, nearest to their expiry", workers / 2, time.Minute, time.Hour, 1 * time.Second, nil},
			{"healthy, near their expiry", workers / 2, 2 * time.Minute, 0, 1 * time.Second, nil},
			{"failed, near their expiry", workers / 2, 3 * time.Minute, time.Hour, 2 * time.Second, nil},
			{"failed, too many at a time", workers / 2, 4 * time.Minute, time.Hour, 3 * time.Second, nil},
			{"healthy, in their place", workers / 2, 5 * time.Minute, 0, 2 * time.Second, nil},
			{"healthy, far from their expiry", workers / 2, 6 * time.Minute, 0, 3 * time.Second, nil},
			{"run out, tried long ago", workers / 2, -time.Minute, 3 * time.Hour, 4 * time.Second, nil},
			{"run out, tried lately", workers / 2, -time.Hour, time.Hour, 5 * time.Second, nil},
		}
		w.seedAll(workers, 100-workers, time.Hour, nil) // are not due
		rest := rand.Perm(8 * workers / 2)
		for i, group := range groups {
			for n := range group.many {
				if i > 0 {
					n, rest = 100+rest[0], rest[1:]
				}
				groups[i].numbers = append(groups[i].numbers, n)
				var f *connector.Failure
				if group.tried > 0 {
					f = failed(retrying)
					f.At = time.Now().Add(-group.tried)
				}
				w.seed(n, group.left, f)
			}
		}
		asked := w.slow(time.Second, 0)
		if r, _, err := w.sweepWithin(10 * time.Minute); err != nil || r.Refreshed != 5*workers {
			t.Fatalf("report %+v, %v", r, err)
		}
		for _, group := range groups {
			for _, n := range group.numbers {
				if got := asked[tenant(n)]; !slices.Equal(got, []time.Duration{group.asked}) {
					t.Errorf("%s: one was asked for after %v, want %v", group.name, got, group.asked)
				}
			}
		}
	})
}

// Refreshing does not wait for the listing, except for those that come last.
func TestSweepRefreshesWhileItLists(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.seedAll(0, 100, time.Minute, failed(refused))
		w.seedAll(100, 100, time.Minute, nil)
		w.junk("z", 2)
		asked := w.slow(time.Second, 10*time.Second)
		_, took, err := w.sweepWithin(10 * time.Minute)
		healthy, last := asked[tenant(100)], asked[tenant(0)]
		if err != nil || healthy[0] != 20*time.Second || last[0] < 40*time.Second || took != 44*time.Second { // four times 32 at most
			t.Errorf("a healthy one of the second page was asked for after %v, a refused one of the first after %v, and all took %v: %v", healthy, last, took, err)
		}
	})
}

// Nothing is started that could not be finished before the deadline. What hangs to the end is cut off, so
// that the report gets out. What the time does not allow, the next sweep takes first.
func TestSweepLeavesTimeToFinish(t *testing.T) {
	for _, tt := range []struct {
		within         time.Duration
		failed, others int
		last, took     time.Duration
	}{
		// Each request hangs for its ten seconds.
		{2 * time.Minute, 11 * 64, 50, 100 * time.Second, 110 * time.Second},
		{114 * time.Second, 10 * 64, 50, 90 * time.Second, 100 * time.Second},
		{20 * time.Second, 64, 100, 10 * time.Second, 19 * time.Second}, // the second 64 are cut off
		{8 * time.Second, 0, 100, 0, 7600 * time.Millisecond},
	} {
		bubble(t, func(t *testing.T, w *world) {
			all := tt.failed + tt.others
			w.seedAll(0, all, time.Minute, nil)
			asked := w.slow(time.Hour, 0)
			r, took, err := w.sweepWithin(tt.within)
			if err != nil || r.Failed != tt.failed || r.Deferred != tt.others || r.Due != all || r.Health.Healthy != all {
				t.Errorf("within %v: %d failed, %d deferred, %d due, %d healthy, %v", tt.within, r.Failed, r.Deferred, r.Due, r.Health.Healthy, err)
			}
			last := slices.Max(slices.Concat(slices.Collect(maps.Values(asked))...))
			if last != tt.last || took != tt.took {
				t.Errorf("within %v: the last was started after %v and the report out after %v, want %v and %v", tt.within, last, took, tt.last, tt.took)
			}
		})
	}
	bubble(t, func(t *testing.T, w *world) {
		for n, order := range rand.Perm(400) {
			w.seed(order, 20*time.Minute+time.Duration(n)*time.Second+time.Duration(n/300*20)*time.Minute, nil)
		}
		first := w.slow(time.Second, 0)
		if r, _, err := w.sweepWithin(5 * time.Second); err != nil || r.Due != 300 || r.Deferred != 300-4*64 {
			t.Fatalf("report %+v, %v", r, err)
		}
		time.Sleep(20 * time.Minute)
		second := w.watch()
		if r, _, err := w.sweepWithin(10 * time.Minute); err != nil || r.Refreshed != 100+300-4*64 {
			t.Fatalf("report %+v, %v", r, err)
		}
		for tenant, at := range second {
			page, _ := w.store.Connection(t.Context(), connector.ConnectionRef{App: "default", Name: tenant})
			if deferred := len(first[tenant]) == 0 && page.Version != ""; deferred && at[0] > 2*time.Second {
				t.Errorf("one that was not refreshed is asked for after %v", at)
			}
		}
	})
}

// A listing that hangs is given up when nothing may be started any more. What it has shown is refreshed
// meanwhile, and the report says that it is not all.
func TestSweepGoesOnWithoutTheRestOfTheListing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.seedAll(0, 101, time.Minute, nil)
		w.secrets.Fail(secretstoretest.Fault{Op: "ListSecrets", Delay: time.Second, Times: 1})
		w.secrets.Fail(secretstoretest.Fault{Op: "ListSecrets", Delay: time.Hour})
		r, took, err := w.sweepWithin(time.Minute)
		w.check("half seen", r, report{Checked: 100, Due: 100, Refreshed: 100, Incomplete: true})
		_, nothing, nothingErr := w.sweepWithin(time.Minute)
		if err != nil || took != 45*time.Second || nothingErr == nil || nothing != 45*time.Second {
			t.Errorf("took %v, %v, and with nothing listed %v, %v, want 45s", took, err, nothing, nothingErr)
		}
	})
}

// A shared token is not stored over one that was asked for later, as when a person refreshes a connection
// before the sweep comes to it.
func TestSharedTokenIsNotTheOlder(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		for _, name := range []string{"a", "z"} {
			f := asked(tenantA)
			f.Connection = name
			_, _, err := w.provisionAs(t.Context(), f)
			w.must(err)
		}
		w.junk("m", 1) // which puts them on two pages
		at := w.slow(time.Second, 10*time.Second)
		time.AfterFunc(15*time.Second, func() {
			_, err := w.refresher.Refresh(t.Context(), connector.ConnectionRef{App: "default", Name: "z"})
			w.must(err)
		})
		r := w.sweep(force)
		if got := fmt.Sprint(at[tenantA]); r.Refreshed != 2 || got != "[10s 15s 20s]" {
			t.Errorf("refreshed %d, asked after %s", r.Refreshed, got)
		}
	})
}

// A request waits for a new secret or a consent to be known, and rides out one failure, as far as its time
// allows. Each tenant has its own waits: a Retry-After is not overrun because another's refusal may settle.
func TestProofWaits(t *testing.T) {
	const unsettled, noConsent, passing = 7000215, 7000229, 90033
	r := func(code int) entratest.Response { return entratest.Refused(code) }
	many := func(times, code int) []entratest.Response { return slices.Repeat([]entratest.Response{r(code)}, times) }
	for _, tt := range []struct {
		name    string
		answers [][]entratest.Response // of each tenant, before it grants a token
		within  time.Duration
		code    string // of the error
		asked   string // when each tenant was, in seconds
		took    time.Duration
	}{
		{"known at once", [][]entratest.Response{nil}, 24, "", "[0]", 0},
		{"known after a refusal", [][]entratest.Response{many(1, unsettled)}, 24, "", "[0 2]", 2},
		{"known after three", [][]entratest.Response{many(3, unsettled)}, 24, "", "[0 2 6 14]", 14},
		{"consent known after two", [][]entratest.Response{many(2, noConsent)}, 24, "", "[0 2 6]", 6},
		{"stays wrong", [][]entratest.Response{many(9, unsettled)}, 24, "AADSTS7000215", "[0 2 6 14]", 14},
		{"no time", [][]entratest.Response{many(1, unsettled)}, 4, "AADSTS7000215", "[0]", 0},
		{"no time for the next", [][]entratest.Response{many(9, unsettled)}, 8, "AADSTS7000215", "[0 2]", 2},
		{"refused for good", [][]entratest.Response{many(1, refusedAtOnce)}, 24, "AADSTS7000112", "[0]", 0},
		{"passes once", [][]entratest.Response{many(1, passing)}, 24, "", "[0 5]", 5},
		{"does not pass", [][]entratest.Response{many(9, passing)}, 24, "AADSTS90033", "[0 5]", 5},
		{"throttled", [][]entratest.Response{{entratest.Throttled("12")}}, 24, "", "[0 12]", 12},
		{"throttled for too long", [][]entratest.Response{{entratest.Throttled("60")}}, 24, "throttled", "[0]", 0},
		{"throttled for less than the pause", [][]entratest.Response{{entratest.Throttled("1")}}, 24, "", "[0 5]", 5},
		{"malformed", [][]entratest.Response{{entratest.HTML(200)}}, 24, "invalid_response", "[0]", 0},
		{"one after the other", [][]entratest.Response{many(9, unsettled), many(9, noConsent), many(9, refusedAtOnce)}, 24, "AADSTS7000215", "[0 2 6 14] [0 2 6 14] [0]", 14},
		{"the first to grant", [][]entratest.Response{many(9, unsettled), many(2, unsettled), nil}, 24, "", "[0] [0] [0]", 0},
		{"a Retry-After beside refusals", [][]entratest.Response{many(9, unsettled), {entratest.Throttled("10")}}, 24, "", "[0 2 6] [0 10]", 10},
		{"a passing failure, and another's refusals", [][]entratest.Response{many(2, passing), many(9, unsettled)}, 24, "AADSTS90033", "[0 5] [0 2 6 14]", 14},
	} {
		bubble(t, func(t *testing.T, w *world) {
			for n, answers := range tt.answers {
				w.seed(n, time.Hour, nil)
				for _, answer := range answers {
					w.entra.Fail(entratest.Fault{Tenant: tenant(n), Times: 1, Response: answer})
				}
			}
			asked := w.watch()
			ctx, cancel := context.WithTimeout(t.Context(), tt.within*time.Second)
			defer cancel()
			begin := time.Now()
			err := w.putSecret(ctx, rotated)
			took := time.Since(begin).Round(100 * time.Millisecond)
			var got []string
			for n := range tt.answers {
				got = append(got, strings.ReplaceAll(fmt.Sprint(asked[tenant(n)]), "s", ""))
			}
			if strings.Join(got, " ") != tt.asked || took != tt.took*time.Second || err == nil != (tt.code == "") || err != nil && codeOf(err) != tt.code {
				t.Errorf("%s: asked after %s seconds, %v, after %v, want %s, %q after %ds", tt.name, strings.Join(got, " "), err, took, tt.asked, tt.code, tt.took)
			}
		})
	}
	bubble(t, func(t *testing.T, w *world) {
		c := w.seed(0, time.Minute, failed(refused))
		w.deny("", noConsent, 1)
		asked := w.watch()
		c, err := w.refresher.Refresh(t.Context(), c.ConnectionRef)
		if err != nil || c.Status() != ok || fmt.Sprint(asked[tenant(0)]) != "[0s 2s]" {
			t.Errorf("refreshed by hand it is %s, asked for after %v: %v", c.Status(), asked, err)
		}
	})
}

// Those who create connections on an app, and those who delete or replace it, see each other.
func TestMeetings(t *testing.T) {
	byName := asked(tenantA)
	byName.AppFields = nil
	look := func(w *world) connector.AppUse {
		use, err := w.store.LookAtApp(w.t.Context(), "default")
		w.must(err)
		return use
	}
	// during does something while the first token is asked for.
	during := func(do func(*world)) func(*world) {
		return func(w *world) {
			var once sync.Once
			w.asking = func(string) { once.Do(func() { w.asking = nil; do(w) }) }
		}
	}
	remove := func(w *world) { w.must(w.apps.Delete(w.t.Context(), "default")) }
	for _, tt := range []struct {
		name    string
		request connector.ProvisionFields
		happen  func(*world)
		want    string // "done" or the error
		secret  int    // with which the last token was asked for
	}{
		{"nothing", byName, func(*world) {}, "done", 0},
		{"the app is held", byName, func(w *world) {
			_, err := w.store.Hold(w.t.Context(), look(w))
			w.must(err)
		}, "TagResource: default: busy", 0},
		{"the app is held for a moment", byName, func(w *world) {
			release, err := w.store.Hold(w.t.Context(), look(w))
			w.must(err)
			time.AfterFunc(500*time.Millisecond, func() { release(w.t.Context()) })
		}, "done", 0},
		{"the app was held by somebody who died", byName, func(w *world) {
			_, err := w.store.Hold(w.t.Context(), look(w))
			w.must(err)
			time.Sleep(2 * time.Minute)
		}, "done", 0},
		{"the app is rotated after the proof", byName, during(func(w *world) { w.must(w.putSecret(w.t.Context(), rotated)) }), "done", 1},
		{"the app is deleted after the proof", byName, during(remove), `app "default": not found`, 0},
		{"the app is deleted after the proof, and given again", asked(tenantA), during(remove), "done", 0},
		{"the app is rotated after the proof, and given again", asked(tenantA), during(func(w *world) { w.must(w.putSecret(w.t.Context(), rotated)) }), "done", 0},
		{"the app is another's after the proof", asked(tenantA), during(func(w *world) {
			remove(w)
			other := w.app()
			other.ClientID = tenantB
			_, _, err := w.put(w.t.Context(), other)
			w.must(err)
		}), string(connector.OtherApp), 0},
	} {
		bubble(t, func(t *testing.T, w *world) {
			_, _, err := w.put(t.Context(), w.app())
			w.must(err)
			tt.happen(w)
			c, _, err := w.provisionAs(t.Context(), tt.request)
			if got := fmt.Sprint(err); got != tt.want && (err != nil || tt.want != "done") {
				t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
			}
			requests := w.entra.Requests()
			if last := requests[len(requests)-1]; last.SecretIndex != tt.secret {
				t.Errorf("%s: the last token was asked for with secret %d", tt.name, last.SecretIndex)
			}
			if err != nil {
				_, err := w.store.Connection(t.Context(), connector.ConnectionRef{App: "default", Name: tenantA})
				if errors.Is(err, connector.ErrNotFound) && tt.want != "done" {
					return
				}
				t.Errorf("%s: the connection is there: %v", tt.name, err)
			} else if w.expect(tt.name+", afterwards", report{Checked: 1}); c.Status() != ok {
				t.Errorf("%s: it is %s", tt.name, c.Status())
			}
		})
	}

	// Whoever deletes the app waits for what is announced, and lets others go on.
	bubble(t, func(t *testing.T, w *world) {
		_, _, err := w.put(t.Context(), w.app())
		w.must(err)
		announce := func(name string) {
			w.must(w.store.Announce(t.Context(), look(w), connector.Connection{ConnectionRef: connector.ConnectionRef{App: "default", Name: name}}))
		}
		deleted := func(want string, least, most time.Duration) {
			t.Helper()
			err := w.apps.Delete(t.Context(), "default")
			var busy *connector.StoreError
			if errors.As(err, &busy) && (!busy.Temporary || busy.RetryAfter < least || busy.RetryAfter > most) || !strings.HasPrefix(fmt.Sprint(err), want) {
				t.Errorf("deleting the app: %v, %+v, want %q", err, busy, want)
			}
			if want != "<nil>" && look(w).Held {
				t.Error("the app is still held")
			}
		}
		for n := range 21 {
			announce(fmt.Sprint("c", n))
		}
		deleted("DescribeSecret: entra/connections/default/c", time.Minute, time.Minute)
		time.Sleep(2 * time.Minute)
		deleted("deleting app: default: busy", 7*time.Minute, 8*time.Minute)
		if _, _, err := w.provisionAs(t.Context(), byName); err != nil || len(look(w).Announced) != 20 {
			t.Errorf("one more connection: %v, announced are %d", err, len(look(w).Announced))
		}
		deleted(string(connector.AppInUse), 0, 0)
		w.must(w.store.DeleteConnection(t.Context(), connector.ConnectionRef{App: "default", Name: tenantA}))
		time.Sleep(10 * time.Minute)
		deleted("<nil>", 0, 0)
		if err := w.apps.Delete(t.Context(), "default"); !errors.Is(err, connector.ErrNotFound) {
			t.Errorf("deleting it again: %v", err)
		}
	})
}

// A caller who is beaten tries again, after pauses and not for ever.
func TestRetry(t *testing.T) {
	broken := &connector.StoreError{Code: "broken"}
	for _, tt := range []struct {
		name   string
		beaten int
		err    error
		within time.Duration
		tries  int
		want   string
	}{
		{"never beaten", 0, nil, time.Minute, 1, "<nil>"},
		{"fails", 0, broken, time.Minute, 1, "broken"},
		{"beaten twice", 2, nil, time.Minute, 3, "<nil>"},
		{"always beaten", 100, nil, time.Minute, 6, connector.CodeContended},
		{"always beaten, with a word of the store", 100, broken, time.Minute, 6, "broken"},
		{"no time", 100, nil, 100 * time.Millisecond, 2, "context deadline exceeded"},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), tt.within)
			defer cancel()
			tries := 0
			begin := time.Now()
			err := connector.Retry(ctx, func() (bool, error) { tries++; return tries <= tt.beaten, tt.err })
			least := 25 * time.Millisecond * time.Duration(1<<(tries-1)-1) // half of each pause
			if took := time.Since(begin); fmt.Sprint(err) != tt.want || tries < tt.tries || tries > tt.tries+1 || took < least || took > 3*least && tt.want != "context deadline exceeded" {
				t.Errorf("%s: %v after %d tries in %v", tt.name, err, tries, took)
			}
		})
	}
}
