package connector

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"entra-connector/pkg/entra"
)

// Sweeper refreshes the connections that are due. It keeps nothing between sweeps: what it needs to
// know about a connection is in the store's listing.
type Sweeper struct {
	Store  SweepStore
	Entra  *entra.Client
	Window time.Duration // how long before its expiry a token is due
	// Jitter is the part of the window by which a token may be due sooner, different for each
	// token. Without it, connections that were provisioned together would fall due together each
	// time. To spread them, it must exceed the time between sweeps: a quarter of half an hour
	// exceeds five minutes. Zero is none.
	Jitter float64
	Now    func() time.Time
	Log    *slog.Logger
	// Changed is told of each connection that has come to need a person, and of each that no longer
	// does, once that is stored: see [Connection.Status]. It may be nil, and is called
	// concurrently.
	Changed func(context.Context, Connection)
}

// SweepRequest narrows or widens a sweep. The zero value is a scheduled sweep over everything that
// is due.
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
	// Incomplete is set when the listing broke off. What it had not reached was not looked at.
	Incomplete bool `json:"incomplete,omitempty"`

	Stale  int               `json:"-"` // listed and due, but deleted meanwhile: a call to the store for each
	Health Health            `json:"-"` // of all connections that were looked at
	Apps   map[string]Health `json:"-"` // of each app's
}

// SweepFailure is one connection that could not be refreshed.
type SweepFailure struct {
	Connection string `json:"connection"`
	Code       string `json:"code"`
	Status     Status `json:"status"`
}

const (
	// sweepWorkers keep the store's 50 writes a second in use as long as a refresh takes little
	// more than a second.
	sweepWorkers = 64
	maxFailures  = 1000 // keeps the report below Lambda's 6 MB
	// finishTime is what a refresh that is under way may need: one token request and one write.
	finishTime = entra.RequestTimeout + 5*time.Second
)

// Sweep looks at every connection, or the ones asked for. Meanwhile it refreshes what is due,
// nearest expiry first among what it has seen. It stops starting work in time to finish what is
// under way before the context's deadline. An error means that it could not do its work at all. One
// connection's trouble is in the report.
func (s *Sweeper) Sweep(ctx context.Context, req SweepRequest) (SweepReport, error) {
	run := &sweep{
		Sweeper: s,
		force:   req.Force,
		apps:    make(map[string]*sweptApp),
		needs:   make(needs),
		queue:   newQueue(s.Now(), sweepWorkers/2),
		report:  SweepReport{Failures: []SweepFailure{}},
	}
	starting, cancel := endingEarly(ctx, finishTime, 1./4)
	defer cancel()
	// What still hangs then is abandoned, so that the report gets out.
	finishing, cancel := endingEarly(ctx, time.Second, 1./20)
	defer cancel()

	var workers sync.WaitGroup
	for range sweepWorkers {
		workers.Go(func() { run.refreshDue(finishing, starting) })
	}
	look := run.all
	if req.Only != nil {
		look = func(ctx context.Context) error { return run.only(ctx, req.Only) }
	}
	err := look(starting)
	run.needs = nil
	run.queue.end()
	workers.Wait()
	if err != nil {
		return SweepReport{}, err
	}
	return run.finish(ctx), nil
}

// endingEarly returns a context that ends before ctx does: by the given time, or by the given share
// of what is left if that is less.
func endingEarly(ctx context.Context, early time.Duration, share float64) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	most := time.Duration(share * float64(time.Until(deadline)))
	return context.WithDeadline(ctx, deadline.Add(-min(early, most)))
}

// sweep is the state of one run. One goroutine looks for what is due, and several refresh it.
type sweep struct {
	*Sweeper
	force bool
	queue *queue

	apps  map[string]*sweptApp // used by the goroutine that looks, and after the run
	needs needs                // used by the goroutine that looks

	// mu guards each app's health and the parts of report that workers change. The rest of report
	// belongs to the goroutine that looks.
	mu     sync.Mutex
	report SweepReport
}

// sweptApp is an app as it was read for the sweep, or why it could not be, and what became of its
// connections.
type sweptApp struct {
	app    App
	err    error
	health Health
}

func (s *sweep) all(ctx context.Context) error {
	for cursor := ""; ; {
		page, next, err := s.Store.Connections(ctx, "", PageLimit, cursor)
		if err != nil {
			if cursor == "" {
				return err
			}
			s.Log.ErrorContext(ctx, "listing broke off", "code", storeCode(err), "error", err.Error())
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

// only looks at the connections that are named. Each counts as checked, found or not. An error
// means that none could be looked at.
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
			s.failed(new(Health), SweepFailure{ref.String(), CodeNotFound, StatusRefused}, entra.Refused.String())
		case timedOut(err):
			s.count(&s.report.Deferred)
		default:
			s.failed(new(Health), SweepFailure{ref.String(), storeCode(err), StatusRetrying}, failedInStore)
			broken = err
		}
		s.report.Checked++
	}
	if len(found) == 0 && broken != nil && s.report.Deferred == 0 {
		return broken
	}
	s.pick(ctx, found)
	return nil
}

