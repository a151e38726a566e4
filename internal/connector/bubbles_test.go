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
			{"unknown", workers / 2, 0, 0, 1 * time.Second, nil},
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
				if c := w.seed(n, group.left, f); group.left == 0 {
					w.secrets.Edit(c.SecretName, func(x *secretstoretest.Secret) { x.Description = "" })
				}
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
// that the report gets out.
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

// A new credential is proved in up to three tenants, the healthiest first. A proof waits for a new secret or
// a consent to be known, and rides out one failure, as far as its time allows. Each tenant has its own
// waits: a Retry-After is not overrun because another's refusal may settle. Where none grants a token, the
// healthiest one's refusal is the one to act on.
func TestProofs(t *testing.T) {
	const unsettled, noConsent, passing = 7000215, 7000229, 90033
	answers := func(times, code int) []entratest.Response {
		return slices.Repeat([]entratest.Response{entratest.Refused(code)}, times)
	}
	refuses, wrong := answers(9, refusedAtOnce), answers(9, unsettled)
	all := func(many int, status connector.Status) []connector.Status {
		return slices.Repeat([]connector.Status{status}, many)
	}
	for _, tt := range []struct {
		name    string
		has     []connector.Status // its connections, from tenant 1
		junk    int                // empty pages before them
		answers [][]entratest.Response
		within  time.Duration // seconds
		asked   string        // tenants, and after how many seconds
		pages   int
		code    string
	}{
		{"none", nil, 0, nil, 24, "", 1, ""},
		{"one is enough", all(3, ok), 0, nil, 24, "1@0", 1, ""},
		{"the second of them", all(3, ok), 0, [][]entratest.Response{refuses}, 24, "1@0 2@0", 1, ""},
		{"healthiest first", []connector.Status{refused, retrying, ok}, 0, [][]entratest.Response{refuses, answers(9, 53003), answers(9, 50194)}, 24, "3@0 2@0 1@0", 1, "AADSTS50194"},
		{"three at most", all(5, ok), 0, [][]entratest.Response{refuses, refuses, refuses}, 24, "1@0 2@0 3@0", 1, "AADSTS7000112"},
		{"unreadable", []connector.Status{spoiled, refused}, 0, nil, 24, "2@0", 1, ""},
		{"only unreadable", all(1, spoiled), 0, nil, 24, "", 1, ""},
		{"after a page of refused", append(all(100, refused), ok), 0, nil, 24, "101@0", 2, ""},
		{"after a page of unreadable", append(all(100, spoiled), ok), 0, nil, 24, "101@0", 2, ""},
		{"after an empty page", all(1, retrying), 1, nil, 24, "1@0", 2, ""},
		{"three on the first page", append(all(3, ok), all(100, refused)...), 0, nil, 24, "1@0", 1, ""},
		{"two on the first page", append(all(2, ok), all(100, refused)...), 0, nil, 24, "1@0", 2, ""},
		{"no end of pages", all(1, ok), 10, nil, 24, "", 10, ""},

		{"known after a refusal", all(1, ok), 0, [][]entratest.Response{answers(1, unsettled)}, 24, "1@0 1@2", 1, ""},
		{"known after three", all(1, ok), 0, [][]entratest.Response{answers(3, unsettled)}, 24, "1@0 1@2 1@6 1@14", 1, ""},
		{"consent known after two", all(1, ok), 0, [][]entratest.Response{answers(2, noConsent)}, 24, "1@0 1@2 1@6", 1, ""},
		{"stays wrong", all(1, ok), 0, [][]entratest.Response{wrong}, 24, "1@0 1@2 1@6 1@14", 1, "AADSTS7000215"},
		{"no time", all(1, ok), 0, [][]entratest.Response{wrong}, 4, "1@0", 1, "AADSTS7000215"},
		{"no time for the next", all(1, ok), 0, [][]entratest.Response{wrong}, 8, "1@0 1@2", 1, "AADSTS7000215"},
		{"passes once", all(1, ok), 0, [][]entratest.Response{answers(1, passing)}, 24, "1@0 1@5", 1, ""},
		{"does not pass", all(1, ok), 0, [][]entratest.Response{answers(9, passing)}, 24, "1@0 1@5", 1, "AADSTS90033"},
		{"throttled", all(1, ok), 0, [][]entratest.Response{{entratest.Throttled("12")}}, 24, "1@0 1@12", 1, ""},
		{"throttled for too long", all(1, ok), 0, [][]entratest.Response{{entratest.Throttled("60")}}, 24, "1@0", 1, "throttled"},
		{"throttled for less than the pause", all(1, ok), 0, [][]entratest.Response{{entratest.Throttled("1")}}, 24, "1@0 1@5", 1, ""},
		{"malformed", all(1, ok), 0, [][]entratest.Response{{entratest.HTML(200)}}, 24, "1@0", 1, "invalid_response"},
		{"all wrong", all(2, ok), 0, [][]entratest.Response{wrong, answers(9, noConsent)}, 24, "1@0 2@0 1@2 2@2 1@6 2@6 1@14 2@14", 1, "AADSTS7000215"},
		{"a Retry-After beside refusals", all(2, ok), 0, [][]entratest.Response{wrong, {entratest.Throttled("10")}}, 24, "1@0 2@0 1@2 1@6 2@10", 1, ""},
		{"a passing failure beside refusals", all(2, ok), 0, [][]entratest.Response{answers(9, passing), wrong}, 24, "1@0 2@0 2@2 1@5 2@6 2@14", 1, "AADSTS90033"},
	} {
		bubble(t, func(t *testing.T, w *world) {
			w.must(w.put(t.Context(), canary))
			for n, status := range tt.has {
				var f *connector.Failure
				if status == retrying || status == refused {
					f = failed(status)
				}
				if c := w.seed(n+1, time.Hour, f); status == spoiled {
					w.spoil(c)
				}
			}
			w.junk("0", tt.junk)
			for n, answers := range tt.answers {
				for _, answer := range answers {
					w.entra.Fail(entratest.Fault{Tenant: tenant(n + 1), Times: 1, Response: answer})
				}
			}
			var asked []string
			begin := time.Now()
			w.asking = func(tenant string) {
				asked = append(asked, fmt.Sprintf("%d@%.0f", numberOf(tenant), time.Since(begin).Seconds()))
			}
			w.secrets.ResetCalls()
			ctx, cancel := context.WithTimeout(t.Context(), tt.within*time.Second)
			defer cancel()
			err := w.put(ctx, rotated)
			if strings.Join(asked, " ") != tt.asked || w.secrets.Count("ListSecrets") != tt.pages || err == nil != (tt.code == "") || err != nil && codeOf(err) != tt.code {
				t.Errorf("%s: asked %v after %d pages, %v, want %s after %d, %q", tt.name, asked, w.secrets.Count("ListSecrets"), err, tt.asked, tt.pages, tt.code)
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
	hold := func(w *world) func(context.Context) {
		release, err := w.store.Hold(w.t.Context(), look(w))
		w.must(err)
		return release
	}
	// during does something while the first token is asked for.
	during := func(do func(*world)) func(*world) {
		return func(w *world) { w.asking = func(string) { w.asking = nil; do(w) } }
	}
	rotates := during(func(w *world) { w.must(w.put(w.t.Context(), rotated)) })
	deletes := during(func(w *world) { w.must(w.apps.Delete(w.t.Context(), "default")) })
	other := *asked("").AppFields
	other.ClientID = tenantB
	for _, tt := range []struct {
		name    string
		request connector.ProvisionFields
		happen  func(*world)
		want    string
		secret  int // with which the last token was asked for
	}{
		{"nothing", byName, func(*world) {}, "<nil>", 0},
		{"the app is held", byName, func(w *world) { hold(w) }, "TagResource: default: busy", 0},
		{"the app is held for a moment", byName, func(w *world) {
			release := hold(w)
			time.AfterFunc(500*time.Millisecond, func() { release(w.t.Context()) })
		}, "<nil>", 0},
		{"somebody held the app and died", byName, func(w *world) { hold(w); time.Sleep(2 * time.Minute) }, "<nil>", 0},
		{"rotated after the proof", byName, rotates, "<nil>", 1},
		{"deleted after the proof", byName, deletes, `app "default": not found`, 0},
		{"rotated after the proof, and given again", asked(tenantA), rotates, "<nil>", 0},
		{"deleted after the proof, and given again", asked(tenantA), deletes, "<nil>", 0},
		{"another app after the proof", asked(tenantA), during(func(w *world) {
			w.must(w.apps.Delete(w.t.Context(), "default"))
			w.must(w.putAs(w.t.Context(), "default", other))
		}), string(connector.OtherApp), 0},
		{"another app before a new one", asked(tenantA), func(w *world) {
			w.must(w.apps.Delete(w.t.Context(), "default"))
			during(func(w *world) { w.must(w.putAs(w.t.Context(), "default", other)) })(w)
		}, string(connector.OtherApp), 0},
	} {
		bubble(t, func(t *testing.T, w *world) {
			w.must(w.put(t.Context(), canary))
			tt.happen(w)
			_, _, err := w.provisionAs(t.Context(), tt.request)
			requests := w.entra.Requests()
			if last := requests[len(requests)-1].SecretIndex; fmt.Sprint(err) != tt.want || last != tt.secret {
				t.Errorf("%s: %v, want %s; the last token was asked for with secret %d", tt.name, err, tt.want, last)
			}
			want := report{Checked: 1}
			if err != nil {
				want = report{}
			}
			w.expect(tt.name+", afterwards", want)
		})
	}

	// Whoever deletes the app waits for what is announced, and lets others go on.
	bubble(t, func(t *testing.T, w *world) {
		w.must(w.put(t.Context(), canary))
		deleted := func(want string, retryAfter time.Duration) {
			t.Helper()
			err := w.apps.Delete(t.Context(), "default")
			busy := new(connector.StoreError)
			if errors.As(err, &busy); !strings.HasPrefix(fmt.Sprint(err), want) || busy.RetryAfter.Round(time.Minute) != retryAfter {
				t.Errorf("deleting the app: %v, retry after %v, want %q after %v", err, busy.RetryAfter, want, retryAfter)
			}
			if want != "<nil>" && look(w).Held {
				t.Error("the app is still held")
			}
		}
		for n := range 21 {
			c := connector.Connection{ConnectionRef: connector.ConnectionRef{App: "default", Name: fmt.Sprint("c", n)}}
			w.must(w.store.Announce(t.Context(), look(w), c))
		}
		deleted("DescribeSecret: entra/connections/default/c", time.Minute)
		time.Sleep(2 * time.Minute)
		deleted("deleting app: default: busy", 8*time.Minute)
		c, _, err := w.provisionAs(t.Context(), byName)
		if w.must(err); len(look(w).Announced) != 20 {
			t.Errorf("announced are %d", len(look(w).Announced))
		}
		deleted(string(connector.AppInUse), 0)
		w.must(w.store.DeleteConnection(t.Context(), c.ConnectionRef))
		time.Sleep(10 * time.Minute)
		deleted("<nil>", 0)
		w.must(w.put(t.Context(), canary))
		w.seed(1, time.Hour, nil)
		w.asking = func(string) {
			if !look(w).Held {
				t.Error("the app is not held while it is proved")
			}
		}
		if w.must(w.put(t.Context(), rotated)); look(w).Held {
			t.Error("the app is held for ever")
		}
		w.must(w.store.DeleteConnection(t.Context(), connector.ConnectionRef{App: "default", Name: tenant(1)}))
		w.secrets.Fail(secretstoretest.Fault{Op: "TagResource", Secret: "entra/apps/default", Times: 1, Delay: 1}) // the hold goes through
		w.secrets.Fail(secretstoretest.Fault{Op: "TagResource", Secret: "entra/apps/default", Times: 1, After: true})
		for _, want := range []string{"TagResource: entra/apps/default: unreachable", "<nil>", "not found"} { // a deletion that breaks off is finished
			if err := w.apps.Delete(t.Context(), "default"); fmt.Sprint(err) != want {
				t.Errorf("deleting the app: %v, want %s", err, want)
			}
		}
	})
}

// The store keeps about a hundred versions a day. A tenant whose policy turns to tokens too short for
// that gets a warning, and writes slow down before the store refuses them.
func TestShortLivedTokens(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		c := w.provision(tenantA)
		w.entra.Fail(entratest.Fault{Response: entratest.Lifetime(600)})
		w.sweep(force)
		if got := w.connection(c.ConnectionRef).Warnings; !slices.Equal(got, []string{connector.WarnShortLived}) {
			t.Errorf("warnings %v", got)
		}
		var all report
		for range 24 * 12 {
			w.advance(5*time.Minute + time.Second)
			r := w.sweep(connector.SweepRequest{})
			all.Failed, all.Refreshed, all.Waiting = all.Failed+r.Failed, all.Refreshed+r.Refreshed, all.Waiting+r.Waiting
		}
		if all.Failed > 0 || all.Refreshed < 80 || all.Refreshed > 98 || all.Refreshed+all.Waiting != 24*12 {
			t.Errorf("in a day: %d refreshed, %d waiting, %d failed", all.Refreshed, all.Waiting, all.Failed)
		}
	})
}

// A caller who is beaten tries again, after pauses and not for ever.
func TestRetry(t *testing.T) {
	broken := &connector.StoreError{Code: "broken"}
	for _, tt := range []struct {
		beaten int
		err    error
		within time.Duration
		tries  int
		want   string
	}{
		{0, nil, time.Minute, 1, "<nil>"},
		{0, broken, time.Minute, 1, "broken"},
		{2, nil, time.Minute, 3, "<nil>"},
		{100, nil, time.Minute, 6, connector.CodeContended},
		{100, broken, time.Minute, 6, "broken"},
		{100, nil, 24 * time.Millisecond, 1, "context deadline exceeded"},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), tt.within)
			defer cancel()
			tries, begin := 0, time.Now()
			err := connector.Retry(ctx, func() (bool, error) { tries++; return tries <= tt.beaten, tt.err })
			pauses := 50 * time.Millisecond * time.Duration(1<<(tries-1)-1) // each from a half to one and a half times as long
			if took := time.Since(begin); fmt.Sprint(err) != tt.want || tries != tt.tries || took < pauses/2 || took > pauses*3/2+24*time.Millisecond {
				t.Errorf("%+v: %v after %d tries in %v", tt, err, tries, took)
			}
		})
	}
}
