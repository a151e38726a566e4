//go:build !race

// The Go runtime crashes now and then under the race detector where a bubble selects on a timer's
// channel, as the AWS SDK and x/time/rate do (runtime.(*timer).maybeRunChan). So tests in bubbles
// run without it.

package connector_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/retry"

	"entra-connector/internal/connector"
	"entra-connector/internal/secretstore"
	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/pkg/entra"
	"entra-connector/pkg/entra/entratest"
)

// bubble runs a test in a world on a clock that does not wait.
func bubble(t *testing.T, test func(*testing.T, *world)) {
	synctest.Test(t, func(t *testing.T) { test(t, newWorld(t, setup{bubble: true})) })
}

// slow makes Entra and each page of a listing take some time, and notes when each tenant is asked
// for.
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

// The nearest expiry comes first, whether the last refresh failed or not. At most half of the
// workers are for connections that failed. Those of them that have run out come last, the one tried
// longest ago first.
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
		w.sweep(connector.SweepRequest{})
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

// Nothing is started that could not be finished before the deadline. What hangs to the end is cut
// off, so that the report gets out.
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

// A listing that hangs is given up when nothing may be started any more. What it has shown is
// refreshed meanwhile, and the report says that it is not all.
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

// A shared token is not stored over one that was asked for later, as when a person refreshes a
// connection before the sweep comes to it.
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

// A new credential is proved in up to three tenants, the healthiest first. A proof waits for a new
// secret or a consent to be known, and rides out one failure, as far as its time allows. Each
// tenant has its own waits: a Retry-After is not overrun because another's refusal may settle.
// Where none grants a token, the healthiest one's refusal is the one to act on.
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
	// By hand, a consent may be as young as ever, but not the secret of an app that is older than
	// that.
	for _, tt := range []struct {
		age   time.Duration
		code  int
		asked string
	}{
		{0, noConsent, "[0s 2s]"}, {0, unsettled, "[0s 2s]"}, {time.Hour, noConsent, "[0s 2s]"}, {time.Hour, unsettled, "[0s]"},
	} {
		bubble(t, func(t *testing.T, w *world) {
			w.must(w.put(t.Context(), canary))
			c := w.seed(0, 2*time.Hour, failed(refused))
			time.Sleep(tt.age)
			w.deny("", tt.code, 1)
			asked := w.watch()
			_, err := w.refresher.Refresh(t.Context(), c.ConnectionRef)
			if got := fmt.Sprint(asked[tenant(0)]); got != tt.asked || (err == nil) != (got == "[0s 2s]") {
				t.Errorf("after %s and %d: asked after %s, %v", tt.age, tt.code, got, err)
			}
		})
	}
}

