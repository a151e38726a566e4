package entra

import (
	"fmt"
	"time"
)

// Class says what a failed exchange with Entra calls for.
type Class int

const (
	// Refused: Entra will go on refusing until a person acts.
	Refused Class = iota
	// Unsettled: a refusal that also occurs for some minutes after a change, such as a new secret,
	// consent or federated credential, until the change is known everywhere.
	Unsettled
	// Throttled: too many requests. See RetryAfter.
	Throttled
	// Unavailable: Entra has failed, or cannot be reached.
	Unavailable
	// Timeout: no answer in time.
	Timeout
	// Malformed: the answer is not what Entra sends.
	Malformed
)

// String returns the class's name, in lower case.
func (c Class) String() string {
	return [...]string{"refused", "unsettled", "throttled", "unavailable", "timeout", "malformed"}[c]
}

// Codes of failures that carry no AADSTS code and no OAuth error.
const (
	CodeThrottled   = "throttled"
	CodeUnavailable = "unavailable"
	CodeTimeout     = "timeout"
	CodeMalformed   = "invalid_response"
	CodeNoAssertion = "no_assertion_source"

	codeOtherCloud = "AADSTS90038"
)

// Error is a failed exchange with Entra. It holds codes and identifiers of the answer, and nothing
// else: a proxy's error page may echo the form that was sent, and Entra's description is text for
// people.
type Error struct {
	Class         Class
	Code          string        // "AADSTS7000222", an OAuth error, or a Code constant
	Advice                      // for the person who has to act
	RetryAfter    time.Duration // zero if Entra sent none
	TraceID       string        // for Microsoft's support
	CorrelationID string        // the client-request-id that was sent
	ConsentURL    string        // where an administrator consents, if that would help
}

func (e *Error) Error() string { return "entra: " + e.Code + ": " + e.Title }

// newError returns an error with the advice for its code.
func newError(class Class, code string) *Error {
	return &Error{Class: class, Code: code, Advice: Explain(code)}
}

// MayLiveElsewhere reports whether the reason may be that the tenant is in another cloud.
// [Client.TenantCloud] tells.
func (e *Error) MayLiveElsewhere() bool { return rowOf(e.Code).has(otherCloud) }

// LivesIn records that the tenant is in another cloud, where consent in this one does not help.
func (e *Error) LivesIn(cloud Cloud) {
	e.Action = fmt.Sprintf("Use cloud %q, with an app that is registered there.", cloud)
	e.ConsentURL = ""
}
