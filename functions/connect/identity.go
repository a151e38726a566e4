package main

import (
	"context"
	"crypto/subtle"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/golang-jwt/jwt/v5"

	"entra-connector/internal/connector"
	"entra-connector/pkg/entra"
)

// identity is who has signed in, by a verified ID token.
type identity struct {
	TenantID string   `json:"tid"`
	Account  string   `json:"preferred_username"` // to show, never to decide
	Version  string   `json:"ver"`
	Roles    []string `json:"wids"` // template IDs of directory roles; nil if the registration does not ask for them
	Provider string   `json:"idp"`  // another one than the issuer for a guest
	Kind     any      `json:"acct"` // 1 for a guest
}

var (
	errToken    = errors.New("the ID token is not valid")
	errPersonal = errors.New("the account is a personal one")
)

// verifier verifies ID tokens.
type verifier struct {
	entra *entra.Client
	now   func() time.Time
	http  *http.Client
}

// verify checks signature, issuer, audience, times, version and nonce. The token says which tenant
// it comes from, but only that tenant's own issuer and keys can confirm that.
func (v verifier) verify(ctx context.Context, app entra.Registration, token entra.Secret, nonce string) (id identity, err error) {
	var claimed struct {
		jwt.RegisteredClaims
		TenantID string `json:"tid"`
	}
	if _, _, err := jwt.NewParser().ParseUnverified(token.Reveal(), &claimed); err != nil {
		return id, errToken
	}
	tenant, err := entra.ParseTenant(claimed.TenantID)
	switch {
	case claimed.TenantID == consumers:
		return id, errPersonal
	case err != nil, tenant != claimed.TenantID, strings.Contains(tenant, "."):
		return id, errToken
	}
	ctx = oidc.ClientContext(ctx, v.http)
	verified, err := oidc.NewVerifier(
		v.entra.Issuer(app.Cloud, tenant),
		oidc.NewRemoteKeySet(ctx, v.entra.KeysURL(app.Cloud, tenant)),
		&oidc.Config{ClientID: strings.ToLower(app.ClientID), SupportedSigningAlgs: []string{oidc.RS256}, Now: v.now},
	).Verify(ctx, token.Reveal())
	switch {
	case ctx.Err() != nil:
		return id, ctx.Err()
	case err != nil, verified.Claims(&id) != nil:
		return id, errToken
	case len(verified.Audience) != 1, id.Version != "2.0", id.TenantID != tenant,
		subtle.ConstantTimeCompare([]byte(verified.Nonce), []byte(nonce)) != 1:
		return id, errToken
	}
	if id.Provider == verified.Issuer {
		id.Provider = ""
	}
	return id, nil
}

// consumers is the tenant of personal accounts.
const consumers = "9188040d-6c67-4c5b-b112-36a304b66dad"

// Directory roles that may grant tenant-wide consent, by template ID. The last two may not grant roles
// of Microsoft Graph.
// Sources: Microsoft Entra, "Built-in roles" and "Grant tenant-wide admin consent to an application".
var (
	administrators = []string{
		"62e90394-69f5-4237-9190-012177145e10", // Global Administrator
		"e8611ab8-c189-46e8-94e1-60213ab1f814", // Privileged Role Administrator
	}
	appAdministrators = []string{
		"9b895d92-2cd3-44c7-9d02-a6ac2d5ea5c3", // Application Administrator
		"158c047a-c907-4556-b7ef-446551a6b5f7", // Cloud Application Administrator
	}
)

// refusal returns the code of why somebody may not accept an invitation, or nothing.
func (id identity) refusal(guest connector.Guest) string {
	named := guest.TenantID == id.TenantID
	has := func(roles []string) bool {
		return slices.ContainsFunc(id.Roles, func(role string) bool { return slices.Contains(roles, role) })
	}
	switch {
	case guest.TenantID != "" && !named:
		return connector.CodeOtherTenant
	case has(administrators), has(appAdministrators) && !entra.IsMicrosoftGraph(guest.Scope):
		return ""
	case id.isGuest():
		return connector.CodeGuest
	case named:
		return ""
	case id.Roles == nil:
		return connector.CodeNoWids
	}
	return connector.CodeNotAdmin
}

func (id identity) isGuest() bool {
	return id.Provider != "" || id.Kind == "1" || id.Kind == 1. // JSON numbers are float64
}