// What does not depend on each other goes out together. At 15 ms a call to AWS and 150 ms to Entra,
// a connection takes this long: the first of a new app, one that is announced on its app, and one
// of many on an app that is known to be busy.
func TestProvisioningTakes(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.secrets.Fail(secretstoretest.Fault{Delay: 15 * time.Millisecond})
		w.entra.Fail(entratest.Fault{Delay: 150 * time.Millisecond})
		var took []time.Duration
		for n := range 40 {
			w.entra.AddTenant(entratest.Tenant{ID: tenant(n)})
			w.entra.Consent(tenant(n), clientID, "User.Read.All")
			f := asked(tenant(n))
			if n > 0 {
				f.AppFields = nil
			}
			begin := time.Now()
			_, _, err := w.provisionAs(t.Context(), f)
			w.must(err)
			took = append(took, time.Since(begin).Round(10*time.Millisecond))
		}
		got := fmt.Sprint(took[0], slices.Compact(took[1:]))
		if want := "240ms [210ms 180ms]"; got != want {
			t.Errorf("provisioning takes %s, want %s", got, want)
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
		}
		for n := range 21 {
			c := connector.Connection{ConnectionRef: connector.ConnectionRef{App: "default", Name: fmt.Sprint("c", n)}}
			w.must(w.store.Announce(t.Context(), look(w), c))
		}
		deleted("DescribeSecret: default/c", time.Minute)
		time.Sleep(2 * time.Minute)
		deleted("ListSecrets: default: busy", 8*time.Minute)
		c, _, err := w.provisionAs(t.Context(), byName)
		w.must(err)
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

// The store keeps about a hundred versions a day. A tenant whose policy turns to tokens too short
// for that gets a warning, and writes slow down before the store refuses them.
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

var (
	simSeed        = flag.Uint64("sim.seed", 1, "what happens by chance in TestFreshness")
	simDays        = flag.Int("sim.days", 0, "how many days of everything TestFreshness lasts; 0: one shift of the most important")
	simConnections = flag.Int("sim.connections", 1000, "how many connections TestFreshness has")
	simVerbose     = flag.Bool("sim.verbose", false, "log every sweep of TestFreshness")
)

// phase is what goes wrong, until everything that can be fresh is fresh again.
type phase string

const (
	ordinary phase = "ordinary"
	rival    phase = "rival"         // other programs use up most of AWS's quota
	hangs    phase = "hanging crowd" // most of the tenants hang
	kills    phase = "killed sweep"
	short    phase = "outage"      // of 15 minutes
	long     phase = "long outage" // longer than any token lives
)

// promised is the least life of a token that a reader may meet in a phase, in minutes, of a
// connection whose tenant has nothing against it.
var promised = map[phase]time.Duration{ordinary: 20, rival: 20, hangs: 20, kills: 15, short: 3}

// The function's defaults, and what Lambda and AWS's answers take.
const (
	window          = 30 * time.Minute
	jitter          = 0.25
	writesPerSecond = 45
	sweepWorkers    = 64 // requests to Entra at a time
	every           = 5 * time.Minute
	lambdaTimeout   = 300 * time.Second
	awsTimeout      = 5 * time.Second
	awsAnswers      = 40 * time.Millisecond
)

// TestFreshness holds the freshness that the README promises against what goes wrong in production.
// A longer run takes longer:
//
//	go test ./internal/connector -run Freshness -v -timeout 0 -sim.days=1 -sim.connections=2000 -sim.seed=2
func TestFreshness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t, *simSeed, *simConnections)
		if *simDays == 0 {
			s.run(s.shift)
		}
		for range *simDays {
			s.run(s.day)
		}
		s.sum()
		for phase, promised := range promised {
			if l := s.least[phase]; l.seen == 0 || l.life < promised*time.Minute {
				t.Errorf("%s: of %d tokens read, one had %v left, promised are %d minutes", phase, l.seen, l.life, promised)
			}
		}
		atQuota := time.Duration(float64(len(s.readers)) / writesPerSecond * float64(time.Second))
		if most := atQuota*11/10 + 10*time.Second; s.recovery > most {
			t.Errorf("after a long outage everything was fresh %v into the next sweep, want %v at most", s.recovery, most)
		}
		// The listing is five minutes behind, so the tenants that have hung once or twice are not
		// known yet. They are fewer than half.
		if most := time.Duration(len(s.readers)/2/sweepWorkers) * 10 * time.Second; s.delay > most {
			t.Errorf("while most tenants hang, another had its token %v into a sweep, want %v at most", s.delay, most)
		}
		if s.needless > 0 {
			t.Errorf("AWS throttled %d calls of sweeps that had the quota to themselves", s.needless)
		}
	})
}

// simulation is the refresh function between an Entra and a Secrets Manager that go wrong when they
// are told to, all of them on the clock of a bubble: the real sweeper, adapter and SDK, with the
// function's defaults, and the stand-in Secrets Manager with AWS's quotas and lists as far behind
// as AWS says.
//
// It sees each token stored, and so the least life that any reader can have seen: a token has the
// least of it when it is replaced. That is exact, where readers of its own would be samples.
type simulation struct {
	*testing.T
	seed    uint64
	rand    *rand.Rand
	begin   time.Time
	slots   int // of the schedule, so far
	secrets *secretstoretest.Server
	running sync.WaitGroup         // invocations
	awake   atomic.Int32           // how many there are
	rivals  atomic.Int32           // writes a second that other programs make meanwhile
	mode    atomic.Pointer[string] // of Entra: "", "503", "slow", "hang", or "crowd": many tenants hang

	mu      sync.Mutex // guards everything below
	idle    []*instance
	readers []reader // by the connection's number
	phase   phase
	ended   time.Time // when what the phase is named after was over; zero before
	mending time.Time // when the first sweep after that began
	least   map[phase]least

	sweeps, doubled, killed, refreshed, requests, calls, throttled int

	together time.Time     // when two sweeps last ran at once
	needless int           // how many calls of a sweep on its own AWS throttled
	delay    time.Duration // the furthest into a sweep that a token was stored while most tenants hang
	recovery time.Duration // the same after a long outage
}

// reader is what a reader of one connection gets.
type reader struct {
	expires, stored time.Time
	requests        int // to Entra, for its tokens
}

