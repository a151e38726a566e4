// Package entra gets app-only access tokens from Microsoft Entra ID for one app registration in
// many tenants. It is the protocol and nothing else: it keeps no token and knows no schedule and no
// store.
//
// Start with a [Client] and a [Registration]:
//
//	token, err := client.Token(ctx, registration, "https://graph.microsoft.com/.default", tenantID)
//
// Every call that leaves the process takes a context and stops when the context ends. It sends one
// request and does not repeat it, because Entra throttles clients that repeat themselves. [Error]
// says when another try makes sense, and what a person has to do otherwise. Nothing secret is a
// plain string: see [Secret]. Errors carry codes and identifiers, never a response body, a
// description from the wire, or a credential.
//
// The protocol is the OAuth 2.0 client credentials grant (RFC 6749 section 4.4), as Microsoft
// documents it for the v2.0 token endpoint.
package entra
