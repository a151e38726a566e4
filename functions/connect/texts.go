package main

import (
	"net/http"
	"strings"
	"time"

	"entra-connector/internal/connector"
	"entra-connector/pkg/entra"
)

// This file has all that the page says. In a text, {product}, {service} and the like stand for what
// view fills in.

// end is a page, mostly one at which a way ends.
type end string

const (
	welcome   end = "welcome"
	confirm   end = "confirm"
	spreading end = "spreading"
	done      end = "done"

	used    end = "used"
	revoked end = "revoked"
	expired end = "expired"
	noLink  end = "unknown"
	busy    end = "busy"
	broken  end = "broken"

	// Where comeBack sends those whose invitation it does not know. Their names are in the address.
	elsewhere end = "approved"
	lost      end = "lost"
	altered   end = "altered"
)

// text is what a page says.
type text struct {
	status  int
	tone    string // good, wait or stop
	title   string
	lines   []string
	facts   bool // says who connects what
	buttons []button
	refresh int // seconds until the browser looks again; 0: never
}

// button takes a step; see goOn.
type button struct{ Step, Label string }

var (
	signInAgain = button{"start", "Sign in again"}
	tryAgain    = button{"connect", "Try again"}
	checkNow    = button{"check", "I have approved it, check now"}
)

const (
	openAgain = "Open the link from your invitation again. It still works."
	passOn    = "Send the address of this page to somebody who is. It is your invitation, and it stays good until {expires}."
	ask       = "Ask {contact}."
)

var texts = map[end]text{
	welcome: {http.StatusOK, "", "Connect your Microsoft tenant to {product}", []string{
		"{product} asks for access to {service} in your organization's Microsoft tenant. You sign in at Microsoft, see the permissions there, and approve them for your organization.",
		"{product} stores an access token for {service} and your tenant's ID, and renews the token by itself. It gets no password, and nothing of your own account.",
		"Only an administrator can do this. If you are not one, send the address of this page to somebody who is. Looking at it spends nothing.",
	}, true, []button{{"start", "Continue with Microsoft"}}, 0},
	confirm: {http.StatusOK, "", "Is this the right tenant?", []string{
		"You are about to connect this tenant to {product}. Microsoft shows the permissions next, unless your organization has approved them already.",
	}, true, []button{{"connect", "Connect this tenant"}, {"start", "Use another account"}}, 0},
	spreading: {http.StatusOK, "wait", "Waiting for Microsoft", []string{
		"You have approved {product}. It takes Microsoft a moment to make that known everywhere, mostly less than a minute, at times ten.",
		"This page looks again by itself. You may also close it, and open your invitation later.",
	}, true, nil, 5},
	done: {http.StatusOK, "good", "Connected", []string{
		"{product} has access to {service} in your tenant now, and keeps it. There is nothing left to do. You can close this page.",
		"To take it back, open Enterprise applications in Microsoft Entra and delete the app with the ID below, or ask {contact}.",
	}, true, nil, 0},

	used: {http.StatusGone, "stop", "This invitation has been used", []string{
		"A tenant has been connected with it already, and it works only once.", "If you did not expect that, ask {contact}."}, false, nil, 0},
	revoked: {http.StatusGone, "stop", "This invitation has been withdrawn", []string{"{product} has withdrawn it. " + ask}, false, nil, 0},
	expired: {http.StatusGone, "stop", "This invitation has expired", []string{"Ask {contact} for a new one."}, false, nil, 0},
	noLink: {http.StatusNotFound, "stop", "There is no such invitation", []string{
		"The link may be incomplete, or a newer one has replaced it.", "Open the latest one as it was sent to you, or ask {contact}."}, false, nil, 0},
	busy: {http.StatusServiceUnavailable, "wait", "This takes longer than usual", []string{
		"Something that this page needs is not available at the moment. Nothing is lost. Open your invitation again in a minute."}, false, nil, 0},
	broken: {http.StatusInternalServerError, "stop", "Something is wrong on our side", []string{
		"You can do nothing about it. Tell {contact}, and open your invitation again later."}, false, nil, 0},

	elsewhere: {http.StatusOK, "good", "Approved at Microsoft", []string{
		"Microsoft says that the permissions have been approved. One step is left: open the link from your invitation, and sign in."}, false, nil, 0},
	lost: {http.StatusBadRequest, "stop", "We cannot tell what this belongs to", []string{
		"Microsoft sent you here, but this browser does not remember why. It may have been too long ago, or in another browser.", openAgain}, false, nil, 0},
	altered: {http.StatusBadRequest, "stop", "This answer does not fit", []string{
		"What came back is not the answer to what was asked last. It may be old, or was changed on its way. Nothing was done.", openAgain}, false, nil, 0},
}

