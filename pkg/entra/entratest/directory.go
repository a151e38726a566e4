package entratest

import (
	"cmp"
	"crypto/rsa"
	"crypto/x509"
	"regexp"
	"strings"
	"time"
)

// Tenant is a customer's directory.
type Tenant struct {
	ID      string   // GUID
	Domains []string // verified domains, which name the tenant as its ID does
	Cloud   string   // "" is public; a tenant in "usgov" is refused with AADSTS90038

	// DeviceFilter stops every admin consent with AADSTS50097, as Conditional Access policies with
	// device filters do. See MicrosoftDocs/azure-docs issue 108593.
	DeviceFilter bool

	Key *rsa.PrivateKey // which alone signs the tenant's ID tokens; nil: the server's, as in most tenants

	Resources []string // App ID URIs and GUIDs that it has besides those of Microsoft's services
}

// App is an app registration. The whole cloud knows it; [Server.Consent] brings it into a tenant.
type App struct {
	ClientID     string // GUID
	Secrets      []Secret
	Certificates []*x509.Certificate
	Federated    []Federated
	Disabled     bool // refused in every tenant

	RedirectURIs []string
	Roles        []string // what an administrator grants in a browser
	NoWids       bool     // the manifest's groupMembershipClaims does not ask for directory roles
}

// Secret is one of an app's client secrets.
type Secret struct {
	Value   string
	Expires time.Time // on the server's clock; zero is never
}

// Federated is a federated identity credential: an assertion with exactly this issuer, subject and
// audience, signed with Key, stands for the app.
type Federated struct {
	Issuer, Subject, Audience string
	Key                       *rsa.PublicKey
}

// AddTenant creates or replaces a tenant.
func (s *Server) AddTenant(t Tenant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.ID = strings.ToLower(t.ID)
	s.tenants[t.ID] = t
	for _, d := range t.Domains {
		s.domains[strings.ToLower(d)] = t.ID
	}
}

// AddApp creates or replaces an app.
func (s *Server) AddApp(a App) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.ClientID = strings.ToLower(a.ClientID)
	s.apps[a.ClientID] = a
}

// SetSecrets replaces the client secrets of an app that is there.
func (s *Server) SetSecrets(clientID string, secrets ...Secret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.apps[strings.ToLower(clientID)]
	a.Secrets = secrets
	s.apps[a.ClientID] = a
}

// Consent creates the app's service principal in the tenant, with these roles and no others. An app
// needs one in its home tenant too.
func (s *Server) Consent(tenantID, clientID string, roles ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.consents[principal(tenantID, clientID)] = roles
}

// Revoke deletes the app's service principal from the tenant.
func (s *Server) Revoke(tenantID, clientID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.consents, principal(tenantID, clientID))
}

// principal is the key of a service principal: an app in a tenant.
func principal(tenantID, clientID string) string { return strings.ToLower(tenantID + " " + clientID) }

// tenantIDLocked returns the GUID of the tenant with this GUID or domain, in any case.
func (s *Server) tenantIDLocked(name string) string {
	name = strings.ToLower(name)
	return cmp.Or(s.domains[name], name)
}

// resources are the App ID URIs and GUIDs that every tenant is taken to have.
var resources = []string{
	"00000003-0000-0000-c000-000000000000", "https://graph.microsoft.com",
	"499b84ac-1321-427f-aa17-267ca6975798", // Azure DevOps
	"https://storage.azure.com", "https://database.windows.net", "https://api.businesscentral.dynamics.com",
	"48ac35b8-9aa8-4d74-927d-1f4a14a0b239", // Skype and Teams Tenant Admin API
	"https://manage.office.com", "https://manage-gcc.office.com",
	"https://outlook.office365.com", "https://outlook.office.com",
}

// tenantName is a GUID or a domain.
var tenantName = regexp.MustCompile(`(?i)^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|([a-z0-9-]{1,63}\.)+[a-z0-9-]{1,63})$`)
