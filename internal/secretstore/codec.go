package secretstore

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"entra-connector/pkg/entra"
)

// noApp is the value of an app that has been deleted.
const noApp = "{}"

// tombstone is the Description of a secret that has been deleted. It outlives a
// restore, so that only the write that follows makes the secret count again.
const tombstone = `{"status":"deleted"}`

func isTombstone(description *string) bool { return aws.ToString(description) == tombstone }

// app is the JSON of an app's secret and, without the credential, of its
// Description.
type app struct {
	ClientID     string      `json:"client_id"`
	ClientSecret string      `json:"client_secret,omitempty"`
	Scope        string      `json:"scope"`
	Cloud        entra.Cloud `json:"cloud"`
	ChangedAt    time.Time   `json:"changed_at"`
}

func encodeApp(a entra.App) string {
	return encode(app{a.ClientID, a.ClientSecret.Reveal(), a.Scope, a.Cloud, a.ChangedAt.UTC()})
}

func describeApp(a entra.App) string {
	return encode(app{ClientID: a.ClientID, Scope: a.Scope, Cloud: a.Cloud, ChangedAt: a.ChangedAt.UTC()})
}

func decodeApp(name, value string) (entra.App, error) {
	var a app
	if value == noApp {
		return entra.App{}, entra.ErrNotFound
	}
	if json.Unmarshal([]byte(value), &a) != nil {
		return entra.App{}, &entra.StoreError{Op: "reading app", Code: "unreadable"}
	}
	return a.entra(name), nil
}

// describedApp reads a Description that a person may have edited: what cannot
// be read stays empty.
func describedApp(name, description string) entra.App {
	var a app
	_ = json.Unmarshal([]byte(description), &a)
	return a.entra(name)
}

func (a app) entra(name string) entra.App {
	return entra.App{
		Name: name, ClientID: a.ClientID, ClientSecret: entra.NewSecret(a.ClientSecret),
		Scope: a.Scope, Cloud: a.Cloud, ChangedAt: a.ChangedAt,
	}
}

// connection is the JSON of a connection's Description, at most 2,048
// characters. Status comes first for the person who reads it in the console.
type connection struct {
	Status      entra.Status `json:"status"`
	ExpiresAt   time.Time    `json:"expires_at"`
	RefreshedAt time.Time    `json:"refreshed_at"`
	Lifetime    int64        `json:"lifetime"` // seconds
	TokenType   string       `json:"token_type"`
	TenantID    string       `json:"tenant_id"`
	Cloud       entra.Cloud  `json:"cloud"`
	Scope       string       `json:"scope"`
	Failure     *failure     `json:"failure,omitempty"`
}

type failure struct {
	Code          string    `json:"code"`
	At            time.Time `json:"at"`
	Attempts      int       `json:"attempts"`
	NextAttempt   time.Time `json:"next_attempt_at"`
	TraceID       string    `json:"trace_id,omitempty"`
	CorrelationID string    `json:"correlation_id,omitempty"`
}

func encodeConnection(c entra.Connection) string {
	d := connection{
		Status: c.Status(), ExpiresAt: c.ExpiresAt.UTC(), RefreshedAt: c.RefreshedAt.UTC(), Lifetime: int64(c.Lifetime / time.Second),
		TokenType: c.TokenType, TenantID: c.TenantID, Cloud: c.Cloud, Scope: c.Scope,
	}
	if f := c.Failure; f != nil {
		d.Failure = &failure{f.Code, f.At.UTC(), f.Attempts, f.NextAttempt.UTC(), f.TraceID, f.CorrelationID}
	}
	return encode(d)
}

// decodeConnection leaves TenantID empty where the Description is not one that
// encodeConnection wrote.
func decodeConnection(ref entra.ConnectionRef, name, arn, description *string) entra.Connection {
	c := entra.Connection{ConnectionRef: ref, SecretName: aws.ToString(name), SecretARN: aws.ToString(arn)}
	var d connection
	if json.Unmarshal([]byte(aws.ToString(description)), &d) != nil {
		return c
	}
	c.TenantID, c.Cloud, c.Scope, c.TokenType = d.TenantID, d.Cloud, d.Scope, d.TokenType
	c.ExpiresAt, c.RefreshedAt, c.Lifetime = d.ExpiresAt, d.RefreshedAt, time.Duration(d.Lifetime)*time.Second
	if f := d.Failure; f != nil {
		c.Failure = &entra.Failure{
			Status: d.Status, Code: f.Code, At: f.At, Attempts: f.Attempts, NextAttempt: f.NextAttempt,
			TraceID: f.TraceID, CorrelationID: f.CorrelationID,
		}
	}
	return c
}

func encodeToken(t entra.Token) string { return encode(t.Values()) }

// encode writes JSON as it is, without the escapes that keep it safe in HTML
// and would triple the length of a scope.
func encode(v any) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // strings, numbers and times only
	}
	return strings.TrimSuffix(b.String(), "\n")
}
