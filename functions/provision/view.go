package main

import (
	"time"

	"entra-connector/pkg/entra"
)

// connectionView is a connection as the API shows it. Times are in whole
// seconds, UTC.
type connectionView struct {
	App           string       `json:"app"`
	Connection    string       `json:"connection"`
	TenantID      string       `json:"tenant_id"`
	Cloud         entra.Cloud  `json:"cloud"`
	Scope         string       `json:"scope"`
	Status        entra.Status `json:"status"`
	TokenType     string       `json:"token_type"`
	ExpiresAt     time.Time    `json:"expires_at"`
	RefreshedAt   time.Time    `json:"refreshed_at"`
	Error         *failureView `json:"error,omitempty"`
	NextAttemptAt *time.Time   `json:"next_attempt_at,omitempty"`
	Secret        secretView   `json:"secret"`
}

type failureView struct {
	Code          string    `json:"code"`
	Title         string    `json:"title"`
	Action        string    `json:"action"`
	At            time.Time `json:"at"`
	TraceID       string    `json:"trace_id,omitempty"`
	CorrelationID string    `json:"correlation_id,omitempty"`
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
	App       string      `json:"app"`
	ClientID  string      `json:"client_id"`
	Scope     string      `json:"scope"`
	Cloud     entra.Cloud `json:"cloud"`
	ChangedAt time.Time   `json:"changed_at"`
}

type appsView struct {
	Apps []appView `json:"apps"`
}

func viewConnection(c entra.Connection) connectionView {
	v := connectionView{
		App: c.App, Connection: c.Name, TenantID: c.TenantID, Cloud: c.Cloud, Scope: c.Scope,
		Status: c.Status(), TokenType: c.TokenType, ExpiresAt: seconds(c.ExpiresAt), RefreshedAt: seconds(c.RefreshedAt),
		Secret: secretView{c.SecretName, c.SecretARN},
	}
	if f := c.Failure; f != nil {
		explained := entra.Explain(f.Code)
		v.Error = &failureView{f.Code, explained.Title, explained.Action, seconds(f.At), f.TraceID, f.CorrelationID}
		next := seconds(f.NextAttempt)
		v.NextAttemptAt = &next
	}
	return v
}

func viewApp(a entra.App) appView {
	return appView{a.Name, a.ClientID, a.Scope, a.Cloud, seconds(a.ChangedAt)}
}

func seconds(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }
