package entra

import (
	"strconv"
	"strings"
	"sync"
)

// Advice is what a person is told about a failure.
type Advice struct {
	Title  string `json:"title,omitempty"`  // what happened, in a few words
	Action string `json:"action,omitempty"` // what to do, in one sentence
	// NewCredential is set if the app's credential must be replaced wherever it is kept.
	NewCredential bool `json:"-"`
}

// row is what is known about some codes.
type row struct {
	codes         []int
	class         Class
	trait         trait
	title, action string // see Advice
}

// trait is a set of properties of a code.
type trait int

const (
	consent       trait = 1 << iota // an administrator of the tenant has not consented
	otherCloud                      // the tenant may live in another cloud
	federated                       // no federated credential matches the assertion
	newCredential                   // see Advice.NewCredential
	wrongSecret                     // the client secret may be something else, such as its ID
	general                         // of several codes, another one says more
)

func (r row) has(t trait) bool { return r.trait&t != 0 }

func (r row) advice() Advice { return Advice{r.title, r.action, r.has(newCredential)} }

// aadsts explains the codes that the client credentials grant can meet. Microsoft asks programs not
// to depend on them, so they only refine what the HTTP status and the OAuth error have already
// said.
//
// Source: Microsoft Entra authentication error codes. Codes that are missing there were observed in
// Microsoft's libraries and issue trackers.
var aadsts = []row{
	// Credentials
	{[]int{7000215}, Unsettled, wrongSecret | newCredential,
		"The client secret is wrong",
		"Use the secret's Value (not its Secret ID) from App registrations > Certificates & secrets, or create a new one there."},
	{[]int{70002}, Unsettled, wrongSecret | general | newCredential,
		"Entra does not accept the app's credential",
		"Check the client ID and its credential under App registrations > Certificates & secrets."},
	// A replica that does not know a new secret yet says that the older ones have expired.
	{[]int{7000222}, Unsettled, newCredential,
		"The client secret has expired",
		"Create a new client secret under App registrations > Certificates & secrets."},
	{[]int{7000216, 7000218}, Refused, newCredential,
		"Entra saw no credential in the request",
		"Check that a credential was sent, and that it is not empty."},
	{[]int{700025}, Refused, 0,
		"The app is registered as a public client, which cannot use a credential",
		"Under App registrations > Authentication, add a Web platform and turn off public client flows."},
	{[]int{700027}, Unsettled, 0,
		"Entra does not know the key that signed the assertion",
		"Upload the certificate in use under App registrations > Certificates & secrets > Certificates."},
	{[]int{50012, 700030, 50048, 50027, 50013}, Refused, 0,
		"Entra does not accept the client assertion",
		"Check under App registrations > Certificates & secrets that the certificate or federated credential there is the one in use here."},
	{[]int{500133, 700024}, Refused, 0,
		"The client assertion is outside its valid time",
		"Check the clock of the assertion's issuer, and the certificate's dates."},
	{[]int{70021, 700211, 700212, 700213, 7002131}, Unsettled, federated,
		"No federated credential of the app matches the assertion",
		"Under App registrations > Certificates & secrets > Federated credentials, make issuer, subject and audience match exactly."},
	{[]int{50166, 90061, 501661, 7002381}, Unavailable, 0,
		"Entra cannot fetch the signing keys of the app's assertion issuer",
		"Wait; if it lasts, check that the issuer's OpenID configuration can be reached from the internet."},
	{[]int{1000502}, Refused, newCredential,
		"The app's certificate has expired, or is not valid yet",
		"Upload a certificate that is valid now under App registrations > Certificates & secrets > Certificates."},
	{[]int{7000214}, Refused, newCredential,
		"The app's certificate has been revoked",
		"Upload a new certificate under App registrations > Certificates & secrets > Certificates."},
	{[]int{7000213}, Refused, newCredential,
		"Entra does not accept the chain of the app's certificate",
		"Check the certificate's issuer, or upload another certificate under App registrations > Certificates & secrets > Certificates."},
	{[]int{700229}, Refused, 0,
		"Entra accepts only app-only tokens as this federated credential",
		"Correct the federated credential under App registrations > Certificates & secrets."},

	// App, service principal, tenant
	{[]int{700016, 7000229, 700011}, Unsettled, consent | otherCloud,
		"The app is not known in the customer's tenant",
		"Have an administrator of that tenant grant admin consent to the app; if it was granted, check the client ID, the tenant ID and the cloud."},
	{[]int{7000112, 70001}, Refused, 0,
		"The app is disabled in the customer's tenant",
		"Have an administrator of that tenant enable it under Enterprise applications > Properties > Enabled for users to sign-in."},
	{[]int{1000031}, Refused, 0,
		"The app cannot be accessed at this time",
		"Have an administrator of the tenant look at the app under Enterprise applications."},
	{[]int{90002, 900023}, Refused, otherCloud,
		"There is no such tenant in this cloud",
		"Check the tenant ID under Entra ID > Overview in the customer's portal, and the cloud."},
	{[]int{90019, 50059, 50128, 9001023, 90124, 90130}, Refused, 0,
		"The request does not name one customer's tenant",
		"Use the GUID or a verified domain of the customer's tenant."},
	{[]int{50194}, Refused, 0,
		"The app is not registered for other tenants",
		"Under App registrations > Authentication, allow accounts in any organizational directory, or use the app in its home tenant."},
	{[]int{90038}, Refused, otherCloud,
		"The tenant belongs to another national cloud",
		"Use the cloud that the tenant is in, with an app registered there."},
	{[]int{900382, 900432}, Refused, otherCloud,
		"The app and the tenant are in different national clouds",
		"Register the app under App registrations in the tenant's cloud and use that registration."},
	{[]int{500021, 500022}, Refused, 0,
		"Tenant restrictions block access to this tenant",
		"Have the administrator who set the tenant restrictions allow it under External Identities > Cross-tenant access settings."},

	// Scope, resource, permission
	{[]int{70011, 1002012, 28002, 28003, 700022, 700023, 901002}, Refused, 0,
		"Entra does not accept the scope",
		"Use one resource followed by /.default, as the resource's documentation names it."},
	{[]int{500011}, Unsettled, 0,
		"The tenant does not have the resource that the scope names",
		"Check the scope and the cloud; if they are right, have the customer subscribe to the product under Billing in the Microsoft 365 admin center."},
	{[]int{500014}, Refused, 0,
		"The resource is disabled in the tenant",
		"Have the customer renew its subscription, or enable the resource under Enterprise applications."},
	{[]int{650052}, Refused, 0,
		"The tenant has not subscribed to the service that the scope names",
		"Have the customer subscribe to the service under Billing in the Microsoft 365 admin center, or use another scope."},
	{[]int{650054, 650057, 50001}, Refused, 0,
		"The app registration does not ask for this resource",
		"Add the resource under App registrations > API permissions and have the customer consent again."},
	{[]int{65001, 650056, 90094}, Unsettled, consent,
		"An administrator has not consented to the app's permissions",
		"Have an administrator of the tenant grant admin consent under Enterprise applications > Permissions."},
	{[]int{501051}, Refused, 0,
		"The resource requires an app role that the app does not have",
		"Have an administrator of the tenant assign the app a role of the resource under Enterprise applications."},

	// Policy
	{[]int{53003, 53000, 53001, 53002, 53004, 530031, 530034, 530084}, Refused, 0,
		"A Conditional Access policy blocks the app",
		"Have an administrator of the tenant allow this app or its network addresses under Protection > Conditional Access."},
	{[]int{530032}, Refused, 0,
		"A security policy of the tenant blocks the app",
		"Have an administrator of the tenant allow this app under Protection > Conditional Access."},

	// Passing. These can arrive with status 400.
	{[]int{50196, 90055}, Throttled, 0, throttled.Title, throttled.Action},
	{[]int{90085, 90033, 90006, 90012, 90024, 50033, 90090, 90091, 40010, 50087}, Unavailable, 0, unavailable.Title, unavailable.Action},
	{[]int{90036, 90092, 50000}, Refused, 0,
		"Entra could not issue a token",
		"If it lasts, open a Microsoft support request with the trace ID."},
}

