package entra

import (
	"errors"
	"fmt"
	"time"
)

// ErrNotFound is reported for an app or a connection that does not exist, or
// that has been deleted.
var ErrNotFound = errors.New("not found")

// ErrExists is reported by a [Store] asked to create what is already there.
var ErrExists = errors.New("already exists")

// ErrChanged is reported by a [Store] asked to replace what has been replaced or
// deleted since it was read.
var ErrChanged = errors.New("changed since it was read")

// ConflictError reports that a request would take an app or a connection away
// from others. Detail says how to go on.
type ConflictError struct{ Detail string }

func (e *ConflictError) Error() string { return e.Detail }

// StoreError is a failure of the store. Code is the store's own word for it,
// and all that is safe to show.
type StoreError struct {
	Op        string
	Code      string
	Temporary bool // the same call may work later
}

func (e *StoreError) Error() string { return fmt.Sprintf("%s: %s", e.Op, e.Code) }

// Class says what a failed exchange with Entra calls for.
type Class int

const (
	// Refused: Entra will go on refusing until a person acts.
	Refused Class = iota
	// Unsettled: a refusal that also occurs for some minutes after a change
	// (a new secret, consent or federation) that is not yet known everywhere.
	Unsettled
	// Throttled: too many requests; see RetryAfter.
	Throttled
	// Unavailable: Entra, or the way there, is out of order.
	Unavailable
	// Timeout: no answer in time.
	Timeout
	// Malformed: an answer that is not a token response.
	Malformed
)

// String returns the class's name, in lower case.
func (c Class) String() string {
	return [...]string{"refused", "unsettled", "throttled", "unavailable", "timeout", "malformed"}[c]
}

// settling is how long after a change an [Unsettled] refusal is taken for one
// that passes. Propagation of seconds to minutes has been observed; Microsoft
// documents no limit.
const settling = 15 * time.Minute

// Codes of failures that carry no AADSTS code.
const (
	CodeThrottled   = "throttled"
	CodeUnavailable = "unavailable"
	CodeTimeout     = "timeout"
	CodeMalformed   = "invalid_response"
	CodeAppMissing  = "app_not_found"
	CodeNotFound    = "connection_not_found"
	CodeUnreadable  = "unreadable_state"
	CodeShortLived  = "token_lifetime_too_short"

	// Of the AWS side of federation.
	CodeFederationDisabled = "federation_disabled"
	CodeFederationDenied   = "federation_denied"
	CodeIssuerUnavailable  = "sts_unavailable"

	codeOtherCloud = "AADSTS90038"
)

// Error is a failed exchange with Entra. It holds nothing of the answer but
// codes and identifiers: a proxy's error page may echo the form that was sent,
// and Entra's description is text for people.
type Error struct {
	Class         Class
	Code          string        // "AADSTS7000222", an OAuth error, or a Code constant
	RetryAfter    time.Duration // zero where Entra sent none
	TraceID       string        // for Microsoft's support
	CorrelationID string        // the client-request-id that was sent

	ConsentURL  string      // where an administrator consents, if that is what it takes
	TenantCloud Cloud       // where the tenant lives, if not where it was looked for
	Federation  *Federation // what a federated credential has to repeat, if it does not
}

func (e *Error) Error() string { return "entra: " + e.Code + ": " + e.Title() }

// Title says in a few words what happened.
func (e *Error) Title() string { return Explain(e.Code).Title }

// Action says in one sentence what a person must do.
func (e *Error) Action() string {
	switch f := e.Federation; {
	case e.TenantCloud != "":
		return fmt.Sprintf("Use cloud %q, with an app that is registered there.", e.TenantCloud)
	case f != nil:
		return fmt.Sprintf("Under App registrations > Certificates & secrets > Federated credentials, enter issuer %s, subject %s and audience %s to the letter.",
			f.Issuer, f.Subject, f.Audience)
	}
	return Explain(e.Code).Action
}

// Passes reports whether the failure is expected to go away by itself, given
// when the app last changed.
func (e *Error) Passes(now, changed time.Time) bool {
	switch e.Class {
	case Refused:
		return false
	case Unsettled:
		return now.Sub(changed) < settling
	}
	return true
}
