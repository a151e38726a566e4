package connector

import (
	"context"
	"errors"
	"slices"
	"time"

	"entra-connector/pkg/entra"
)

// Prover proves an app's credential by getting a token with it.
type Prover struct {
	Store Store
	Entra *entra.Client
}

// settleWaits are the pauses before a refusal that may settle is repeated. New secrets have been seen
// to take 4 to 18 seconds until they are known everywhere.
var settleWaits = []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second}

const (
	// rideOut is the shortest pause before a failure that passes is tried once more.
	// Source: Microsoft Entra, "Build resilience in daemon applications".
	rideOut = 5 * time.Second
	// tryTime is what a token request takes, with much to spare.
	tryTime = 3 * time.Second
)

// ask is a request for one token, and how it has gone so far.
type ask struct {
	tenantID, scope string

	next    time.Time // when to try; zero: not again
	settles int       // how many times it has been tried again because a refusal may settle
	ridden  bool      // whether it has been tried again because a failure passes
	err     error
}

// Token gets a token. As long as there is time, it repeats refusals that may settle after a change, and
// once a failure of Entra that passes. Errors are those of
// [entra.Client.Token].
func (p Prover) Token(ctx context.Context, app App, scope, tenantID string) (entra.Token, error) {
	return p.first(ctx, app, &ask{tenantID: tenantID, scope: scope})
}

// first asks several tenants and returns the first token. The error is that of the first tenant.
func (p Prover) first(ctx context.Context, app App, asks ...*ask) (entra.Token, error) {
	begin := time.Now()
	for _, a := range asks {
		a.next = begin
	}
	for {
		a := soonest(asks)
		if a == nil || !sleepUntil(ctx, a.next) {
			return entra.Token{}, p.withCloud(ctx, app, asks[0])
		}
		token, err := p.Entra.Token(ctx, app.Registration, a.scope, a.tenantID)
		var refused *entra.Error
		if err == nil || !errors.As(err, &refused) {
			return token, err
		}
		a.err, a.next = err, time.Time{}
		switch {
		case refused.Class == entra.Unsettled && a.settles < len(settleWaits):
			a.next = time.Now().Add(settleWaits[a.settles])
			a.settles++
		case refused.Class != entra.Malformed && passes(refused.Class, time.Time{}, begin) && !a.ridden:
			a.next = time.Now().Add(max(refused.RetryAfter, rideOut))
			a.ridden = true
		}
	}
}

// soonest returns what to try next, or nil.
func soonest(asks []*ask) (next *ask) {
	for _, a := range asks {
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

// withCloud returns the error. If the refusal may mean that the tenant is in another cloud, it finds
// out and names that cloud.
func (p Prover) withCloud(ctx context.Context, app App, a *ask) error {
	var refused *entra.Error
	if errors.As(a.err, &refused) && refused.MayLiveElsewhere() {
		if home, err := p.Entra.TenantCloud(ctx, app.Cloud, a.tenantID); err == nil && home != app.Cloud {
			refused.LivesIn(home)
		}
	}
	if a.err == nil {
		return ctx.Err()
	}
	return a.err
}

// maxProofs bounds how many tenants are asked to prove an app. It is more than one, since a tenant may
// refuse for reasons of its own, such as a withdrawn consent.
const maxProofs = 3

// InUse proves an app in one of the tenants of its connections, the healthiest first. Those that were
// announced may not be listed yet. An app without connections needs no proof.
func (p Prover) InUse(ctx context.Context, app App, announced map[string]Announcement) error {
	connections, err := p.connectionsOf(ctx, app.Name, announced)
	if err != nil {
		return err
	}
	health := []Status{StatusOK, StatusRetrying, StatusRefused}
	slices.SortStableFunc(connections, func(a, b Connection) int {
		return slices.Index(health, a.Status()) - slices.Index(health, b.Status())
	})
	var asks []*ask
	for _, c := range connections[:min(maxProofs, len(connections))] {
		asks = append(asks, &ask{tenantID: c.TenantID, scope: c.Scope})
	}
	if len(asks) == 0 {
		return nil
	}
	_, err = p.first(ctx, app, asks...)
	return err
}

// maxPages bounds the search for healthy connections. A page that is short or empty need not be the
// last.
const maxPages = 10

// connectionsOf returns some of an app's connections, healthy ones among them if the first pages have
// any.
func (p Prover) connectionsOf(ctx context.Context, app string, announced map[string]Announcement) (found []Connection, err error) {
	healthy := 0
	cursor := ""
	for range maxPages {
		page, next, err := p.Store.Connections(ctx, app, PageLimit, cursor)
		if err != nil {
			return nil, err
		}
		for _, c := range page {
			if c.TenantID == "" {
				continue
			}
			if found = append(found, c); c.Status() == StatusOK {
				healthy++
			}
		}
		if cursor = next; cursor == "" || healthy >= maxProofs {
			break
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	for name, announcement := range announced {
		ref := ConnectionRef{App: app, Name: name}
		exists, err := p.Store.Exists(ctx, ref, announcement)
		if err != nil {
			return nil, err
		}
		if !exists {
			continue
		}
		c, err := p.Store.Connection(ctx, ref)
		if err == nil && c.TenantID != "" {
			found = append(found, c)
		} else if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		if len(found) >= maxProofs {
			break
		}
	}
	return found, nil
}

// identify fills in issuer and subject of a federated app's assertions, which a person has to enter in
// Entra.
func (p Prover) identify(ctx context.Context, app entra.Registration) (entra.Registration, error) {
	if app.Credential.Federation == nil {
		return app, nil
	}
	identified, err := p.Entra.Identify(ctx, *app.Credential.Federation)
	app.Credential.Federation = &identified
	return app, err
}
