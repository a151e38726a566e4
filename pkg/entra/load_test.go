package entra_test

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
func (s *slowEntra) sweepOf(t *testing.T, store *shelf, within time.Duration) (entra.SweepReport, time.Duration, error) {
	t.Helper()
	store.app = (&world{}).app()
	s.begin, s.asked = time.Now(), make(map[string]time.Duration)
	sweeper := entra.Sweeper{
		Store: store, Window: 30 * time.Minute, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Entra: entra.NewClient(entra.ClientConfig{Transport: s}),
	}
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	report, err := sweeper.Sweep(ctx, entra.SweepRequest{})
	return report, time.Since(s.begin), err
}

// Healthy connections come first, the nearest expiry before the others; then the
// failing ones, the one tried longest ago before the others, whatever its expiry.
func TestSweepTakesTheMostUrgentFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		soon, later := time.Now().Add(time.Minute), time.Now().Add(5*time.Minute)
		groups := []struct {
			name    string
			expires time.Time
			failed  time.Duration // ago; 0: healthy
		}{
			{"healthy, near their expiry", soon, 0},
			{"healthy, far from it", later, 0},
			{"failed long ago, far from their expiry", later, 3 * time.Hour},
			{"failed lately, near their expiry", soon.Add(-time.Hour), time.Hour},
			{"failed lately, far from it", later, time.Hour},
		}
		const workers = 32 // so many are asked for at a time
		var all []entra.Connection
		for i := range groups {
			for n := range workers {
				c := numbered(100*i+n, entra.OK)
				c.ExpiresAt, c.Lifetime = groups[i].expires, time.Hour
				if ago := groups[i].failed; ago > 0 {
					c.Failure = &entra.Failure{Status: entra.Retrying, Code: "timeout", At: time.Now().Add(-ago)}
				}
				all = append(all, c)
			}
		}
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		slow := &slowEntra{takes: time.Second}
		report, _, err := slow.sweepOf(t, &shelf{pages: slices.Collect(slices.Chunk(all, 100))}, 10*time.Minute)
		if err != nil || report.Refreshed != len(all) {
			t.Fatalf("report %+v, %v", report, err)
		}
		for i, group := range groups {
			for n := range workers {
				if got, want := slow.asked[tenant(100*i+n)], time.Duration(i)*time.Second; got != want {
					t.Errorf("%s: one was asked for after %v, want %v", group.name, got, want)
				}
			}
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
		{2 * time.Minute, 11 * 32, 500 - 11*32, 100 * time.Second, 110 * time.Second},
		{115 * time.Second, 10 * 32, 500 - 10*32, 90 * time.Second, 100 * time.Second}, // the next would start at the last moment
		{20 * time.Second, 32, 500 - 32, 10 * time.Second, 19 * time.Second},           // the second 32 are cut off
		{8 * time.Second, 0, 500, 0, 7600 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			all := numberedFrom(0, 500, entra.OK)
			slow := &slowEntra{takes: time.Hour}
			report, took, err := slow.sweepOf(t, &shelf{pages: slices.Collect(slices.Chunk(all, 100))}, tt.within)
			if err != nil || report.Failed != tt.failed || report.Deferred != tt.deferred || report.Due != 500 {
				t.Errorf("within %v: %d failed, %d deferred, %d due, %v, want %d, %d, 500", tt.within, report.Failed, report.Deferred, report.Due, err, tt.failed, tt.deferred)
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

// A listing that hangs may take half of the time: what it has shown by then is
// refreshed in the other half, and the report says that it is not all.
func TestSweepGoesOnWithoutTheRestOfTheListing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &shelf{pages: [][]entra.Connection{numberedFrom(0, 100, entra.OK), numberedFrom(100, 100, entra.OK)}, hangs: 2}
		slow := &slowEntra{takes: time.Second}
		report, took, err := slow.sweepOf(t, store, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		checkReport(t, "half seen", report, entra.SweepReport{Checked: 100, Due: 100, Refreshed: 100, Incomplete: true})
		if want := 34 * time.Second; took != want { // four times 32 at most
			t.Errorf("took %v, want %v", took, want)
		}
		if _, took, err = slow.sweepOf(t, &shelf{hangs: 1}, time.Minute); err == nil || took != 30*time.Second {
			t.Errorf("with nothing listed: %v after %v, want an error after 30s", err, took)
		}
	})
}

// The report stays below what Lambda can return, and its numbers stay true.
func TestReportNamesAThousandFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := numberedFrom(0, 1001, entra.OK)
		report, _, err := (&slowEntra{refuses: true}).sweepOf(t, &shelf{pages: slices.Collect(slices.Chunk(all, 100))}, time.Hour)
		if err != nil || report.Failed != 1001 || len(report.Failures) != 1000 {
			t.Errorf("%d failed and %d are named, %v, want 1001 and 1000", report.Failed, len(report.Failures), err)
		}
	})
}
