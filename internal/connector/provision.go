package connector

import (
	"cmp"
	"context"
	"errors"
	"time"

	"entra-connector/pkg/entra"
)

// Provisioner creates connections.
type Provisioner struct {
	Store  Store
	Prover Prover
	Now    func() time.Time
	// Changed is told what [Sweeper.Changed] is told. It may be nil.
	Changed func(context.Context, Connection)
}

// Provision proves the credentials, then stores app, connection and token. It reports whether the
// connection is new. Errors: [ErrNotFound] for an app that does not exist, [*ConflictError],
// [*InvalidError] for a service that the app's cloud does not have, [*entra.Error], [*StoreError].
func (p *Provisioner) Provision(ctx context.Context, req Provisioning) (c Connection, created bool, err error) {
	if req.whole != nil {
		if req.whole.entra, err = p.Prover.identify(ctx, req.whole.entra); err != nil {
			return Connection{}, false, err
		}
	}
	err = Retry(ctx, func() (beaten bool, err error) {
		c, created, err = p.provision(ctx, req)
		return errors.Is(err, errAppChanged), err
	})
	return c, created, err
}

// errAppChanged reports that the app is no longer the one that was proved.
var errAppChanged = errors.New("the app was replaced or deleted meanwhile")

func (p *Provisioner) provision(ctx context.Context, req Provisioning) (c Connection, created bool, err error) {
	app, err := p.appFor(ctx, req)
	if err != nil {
		return c, false, err
	}
	asked := Connection{ConnectionRef: ConnectionRef{App: app.Name}}
	if asked.TenantID, err = p.Prover.ResolveTenant(ctx, app.Cloud, req.tenant); err != nil {
		return c, false, err
	}
	asked.Name = cmp.Or(req.connection, asked.TenantID)
	if asked.Scope, err = req.scope.in(app.Cloud); err != nil {
		return c, false, err
	}
	found, token, err := p.tokenFor(ctx, asked, app.App)
	if err == nil && token.Lifetime() < minLifetime {
		err = refusal(CodeShortLived)
	}
	if err != nil {
		return c, false, err
	}
	asked.Scope = found.Scope // which the token is for, whatever happens to the name meanwhile

	// The app goes first. A connection without its app could not be refreshed, while an app without
	// connections is what the next call finds in place.
	if app, err = p.saveApp(ctx, req, app); err != nil {
		return c, false, err
	}
	return p.saveConnection(ctx, asked, found, app, token)
}

// errOtherScope reports that a known connection has another scope than a new one would get.
var errOtherScope = errors.New("the connection has a scope of its own")

// tokenFor looks for the connection and asks for its token at once. It assumes that the connection
// has the scope that a new one would get.
func (p *Provisioner) tokenFor(ctx context.Context, asked Connection, app App) (c Connection, token entra.Token, err error) {
	scope := cmp.Or(asked.Scope, app.Scope)
	err = together(ctx, func(ctx context.Context) (err error) {
		if c, err = p.connectionFor(ctx, asked, app); err == nil && c.Scope != scope {
			err = errOtherScope
		}
		return err
	}, func(ctx context.Context) (err error) {
		if scope != "" {
			token, err = p.Prover.Token(ctx, app, scope, asked.TenantID)
		}
		return err
	})
	if errors.Is(err, errOtherScope) {
		token, err = p.Prover.Token(ctx, app, c.Scope, c.TenantID)
	}
	return c, token, err
}

// together runs two functions at once, the second until the first fails. Errors of the first come
// first.
func together(ctx context.Context, first, second func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- second(ctx) }()
	err := first(ctx)
	if err != nil {
		cancel()
	}
	if secondErr := <-done; err == nil {
		err = secondErr
	}
	return err
}

// usedApp is the app that a connection is provisioned on.
type usedApp struct {
	App
	use     AppUse
	changed bool // to be stored once it has been proved: as a new one if it has no Version
}

// appFor returns the app to use. One that was only named must exist. One that was given whole must
// not be somebody else's of that name.
func (p *Provisioner) appFor(ctx context.Context, req Provisioning) (app usedApp, err error) {
	var stored App
	err = together(ctx, func(ctx context.Context) (err error) {
		app.use, err = p.Store.LookAtApp(ctx, req.app)
		return err
	}, func(ctx context.Context) (err error) {
		stored, err = p.Store.App(ctx, req.app)
		return err
	})
	missing := errors.Is(err, ErrNotFound)
	switch {
	case missing && req.whole == nil:
		return app, &AppNotFoundError{req.app}
	case missing:
		app.changed = true
		app.App, err = req.whole.on(App{})
	case err == nil && req.whole == nil:
		app.App = stored
	case err == nil:
		app.App, app.changed, err = req.whole.change(stored)
	}
	return app, err
}

