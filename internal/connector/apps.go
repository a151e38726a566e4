package connector

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"
)

// Apps creates, replaces and deletes apps.
type Apps struct {
	Store  Store
	Prover Prover
	Now    func() time.Time
}

// Put creates an app or replaces it, and reports whether it is new. With connections on it, the app
// is first proved in one of their tenants. Errors: [*ConflictError], [*InvalidError] for a service
// that the app's cloud does not have, [*entra.Error], [*StoreError].
func (a *Apps) Put(ctx context.Context, req AppRequest) (app App, created bool, err error) {
	if req.entra, err = a.Prover.identify(ctx, req.entra); err != nil {
		return App{}, false, err
	}
	err = Retry(ctx, func() (beaten bool, err error) {
		app, created, err = a.put(ctx, req)
		return overtaken(err), err
	})
	return app, created, err
}

func (a *Apps) put(ctx context.Context, req AppRequest) (app App, created bool, err error) {
	use, release, err := a.hold(ctx, req.name)
	isNew := errors.Is(err, ErrNotFound)
	if err != nil && !isNew {
		return App{}, false, err
	}
	var stored App
	if !isNew {
		defer release(ctx)
		// An app that somebody has made unreadable is replaced as well.
		if stored, err = a.Store.App(ctx, req.name); err != nil && !errors.Is(err, ErrUnreadable) {
			return App{}, false, err
		}
	}
	if app, err = req.on(stored); err != nil {
		return App{}, false, err
	}
	use.Name = req.name // connections may be left of an app that a person deleted
	if err := a.prove(ctx, app, use); err != nil {
		return App{}, false, err
	}
	app.ChangedAt, app.RotatedAt, app.Version = a.Now(), a.Now(), stored.Version
	if isNew {
		_, err = a.Store.CreateApp(ctx, app)
		return app, true, err
	}
	if stored.asksLike(app) {
		// Tokens are asked for as before. Only refused connections are tried again.
		app.RotatedAt = stored.RotatedAt
	}
	_, err = a.Store.UpdateApp(ctx, use, app)
	return app, false, err
}

// hold keeps others from creating connections on an app, and then looks for those who came first.
func (a *Apps) hold(ctx context.Context, name string) (use AppUse, release func(context.Context), err error) {
	if use, err = a.Store.LookAtApp(ctx, name); err != nil {
		return use, nil, err
	}
	if release, err = a.Store.Hold(ctx, use); err != nil {
		release(ctx) // AWS may have done it all the same
		return use, nil, err
	}
	if use, err = a.Store.LookAtApp(ctx, name); err != nil {
		release(ctx)
		return use, nil, err
	}
	return use, release, nil
}

// Delete deletes an app that no connection uses. Errors: [ErrNotFound], [*ConflictError],
// [*StoreError].
func (a *Apps) Delete(ctx context.Context, name string) error {
	return Retry(ctx, func() (beaten bool, err error) {
		err = a.delete(ctx, name)
		return errors.Is(err, ErrExists), err
	})
}

func (a *Apps) delete(ctx context.Context, name string) error {
	use, release, err := a.hold(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return a.Store.FinishDeletion(ctx, name)
	}
	if err != nil {
		return err
	}
	if err = a.unused(ctx, use); err == nil {
		err = a.Store.DeleteApp(ctx, use)
	}
	if err != nil {
		release(ctx)
	}
	return err
}

// unused looks at each connection itself, since the listing may miss new ones and may still show
// deleted ones.
func (a *Apps) unused(ctx context.Context, use AppUse) error {
	check := func(name string) error {
		_, err := a.connection(ctx, use, name)
		switch {
		case err == nil:
			return &ConflictError{Reason: AppInUse, App: use.Name}
		case errors.Is(err, ErrNotFound):
			return nil
		}
		return err
	}
	for name := range use.Announced {
		if err := check(name); err != nil {
			return err
		}
	}
	for cursor := ""; ; {
		page, next, err := a.Store.Connections(ctx, use.Name, PageLimit, cursor)
		if err != nil {
			return err
		}
		for _, c := range page {
			if err := check(c.Name); err != nil {
				return err
			}
		}
		if cursor = next; cursor == "" {
			return unnamed(use)
		}
	}
}