// codes are the pages of refusals. Codes of Microsoft's are those of its list of error codes.
var codes = map[string]text{
	connector.CodeDeclined: {http.StatusForbidden, "stop", "Not approved", []string{
		"The permissions were not approved at Microsoft, so nothing was connected.", "You can try again, or ask {contact} what they are for."}, true, []button{tryAgain}, 0},
	connector.CodeNotAdmin: {http.StatusForbidden, "stop", "An administrator is needed", []string{
		"{account} is not an administrator who may approve this for your organization. That takes a Global Administrator or a Privileged Role Administrator{other}.",
		passOn, "If your role has to be activated first, activate it and sign in again."}, true, []button{signInAgain}, 0},
	connector.CodeOtherTenant: {http.StatusForbidden, "stop", "This is another tenant", []string{
		"You signed in to a tenant that this invitation is not for.", "Sign in with an account of the right tenant. If this is the right one, ask {contact} for another invitation."}, true, []button{signInAgain}, 0},
	connector.CodePersonal: {http.StatusForbidden, "stop", "This is a personal account", []string{
		"Only a work or school account belongs to an organization.", "Sign in with your work account."}, false, []button{signInAgain}, 0},
	connector.CodeGuest: {http.StatusForbidden, "stop", "You are a guest in this tenant", []string{
		"{account} is a guest there, and guests cannot connect it.", "Sign in with an account of the tenant itself, or send the address of this page to its administrator."}, true, []button{signInAgain}, 0},
	connector.CodeNoWids: {http.StatusUnprocessableEntity, "stop", "We cannot see that you are an administrator", []string{
		"Microsoft did not tell us which roles you have. That is a setting on our side.", "Tell {contact} that the setting groupMembershipClaims is missing, and open your invitation again later."}, true, []button{signInAgain}, 0},
	connector.CodeDeviceFilter: {http.StatusForbidden, "stop", "Your organization's policy stops this page", []string{
		"A Conditional Access policy with device filters keeps Microsoft's approval page from opening (AADSTS50097). You can approve in the portal instead:",
		"In the Microsoft Entra admin center, open Enterprise applications, choose the app with the ID below, then Permissions, and press “Grant admin consent”. Then come back here."}, true, []button{checkNow, tryAgain}, 0},
	connector.CodeNotSpread: {http.StatusAccepted, "wait", "Microsoft has not caught up yet", []string{
		"You approved {product}, but Microsoft still does not act on it.", "Come back later to this page and check again. If it lasts until tomorrow, ask {contact}."}, true, []button{{"check", "Check again"}}, 0},
	connector.CodeTampered: {http.StatusBadRequest, "stop", "This answer does not fit", []string{
		"Microsoft's answer is about another tenant than the one you signed in to. Nothing was connected."}, true, []button{signInAgain}, 0},
	connector.CodeUnverified: {http.StatusForbidden, "stop", "The sign-in could not be verified", []string{
		"What came back from Microsoft does not prove who you are. Nothing was connected.", "Sign in again. If it happens twice, tell {contact}."}, false, []button{signInAgain}, 0},
	connector.CodeShortLived: {http.StatusUnprocessableEntity, "stop", "Your tenant's tokens are too short-lived", []string{
		"A policy of your tenant makes access tokens expire too soon to be kept fresh.", "Exempt the app with the ID below from the token lifetime policy, or set the policy to at least half an hour, and try again."}, true, []button{tryAgain}, 0},
}

