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

// conflictDetail says what is in the way and how to go on.
func conflictDetail(e *connector.ConflictError) string {
	connection := e.App + "/" + e.Connection
	switch e.Reason {
	case connector.InTheWay:
		return fmt.Sprintf("Secret %s is in the way. %s. %s", e.Secret, e.Advice.Title, e.Advice.Action)
	case connector.Replicated:
		return fmt.Sprintf("Secret %s is replicated to %s, and AWS does not delete a secret with replicas. Remove the replicas first.", e.Secret, strings.Join(e.Fields, ", "))
	case connector.OtherScope:
		return fmt.Sprintf("Connection %q exists for another scope, which it keeps. Use another connection name, or delete it first.", connection)
	case connector.OtherApp:
		return fmt.Sprintf("App %q exists with another %s. Use another app name, or replace the app for all its connections with PUT /apps/%[1]s.",
			e.App, strings.Join(e.Fields, ", "))
	case connector.OtherTenant:
		return fmt.Sprintf("Connection %q exists for another tenant. Use another connection name, or delete it first.", connection)
	case connector.AppInUse:
		return fmt.Sprintf("Connections use app %q. Delete them first.", e.App)
	case connector.AppGone:
		return fmt.Sprintf("The connection's app does not exist. Create it again with PUT /apps/%s.", e.App)
	}
	return fmt.Sprintf("Connection %q cannot be refreshed. %s. %s", connection, e.Advice.Title, e.Advice.Action)
}

// storeProblem names the call, the secret and, as far as the code tells, whom to ask.
func storeProblem(e *connector.StoreError) problem {
	p := problem{Status: http.StatusInternalServerError, Type: typeInternal, Code: e.Code}
	call := fmt.Sprintf("%s on %s", e.Op, e.Secret)
	switch {
	case e.Timeout:
		p.Status, p.Type = http.StatusGatewayTimeout, typeTimeout
		p.Detail = "Secrets Manager did not answer in time (" + call + "). Send the same request again."
		return p
	case e.Code == connector.CodeBusy:
		p.Detail = "Another request may still be at work on " + e.Secret + ". Send the same request again later."
	case e.Code == connector.CodeNameTaken:
		p.Detail = "AWS has not released the name " + e.Secret + " since its deletion. Send the same request again later."
	case e.Code == connector.CodeContended:
		p.Detail = "Other requests kept changing the same secret. Send the same request again later."
	case e.Code == connector.CodeTooManyCalls:
		p.Detail = "The request would take too many calls to Secrets Manager. Send it again later."
	case e.Temporary:
		p.Detail = fmt.Sprintf("Secrets Manager is not available (%s: %s). Send the same request again later.", call, e.Code)
	default:
		p.Detail = fmt.Sprintf("Secrets Manager refused %s: %s.", call, e.Code)
		p.Action = storeAction(e)
		return p
	}
	p.Status, p.Type, p.retryAfter = http.StatusServiceUnavailable, typeUnavailable, cmp.Or(e.RetryAfter, defaultRetryAfter)
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

func entraProblem(e *entra.Error) problem {
	advice := connector.Advise(e)
	p := problem{
		Title: advice.Title, Detail: advice.Title + " (" + e.Code + ").",
		Code: e.Code, Action: advice.Action, TraceID: e.TraceID, CorrelationID: e.CorrelationID, ConsentURL: e.ConsentURL,
	}
	switch e.Class {
	case entra.Throttled, entra.Unavailable:
		p.Status, p.Type = http.StatusServiceUnavailable, typeUnavailable
		p.retryAfter = cmp.Or(e.RetryAfter, defaultRetryAfter)
		// Nothing has been stored, so no sweep tries again.
		p.Action = "Send the same request again after the time in Retry-After."
	case entra.Timeout:
		p.Status, p.Type = http.StatusGatewayTimeout, typeTimeout
		p.Action = "Send the same request again."
	case entra.Malformed:
		p.Status, p.Type = http.StatusBadGateway, typeMalformed
	default:
		p.Status, p.Type = http.StatusUnprocessableEntity, typeRefused
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