// unnamed fails if connections may still be on their way without a note of their name.
func unnamed(use AppUse) error {
	if use.Busy > 0 {
		return AtWork("ListSecrets", use.Name, use.Busy)
	}
	return nil
}

// RequestTime is longer than any request takes.
const RequestTime = time.Minute

// connection returns a connection of an app that is held. It fails with ErrNotFound, and with a
// [*StoreError] if somebody may be about to create the connection.
func (a *Apps) connection(ctx context.Context, use AppUse, name string) (Connection, error) {
	c, err := a.Store.Connection(ctx, ConnectionRef{App: use.Name, Name: name})
	toCome := err == nil && c.unfinished()
	if announced, ok := use.Announced[name]; ok && errors.Is(err, ErrNotFound) {
		// Otherwise it was deleted after it had been announced.
		toCome = use.Now.Sub(announced.At) < RequestTime && announced.Version == c.Version
	}
	if toCome {
		err = AtWork("DescribeSecret", c.String(), RequestTime)
	}
	return c, err
}

// maxProofs bounds how many tenants are asked to prove an app. It is more than one, since a tenant
// may refuse for reasons of its own, such as a withdrawn consent. maxLooks bounds the search for
// them.
const (
	maxProofs = 3
	maxLooks  = 20
)

// prove proves an app in one of the tenants of its connections, the newest and healthiest first. An
// app without connections needs no proof.
func (a *Apps) prove(ctx context.Context, app App, use AppUse) error {
	names, more, err := a.candidates(ctx, use)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return unnamed(use)
	}
	var attempts []*attempt
	var wait error
	for _, name := range names[:min(maxLooks, len(names))] {
		// The listing may still show what has been deleted or has moved to another tenant.
		c, err := a.connection(ctx, use, name)
		switch {
		case err == nil && c.TenantID != "":
			attempts = append(attempts, &attempt{tenantID: c.TenantID, scope: c.Scope})
		case atWork(err):
			wait = err
		case err != nil && !errors.Is(err, ErrNotFound):
			return err
		}
		if len(attempts) == maxProofs {
			break
		}
	}
	switch {
	case len(attempts) > 0:
		_, err = a.Prover.first(ctx, app, attempts...)
		return err
	case wait != nil:
		return wait
	case more || len(names) > maxLooks: // the listing still shows many that are gone
		return AtWork("ListSecrets", use.Name, relisted)
	}
	return unnamed(use)
}

// relisted is about how long the listing shows what is gone.
const relisted = 5 * time.Minute

// maxPages bounds the search for healthy connections. A page that is short or empty need not be the
// last.
const maxPages = 10

// candidates names connections that may prove an app: those announced, and some of those listed,
// the healthiest first. It reports whether there are more.
func (a *Apps) candidates(ctx context.Context, use AppUse) (names []string, more bool, err error) {
	names = slices.Collect(maps.Keys(use.Announced))
	var listed []Connection
	healthy := 0
	cursor := ""
	for range maxPages {
		page, next, err := a.Store.Connections(ctx, use.Name, PageLimit, cursor)
		if err != nil {
			return nil, false, err
		}
		for _, c := range page {
			if _, announced := use.Announced[c.Name]; announced {
				continue
			}
			if listed = append(listed, c); c.Status() == StatusOK {
				healthy++
			}
		}
		if cursor = next; cursor == "" || healthy >= maxProofs {
			break
		}
	}
	health := []Status{StatusOK, StatusRetrying, StatusRefused, StatusInvited}
	slices.SortStableFunc(listed, func(a, b Connection) int {
		return slices.Index(health, a.Status()) - slices.Index(health, b.Status())
	})
	for _, c := range listed {
		names = append(names, c.Name)
	}
	return names, cursor != "", nil
}
