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

// An app is deleted only when no page of the listing has a connection that is really there. For
// those that are too young to be listed, see TestMeetings.
func TestAnAppInUseIsNotDeleted(t *testing.T) {
	for name, tt := range map[string]struct {
		has, deleted, junk int // connections, those of them that are still listed, pages before them
		want               string
	}{
		"on the first page":                     {1, 0, 0, "connections use the app"},
		"on the last page":                      {1, 0, 2, "connections use the app"},
		"behind those that are listed, deleted": {101, 100, 0, "connections use the app"},
		"all deleted":                           {3, 3, 1, "<nil>"},
		"none":                                  {0, 0, 0, "<nil>"},
	} {
		w := newWorld(t, setup{lag: 5 * time.Minute})
		w.must(w.put(t.Context(), canary))
		w.seedAll(0, tt.has, time.Hour, nil)
		w.junk("0", tt.junk)
		w.advance(6 * time.Minute)
		for n := range tt.deleted {
			w.must(w.store.DeleteConnection(t.Context(), connector.ConnectionRef{App: "default", Name: tenant(n)}))
		}
		err := w.apps.Delete(t.Context(), "default")
		if _, gone := w.store.App(t.Context(), "default"); fmt.Sprint(err) != tt.want || errors.Is(gone, connector.ErrNotFound) != (err == nil) {
			t.Errorf("%s: %v, the app is %v", name, err, gone)
		}
	}
}

// An announced connection that is not there is still to come, unless it was deleted since then or
// the request has ended by now.
func TestAnAppWithAnAnnouncedConnection(t *testing.T) {
	ref := connector.ConnectionRef{App: "default", Name: tenant(1)}
	inUse, toCome := string(connector.AppInUse), "DescribeSecret: "+ref.String()+": busy"
	announce := func(w *world) {
		c, _ := w.store.Connection(t.Context(), ref) // its Version is that of what was deleted
		use, err := w.store.LookAtApp(t.Context(), "default")
		w.must(err)
		w.must(w.store.Announce(t.Context(), use, c))
	}
	create := func(w *world) { w.seed(1, time.Hour, nil) }
	remove := func(w *world) { w.must(w.store.DeleteConnection(t.Context(), ref)) }
	unfinished := func(w *world) {
		w.secrets.Edit("entra/connections/"+ref.String(), func(x *secretstoretest.Secret) { x.Tags["entra-connector:state"] = "deleting" })
	}
	later := func(w *world) { w.advance(time.Minute) }
	for name, tt := range map[string]struct {
		steps []func(*world)
		want  string
	}{
		"announced":                            {[]func(*world){announce}, toCome},
		"announced a minute ago":               {[]func(*world){announce, later}, "<nil>"},
		"created":                              {[]func(*world){announce, create}, inUse},
		"created and deleted":                  {[]func(*world){announce, create, remove}, "<nil>"},
		"announced after a deletion":           {[]func(*world){create, remove, announce}, toCome},
		"a minute ago, after a deletion":       {[]func(*world){create, remove, announce, later}, "<nil>"},
		"created and deleted after a deletion": {[]func(*world){create, remove, announce, create, remove}, "<nil>"},
		"being deleted or claimed":             {[]func(*world){create, unfinished}, toCome},
		"announced, and being deleted":         {[]func(*world){announce, create, unfinished}, toCome},
		"not deleted to the end":               {[]func(*world){create, unfinished, later}, inUse},
	} {
		for _, replaces := range []bool{false, true} {
			w := newWorld(t, setup{})
			w.must(w.put(t.Context(), canary))
			for _, step := range tt.steps {
				w.advance(time.Second)
				step(w)
			}
			want, do := tt.want, func() error { return w.apps.Delete(t.Context(), "default") }
			if replaces { // which is proved in what is there
				want, do = strings.Replace(want, inUse, "<nil>", 1), func() error { return w.put(t.Context(), rotated) }
			}
			if err := do(); fmt.Sprint(err) != want {
				t.Errorf("%s, replaces %t: %v, want %s", name, replaces, err, want)
			}
		}
	}
}

