package connector

import (
	"context"
	"crypto/sha256"
	"sync"

	"entra-connector/pkg/entra"
)

// need is one token that one or several connections wait for. Whoever comes first asks Entra for
// it. The others get the same answer.
type need struct {
	once  sync.Once
	token entra.Token
	err   error // an [entra.Error], or the context's
}

func (n *need) get(ctx context.Context, client *entra.Client, app App, c Connection) (entra.Token, error) {
	n.once.Do(func() { n.token, n.err = client.Token(ctx, app.Registration, c.Scope, c.TenantID) })
	if n.err == nil && n.token.RequestedAt.Before(c.RefreshedAt) {
		// The connection has been refreshed since the shared token was requested.
		return client.Token(ctx, app.Registration, c.Scope, c.TenantID)
	}
	return n.token, n.err
}

// needKey is what makes two connections need the same token, whether they belong to one app or to
// two.
type needKey struct {
	credential         [sha256.Size]byte
	clientID, tenantID string
	cloud              entra.Cloud
	scope              string
}

// needs finds the need of a connection while a listing goes on. Once the listing is over it can be
// dropped: then only the connections that still wait for a token keep it.
type needs map[needKey]*need

func (n needs) of(app App, c Connection) *need {
	key := needKey{app.Credential.Fingerprint(), app.ClientID, c.TenantID, app.Cloud, c.Scope}
	if n[key] == nil {
		n[key] = new(need)
	}
	return n[key]
}
