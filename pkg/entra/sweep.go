package entra

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Sweeper refreshes the connections that are due. It keeps nothing between
// sweeps: what it needs to know of a connection is in the store's listing.
type Sweeper struct {
	Store  SweepStore
	Entra  *Client
	Window time.Duration // how long before its expiry a token is due
	Now    func() time.Time
	Log    *slog.Logger
}

// SweepRequest narrows or widens a sweep. The zero value is a scheduled sweep
// over everything that is due.
type SweepRequest struct {
	Only  []ConnectionRef // nil: every connection
	Force bool            // also what is not due, or is waiting after a failure
}

// SweepReport says what a sweep did, in numbers of connections.
type SweepReport struct {
	Checked   int            `json:"checked"`
	Due       int            `json:"due"`       // refreshed, failed or deferred
	Refreshed int            `json:"refreshed"` // on a new token now
	Failed    int            `json:"failed"`    // tried in vain now
	Waiting   int            `json:"waiting"`   // left alone until their next attempt
	Deferred  int            `json:"deferred"`  // due, but the time did not allow
	Failures  []SweepFailure `json:"failures"`  // of Failed, at most maxFailures
	Expiring  []Expiring     `json:"expiring,omitempty"`
	// Incomplete is set when the listing broke off: what it had not reached by
	// then was not looked at.
	Incomplete bool `json:"incomplete,omitempty"`
}

// SweepFailure is one connection that could not be refreshed.
type SweepFailure struct {
	Connection string `json:"connection"`
	Code       string `json:"code"`
	Status     Status `json:"status"`
}

const (
	sweepWorkers = 32
	appReaders   = 16
	maxFailures  = 1000 // keeps the report below Lambda's 6 MB
	// finishTime is what a refresh that is under way may need: one token request
	// and one write.
	finishTime = requestTimeout + 5*time.Second
)

// Sweep looks at every connection, or the ones asked for, and refreshes what is
// due, the nearest expiry first. It stops starting work in time to finish what
// is under way before the context's deadline. An error means that it could not
// do its work at all; one connection's trouble is in the report.
func (s *Sweeper) Sweep(ctx context.Context, req SweepRequest) (SweepReport, error) {
	run := sweep{
		Sweeper: s,
		force:   req.Force,
		apps:    make(map[string]*appOrError),
		report:  SweepReport{Failures: []SweepFailure{}},
	}
	look := run.all
	if req.Only != nil {
		look = func(ctx context.Context) error { return run.only(ctx, req.Only) }
	}
	looking, cancel := partOf(ctx, 2)
	defer cancel()
	if err := look(looking); err != nil {
		return SweepReport{}, err
	}
	run.refreshDue(ctx)
	run.warnOfExpiry(ctx)
	report := run.report
	report.Due = report.Refreshed + report.Failed + report.Deferred
	return report, nil
}

// sweep is the state of one run.
type sweep struct {
	*Sweeper
	force bool
	apps  map[string]*appOrError
	due   []Connection

	mu     sync.Mutex // guards report while connections are refreshed
	report SweepReport
}

type appOrError struct {
	app App
	err error
}

func (s *sweep) all(ctx context.Context) error {
	for cursor := ""; ; {
		page, next, err := s.Store.Connections(ctx, "", PageLimit, cursor)
		if err != nil {
			if s.report.Checked == 0 {
				return err
			}
			s.Log.ErrorContext(ctx, "listing broke off", "code", storeCode(err), "checked", s.report.Checked)
			s.report.Incomplete = true
			return nil
		}
		s.pick(ctx, page)
		if next == "" {
			return nil
		}
		cursor = next
	}
}

// only looks at the connections that are named. Each counts as checked, found
// or not; an error means that none could be looked at.
func (s *sweep) only(ctx context.Context, refs []ConnectionRef) error {
	var found []Connection
	var broken error
	seen := make(map[ConnectionRef]bool)
	for _, ref := range refs {
		if seen[ref] {
			continue
		}
		seen[ref] = true
		c, err := s.Store.Connection(ctx, ref)
		switch {
		case err == nil:
			found = append(found, c)
			continue
		case errors.Is(err, ErrNotFound):
			s.fail(ref, CodeNotFound, NeedsPerson)
		default:
			s.fail(ref, storeCode(err), Retrying)
			broken = err
		}
		s.report.Checked++
	}
	if len(found) == 0 && broken != nil {
		return broken
	}
	s.pick(ctx, found)
	return nil
}

