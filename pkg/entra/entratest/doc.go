// Package entratest is a stand-in for Microsoft Entra ID: the v2.0 token endpoint for the client
// credentials flow, and the OpenID configuration, as strict as their documentation. Every test,
// make demo and make local run against it.
//
//	s := entratest.Start(t, entratest.Options{})
//	s.AddTenant(entratest.Tenant{ID: tenant, Domains: []string{"contoso.com"}})
//	s.AddApp(entratest.App{ClientID: client, Secrets: []entratest.Secret{{Value: secret}}})
//	s.Consent(tenant, client, "User.Read.All")
//	// … point the client at s.URL(), then look at s.Requests() …
//
// It imports nothing of the package that it is there to test, so that the two cannot be wrong in the
// same way. Trouble comes on demand, as a [Fault]. What has no place in Entra answers 404 and is a
// [Request] without an Endpoint. It keeps every request and token until [Server.ResetRequests].
//
// It is not safe for production use: it has no defence against anyone who can reach it.
//
// # What it rests on
//
// Documented by Microsoft, or read in the source of its libraries:
//
//   - request fields, Basic authentication, the "/.default" rule, one resource for each request
//   - the success body; ext_expires_in is optional; a token may lack roles
//   - the error body; codes and their meaning, but for those named below
//   - certificate assertions: PS256 with x5t#S256, or RS256 with x5t; aud, iss, sub, jti, nbf, exp
//   - federated assertions: RS256, exact match of issuer, subject and the one audience
//   - the literal {tenantid} issuer of common and organizations
//   - openid, profile, email and offline_access are no resource: MSAL sends them always
//
// Observed by someone, in issue threads and recorded answers:
//
//   - 401 for invalid_client, 400 for all else; error strings of 90002, 900023, 70021, 700211, 700213, 7000229
//   - 7000216 for no credential, 900144 for a missing field, 9000411 for a doubled one, 900561 for a wrong method
//   - 9001023, 50059 for a shared authority; invalid_tenant from the OpenID configuration
//   - 50012 for an assertion's wrong audience (later also seen as 700023)
//   - 429 as text with Retry-After: 60
//   - a tenant of another cloud has an OpenID configuration with that cloud's addresses
//
// Assumed:
//
//   - which of several faults of a request is named: the order in judge
//   - 700016 for a single-tenant app elsewhere, 9002313 for two credentials, 70011 for one scope twice,
//     1002012 for white space around the scope or no resource in it
//   - 50012 for a reused or missing jti; no allowance for clock skew
//   - client-request-id is echoed if it is a GUID
//   - error strings of codes that nobody has recorded; passing trouble under status 400
//   - msgraph_host and tenant_region_scope outside the public cloud
package entratest
