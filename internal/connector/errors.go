package connector

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"entra-connector/pkg/entra"
)

var (
	// ErrNotFound reports an app or a connection that does not exist, or that has been deleted.
	ErrNotFound = errors.New("not found")
	// ErrExists is what a [Store] reports when it is asked to create what is already there.
	ErrExists = errors.New("already exists")
	// ErrChanged is what a [Store] reports when it is asked to replace what has been replaced or
	// deleted since it was read.
	ErrChanged = errors.New("changed since it was read")
	// ErrUnreadable is what a [Store] reports for an app that somebody else has made unreadable.
	ErrUnreadable = errors.New("the stored app is unreadable")
)

// AppNotFoundError is [ErrNotFound] for an app that a request for a connection names.
type AppNotFoundError struct{ App string }

func (e *AppNotFoundError) Error() string { return fmt.Sprintf("app %q: not found", e.App) }

// Unwrap returns [ErrNotFound].
func (e *AppNotFoundError) Unwrap() error { return ErrNotFound }

// ConflictError reports a request that would take an app, a connection or a secret away from
// others, or that the state of one of them forbids.
type ConflictError struct {
	Reason     Conflict
	App        string
	Connection string       // if the conflict is about one
	Secret     string       // the name of the secret, for InTheWay and Replicated
	Fields     []string     // what differs, for OtherApp; Regions, for Replicated
	Advice     entra.Advice // for InTheWay and Unreadable
}

// Conflict is the reason of a [ConflictError].
type Conflict string

// The conflicts.
const (
	OtherApp    Conflict = "the app exists with other fields"
	OtherTenant Conflict = "the connection exists for another tenant"
	OtherScope  Conflict = "the connection exists for another scope"
	AppInUse    Conflict = "connections use the app"
	AppGone     Conflict = "the connection's app does not exist"
	Unreadable  Conflict = "the stored connection is unreadable"
	InTheWay    Conflict = "a secret has that name which the connector must not change"
	Connected   Conflict = "the connection exists already"
	NotAccepted Conflict = "the connection waits for its invitation to be accepted"
	Replicated  Conflict = "the secret has replicas"
)

func (e *ConflictError) Error() string { return string(e.Reason) }

// StoreError is a failure of the store. Op, Secret and Code are safe to show.
type StoreError struct {
	Op         string // the call to the store's service
	Secret     string // what it was about
	Code       string // the service's own word, or a Code constant
	Temporary  bool   // the same call may work later
	Timeout    bool   // the store did not answer in time
	Unanswered bool   // the call may have taken effect
	RetryAfter time.Duration
}

func (e *StoreError) Error() string {
	return strings.Join(slices.DeleteFunc([]string{e.Op, e.Secret, e.Code}, func(s string) bool { return s == "" }), ": ")
}

// Codes of a [StoreError] that are not the service's own.
const (
	CodeContended    = "changed_too_often" // others were faster, again and again
	CodeBusy         = "busy"              // another request may still be at work on the secret
	CodeNameTaken    = "name_not_released" // a deleted secret still holds its name
	CodeTooManyCalls = "too_many_calls"    // see [WithCalls]
)

// AtWork returns the error of a call that has to wait for another request's work on a secret.
func AtWork(op, secret string, wait time.Duration) error {
	return &StoreError{Op: op, Secret: secret, Code: CodeBusy, Temporary: true, RetryAfter: wait}
}

func atWork(err error) bool {
	var failed *StoreError
	return errors.As(err, &failed) && failed.Code == CodeBusy
}

// storeCode names an error of the store in one word, for logs and reports.
func storeCode(err error) string {
	var failed *StoreError
	switch {
	case errors.As(err, &failed):
		return failed.Code
	case errors.Is(err, ErrUnreadable):
		return CodeUnreadable
	case errors.Is(err, ErrNotFound):
		return "deleted"
	case timedOut(err):
		return entra.CodeTimeout
	}
	return "unexpected"
}

func timedOut(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// FieldError says what is wrong with one field that a caller sent. Detail never quotes the value,
// which may be a secret in the wrong place.
type FieldError struct {
	Field  string `json:"field"`
	Detail string `json:"detail"`
}

// InvalidError reports every field of a request that is missing or malformed, so that the caller
// learns everything at once.
type InvalidError struct{ Fields []FieldError }

func (e *InvalidError) Error() string {
	parts := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		parts[i] = f.Field + " " + f.Detail
	}
	return "invalid request: " + strings.Join(parts, "; ")
}

// Add adds what is wrong with a field, if anything is.
func (e *InvalidError) Add(field string, err error) {
	if err != nil {
		e.Fields = append(e.Fields, FieldError{Field: field, Detail: err.Error()})
	}
}

// Has reports whether a field is among those that are wrong.
func (e *InvalidError) Has(field string) bool {
	return slices.ContainsFunc(e.Fields, func(f FieldError) bool { return f.Field == field })
}

// Err returns the error, or nil if no field is wrong.
func (e *InvalidError) Err() error {
	if len(e.Fields) == 0 {
		return nil
	}
	return e
}