// least is the smallest life of a token that was seen in a phase.
type least struct {
	life, at         time.Duration // at: since the beginning
	connection, seen int           // seen: how many tokens were
}

// kind is how a tenant behaves, for good.
type kind int

const (
	steady kind = iota
	crowd       // hangs together with many others, for hours
	refusing
	hanging
	throttled // every other request, for 1 to 20 minutes
)

func kindOf(n int) kind {
	switch {
	case n%50 < 3:
		return refusing + kind(n%50)
	case n%4 == 3:
		return steady
	}
	return crowd
}

// numberOf returns the number at the end of a tenant's GUID, which is also the end of a secret's
// name.
func numberOf(name string) int {
	n, _ := strconv.Atoi(name[strings.LastIndexByte(name, '-')+1:])
	return n
}

// chance is a number that depends on nothing but the seed and what is given. So it does not matter
// in which order goroutines ask for it.
func (s *simulation) chance(of ...int) uint64 {
	h := fnv.New64a()
	fmt.Fprint(h, s.seed, of)
	return h.Sum64()
}

// pause reports why it ended early, if it did.
func pause(ctx context.Context, d time.Duration) error {
	ended, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-ended.Done()
	return ctx.Err()
}

// newSimulation has so many connections, provisioned one after the other as fast as AWS allows.
func newSimulation(t *testing.T, seed uint64, connections int) *simulation {
	s := &simulation{T: t, seed: seed, readers: make([]reader, connections), least: make(map[phase]least), phase: ordinary}
	s.set("")
	s.secrets, _ = secretstoretest.New(secretstoretest.Options{Quotas: secretstoretest.AWSQuotas, ListLag: 5 * time.Minute})
	store := s.newInstance().store
	if _, err := store.CreateApp(t.Context(), app); err != nil {
		t.Fatal(err)
	}
	for n := range connections {
		token := entra.Token{
			TenantID: tenant(n), Type: "Bearer", AccessToken: entra.NewSecret("first"),
			ExpiresIn: int64(3600 + s.chance(n)%1801), RequestedAt: time.Now(),
		}
		if _, err := store.CreateConnection(t.Context(), seeded(n, token, nil), token); err != nil {
			t.Fatal(err)
		}
		s.readers[n] = reader{expires: token.ExpiresAt(), stored: time.Now()}
	}
	s.begin = time.Now()
	return s
}

func (s *simulation) set(mode string) { s.mode.Store(&mode) }

// entra is as much of Entra as a token request sees, with tokens that live 60 to 90 minutes.
func (s *simulation) entra(r *http.Request) (*http.Response, error) {
	n := numberOf(strings.Split(r.URL.Path, "/")[1])
	s.mu.Lock()
	s.requests++
	s.readers[n].requests++
	nth := s.readers[n].requests
	s.mu.Unlock()
	chance, mode, of := s.chance(n, nth), *s.mode.Load(), kindOf(n)
	takes := 100*time.Millisecond + time.Duration(chance>>32%300)*time.Millisecond
	if mode == "hang" || of == hanging || mode == "crowd" && of == crowd {
		takes = time.Hour
	} else if mode == "slow" {
		takes = 8 * time.Second
	}
	if err := pause(r.Context(), takes); err != nil {
		return nil, err
	}
	status, body, retryAfter := 200, fmt.Sprintf(`{"token_type":"Bearer","expires_in":%d,"access_token":"opaque"}`, 3600+chance%1801), uint64(0)
	switch {
	case mode == "503":
		status, body, retryAfter = 503, `unavailable`, chance%2*(chance%120)
	case of == refusing:
		status, body = 401, `{"error":"invalid_client","error_codes":[7000222]}`
	case of == throttled && nth%2 == 0:
		status, body, retryAfter = 429, `throttled`, 60+chance%1140
	}
	header := http.Header{"Content-Type": {"application/json"}, "Retry-After": {fmt.Sprint(retryAfter)}}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

// instance is one of Lambda's. It runs one sweep at a time, and what it has learned of AWS's
// throttling lasts as long as it does.
type instance struct {
	*simulation
	store   *secretstore.Store
	sweeper connector.Sweeper
	began   time.Time // its sweep
	kill    context.CancelFunc
	writes  atomic.Int32 // after how many more it is killed; negative: never
}

func (s *simulation) newInstance() *instance {
	i := &instance{simulation: s}
	i.writes.Store(-1)
	i.store = openStore(&http.Client{Transport: roundTripper(i.aws), Timeout: awsTimeout}, retry.DefaultMaxAttempts, writesPerSecond)
	i.sweeper = connector.Sweeper{
		Store: i.store, Window: window, Jitter: jitter, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Entra: entra.NewClient(entra.ClientConfig{Transport: roundTripper(s.entra)}),
	}
	return i
}

// aws is the way to Secrets Manager and back. The simulation sees a call at the moment at which it
// takes effect, whatever becomes of the answer.
func (i *instance) aws(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".UpdateSecret") && i.writes.Load() >= 0 && i.writes.Add(-1) < 0 {
		i.kill()
	}
	if err := pause(r.Context(), awsAnswers/2); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	response, err := inMemory(i.secrets)(r)
	i.saw(i.began, body, response)
	if ended := pause(r.Context(), awsAnswers/2); ended != nil {
		return nil, ended
	}
	return response, err
}