// families are refusals that Microsoft has several codes for.
var families = []struct {
	codes string
	text  text
}{
	{"53003 53000 53001 53002 53004 530032 530031 530034 530084 50158 50105", text{http.StatusForbidden, "stop", "A policy of your organization blocks this", []string{
		"Microsoft refused because of a Conditional Access policy or an assignment ({code}).", "Use a device and a network that the policy allows, or ask whoever keeps the policy. Then sign in again."}, true, []button{signInAgain}, 0}},
	{"90093 90094 90095 consent_required", text{http.StatusForbidden, "stop", "An administrator is needed", []string{
		"Your organization lets only administrators approve this. If you sent a request to them at Microsoft, wait until it is granted ({code}).", passOn}, true, []button{tryAgain, signInAgain}, 0}},
	{"50020 50034 51004 16000 16003 500200 500201 500021 500022 500212 500213", text{http.StatusForbidden, "stop", "This account does not belong to the tenant", []string{
		"Microsoft says that the account is not one of the tenant, or that the tenant does not let it in ({code}).", "Sign in with an account of your organization."}, true, []button{signInAgain}, 0}},
	{"650052 500011 500014", text{http.StatusUnprocessableEntity, "stop", "Your tenant does not have {service}", []string{
		"Microsoft says that your organization has not subscribed to it, or has disabled it ({code}).", "Subscribe to it or enable it, then try again."}, true, []button{tryAgain}, 0}},
	{"90006 90024 90033 90090 90012 90055 650051 server_error temporarily_unavailable unavailable timeout throttled", text{http.StatusServiceUnavailable, "wait", "Microsoft is busy", []string{
		"Microsoft could not answer just now ({code}). Nothing is lost. Try again in a minute."}, true, []button{tryAgain, signInAgain}, 0}},
	{"login_required interaction_required 54005 70008 invalid_grant " + connector.CodeSignInFailed, text{http.StatusBadRequest, "stop", "The sign-in did not finish", []string{
		"Microsoft broke it off, or it took too long ({code}). Nothing is lost."}, false, []button{signInAgain}, 0}},
}

// unknownCode is most likely a mistake in the app registration.
var unknownCode = text{http.StatusUnprocessableEntity, "stop", "Microsoft does not accept the app", []string{
	"That is most likely a mistake on our side, not on yours.", "Tell {contact} that Microsoft answered {code}, and open your invitation again later."}, true, []button{tryAgain}, 0}

// endOf returns the page of a code.
func endOf(code string) end { return end("code " + code) }

func textOf(page end) text {
	code, isCode := strings.CutPrefix(string(page), "code ")
	if !isCode {
		return texts[page]
	}
	if t, ok := codes[code]; ok {
		return t
	}
	for _, family := range families {
		for known := range strings.FieldsSeq(family.codes) {
			if code == known || code == "AADSTS"+known {
				return family.text
			}
		}
	}
	return unknownCode
}

// services are the names that people know, by the short names that stand for the scope.
var services = [][2]string{
	{"microsoft-graph", "Microsoft Graph"}, {"azure-devops", "Azure DevOps"}, {"azure-storage", "Azure Storage"},
	{"azure-sql", "Azure SQL"}, {"business-central", "Dynamics 365 Business Central"},
}

func serviceName(scope string) string {
	for _, s := range services {
		for _, cloud := range []entra.Cloud{entra.Public, entra.USGov, entra.China, entra.Bleu, entra.Delos, entra.GovSG} {
			if known, err := entra.ServiceScope(s[0], cloud); err == nil && known == scope {
				return s[1]
			}
		}
	}
	return strings.TrimSuffix(scope, "/.default")
}

// filled returns the text with everything in its place.
func (v *visit) filled(page end) text {
	t := textOf(page)
	other := ", or for this service an Application Administrator"
	if entra.IsMicrosoftGraph(v.guest.Scope) {
		other = ""
	}
	code, _ := strings.CutPrefix(string(page), "code ")
	replace := strings.NewReplacer(
		"{product}", v.product, "{service}", serviceName(v.guest.Scope), "{other}", other, "{code}", code,
		"{contact}", contactName(v.contact), "{account}", orElse(v.pass.Account, "This account"), "{expires}", day(v.guest.ExpiresAt),
	)
	t.title = replace.Replace(t.title)
	lines := make([]string, len(t.lines))
	for i, line := range t.lines {
		lines[i] = replace.Replace(line)
	}
	t.lines = lines
	return t
}

func contactName(contact string) string { return orElse(contact, "whoever sent you the link") }

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func day(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04 UTC") }
