package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"entra-connector/internal/connector"
	"entra-connector/pkg/entra"
)

// problem is a problem document (RFC 9457).
type problem struct {
	Type          string                 `json:"type"`
	Title         string                 `json:"title"`
	Status        int                    `json:"status"`
	Detail        string                 `json:"detail"`
	Errors        []connector.FieldError `json:"errors,omitempty"`
	Code          string                 `json:"code,omitempty"`
	Action        string                 `json:"action,omitempty"`
	TraceID       string                 `json:"trace_id,omitempty"`
	CorrelationID string                 `json:"correlation_id,omitempty"`
	ConsentURL    string                 `json:"consent_url,omitempty"`

	retryAfter time.Duration
}

func (p *problem) Error() string { return p.Detail }

// The types that a program may branch on.
const (
	typePrefix = "urn:entra-connector:problem:"

	typeInvalid     = typePrefix + "invalid-request"
	typeNotFound    = typePrefix + "not-found"
	typeMethod      = typePrefix + "method-not-allowed"
	typeConflict    = typePrefix + "conflict"
	typeTooLarge    = typePrefix + "too-large"
	typeMediaType   = typePrefix + "unsupported-media-type"
	typeRefused     = typePrefix + "refused"
	typeMalformed   = typePrefix + "invalid-response"
	typeUnavailable = typePrefix + "unavailable"
	typeTimeout     = typePrefix + "timeout"
	typeInternal    = typePrefix + "internal"
)

var (
	errNoRoute   = &problem{Status: http.StatusNotFound, Type: typeNotFound, Detail: "There is nothing at this path."}
	errMethod    = &problem{Status: http.StatusMethodNotAllowed, Type: typeMethod, Detail: "This path does not support the method; see Allow."}
	errNoPage    = &problem{Status: http.StatusNotFound, Type: typeNotFound, Detail: "There is no page for customers.", Action: "Deploy the stack with ConnectPage=true."}
	errTooLarge  = &problem{Status: http.StatusRequestEntityTooLarge, Type: typeTooLarge, Detail: "The body is larger than 64 KiB."}
	errMediaType = &problem{Status: http.StatusUnsupportedMediaType, Type: typeMediaType, Detail: "Send Content-Type: application/json, in UTF-8."}
	errNotJSON   = &problem{Status: http.StatusBadRequest, Type: typeInvalid, Detail: "The body must be one JSON object."}
)

// defaultRetryAfter is sent if the error names no time of its own.
const defaultRetryAfter = 30 * time.Second

// problemOf is the one place where an error becomes an answer.
func problemOf(err error) problem {
	var (
		ready    *problem
		invalid  *connector.InvalidError
		noApp    *connector.AppNotFoundError
		conflict *connector.ConflictError
		refused  *entra.Error
		store    *connector.StoreError
	)
	switch {
	case errors.As(err, &ready):
		return *ready
	case errors.As(err, &invalid):
		return problem{Status: http.StatusBadRequest, Type: typeInvalid, Title: "The request is invalid",
			Detail: "See errors for each field that is wrong.", Errors: invalid.Fields}
	case errors.As(err, &noApp):
		return problem{Status: http.StatusNotFound, Type: typeNotFound,
			Detail: fmt.Sprintf("There is no app %q. Send all app fields with the request, or create it first with PUT /apps/%[1]s.", noApp.App)}
	case errors.As(err, &conflict):
		return problem{Status: http.StatusConflict, Type: typeConflict, Detail: conflictDetail(conflict)}
	case errors.As(err, &refused):
		return entraProblem(refused)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return problem{Status: http.StatusGatewayTimeout, Type: typeTimeout, Detail: "There was no answer in time. Send the same request again."}
	case errors.Is(err, connector.ErrUnreadable):
		return problem{Status: http.StatusInternalServerError, Type: typeInternal, Detail: "The stored app is unreadable. Replace it with PUT /apps/{app}."}
	case errors.As(err, &store):
		return storeProblem(store)
	}
	return problem{Status: http.StatusInternalServerError, Type: typeInternal, Detail: "Something unexpected happened."}
}

// conflictDetails say what is in the way and how to go on.
var conflictDetails = map[connector.Conflict]string{
	connector.InTheWay:    `Secret {secret} is in the way. {advice}`,
	connector.Replicated:  `Secret {secret} is replicated to {fields}, and AWS does not delete a secret with replicas. Remove the replicas first.`,
	connector.OtherScope:  `Connection "{connection}" exists for another scope, which it keeps. Use another connection name, or delete it first.`,
	connector.OtherApp:    `App "{app}" exists with another {fields}. Use another app name, or replace the app for all its connections with PUT /apps/{app}.`,
	connector.OtherTenant: `Connection "{connection}" exists for another tenant. Use another connection name, or delete it first.`,
	connector.Connected:   `Connection "{connection}" exists already, so nobody has to be invited. Use another connection name, or delete it first.`,
	connector.NotAccepted: `Connection "{connection}" waits for its invitation to be accepted.`,
	connector.AppInUse:    `Connections use app "{app}". Delete them first.`,
	connector.AppGone:     `The connection's app does not exist. Create it again with PUT /apps/{app}.`,
	connector.Unreadable:  `Connection "{connection}" cannot be refreshed. {advice}`,
}