// saw takes note of a call to Secrets Manager, and of the token that it may have stored.
func (s *simulation) saw(began time.Time, request []byte, response *http.Response) {
	var in struct{ SecretId, SecretString string }
	json.Unmarshal(request, &in)
	_, name, _ := strings.Cut(in.SecretId, ":secret:")
	name = name[:max(0, len(name)-len("-AbCdEf"))]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if response != nil && response.StatusCode == 400 {
		answer, _ := io.ReadAll(response.Body)
		response.Body = io.NopCloser(bytes.NewReader(answer))
		if bytes.Contains(answer, []byte("ThrottlingException")) {
			s.sawThrottling()
		}
	}
	if value, _ := s.secrets.Value(name); in.SecretString != "" && value == in.SecretString {
		n := numberOf(name)
		s.see(n)
		s.refreshed++
		var token map[string]string
		json.Unmarshal([]byte(value), &token)
		expires, _ := strconv.ParseInt(token[entra.KeyExpiresAt], 10, 64)
		s.readers[n].expires, s.readers[n].stored = time.Unix(expires, 0), time.Now()
		if s.phase == hangs && kindOf(n) == steady {
			s.delay = max(s.delay, time.Since(began))
		}
	}
}

// sawThrottling counts what AWS throttles of a sweep that has the quota to itself.
func (s *simulation) sawThrottling() {
	s.throttled++
	if s.awake.Load() > 1 {
		s.together = time.Now()
	}
	if s.phase == ordinary && time.Since(s.together) > 2*time.Second {
		s.needless++
	}
}

// see takes into account what a reader of a connection sees now, if its tenant has nothing against
// it. The crowd has, until it is fresh again.
func (s *simulation) see(n int) {
	if of := kindOf(n); of != steady && (of != crowd || s.phase == hangs) {
		return
	}
	l, seen := s.least[s.phase]
	if life := time.Until(s.readers[n].expires); !seen || life < l.life {
		l.life, l.connection, l.at = life, n, time.Since(s.begin)
	}
	l.seen++
	s.least[s.phase] = l
}

// enter begins a phase.
func (s *simulation) enter(phase phase) {
	for n := range s.readers {
		s.see(n)
	}
	s.phase, s.ended, s.mending = phase, time.Time{}, time.Time{}
}

// over says that what the phase is named after is over. A sweep that begins afterwards ends the
// phase, when its effects are over as well: see settle.
func (s *simulation) over() { s.ended = time.Now() }

// locked is for what the schedule does.
func (s *simulation) locked(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
}

// invoke runs a sweep as Lambda does: in an instance that is idle or else in a new one, and not for
// longer than its timeout. The process is killed when it has made so many writes, unless that is
// negative.
func (s *simulation) invoke(killAfter int) {
	s.mu.Lock()
	s.sweeps++
	var i *instance
	if last := len(s.idle) - 1; last >= 0 {
		i, s.idle = s.idle[last], s.idle[:last]
	} else {
		i = s.newInstance()
	}
	i.writes.Store(int32(killAfter))
	i.began = time.Now()
	if !s.ended.IsZero() && s.mending.IsZero() {
		s.mending = i.began
	}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(s.Context(), lambdaTimeout)
	i.kill = cancel
	s.secrets.ResetCalls() // or they would fill the memory
	s.awake.Add(1)
	s.running.Go(func() {
		defer s.awake.Add(-1)
		defer cancel()
		report, err := i.sweeper.Sweep(ctx, connector.SweepRequest{})
		took := time.Since(i.began)
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case errors.Is(ctx.Err(), context.Canceled):
			s.killed++
			return
		case took >= lambdaTimeout:
			s.Errorf("a sweep took %v, and would have been cut off", took)
			return
		}
		s.idle = append(s.idle, i)
		report.Failures, report.Apps = nil, nil
		s.logf("sweep took %v: %+v, %v", took.Round(time.Millisecond), report, err)
		if !s.ended.IsZero() && i.began.After(s.ended) {
			s.settle(took)
		}
	})
	if n := s.rivals.Load(); n > 0 && s.awake.Load() == 1 {
		s.running.Go(func() { s.write(time.Second / time.Duration(n)) })
	}
}

