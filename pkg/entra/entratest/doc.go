// Package entratest is a stand-in for Microsoft Entra ID: the v2.0 token endpoint for the client
// credentials flow, the OpenID configuration, and in a browser sign-in and admin consent, as strict
// as their documentation. The tests, make demo and make local run against it.
//
//	s := entratest.Start(t, entratest.Options{})
//	s.AddTenant(entratest.Tenant{ID: tenant, Domains: []string{"contoso.com"}})
//	s.AddApp(entratest.App{ClientID: client, Secrets: []entratest.Secret{{Value: secret}}})
//	s.Consent(tenant, client, "User.Read.All")
//	// Point the client at s.URL(), then look at s.Requests().
//
// It imports nothing of the package that it is there to test, so that the two cannot be wrong in
// the same way. It signs its tokens, so that a resource can verify them. A [Fault] makes it fail.
// It keeps every request and token until [Server.ResetRequests]. It does not defend itself against
// its clients.
//
// # What it rests on
//
// Microsoft documents these, or its libraries' source shows them:
//
//   - the request's fields, the "/.default" rule, one resource for each request
//
//   - the success body, in which ext_expires_in is optional; a token may lack roles
//
//   - the error body; the codes and their meaning, except those named below
//
//   - certificate assertions: PS256 with x5t#S256; aud, iss, sub, jti, nbf, exp
//
//   - federated assertions: RS256, an exact match of issuer, subject and the one audience
//
//   - openid, profile, email and offline_access name no resource: MSAL always sends some of them
//
//   - the code flow with PKCE, the claims of ID tokens, the redirects of admin consent
//
// Issue threads and recorded answers show these:
//
//   - the redirects of a refused admin consent, which have no tenant; AADSTS50097 with device filters
//   - 401 for invalid_client, 400 for everything else
//   - the error strings of 90002, 900023, 70021, 700211, 700213 and 7000229
//   - 7000216 for no credential, 900144 for a missing field, 9000411 for a field sent twice
//   - 900023 for a shared authority such as common; invalid_tenant from the OpenID configuration
//   - 50012 for an assertion's wrong audience (700023 was seen later)
//   - 429 as text with Retry-After: 60
//   - a tenant of another cloud has an OpenID configuration with that cloud's addresses
//
// These are assumptions:
//
//   - of the code flow, only what this project sends is accepted
//   - somebody without a directory role has the wids of a member; a guest signs in to the inviting tenant
//   - which code Entra names when several things are wrong: the order in judge
//   - 9002313 for two credentials, 70011 for one scope sent twice, 1002012 for white space around
//     the scope or no resource in it, 50012 for a jti that is missing or was used before
//   - an assertion's times allow for no clock skew, and its audience is no list, not even of one
//   - every token but Azure Storage's has the claims of version 2.0, and appid besides azp
//   - the answer has the client-request-id of the request, or a new one
//   - the error strings of codes that nobody has recorded; 90033 with status 400
//   - 404 for another method, where Entra answers 900561
package entratest
