package connector

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"entra-connector/pkg/entra"
)

// AppFields is what a caller says about an app. Zero means absent.
type AppFields struct {
	ClientID              string
	ClientSecret          entra.Secret // this, Certificate or Federation
	ClientSecretExpiresAt string       // optional: a date or an RFC 3339 time
	Certificate           entra.Secret // PEM: private key and chain
	Federation            *FederationFields
	Scope                 string // this or Service
	Service               string
	Cloud                 string // empty: entra.Public
}

// FederationFields is what a caller says about a federation.
type FederationFields struct{ Audience string }

// ParseApp returns the app that the fields describe, or an [*InvalidError] with everything that is
// wrong.
func ParseApp(name string, f AppFields, now time.Time) (App, error) {
	var bad fieldErrors
	bad.add("app", CheckName(name))
	app := bad.app(name, f, now)
	return app, bad.err()
}

// ProvisionFields is what a caller says about a connection.
type ProvisionFields struct {
	TenantID   string // GUID or verified domain
	App        string
	Connection string     // empty: the tenant's GUID
	AppFields  *AppFields // nil: the named app must exist
}

// Provisioning is a valid request for a connection; see [ParseProvisioning].
type Provisioning struct {
	app        App // no more than its name where it is only named
	tenant     string
	connection string
}

// ParseProvisioning returns the request that the fields describe, or an [*InvalidError] with everything
// that is wrong.
func ParseProvisioning(f ProvisionFields, now time.Time) (Provisioning, error) {
	var bad fieldErrors
	tenant, err := entra.ParseTenant(f.TenantID)
	bad.add("tenant_id", err)
	bad.add("app", CheckName(f.App))
	if f.Connection != "" {
		bad.add("connection", CheckName(f.Connection))
	}
	app := App{Name: f.App}
	if f.AppFields != nil {
		app = bad.app(f.App, *f.AppFields, now)
	}
	return Provisioning{app, tenant, f.Connection}, bad.err()
}

func (bad *fieldErrors) app(name string, f AppFields, now time.Time) App {
	bad.add("client_id", entra.CheckClientID(f.ClientID))
	credential := bad.credential(f, now)
	cloud, err := entra.ParseCloud(f.Cloud)
	bad.add("cloud", err)

	scope := f.Scope
	switch {
	case f.Scope != "" && f.Service != "":
		bad.add("service", errors.New("stands for a scope: send scope or service, not both"))
		bad.add("scope", entra.CheckScope(f.Scope))
	case f.Service != "":
		// Even with a malformed cloud, an unknown service is worth saying.
		scope, err = entra.ServiceScope(f.Service, cmp.Or(cloud, entra.Public))
		bad.add("service", err)
	case f.Scope == "":
		bad.add("scope", errors.New("is required, or service"))
	default:
		bad.add("scope", entra.CheckScope(f.Scope))
	}
	return App{
		Name: name, Scope: scope,
		Registration: entra.Registration{ClientID: f.ClientID, Credential: credential, Cloud: cloud},
	}
}

func (bad *fieldErrors) credential(f AppFields, now time.Time) entra.Credential {
	var c entra.Credential
	given := 0
	if f.ClientSecret != (entra.Secret{}) {
		given++
		c.ClientSecret = f.ClientSecret
		bad.add("client_secret", entra.CheckClientSecret(f.ClientSecret))
	}
	if f.Certificate != (entra.Secret{}) {
		given++
		certificate, err := entra.ParseCertificate(f.Certificate)
		if err == nil {
			err = certificate.CheckTime(now)
		}
		c.Certificate = certificate
		bad.add("certificate", err)
	}
	if f.Federation != nil {
		given++
		c.Federation = &entra.Federation{Audience: cmp.Or(f.Federation.Audience, entra.DefaultAudience)}
		bad.add("federation", entra.CheckAudience(c.Federation.Audience))
	}
	switch {
	case given == 0:
		bad.add("client_secret", errors.New("is required, or certificate or federation"))
	case given > 1:
		bad.add("client_secret", errors.New("is one of three: send client_secret, certificate or federation"))
	}
	if f.ClientSecretExpiresAt != "" {
		expires, err := parseSecretExpiry(f.ClientSecretExpiresAt, now)
		if err == nil && f.ClientSecret == (entra.Secret{}) {
			err = errors.New("belongs to client_secret, which is not there")
		}
		bad.add("client_secret_expires_at", err)
		c.SecretExpiresAt = expires
	}
	return c
}

// maxSecretMonths is the longest life that the portal gives a client secret.
const maxSecretMonths = 24

// parseSecretExpiry reads a date, which is what the portal shows, or a time.
func parseSecretExpiry(s string, now time.Time) (time.Time, error) {
	if err := entra.CheckText(s); err != nil {
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
	case at.After(now.AddDate(0, maxSecretMonths, 1)): // a day for time zones
		return time.Time{}, fmt.Errorf("is more than %d months away, which Entra does not allow", maxSecretMonths)
	}
	return at, nil
}

var namePattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`) })

// CheckName reports what is wrong with the name of an app or a connection.
func CheckName(s string) error {
	if err := entra.CheckText(s); err != nil {
		return err
	}
	if !namePattern().MatchString(s) || strings.Contains(s, "..") {
		return errors.New("must be 1 to 64 of a-z, 0-9, '.', '_', '-', begin with a letter or digit, and not contain '..'")
	}
	return nil
}

// ConnectionRef names a connection.
type ConnectionRef struct{ App, Name string }

func (r ConnectionRef) String() string { return r.App + "/" + r.Name }

// ParseConnectionRef parses "app/connection".
func ParseConnectionRef(s string) (ConnectionRef, error) {
	app, name, _ := strings.Cut(s, "/")
	if CheckName(app) != nil || CheckName(name) != nil {
		return ConnectionRef{}, errors.New("must be app/connection")
	}
	return ConnectionRef{App: app, Name: name}, nil
}
