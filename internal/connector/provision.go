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

func (p *Provisioner) provision(ctx context.Context, req Provisioning) (Connection, bool, error) {
	app, use, change, err := p.appFor(ctx, req)
	if err != nil {
		return Connection{}, false, err
	}
	tenantID, err := p.Prover.ResolveTenant(ctx, app.Cloud, req.tenant)
	if err != nil {
		return Connection{}, false, err
	}
	scope, err := req.scope.in(app.Cloud)
	if err != nil {
		return Connection{}, false, err
	}
	asked := Connection{ConnectionRef: ConnectionRef{App: app.Name, Name: cmp.Or(req.connection, tenantID)}, TenantID: tenantID, Scope: scope}
	c, known, token, err := p.tokenFor(ctx, asked, app)
	asked.Scope = c.Scope // which the token is for, whatever happens to the name meanwhile
	if err == nil && token.Lifetime() < minLifetime {
		err = refusal(CodeShortLived)
	}
	if err != nil {
		return Connection{}, false, err
	}

	// The app goes first. A connection without its app could not be refreshed, while an app without
	// connections is what the next call finds in place.
	if app, use, err = p.saveApp(ctx, req, app, use, change); err != nil {
		return Connection{}, false, err
	}
	return p.saveConnection(ctx, asked, c, known, app, use, token)
}

// errOtherScope reports that a known connection has another scope than a new one would get.
var errOtherScope = errors.New("the connection has a scope of its own")

