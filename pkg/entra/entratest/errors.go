package entratest

import (
	"fmt"
	"net/http"
	"strings"
)

// refuse answers with an AADSTS code, in the error body of reference-error-codes.md: status 401 for
// an invalid_client, 400 for everything else.
func (c *call) refuse(code int) answer {
	p, ok := problems[code]
	if !ok {
		p = problem{"invalid_request", "The request failed."}
	}
	status := http.StatusBadRequest
	switch {
	case p.error == "invalid_client":
		status = http.StatusUnauthorized
	case c.request.Endpoint == "openid" && p.error == "invalid_request":
		p.error = "invalid_tenant"
	}
	at := c.s.options.Now().UTC().Format("2006-01-02 15:04:05Z")
	text := strings.NewReplacer(
		"{app}", c.request.ClientID, "{tenant}", c.request.Tenant, "{scope}", c.form.Get("scope"), "{detail}", c.detail,
	).Replace(p.text)
	a := c.json(status, map[string]any{
		"error": p.error,
		"error_description": fmt.Sprintf("AADSTS%d: %s\r\nTrace ID: %s\r\nCorrelation ID: %s\r\nTimestamp: %s",
			code, text, c.trace, c.correlation, at),
		"error_codes":    []int{code},
		"timestamp":      at,
		"trace_id":       c.trace,
		"correlation_id": c.correlation,
		"error_uri":      fmt.Sprintf("%s/error?code=%d", c.base, code),
	})
	a.code = code
	return a
}

// problem is what an AADSTS code says. In text, {app}, {tenant} and {scope} are the request's;
// {detail} is what the check that failed adds.
type problem struct{ error, text string }

// problems are the codes that the checks of this server need, and those that tests ask for. The
// texts follow Microsoft's. Where no record shows a code's error string, it is the likeliest.
var problems = map[int]problem{
	// The request's form.
	70003:   {"unsupported_grant_type", "The app requested an unsupported grant type '{detail}'."},
	900144:  {"invalid_request", "The request body must contain the following parameter: '{detail}'."},
	9000411: {"invalid_request", "The request is not properly formatted. The parameter '{detail}' is duplicated."},
	9002313: {"invalid_request", "Invalid request. Request is malformed or invalid: {detail}."},

	// Credentials.
	7000215: {"invalid_client", "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{app}'."},
	7000216: {"invalid_client", "'client_assertion', 'client_secret' or 'request' is required for the 'client_credentials' grant type."},
	7000222: {"invalid_client", "The provided client secret keys for app '{app}' are expired. Visit the Azure portal to create new keys for your app."},
	50012:   {"invalid_client", "Authentication failed. {detail}"},
	50027:   {"invalid_request", "JWT token is invalid or malformed."},
	50048:   {"invalid_client", "Subject must match Issuer claim in the client assertion."},
	70021:   {"invalid_request", "No matching federated identity record found for presented assertion."},
	700021:  {"invalid_client", "Client assertion application identifier doesn't match 'client_id' parameter."},
	700024:  {"invalid_client", "Client assertion is not within its valid time range."},
	700027:  {"invalid_client", "Client assertion failed signature validation. [Reason - The key was not found.]"},
	700211:  {"invalid_client", "No matching federated identity record found for presented assertion issuer '{detail}'."},
	700212:  {"invalid_client", "No matching federated identity record found for presented assertion audience '{detail}'."},
	700213:  {"invalid_client", "No matching federated identity record found for presented assertion subject '{detail}'."},

	// The code of a sign-in.
	54005:  {"invalid_grant", "OAuth2 Authorization code was already redeemed, please retry with a new valid code or use an existing refresh token."},
	70000:  {"invalid_grant", "Provided grant is invalid or malformed."},
	70008:  {"invalid_grant", "The provided authorization code or refresh token has expired due to inactivity."},
	500112: {"invalid_grant", "The reply address does not match the reply address provided when requesting Authorization code."},
	501481: {"invalid_grant", "The Code_Verifier does not match the code_challenge supplied in the authorization request."},
	700005: {"invalid_grant", "Provided Authorization Code is intended to use against other tenant, thus rejected."},

	// App, service principal, tenant.
	90002:   {"invalid_request", "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud."},
	90038:   {"invalid_request", "The tenant '{tenant}' belongs to the National Cloud '{detail}'. A cloud redirect error is returned."},
	700016:  {"unauthorized_client", "Application with identifier '{app}' was not found in the directory '{tenant}'. You may have sent your authentication request to the wrong tenant."},
	900023:  {"invalid_request", "Specified tenant identifier '{tenant}' is neither a valid DNS name, nor a valid external domain."},
	7000112: {"unauthorized_client", "Application '{app}' is disabled."},
	7000229: {"invalid_client", "The client application {app} is missing service principal in the tenant {tenant}."},

	// Scope and resource.
	70011:   {"invalid_scope", "The provided value for the input parameter 'scope' is not valid. The scope {scope} is not valid."},
	500011:  {"invalid_resource", "The resource principal named {detail} was not found in the tenant named {tenant}."},
	700022:  {"invalid_scope", "The provided value for the input parameter scope is not valid because it contains more than one resource. Scope {scope} is not valid."},
	1002012: {"invalid_scope", "The provided value for scope {scope} is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI)."},

	// It passes. It comes with status 400, which is why a client cannot go by the status alone.
	90033: {"temporarily_unavailable", "A transient error has occurred. Please try again. (MSODS is unavailable)"},
}