func conflictDetail(e *connector.ConflictError) string {
	return strings.NewReplacer(
		"{app}", e.App, "{connection}", e.App+"/"+e.Connection, "{secret}", e.Secret,
		"{fields}", strings.Join(e.Fields, ", "), "{advice}", e.Advice.Title+". "+e.Advice.Action,
	).Replace(conflictDetails[e.Reason])
}

// passingDetails explain codes of the store that pass.
var passingDetails = map[string]string{
	connector.CodeBusy:         "Another request may still be at work on {secret}. Send the same request again later.",
	connector.CodeNameTaken:    "AWS has not released the name {secret} since its deletion. Send the same request again later.",
	connector.CodeContended:    "Other requests kept changing the same secret. Send the same request again later.",
	connector.CodeTooManyCalls: "The request would take too many calls to Secrets Manager. Send it again later.",
}

// storeProblem names the call, the secret and, as far as the code tells, whom to ask.
func storeProblem(e *connector.StoreError) problem {
	p := problem{Code: e.Code}
	detail, passes := passingDetails[e.Code]
	switch {
	case e.Timeout:
		p.Status, p.Type = http.StatusGatewayTimeout, typeTimeout
		detail = "Secrets Manager did not answer in time ({call}). Send the same request again."
	case passes || e.Temporary:
		p.Status, p.Type, p.retryAfter = http.StatusServiceUnavailable, typeUnavailable, cmp.Or(e.RetryAfter, defaultRetryAfter)
		detail = cmp.Or(detail, "Secrets Manager is not available ({call}: {code}). Send the same request again later.")
	default:
		p.Status, p.Type, p.Action = http.StatusInternalServerError, typeInternal, storeAction(e)
		detail = "Secrets Manager refused {call}: {code}."
	}
	p.Detail = strings.NewReplacer("{secret}", e.Secret, "{call}", e.Op+" on "+e.Secret, "{code}", e.Code).Replace(detail)
	return p
}

func storeAction(e *connector.StoreError) string {
	switch e.Code {
	case "AccessDeniedException":
		return "Allow the function's role secretsmanager:" + e.Op + " on this secret and the use of its KMS key; also look for a deny in a service control policy, a permissions boundary or a resource policy."
	case "DecryptionFailure", "EncryptionFailure":
		return "Check that the secret's KMS key is enabled, and that its policy lets the function's role use it."
	case "InvalidParameterException":
		if e.Op == "TagResource" {
			return "Remove tags from the secret: AWS allows 50, and the connector needs some."
		}
	case "LimitExceededException":
		return "Wait until AWS drops old versions of the secret (it keeps about a hundred a day), or ask AWS for a higher quota of secrets."
	}
	return ""
}

// entraProblems have what the class of a failure decides. Nothing has been stored, so no sweep
// tries again: the caller has to.
var entraProblems = map[entra.Class]problem{
	entra.Refused:     {Status: http.StatusUnprocessableEntity, Type: typeRefused},
	entra.Unsettled:   {Status: http.StatusUnprocessableEntity, Type: typeRefused},
	entra.Throttled:   {Status: http.StatusServiceUnavailable, Type: typeUnavailable, Action: "Send the same request again after the time in Retry-After."},
	entra.Unavailable: {Status: http.StatusServiceUnavailable, Type: typeUnavailable, Action: "Send the same request again after the time in Retry-After."},
	entra.Timeout:     {Status: http.StatusGatewayTimeout, Type: typeTimeout, Action: "Send the same request again."},
	entra.Malformed:   {Status: http.StatusBadGateway, Type: typeMalformed},
}

func entraProblem(e *entra.Error) problem {
	advice := connector.Advise(e)
	p := entraProblems[e.Class]
	p.Title, p.Detail, p.Action = advice.Title, advice.Title+" ("+e.Code+").", cmp.Or(p.Action, advice.Action)
	p.Code, p.TraceID, p.CorrelationID, p.ConsentURL = e.Code, e.TraceID, e.CorrelationID, e.ConsentURL
	if p.Status == http.StatusServiceUnavailable {
		p.retryAfter = cmp.Or(e.RetryAfter, defaultRetryAfter)
	}
	return p
}

func writeProblem(w *response, err error) {
	p := problemOf(err)
	if p.Title == "" {
		p.Title = http.StatusText(p.Status)
	}
	if p.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(p.retryAfter.Seconds()))))
	}
	w.cause = err
	writeJSON(w, "application/problem+json", p.Status, p)
}

func absent(kind, name string, err error) error {
	if errors.Is(err, connector.ErrNotFound) {
		return &problem{Status: http.StatusNotFound, Type: typeNotFound, Detail: fmt.Sprintf("There is no %s %q.", kind, name)}
	}
	return err
}