// pick finds what is due in a page. Only that is kept, so that memory does not
// grow with the connections that are not due.
func (s *sweep) pick(ctx context.Context, page []Connection) {
	s.readApps(ctx, page)
	now := s.Now()
	for _, c := range page {
		s.report.Checked++
		app := s.apps[c.App].app
		switch {
		case s.force:
			s.due = append(s.due, c)
		case c.waiting(app, now), c.due(app, s.Window, now) && spent(c.WholeAt, now):
			s.report.Waiting++
		case c.due(app, s.Window, now):
			s.due = append(s.due, c)
		}
	}
}

// readApps reads the apps of a page that the sweep has not met yet. They are
// read even when nothing is due: that an app has changed makes its connections
// due, and the listing may not show the change for minutes.
func (s *sweep) readApps(ctx context.Context, page []Connection) {
	var group errgroup.Group
	group.SetLimit(appReaders)
	for _, c := range page {
		if s.apps[c.App] != nil {
			continue
		}
		read := new(appOrError)
		s.apps[c.App] = read
		group.Go(func() error {
			read.app, read.err = s.Store.App(ctx, c.App)
			return nil
		})
	}
	group.Wait()
}

// partOf returns a context that ends when a part of the time left has gone by,
// so that a listing that hangs leaves time to refresh what it has shown.
func partOf(ctx context.Context, parts time.Duration) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Until(deadline)/parts)
}

// refreshDue refreshes what is due, several at a time. A connection whose last
// refresh failed comes after the healthy ones, so that many that hang cannot
// use up the time of those that would work; of these the one that has waited
// longest comes first.
func (s *sweep) refreshDue(ctx context.Context) {
	slices.SortFunc(s.due, func(a, b Connection) int {
		return cmp.Or(triedAt(a).Compare(triedAt(b)), a.ExpiresAt.Compare(b.ExpiresAt))
	})
	inTime := func() bool { return true }
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		lastStart := deadline.Add(-min(finishTime, left/4))
		inTime = func() bool { return time.Now().Before(lastStart) }
		// What still hangs at the end is given up, so that the report gets out.
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-min(time.Second, left/20)))
		defer cancel()
	}
	var group errgroup.Group
	group.SetLimit(sweepWorkers)
	for _, c := range s.due {
		group.Go(func() error {
			if inTime() {
				s.refresh(ctx, c)
			} else {
				s.count(&s.report.Deferred)
			}
			return nil
		})
	}
	group.Wait()
}

// triedAt is when the connection was last tried in vain, zero for a healthy one.
func triedAt(c Connection) time.Time {
	if c.Failure == nil {
		return time.Time{}
	}
	return c.Failure.At
}

// warnOfExpiry reports the credentials that are close to their end.
func (s *sweep) warnOfExpiry(ctx context.Context) {
	for _, name := range slices.Sorted(maps.Keys(s.apps)) {
		if e, ok := s.apps[name].app.Expiring(s.Now()); ok {
			s.Log.WarnContext(ctx, "credential expires", "app", e.App, "credential", e.Credential,
				"expires_at", e.ExpiresAt, "within_days", e.WithinDays)
			s.report.Expiring = append(s.report.Expiring, e)
		}
	}
}

func (s *sweep) refresh(ctx context.Context, c Connection) {
	r := refresher{s.Store, s.Entra.Token, s.Now, s.Log}
	app, err := s.apps[c.App].app, s.apps[c.App].err
	switch {
	case c.TenantID == "":
		s.fail(c.ConnectionRef, CodeUnreadable, NeedsPerson)
		return
	case err == nil:
		c, err = r.refresh(ctx, app, c)
	case errors.Is(err, ErrNotFound):
		missing := &Error{Class: Refused, Code: CodeAppMissing}
		c, err = r.fail(ctx, app, c, missing), missing
	}

	var refused *Error
	switch {
	case err == nil:
		s.count(&s.report.Refreshed)
	case errors.As(err, &refused):
		s.fail(c.ConnectionRef, refused.Code, c.Status())
	case errors.Is(err, ErrNotFound):
		// Deleted since it was listed: nobody's trouble.
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		s.count(&s.report.Deferred)
	default:
		s.fail(c.ConnectionRef, storeCode(err), Retrying)
	}
}

func (s *sweep) count(n *int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*n++
}

func (s *sweep) fail(ref ConnectionRef, code string, status Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.report.Failed++
	if len(s.report.Failures) < maxFailures {
		s.report.Failures = append(s.report.Failures, SweepFailure{ref.String(), code, status})
	}
}
