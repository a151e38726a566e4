package connector_test

import (
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"entra-connector/internal/connector"

	"entra-connector/pkg/entra"
)

// slowEntra answers after a while, of the bubble's time, and remembers when each
// tenant was asked for. What takes for ever ends with its request.
type slowEntra struct {
	takes   time.Duration
	refuses bool

	mu    sync.Mutex
	begin time.Time
	asked map[string]time.Duration // by tenant, from the beginning
}

func (s *slowEntra) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.asked[strings.Split(r.URL.Path, "/")[1]] = time.Since(s.begin)
	s.mu.Unlock()
	select {
	case <-r.Context().Done():
		return nil, r.Context().Err()
	case <-time.After(s.takes):
	}
	status, body := 200, `{"token_type":"Bearer","expires_in":3599,"access_token":"opaque"}`
	if s.refuses {
		status, body = 401, `{"error":"invalid_client","error_codes":[7000222]}`
	}
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

// sweepOf runs a sweep over the store within a time and reports how long it took.
func (s *slowEntra) sweepOf(t *testing.T, store *shelf, within time.Duration) (connector.SweepReport, time.Duration, error) {
	t.Helper()
	store.app = (&world{}).app()
	s.begin, s.asked = time.Now(), make(map[string]time.Duration)
	sweeper := connector.Sweeper{
		Store: store, Window: 30 * time.Minute, Jitter: 1. / 4, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Entra: entra.NewClient(entra.ClientConfig{Transport: s}),
	}
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	report, err := sweeper.Sweep(ctx, connector.SweepRequest{})
	return report, time.Since(s.begin), err
}

// The nearest expiry comes first, whether the last refresh failed or not. Only
// half of the workers are for those that failed; and those of them that have run
// out or need a person come last, the one tried longest ago first.
func TestSweepTakesTheMostUrgentFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const workers = 64
		begin := time.Now()
		groups := []struct {
			name    string
			many    int
			expires time.Duration // from now
			failed  time.Duration // ago; 0: healthy
			asked   time.Duration // after the sweep's beginning
		}{
			{"all that is listed at first", workers, 20 * time.Minute, 0, 0},
			{"failed, nearest to their expiry", workers / 2, time.Minute, time.Hour, 1 * time.Second},
			{"healthy, near their expiry", workers / 2, 2 * time.Minute, 0, 1 * time.Second},
			{"failed, near their expiry", workers / 2, 3 * time.Minute, time.Hour, 2 * time.Second},
			{"failed, too many at a time", workers / 2, 4 * time.Minute, time.Hour, 3 * time.Second},
			{"healthy, in their place", workers / 2, 5 * time.Minute, 0, 2 * time.Second},
			{"healthy, far from their expiry", workers / 2, 6 * time.Minute, 0, 3 * time.Second},
			{"run out, tried long ago", workers / 2, -time.Minute, 3 * time.Hour, 4 * time.Second},
			{"run out, tried lately", workers / 2, -time.Hour, time.Hour, 5 * time.Second},
		}
		var pages [][]connector.Connection
		var rest []connector.Connection
		for i, group := range groups {
			var page []connector.Connection
			for n := range group.many {
				c := numbered(100*i+n, connector.StatusOK)
				c.ExpiresAt, c.Lifetime = begin.Add(group.expires), time.Hour
				if group.failed > 0 {
					c.Failure = &connector.Failure{Status: connector.StatusRetrying, Code: "timeout", At: begin.Add(-group.failed)}
				}
				page = append(page, c)
			}
			if i == 0 {
				pages = append(pages, page)
			} else {
				rest = append(rest, page...)
			}
		}
		rand.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
		pages = slices.AppendSeq(pages, slices.Chunk(rest, 100))
		slow := &slowEntra{takes: time.Second}
		// The second page comes while the workers are busy with the first.
		report, _, err := slow.sweepOf(t, &shelf{pages: pages, pageTakes: time.Millisecond}, 10*time.Minute)
		if err != nil || report.Refreshed != workers+len(rest) {
			t.Fatalf("report %+v, %v", report, err)
		}
		for i, group := range groups {
			for n := range group.many {
				if got := slow.asked[tenant(100*i+n)].Truncate(time.Second); got != group.asked {
					t.Errorf("%s: one was asked for after %v, want %v", group.name, got, group.asked)
				}
			}
		}
	})
}

// Refreshing does not wait for the listing, but for those that come last.
func TestSweepRefreshesWhileItLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		healthy, refused := numberedFrom(0, 100, connector.StatusOK), numberedFrom(100, 100, connector.StatusRefused)
		slow := &slowEntra{takes: time.Second}
		_, took, err := slow.sweepOf(t, &shelf{pages: [][]connector.Connection{refused, healthy, nil, nil}, pageTakes: 10 * time.Second}, 10*time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := slow.asked[tenant(0)].Truncate(10*time.Second), 20*time.Second; got != want {
			t.Errorf("a healthy one of the second page was asked for after %v, want %v", got, want)
		}
		if got, want := slow.asked[tenant(100)].Truncate(10*time.Second), 40*time.Second; got != want {
			t.Errorf("a refused one of the first page was asked for after %v, want %v", got, want)
		}
		if want := 44 * time.Second; took != want { // four times 32 at most
			t.Errorf("took %v, want %v", took, want)
		}
	})
}