// tokenFor looks for the connection and asks for its token at once. It assumes that the connection has
// the scope that a new one would get.
func (p *Provisioner) tokenFor(ctx context.Context, asked Connection, app App) (c Connection, known bool, token entra.Token, err error) {
	scope := cmp.Or(asked.Scope, app.Scope)
	err = together(ctx, func(ctx context.Context) (err error) {
		if c, known, err = p.connectionFor(ctx, asked, app); err == nil && c.Scope != scope {
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
	return c, known, token, err
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

// appChange is what provisioning does to an app.
type appChange int

const (
	keep appChange = iota
	create
	rotate
)

// appFor returns the app to use, and what to do to the stored one once the app has been proved. An app
// that was only named must exist. One that was given whole must not be somebody else's of that name.
func (p *Provisioner) appFor(ctx context.Context, req Provisioning) (app App, use AppUse, change appChange, err error) {
	var stored App
	err = together(ctx, func(ctx context.Context) (err error) {
		use, err = p.Store.LookAtApp(ctx, req.app)
		return err
	}, func(ctx context.Context) (err error) {
		stored, err = p.Store.App(ctx, req.app)
		return err
	})
	if errors.Is(err, ErrNotFound) && req.whole == nil {
		return App{}, use, keep, &AppNotFoundError{req.app}
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return App{}, use, keep, err
	}
	if req.whole == nil {
		return stored, use, keep, nil
	}
	app, change, err = req.whole.change(stored, err == nil)
	return app, use, change, err
}

// change returns the app that a request makes of a stored one, if there is one.
func (r AppRequest) change(stored App, exists bool) (App, appChange, error) {
	if !exists {
		stored = App{}
	}
	app, err := r.on(stored)
	if err != nil || !exists {
		return app, create, err
	}
	if fields := stored.differences(app); len(fields) > 0 {
		return App{}, keep, &ConflictError{Reason: OtherApp, App: stored.Name, Fields: fields}
	}
	if stored.asksLike(app) {
		if app.Credential.SecretExpiresAt.Equal(stored.Credential.SecretExpiresAt) {
			return stored, keep, nil
		}
		app.RotatedAt = stored.RotatedAt // all that is new is when the secret expires
	}
	// Another scope is this connection's own.
	app.Scope, app.Version = stored.Scope, stored.Version
	return app, rotate, nil
}

// saveApp makes the change that appFor chose. If another call was faster, it asks appFor
// again.
func (p *Provisioner) saveApp(ctx context.Context, req Provisioning, app App, use AppUse, change appChange) (App, AppUse, error) {
	err := Retry(ctx, func() (beaten bool, err error) {
		if change != keep {
			app.ChangedAt = p.Now()
			if app.RotatedAt.IsZero() {
				app.RotatedAt = app.ChangedAt
			}
		}
		switch change {
		case keep:
			return false, nil
		case create:
			if app.Version, err = p.Store.CreateApp(ctx, app); err == nil {
				use, err = p.Store.LookAtApp(ctx, app.Name)
			}
		case rotate:
			app.Version, err = p.Store.UpdateApp(ctx, use, app)
			use.Version = app.Version
		}
		if !overtaken(err) {
			return false, err
		}
		app, use, change, err = p.appFor(ctx, req)
		return err == nil, err
	})
	return app, use, err
}

// overtaken reports whether another call was faster: with the same, with something else, or with a
// deletion.
func overtaken(err error) bool {
	return errors.Is(err, ErrExists) || errors.Is(err, ErrChanged) || errors.Is(err, ErrNotFound)
}

// saveConnection stores a connection that connectionFor returned, with its token, and reports whether it
// is new.
func (p *Provisioner) saveConnection(ctx context.Context, asked, found Connection, known bool, app App, use AppUse, token entra.Token) (c Connection, isNew bool, err error) {
	announced := false
	err = Retry(ctx, func() (beaten bool, err error) {
		c, isNew = found.withToken(app, token), !known
		if !known && !announced {
			err = p.announce(ctx, app, use, found)
			announced = err == nil
		}
		switch {
		case known:
			err = p.Store.SaveToken(ctx, c, token)
		case announced:
			c, err = p.Store.CreateConnection(ctx, c, token)
		}
		if err == nil {
			tell(ctx, p.Changed, found, c)
		}
		if busy(err) {
			return true, err
		}
		if !overtaken(err) {
			return false, err
		}
		// Another call was faster. It may be this very one, repeated. Its token is as good, but only a write
		// shows that nobody else is about to take the name.
		found, known, err = p.connectionFor(ctx, asked, app)
		announced = false
		return err == nil, err
	})
	return c, isNew, err
}

func busy(err error) bool {
	var failed *StoreError
	return errors.As(err, &failed) && failed.Code == CodeBusy
}

// announce makes sure that nobody deletes or replaces the app unproved because the listing does not show
// a new connection yet.
func (p *Provisioner) announce(ctx context.Context, app App, use AppUse, c Connection) (err error) {
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
		return &StoreError{Op: "TagResource", Secret: app.Name, Code: CodeBusy, Temporary: true, RetryAfter: holdTime}
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

// connectionFor returns the connection as it is stored, or a new one, and whether it was known. A name
// that stands for another tenant or another scope is a conflict.
func (p *Provisioner) connectionFor(ctx context.Context, asked Connection, app App) (Connection, bool, error) {
	c, err := p.Store.Connection(ctx, asked.ConnectionRef)
	switch {
	case err == nil && c.Blocked:
		return Connection{}, false, &ConflictError{Reason: InTheWay, Secret: c.SecretName, Advice: c.Failure.Advice}
	case errors.Is(err, ErrNotFound), err == nil && c.TenantID == "":
		asked.Scope, asked.Version = cmp.Or(asked.Scope, app.Scope), c.Version
		if asked.Scope == "" {
			return Connection{}, false, &InvalidError{[]FieldError{{"scope", "is required, or service: the app has none"}}}
		}
		return asked, false, nil
	case err != nil:
		return Connection{}, false, err
	case c.TenantID != asked.TenantID:
		return Connection{}, false, &ConflictError{Reason: OtherTenant, App: c.App, Connection: c.Name}
	case asked.Scope != "" && c.Scope != asked.Scope:
		return Connection{}, false, &ConflictError{Reason: OtherScope, App: c.App, Connection: c.Name}
	}
	return c, true, nil
}
