package secretstore

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"entra-connector/internal/connector"
	"entra-connector/pkg/entra"
)

// tombstone is the value and the Description of a secret that has been deleted. It outlives a restore,
// so that the secret counts again only with the next write.
const tombstone = `{"status":"deleted"}`

func isTombstone(description *string) bool { return aws.ToString(description) == tombstone }

// app is the JSON of an app's secret. Its Description is the same without what must not be seen. Both
// name the kind of credential.
type app struct {
	ClientID     string      `json:"client_id"`
	Credential   string      `json:"credential"`
	ClientSecret string      `json:"client_secret,omitempty"`
	Certificate  string      `json:"certificate,omitempty"` // PEM
	Thumbprint   string      `json:"thumbprint,omitempty"`
	ExpiresAt    time.Time   `json:"expires_at,omitzero"` // of the credential
	Federation   *federation `json:"federation,omitempty"`
	Scope        string      `json:"scope"`
	Cloud        entra.Cloud `json:"cloud"`
	ChangedAt    time.Time   `json:"changed_at"`
	RotatedAt    time.Time   `json:"rotated_at"`
	// LastConnection is in the Description only.
	LastConnection string `json:"last_connection,omitempty"`
}

type federation struct {
	Audience string `json:"audience"`
	Issuer   string `json:"issuer,omitempty"`
	Subject  string `json:"subject,omitempty"`
}

func encodeApp(a connector.App) string {
	stored := newApp(a)
	stored.ClientSecret = a.Credential.ClientSecret.Reveal()
	if c := a.Credential.Certificate; c != nil {
		stored.Certificate = c.PEM.Reveal()
	}
	return encode(stored)
}

func encodeAppDescription(a connector.App) string {
	described := newApp(a)
	described.LastConnection = a.LastConnection
	return encode(described)
}

// newApp leaves out what must not be seen.
func newApp(a connector.App) app {
	stored := app{
		ClientID: a.ClientID, Credential: a.Credential.Kind(), ExpiresAt: a.Credential.ExpiresAt().UTC(),
		Scope: a.Scope, Cloud: a.Cloud, ChangedAt: a.ChangedAt.UTC(), RotatedAt: a.RotatedAt.UTC(),
	}
	if c := a.Credential.Certificate; c != nil {
		stored.Thumbprint = c.Thumbprint
	}
	if f := a.Credential.Federation; f != nil {
		stored.Federation = &federation{f.Audience, f.Issuer, f.Subject}
	}
	return stored
}

func decodeApp(name, value string) (connector.App, error) {
	if value == tombstone {
		return connector.App{}, connector.ErrNotFound
	}
	var stored app
	if json.Unmarshal([]byte(value), &stored) != nil || stored.ClientID == "" {
		return connector.App{}, connector.ErrUnreadable
	}
	a := stored.app(name)
	a.Credential.ClientSecret = entra.NewSecret(stored.ClientSecret)
	if a.Credential.Certificate != nil {
		certificate, err := entra.ParseCertificate(entra.NewSecret(stored.Certificate))
		if err != nil {
			return connector.App{}, connector.ErrUnreadable
		}
		a.Credential.Certificate = certificate
	}
	return a, nil
}

// decodeAppDescription reads a Description that a person may have edited. What it cannot read stays
// empty.
func decodeAppDescription(name, description string) connector.App {
	var stored app
	_ = json.Unmarshal([]byte(description), &stored)
	return stored.app(name)
}

func (stored app) app(name string) connector.App {
	a := connector.App{
		Name: name, Scope: stored.Scope, ChangedAt: stored.ChangedAt, RotatedAt: stored.RotatedAt, LastConnection: stored.LastConnection,
		Registration: entra.Registration{ClientID: stored.ClientID, Cloud: stored.Cloud},
	}
	switch stored.Credential {
	case entra.KindCertificate:
		a.Credential.Certificate = &entra.Certificate{NotAfter: stored.ExpiresAt, Thumbprint: stored.Thumbprint}
	case entra.KindFederation:
		if f := stored.Federation; f != nil {
			a.Credential.Federation = &entra.Federation{Audience: f.Audience, Issuer: f.Issuer, Subject: f.Subject}
		}
	default:
		a.Credential.SecretExpiresAt = stored.ExpiresAt
	}
	return a
}

