package connector_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"entra-connector/internal/connector"
	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/pkg/entra"
	"entra-connector/pkg/entra/entratest"
)

const (
	ok       = connector.StatusOK
	retrying = connector.StatusRetrying
	refused  = connector.StatusRefused
	spoiled  = connector.Status("spoiled") // by somebody else
)

// junk leaves pages of a listing empty, where a name would come.
func (w *world) junk(name string, pages int) {
	for n := range 100 * pages {
		w.secrets.Edit(fmt.Sprintf("entra/connections/default/%s/%04d", name, n), func(*secretstoretest.Secret) {})
	}
}

// An app is deleted only when no page of the listing has a connection that is really there, nor is there
// one that is too young to be listed.
func TestAnAppInUseIsNotDeleted(t *testing.T) {
	for _, tt := range []struct {
		name    string
		seeds   int
		deleted int // of them, and still listed
		young   bool
		junk    int
		gone    bool // the app, in the end
	}{
		{"on the first page", 1, 0, false, 0, false},
		{"on the last page", 1, 0, false, 2, false},
		{"behind those that are deleted", 101, 100, false, 0, false},
		{"too young to be listed", 0, 0, true, 0, false},
		{"too young to be listed, behind others", 3, 3, true, 1, false},
		{"all deleted", 3, 3, false, 1, true},
		{"none", 0, 0, false, 0, true},
	} {
		w := newWorld(t, setup{lag: 5 * time.Minute})
		w.must(w.put(t.Context(), canary))
		w.seedAll(0, tt.seeds, time.Hour, nil)
		w.junk("0", tt.junk)
		w.advance(6 * time.Minute)
		for n := range tt.deleted {
			w.must(w.store.DeleteConnection(t.Context(), connector.ConnectionRef{App: "default", Name: tenant(n)}))
		}
		if f := asked(tenantA); tt.young {
			f.AppFields = nil
			_, _, err := w.provisionAs(t.Context(), f)
			w.must(err)
		}
		err := w.apps.Delete(t.Context(), "default")
		_, gone := w.store.App(t.Context(), "default")
		var conflict *connector.ConflictError
		if errors.As(err, &conflict) == tt.gone || err != nil && conflict == nil || errors.Is(gone, connector.ErrNotFound) != tt.gone {
			t.Errorf("%s: %v, the app is %v, want it gone: %t", tt.name, err, gone, tt.gone)
		}
		// Nor is it replaced unproved.
		w.deny(tenantA, refusedAtOnce, 0)
		if err := w.put(t.Context(), rotated); tt.young && tt.seeds == 0 && codeOf(err) != "AADSTS7000112" {
			t.Errorf("%s: the app is put, %v", tt.name, err)
		}
	}
}

// What no refresh can mend is said, with the way out, and Entra is not asked.
func TestRefreshOfWhatCannotBe(t *testing.T) {
	for want, happen := range map[string]func(*world, connector.Connection){
		string(connector.Unreadable): (*world).spoil,
		string(connector.AppGone): func(w *world, c connector.Connection) {
			w.must(w.store.DeleteApp(t.Context(), connector.AppUse{App: app}))
		},
		connector.ErrUnreadable.Error(): func(w *world, c connector.Connection) { w.secrets.Put("entra/apps/default", "theirs", "theirs") },
		"not found":                     func(w *world, c connector.Connection) { w.must(w.store.DeleteConnection(t.Context(), c.ConnectionRef)) },
	} {
		w := newWorld(t, setup{})
		c := w.provision(tenantA)
		w.tenants()
		happen(w, c)
		if _, err := w.refresher.Refresh(t.Context(), c.ConnectionRef); fmt.Sprint(err) != want || len(w.tenants()) != 0 {
			t.Errorf("%v, want %s", err, want)
		}
	}
	w := newWorld(t, setup{})
	w.secrets.Put("entra/apps/default", "theirs", "theirs")
	_, _, provision := w.provisionAs(t.Context(), asked(tenantA))
	for what, err := range map[string]error{"putting": w.put(t.Context(), canary), "deleting": w.apps.Delete(t.Context(), "default"), "provisioning": provision} {
		conflict := new(connector.ConflictError)
		if value, _ := w.secrets.Value("entra/apps/default"); !errors.As(err, &conflict) || conflict.Reason != connector.InTheWay || value != "theirs" {
			t.Errorf("%s over somebody's secret: %v", what, err)
		}
	}
}

