package entra

import (
	"context"
	"net/url"

	"golang.org/x/oauth2"
)

// SignInURL is where a person signs in to any tenant of the app's cloud. The answer goes to
// redirectURI: a code, which [Client.RedeemCode] turns into an ID token, or an error. The verifier
// is that of PKCE (RFC 7636).
//
// The person always chooses an account. Otherwise somebody who looks after several tenants would be
// signed in to whichever one the browser remembers.
func (c *Client) SignInURL(app Registration, redirectURI, state, nonce, verifier string) string {
	cfg := c.signIn(app, redirectURI)
	return cfg.AuthCodeURL(state, oauth2.S256ChallengeOption(verifier),
		oauth2.SetAuthURLParam("nonce", nonce),
		oauth2.SetAuthURLParam("prompt", "select_account"),
		oauth2.SetAuthURLParam("response_mode", "query"))
}

// RedeemCode redeems the code of a sign-in and returns the ID token, which the caller has to
// verify. Errors are those of [Client.Token].
func (c *Client) RedeemCode(ctx context.Context, app Registration, redirectURI, code, verifier string) (idToken Secret, err error) {
	request, cancel := newRequest(ctx)
	defer cancel()
	cfg := c.signIn(app, redirectURI)
	assertion, err := c.assertion(request, app, cfg.Endpoint.TokenURL)
	if err != nil {
		if request.Err() != nil {
			err = transportError(ctx, request)
		}
		return Secret{}, err
	}
	options := []oauth2.AuthCodeOption{oauth2.VerifierOption(verifier)}
	for name := range assertion {
		options = append(options, oauth2.SetAuthURLParam(name, assertion.Get(name)))
	}
	answer, err := cfg.Exchange(context.WithValue(request, oauth2.HTTPClient, c.http), code, options...)
	if err != nil {
		return Secret{}, c.tokenError(ctx, request, err)
	}
	token, _ := answer.Extra("id_token").(string)
	if token == "" {
		return Secret{}, newError(Malformed, CodeMalformed)
	}
	return NewSecret(token), nil
}

// signIn asks for the person's tenant, object ID and name, and for nothing else. Organizations
// leaves out personal accounts.
func (c *Client) signIn(app Registration, redirectURI string) oauth2.Config {
	return oauth2.Config{
		ClientID:     app.ClientID,
		ClientSecret: app.Credential.ClientSecret.Reveal(),
		RedirectURL:  redirectURI,
		Scopes:       []string{"openid", "profile"},
		Endpoint: oauth2.Endpoint{
			AuthURL:   c.url(app.Cloud, "organizations", "/oauth2/v2.0/authorize"),
			TokenURL:  c.url(app.Cloud, "organizations", "/oauth2/v2.0/token"),
			AuthStyle: oauth2.AuthStyleInParams,
		},
	}
}

// AdminConsentURL is where an administrator of the tenant approves the app's permissions for the
// scope's resource. The answer goes to redirectURI, but nobody has signed it: it proves nothing.
// Source: Microsoft identity platform, "Admin consent".
func (c *Client) AdminConsentURL(app Registration, tenantID, scope, redirectURI, state string) string {
	query := url.Values{"client_id": {app.ClientID}, "scope": {scope}, "redirect_uri": {redirectURI}, "state": {state}}
	return c.url(app.Cloud, tenantID, "/v2.0/adminconsent?"+query.Encode())
}

// Issuer is the issuer of the tenant's ID tokens.
func (c *Client) Issuer(cloud Cloud, tenantID string) string { return c.url(cloud, tenantID, "/v2.0") }

// KeysURL is where the tenant's signing keys are.
func (c *Client) KeysURL(cloud Cloud, tenantID string) string {
	return c.url(cloud, tenantID, "/discovery/v2.0/keys")
}

// IsMicrosoftGraph reports whether the scope is that of Microsoft Graph, whose roles only some
// administrators may grant. Source: Microsoft Entra, "Grant tenant-wide admin consent to an
// application".
func IsMicrosoftGraph(scope string) bool {
	resource := resourceOf(scope)
	for _, known := range graph {
		if resource == known {
			return true
		}
	}
	return resource == "https://dod-graph.microsoft.us" || resource == "00000003-0000-0000-c000-000000000000"
}