// connection is the JSON of a connection's Description, which AWS limits to 2,048 characters. Status
// comes first for whoever reads it in the console.
type connection struct {
	Status      connector.Status `json:"status"`
	ExpiresAt   time.Time        `json:"expires_at"`
	RefreshedAt time.Time        `json:"refreshed_at"`
	AppAsOf     time.Time        `json:"app_as_of"` // AppRotatedAt
	Lifetime    int64            `json:"lifetime"`  // seconds
	TokenType   string           `json:"token_type"`
	TenantID    string           `json:"tenant_id"`
	Cloud       entra.Cloud      `json:"cloud"`
	Scope       string           `json:"scope"`
	Warnings    []string         `json:"warnings,omitempty"`
	WholeAt     time.Time        `json:"writes_whole_at"`
	Failure     *failure         `json:"failure,omitempty"`
}

type failure struct {
	Code          string    `json:"code"`
	Title         string    `json:"title,omitempty"`  // where they say more
	Action        string    `json:"action,omitempty"` // than the code does
	At            time.Time `json:"at"`
	AppAsOf       time.Time `json:"app_as_of"` // AppChangedAt
	Refusals      int       `json:"refusals"`
	RefusedSince  time.Time `json:"refused_since,omitzero"`
	NextAttempt   time.Time `json:"next_attempt_at"`
	TraceID       string    `json:"trace_id,omitempty"`
	CorrelationID string    `json:"correlation_id,omitempty"`
	ConsentURL    string    `json:"consent_url,omitempty"`
}

// maxDescription is AWS's limit, in characters.
const maxDescription = 2048

func encodeConnection(c connector.Connection) string {
	d := connection{
		Status: c.Status(), ExpiresAt: c.ExpiresAt.UTC(), RefreshedAt: c.RefreshedAt.UTC(), AppAsOf: c.AppRotatedAt.UTC(), Lifetime: int64(c.Lifetime / time.Second),
		TokenType: c.TokenType, TenantID: c.TenantID, Cloud: c.Cloud, Scope: c.Scope, Warnings: c.Warnings, WholeAt: c.WholeAt.UTC(),
	}
	f := c.Failure
	if f == nil {
		return encode(d)
	}
	d.Failure = &failure{
		Code: f.Code, At: f.At.UTC(), AppAsOf: f.AppChangedAt.UTC(), Refusals: f.Refusals, RefusedSince: f.RefusedSince.UTC(), NextAttempt: f.NextAttempt.UTC(),
		TraceID: f.TraceID, CorrelationID: f.CorrelationID, ConsentURL: f.ConsentURL,
	}
	short := encode(d)
	if f.Advice == connector.Explain(f.Code) {
		return short
	}
	d.Failure.Title, d.Failure.Action = f.Title, f.Action
	if whole := encode(d); len(whole) <= maxDescription {
		return whole
	}
	return short
}

// decodeConnection leaves everything empty where the Description is not one that encodeConnection
// wrote, and says so as a failure.
func decodeConnection(ref connector.ConnectionRef, name, arn, description *string, versions map[string][]string) connector.Connection {
	c := connector.Connection{ConnectionRef: ref, Version: current(versions), SecretName: aws.ToString(name), SecretARN: aws.ToString(arn)}
	var d connection
	if json.Unmarshal([]byte(aws.ToString(description)), &d) != nil || d.TenantID == "" {
		c.Failure = &connector.Failure{Status: connector.StatusRefused, Code: connector.CodeUnreadable, Advice: connector.Explain(connector.CodeUnreadable)}
		return c
	}
	c.TenantID, c.Cloud, c.Scope, c.TokenType = d.TenantID, d.Cloud, d.Scope, d.TokenType
	c.ExpiresAt, c.RefreshedAt, c.AppRotatedAt, c.Lifetime = d.ExpiresAt, d.RefreshedAt, d.AppAsOf, time.Duration(d.Lifetime)*time.Second
	c.Warnings, c.WholeAt = d.Warnings, d.WholeAt
	if f := d.Failure; f != nil {
		c.Failure = &connector.Failure{
			Status: d.Status, Code: f.Code, Advice: connector.Explain(f.Code), At: f.At, AppChangedAt: f.AppAsOf, Refusals: f.Refusals,
			RefusedSince: f.RefusedSince, NextAttempt: f.NextAttempt, TraceID: f.TraceID, CorrelationID: f.CorrelationID, ConsentURL: f.ConsentURL,
		}
		if f.Action != "" {
			c.Failure.Advice = entra.Advice{Title: f.Title, Action: f.Action}
		}
	}
	return c
}

func encodeToken(t entra.Token) string { return encode(t.Values()) }

// encode writes JSON without the escapes that make it safe in HTML. They would triple the length of a
// scope.
func encode(v any) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // strings, numbers and times only
	}
	return strings.TrimSuffix(b.String(), "\n")
}
