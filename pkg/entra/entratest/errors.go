package entratest

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

// errorBody is an OAuth error as Entra extends it (reference-error-codes.md).
type errorBody struct {
	Error         string `json:"error"`
	Description   string `json:"error_description"`
	Codes         []int  `json:"error_codes"`
	Timestamp     string `json:"timestamp"`
	TraceID       string `json:"trace_id"`
	CorrelationID string `json:"correlation_id"`
	URI           string `json:"error_uri"`
}

// refuse answers with an AADSTS code: 401 for an invalid_client, 400 for all else.
func (c *call) refuse(code int, detail string) answer {
	b := c.errorBody(code, detail)
	status := http.StatusBadRequest
	if b.Error == "invalid_client" {
		status = http.StatusUnauthorized
	}
	a := c.json(status, b)
	a.code = code
	return a
}

func (c *call) errorBody(code int, detail string) errorBody {
	p, ok := problems[code]
	if !ok {
		p = problem{"invalid_request", "The request failed."}
	}
	correlation := c.request.RequestID
	if !guid.MatchString(correlation) {
		correlation = newGUID()
	}
	at := c.s.now().UTC().Format("2006-01-02 15:04:05Z")
	text := strings.NewReplacer(
		"{app}", c.request.ClientID, "{tenant}", c.request.Tenant, "{scope}", c.request.Scope,
		"{detail}", detail, "{now}", c.s.now().UTC().Format(time.RFC3339),
	).Replace(p.text)
	return errorBody{
		Error: p.error,
		Description: fmt.Sprintf("AADSTS%d: %s\r\nTrace ID: %s\r\nCorrelation ID: %s\r\nTimestamp: %s",
			code, text, c.trace, correlation, at),
		Codes:         []int{code},
		Timestamp:     at,
		TraceID:       c.trace,
		CorrelationID: correlation,
		URI:           fmt.Sprintf("%s/error?code=%d", c.base, code),
	}
}

// problem is what an AADSTS code says. In text, {app}, {tenant}, {scope} and {now} are the request's,
// {detail} is what the check that failed adds.
type problem struct{ error, text string }

