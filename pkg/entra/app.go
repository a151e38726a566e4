package entra

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"
)

// App is one Entra app registration with the resource that it asks for. Many
// tenants may share it.
type App struct {
	Name       string
	ClientID   string // GUID, as the caller wrote it
	Credential Credential
	Scope      string // {resource}/.default
	Cloud      Cloud
	ChangedAt  time.Time // when the app was last put
	RotatedAt  time.Time // when that last changed anything of it

	// LastConnection is the name of the connection that was last provisioned on
	// the app, which may not be listed yet.
	LastConnection string
	// Version identifies what was read to the store.
	Version string
}

// same reports whether both are the same app with the same credential.
func (a App) same(b App) bool {
	return len(a.differences(b)) == 0 && a.Credential.Equal(b.Credential)
}

// AppFields is what a caller says of an app. Zero means absent.
type AppFields struct {
	ClientID              string
	ClientSecret          Secret // this, Certificate or Federation
	ClientSecretExpiresAt string // optional: a date or RFC 3339
	Certificate           Secret // PEM: private key and chain
	Federation            *FederationFields
	Scope                 string // this or Service
	Service               string
	Cloud                 string // empty: Public
}

// FederationFields is what a caller says of a federation.
type FederationFields struct{ Audience string }

// NewApp checks the fields and returns the app that they describe, or an
// [*InvalidError] with everything that is wrong.
func NewApp(name string, f AppFields, now time.Time) (App, error) {
	var bad fieldErrors
	bad.add("app", CheckName(name))
	app := bad.app(name, f, now)
	return app, bad.err()
}

func (bad *fieldErrors) app(name string, f AppFields, now time.Time) App {
	bad.add("client_id", checkGUID(f.ClientID))
	credential := bad.credential(f, now)
	cloud, err := parseCloud(f.Cloud)
	bad.add("cloud", err)

	scope := f.Scope
	switch {
	case f.Scope != "" && f.Service != "":
		bad.add("service", errors.New("stands for a scope: send scope or service, not both"))
		bad.add("scope", checkScope(f.Scope))
	case f.Service != "":
		// With a malformed cloud, an unknown service is still worth saying.
		scope, err = ServiceScope(f.Service, cmp.Or(cloud, Public))
		bad.add("service", err)
	case f.Scope == "":
		bad.add("scope", errors.New("is required, or service"))
	default:
		bad.add("scope", checkScope(f.Scope))
	}
	return App{Name: name, ClientID: f.ClientID, Credential: credential, Scope: scope, Cloud: cloud}
}

const (
	// maxSecretMonths is the longest life that the portal gives a client secret.
	// A day is added to it for time zones.
	maxSecretMonths = 24

	// defaultAudience is the one that Microsoft recommends for federation.
	defaultAudience = "api://AzureADTokenExchange"
	maxAudience     = 600 // characters, in a federated credential
)

func (bad *fieldErrors) credential(f AppFields, now time.Time) Credential {
	var c Credential
	given := 0
	if f.ClientSecret != (Secret{}) {
		given++
		c.ClientSecret = f.ClientSecret
		bad.add("client_secret", checkClientSecret(f.ClientSecret))
	}
	if f.Certificate != (Secret{}) {
		given++
		certificate, err := ParseCertificate(f.Certificate)
		if err == nil {
			err = certificate.inTime(now)
		}
		c.Certificate = certificate
		bad.add("certificate", err)
	}
	if f.Federation != nil {
		given++
		c.Federation = &Federation{Audience: cmp.Or(f.Federation.Audience, defaultAudience)}
		bad.add("federation", checkAudience(c.Federation.Audience))
	}
	switch {
	case given == 0:
		bad.add("client_secret", errors.New("is required, or certificate or federation"))
	case given > 1:
		bad.add("client_secret", errors.New("is one of three: send client_secret, certificate or federation"))
	}
	if f.ClientSecretExpiresAt != "" {
		expires, err := parseSecretExpiry(f.ClientSecretExpiresAt, now)
		if err == nil && f.ClientSecret == (Secret{}) {
			err = errors.New("belongs to client_secret, which is not there")
		}
		bad.add("client_secret_expires_at", err)
		c.SecretExpiresAt = expires
	}
	return c
}

// parseSecretExpiry reads a date, which the portal shows, or a time.
func parseSecretExpiry(s string, now time.Time) (time.Time, error) {
	if err := checkText(s); err != nil {
		return time.Time{}, err
	}
	at, err := time.Parse(time.DateOnly, s)
	if err != nil {
		at, err = time.Parse(time.RFC3339, s)
	}
	switch {
	case err != nil:
		return time.Time{}, errors.New("must be a date such as 2027-01-31, or an RFC 3339 time")
	case !at.After(now):
		return time.Time{}, errors.New("is in the past")
	case at.After(now.AddDate(0, maxSecretMonths, 1)):
		return time.Time{}, fmt.Errorf("is more than %d months away, which Entra does not allow", maxSecretMonths)
	}
	return at, nil
}

func checkAudience(s string) error {
	if err := checkText(s); err != nil {
		return err
	}
	if len(s) > maxAudience || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("must have an audience of at most %d printable characters without spaces, such as %s", maxAudience, defaultAudience)
	}
	return nil
}

// differences names the fields in which two apps are not the same app. The
// credential is not among them: a new one is a rotation.
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

// Expiring reports whether the app's credential is known to expire within 30
// days.
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
