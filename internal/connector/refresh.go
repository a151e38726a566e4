package connector

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"entra-connector/pkg/entra"
)

// Refresher refreshes single connections, because somebody asks for it.
type Refresher struct {
	Store  SweepStore
	Prover Prover
	Now    func() time.Time
	Log    *slog.Logger
	// Changed is told what [Sweeper.Changed] is told. It may be nil.
	Changed func(context.Context, Connection)
}

// Refresh refreshes a connection now, due or not. Errors: [ErrNotFound], [*ConflictError] if its
// app is gone or what is stored is unreadable, [*entra.Error], [*StoreError].
func (r *Refresher) Refresh(ctx context.Context, ref ConnectionRef) (Connection, error) {
	c, err := r.Store.Connection(ctx, ref)
	if err != nil {
		return Connection{}, err
	}
	if c.Invitation != nil {
		return Connection{}, &ConflictError{Reason: NotAccepted, App: ref.App, Connection: ref.Name}
	}
	if c.TenantID == "" {
		return Connection{}, &ConflictError{Reason: Unreadable, App: ref.App, Connection: ref.Name, Advice: c.Failure.Advice}
	}
	app, err := r.Store.App(ctx, ref.App)
	if errors.Is(err, ErrNotFound) {
		return Connection{}, &ConflictError{Reason: AppGone, App: ref.App, Connection: ref.Name}
	}
	if err != nil {
		return Connection{}, err
	}
	token, err := r.Prover.Token(ctx, app, c.Scope, c.TenantID)
	return r.record(ctx, app, c, token, err)
}

// record stores the token that Entra gave for the connection. When Entra refused or failed, the
// stored token stands, the failure is recorded beside it, and the error is Entra's. It returns the
// connection as it now is.
func (r *Refresher) record(ctx context.Context, app App, c Connection, token entra.Token, err error) (Connection, error) {
	if failure := (*entra.Error)(nil); errors.As(err, &failure) {
		return r.failed(ctx, app, c, failure), err
	}
	if err != nil {
		return c, err
	}
	refreshed := c
	err = Retry(ctx, func() (beaten bool, err error) {
		refreshed = c.withToken(app, token)
		if err := r.Store.SaveToken(ctx, refreshed, token); !errors.Is(err, ErrChanged) {
			return false, err
		}
		// If another refresh was first, its token is as good, unless it is from before the app's
		// rotation or nothing is known about it.
		c, err = r.still(ctx, c)
		refreshed = c
		return err == nil && (!c.known() || c.AppRotatedAt.Before(app.RotatedAt)), err
	})
	if errors.Is(err, ErrNotFound) {
		return c, err
	}
	if err != nil {
		r.Log.ErrorContext(ctx, "token not stored", "connection", c.String(), "code", storeCode(err), "error", err.Error())
		return c, err
	}
	r.Log.InfoContext(ctx, "refreshed", "connection", c.String(), "tenant_id", c.TenantID, "expires_at", refreshed.ExpiresAt)
	tell(ctx, r.Changed, c, refreshed)
	return refreshed, nil
}

// still reads the connection again. It fails with ErrNotFound if it is deleted, or if its name now
// belongs to another tenant or scope.
func (r *Refresher) still(ctx context.Context, c Connection) (Connection, error) {
	now, err := r.Store.Connection(ctx, c.ConnectionRef)
	if err == nil && (now.TenantID != c.TenantID || now.Scope != c.Scope) {
		err = ErrNotFound
	}
	return now, err
}

// failed records a failure, unless the connection has changed since it was read: the listing may be
// some minutes behind. A record that cannot be written changes nothing for the caller, since the
// next sweep meets the same failure.
func (r *Refresher) failed(ctx context.Context, app App, c Connection, failure *entra.Error) Connection {
	now, err := r.still(ctx, c)
	unchanged := err == nil && now.Version == c.Version
	if unchanged && (now.known() || !c.known()) {
		c = now // with the last failure, which makes no version and may not be listed yet
	}
	failed := c.withFailure(failure, app, r.Now())
	r.Log.WarnContext(ctx, "refresh failed", "connection", c.String(), "tenant_id", c.TenantID,
		"code", failure.Code, "status", failed.Status(), "refusals", failed.Failure.Refusals, "next_attempt_at", failed.Failure.NextAttempt,
		"trace_id", failure.TraceID, "correlation_id", failure.CorrelationID)
	if unchanged {
		if err = r.Store.SaveFailure(ctx, failed); err == nil {
			tell(ctx, r.Changed, c, failed)
		}
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		r.Log.ErrorContext(ctx, "failure not recorded", "connection", c.String(), "code", storeCode(err), "error", err.Error())
	}
	return failed
}

// tell reports a connection that has come to need a person, or no longer does.
func tell(ctx context.Context, changed func(context.Context, Connection), before, after Connection) {
	if changed != nil && before.refusedSince().IsZero() != after.refusedSince().IsZero() {
		changed(ctx, after)
	}
}
