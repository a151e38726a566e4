package secretstore

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"entra-connector/pkg/entra"
)

// tombstone is the value and the Description of a secret that has been deleted.
// It outlives a restore, so that only the write that follows makes the secret
// count again.
const tombstone = `{"status":"deleted"}`

func isTombstone(description *string) bool { return aws.ToString(description) == tombstone }

// app is the JSON of an app's secret and, without what must not be seen, of its
// Description. Either way Credential names the kind.
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

func encodeApp(a entra.App) string {
	stored := newApp(a)
	stored.ClientSecret = a.Credential.ClientSecret.Reveal()
	if c := a.Credential.Certificate; c != nil {
		stored.Certificate = c.PEM.Reveal()
	}
	return encode(stored)
}

func describeApp(a entra.App) string {
	described := newApp(a)
	described.LastConnection = a.LastConnection
	return encode(described)
}

func newApp(a entra.App) app {
	stored := app{ClientID: a.ClientID, Credential: a.Credential.Kind(), ExpiresAt: a.Credential.ExpiresAt().UTC(), Scope: a.Scope, Cloud: a.Cloud, ChangedAt: a.ChangedAt.UTC(), RotatedAt: a.RotatedAt.UTC()}
	if c := a.Credential.Certificate; c != nil {
		stored.Thumbprint = c.Thumbprint
	}
	if f := a.Credential.Federation; f != nil {
		stored.Federation = &federation{f.Audience, f.Issuer, f.Subject}
	}
	return stored
}

func decodeApp(name, value string) (entra.App, error) {
	if value == tombstone {
		return entra.App{}, entra.ErrNotFound
	}
	unreadable := &entra.StoreError{Op: "reading app", Code: entra.CodeUnreadable}
	var stored app
	if json.Unmarshal([]byte(value), &stored) != nil || stored.ClientID == "" {
		return entra.App{}, unreadable
	}
	a := stored.entra(name)
	a.Credential.ClientSecret = entra.NewSecret(stored.ClientSecret)
	if a.Credential.Certificate != nil {
		certificate, err := entra.ParseCertificate(entra.NewSecret(stored.Certificate))
		if err != nil {
			return entra.App{}, unreadable
		}
		a.Credential.Certificate = certificate
	}
	return a, nil
}

// describedApp reads a Description that a person may have edited: what cannot
// be read stays empty.
func describedApp(name, description string) entra.App {
	var stored app
	_ = json.Unmarshal([]byte(description), &stored)
	return stored.entra(name)
}

func (stored app) entra(name string) entra.App {
	a := entra.App{Name: name, ClientID: stored.ClientID, Scope: stored.Scope, Cloud: stored.Cloud, ChangedAt: stored.ChangedAt,
		RotatedAt: stored.RotatedAt, LastConnection: stored.LastConnection}
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

// connection is the JSON of a connection's Description, at most 2,048
// characters. Status comes first for the person who reads it in the console.
type connection struct {
	Status      entra.Status `json:"status"`
	ExpiresAt   time.Time    `json:"expires_at"`
	RefreshedAt time.Time    `json:"refreshed_at"`
	AppAsOf     time.Time    `json:"app_as_of"`
	Lifetime    int64        `json:"lifetime"` // seconds
	TokenType   string       `json:"token_type"`
	TenantID    string       `json:"tenant_id"`
	Cloud       entra.Cloud  `json:"cloud"`
	Scope       string       `json:"scope"`
	Warnings    []string     `json:"warnings,omitempty"`
	WholeAt     time.Time    `json:"writes_whole_at"`
	Failure     *failure     `json:"failure,omitempty"`
}

type failure struct {
	Code          string    `json:"code"`
	At            time.Time `json:"at"`
	AppAsOf       time.Time `json:"app_as_of"`
	Refusals      int       `json:"refusals"`
	RefusedSince  time.Time `json:"refused_since,omitzero"`
	NextAttempt   time.Time `json:"next_attempt_at"`
	TraceID       string    `json:"trace_id,omitempty"`
	CorrelationID string    `json:"correlation_id,omitempty"`
	ConsentURL    string    `json:"consent_url,omitempty"`
}

func encodeConnection(c entra.Connection) string {
	d := connection{
		Status: c.Status(), ExpiresAt: c.ExpiresAt.UTC(), RefreshedAt: c.RefreshedAt.UTC(), AppAsOf: c.AppAsOf.UTC(), Lifetime: int64(c.Lifetime / time.Second),
		TokenType: c.TokenType, TenantID: c.TenantID, Cloud: c.Cloud, Scope: c.Scope, Warnings: c.Warnings, WholeAt: c.WholeAt.UTC(),
	}
	if f := c.Failure; f != nil {
		d.Failure = &failure{f.Code, f.At.UTC(), f.AppAsOf.UTC(), f.Refusals, f.RefusedSince.UTC(), f.NextAttempt.UTC(), f.TraceID, f.CorrelationID, f.ConsentURL}
	}
	return encode(d)
}

// decodeConnection leaves everything empty where the Description is not one that
// encodeConnection wrote, and says so as a failure.
func decodeConnection(ref entra.ConnectionRef, name, arn, description *string, versions map[string][]string) entra.Connection {
	c := entra.Connection{ConnectionRef: ref, Version: current(versions), SecretName: aws.ToString(name), SecretARN: aws.ToString(arn)}
	var d connection
	if json.Unmarshal([]byte(aws.ToString(description)), &d) != nil || d.TenantID == "" {
		c.Failure = &entra.Failure{Status: entra.NeedsPerson, Code: entra.CodeUnreadable}
		return c
	}
	c.TenantID, c.Cloud, c.Scope, c.TokenType = d.TenantID, d.Cloud, d.Scope, d.TokenType
	c.ExpiresAt, c.RefreshedAt, c.AppAsOf, c.Lifetime = d.ExpiresAt, d.RefreshedAt, d.AppAsOf, time.Duration(d.Lifetime)*time.Second
	c.Warnings, c.WholeAt = d.Warnings, d.WholeAt
	if f := d.Failure; f != nil {
		c.Failure = &entra.Failure{
			Status: d.Status, Code: f.Code, At: f.At, AppAsOf: f.AppAsOf, Refusals: f.Refusals, RefusedSince: f.RefusedSince, NextAttempt: f.NextAttempt,
			TraceID: f.TraceID, CorrelationID: f.CorrelationID, ConsentURL: f.ConsentURL,
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
