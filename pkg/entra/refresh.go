package entra

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// refresher gets one connection's token and records what came of it. The
// provisioner and the sweeper share it.
type refresher struct {
	store SweepStore
	ask   func(ctx context.Context, app App, tenantID string) (Token, error)
	now   func() time.Time
	log   *slog.Logger
	// changed is told what Sweeper.Changed is; it may be nil.
	changed func(context.Context, Connection)
}

// refresh stores a new token for the connection. When Entra refuses or fails,
// the stored token stands, the failure is recorded beside it, and the error is
// Entra's. The connection is returned as it then is.
func (r refresher) refresh(ctx context.Context, app App, c Connection) (Connection, error) {
	token, err := r.ask(ctx, app, c.TenantID)
	if refused := (*Error)(nil); errors.As(err, &refused) {
		return r.fail(ctx, app, c, refused), err
	}
	if err != nil {
		return c, err
	}
	refreshed := c.withToken(app, token)
	err = r.store.SaveToken(ctx, refreshed, token)
	for errors.Is(err, ErrChanged) {
		// The connection may have been deleted meanwhile, and its name stand for
		// another tenant. If another refresh was first, what it stored is as good,
		// unless that is from before the app's rotation.
		if c, err = r.still(ctx, c); err != nil || !c.AppAsOf.Before(app.RotatedAt) {
			return c, err
		}
		refreshed = c.withToken(app, token)
		err = r.store.SaveToken(ctx, refreshed, token)
	}
	if err != nil {
		r.log.ErrorContext(ctx, "token not stored", "connection", c.String(), "code", storeCode(err), "error", err.Error())
		return c, err
	}
	r.log.InfoContext(ctx, "refreshed", "connection", c.String(), "tenant_id", c.TenantID, "expires_at", refreshed.ExpiresAt)
	r.tell(ctx, c, refreshed)
	return refreshed, nil
}

// still returns the connection as it is stored now, or ErrNotFound where that is
// not the tenant's any more.
func (r refresher) still(ctx context.Context, c Connection) (Connection, error) {
	now, err := r.store.Connection(ctx, c.ConnectionRef)
	if err == nil && now.TenantID != c.TenantID {
		err = ErrNotFound
	}
	return now, err
}

// fail records a failure, unless the connection has changed since it was read:
// the listing may be some minutes behind. That the record itself could not be
// written changes nothing for the caller: the next sweep meets the same failure.
func (r refresher) fail(ctx context.Context, app App, c Connection, failure *Error) Connection {
	now, err := r.still(ctx, c)
	unchanged := err == nil && now.Version == c.Version
	if unchanged {
		c = now // with the last failure, which makes no version and may not be listed yet
	}
	failed := c.withFailure(failure, app, r.now())
	r.log.WarnContext(ctx, "refresh failed", "connection", c.String(), "tenant_id", c.TenantID,
		"code", failure.Code, "status", failed.Status(), "refusals", failed.Failure.Refusals, "next_attempt_at", failed.Failure.NextAttempt,
		"trace_id", failure.TraceID, "correlation_id", failure.CorrelationID)
	if unchanged {
		if err = r.store.SaveFailure(ctx, failed); err == nil {
			r.tell(ctx, c, failed)
		}
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		r.log.ErrorContext(ctx, "failure not recorded", "connection", c.String(), "code", storeCode(err), "error", err.Error())
	}
	return failed
}

// tell reports the connection if it has come to need a person, or does no more.
func (r refresher) tell(ctx context.Context, before, after Connection) {
	if r.changed != nil && before.refusedSince().IsZero() != after.refusedSince().IsZero() {
		r.changed(ctx, after)
	}
}

func storeCode(err error) string {
	var failed *StoreError
	switch {
	case errors.As(err, &failed):
		return failed.Code
	case errors.Is(err, ErrNotFound):
		return "deleted"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return CodeTimeout
	}
	return "unexpected"
}