// What no refresh can mend is said, and Entra is not asked. What somebody else wrote is not
// touched.
func TestWhatCannotBe(t *testing.T) {
	theirs := func(w *world, _ connector.Connection) { w.secrets.Put("entra/apps/default", "theirs", "theirs") }
	for want, happen := range map[string]func(*world, connector.Connection){
		string(connector.Unreadable):    (*world).spoil,
		connector.ErrUnreadable.Error(): theirs,
		string(connector.AppGone): func(w *world, _ connector.Connection) {
			w.must(w.store.DeleteApp(t.Context(), connector.AppUse{App: app}))
		},
		"not found": func(w *world, c connector.Connection) { w.must(w.store.DeleteConnection(t.Context(), c.ConnectionRef)) },
	} {
		w := newWorld(t, setup{})
		c := w.provision(tenantA)
		w.entra.ResetRequests()
		happen(w, c)
		if _, err := w.refresher.Refresh(t.Context(), c.ConnectionRef); fmt.Sprint(err) != want || len(w.entra.Requests()) != 0 {
			t.Errorf("refreshing: %v, want %s", err, want)
		}
	}
	w := newWorld(t, setup{})
	theirs(w, connector.Connection{})
	_, _, provision := w.provisionAs(t.Context(), asked(tenantA))
	for what, err := range map[string]error{"putting": w.put(t.Context(), canary), "deleting": w.apps.Delete(t.Context(), "default"), "provisioning": provision} {
		conflict := new(connector.ConflictError)
		if value, _ := w.secrets.Value("entra/apps/default"); !errors.As(err, &conflict) || conflict.Reason != connector.InTheWay || value != "theirs" {
			t.Errorf("%s over somebody's secret: %v", what, err)
		}
	}
}

