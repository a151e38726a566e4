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
	entra *Client
	now   func() time.Time
	log   *slog.Logger
}

// refresh stores a new token for the connection. When Entra refuses or fails,
// the stored token stands, the failure is recorded beside it, and the error is
// Entra's. The connection is returned as it then is.
func (r refresher) refresh(ctx context.Context, app App, c Connection) (Connection, error) {
	token, err := r.entra.Token(ctx, app, c.TenantID)
	if err == nil {
		refreshed := c.withToken(app, token)
		if err := r.store.SaveToken(ctx, refreshed, token); err != nil {
			r.log.ErrorContext(ctx, "token not stored", "connection", c.String(), "code", storeCode(err))
			return c, err
		}
		r.log.InfoContext(ctx, "refreshed", "connection", c.String(), "tenant_id", c.TenantID, "expires_at", refreshed.ExpiresAt)
		return refreshed, nil
	}
	if refused := (*Error)(nil); errors.As(err, &refused) {
		return r.fail(ctx, app, c, refused), err
	}
	return c, err
}

// fail records a failure. That the record itself could not be written changes
// nothing for the caller: the next sweep meets the same failure.
func (r refresher) fail(ctx context.Context, app App, c Connection, failure *Error) Connection {
	c = c.withFailure(failure, app, r.now())
	r.log.WarnContext(ctx, "refresh failed", "connection", c.String(), "tenant_id", c.TenantID,
		"code", failure.Code, "status", c.Status(), "attempts", c.Failure.Attempts, "next_attempt_at", c.Failure.NextAttempt,
		"trace_id", failure.TraceID, "correlation_id", failure.CorrelationID)
	if err := r.store.SaveFailure(ctx, c); err != nil {
		r.log.ErrorContext(ctx, "failure not recorded", "connection", c.String(), "code", storeCode(err))
	}
	return c
}

func storeCode(err error) string {
	var failed *StoreError
	switch {
	case errors.As(err, &failed):
		return failed.Code
	case errors.Is(err, ErrNotFound):
		return "deleted"
	}
	return CodeTimeout
}
