package connector

import (
	"fmt"
	"hash/fnv"
	"time"

	"entra-connector/pkg/entra"
)

// This file has the rules of when: when a token is due, when a failure is tried again, and how
// often one secret may be written.

// due reports whether a connection needs a new token:
//   - less than the window is left of its life, or less than half of it if that is shorter, as with
//     a tenant whose policy issues short tokens;
//   - or the app was rotated after the token was requested, so that one sweep brings a new credential
//     into use everywhere;
//   - or the connection was refused and the app has been put since;
//   - or the token is so old, or so young, that what is known about it cannot be true.
func due(c Connection, app App, window time.Duration, jitter float64, now time.Time) bool {
	latest := min(window, c.Lifetime/2)
	age := now.Sub(c.RefreshedAt)
	retried := c.Status() == StatusRefused && c.Failure.AppChangedAt.Before(app.ChangedAt)
	return c.ExpiresAt.Sub(now) < latest+sooner(c, latest, jitter) || c.AppRotatedAt.Before(app.RotatedAt) || retried ||
		age > maxAge || age < -maxSkew
}

const (
	// maxAge is the longest life that Entra gives a token, by policy. Whatever a token says, it is
	// replaced after that.
	maxAge = 24 * time.Hour
	// maxSkew is how far clocks may be apart. A time further in the future comes from a wrong
	// clock.
	maxSkew = 10 * time.Minute
)

// sooner is how much earlier than necessary this token is due: up to the given part of latest. It
// is always the same for one token, and differs from token to token.
func sooner(c Connection, latest time.Duration, jitter float64) time.Duration {
	most := time.Duration(jitter * float64(latest))
	if most <= 0 {
		return 0
	}
	h := fnv.New64a()
	fmt.Fprint(h, c.ConnectionRef, c.RefreshedAt.UnixNano())
	return time.Duration(h.Sum64() % uint64(most))
}

// waiting reports whether a connection is to be left alone after a failure. A change of the app
// ends the wait for a person, but not the wait that Entra asked for. A wait longer than maxWait
// comes from a wrong clock, and does not count.
func waiting(c Connection, app App, now time.Time) bool {
	f := c.Failure
	return f != nil && now.Before(f.NextAttempt) && f.NextAttempt.Sub(now) <= maxWait &&
		(f.Status == StatusRetrying || !f.AppChangedAt.Before(app.ChangedAt))
}

const (
	firstWait = 15 * time.Minute // after a refusal; doubles with each
	maxWait   = 6 * time.Hour    // also of what Entra asks for
)

// backOff is how long a connection waits after so many refusals in a row.
func backOff(refusals int) time.Duration { return min(firstWait<<min(refusals-1, 10), maxWait) }

// settling is how long after a change of the app an [entra.Unsettled] refusal counts as one that
// passes. Changes have been seen to take seconds to minutes; Microsoft documents no limit.
const settling = 15 * time.Minute

// passes reports whether a failure is expected to go away by itself.
func passes(class entra.Class, appChanged, now time.Time) bool {
	switch class {
	case entra.Refused:
		return false
	case entra.Unsettled:
		return now.Sub(appChanged) < settling
	}
	return true
}

// Secrets Manager keeps every version of the last 24 hours, and refuses writes beyond about a
// hundred. So each connection has a budget: burst writes at any time, and versionsPerDay over a
// day.
const (
	versionsPerDay = 100
	burst          = 30
	pace           = 24 * time.Hour / (versionsPerDay - burst)

	// minLifetime is the shortest token life that can be refreshed at half of it for a whole day.
	minLifetime = 2 * 24 * time.Hour / versionsPerDay
)

// spend returns the budget after a write: the time at which it is whole again. (This is the generic
// cell rate algorithm, which needs to remember nothing else.)
func spend(wholeAt, now time.Time) time.Time {
	if wholeAt.Before(now) || !believable(wholeAt, now) {
		wholeAt = now
	}
	return wholeAt.Add(pace)
}

// spent reports whether the next write has to wait, before the store refuses it.
func spent(c Connection, now time.Time) bool {
	return c.WholeAt.Sub(now) > (burst-1)*pace && believable(c.WholeAt, now) && c.RefreshedAt.Sub(now) <= maxSkew
}

// believable reports whether a correct clock can have written this. Refreshes by hand can spend
// a little more than the whole budget.
func believable(wholeAt, now time.Time) bool { return wholeAt.Sub(now) <= versionsPerDay*pace }
