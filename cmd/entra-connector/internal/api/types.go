package api

import (
	"encoding/json"
	"slices"
	"time"
)

// Sent is JSON as the API sent it. What holds it prints as that, with all that the command does not
// look at.
type Sent struct{ JSON json.RawMessage }

// MarshalJSON returns what the API sent.
func (s Sent) MarshalJSON() ([]byte, error) { return s.JSON, nil }

// Connection is what the command looks at of a connection.
type Connection struct {
	Sent
	App       string    `json:"app"`
	Name      string    `json:"connection"`
	TenantID  string    `json:"tenant_id"`
	Cloud     string    `json:"cloud"`
	Scope     string    `json:"scope"`
	Status    string    `json:"status"`
	ExpiresAt time.Time `json:"expires_at"`
	Error     *struct {
		Advice
		ConsentURL string `json:"consent_url"`
	} `json:"error"`
	Warnings []Advice `json:"warnings"`
}

// Advice says what something means and what a person must do.
type Advice struct {
	Code   string `json:"code"`
	Title  string `json:"title"`
	Action string `json:"action"`
}

func (c Connection) String() string { return c.App + "/" + c.Name }

// UnmarshalJSON keeps what was sent.
func (c *Connection) UnmarshalJSON(b []byte) error {
	type plain Connection
	c.JSON = slices.Clone(b)
	return json.Unmarshal(b, (*plain)(c))
}

// App is what the command looks at of an app.
type App struct {
	Sent
	Name       string    `json:"app"`
	ClientID   string    `json:"client_id"`
	Scope      string    `json:"scope"`
	Cloud      string    `json:"cloud"`
	Credential string    `json:"credential"` // its kind
	ExpiresAt  time.Time `json:"expires_at"` // of the credential, where known
}

// UnmarshalJSON keeps what was sent.
func (a *App) UnmarshalJSON(b []byte) error {
	type plain App
	a.JSON = slices.Clone(b)
	return json.Unmarshal(b, (*plain)(a))
}
