package connector

import (
	"cmp"
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

// settleWaits are the pauses between tries. New secrets have been seen to take 4 to 18 seconds until
// they are known everywhere.
var settleWaits = []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second}

// tryTime is what a token request takes, with much to spare.
const tryTime = 3 * time.Second

// Token gets a token in the first of the tenants that grants one. Some refusals pass shortly after a
// change of the credential or the consent. It tries those again, as long as there is time.
func (p Prover) Token(ctx context.Context, app App, tenants ...string) (entra.Token, error) {
	for round := 0; ; round++ {
		var first error
		unsettled := false
		for _, tenant := range tenants {
			token, err := p.Entra.Token(ctx, app.Registration, app.Scope, tenant)
			if err == nil {
				return token, nil
			}
			var refused *entra.Error
			unsettled = unsettled || errors.As(err, &refused) && refused.Class == entra.Unsettled
			first = cmp.Or(first, err)
		}
		if !unsettled || round == len(settleWaits) || !hasTime(ctx, settleWaits[round]+tryTime) || !sleep(ctx, settleWaits[round]) {
			return entra.Token{}, p.withCloud(ctx, app, tenants[0], first)
		}
	}
}

func hasTime(ctx context.Context, d time.Duration) bool {
	deadline, ok := ctx.Deadline()
	return !ok || time.Until(deadline) >= d
}

// withCloud names the cloud that the tenant is in, where a refusal may mean that it is another one.
func (p Prover) withCloud(ctx context.Context, app App, tenant string, err error) error {
	var refused *entra.Error
	if errors.As(err, &refused) && refused.MayLiveElsewhere() {
		if home, err := p.Entra.TenantCloud(ctx, app.Cloud, tenant); err == nil && home != app.Cloud {
			refused.LivesIn(home)
		}
	}
	return err
}

// maxProofs bounds how many tenants are asked to prove an app. It is more than one, since a tenant may
// refuse for reasons of its own, such as a withdrawn consent.
const maxProofs = 3

// InUse proves an app in one of the tenants of its connections, the healthiest first. An app without
// connections needs no proof.
func (p Prover) InUse(ctx context.Context, app App) error {
	connections, err := p.connectionsOf(ctx, app)
	if err != nil {
		return err
	}
	connections = slices.DeleteFunc(connections, func(c Connection) bool { return c.TenantID == "" })
	health := []Status{StatusOK, StatusRetrying, StatusRefused}
	slices.SortStableFunc(connections, func(a, b Connection) int {
		return slices.Index(health, a.Status()) - slices.Index(health, b.Status())
	})
	var tenants []string
	for _, c := range connections[:min(maxProofs, len(connections))] {
		tenants = append(tenants, c.TenantID)
	}
	if len(tenants) == 0 {
		return nil
	}
	_, err = p.Token(ctx, app, tenants...)
	return err
}

// maxPages bounds the search for healthy connections. A page that is short or empty need not be the
// last.
const maxPages = 20

// connectionsOf returns some of the app's connections, healthy ones among them if the first pages have
// any. Where none is listed, the last one may only just have been provisioned.
func (p Prover) connectionsOf(ctx context.Context, app App) ([]Connection, error) {
	var found []Connection
	healthy := 0
	cursor := ""
	for range maxPages {
		page, next, err := p.Store.Connections(ctx, app.Name, PageLimit, cursor)
		if err != nil {
			return nil, err
		}
		found = append(found, page...)
		for _, c := range page {
			if c.Status() == StatusOK {
				healthy++
			}
		}
		if cursor = next; cursor == "" || healthy >= maxProofs {
			break
		}
	}
	if len(found) > 0 || app.LastConnection == "" {
		return found, nil
	}
	c, err := p.Store.Connection(ctx, ConnectionRef{App: app.Name, Name: app.LastConnection})
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return []Connection{c}, err
}

// identify finds out as whom a federated app presents itself, so that a person can see what to enter in
// Entra.
func (p Prover) identify(ctx context.Context, app App) (App, error) {
	if app.Credential.Federation == nil {
		return app, nil
	}
	identified, err := p.Entra.Identify(ctx, *app.Credential.Federation)
	app.Credential.Federation = &identified
	return app, err
}