var (
	throttled   = Advice{Title: "Entra is throttling requests", Action: "Wait: the next attempt is made when Entra allows it."}
	unavailable = Advice{Title: "Entra is not available", Action: "Wait: it will be tried again."}
)

// failures explains failures without an AADSTS code, and stands in for codes that are not in the
// table.
var failures = map[string]Advice{
	CodeThrottled:   throttled,
	CodeUnavailable: unavailable,
	CodeTimeout:     {Title: "Entra did not answer in time", Action: "Wait: it will be tried again."},
	CodeMalformed: {Title: "The answer is not a token response",
		Action: "Check the authority host, and any proxy between this program and Entra."},
	CodeNoAssertion: {Title: "The app uses federation, but this program has nothing that issues assertions",
		Action: "Give the client a source of assertions, or the app another credential."},

	"invalid_client": {Title: "Entra does not accept the app's credential",
		Action: "Check the client ID and its credential under App registrations > Certificates & secrets.", NewCredential: true},
	"unauthorized_client": {Title: "The app may not use this grant in this tenant",
		Action: "Check the client ID, the tenant ID and the cloud, and have an administrator of the tenant grant admin consent."},
	"invalid_scope": {Title: "Entra does not accept the scope",
		Action: "Use one resource followed by /.default, as the resource's documentation names it."},
	"invalid_resource": {Title: "Entra does not accept the resource that the scope names",
		Action: "Check the scope and the cloud, and that the tenant has the product."},
	"temporarily_unavailable": unavailable,
	"server_error":            unavailable,
	"invalid_tenant":          {Title: "There is no such tenant in this cloud", Action: "Check the tenant ID and the cloud."},
}

const codePrefix = "AADSTS"

var byCode = sync.OnceValue(func() map[string]row {
	m := make(map[string]row)
	for _, r := range aadsts {
		for _, code := range r.codes {
			m[codePrefix+strconv.Itoa(code)] = r
		}
	}
	return m
})

// rowOf returns what is known about an AADSTS code. A code that is not in the table is [Refused].
func rowOf(code string) row { return byCode()[code] }

// Explain returns the advice for a code: an AADSTS code, an OAuth error, or one of the Code
// constants. It has advice for any code.
func Explain(code string) Advice { return explain(code, "") }

// explain returns the advice for a code, or for the OAuth error that came with it if the code
// is not in the table.
func explain(code, oauthError string) Advice {
	if r, ok := byCode()[code]; ok {
		return r.advice()
	}
	if a, ok := failures[code]; ok {
		return a
	}
	a, ok := failures[oauthError]
	if !ok {
		a = Advice{Title: "Entra refused the request", Action: "Check the app, the tenant and the scope."}
	}
	if number, ok := strings.CutPrefix(code, codePrefix); ok {
		a.Title += " (error " + number + ")"
	}
	return a
}
