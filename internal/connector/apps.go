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

// Put creates an app, or replaces it with all that it holds, and reports whether it is new. With
// connections on it, the app is first proved in one of their tenants. Errors: [*entra.Error],
// [*StoreError].
func (a *Apps) Put(ctx context.Context, app App) (_ App, created bool, err error) {
	last, err := a.lastConnection(ctx, app.Name)
	if err != nil {
		return App{}, false, err
	}
	if app, err = a.Prover.identify(ctx, app); err != nil {
		return App{}, false, err
	}
	app.LastConnection = last
	if err := a.Prover.InUse(ctx, app); err != nil {
		return App{}, false, err
	}
	err = Retry(ctx, "storing app", func() (beaten bool, err error) {
		if last, err := a.lastConnection(ctx, app.Name); err == nil {
			app.LastConnection = last // may be another one by now
		}
		stored, err := a.Store.App(ctx, app.Name)
		app.ChangedAt, app.RotatedAt, app.Version = a.Now(), a.Now(), stored.Version
		switch {
		case errors.Is(err, ErrNotFound):
			err = a.Store.CreateApp(ctx, app)
			created = err == nil
		case err != nil && !errors.Is(err, ErrUnreadable):
			return false, err
		default:
			if err == nil && stored.same(app) {
				// There is nothing to rotate to. What was refused is tried again, and no more.
				app.RotatedAt = stored.RotatedAt
			}
			err = a.Store.UpdateApp(ctx, app)
		}
		return overtaken(err), err
	})
	return app, created, err
}

// lastConnection returns the connection that was provisioned last on the app, or none.
func (a *Apps) lastConnection(ctx context.Context, app string) (string, error) {
	stored, err := a.Store.AppWithoutCredential(ctx, app)
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	return stored.LastConnection, err
}

// Delete deletes an app that no connection uses. Errors: [ErrNotFound], [*ConflictError], [*StoreError].
func (a *Apps) Delete(ctx context.Context, name string) error {
	app, err := a.Store.AppWithoutCredential(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return a.Store.DeleteApp(ctx, name) // which finishes what was interrupted
	}
	if err != nil {
		return err
	}
	used, err := a.used(ctx, app)
	if err != nil {
		return err
	}
	if used {
		return &ConflictError{Reason: AppInUse, App: name}
	}
	return a.Store.DeleteApp(ctx, name)
}

// used looks at each connection itself. The listing may not show the last one yet, and may still show
// what has just been deleted.
func (a *Apps) used(ctx context.Context, app App) (bool, error) {
	exists := func(name string) (bool, error) {
		_, err := a.Store.Connection(ctx, ConnectionRef{App: app.Name, Name: name})
		if errors.Is(err, ErrNotFound) {
			return false, nil
		}
		return err == nil, err
	}
	if app.LastConnection != "" {
		if used, err := exists(app.LastConnection); used || err != nil {
			return used, err
		}
	}
	for cursor := ""; ; {
		page, next, err := a.Store.Connections(ctx, app.Name, PageLimit, cursor)
		if err != nil {
			return false, err
		}
		for _, c := range page {
			if used, err := exists(c.Name); used || err != nil {
				return used, err
			}
		}
		if cursor = next; cursor == "" {
			return false, nil
		}
	}
}