// A request for a connection takes neither the app nor the connection from others. It may rotate the app's
// secret, or say when that expires, which rotates nothing. A connection keeps its scope.
func TestProvisioningAgain(t *testing.T) {
	type fields = connector.ProvisionFields
	w := newWorld(t, setup{})
	w.entra.AddTenant(entratest.Tenant{ID: tenant(7), Domains: []string{"agency.example"}, Cloud: "usgov"})
	w.entra.AddTenant(entratest.Tenant{ID: tenant(8), ExpiresIn: 1727})
	w.entra.Consent(tenant(8), clientID)
	bare := *asked("").AppFields
	bare.Scope = ""
	w.must(w.putAs(t.Context(), "bare", bare))
	expires := func(date string) func(*fields) {
		return func(f *fields) { f.AppFields.ClientSecretExpiresAt = date }
	}
	named := func(app, scope, service, connection string) func(*fields) {
		return func(f *fields) {
			*f = fields{TenantID: tenantA, App: app, Connection: connection, ScopeFields: connector.ScopeFields{Scope: scope, Service: service}}
		}
	}
	file := certified()
	for _, tt := range []struct {
		name   string
		change func(*fields)
		want   string // new or known, scope, and until when the app's secret is good; or the conflict or code
		due    int    // connections, afterwards
	}{
		{"new", func(*fields) {}, "new graph 0001-01-01", 0},
		{"the same", func(*fields) {}, "known graph 0001-01-01", 0},
		{"with a date", expires("2027-06-30"), "known graph 2027-06-30", 0},
		{"without a date", expires(""), "known graph 2027-06-30", 0},
		{"with another date", expires("2027-07-30"), "known graph 2027-07-30", 0},
		{"another client", func(f *fields) { f.AppFields.ClientID = tenantA }, "the app exists with other fields [client_id]", 0},
		{"another cloud", func(f *fields) { f.AppFields.Cloud = "china" }, "the app exists with other fields [cloud]", 0},
		{"a certificate", func(f *fields) {
			f.AppFields.ClientSecret, f.AppFields.Certificate = entra.Secret{}, entra.NewSecret(file)
		}, "the app exists with other fields [kind of credential]", 0},
		{"another tenant", func(f *fields) { f.TenantID, f.Connection = tenantB, tenantA }, "the connection exists for another tenant []", 0},
		{"another scope", func(f *fields) { f.AppFields.Scope = devOps }, "the connection exists for another scope []", 0},
		{"another scope, by name", named("default", devOps, "", ""), "the connection exists for another scope []", 0},
		{"another scope, as another connection", func(f *fields) { f.AppFields.Scope, f.Connection = devOps, "devops" }, "new devops 2027-07-30", 0},
		{"its own service, by name", named("default", "", "azure-storage", "storage"), "new https://storage.azure.com/.default 2027-07-30", 0},
		{"the app's scope, by name", named("default", "", "", "third"), "new graph 2027-07-30", 0},
		{"no scope at all", named("bare", "", "", ""), "invalid request: scope is required, or service: the app has none", 0},
		{"no such app", named("gone", "", "", ""), `app "gone": not found`, 0},
		{"a tenant of another cloud, by its name", func(f *fields) { f.TenantID = "agency.example" }, "AADSTS90038", 0},
		{"a tenant of another cloud", func(f *fields) { f.TenantID = tenant(7) }, "AADSTS90038", 0},
		{"too short a life", func(f *fields) { f.TenantID = tenant(8) }, connector.CodeShortLived, 0},
		{"another secret and scope, as another connection", func(f *fields) {
			f.AppFields.ClientSecret, f.AppFields.Scope, f.Connection = entra.NewSecret(rotated), devOps, "fourth"
		}, "new devops 0001-01-01", 4},
	} {
		w.advance(time.Minute)
		f := asked(tenantA)
		tt.change(&f)
		before := w.secrets.Snapshot()
		c, isNew, err := w.provisionAs(t.Context(), f)
		app, appErr := w.store.App(t.Context(), "default")
		scope := strings.NewReplacer(graph, "graph", devOps, "devops").Replace(c.Scope)
		got := map[bool]string{true: "new ", false: "known "}[isNew] + scope + app.Credential.SecretExpiresAt.Format(" "+time.DateOnly)
		if conflict := (*connector.ConflictError)(nil); errors.As(err, &conflict) {
			got = fmt.Sprint(conflict.Reason, " ", conflict.Fields)
		} else if err != nil {
			got = codeOf(err)
		}
		if got != tt.want || appErr != nil || app.Scope != graph || err != nil && w.secrets.Snapshot() != before {
			t.Errorf("%s: %s, want %s; the app is %+v, %v, nothing was stored: %t", tt.name, got, tt.want, app, appErr, w.secrets.Snapshot() == before)
		}
		if e := (*entra.Error)(nil); errors.As(err, &e) && e.Code == "AADSTS90038" && !strings.Contains(e.Action, `"usgov"`) {
			t.Errorf("%s: %s", tt.name, e.Action)
		}
		w.advance(time.Second)
		if due := w.sweep(connector.SweepRequest{}).Due; due != tt.due {
			t.Errorf("%s: %d connections are due, want %d", tt.name, due, tt.due)
		}
	}
	// Another scope of the app is that of connections to come.
	bare.Scope = devOps
	w.must(w.putAs(t.Context(), "default", bare))
	app, err := w.store.App(t.Context(), "default")
	if c := w.connection(connector.ConnectionRef{App: "default", Name: tenantA}); err != nil || app.Scope != devOps || c.Scope != graph {
		t.Errorf("the app has scope %s, its connection %s: %v", app.Scope, c.Scope, err)
	}
}

