package entra

import (
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"time"
)

// Status is the health of a connection, as of its last refresh.
type Status string

const (
	// OK: the last refresh stored a token.
	OK Status = "ok"
	// Retrying: the last refresh failed for a reason that passes.
	Retrying Status = "retrying"
	// NeedsPerson: Entra will go on refusing until a person acts.
	NeedsPerson Status = "refused"
)

// Connection is one app in one customer tenant: what is known of it without
// its token.
type Connection struct {
	ConnectionRef
	TenantID    string // GUID, lower case; empty where the stored state is unreadable
	Cloud       Cloud  // with Scope: what the stored token is for
	Scope       string
	TokenType   string
	ExpiresAt   time.Time
	Lifetime    time.Duration // of the stored token, from request to expiry
	RefreshedAt time.Time     // when the stored token was asked for
	AppAsOf     time.Time     // the app's RotatedAt when it got the stored token
	Warnings    []string      // codes of what is to be said of the stored token
	WholeAt     time.Time     // when the budget of writes is whole again; see spend
	Failure     *Failure      // of the last refresh; nil where it succeeded

	SecretName, SecretARN string // where integrations read the token
	Version               string // identifies the stored token to the store
}

// Failure is why the last refresh of a connection failed, and when the next
// attempt may be made.
type Failure struct {
	Status        Status // Retrying or NeedsPerson
	Code          string
	At            time.Time
	AppAsOf       time.Time // the app's ChangedAt when it was tried
	Refusals      int       // in a row; failures that pass do not count
	RefusedSince  time.Time // when the connection came to need a person, zero if it did not; kept until it recovers
	NextAttempt   time.Time
	TraceID       string
	CorrelationID string
	ConsentURL    string // where an administrator consents, if that is what it takes
}

// Status returns the connection's health.
func (c Connection) Status() Status {
	if c.Failure == nil {
		return OK
	}
	return c.Failure.Status
}

// ConnectionRef names a connection.
type ConnectionRef struct{ App, Name string }

func (r ConnectionRef) String() string { return r.App + "/" + r.Name }

// ParseConnectionRef parses "app/connection".
func ParseConnectionRef(s string) (ConnectionRef, error) {
	app, name, _ := strings.Cut(s, "/")
	if CheckName(app) != nil || CheckName(name) != nil {
		return ConnectionRef{}, errors.New("must be app/connection")
	}
	return ConnectionRef{App: app, Name: name}, nil
}

// withToken fills in what a token response says of the connection.
func (c Connection) withToken(app App, token Token) Connection {
	c.TenantID, c.Cloud, c.Scope = token.TenantID, app.Cloud, app.Scope
	c.TokenType, c.ExpiresAt, c.Lifetime = token.Type, token.ExpiresAt(), token.Lifetime()
	c.RefreshedAt, c.AppAsOf, c.Failure = token.RequestedAt, app.RotatedAt, nil
	c.Warnings, c.WholeAt = warnings(app.Scope, token), spend(c.WholeAt, token.RequestedAt)
	return c
}

const (
	firstWait = 15 * time.Minute // after a refusal; doubles
	maxWait   = 6 * time.Hour
)

// withFailure records why a refresh failed. A refusal that needs a person
// waits longer each time, for as long as the app stays as it is; a failure that
// passes waits as long as Entra asked, and otherwise for the next sweep.
func (c Connection) withFailure(err *Error, app App, now time.Time) Connection {
	f := &Failure{
		Status: NeedsPerson, Code: err.Code, At: now, AppAsOf: app.ChangedAt,
		TraceID: err.TraceID, CorrelationID: err.CorrelationID, ConsentURL: err.ConsentURL,
	}
	if last := c.Failure; last != nil {
		f.RefusedSince = last.RefusedSince
		if last.AppAsOf.Equal(app.ChangedAt) {
			f.Refusals = max(last.Refusals, 0)
		}
	}
	wait := err.RetryAfter
	if err.Passes(now, app.ChangedAt) {
		f.Status = Retrying
	} else {
		if f.RefusedSince.IsZero() {
			f.RefusedSince = now
		}
		f.Refusals++
		wait = min(firstWait<<min(f.Refusals-1, 10), maxWait)
	}
	f.NextAttempt = now.Add(wait)
	c.Failure = f
	return c
}

// refusedSince is when the connection came to need a person, zero if it does
// not, and has not since its last token.
func (c Connection) refusedSince() time.Time {
	if c.Failure == nil {
		return time.Time{}
	}
	return c.Failure.RefusedSince
}

// due reports whether less than the window is left of the token's life, or less
// than half of it where that is shorter, as with a tenant whose policy issues
// short tokens; or whether the app was rotated since it got the token, so that a
// new credential is in use everywhere after one sweep; or whether the connection
// was refused and the app has been put since.
func (c Connection) due(app App, window time.Duration, jitter float64, now time.Time) bool {
	latest := min(window, c.Lifetime/2)
	retried := c.Status() == NeedsPerson && c.Failure.AppAsOf.Before(app.ChangedAt)
	return c.ExpiresAt.Sub(now) < latest+c.sooner(latest, jitter) || c.AppAsOf.Before(app.RotatedAt) || retried
}

// sooner is how much sooner than at the latest this token is due: up to the
// given part of that. It is the same whenever it is asked for, and another for
// the next token.
func (c Connection) sooner(latest time.Duration, jitter float64) time.Duration {
	most := time.Duration(jitter * float64(latest))
	if most <= 0 {
		return 0
	}
	h := fnv.New64a()
	fmt.Fprint(h, c.ConnectionRef, c.RefreshedAt.UnixNano())
	return time.Duration(h.Sum64() % uint64(most))
}

// waiting reports whether the connection is to be left alone after a failure.
// A change of the app since then ends the wait for a person, not the one that
// Entra asked for.
func (c Connection) waiting(app App, now time.Time) bool {
	f := c.Failure
	return f != nil && now.Before(f.NextAttempt) && (f.Status == Retrying || !f.AppAsOf.Before(app.ChangedAt))
}
