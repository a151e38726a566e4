package entra

import (
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Explanation is what a person is told of a failure.
type Explanation struct {
	Title  string // what happened
	Action string // one sentence: what to do
}

type codeEntry struct {
	codes []int
	class Class
	Explanation
}

// consentCodes are met where an administrator of the tenant has not consented.
var consentCodes = []int{700016, 7000229, 700011, 65001, 650056, 90094}

// federationCodes are met where no federated credential matches.
var federationCodes = []int{70021, 700211, 700212, 700213, 7002131}

// otherCloudCodes are met where the tenant may live in another cloud.
var otherCloudCodes = []int{90002, 90038, 700016, 900382, 900432}

func isOneOf(code string, codes []int) bool {
	number, err := strconv.Atoi(strings.TrimPrefix(code, codePrefix))
	return err == nil && slices.Contains(codes, number)
}

// aadsts explains the codes that the client credentials grant can meet.
// Microsoft asks that programs not depend on them, so they only refine what
// the HTTP status and the OAuth error have already told.
//
// Source: Microsoft Entra authentication error codes; codes that are missing
// there have been observed in Microsoft's libraries and issue trackers.
var aadsts = []codeEntry{
	// Credentials
	{[]int{7000215, 70002}, Unsettled, Explanation{
		"The client secret is wrong",
		"Use the secret's Value (not its Secret ID) from App registrations > Certificates & secrets, or create a new one there; PUT /apps/{app} replaces a stored one.",
	}},
	{[]int{7000222}, Refused, Explanation{
		"The client secret has expired",
		"Create a new client secret under App registrations > Certificates & secrets; PUT /apps/{app} replaces a stored one.",
	}},
	{[]int{7000216, 7000218}, Refused, Explanation{
		"Entra saw no credential in the request",
		"Store the app's credential again with PUT /apps/{app}.",
	}},
	{[]int{700025}, Refused, Explanation{
		"The app is registered as a public client, which cannot use a credential",
		"Under App registrations > Authentication, add a Web platform and turn off public client flows.",
	}},
	{[]int{700027}, Unsettled, Explanation{
		"Entra does not know the key that signed the assertion",
		"Upload the certificate in use under App registrations > Certificates & secrets > Certificates.",
	}},
	{[]int{50012, 700030, 50048, 50027, 50013}, Refused, Explanation{
		"Entra does not accept the client assertion",
		"Check under App registrations > Certificates & secrets that the certificate or federated credential there is the one in use here.",
	}},
	{[]int{500133, 700024}, Refused, Explanation{
		"The client assertion is outside its valid time",
		"Check the clock of whatever issues the assertion, and the certificate's dates.",
	}},
	{federationCodes, Unsettled, Explanation{
		"No federated credential of the app matches the assertion",
		"Under App registrations > Certificates & secrets > Federated credentials, make issuer, subject and audience match exactly.",
	}},
	{[]int{700229}, Refused, Explanation{
		"Entra accepts only app-only tokens as this federated credential",
		"Correct the federated credential under App registrations > Certificates & secrets.",
	}},

	// App, service principal, tenant
	{[]int{700016, 7000229, 700011}, Unsettled, Explanation{
		"The app is not known in the customer's tenant",
		"Have an administrator of that tenant grant admin consent to the app; if it was granted, check the client ID, the tenant ID and the cloud.",
	}},
	{[]int{7000112, 70001}, Refused, Explanation{
		"The app is disabled in the customer's tenant",
		"Have an administrator of that tenant enable it under Enterprise applications > Properties > Enabled for users to sign-in.",
	}},
	{[]int{1000031}, Refused, Explanation{
		"The app cannot be accessed at this time",
		"Have an administrator of the tenant look at the app under Enterprise applications.",
	}},
	{[]int{90002, 900023}, Refused, Explanation{
		"There is no such tenant in this cloud",
		"Check the tenant ID under Entra ID > Overview in the customer's portal, and the cloud.",
	}},
	{[]int{90019, 50059, 50128, 9001023, 90124, 90130}, Refused, Explanation{
		"The request does not name a tenant of its own",
		"Use the GUID or a verified domain of the customer's tenant.",
	}},
	{[]int{50194}, Refused, Explanation{
		"The app is not registered for other tenants",
		"Under App registrations > Authentication, allow accounts in any organizational directory, or use the app in its home tenant.",
	}},
	{[]int{90038}, Refused, Explanation{
		"The tenant belongs to another national cloud",
		"Use the cloud that the tenant is in, with an app registered there.",
	}},
	{[]int{900382, 900432}, Refused, Explanation{
		"The app is registered in another national cloud than the tenant",
		"Register the app under App registrations in the tenant's cloud and use that registration.",
	}},
	{[]int{500021, 500022}, Refused, Explanation{
		"Tenant restrictions block access to this tenant",
		"Have the administrator who set the tenant restrictions allow it under External Identities > Cross-tenant access settings.",
	}},

	// Scope, resource, permission
	{[]int{70011, 1002012, 28002, 28003, 700022, 700023, 901002}, Refused, Explanation{
		"Entra does not accept the scope",
		"Use one resource followed by /.default, as the resource's documentation names it, with PUT /apps/{app}.",
	}},
	{[]int{500011}, Unsettled, Explanation{
		"The tenant does not have the resource that the scope names",
		"Check the scope and the cloud; if they are right, have the customer subscribe to the product under Billing in the Microsoft 365 admin center.",
	}},
	{[]int{500014}, Refused, Explanation{
		"The resource is disabled in the tenant",
		"Have the customer renew its subscription, or enable the resource under Enterprise applications.",
	}},
	{[]int{650052}, Refused, Explanation{
		"The tenant has not subscribed to the service that the scope names",
		"Have the customer subscribe to the service under Billing in the Microsoft 365 admin center, or use another scope.",
	}},
	{[]int{650054, 650057, 50001}, Refused, Explanation{
		"The app registration does not ask for this resource",
		"Add the resource under App registrations > API permissions and have the customer consent again.",
	}},
	{[]int{65001, 650056, 90094}, Unsettled, Explanation{
		"An administrator has not consented to the app's permissions",
		"Have an administrator of the tenant grant admin consent under Enterprise applications > Permissions.",
	}},
	{[]int{501051}, Refused, Explanation{
		"The resource requires an app role that the app does not have",
		"Have an administrator of the tenant assign the app a role of the resource under Enterprise applications.",
	}},

	// Policy
	{[]int{53003}, Refused, Explanation{
		"A Conditional Access policy blocks the app",
		"Have an administrator of the tenant allow this app or its network addresses under Protection > Conditional Access.",
	}},
	{[]int{530032}, Refused, Explanation{
		"A security policy of the tenant blocks the app",
		"Have an administrator of the tenant allow this app under Protection > Conditional Access.",
	}},

	// Passing. These can arrive with status 400.
	{[]int{50196, 90055}, Throttled, throttled},
	{[]int{90033, 90006, 90012, 90024, 50033, 90090, 90091, 40010, 50087}, Unavailable, unavailable},
	{[]int{90036, 90092, 50000}, Refused, Explanation{
		"Entra could not issue a token",
		"If it lasts, open a Microsoft support request with the trace ID.",
	}},
}

var (
	throttled = Explanation{
		"Entra is throttling requests",
		"Nothing: the next attempt waits as long as Entra asked.",
	}
	unavailable = Explanation{
		"Entra is not available",
		"Nothing, if it passes: the next sweep tries again.",
	}
)

// explanations covers failures without an AADSTS code, and stands in for codes
// that are not in the table.
var explanations = map[string]Explanation{
	CodeThrottled:   throttled,
	CodeUnavailable: unavailable,
	CodeTimeout:     {"Entra did not answer in time", "Nothing, if it passes: the next sweep tries again."},
	CodeMalformed:   {"The answer is not a token response", "Check what stands between this function and Entra, such as a proxy, and AZURE_AUTHORITY_HOST."},
	CodeNotFound:    {"There is no such connection", "Check the name; a connection that was just provisioned may take five minutes to be listed."},
	CodeUnreadable:  {"What is stored of the connection is unreadable", "Provision it again with POST /connections."},
	CodeShortLived: {"The tenant's policy issues tokens too short-lived to be kept fresh",
		"Have an administrator of the tenant exempt the app from the token lifetime policy, or set it to half an hour at least."},
	CodeFederationDisabled: {"AWS does not issue identity tokens for this account",
		"Turn on outbound web identity federation for the AWS account in IAM > Account settings, and deploy with the parameter Federation=true."},
	CodeFederationDenied: {"The function may not ask AWS STS for an identity token",
		"Deploy with the parameter Federation=true, which grants sts:GetWebIdentityToken to both functions."},
	CodeIssuerUnavailable: {"AWS STS did not issue an identity token", "Nothing, if it passes: the next sweep tries again."},
	WarnNoRoles: {"The token carries no permission",
		"Have an administrator of the tenant grant the app an application permission under Enterprise applications > Permissions, then refresh the connection."},
	WarnDevOps: {"Azure DevOps decides by its own list of users",
		"Add the app's service principal to the organization under Organization settings > Users, with a Basic licence."},
	WarnShortLived: {"The tenant's policy issues short-lived tokens",
		"Have an administrator of the tenant lengthen the token lifetime policy to half an hour at least, or readers may find an expired token."},
	CodeAppMissing: {"The connection's app does not exist", "Create the app again with PUT /apps/{app}, or delete the connection."},

	"invalid_client":      {"Entra does not accept the app's credential", "Check the client ID and its credential under App registrations > Certificates & secrets, and store them with PUT /apps/{app}."},
	"unauthorized_client": {"The app may not use this grant in this tenant", "Check the client ID, the tenant ID and the cloud, and have an administrator of the tenant grant admin consent."},
	"invalid_scope":       {"Entra does not accept the scope", "Use one resource followed by /.default with PUT /apps/{app}."},
	"invalid_resource":    {"Entra does not accept the resource that the scope names", "Check the scope and the cloud, and that the tenant has the product."},
	"invalid_tenant":      {"There is no such tenant in this cloud", "Check the tenant ID and the cloud."},
}

var byCode = sync.OnceValue(func() map[string]codeEntry {
	m := make(map[string]codeEntry)
	for _, entry := range aadsts {
		for _, code := range entry.codes {
			m[codePrefix+strconv.Itoa(code)] = entry
		}
	}
	return m
})

const codePrefix = "AADSTS"

// Explain returns what to tell a person of a code: an AADSTS code, an OAuth
// error, or one of the Code constants. It has an answer for any code.
func Explain(code string) Explanation {
	if entry, ok := byCode()[code]; ok {
		return entry.Explanation
	}
	if e, ok := explanations[code]; ok {
		return e
	}
	if number, ok := strings.CutPrefix(code, codePrefix); ok {
		return Explanation{
			"Entra refused the request",
			"Look up error " + number + " in Microsoft's list of Entra authentication error codes.",
		}
	}
	return Explanation{"Entra refused the request", "Check the app, the tenant and the scope."}
}