// certified returns a PEM file of a certificate that is valid for a year, with its key.
func certified() string {
	key, _ := rsa.GenerateKey(rand.Reader, 2048)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: start, NotAfter: start.AddDate(1, 0, 0)}
	der, _ := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})) +
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// Everything that is wrong with a request is said at once, by field, and nothing is quoted. What a value
// itself must be like, package entra tests.
func TestFieldRules(t *testing.T) {
	type request = connector.ProvisionFields
	name := func(s string) func(*request) { return func(r *request) { r.App, r.Connection = s, s } }
	own := func(scope, service string) func(*request) {
		return func(r *request) { r.AppFields, r.Scope, r.Service = nil, scope, service }
	}
	scope := func(scope, service, cloud string) func(*request) {
		return func(r *request) { r.AppFields.Scope, r.AppFields.Service, r.AppFields.Cloud = scope, service, cloud }
	}
	credential := func(secret, expires, certificate string, audience ...string) func(*request) {
		return func(r *request) {
			f := connector.AppFields{ClientID: clientID, ClientSecretExpiresAt: expires, ScopeFields: r.AppFields.ScopeFields}
			if secret != "" {
				f.ClientSecret = entra.NewSecret(secret)
			}
			if certificate != "" {
				f.Certificate = entra.NewSecret(certificate)
			}
			for _, a := range audience {
				f.Federation = &connector.FederationFields{Audience: a}
			}
			r.AppFields = &f
		}
	}
	file, long := certified(), strings.Repeat("x", 64)
	for _, tt := range []struct {
		name   string
		change func(*request)
		wrong  string
	}{
		{"names of all kinds", name("0a.b_c-d"), ""},
		{"names of 64", name(long), ""},
		{"names of 65", name(long + "x"), "app connection"},
		{"capital", name("Default"), "app connection"},
		{"dots", name("a..b"), "app connection"},
		{"leading dot", name(".a"), "app connection"},
		{"line break", name("a\n"), "app connection"},
		{"no name", name(""), "app"},

		{"service in China", scope("", "microsoft-graph", "china"), ""},
		{"service of another cloud", scope("", "azure-devops", "usgov"), "service"},
		{"no such service nor cloud", scope("", "sharepoint", "mars"), "cloud service"},
		{"scope and service", scope(graph, "microsoft-graph", ""), "service"},
		{"neither scope nor service", scope("", "", ""), "scope"},
		{"scope that no tag can hold", scope("https://a/x"+strings.Repeat("'", 82)+"/.default", "", ""), "scope"},
		{"scope that a tag can just hold", scope("https://a/"+strings.Repeat("'", 82)+"/.default", "", ""), ""},
		{"own scope", own(graph, ""), ""},
		{"own service, perhaps of another cloud", own("", "microsoft-graph"), ""},
		{"no scope of its own", own("", ""), ""},
		{"own scope and service", own(graph, "microsoft-graph"), "service"},
		{"own scope that is none", own("User.Read", ""), "scope"},
		{"own service that is none", own("", "sharepoint"), "service"},

		{"date", credential(canary, "2027-01-31", ""), ""},
		{"time", credential(canary, "2027-01-31T12:00:00+01:00", ""), ""},
		{"date gone by", credential(canary, "2026-11-23", ""), "client_secret_expires_at"},
		{"no date", credential(canary, "31.1.2027", ""), "client_secret_expires_at"},
		{"date of a certificate", credential("", "2027-01-31", file), "client_secret_expires_at"},
		{"certificate", credential("", "", file), ""},
		{"secret and certificate", credential(canary, "", file), "client_secret"},
		{"certificate with more than a secret can hold", credential("", "", file+strings.Repeat("# chain\n", 6600)), "certificate"},
		{"federation", credential("", "", "", ""), ""},
		{"federation for no audience", credential("", "", "", "a b"), "federation"},
		{"no credential", credential("", "", ""), "client_secret"},
	} {
		r := asked(tenantA)
		tt.change(&r)
		_, err := connector.ParseProvisioning(r, start)
		var names []string
		if invalid := new(connector.InvalidError); errors.As(err, &invalid) {
			for _, f := range invalid.Fields {
				names = append(names, f.Field)
			}
		}
		slices.Sort(names)
		if got := strings.Join(names, " "); got != tt.wrong || err != nil && strings.Contains(err.Error(), canary) {
			t.Errorf("%s: complains of %q, want %q: %v", tt.name, got, tt.wrong, err)
		}
	}
}
