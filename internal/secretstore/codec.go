package secretstore

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"entra-connector/internal/connector"
	"entra-connector/pkg/entra"
)

// app is the JSON of an app's secret. Its Description is the same without what must not be seen.
// Both name the kind of credential.
type app struct {
	ClientID     string            `json:"client_id"`
	Credential   string            `json:"credential"`
	ClientSecret string            `json:"client_secret,omitempty"`
	Certificate  string            `json:"certificate,omitempty"` // PEM
	Thumbprint   string            `json:"thumbprint,omitempty"`
	ExpiresAt    time.Time         `json:"expires_at,omitzero"` // of the credential
	Federation   *entra.Federation `json:"federation,omitempty"`
	Scope        string            `json:"scope"`
	Cloud        entra.Cloud       `json:"cloud"`
	ChangedAt    time.Time         `json:"changed_at"`
	RotatedAt    time.Time         `json:"rotated_at"`
	Version      string            `json:"version,omitempty"` // in the Description: what it describes
}

func encodeApp(a connector.App) string {
	stored := newApp(a)
	stored.ClientSecret = a.Credential.ClientSecret.Reveal()
	if c := a.Credential.Certificate; c != nil {
		stored.Certificate = c.PEM.Reveal()
	}
	return encode(stored)
}

// describeApp returns a Description for a version. If it is too long, only the value says the rest.
func describeApp(a connector.App, version string) string {
	described := newApp(a)
	described.Version = version
	if d := encode(described); len(d) <= maxDescription {
		return d
	}
	return encode(struct {
		ClientID string `json:"client_id"`
	}{a.ClientID})
}

// newApp leaves out what must not be seen.
func newApp(a connector.App) app {
	stored := app{
		ClientID: a.ClientID, Credential: a.Credential.Kind(), ExpiresAt: utc(a.Credential.ExpiresAt()),
		Federation: a.Credential.Federation, Scope: a.Scope, Cloud: a.Cloud, ChangedAt: utc(a.ChangedAt), RotatedAt: utc(a.RotatedAt),
	}
	if c := a.Credential.Certificate; c != nil {
		stored.Thumbprint = c.Thumbprint
	}
	return stored
}

func decodeApp(name, value string, now time.Time) (connector.App, error) {
	var stored app
	if json.Unmarshal([]byte(value), &stored) != nil || stored.ClientID == "" {
		return connector.App{}, connector.ErrUnreadable
	}
	a := stored.app(name)
	a.Credential.ClientSecret = entra.NewSecret(stored.ClientSecret)
	if a.Credential.Certificate != nil {
		certificate, err := entra.ParseCertificate(entra.NewSecret(stored.Certificate), now)
		if err != nil {
			return connector.App{}, connector.ErrUnreadable
		}
		a.Credential.Certificate = certificate
	}
	return a, nil
}

// decodeAppDescription returns an app without its credential, if the Description is that of the
// current version.
func decodeAppDescription(name string, sec secret) (connector.App, bool) {
	var stored app
	if !sec.describesCurrent() || json.Unmarshal([]byte(sec.description), &stored) != nil {
		return connector.App{}, false
	}
	return stored.app(name), true
}

func (stored app) app(name string) connector.App {
	a := connector.App{
		Name: name, Scope: stored.Scope, ChangedAt: utc(stored.ChangedAt), RotatedAt: utc(stored.RotatedAt),
		Registration: entra.Registration{ClientID: stored.ClientID, Cloud: stored.Cloud},
	}
	switch stored.Credential {
	case entra.KindCertificate:
		a.Credential.Certificate = &entra.Certificate{NotAfter: utc(stored.ExpiresAt), Thumbprint: stored.Thumbprint}
	case entra.KindFederation:
		a.Credential.Federation = stored.Federation
	default:
		a.Credential.SecretExpiresAt = utc(stored.ExpiresAt)
	}
	return a
}

