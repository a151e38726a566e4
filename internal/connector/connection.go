package connector

import (
	"time"

	"entra-connector/pkg/entra"
)

// Status is the health of a connection, as of its last refresh.
type Status string

const (
	// StatusOK: the last refresh stored a token.
	StatusOK Status = "ok"
	// StatusRetrying: the last refresh failed for a reason that passes.
	StatusRetrying Status = "retrying"
	// StatusRefused: Entra will go on refusing until a person acts.
	StatusRefused Status = "refused"
)

// Connection is one app in one customer tenant for one scope, without its token.
type Connection struct {
	ConnectionRef
	TenantID string // GUID, lower case; empty if the secret cannot be used
	Scope    string // never changes; empty if the secret cannot be used

	// What is known about the stored token. All of it is zero if nothing is known; see known.
	Cloud        entra.Cloud
	TokenType    string
	ExpiresAt    time.Time
	Lifetime     time.Duration // of the stored token, from request to expiry
	RefreshedAt  time.Time     // when the stored token was requested
	AppRotatedAt time.Time     // the app's RotatedAt when the stored token was requested
	Warnings     []string      // codes, about the stored token; see [Explain]
	WholeAt      time.Time     // when the budget of writes is whole again; see spend
	Failure      *Failure      // of the last refresh; nil if it succeeded

	Invitation *Invitation // while it waits for its tenant; then Failure is its last refusal

	SecretName, SecretARN string // where integrations read the token
	Blocked               bool   // the connector must not change the secret; Failure says why
	Version               string // identifies to the store what was read
}

// Failure is why the last refresh of a connection failed, and when the next attempt may be made.
type Failure struct {
	Status Status // StatusRetrying or StatusRefused
	Code   string
	entra.Advice
	At            time.Time
	AppChangedAt  time.Time // the app's ChangedAt when it was tried
	Refusals      int       // in a row; failures that pass do not count
	RefusedSince  time.Time // when the connection came to need a person, zero if it did not; kept until it recovers
	NextAttempt   time.Time
	TraceID       string
	CorrelationID string
	ConsentURL    string // where an administrator consents, if that would help
}

// Status returns the connection's health.
func (c Connection) Status() Status {
	if c.Invitation != nil {
		return StatusInvited
	}
	if c.Failure == nil {
		return StatusOK
	}
	return c.Failure.Status
}

// known reports whether the state of the stored token is known. A write that was overtaken hides
// it.
func (c Connection) known() bool { return !c.ExpiresAt.IsZero() }

func (c Connection) stored() bool { return c.SecretARN != "" }

// unfinished reports whether the connection is being deleted, or being provisioned in the place of
// one that was.
func (c Connection) unfinished() bool {
	return c.Failure != nil && c.Failure.Code == CodeUnfinished && c.Failure.Status == StatusRetrying
}

// Seen returns the connection as it is shown at a time: with an expired token it is not healthy,
// and what waits for nothing may be tried at once.
func (c Connection) Seen(now time.Time) Connection {
	switch {
	case c.Invitation != nil:
		return c.expired(now)
	case c.Failure == nil && !c.ExpiresAt.After(now):
		c.Failure = &Failure{Status: StatusRetrying, Code: CodeExpired, Advice: own[CodeExpired], At: c.ExpiresAt, NextAttempt: c.ExpiresAt}
	case c.Failure != nil && c.Failure.NextAttempt.IsZero():
		seen := *c.Failure
		seen.NextAttempt = seen.At
		c.Failure = &seen
	}
	return c
}

// refusedSince is when the connection came to need a person, or zero if it does not.
func (c Connection) refusedSince() time.Time {
	if c.Failure == nil {
		return time.Time{}
	}
	return c.Failure.RefusedSince
}

// withToken fills in what a token response says about the connection.
func (c Connection) withToken(app App, token entra.Token) Connection {
	c.Cloud, c.TokenType, c.ExpiresAt, c.Lifetime = app.Cloud, token.Type, token.ExpiresAt(), token.Lifetime()
	c.RefreshedAt, c.AppRotatedAt, c.Failure = token.RequestedAt, app.RotatedAt, nil
	c.Warnings, c.WholeAt = warnings(c.Scope, app.Credential.Kind(), token), spend(c.WholeAt, token.RequestedAt)
	return c
}

// withFailure records why a refresh failed.
func (c Connection) withFailure(err *entra.Error, app App, now time.Time) Connection {
	f := &Failure{
		Status: StatusRefused, Code: err.Code, Advice: Advise(err), At: now, AppChangedAt: app.ChangedAt,
		TraceID: err.TraceID, CorrelationID: err.CorrelationID, ConsentURL: err.ConsentURL,
	}
	if last := c.Failure; last != nil {
		f.RefusedSince = last.RefusedSince
		if last.AppChangedAt.Equal(app.ChangedAt) {
			f.Refusals = max(last.Refusals, 0)
		}
	}
	wait := min(err.RetryAfter, maxWait)
	if passes(err.Class, app.ChangedAt, now) {
		f.Status = StatusRetrying
	} else {
		if f.RefusedSince.IsZero() {
			f.RefusedSince = now
		}
		f.Refusals++
		wait = backOff(f.Refusals)
	}
	f.NextAttempt = now.Add(wait)
	c.Failure = f
	return c
}
