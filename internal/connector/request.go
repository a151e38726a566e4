package connector

import (
	"cmp"
	"errors"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode"

	"entra-connector/pkg/entra"
)

// ScopeFields is what a caller says about a scope. Zero asks for none.
type ScopeFields struct {
	Scope   string // this or Service
	Service string // stands for a scope in each cloud
}

// AppFields is what a caller says about an app. Zero means absent.
type AppFields struct {
	ClientID              string
	ClientSecret          entra.Secret // this, Certificate or Federation
	ClientSecretExpiresAt string       // optional: a date or an RFC 3339 time
	Certificate           entra.Secret // PEM: private key and chain
	Federation            *FederationFields
	Cloud                 string
	ScopeFields
}

// FederationFields is what a caller says about a federation.
type FederationFields struct{ Audience string }

// AppRequest is a valid request for an app; see [ParseAppRequest].
type AppRequest struct {
	name  string
	entra entra.Registration // Cloud is empty if it was left out
	scope ScopeFields
}

// ParseAppRequest returns the request that the fields describe, or an [*InvalidError] with
// everything that is wrong.
func ParseAppRequest(name string, f AppFields, now time.Time) (AppRequest, error) {
	var bad InvalidError
	bad.Add("app", CheckName(name))
	r := parseApp(&bad, name, f, now)
	return r, bad.Err()
}

// on returns the app that is asked for, given the one that is stored. What is left out stays as it
// is stored.
func (r AppRequest) on(stored App) (App, error) {
	app := App{Name: r.name, Registration: r.entra}
	app.Cloud = cmp.Or(r.entra.Cloud, stored.Cloud, entra.Public)
	if app.Credential.SecretExpiresAt.IsZero() && app.Credential.Equal(stored.Credential) {
		app.Credential.SecretExpiresAt = stored.Credential.SecretExpiresAt
	}
	scope, err := r.scope.in(app.Cloud)
	app.Scope = cmp.Or(scope, stored.Scope)
	return app, err
}

// ProvisionFields is what a caller says about a connection.
type ProvisionFields struct {
	TenantID   string // GUID or verified domain
	App        string
	Connection string     // empty: the tenant's GUID
	AppFields  *AppFields // nil: the named app must exist
	ScopeFields
}

// Provisioning is a valid request for a connection; see [ParseProvisioning].
type Provisioning struct {
	app        string
	whole      *AppRequest // nil if the app is only named
	scope      ScopeFields
	tenant     string
	connection string
}

// ParseProvisioning returns the request that the fields describe, or an [*InvalidError] with
// everything that is wrong.
func ParseProvisioning(f ProvisionFields, now time.Time) (Provisioning, error) {
	var bad InvalidError
	tenant, err := entra.ParseTenant(f.TenantID)
	bad.Add("tenant_id", err)
	bad.Add("app", CheckName(f.App))
	if f.Connection != "" {
		bad.Add("connection", CheckName(f.Connection))
	}
	p := Provisioning{app: f.App, tenant: tenant, connection: f.Connection}
	if f.AppFields == nil {
		p.scope = f.ScopeFields
		checkScope(&bad, p.scope, "")
		return p, bad.Err()
	}
	whole := parseApp(&bad, f.App, *f.AppFields, now)
	if whole.entra.Cloud == "" {
		whole.entra.Cloud = entra.Public
	}
	if whole.scope == (ScopeFields{}) {
		bad.Add("scope", errors.New("is required, or service"))
	}
	p.whole, p.scope = &whole, whole.scope
	return p, bad.Err()
}

func parseApp(bad *InvalidError, name string, f AppFields, now time.Time) AppRequest {
	bad.Add("client_id", entra.CheckClientID(f.ClientID))
	credential := parseCredential(bad, f, now)
	var cloud entra.Cloud
	if f.Cloud != "" {
		var err error
		cloud, err = entra.ParseCloud(f.Cloud)
		bad.Add("cloud", err)
	}
	checkScope(bad, f.ScopeFields, cloud)
	return AppRequest{name, entra.Registration{ClientID: f.ClientID, Credential: credential, Cloud: cloud}, f.ScopeFields}
}

func checkScope(bad *InvalidError, f ScopeFields, cloud entra.Cloud) {
	if f.Scope != "" && f.Service != "" {
		bad.Add("service", errors.New("stands for a scope: send scope or service, not both"))
	} else if f.Service != "" {
		// Report an unknown service even if the cloud is malformed or not known yet.
		_, err := entra.ServiceScope(f.Service, cmp.Or(cloud, entra.Public))
		bad.Add("service", err)
	}
	if f.Scope != "" {
		err := entra.CheckScope(f.Scope)
		if err == nil && storedLength(f.Scope) > maxStored {
			err = errors.New("is too long to store: characters other than letters, digits and _ . : / + - @ count three times")
		}
		bad.Add("scope", err)
	}
}

// maxStored is AWS's limit for the tag that holds a scope's resource, in characters.
const maxStored = 256

func storedLength(scope string) (n int) {
	for _, r := range strings.TrimSuffix(scope, "/.default") {
		n++
		if !strings.ContainsRune("_.:/+-@", r) && !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			n += 2
		}
	}
	return n
}

// in returns the scope in a cloud, empty if none is asked for. Its error is an [*InvalidError].
func (f ScopeFields) in(cloud entra.Cloud) (string, error) {
	if f.Service == "" {
		return f.Scope, nil
	}
	var bad InvalidError
	scope, err := entra.ServiceScope(f.Service, cloud)
	bad.Add("service", err)
	return scope, bad.Err()
}

func parseCredential(bad *InvalidError, f AppFields, now time.Time) entra.Credential {
	var c entra.Credential
	given := 0
	if f.ClientSecret != (entra.Secret{}) {
		given++
		c.ClientSecret = f.ClientSecret
		bad.Add("client_secret", entra.CheckClientSecret(f.ClientSecret))
	}
	if f.Certificate != (entra.Secret{}) {
		given++
		certificate, err := entra.ParseCertificate(f.Certificate, now)
		if err == nil {
			err = certificate.CheckTime(now)
		}
		if err == nil && storedSize(f.Certificate) > maxFile {
			err = errors.New("is too large to store: send only the private key and its certificate")
		}
		c.Certificate = certificate
		bad.Add("certificate", err)
	}
	if f.Federation != nil {
		given++
		c.Federation = &entra.Federation{Audience: cmp.Or(f.Federation.Audience, entra.DefaultAudience)}
		bad.Add("federation", entra.CheckAudience(c.Federation.Audience))
	}
	switch {
	case given == 0:
		bad.Add("client_secret", errors.New("is required, or certificate or federation"))
	case given > 1:
		bad.Add("client_secret", errors.New("cannot be combined: send only one of client_secret, certificate and federation"))
	}
	if f.ClientSecretExpiresAt != "" {
		expires, err := parseSecretExpiry(f.ClientSecretExpiresAt, now)
		if err == nil && f.ClientSecret == (entra.Secret{}) {
			err = errors.New("is only for client_secret, which is missing")
		}
		bad.Add("client_secret_expires_at", err)
		c.SecretExpiresAt = expires
	}
	return c
}

// maxFile leaves room for the rest of what is stored with a file, in bytes.
const maxFile = 60_000

func storedSize(file entra.Secret) int {
	return len(file.Reveal()) + strings.Count(file.Reveal(), "\n") // line breaks are stored as \n
}

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
