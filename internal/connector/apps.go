package connector

import (
	"context"
	"errors"
	"time"
)

// Apps creates, replaces and deletes apps.
type Apps struct {
	Store  Store
	Prover Prover
	Now    func() time.Time
}

// Put creates an app or replaces it, and reports whether it is new. With connections on it, the app is
// first proved in one of their tenants. Errors: [*ConflictError], [*InvalidError] for a service that the
// app's cloud does not have, [*entra.Error], [*StoreError].
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
	if err := a.Prover.InUse(ctx, app, use.Announced); err != nil {
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
		return use, nil, err
	}
	if use, err = a.Store.LookAtApp(ctx, name); err != nil {
		release(ctx)
		return use, nil, err
	}
	return use, release, nil
}

// Delete deletes an app that no connection uses. Errors: [ErrNotFound], [*ConflictError], [*StoreError].
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
	check := func(name string, announced Announcement) error {
		exists, err := a.Store.Exists(ctx, ConnectionRef{App: use.Name, Name: name}, announced)
		if exists {
			return &ConflictError{Reason: AppInUse, App: use.Name}
		}
		return err
	}
	for name, announced := range use.Announced {
		if err := check(name, announced); err != nil {
			return err
		}
	}
	for cursor := ""; ; {
		page, next, err := a.Store.Connections(ctx, use.Name, PageLimit, cursor)
		if err != nil {
			return err
		}
		for _, c := range page {
			if err := check(c.Name, Announcement{}); err != nil {
				return err
			}
		}
		if cursor = next; cursor == "" {
			break
		}
	}
	if use.Busy > 0 {
		return &StoreError{Op: "deleting app", Secret: use.Name, Code: CodeBusy, Temporary: true, RetryAfter: use.Busy}
	}
	return nil
}
