package connector_test

import (
	"errors"
	"fmt"
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

// seedStatus stores connections with a status, from that of tenant first.
func (w *world) seedStatus(first, many int, status connector.Status) {
	w.t.Helper()
	for n := range many {
		switch status {
		case ok:
			w.seed(first+n, time.Hour, nil)
		case spoiled:
			w.spoil(w.seed(first+n, time.Hour, nil))
		default:
			w.seed(first+n, time.Hour, failed(status))
		}
	}
}

// junk leaves pages of a listing empty, where a name would come.
func (w *world) junk(name string, pages int) {
	for n := range 100 * pages {
		w.secrets.Edit(fmt.Sprintf("entra/connections/default/%s/%04d", name, n), func(*secretstoretest.Secret) {})
	}
}

// A new credential is proved in up to three tenants, the healthiest first. Where none grants a token, the
// healthiest one's refusal is the one to act on.
func TestAnAppIsProvedWhereItIsHealthiest(t *testing.T) {
	type group struct {
		first, many int
		status      connector.Status
	}
	for _, tt := range []struct {
		name    string
		seeds   []group
		junk    int   // empty pages before them
		refuses []int // tenants
		asked   string
		listed  int
		refused int // the tenant whose refusal is told; 0: the app is put
	}{
		{"none", nil, 0, nil, "", 1, 0},
		{"one is enough", []group{{1, 3, ok}}, 0, nil, "1", 1, 0},
		{"the second of them", []group{{1, 3, ok}}, 0, []int{1}, "1 2", 1, 0},
		{"healthiest first", []group{{1, 1, refused}, {2, 1, retrying}, {3, 1, ok}}, 0, []int{1, 2, 3}, "3 2 1", 1, 3},
		{"three at most", []group{{1, 5, ok}}, 0, []int{1, 2, 3}, "1 2 3", 1, 1},
		{"unreadable", []group{{1, 1, spoiled}, {2, 1, refused}}, 0, nil, "2", 1, 0},
		{"only unreadable", []group{{1, 1, spoiled}}, 0, nil, "", 1, 0},
		{"a healthy one after a page of refused", []group{{1, 100, refused}, {101, 1, ok}}, 0, nil, "101", 2, 0},
		{"a healthy one after a page of unreadable", []group{{1, 100, spoiled}, {101, 1, ok}}, 0, nil, "101", 2, 0},
		{"after an empty page", []group{{1, 1, retrying}}, 1, nil, "1", 2, 0},
		{"three healthy ones on the first page", []group{{1, 3, ok}, {4, 100, refused}}, 0, nil, "1", 1, 0},
		{"two healthy ones on the first page", []group{{1, 2, ok}, {3, 100, refused}}, 0, nil, "1", 2, 0},
		{"no end of pages", []group{{1, 1, ok}}, 10, nil, "", 10, 0},
	} {
		w := newWorld(t, setup{})
		_, _, err := w.put(t.Context(), w.app())
		w.must(err)
		for _, g := range tt.seeds {
			w.seedStatus(g.first, g.many, g.status)
		}
		w.junk("0", tt.junk)
		for _, n := range tt.refuses {
			w.deny(tenant(n), 53003000+n, 0) // which no change settles
		}
		w.secrets.ResetCalls()
		err = w.putSecret(t.Context(), rotated)
		var asked []string
		for _, tenant := range w.tenants() {
			asked = append(asked, strings.TrimLeft(tenant[24:], "0"))
		}
		if got := strings.Join(asked, " "); got != tt.asked || w.secrets.Count("ListSecrets") != tt.listed {
			t.Errorf("%s: tenants %q were asked and %d pages listed, want %q and %d", tt.name, got, w.secrets.Count("ListSecrets"), tt.asked, tt.listed)
		}
		if tt.refused == 0 && err != nil || tt.refused != 0 && codeOf(err) != fmt.Sprintf("AADSTS%d", 53003000+tt.refused) {
			t.Errorf("%s: %v, want the refusal of tenant %d", tt.name, err, tt.refused)
		}
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
		_, _, err := w.put(t.Context(), w.app())
		w.must(err)
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
		err = w.apps.Delete(t.Context(), "default")
		_, gone := w.store.App(t.Context(), "default")
		var conflict *connector.ConflictError
		if errors.As(err, &conflict) == tt.gone || err != nil && conflict == nil || errors.Is(gone, connector.ErrNotFound) != tt.gone {
			t.Errorf("%s: %v, the app is %v, want it gone: %t", tt.name, err, gone, tt.gone)
		}
		// Nor is it replaced unproved.
		w.deny(tenantA, refusedAtOnce, 0)
		if err := w.putSecret(t.Context(), rotated); tt.young && tt.seeds == 0 && codeOf(err) != "AADSTS7000112" {
			t.Errorf("%s: the app is put, %v", tt.name, err)
		}
	}
}

// What no refresh can mend is said, with the way out, and Entra is not asked.
func TestRefreshOfWhatCannotBe(t *testing.T) {
	for want, happen := range map[string]func(*world, connector.Connection){
		string(connector.Unreadable): (*world).spoil,
		string(connector.AppGone): func(w *world, c connector.Connection) {
			w.must(w.store.DeleteApp(t.Context(), connector.AppUse{App: w.app()}))
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
}

// A request for a connection takes neither the app nor the connection from others. It may rotate the app's
// secret, or say when that expires, which rotates nothing.
func TestProvisioningAgain(t *testing.T) {
	w := newWorld(t, setup{})
	app := func(change func(*connector.AppFields)) func(*connector.ProvisionFields) {
		return func(f *connector.ProvisionFields) { change(f.AppFields) }
	}
	expires := func(date string) func(*connector.ProvisionFields) {
		return app(func(f *connector.AppFields) { f.ClientSecretExpiresAt = date })
	}
	w.provision(tenantB)
	for _, tt := range []struct {
		name    string
		change  func(*connector.ProvisionFields)
		want    string // the conflict or code, or "new" or "known" and the connection's scope
		expires string // the app's secret
		due     int    // connections, afterwards
	}{
		{"new", func(*connector.ProvisionFields) {}, "new " + graph, "0001-01-01", 0},
		{"the same", func(*connector.ProvisionFields) {}, "known " + graph, "0001-01-01", 0},
		{"with a date", expires("2027-06-30"), "known " + graph, "2027-06-30", 0},
		{"without a date", expires(""), "known " + graph, "2027-06-30", 0},
		{"with another date", expires("2027-07-30"), "known " + graph, "2027-07-30", 0},
		{"another client", app(func(f *connector.AppFields) { f.ClientID = tenantA }), string(connector.OtherApp) + " [client_id]", "2027-07-30", 0},
		{"another cloud", app(func(f *connector.AppFields) { f.Cloud = "china" }), string(connector.OtherApp) + " [cloud]", "2027-07-30", 0},
		{"a certificate", app(func(f *connector.AppFields) {
			f.ClientSecret, f.Certificate = entra.Secret{}, entra.NewSecret(certified(t, start, start.AddDate(1, 0, 0)))
		}), string(connector.OtherApp) + " [kind of credential]", "2027-07-30", 0},
		{"another tenant", func(f *connector.ProvisionFields) { f.TenantID, f.Connection = tenantB, tenantA }, string(connector.OtherTenant) + " []", "2027-07-30", 0},
		{"another scope", app(func(f *connector.AppFields) { f.Scope = devOps }), string(connector.OtherScope) + " []", "2027-07-30", 0},
		{"another scope, by name", func(f *connector.ProvisionFields) { f.AppFields, f.Scope = nil, devOps }, string(connector.OtherScope) + " []", "2027-07-30", 0},
		{"another scope, as another connection", app(func(f *connector.AppFields) { f.Scope = devOps }), "new " + devOps, "2027-07-30", 0},
		{"its own scope, by name", func(f *connector.ProvisionFields) { f.AppFields, f.Service = nil, "azure-storage" }, "new https://storage.azure.com/.default", "2027-07-30", 0},
		{"the app's scope, by name", func(f *connector.ProvisionFields) { f.AppFields = nil }, "new " + graph, "2027-07-30", 0},
		{"no such app", func(f *connector.ProvisionFields) { f.App, f.AppFields = "gone", nil }, `app "gone": not found`, "2027-07-30", 0},
		{"a tenant of another cloud, by its name", func(f *connector.ProvisionFields) { f.TenantID = "agency.example" }, "AADSTS90038", "2027-07-30", 0},
		{"a tenant of another cloud", func(f *connector.ProvisionFields) { f.TenantID = tenant(7) }, "AADSTS90038", "2027-07-30", 0},
		{"too short a life", func(f *connector.ProvisionFields) { f.TenantID = tenant(8) }, connector.CodeShortLived, "2027-07-30", 0},
		{"another secret", app(func(f *connector.AppFields) { f.ClientSecret = entra.NewSecret(rotated) }), "known " + graph, "0001-01-01", 4},
	} {
		w.entra.AddTenant(entratest.Tenant{ID: tenant(7), Domains: []string{"agency.example"}, Cloud: "usgov"})
		w.entra.AddTenant(entratest.Tenant{ID: tenant(8), ExpiresIn: 1727})
		w.entra.Consent(tenant(8), clientID)
		w.advance(time.Minute)
		f := asked(tenantA)
		if tt.change(&f); strings.HasPrefix(tt.want, "new") && tt.name != "new" {
			f.Connection = strings.NewReplacer(" ", "-", "'", "", ",", "").Replace(tt.name)
		}
		before := w.secrets.Snapshot()
		c, isNew, err := w.provisionAs(t.Context(), f)
		got := map[bool]string{true: "new ", false: "known "}[isNew] + c.Scope
		if conflict := (*connector.ConflictError)(nil); errors.As(err, &conflict) {
			got = fmt.Sprint(conflict.Reason, " ", conflict.Fields)
		} else if err != nil {
			got = codeOf(err)
		}
		if got != tt.want || err != nil && w.secrets.Snapshot() != before {
			t.Errorf("%s: %s, want %s; nothing was stored: %t", tt.name, got, tt.want, w.secrets.Snapshot() == before)
		}
		if e := (*entra.Error)(nil); errors.As(err, &e) && e.Code == "AADSTS90038" && !strings.Contains(e.Action, `"usgov"`) {
			t.Errorf("%s: %s", tt.name, e.Action)
		}
		app, err := w.store.App(t.Context(), "default")
		w.must(err)
		if got := app.Credential.SecretExpiresAt.Format(time.DateOnly); got != tt.expires || app.Scope != graph {
			t.Errorf("%s: the app's secret expires %s, want %s; its scope is %s", tt.name, got, tt.expires, app.Scope)
		}
		w.advance(time.Second)
		if due := w.sweep(connector.SweepRequest{}).Due; due != tt.due {
			t.Errorf("%s: %d connections are due, want %d", tt.name, due, tt.due)
		}
	}

	// An app without a scope has none to give. Its scope may be changed, which changes no connection.
	bare := w.app()
	bare.Name, bare.Scope = "bare", ""
	_, created, err := w.put(t.Context(), bare)
	w.must(err)
	f := asked(tenantA)
	f.App, f.AppFields = "bare", nil
	if _, _, err := w.provisionAs(t.Context(), f); !created || !strings.Contains(fmt.Sprint(err), "scope is required") {
		t.Errorf("a connection without a scope: %v", err)
	}
	changed := w.app()
	changed.Scope, changed.Credential.ClientSecret = devOps, entra.NewSecret(rotated)
	app2, created, err := w.put(t.Context(), changed)
	if c := w.connection(connector.ConnectionRef{App: "default", Name: tenantA}); err != nil || created || app2.Scope != devOps || c.Scope != graph {
		t.Errorf("the app has scope %s, its connection %s: %v", app2.Scope, c.Scope, err)
	}
	w.tenants()
	w.sweep(force)
	for _, r := range w.entra.Requests() {
		if r.Tenant == tenantB && r.Scope != graph {
			t.Errorf("a connection for %s asks for %s", graph, r.Scope)
		}
	}
}
