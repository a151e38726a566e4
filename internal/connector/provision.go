package connector

import (
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
// [*entra.Error], [*StoreError].
func (p *Provisioner) Provision(ctx context.Context, req Provisioning) (Connection, bool, error) {
	asked, err := p.Prover.identify(ctx, req.app)
	if err != nil {
		return Connection{}, false, err
	}
	app, change, err := p.appFor(ctx, asked)
	if err != nil {
		return Connection{}, false, err
	}
	tenantID, err := p.Prover.Entra.ResolveTenant(ctx, app.Cloud, req.tenant)
	if err != nil {
		return Connection{}, false, err
	}
	ref := ConnectionRef{App: app.Name, Name: req.connection}
	if ref.Name == "" {
		ref.Name = tenantID
	}
	c, known, err := p.connectionFor(ctx, ref, tenantID)
	if err != nil {
		return Connection{}, false, err
	}
	token, err := p.Prover.Token(ctx, app, tenantID)
	if err == nil && token.Lifetime() < minLifetime {
		err = refusal(CodeShortLived)
	}
	if err != nil {
		return Connection{}, false, err
	}

	// The app goes first. A connection without its app could not be refreshed, while an app without
	// connections is what the next call finds in place.
	app.LastConnection = ref.Name
	if change == keep && !known {
		change = note // the listing may not show the connection for minutes
	}
	if app, err = p.saveApp(ctx, app, change); err != nil {
		return Connection{}, false, err
	}
	return p.saveConnection(ctx, c, known, app, token)
}

// appChange is what provisioning does to an app.
type appChange int

const (
	keep appChange = iota
	note
	create
	rotate
)

// appFor returns the app to use, and what to do to the stored one once the app has been proved. An app
// that was only named must exist. One that was given whole must not be somebody else's of that name.
func (p *Provisioner) appFor(ctx context.Context, asked App) (App, appChange, error) {
	stored, err := p.Store.App(ctx, asked.Name)
	onlyNamed := asked.ClientID == ""
	said := asked.Credential.SecretExpiresAt
	switch {
	case errors.Is(err, ErrNotFound) && onlyNamed:
		return App{}, keep, &AppNotFoundError{asked.Name}
	case errors.Is(err, ErrNotFound):
		return asked, create, nil
	case err != nil:
		return App{}, keep, err
	case onlyNamed, stored.same(asked) && (said.IsZero() || said.Equal(stored.Credential.SecretExpiresAt)):
		return stored, keep, nil
	}
	if fields := stored.differences(asked); len(fields) > 0 {
		return App{}, keep, &ConflictError{Reason: OtherApp, App: asked.Name, Fields: fields}
	}
	asked.Version = stored.Version
	asked.RotatedAt = time.Time{}
	if stored.same(asked) {
		asked.RotatedAt = stored.RotatedAt // all that is new is when it expires
	}
	return asked, rotate, nil
}

// saveApp does what appFor found is to be done. Where another call was faster, appFor judges the app
// anew.
func (p *Provisioner) saveApp(ctx context.Context, app App, change appChange) (App, error) {
	last := app.LastConnection
	err := Retry(ctx, "storing app", func() (beaten bool, err error) {
		app.LastConnection = last
		if change == create || change == rotate {
			app.ChangedAt = p.Now()
			if app.RotatedAt.IsZero() {
				app.RotatedAt = app.ChangedAt
			}
		}
		switch change {
		case keep:
			return false, nil
		case note:
			return false, p.Store.NoteConnection(ctx, ConnectionRef{App: app.Name, Name: last})
		case create:
			err = p.Store.CreateApp(ctx, app)
		case rotate:
			err = p.Store.UpdateApp(ctx, app)
		}
		if !overtaken(err) {
			return false, err
		}
		app, change, err = p.appFor(ctx, app)
		if change == keep {
			change = note
		}
		return err == nil, err
	})
	return app, err
}

// overtaken reports whether another call was faster: with the same, with something else, or with a
// deletion.
func overtaken(err error) bool {
	return errors.Is(err, ErrExists) || errors.Is(err, ErrChanged) || errors.Is(err, ErrNotFound)
}

// saveConnection stores a connection that connectionFor returned, with its token, and reports whether it
// is new.
func (p *Provisioner) saveConnection(ctx context.Context, found Connection, known bool, app App, token entra.Token) (c Connection, isNew bool, err error) {
	err = Retry(ctx, "storing connection", func() (beaten bool, err error) {
		c, isNew = found.withToken(app, token), !known
		if known {
			err = p.Store.SaveToken(ctx, c, token)
		} else {
			c, err = p.Store.CreateConnection(ctx, c, token)
		}
		if err == nil {
			tell(ctx, p.Changed, found, c)
		}
		if !overtaken(err) {
			return false, err
		}
		// Another call was faster. It may be this very one, repeated, and its token is as good.
		found, known, err = p.connectionFor(ctx, c.ConnectionRef, token.TenantID)
		c, isNew = found, false
		return err == nil && !known, err
	})
	return c, isNew, err
}

// connectionFor returns the connection as it is stored, or a new one, and whether it was known. A name
// that stands for another tenant is a conflict.
func (p *Provisioner) connectionFor(ctx context.Context, ref ConnectionRef, tenantID string) (Connection, bool, error) {
	c, err := p.Store.Connection(ctx, ref)
	switch {
	case errors.Is(err, ErrNotFound):
		return Connection{ConnectionRef: ref}, false, nil
	case err != nil:
		return Connection{}, false, err
	case c.TenantID != "" && c.TenantID != tenantID:
		return Connection{}, false, &ConflictError{Reason: OtherTenant, App: ref.App, Connection: ref.Name}
	}
	return c, true, nil
}
