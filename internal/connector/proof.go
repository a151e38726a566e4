package connector

import (
	"context"
	"errors"
	"time"

	"entra-connector/pkg/entra"
)

// Prover proves an app's credential by getting a token with it.
type Prover struct{ Entra *entra.Client }

// settleWaits are the pauses before a refusal that may settle is repeated. New secrets have been
// seen to take 4 to 18 seconds until they are known everywhere.
var settleWaits = []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second}

const (
	// rideOut is the shortest pause before a failure that passes is tried once more.
	// Source: Microsoft Entra, "Build resilience in daemon applications".
	rideOut = 5 * time.Second
	// tryTime is what a token request takes, with much to spare.
	tryTime = 3 * time.Second
)

// attempt is a request for one token, and how it has gone so far.
type attempt struct {
	tenantID, scope string

	next    time.Time // when to try; zero: not again
	settles int       // how many times it has been tried again because a refusal may settle
	ridden  bool      // whether it has been tried again because a failure passes
	err     error
}

// Token gets a token. As long as there is time, it repeats refusals that may settle after a change,
// and once a failure of Entra that passes. Errors are those of [entra.Client.Token].
func (p Prover) Token(ctx context.Context, app App, scope, tenantID string) (entra.Token, error) {
	return p.first(ctx, app, &attempt{tenantID: tenantID, scope: scope})
}

// first asks several tenants and returns the first token. The error is that of the first tenant.
func (p Prover) first(ctx context.Context, app App, attempts ...*attempt) (entra.Token, error) {
	begin := time.Now()
	for _, a := range attempts {
		a.next = begin
	}
	for {
		a := soonest(attempts)
		if a == nil || !sleepUntil(ctx, a.next) {
			return entra.Token{}, p.withCloud(ctx, app, attempts[0])
		}
		token, err := p.Entra.Token(ctx, app.Registration, a.scope, a.tenantID)
		var failed *entra.Error
		if err == nil || !errors.As(err, &failed) {
			return token, err
		}
		a.err, a.next = err, time.Time{}
		switch {
		case failed.Class == entra.Unsettled && a.settles < len(settleWaits) && !(failed.NewCredential && app.settled()):
			a.next = time.Now().Add(settleWaits[a.settles])
			a.settles++
		case transient(failed) && !a.ridden:
			a.next = time.Now().Add(max(failed.RetryAfter, rideOut))
			a.ridden = true
		}
	}
}

// settled reports whether Entra knows the app's credential everywhere, if it knows it at all. A new
// credential has no RotatedAt yet.
func (a App) settled() bool { return !a.RotatedAt.IsZero() && time.Since(a.RotatedAt) > settling }

// transient reports whether Entra has failed in a way that passes.
func transient(failed *entra.Error) bool {
	return failed.Class == entra.Throttled || failed.Class == entra.Unavailable || failed.Class == entra.Timeout
}

// ResolveTenant is [entra.Client.ResolveTenant], once more after a failure that passes.
func (p Prover) ResolveTenant(ctx context.Context, cloud entra.Cloud, tenant string) (string, error) {
	id, err := p.Entra.ResolveTenant(ctx, cloud, tenant)
	var failed *entra.Error
	if errors.As(err, &failed) && transient(failed) && sleepUntil(ctx, time.Now().Add(max(failed.RetryAfter, rideOut))) {
		return p.Entra.ResolveTenant(ctx, cloud, tenant)
	}
	return id, err
}

// soonest returns what to try next, or nil.
func soonest(attempts []*attempt) (next *attempt) {
	for _, a := range attempts {
		if !a.next.IsZero() && (next == nil || a.next.Before(next.next)) {
			next = a
		}
	}
	return next
}

// sleepUntil reports whether the time came, with enough left for another try.
func sleepUntil(ctx context.Context, t time.Time) bool {
	pause := time.Until(t)
	if pause <= 0 {
		return ctx.Err() == nil
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < pause+tryTime {
		return false
	}
	return sleep(ctx, pause)
}

// withCloud returns the error. If the refusal may mean that the tenant is in another cloud, it
// finds out and names that cloud.
func (p Prover) withCloud(ctx context.Context, app App, a *attempt) error {
	var failed *entra.Error
	if errors.As(a.err, &failed) && failed.MayLiveElsewhere() {
		if home, err := p.Entra.TenantCloud(ctx, app.Cloud, a.tenantID); err == nil && home != app.Cloud {
			failed.LivesIn(home)
		}
	}
	if a.err == nil {
		return ctx.Err()
	}
	return a.err
}

// identify fills in issuer and subject of a federated app's assertions, which a person has to enter
// in Entra.
func (p Prover) identify(ctx context.Context, app entra.Registration) (entra.Registration, error) {
	if app.Credential.Federation == nil {
		return app, nil
	}
	identified, err := p.Entra.Identify(ctx, *app.Credential.Federation)
	app.Credential.Federation = &identified
	return app, err
}
