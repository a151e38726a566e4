package connector

import (
	"strings"

	"entra-connector/pkg/entra"
)

// Codes of failures that are the connector's own. Those of Entra are in package entra.
const (
	CodeAppMissing = "app_not_found"
	CodeNotFound   = "connection_not_found"
	CodeUnreadable = "unreadable_state"
	CodeUnfinished = "deletion_unfinished"
	CodeUnknown    = "state_unknown"
	CodeExpired    = "token_expired"
	CodeShortLived = "token_lifetime_too_short"
)

// Codes of warnings: a token was issued and stored, but may not do what it is for.
const (
	WarnNoRoles    = "no_roles"
	WarnDevOps     = "azure_devops_user"
	WarnSharePoint = "sharepoint_client_secret"
	WarnShortLived = "short_lived_token"
)

// own explains the connector's own codes.
var own = map[string]entra.Advice{
	CodeAppMissing: {Title: "The connection's app does not exist", Action: "Create the app again with PUT /apps/{app}, or delete the connection."},
	CodeNotFound: {Title: "There is no such connection",
		Action: "Check the name; a connection that was just provisioned may take five minutes to be listed."},
	CodeUnreadable: {Title: "The stored connection is unreadable", Action: "Provision it again with POST /connections."},
	CodeUnfinished: {Title: "The connection's deletion has not finished",
		Action: "Delete it again, or provision it again with POST /connections a minute later."},
	CodeUnknown: {Title: "The state of the connection is unknown", Action: "Wait: the next sweep refreshes it."},
	CodeExpired: {Title: "The stored token has expired",
		Action: "Check the alarms, and look for the connection in the refresh function's log."},
	CodeShortLived: {Title: "The tenant's policy makes tokens too short-lived to keep fresh",
		Action: "Have an administrator of the tenant exempt the app from the token lifetime policy, or set it to at least half an hour."},
	WarnNoRoles: {Title: "The token carries no permission",
		Action: "Have an administrator of the tenant grant the app an application permission under Enterprise applications > Permissions, then refresh the connection."},
	WarnDevOps: {Title: "Azure DevOps decides by its own list of users",
		Action: "Add the app's service principal to the organization under Organization settings > Users, with a Basic licence."},
	WarnSharePoint: {Title: "SharePoint does not accept tokens obtained with a client secret",
		Action: "Give the app a certificate with PUT /apps/{app}, or use Microsoft Graph."},
	WarnShortLived: {Title: "The tenant's policy issues short-lived tokens",
		Action: "Have an administrator of the tenant set the token lifetime policy to at least half an hour; otherwise readers may find an expired token."},

	// On the page for customers.
	CodeDeclined: {Title: "The customer's administrator declined the permissions", Action: "Ask why; the same link works again."},
	CodeNotAdmin: {Title: "Somebody opened the link who is no administrator", Action: "Ask the customer to pass the same link on to an administrator."},
	CodeOtherTenant: {Title: "Somebody signed in to another tenant than the one that the invitation names",
		Action: "Check the tenant with the customer; if it is right, invite again without it or with the other one."},
	CodePersonal: {Title: "Somebody signed in with a personal account", Action: "Ask for a sign-in with a work account of the customer; the same link works."},
	CodeGuest:    {Title: "Somebody signed in as a guest of the tenant", Action: "Ask the customer to pass the same link on to an administrator of the tenant itself."},
	CodeNoWids: {Title: "The app registration does not send the directory roles of who signs in",
		Action: "In the app registration's manifest set groupMembershipClaims to DirectoryRole, or invite with the tenant's name."},
	CodeDeviceFilter: {Title: "A Conditional Access policy with device filters stops the consent page (AADSTS50097)",
		Action: "Have the administrator grant consent in the portal: Enterprise applications > the app > Permissions; then the same link finishes."},
	CodeNotSpread:    {Title: "The consent was given, but Entra does not act on it yet", Action: "Have the administrator open the same link again later."},
	CodeTampered:     {Title: "Microsoft's answer did not belong to the sign-in", Action: "Have the administrator open the same link again."},
	CodeLinkExpired:  {Title: "The invitation has expired", Action: "Invite again, or delete the connection."},
	CodeSignInFailed: {Title: "The sign-in at Microsoft did not succeed", Action: "Have the administrator open the same link again."},
	CodeUnverified:   {Title: "The sign-in's ID token is not valid", Action: "Check the app's cloud and the connector's clock, and have the administrator open the same link again."},
}

// Explain returns the advice for a code: one of the connector's own, or of Entra's.
func Explain(code string) entra.Advice {
	if a, ok := own[code]; ok {
		return a
	}
	return here(entra.Explain(code))
}

// Advise returns the advice for a failed exchange with Entra.
func Advise(e *entra.Error) entra.Advice { return here(e.Advice) }

// here adds how to give the connector a new credential.
func here(a entra.Advice) entra.Advice {
	if a.NewCredential {
		a.Action = strings.TrimSuffix(a.Action, ".") + ", and replace the stored credential with PUT /apps/{app}."
		a.NewCredential = false
	}
	return a
}

// refusal returns an error for one of the connector's own codes.
func refusal(code string) *entra.Error {
	return &entra.Error{Class: entra.Refused, Code: code, Advice: own[code]}
}