// change returns the app that a request makes of a stored one, and whether that differs.
func (r AppRequest) change(stored App) (App, bool, error) {
	app, err := r.on(stored)
	if err != nil {
		return app, false, err
	}
	if fields := stored.differences(app); len(fields) > 0 {
		return App{}, false, &ConflictError{Reason: OtherApp, App: stored.Name, Fields: fields}
	}
	if stored.asksLike(app) {
		if app.Credential.SecretExpiresAt.Equal(stored.Credential.SecretExpiresAt) {
			return stored, false, nil
		}
		app.RotatedAt = stored.RotatedAt // all that is new is when the secret expires
	}
	// Another scope is this connection's own.
	app.Scope, app.Version = stored.Scope, stored.Version
	return app, true, nil
}

// saveApp stores the app if it has changed. If another call was faster, it asks appFor again.
func (p *Provisioner) saveApp(ctx context.Context, req Provisioning, app usedApp) (usedApp, error) {
	err := Retry(ctx, func() (beaten bool, err error) {
		if !app.changed {
			return false, nil
		}
		app.ChangedAt = p.Now()
		if app.RotatedAt.IsZero() {
			app.RotatedAt = app.ChangedAt
		}
		if app.Version == "" {
			if app.Version, err = p.Store.CreateApp(ctx, app.App); err == nil {
				app.use, err = p.Store.LookAtApp(ctx, app.Name)
			}
		} else {
			app.Version, err = p.Store.UpdateApp(ctx, app.use, app.App)
			app.use.Version = app.Version
		}
		if !overtaken(err) {
			return false, err
		}
		app, err = p.appFor(ctx, req)
		return err == nil, err
	})
	return app, err
}

// overtaken reports whether another call was faster: with the same, with something else, or with a
// deletion.
func overtaken(err error) bool {
	return errors.Is(err, ErrExists) || errors.Is(err, ErrChanged) || errors.Is(err, ErrNotFound)
}

// saveConnection stores a connection that connectionFor returned, with its token, and reports
// whether it is new.
func (p *Provisioner) saveConnection(ctx context.Context, asked, found Connection, app usedApp, token entra.Token) (c Connection, isNew bool, err error) {
	announced := false
	err = Retry(ctx, func() (beaten bool, err error) {
		c, isNew = found.withToken(app.App, token), !found.stored()
		if isNew && !announced {
			err = p.announce(ctx, app, found)
			announced = err == nil
		}
		switch {
		case !isNew:
			err = p.Store.SaveToken(ctx, c, token)
		case announced:
			c, err = p.Store.CreateConnection(ctx, c, token)
		}
		if err == nil {
			tell(ctx, p.Changed, found, c)
		}
		if atWork(err) {
			return true, err
		}
		if !overtaken(err) {
			return false, err
		}
		// Another call was faster. It may be this very one, repeated. Its token is as good, but
		// only a write shows that nobody else is about to take the name.
		found, err = p.connectionFor(ctx, asked, app.App)
		announced = false
		return err == nil, err
	})
	return c, isNew, err
}

// announce makes sure that nobody deletes or replaces the app unproved because the listing does not
// show a new connection yet.
func (p *Provisioner) announce(ctx context.Context, app usedApp, c Connection) (err error) {
	use := app.use
	if use.Held || use.Busy < busyEnough {
		if err = p.Store.Announce(ctx, use, c); err == nil {
			use, err = p.Store.LookAtApp(ctx, app.Name)
		}
	}
	switch {
	case errors.Is(err, ErrNotFound):
		return errAppChanged
	case err != nil:
		return err
	case use.Held:
		return AtWork("TagResource", app.Name, holdTime)
	case use.Version != app.Version:
		return errAppChanged
	}
	return nil
}

const (
	// busyEnough is longer than any request takes.
	busyEnough = 2 * time.Minute
	// holdTime is about how long a request holds an app.
	holdTime = 30 * time.Second
)

// connectionFor returns the connection as it is stored, or a new one. A name that stands for
// another tenant or another scope is a conflict.
func (p *Provisioner) connectionFor(ctx context.Context, asked Connection, app App) (Connection, error) {
	c, err := p.Store.Connection(ctx, asked.ConnectionRef)
	switch {
	case err == nil && c.Blocked:
		err = &ConflictError{Reason: InTheWay, Secret: c.SecretName, Advice: c.Failure.Advice}
	case errors.Is(err, ErrNotFound), err == nil && c.TenantID == "":
		asked.Scope, asked.Version = cmp.Or(asked.Scope, app.Scope), c.Version
		if asked.Scope == "" {
			return asked, &InvalidError{[]FieldError{{"scope", "is required, or service: the app has none"}}}
		}
		return asked, nil
	case err == nil && c.TenantID != asked.TenantID:
		err = &ConflictError{Reason: OtherTenant, App: c.App, Connection: c.Name}
	case err == nil && asked.Scope != "" && c.Scope != asked.Scope:
		err = &ConflictError{Reason: OtherScope, App: c.App, Connection: c.Name}
	}
	return c, err
}
