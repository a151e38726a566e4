package entratest

import (
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Tenant is a customer's directory.
type Tenant struct {
	ID        string   // GUID
	Domains   []string // verified domains, which name the tenant as well as its ID does
	Cloud     string   // "" is the server's own; in another cloud the tenant answers AADSTS90038
	Resources []string // App ID URIs or GUIDs of the resources it has; nil is the well-known ones
	Disabled  []string // those of them that are disabled: AADSTS500014
	ExpiresIn int      // the tenant's token lifetime policy in seconds; 0 is 3599
}

// App is an app registration. It is known to the whole cloud; [Server.Consent] brings it into a tenant.
type App struct {
	ClientID     string // GUID
	Secrets      []Secret
	Certificates []*x509.Certificate
	Federated    []Federated
	HomeTenant   string // GUID; matters for SingleTenant only
	SingleTenant bool   // not found outside HomeTenant
	Disabled     bool
	ExpiresIn    int // the app's token lifetime policy in seconds, before the tenant's; 0 is the tenant's
}

// Secret is one of an app's client secrets.
type Secret struct {
	Value   string
	Expires time.Time // on the server's clock; zero is never
}

// Federated is a federated identity credential: an assertion with exactly this issuer, subject and
// audience, signed by Key, stands for the app.
type Federated struct {
	Issuer, Subject, Audience string
	Key                       *rsa.PublicKey
}

// principal identifies a service principal: an app in a tenant.
type principal struct{ tenant, client string }

// AddTenant creates or replaces a tenant. It panics if the ID is not a GUID.
func (s *Server) AddTenant(t Tenant) {
	t.ID = mustGUID("tenant", t.ID)
	if t.Cloud == "" {
		t.Cloud = s.cloud
	}
	if _, ok := clouds[t.Cloud]; !ok {
		panic(fmt.Sprintf("entratest: no cloud %q", t.Cloud))
	}
	if t.Resources == nil {
		t.Resources = clouds[t.Cloud].resources
	}
	t.Resources, t.Disabled = slices.Clone(t.Resources), slices.Clone(t.Disabled)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tenants[t.ID] = t
	maps.DeleteFunc(s.domains, func(_, id string) bool { return id == t.ID })
	for _, d := range t.Domains {
		s.domains[strings.ToLower(d)] = t.ID
	}
}

// AddApp creates or replaces an app. It panics if the client ID is not a GUID.
func (s *Server) AddApp(a App) {
	a.ClientID = mustGUID("client", a.ClientID)
	a.HomeTenant = strings.ToLower(a.HomeTenant)
	a.Secrets, a.Certificates, a.Federated = slices.Clone(a.Secrets), slices.Clone(a.Certificates), slices.Clone(a.Federated)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apps[a.ClientID] = a
}

// SetSecrets replaces an app's client secrets. It panics if there is no such app.
func (s *Server) SetSecrets(clientID string, secrets ...Secret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.apps[strings.ToLower(clientID)]
	if !ok {
		panic(fmt.Sprintf("entratest: no app %q", clientID))
	}
	a.Secrets = slices.Clone(secrets)
	s.apps[a.ClientID] = a
}

// Consent creates the app's service principal in the tenant, with these roles and no others. An app
// needs one in its home tenant too. It panics if there is no such tenant.
func (s *Server) Consent(tenantID, clientID string, roles ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.consents[s.principalLocked(tenantID, clientID)] = slices.Clone(roles)
}

// Revoke deletes the app's service principal from the tenant. It panics if there is no such tenant.
func (s *Server) Revoke(tenantID, clientID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.consents, s.principalLocked(tenantID, clientID))
}

func (s *Server) principalLocked(tenantID, clientID string) principal {
	t, ok := s.tenantLocked(tenantID)
	if !ok {
		panic(fmt.Sprintf("entratest: no tenant %q", tenantID))
	}
	return principal{t.ID, strings.ToLower(clientID)}
}

// tenantLocked finds a tenant by GUID or domain, in any case.
func (s *Server) tenantLocked(name string) (Tenant, bool) {
	name = strings.ToLower(name)
	if id, ok := s.domains[name]; ok {
		name = id
	}
	t, ok := s.tenants[name]
	return t, ok
}

// has reports whether list names the resource. One trailing slash makes no difference to which
// resource it is, though it does to the token's audience.
func has(list []string, resource string) bool {
	return slices.ContainsFunc(list, func(r string) bool {
		return strings.EqualFold(strings.TrimSuffix(r, "/"), strings.TrimSuffix(resource, "/"))
	})
}

var (
	guid   = regexp.MustCompile(`^(?i)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	domain = regexp.MustCompile(`^(?i)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
)

func mustGUID(what, id string) string {
	if !guid.MatchString(id) {
		panic(fmt.Sprintf("entratest: %s ID %q is not a GUID", what, id))
	}
	return strings.ToLower(id)
}
