// Package entra gets app-only access tokens from Microsoft Entra ID for one
// app in many customer tenants, and keeps them fresh.
//
// Start with [Provisioner], which proves credentials by getting a token before
// anything is stored, and [Sweeper], which refreshes the tokens that are due.
// Both ask Entra through a [Client] and keep what they know in a [Store] that
// the caller supplies; the package itself imports no cloud vendor's SDK.
//
// Every call that leaves the process takes a context and returns when it ends.
// A token request is sent once: retrying is left to the next sweep, because
// Entra throttles clients that repeat themselves. Nothing secret is a plain
// string: see [Secret]. Errors and log lines carry codes and identifiers, never
// a response body, a description from the wire, or a credential.
//
// The protocol is the OAuth 2.0 client credentials grant (RFC 6749 section
// 4.4) as Microsoft documents it for the v2.0 token endpoint.
package entra