// write is what rivals do for as long as a sweep is running, which is when it matters. All that
// this does is to use up the quota.
func (s *simulation) write(every time.Duration) {
	for s.awake.Load() > 0 {
		r, _ := http.NewRequestWithContext(s.Context(), "POST", "http://aws.invalid/", strings.NewReader("{}"))
		r.Header = http.Header{"X-Amz-Target": {"secretsmanager.UpdateSecret"}, "Content-Type": {"application/x-amz-json-1.1"},
			"Authorization": {"AWS4-HMAC-SHA256 Credential=rival/"}}
		inMemory(s.secrets)(r)
		time.Sleep(every)
	}
}

// settle ends the phase, unless the sweep that took so long has left something that could be
// fresher.
func (s *simulation) settle(took time.Duration) {
	var last time.Time
	stale := 0
	for n, r := range s.readers {
		if of := kindOf(n); of != steady && of != crowd {
			continue
		}
		if time.Until(r.expires) < window-took-time.Second {
			stale++
		}
		if r.stored.After(last) {
			last = r.stored
		}
	}
	if stale > 0 {
		s.logf("that leaves %d connections stale", stale)
		return
	}
	if s.phase == long || s.phase == hangs {
		s.recovery = max(s.recovery, last.Sub(s.mending))
	}
	if s.enter(ordinary); s.rivals.Load() > 0 {
		s.phase = rival
	}
}

func (s *simulation) logf(format string, args ...any) {
	if *simVerbose {
		s.Logf("%10v %-13s "+format, append([]any{time.Since(s.begin).Round(time.Second), s.phase}, args...)...)
	}
}

// sum logs what happened.
func (s *simulation) sum() {
	s.Logf("seed %d: %.1f days, %d connections, %d sweeps (%d doubled, %d killed), %d refreshes, %d requests to Entra, %d calls to AWS (%d throttled)",
		s.seed, time.Since(s.begin).Hours()/24, len(s.readers), s.sweeps, s.doubled, s.killed, s.refreshed, s.requests, s.calls, s.throttled)
	for _, phase := range slices.Sorted(maps.Keys(s.least)) {
		l := s.least[phase]
		s.Logf("%-14s least life %v, of %d (connection %d, at %v)", phase, l.life.Round(time.Millisecond), l.seen, l.connection, l.at.Round(time.Second))
	}
	s.Logf("at most %v into a sweep for a token while most tenants hang, and %v until all are fresh after a long outage", s.delay, s.recovery)
}

// shift is the most important of what a day has, in nine hours.
func (s *simulation) shift() {
	s.quiet(8)
	s.killedSweep(0)
	s.lasting(short, entraFails, 3)
	s.lasting(short, awsThrottles, 3)
	s.withRivals(func() {
		s.quiet(4)
		s.killedSweep(20)
	})
	s.lasting(hangs, entraIs("crowd"), 12)
	s.lasting(long, allFails, 20)
}

// day has everything, in whatever order.
func (s *simulation) day() {
	first := s.slots
	s.quiet(8)
	lasts := []trouble{entraIs("hang"), awsFails, awsThrottles, awsHangs, allFails}[s.rand.IntN(5)]
	acts := []func(){
		func() { s.killedSweep(0) },
		func() { s.killedSweep(s.rand.IntN(20)) },
		func() { s.killedSweep(s.rand.IntN(200)) },
		func() {
			s.withRivals(func() {
				s.quiet(8)
				s.killedSweep(0)
				s.killedSweep(s.rand.IntN(20))
				s.lasting(short, entraFails, 3)
				s.quiet(8)
			})
		},
		func() { s.lasting(hangs, entraIs("crowd"), 24) },
		func() { s.lasting(long, lasts, 24) },
	}
	for _, t := range []trouble{entraFails, entraIs("hang"), awsFails, awsThrottles, awsHangs, awsHas(secretstoretest.Fault{Op: "UpdateSecret", After: true})} {
		acts = append(acts, func() { s.lasting(short, t, 3) })
	}
	s.rand.Shuffle(len(acts), func(i, j int) { acts[i], acts[j] = acts[j], acts[i] })
	for _, act := range acts {
		act()
	}
	s.quiet(24*60/5 - (s.slots - first))
}

