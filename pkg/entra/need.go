package entra

import (
	"context"
	"crypto/sha256"
	"sync"
)

// need is one token that one or several connections wait for. Whoever comes
// first asks Entra for it; the others get the same answer.
type need struct {
	once  sync.Once
	token Token
	err   error // an [Error], or the context's
}

func (n *need) ask(ctx context.Context, client *Client, app App, tenantID string) (Token, error) {
	n.once.Do(func() { n.token, n.err = client.Token(ctx, app, tenantID) })
	return n.token, n.err
}

// needKey is what makes two connections need the same token, be they of one app
// or of two.
type needKey struct {
	credential         [sha256.Size]byte
	clientID, tenantID string
	cloud              Cloud
	scope              string
}

// needs finds the need of a connection while a listing goes on. Afterwards it
// can be let go of: a token is then kept only by the connections that still
// wait for it.
type needs map[needKey]*need

func (n needs) of(app App, tenantID string) *need {
	key := needKey{app.Credential.fingerprint(), app.ClientID, tenantID, app.Cloud, app.Scope}
	if n[key] == nil {
		n[key] = new(need)
	}
	return n[key]
}