// connection is the JSON of a connection's Description, which AWS limits to 2,048 characters. It
// says how the connection is, for one version of its secret. The tags say whose it is. Tenant and
// scope are here for people who read it in the console.
type connection struct {
	Status      connector.Status `json:"status"`
	Version     string           `json:"version"`
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

// failure is a [connector.Failure] as it is stored.
type failure struct {
	Status        connector.Status `json:"-"` // that of the connection
	Code          string           `json:"code"`
	entra.Advice                   // where it says more than the code does
	At            time.Time        `json:"at"`
	AppChangedAt  time.Time        `json:"app_as_of"`
	Refusals      int              `json:"refusals"`
	RefusedSince  time.Time        `json:"refused_since,omitzero"`
	NextAttempt   time.Time        `json:"next_attempt_at"`
	TraceID       string           `json:"trace_id,omitempty"`
	CorrelationID string           `json:"correlation_id,omitempty"`
	ConsentURL    string           `json:"consent_url,omitempty"`
}

// maxDescription is AWS's limit, in characters.
const maxDescription = 2048

func describeConnection(c connector.Connection, version string) string {
	d := connection{
		Status: c.Status(), Version: version, ExpiresAt: utc(c.ExpiresAt), RefreshedAt: utc(c.RefreshedAt), AppAsOf: utc(c.AppRotatedAt),
		Lifetime: int64(c.Lifetime / time.Second), TokenType: c.TokenType, TenantID: c.TenantID, Cloud: c.Cloud, Scope: c.Scope,
		Warnings: c.Warnings, WholeAt: utc(c.WholeAt),
	}
	if c.Failure == nil {
		return encode(d)
	}
	f := failure(*c.Failure)
	f.At, f.AppChangedAt, f.RefusedSince, f.NextAttempt = utc(f.At), utc(f.AppChangedAt), utc(f.RefusedSince), utc(f.NextAttempt)
	d.Failure = &f
	if f.Advice != connector.Explain(f.Code) {
		if whole := encode(d); len(whole) <= maxDescription {
			return whole
		}
	}
	f.Advice = entra.Advice{}
	return encode(d)
}

// decodeConnection reads a connection from its secret's tags and Description. A Description of
// another version than the current one says nothing: the state is unknown.
func decodeConnection(ref connector.ConnectionRef, sec secret) connector.Connection {
	c := connector.Connection{ConnectionRef: ref, Version: sec.version, SecretName: sec.name, SecretARN: sec.arn}
	if st := sec.state(); st == invited {
		return sec.invitation(c)
	} else if st != live {
		c.Failure, c.Blocked = sec.unreadable(), st == foreign || st == locked
		return c
	}
	c.TenantID, c.Scope, _ = sec.identity()
	var d connection
	if !sec.describesCurrent() || json.Unmarshal([]byte(sec.description), &d) != nil || !d.plausible() {
		c.Failure = &connector.Failure{
			Status: connector.StatusRetrying, Code: connector.CodeUnknown, Advice: connector.Explain(connector.CodeUnknown),
			At: sec.changed,
		}
		return c
	}
	c.Cloud, c.TokenType = d.Cloud, d.TokenType
	c.ExpiresAt, c.RefreshedAt, c.AppRotatedAt, c.Lifetime = d.ExpiresAt, d.RefreshedAt, d.AppAsOf, time.Duration(d.Lifetime)*time.Second
	c.Warnings, c.WholeAt = d.Warnings, d.WholeAt
	if d.Failure != nil {
		f := connector.Failure(*d.Failure)
		if f.Status = d.Status; f.Title == "" || f.Action == "" {
			f.Advice = connector.Explain(f.Code)
		}
		c.Failure = &f
	}
	return c
}

// plausible reports whether the connector can have written this. A person may have edited it.
func (d connection) plausible() bool {
	if d.Failure == nil && d.Status != connector.StatusOK || d.Failure != nil && d.Status != connector.StatusRetrying && d.Status != connector.StatusRefused {
		return false
	}
	if d.ExpiresAt.IsZero() && d.Lifetime == 0 && d.Failure != nil {
		return true // a failure, of a token about which nothing is known
	}
	if _, err := entra.ParseCloud(string(d.Cloud)); err != nil {
		return false
	}
	ends := d.RefreshedAt.Add(time.Duration(d.Lifetime) * time.Second).Truncate(time.Second)
	return d.Lifetime > 0 && d.ExpiresAt.Equal(ends)
}

// tagCharacters may stand in a tag's value, besides letters and digits. The equals sign could too,
// but begins an escape here.
const tagCharacters = "_.:/+-@ "

const defaultScope = "/.default"

// scopeTag holds a scope's resource in the characters that a tag may have.
func scopeTag(scope string) string {
	var b strings.Builder
	for _, r := range []byte(strings.TrimSuffix(scope, defaultScope)) {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.IndexByte(tagCharacters, r) >= 0 {
			b.WriteByte(r)
		} else {
			fmt.Fprintf(&b, "=%02X", r)
		}
	}
	return b.String()
}

// parseScopeTag returns an empty scope for a tag that scopeTag did not write.
func parseScopeTag(tag string) string {
	resource, err := url.PathUnescape(strings.ReplaceAll(tag, "=", "%"))
	if err != nil || entra.CheckScope(resource+defaultScope) != nil {
		return ""
	}
	return resource + defaultScope
}

// utc returns a time as JSON can write it.
func utc(t time.Time) time.Time {
	if t = t.UTC(); t.Year() < 1 || t.Year() > 9999 {
		return time.Time{}
	}
	return t
}

// encode writes JSON without the escapes that make it safe in HTML. They would triple the length of
// a scope.
func encode(v any) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // strings, numbers and times of the years 1 to 9999 only
	}
	return strings.TrimSuffix(b.String(), "\n")
}