// trouble begins, and ends what it began.
type trouble struct{ begin, end func(*simulation) }

var (
	awsFails     = awsHas(secretstoretest.Fault{Error: "InternalServiceError"})
	awsThrottles = awsHas(secretstoretest.Fault{Error: "ThrottlingException"})
	awsHangs     = awsHas(secretstoretest.Fault{Delay: time.Hour})

	// entraFails has Entra slow for ten minutes more.
	entraFails = trouble{entraIs("503").begin, func(s *simulation) {
		s.set("slow")
		time.AfterFunc(10*time.Minute, func() { s.set("") })
	}}

	// allFails has Secrets Manager back after 95 minutes.
	allFails = trouble{func(s *simulation) {
		awsFails.begin(s)
		s.set("503")
		time.AfterFunc(95*time.Minute, s.secrets.ClearFaults)
	}, entraIs("").end}
)

func entraIs(mode string) trouble {
	return trouble{func(s *simulation) { s.set(mode) }, func(s *simulation) { s.set("") }}
}

func awsHas(f secretstoretest.Fault) trouble {
	return trouble{func(s *simulation) { s.secrets.Fail(f) }, func(s *simulation) { s.secrets.ClearFaults() }}
}

// settles is how many slots of the schedule there are between two troubles.
const settles = 9

// sleepTo sleeps until so long after the next slot of the schedule.
func (s *simulation) sleepTo(late time.Duration) {
	time.Sleep(time.Until(s.begin.Add(time.Duration(s.slots)*every + late)))
}

// tick is the next event of the schedule.
func (s *simulation) tick(late time.Duration, killAfter int) {
	s.sleepTo(late)
	s.slots++
	s.invoke(killAfter)
}

// quiet is so many events of the schedule. EventBridge Scheduler comes within a minute, and at
// least once.
func (s *simulation) quiet(slots int) {
	for range slots {
		s.tick(time.Duration(s.rand.IntN(60_000))*time.Millisecond, -1)
		if s.rand.IntN(10) == 0 {
			time.Sleep(time.Duration(s.rand.IntN(2000)) * time.Millisecond)
			s.doubled++
			s.invoke(-1)
		}
	}
}

// killedSweep loses a sweep: the one before was early, the one after is late.
func (s *simulation) killedSweep(writes int) {
	s.tick(0, -1)
	s.sleepTo(time.Minute - 1)
	s.locked(func() { s.enter(kills) })
	s.tick(time.Minute, writes)
	time.Sleep(time.Nanosecond)
	s.locked(s.over)
	s.tick(time.Minute, -1)
	s.quiet(settles - 3)
}

// lasting lasts so many slots, with as many sweeps in it as can be: the one before was early, the
// first in it is late, the last in it is early, and the one after it is late.
func (s *simulation) lasting(phase phase, what trouble, slots int) {
	s.tick(0, -1)
	s.sleepTo(time.Minute - time.Second)
	s.locked(func() { s.enter(phase) })
	what.begin(s)
	s.tick(time.Minute, -1)
	s.quiet(slots - 1)
	s.tick(0, -1)
	s.sleepTo(time.Minute - time.Second - every)
	what.end(s)
	s.locked(s.over)
	s.tick(time.Minute, -1)
	s.quiet(settles - 3)
}

// withRivals lets other programs make 30 of the 50 writes a second meanwhile.
func (s *simulation) withRivals(meanwhile func()) {
	s.sleepTo(0)
	s.rivals.Store(30)
	s.locked(func() { s.enter(rival) })
	meanwhile()
	s.sleepTo(0)
	s.rivals.Store(0)
	s.locked(func() { s.enter(ordinary) })
}

// run runs a program, and waits for its last sweep.
func (s *simulation) run(program func()) {
	s.rand = rand.New(rand.NewPCG(s.seed, uint64(s.slots)))
	program()
	s.sleepTo(0)
	s.running.Wait()
	if s.phase != ordinary {
		s.Errorf("the effects of the %s last to the end", s.phase)
	}
	s.enter(ordinary)
}
