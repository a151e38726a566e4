package connector

import (
	"strings"
	"time"

	"entra-connector/pkg/entra"
)

// App is an app registration under a name, with the scope that a connection gets unless it names
// its own.
type App struct {
	Name string
	entra.Registration
	Scope     string    // {resource}/.default, or empty
	ChangedAt time.Time // when the app was last put
	RotatedAt time.Time // when that last changed how tokens are asked for
	Version   string    // identifies to the store what was read
}

// asksLike reports whether both ask Entra for tokens in the same way.
func (a App) asksLike(b App) bool {
	return len(a.differences(b)) == 0 && a.Credential.Equal(b.Credential)
}

// differences names the fields that make b a different app from a. A new credential of the same
// kind is not among them: it is a rotation.
func (a App) differences(b App) []string {
	var fields []string
	if !strings.EqualFold(a.ClientID, b.ClientID) {
		fields = append(fields, "client_id")
	}
	if a.Cloud != b.Cloud {
		fields = append(fields, "cloud")
	}
	if a.Credential.Kind() != b.Credential.Kind() {
		fields = append(fields, "kind of credential")
	}
	return fields
}

// AppUse is an app without its credential, and who is working on it. Whoever creates a connection
// announces it, and whoever deletes or replaces the app holds it. Each writes first and then looks,
// so at least one of two callers sees the other.
type AppUse struct {
	App
	ID        string                  // identifies the app to the store
	Untagged  bool                    // the store has to say again whose the app is
	Announced map[string]Announcement // connections that may be too young to be listed, by name
	Stale     []string                // keys of notes that no longer count, for the store to remove
	Busy      time.Duration           // how long connections that were not announced by name may still appear
	Held      bool                    // somebody is deleting or replacing the app
	Now       time.Time               // by the store's clock
}

// Announcement says when a connection was about to be created, and which version of its secret it
// was to replace.
type Announcement struct {
	At      time.Time
	Version string
}

// Expiring is a credential that expires soon, or has expired.
type Expiring struct {
	App        string    `json:"app"`
	Credential string    `json:"credential"` // its kind
	ExpiresAt  time.Time `json:"expires_at"`
	WithinDays int       `json:"within_days"` // 30, 7 or 1; 0 once it has expired
}

// Expiring reports whether the app's credential is known to expire within 30 days.
func (a App) Expiring(now time.Time) (Expiring, bool) {
	at := a.Credential.ExpiresAt()
	if at.IsZero() {
		return Expiring{}, false
	}
	for _, days := range []int{0, 1, 7, 30} {
		if at.Sub(now) <= time.Duration(days)*24*time.Hour {
			return Expiring{a.Name, a.Credential.Kind(), at.UTC(), days}, true
		}
	}
	return Expiring{}, false
}
