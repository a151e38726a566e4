package connector

import (
	"strings"
	"time"

	"entra-connector/pkg/entra"
)

// App is an app registration under a name, with the scope that a connection gets unless it names its
// own.
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

// differences names the fields in which two apps are not the same app, for somebody who does not mean to
// change it. Another credential of the same kind is not among them: it is a rotation.
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

// AppUse is an app without its credential, and who meets on it: those who create connections announce
// them, and those who delete or replace the app hold it meanwhile. Each writes before it looks, so that
// at least one of two sees the other.
type AppUse struct {
	App
	ID        string                  // identifies the app to the store
	Announced map[string]Announcement // connections that may be too young to be listed, by name
	Stale     []string                // what was said so long ago that it does not count any more, for the store
	Busy      time.Duration           // for how long more connections are expected that are not announced one by one
	Held      bool                    // somebody deletes or replaces the app now
	Now       time.Time               // by the store's clock
}

// Announcement says that a connection was about to be created at a time, in the place of what had a
// version then.
type Announcement struct {
	At      time.Time
	Version string
}

// Expiring is a credential that is close to its end.
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
