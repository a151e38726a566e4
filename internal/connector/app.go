package connector

import (
	"strings"
	"time"

	"entra-connector/pkg/entra"
)

// App is an app registration under a name, with the scope that its connections ask for.
type App struct {
	Name string
	entra.Registration
	Scope     string    // {resource}/.default
	ChangedAt time.Time // when the app was last put
	RotatedAt time.Time // when a put last changed anything

	// LastConnection is the name of the connection that was provisioned last on the app. The listing
	// may not show that one yet.
	LastConnection string
	// Version identifies to the store what was read.
	Version string
}

// same reports whether both are the same app with the same credential.
func (a App) same(b App) bool {
	return len(a.differences(b)) == 0 && a.Credential.Equal(b.Credential)
}

// differences names the fields in which two apps are not the same app. The credential is not among
// them: a new one is a rotation.
func (a App) differences(b App) []string {
	var fields []string
	if !strings.EqualFold(a.ClientID, b.ClientID) {
		fields = append(fields, "client_id")
	}
	if a.Scope != b.Scope {
		fields = append(fields, "scope")
	}
	if a.Cloud != b.Cloud {
		fields = append(fields, "cloud")
	}
	return fields
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