// A request for a connection takes neither the app nor the connection from others. It may rotate
// the app's secret, or say when that expires, which rotates nothing. A connection keeps its scope.
func TestProvisioningAgain(t *testing.T) {
	type fields = connector.ProvisionFields
	w := newWorld(t, setup{})
	w.entra.AddTenant(entratest.Tenant{ID: tenant(7), Domains: []string{"agency.example"}, Cloud: "usgov"})
	w.entra.AddTenant(entratest.Tenant{ID: tenant(8)})
	w.entra.Fail(entratest.Fault{Tenant: tenant(8), Endpoint: "token", Response: entratest.Lifetime(1727)})
	w.entra.Consent(tenant(8), clientID)
	other := *asked("").AppFields
	other.Scope = ""
	w.must(w.putAs(t.Context(), "bare", other))
	named := func(app, scope, service, connection string) func(*fields) {
		return func(f *fields) {
			*f = fields{TenantID: tenantA, App: app, Connection: connection, ScopeFields: connector.ScopeFields{Scope: scope, Service: service}}
		}
	}
	const otherApp, otherScope = "the app exists with other fields", "the connection exists for another scope"
	for _, tt := range []struct {
		name   string
		change func(*fields)
		want   string // new or known, scope, until when the app's secret is good, and how many connections are due; or the error
	}{
		{"new", func(*fields) {}, "new graph 0001-01-01 0"},
		{"the same", func(*fields) {}, "known graph 0001-01-01 0"},
		{"with a date", func(f *fields) { f.AppFields.ClientSecretExpiresAt = "2027-06-30" }, "known graph 2027-06-30 0"},
		{"without a date", func(*fields) {}, "known graph 2027-06-30 0"},
		{"with another date", func(f *fields) { f.AppFields.ClientSecretExpiresAt = "2027-07-30" }, "known graph 2027-07-30 0"},
		{"another client", func(f *fields) { f.AppFields.ClientID = tenantA }, otherApp},
		{"another cloud", func(f *fields) { f.AppFields.Cloud = "china" }, otherApp},
		{"a certificate", func(f *fields) {
			f.AppFields.ClientSecret, f.AppFields.Certificate = entra.Secret{}, entra.NewSecret(certified())
		}, otherApp},
		{"another tenant", func(f *fields) { f.TenantID, f.Connection = tenantB, tenantA }, "the connection exists for another tenant"},
		{"another scope", func(f *fields) { f.AppFields.Scope = devOps }, otherScope},
		{"another scope, by name", named("default", devOps, "", ""), otherScope},
		{"another scope, as another connection", func(f *fields) { f.AppFields.Scope, f.Connection = devOps, "devops" }, "new devops 2027-07-30 0"},
		{"its own service, by name", named("default", "", "azure-storage", "storage"), "new https://storage.azure.com/.default 2027-07-30 0"},
		{"the app's scope, by name", named("default", "", "", "third"), "new graph 2027-07-30 0"},
		{"no scope at all", named("bare", "", "", ""), "invalid request: scope is required, or service: the app has none"},
		{"no such app", named("gone", "", "", ""), `app "gone": not found`},
		{"a tenant of another cloud, by its name", func(f *fields) { f.TenantID = "agency.example" }, "AADSTS90038"},
		{"a tenant of another cloud", func(f *fields) { f.TenantID = tenant(7) }, "AADSTS90038"},
		{"too short a life", func(f *fields) { f.TenantID = tenant(8) }, connector.CodeShortLived},
		{"another secret and scope, as another connection", func(f *fields) {
			f.AppFields.ClientSecret, f.AppFields.Scope, f.Connection = entra.NewSecret(rotated), devOps, "fourth"
		}, "new devops 0001-01-01 4"},
	} {
		w.advance(time.Minute)
		f, before := asked(tenantA), w.secrets.Snapshot()
		tt.change(&f)
		c, isNew, err := w.provisionAs(t.Context(), f)
		stored, appErr := w.store.App(t.Context(), "default")
		got := codeOf(err)
		if w.advance(time.Second); err == nil {
			got = fmt.Sprint(map[bool]string{true: "new ", false: "known "}[isNew], strings.NewReplacer(graph, "graph", devOps, "devops").Replace(c.Scope),
				stored.Credential.SecretExpiresAt.Format(" "+time.DateOnly), " ", w.sweep(connector.SweepRequest{}).Due)
		} else if w.secrets.Snapshot() != before {
			t.Errorf("%s: something is stored", tt.name)
		}
		if got != tt.want || appErr != nil || stored.Scope != graph {
			t.Errorf("%s: %s, want %s; the app is %+v, %v", tt.name, got, tt.want, stored, appErr)
		}
		if e := (*entra.Error)(nil); errors.As(err, &e) && e.Code == "AADSTS90038" && !strings.Contains(e.Action, `"usgov"`) {
			t.Errorf("%s: %s", tt.name, e.Action)
		}
	}
	// Another scope of the app is that of connections to come.
	other.Scope = devOps
	w.must(w.putAs(t.Context(), "default", other))
	stored, err := w.store.App(t.Context(), "default")
	if c := w.connection(connector.ConnectionRef{App: "default", Name: tenantA}); err != nil || stored.Scope != devOps || c.Scope != graph {
		t.Errorf("the app has scope %s, its connection %s: %v", stored.Scope, c.Scope, err)
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

// Everything that is wrong with a request is said at once, by field, and nothing is quoted. What a
// value itself must be like, package entra tests.
func TestFieldRules(t *testing.T) {
	type request = connector.ProvisionFields
	name := func(s string) func(*request) { return func(r *request) { r.App, r.Connection = s, s } }
	own := func(scope, service string) func(*request) {
		return func(r *request) { r.AppFields, r.Scope, r.Service = nil, scope, service }
	}
	scope := func(scope, service, cloud string) func(*request) {
		return func(r *request) { r.AppFields.Scope, r.AppFields.Service, r.AppFields.Cloud = scope, service, cloud }
	}
	expires := func(at string) func(*request) {
		return func(r *request) { r.AppFields.ClientSecretExpiresAt = at }
	}
	certificate := func(file, expires string) func(*request) {
		return func(r *request) {
			r.AppFields.ClientSecret, r.AppFields.Certificate, r.AppFields.ClientSecretExpiresAt = entra.Secret{}, entra.NewSecret(file), expires
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
		{"date", expires("2027-01-31"), ""},
		{"time", expires("2027-01-31T12:00:00+01:00"), ""},
		{"date gone by", expires("2026-11-23"), "client_secret_expires_at"},
		{"no date", expires("31.1.2027"), "client_secret_expires_at"},
		{"certificate", certificate(file, ""), ""},
		{"certificate with a date", certificate(file, "2027-01-31"), "client_secret_expires_at"},
		{"certificate with more than a secret can hold", certificate(file+strings.Repeat("# chain\n", 6600), ""), "certificate"},
		{"two credentials", func(r *request) { r.AppFields.Certificate = entra.NewSecret(file) }, "client_secret"},
		{"no credential", func(r *request) { r.AppFields.ClientSecret = entra.Secret{} }, "client_secret"},
		{"federation for no audience, and a secret", func(r *request) { r.AppFields.Federation = &connector.FederationFields{Audience: "a b"} }, "client_secret federation"},
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