// problems are the codes that the grant can meet, by Microsoft's list of AADSTS codes and by what has
// been observed, and those that this server's own checks need. The texts
// follow Microsoft's; where the error string of a code is recorded nowhere, it is the likeliest.
var problems = map[int]problem{
	// The request's form.
	70003:   {"unsupported_grant_type", "The app requested an unsupported grant type '{detail}'."},
	900144:  {"invalid_request", "The request body must contain the following parameter: '{detail}'."},
	900561:  {"invalid_request", "The endpoint only accepts {detail} request."},
	9000411: {"invalid_request", "The request is not properly formatted. The parameter '{detail}' is duplicated."},
	9002313: {"invalid_request", "Invalid request. Request is malformed or invalid: {detail}."},

	// Credentials.
	70002:   {"invalid_client", "Error validating credentials."},
	7000215: {"invalid_client", "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{app}'."},
	7000216: {"invalid_client", "'client_assertion', 'client_secret' or 'request' is required for the 'client_credentials' grant type."},
	7000218: {"invalid_client", "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."},
	7000222: {"invalid_client", "The provided client secret keys for app '{app}' are expired. Visit the Azure portal to create new keys for your app: https://aka.ms/NewClientSecret, or consider using certificate credentials for added security: https://aka.ms/certCreds."},
	700025:  {"invalid_client", "Client is public so neither 'client_assertion' nor 'client_secret' should be presented."},

	// Client assertions.
	50012:   {"invalid_client", "Authentication failed. {detail}"},
	50013:   {"invalid_grant", "Assertion failed signature validation."},
	50027:   {"invalid_request", "JWT token is invalid or malformed. {detail}"},
	50048:   {"invalid_client", "Subject must match Issuer claim in the client assertion."},
	500133:  {"invalid_grant", "Assertion is not within its valid time range. Current time: {now}."},
	70021:   {"invalid_request", "No matching federated identity record found for presented assertion. {detail} https://learn.microsoft.com/entra/workload-id/workload-identity-federation"},
	700021:  {"invalid_client", "Client assertion application identifier doesn't match 'client_id' parameter."},
	700024:  {"invalid_client", "Client assertion is not within its valid time range. Current time: {now}, {detail}. Review the documentation at https://learn.microsoft.com/entra/identity-platform/certificate-credentials."},
	700027:  {"invalid_client", "Client assertion failed signature validation. [Reason - {detail}]"},
	700030:  {"invalid_client", "Invalid certificate - subject name in certificate is not authorized."},
	700211:  {"invalid_client", "No matching federated identity record found for presented assertion issuer '{detail}'. Check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"},
	700212:  {"invalid_client", "No matching federated identity record found for presented assertion audience '{detail}'. Check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"},
	700213:  {"invalid_client", "No matching federated identity record found for presented assertion subject '{detail}'. Check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"},
	700229:  {"invalid_client", "Only app-only tokens can be used as Federated Identity Credentials for the Entra issuer."},
	7002131: {"invalid_client", "No matching federated identity record found: the claims matching expression did not match."},

	// App, service principal, tenant.
	50034:   {"invalid_grant", "The user account does not exist in the directory '{tenant}'."},
	50059:   {"invalid_request", "No tenant-identifying information found in either the request or implied by any provided credentials."},
	50128:   {"invalid_request", "Invalid domain name. No tenant-identifying information found in either the request or implied by any provided credentials."},
	50194:   {"invalid_request", "Application '{app}' is not configured as a multi-tenant application. Usage of the /common endpoint is not supported for such apps. Use a tenant-specific endpoint or configure the application to be multi-tenant."},
	70001:   {"unauthorized_client", "The application named {app} was not found in the tenant named {tenant}, or is disabled."},
	70008:   {"invalid_grant", "The provided authorization code or refresh token has expired due to inactivity."},
	90002:   {"invalid_request", "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud. Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant."},
	90019:   {"invalid_request", "No tenant-identifying information found in either the request or implied by any provided credentials."},
	90038:   {"invalid_request", "The tenant '{tenant}' belongs to the National Cloud '{detail}'. A cloud redirect error is returned."},
	90124:   {"invalid_request", "The resource is not supported over the /common or /consumers endpoints. Please use the /organizations or tenant-specific endpoint."},
	90130:   {"invalid_request", "Application '{app}' is not supported over the /common or /consumers endpoints. Please use the /organizations or tenant-specific endpoint."},
	500021:  {"invalid_request", "Access to tenant '{tenant}' is denied."},
	500022:  {"invalid_request", "Access to tenant '{tenant}' is denied by its tenant restrictions."},
	700011:  {"unauthorized_client", "Application with identifier '{app}' was not found in the directory '{tenant}'."},
	700016:  {"unauthorized_client", "Application with identifier '{app}' was not found in the directory '{tenant}'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You may have sent your authentication request to the wrong tenant."},
	700082:  {"invalid_grant", "The refresh token has expired due to inactivity."},
	900023:  {"invalid_request", "Specified tenant identifier '{tenant}' is neither a valid DNS name, nor a valid external domain."},
	900382:  {"invalid_request", "Confidential Client is not supported in Cross Cloud request."},
	900432:  {"invalid_request", "Confidential Client is not supported in Cross Cloud request."},
	1000031: {"unauthorized_client", "Application {app} cannot be accessed at this time. Contact your administrator."},
	7000112: {"unauthorized_client", "Application '{app}' is disabled."},
	7000229: {"invalid_client", "The client application {app} is missing service principal in the tenant {tenant}. See instructions here: https://go.microsoft.com/fwlink/?linkid=2225119"},
	9001023: {"invalid_request", "The grant type is not supported over the /common or /consumers endpoints. Please use the /organizations or tenant-specific endpoint."},

	// Scope, resource, permission.
	28000:   {"invalid_scope", "Provided value for the input parameter scope is not valid because it contains more than one resource. Scope {scope} is not valid."},
	28002:   {"invalid_scope", "Provided value for the input parameter scope '{scope}' is not valid when requesting an access token. Please specify a valid scope."},
	28003:   {"invalid_scope", "Provided value for the input parameter scope cannot be empty when requesting an access token."},
	50001:   {"invalid_resource", "The resource principal named {detail} was not found in the tenant named {tenant}."},
	65001:   {"invalid_grant", "The user or administrator has not consented to use the application with ID '{app}'. Send an interactive authorization request for this user and resource."},
	70011:   {"invalid_scope", "The provided value for the input parameter 'scope' is not valid. The scope {scope} is not valid."},
	90094:   {"invalid_grant", "An administrator of {tenant} has set a policy that prevents you from granting this app the permissions it is requesting."},
	500011:  {"invalid_resource", "The resource principal named {detail} was not found in the tenant named {tenant}. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You might have sent your authentication request to the wrong tenant."},
	500014:  {"invalid_resource", "The service principal for resource '{detail}' is disabled. This indicates that a subscription within the tenant has lapsed, or that the administrator for this tenant has disabled the application, preventing tokens from being issued for it."},
	501051:  {"invalid_grant", "Application '{app}' is not assigned to a role for the application '{detail}'."},
	650052:  {"unauthorized_client", "The app is trying to access a service that your organization '{tenant}' lacks a service principal for."},
	650054:  {"invalid_resource", "The application '{app}' asked for permissions to access a resource that has been removed or is no longer available."},
	650056:  {"invalid_request", "Misconfigured application. The client has not listed any permissions for the requested resource, or the admin has not consented in the tenant."},
	650057:  {"invalid_resource", "Invalid resource. The client has requested access to a resource which is not listed in the requested permissions in the client's application registration."},
	700022:  {"invalid_scope", "The provided value for the input parameter scope is not valid because it contains more than one resource. Scope {scope} is not valid."},
	700023:  {"invalid_scope", "The provided value for the input parameter scope is not valid because it names no resource. Scope {scope} is not valid."},
	901002:  {"invalid_request", "The 'resource' request parameter is not supported."},
	1002012: {"invalid_scope", "The provided value for scope {scope} is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI)."},

	// Policy.
	53003:  {"invalid_grant", "Access has been blocked by Conditional Access policies. The access policy does not allow token issuance."},
	530032: {"invalid_grant", "Blocked by security policy. The tenant's security policy is blocking this request."},

	// Passing trouble. It may come with status 400, which is why a client cannot go by the status alone.
	40010: {"temporarily_unavailable", "A transient error occurred at the external identity provider. Please retry."},
	50033: {"temporarily_unavailable", "A transient error has occurred. Please try again."},
	50087: {"temporarily_unavailable", "A transient error has occurred. Please try again."},
	50196: {"invalid_grant", "The server terminated an operation because it encountered a client request loop. Please contact your app vendor."},
	90006: {"temporarily_unavailable", "The service is temporarily unavailable. Please retry."},
	90012: {"temporarily_unavailable", "The request has timed out."},
	90024: {"temporarily_unavailable", "A transient error has occurred. Please try again. (RequestBudgetExceeded)"},
	90033: {"temporarily_unavailable", "A transient error has occurred. Please try again. (MSODS is unavailable)"},
	90055: {"temporarily_unavailable", "The request is throttled: there are too many requests for the tenant."},
	90090: {"temporarily_unavailable", "A transient error occurred calling Microsoft Graph. Please retry."},
	90091: {"temporarily_unavailable", "Microsoft Graph could not be reached. Please retry."},

	// Trouble that Microsoft says not to retry.
	50000: {"server_error", "There was an error issuing a token."},
	90036: {"server_error", "An unexpected, non-retryable error has occurred in the directory."},
	90092: {"server_error", "A non-retryable error occurred calling Microsoft Graph."},
}