// Nothing is started that could not be finished before the deadline, and what
// hangs to the end is cut off, so that the report gets out.
func TestSweepLeavesTimeToFinish(t *testing.T) {
	for _, tt := range []struct {
		within           time.Duration
		failed, deferred int
		last, took       time.Duration
	}{
		// Each request hangs for its ten seconds.
		{2 * time.Minute, 11 * 64, 1000 - 11*64, 100 * time.Second, 110 * time.Second},
		{114 * time.Second, 10 * 64, 1000 - 10*64, 90 * time.Second, 100 * time.Second},
		{20 * time.Second, 64, 1000 - 64, 10 * time.Second, 19 * time.Second}, // the second 64 are cut off
		{8 * time.Second, 0, 1000, 0, 7600 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			all := numberedFrom(0, 1000, connector.StatusOK)
			slow := &slowEntra{takes: time.Hour}
			report, took, err := slow.sweepOf(t, &shelf{pages: slices.Collect(slices.Chunk(all, 100))}, tt.within)
			if err != nil || report.Failed != tt.failed || report.Deferred != tt.deferred || report.Due != 1000 || report.Health.Healthy != 1000 {
				t.Errorf("within %v: %d failed, %d deferred, %d due, %d healthy, %v, want %d, %d, 1000, 1000", tt.within,
					report.Failed, report.Deferred, report.Due, report.Health.Healthy, err, tt.failed, tt.deferred)
			}
			var last time.Duration
			for _, at := range slow.asked {
				last = max(last, at)
			}
			if last != tt.last || took != tt.took {
				t.Errorf("within %v: the last was started after %v and the report out after %v, want %v and %v", tt.within, last, took, tt.last, tt.took)
			}
		})
	}
}

// What the time of one sweep does not allow, the next takes first.
func TestDeferredComeFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all []connector.Connection
		for n := range 600 {
			c := numbered(n, connector.StatusOK)
			c.Lifetime, c.ExpiresAt = time.Hour, time.Now().Add(20*time.Minute+time.Duration(n)*time.Second)
			if n >= 400 {
				c.ExpiresAt = c.ExpiresAt.Add(20 * time.Minute) // due five minutes later
			}
			all = append(all, c)
		}
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		store := &shelf{pages: slices.Collect(slices.Chunk(all, 100)), keeps: new(sync.Mutex)}
		slow := &slowEntra{takes: time.Second}
		report, _, err := slow.sweepOf(t, store, 5*time.Second)
		if err != nil || report.Due != 400 || report.Deferred != 400-4*64 {
			t.Fatalf("report %+v, %v", report, err)
		}
		refreshed := slow.asked
		time.Sleep(20 * time.Minute)
		if report, _, err = slow.sweepOf(t, store, 10*time.Minute); err != nil || report.Due < 144+200 || report.Refreshed != report.Due {
			t.Fatalf("report %+v, %v", report, err)
		}
		for n := range 400 {
			_, done := refreshed[tenant(n)]
			if at := slow.asked[tenant(n)]; !done && at > 3*time.Second {
				t.Errorf("one that was deferred is asked for after %v, behind others", at)
			}
		}
	})
}

// A listing that hangs is given up when nothing may be started any more: what it
// has shown is refreshed meanwhile, and the report says that it is not all.
func TestSweepGoesOnWithoutTheRestOfTheListing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &shelf{pages: [][]connector.Connection{numberedFrom(0, 100, connector.StatusOK), numberedFrom(100, 100, connector.StatusOK)}, hangs: 2}
		slow := &slowEntra{takes: time.Second}
		report, took, err := slow.sweepOf(t, store, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		checkReport(t, "half seen", report, connector.SweepReport{Checked: 100, Due: 100, Refreshed: 100, Incomplete: true})
		if want := 45 * time.Second; took != want {
			t.Errorf("took %v, want %v", took, want)
		}
		if _, took, err = slow.sweepOf(t, &shelf{hangs: 1}, time.Minute); err == nil || took != 45*time.Second {
			t.Errorf("with nothing listed: %v after %v, want an error after 45s", err, took)
		}
	})
}

// The report stays below what Lambda can return, and its numbers stay true.
func TestReportNamesAThousandFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := numberedFrom(0, 1001, connector.StatusOK)
		report, _, err := (&slowEntra{refuses: true}).sweepOf(t, &shelf{pages: slices.Collect(slices.Chunk(all, 100))}, time.Hour)
		if err != nil || report.Failed != 1001 || len(report.Failures) != 1000 {
			t.Errorf("%d failed and %d are named, %v, want 1001 and 1000", report.Failed, len(report.Failures), err)
		}
	})
}