// pick finds what is due in a page. It keeps nothing else, so that memory does not grow with the
// connections that are not due.
func (s *sweep) pick(ctx context.Context, page []Connection) {
	s.readApps(ctx, page)
	now := s.Now()
	for _, c := range page {
		s.report.Checked++
		app := s.apps[c.App]
		if c.TenantID == "" && c.Status() != StatusRefused {
			continue // its deletion or its provisioning is under way, or it waits for its tenant
		}
		isDue := due(c, app.app, s.Window, s.Jitter, now)
		isWaiting := waiting(c, app.app, now) || isDue && spent(c, now)
		switch {
		case s.force, isDue && !isWaiting:
			s.queue.put(&dueConnection{Connection: c, app: app, need: s.needs.of(app.app, c)})
			continue
		case isWaiting:
			s.report.Waiting++
		}
		s.saw(app, c, c)
	}
}

// readApps reads the apps of a page that the sweep has not met yet. It reads them even when nothing
// is due: a change of an app makes its connections due, and the listing may not show the change for
// minutes.
func (s *sweep) readApps(ctx context.Context, page []Connection) {
	var reads sync.WaitGroup
	for _, c := range page {
		if s.apps[c.App] != nil {
			continue
		}
		read := new(sweptApp)
		s.apps[c.App] = read
		reads.Go(func() {
			read.app, read.err = s.Store.App(ctx, c.App)
			if read.err != nil && !errors.Is(read.err, ErrNotFound) {
				s.Log.ErrorContext(ctx, "app not read", "app", c.App, "code", storeCode(read.err), "error", read.err.Error())
			}
		})
	}
	reads.Wait()
}

// refreshDue takes what is due from the queue. It starts nothing once starting has ended.
func (s *sweep) refreshDue(ctx, starting context.Context) {
	for c := s.queue.take(); c != nil; c = s.queue.take() {
		if starting.Err() == nil {
			s.refresh(ctx, c)
		} else {
			s.count(&s.report.Deferred)
			s.saw(c.app, c.Connection, c.Connection)
		}
		s.queue.done(c)
	}
}

func (s *sweep) refresh(ctx context.Context, due *dueConnection) {
	ctx = WithCalls(ctx)
	app, before := due.app.app, due.Connection
	r := &Refresher{Store: s.Store, Now: s.Now, Log: s.Log, Changed: s.Changed}
	after, err := before, due.app.err
	switch {
	case before.TenantID == "":
		err = refusal(before.Failure.Code)
		s.Log.WarnContext(ctx, "refresh failed", "connection", before.String(), "code", before.Failure.Code, "status", StatusRefused)
	case err == nil:
		token, tokenErr := due.need.get(ctx, s.Entra, app, before)
		after, err = r.record(ctx, app, before, token, tokenErr)
	case errors.Is(err, ErrNotFound):
		missing := refusal(CodeAppMissing)
		after, err = r.failed(ctx, app, before, missing), missing
	}

	var failure *entra.Error
	switch {
	case err == nil:
		s.count(&s.report.Refreshed)
	case errors.As(err, &failure):
		s.failed(&due.app.health, SweepFailure{before.String(), failure.Code, after.Status()}, failure.Class.String())
	case errors.Is(err, ErrNotFound):
		s.count(&s.report.Stale) // deleted since it was listed, which is no failure
		return
	case timedOut(err):
		s.count(&s.report.Deferred)
	default:
		s.failed(&due.app.health, SweepFailure{before.String(), storeCode(err), StatusRetrying}, failedInStore)
	}
	s.saw(due.app, before, after)
}

func (s *sweep) count(n *int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*n++
}

func (s *sweep) failed(of *Health, f SweepFailure, class string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	of.fail(class)
	s.report.Health.fail(class)
	s.report.Failed++
	if len(s.report.Failures) < maxFailures {
		s.report.Failures = append(s.report.Failures, f)
	}
}

func (s *sweep) saw(app *sweptApp, before, after Connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	app.health.see(before, after)
	s.report.Health.see(before, after)
}

// finish sums up, and reports the credentials that expire soon.
func (s *sweep) finish(ctx context.Context) SweepReport {
	report := s.report
	report.Due = report.Refreshed + report.Failed + report.Deferred
	report.Apps = make(map[string]Health)
	for _, name := range slices.Sorted(maps.Keys(s.apps)) {
		app := s.apps[name]
		report.Apps[name] = app.health
		if e, ok := app.app.Expiring(s.Now()); ok {
			s.Log.WarnContext(ctx, "credential expires", "app", e.App, "credential", e.Credential,
				"expires_at", e.ExpiresAt, "within_days", e.WithinDays)
			report.Expiring = append(report.Expiring, e)
		}
	}
	return report
}
