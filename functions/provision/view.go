package main

import (
	"time"

	"entra-connector/internal/connector"
	"entra-connector/pkg/entra"
)

// connectionView is a connection as the API shows it. Times are in whole seconds, UTC.
type connectionView struct {
	App           string           `json:"app"`
	Connection    string           `json:"connection"`
	TenantID      string           `json:"tenant_id"`
	Cloud         entra.Cloud      `json:"cloud,omitempty"`
	Scope         string           `json:"scope"`
	Status        connector.Status `json:"status"`
	TokenType     string           `json:"token_type,omitempty"`
	ExpiresAt     time.Time        `json:"expires_at,omitzero"`
	RefreshedAt   time.Time        `json:"refreshed_at,omitzero"`
	Error         *failureView     `json:"error,omitempty"`
	NextAttemptAt time.Time        `json:"next_attempt_at,omitzero"`
	InvitedTenant string           `json:"invited_tenant_id,omitempty"` // the only one that may connect
	InvitedUntil  time.Time        `json:"invitation_expires_at,omitzero"`
	OpenedAt      time.Time        `json:"opened_at,omitzero"`
	SignedInAt    time.Time        `json:"signed_in_at,omitzero"`
	Warnings      []warning        `json:"warnings,omitempty"`
	Secret        secretView       `json:"secret"`
}

// invitationView is shown once: the link is not stored.
type invitationView struct {
	URL       string    `json:"url"`
	ExpiresAt time.Time `json:"expires_at"`
}

type failureView struct {
	Code string `json:"code"`
	entra.Advice
	At            time.Time `json:"at,omitzero"`
	TraceID       string    `json:"trace_id,omitempty"`
	CorrelationID string    `json:"correlation_id,omitempty"`
	ConsentURL    string    `json:"consent_url,omitempty"`
}

type warning struct {
	Code string `json:"code"`
	entra.Advice
}

type secretView struct {
	Name string `json:"name"`
	ARN  string `json:"arn"`
}

type connectionsView struct {
	Connections []connectionView `json:"connections"`
	Next        string           `json:"next,omitempty"`
}

// appView is an app without its credential.
type appView struct {
	App         string            `json:"app"`
	ClientID    string            `json:"client_id"`
	Scope       string            `json:"scope,omitempty"`
	Cloud       entra.Cloud       `json:"cloud"`
	Credential  string            `json:"credential"`          // its kind
	ExpiresAt   time.Time         `json:"expires_at,omitzero"` // of the credential, if known
	WithinDays  *int              `json:"expires_within_days,omitempty"`
	Certificate *certificateView  `json:"certificate,omitempty"`
	Federation  *entra.Federation `json:"federation,omitempty"`
	ChangedAt   time.Time         `json:"changed_at,omitzero"`
}

type certificateView struct {
	NotAfter   time.Time `json:"not_after"`
	Thumbprint string    `json:"thumbprint"` // x5t#S256
}

func viewConnection(c connector.Connection, now time.Time) connectionView {
	c = c.Seen(now)
	v := connectionView{
		App: c.App, Connection: c.Name, TenantID: c.TenantID, Cloud: c.Cloud, Scope: c.Scope,
		Status: c.Status(), TokenType: c.TokenType, ExpiresAt: seconds(c.ExpiresAt), RefreshedAt: seconds(c.RefreshedAt),
		Secret: secretView{c.SecretName, c.SecretARN},
	}
	for _, code := range c.Warnings {
		v.Warnings = append(v.Warnings, warning{code, connector.Explain(code)})
	}
	if i := c.Invitation; i != nil {
		v.InvitedTenant = i.TenantID
		v.InvitedUntil, v.OpenedAt, v.SignedInAt = seconds(i.ExpiresAt), seconds(i.OpenedAt), seconds(i.SignedInAt)
	}
	if f := c.Failure; f != nil {
		v.Error = &failureView{f.Code, f.Advice, seconds(f.At), f.TraceID, f.CorrelationID, f.ConsentURL}
		v.NextAttemptAt = seconds(f.NextAttempt)
	}
	return v
}

func viewApp(a connector.App, now time.Time) appView {
	v := appView{App: a.Name, ClientID: a.ClientID, Scope: a.Scope, Cloud: a.Cloud, Credential: a.Credential.Kind(),
		ExpiresAt: seconds(a.Credential.ExpiresAt()), Federation: a.Credential.Federation, ChangedAt: seconds(a.ChangedAt)}
	if e, soon := a.Expiring(now); soon {
		v.WithinDays = &e.WithinDays
	}
	if c := a.Credential.Certificate; c != nil {
		v.Certificate = &certificateView{seconds(c.NotAfter), c.Thumbprint}
	}
	return v
}

// seconds returns a time in whole seconds, or zero if JSON cannot write it.
func seconds(t time.Time) time.Time {
	if t = t.UTC().Truncate(time.Second); t.Year() < 1 || t.Year() > 9999 {
		return time.Time{}
	}
	return t
}
