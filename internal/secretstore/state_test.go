package secretstore_test

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	"entra-connector/internal/connector"
	"entra-connector/internal/secretstore/secretstoretest"
)

type secret = secretstoretest.Secret

// shown says how a connection is shown.
func shown(c connector.Connection) string {
	if c.Failure == nil {
		return fmt.Sprintf("%s of %s until %s", c.Status(), c.TenantID[:1], c.ExpiresAt.Format(time.TimeOnly))
	}
	return fmt.Sprintf("%s: %s", c.Status(), c.Failure.Title)
}

// Whatever there is under a name, each call does what it may, or nothing at all.
func TestWhatIsThere(t *testing.T) {
	const (
		ok      = "ok of a until 01:59:59"
		foreign = "conflict: The secret holds something that the connector did not write"
		replica = "conflict: The secret is a replica of one in eu-west-1"
		managed = "conflict: The secret is managed by the AWS service rds"
	)
	refused := func(conflict string) string { return strings.Replace(conflict, "conflict", "refused", 1) }
	edited := func(f func(*secret)) func(*world, string) {
		return func(w *world, name string) { w.create(); w.server.Edit(name, f) }
	}
	later := func(make func(*world, string)) func(*world, string) {
		return func(w *world, name string) { make(w, name); w.ahead += 61 * time.Second }
	}
	restored := edited(func(x *secret) { x.Tags["entra-connector:state"] = "deleting" })
	untagged := edited(func(x *secret) { x.Tags = nil })
	unfinished := "The connection's deletion has begun and not ended"
	rows := []struct {
		name   string
		make   func(w *world, name string)
		shows  string // as a connection
		app    string // how an app is looked at
		claim  string // for the same tenant
		other  string // for another tenant
		remove string
	}{
		{"nothing", func(*world, string) {}, "", "not found", "done", "done", "not found"},
		{"what works", edited(func(*secret) {}), ok, "done", "already exists", "already exists", "done"},
		{"deleted", func(w *world, _ string) { w.create(); w.remove() }, "", "not found", "done", "done", "not found"},
		{"deleted by hand", edited(func(x *secret) { x.Pending = true }), "", "not found", "done", "done", "not found"},
		{"a deletion or a claim that may be under way", restored, "retrying: " + unfinished, "not found", "busy", "busy", "done"},
		{"a deletion or a claim that broke off", later(restored), "refused: " + unfinished, "not found", "done", "done", "done"},
		{"no value and no tags", func(w *world, name string) { w.server.Edit(name, func(*secret) {}) }, "", "not found", "done", "done", "not found"},
		{"our tags, and no value", func(w *world, name string) {
			w.server.Edit(name, func(x *secret) {
				x.Tags = map[string]string{"entra-connector:app": "default"}
				if name == secretName {
					x.Tags["entra-connector:connection"] = "acme"
				}
			})
		}, "refused: The connection's secret has no value", "not found", "done", "done", "done"},
		{"tags gone", later(untagged), "refused: The tags of the connection's secret are gone", "done", "done", foreign, "done"},
		{"tags gone just now", untagged, "refused: The tags of the connection's secret are gone", "done", "busy", foreign, "done"},
		{"tags and Description gone", edited(func(x *secret) { x.Tags, x.Description = nil, "" }), refused(foreign), foreign, foreign, foreign, foreign},
		{"the tags of another", edited(func(x *secret) { x.Tags["entra-connector:app"] = "other" }), refused(foreign), foreign, foreign, foreign, foreign},
		{"somebody's secret", func(w *world, name string) { w.server.Put(name, "theirs", "theirs") }, refused(foreign), foreign, foreign, foreign, foreign},
		{"a replica", edited(func(x *secret) { x.PrimaryRegion = "eu-west-1" }), refused(replica), replica, replica, replica, replica},
		{"a primary, here", edited(func(x *secret) { x.PrimaryRegion, x.Replicas = "us-east-1", []string{"eu-west-1"} }), ok, "done",
			"already exists", "already exists", "conflict: replicas in eu-west-1"},
		{"managed", edited(func(x *secret) { x.OwningService = "rds" }), refused(managed), managed, managed, managed, managed},
		{"a scope that is none", edited(func(x *secret) { x.Tags["entra-connector:scope"] = "=4" }),
			"refused: The tags of the connection's secret are gone", "done", "already exists", "already exists", "done"},
		{"a tenant that is none", edited(func(x *secret) { x.Tags["entra-connector:tenant"] = "common" }),
			"refused: The tags of the connection's secret are gone", "done", "already exists", "already exists", "done"},
	}
	for _, tt := range rows {
		// attempt does something to a new world, and holds the outcome against what is wanted.
		attempt := func(what, name, want string, do func(*world) error) *world {
			w := open(t, setup{})
			tt.make(w, name)
			before := w.server.Snapshot()
			if got := outcome(do(w)); got != want {
				t.Errorf("%s, %s: %s, want %s", tt.name, what, got, want)
			}
			if want != "done" && w.server.Snapshot() != before {
				t.Errorf("%s, %s: it is not as before, but\n%s", tt.name, what, w.server.Snapshot())
			}
			return w
		}
		w := attempt("listing", secretName, "done", func(w *world) error { _, _, err := w.Connections(t.Context(), "", 100, ""); return err })
		page, _, _ := w.Connections(t.Context(), "", 100, "")
		one, err := w.Connection(t.Context(), ref)
		if tt.shows == "" && (len(page) != 0 || err == nil) || tt.shows != "" && (len(page) != 1 || shown(page[0]) != tt.shows || shown(one) != tt.shows) {
			t.Errorf("%s: listed as %+v, read as %+v, %v, want %q", tt.name, page, one, err, tt.shows)
		}
		for tenant, want := range map[string]string{tenantA: tt.claim, tenantB: tt.other} {
			w := attempt("provisioning for "+tenant[:1], secretName, want, func(w *world) error {
				_, err := w.CreateConnection(t.Context(), connection(tenant), tokenOf(tenant, time.Minute))
				return err
			})
			x, _ := w.server.Look(secretName)
			tags := maps.Clone(x.Tags)
			if delete(tags, "entra-connector:state"); want == "done" && (w.read().TenantID != tenant || w.read().Failure != nil || len(tags) != 4 || !strings.Contains(x.Value, tenant)) {
				t.Errorf("%s: provisioned for %s it is %+v, and holds %s", tt.name, tenant, w.read(), x.Value)
			}
		}
		w = attempt("deleting", secretName, tt.remove, func(w *world) error { return w.DeleteConnection(t.Context(), ref) })
		if _, err := w.Connection(t.Context(), ref); tt.remove == "done" && err != connector.ErrNotFound {
			t.Errorf("%s: deleted it is %v", tt.name, err)
		}

		attempt("looking at the app", appName, tt.app, func(w *world) error { _, err := w.LookAtApp(t.Context(), "default"); return err })
		attempt("creating the app", appName, tt.claim, func(w *world) error { _, err := w.CreateApp(t.Context(), app); return err })
		attempt("deleting the app", appName, tt.remove, func(w *world) error { return w.DeleteApp(t.Context(), connector.AppUse{App: app}) })
	}
}

// remove deletes the app and default/acme.
func (w *world) remove() {
	w.t.Helper()
	w.must(w.DeleteConnection(w.t.Context(), ref))
	w.must(w.DeleteApp(w.t.Context(), connector.AppUse{App: app}))
}

// What is known of a connection is what its Description says of the current version. Whatever else stands there was
// overtaken. It is shown as unknown, and the next write sets it right.
func TestOvertakenDescriptions(t *testing.T) {
	const ok, unknown = "ok of a until 02:59:59", "retrying: What is known of the connection was overtaken"
	edited := func(f func(*secret)) func(*world, connector.Connection) {
		return func(w *world, _ connector.Connection) { w.server.Edit(secretName, f) }
	}
	replaced := func(old, new string) func(*world, connector.Connection) {
		return edited(func(x *secret) { x.Description = strings.Replace(x.Description, old, new, 1) })
	}
	late := func(w *world, first connector.Connection) {
		if err := w.SaveToken(t.Context(), with(first, tokenOf(tenantA, 3*time.Hour)), tokenOf(tenantA, 3*time.Hour)); err != connector.ErrChanged {
			t.Errorf("a write over another: %v", err)
		}
	}
	// refusedLate records a failure that was found while the first version was current.
	refusedLate := func(w *world, first connector.Connection) {
		first.Failure = &connector.Failure{Status: connector.StatusRefused, Code: "AADSTS7000112", At: start}
		w.must(w.SaveFailure(t.Context(), first))
	}
	for _, tt := range []struct {
		name   string
		happen func(w *world, first connector.Connection)
		want   string
		writes bool // the Description of an UpdateSecret that is refused
	}{
		{"nothing", func(*world, connector.Connection) {}, ok, false},
		{"the label moved back", edited(func(x *secret) { x.Version = x.Versions[0] }), unknown, false},
		{"another value", edited(func(x *secret) { x.Value = "theirs" }), unknown, false},
		{"no Description", edited(func(x *secret) { x.Description = "" }), unknown, false},
		{"words", edited(func(x *secret) { x.Description = "do not touch" }), unknown, false},
		{"an empty object", edited(func(x *secret) { x.Description = "{}" }), unknown, false},
		{"another tenant", replaced(tenantA, tenantB), ok, false},
		{"another expiry", replaced("02:59:59", "03:59:59"), unknown, false},
		{"another life", replaced(`"lifetime":3599`, `"lifetime":35990`), unknown, false},
		{"another status", replaced(`"status":"ok"`, `"status":"refused"`), unknown, false},
		{"no life", replaced(`"lifetime":3599`, `"lifetime":0`), unknown, false},
		{"a late failure", refusedLate, unknown, false},
		{"a late token, and AWS writes all or nothing", late, ok, false},
		{"a late token, and AWS writes its Description", late, unknown, true},
	} {
		w := open(t, setup{Options: secretstoretest.Options{RefusedUpdateWritesDescription: tt.writes}})
		first := w.create()
		w.must(w.SaveToken(t.Context(), with(first, tokenOf(tenantA, time.Hour)), tokenOf(tenantA, time.Hour)))
		tt.happen(w, first)
		page, _, err := w.Connections(t.Context(), "", 100, "")
		w.must(err)
		got := w.read()
		if shown(got) != tt.want || shown(page[0]) != tt.want || got.TenantID != tenantA || got.Scope != app.Scope || got.ExpiresAt.IsZero() != (tt.want == unknown) {
			t.Errorf("%s: read as %s, %+v, listed as %s, want %s", tt.name, shown(got), got, shown(page[0]), tt.want)
		}
		next := tokenOf(tenantA, 2*time.Hour)
		w.must(w.SaveToken(t.Context(), with(page[0], next), next))
		if value, _ := w.server.Value(secretName); shown(w.read()) != "ok of a until 03:59:59" || !strings.Contains(value, "t0ken of 2h") {
			t.Errorf("%s: after the next write it is %s, and holds %s", tt.name, shown(w.read()), value)
		}
	}
}

// Each version has one successor, so of several writes in its place one succeeds. A person who moves the staging label back
// leaves the successor taken. Then there is another, but not for ever.
func TestOneSuccessor(t *testing.T) {
	w := open(t, setup{})
	first := w.create()
	for n, want := range []string{"done", "done", "done", "done", "changed since it was read"} {
		token := tokenOf(tenantA, time.Duration(n+1)*time.Minute)
		if got := outcome(w.SaveToken(t.Context(), with(first, token), token)); got != want {
			t.Errorf("with the label moved back %d times: %s, want %s", n, got, want)
		}
		if got := outcome(w.SaveToken(t.Context(), with(first, tokenOf(tenantA, 0)), tokenOf(tenantA, time.Hour))); got != "changed since it was read" && want == "done" {
			t.Errorf("over the successor: %s", got)
		}
		w.server.Edit(secretName, func(x *secret) { x.Version = first.Version })
	}

	w = open(t, setup{})
	first = w.create()
	w.must(w.DeleteConnection(t.Context(), ref))
	for _, want := range []string{"not found", "changed since it was read", "not found"} { // deleted, taken again, purged and taken again
		if got := outcome(w.SaveToken(t.Context(), first, tokenOf(tenantA, 2*time.Hour))); got != want {
			t.Errorf("over the same name: %s, want %s", got, want)
		}
		if c, err := w.Connection(t.Context(), ref); err == nil && shown(c) != "ok of b until 01:59:59" {
			t.Errorf("the connection of another tenant is %s", shown(c))
		}
		if want != "not found" {
			w.must(w.DeleteConnection(t.Context(), ref))
			w.ahead += 31 * 24 * time.Hour
		}
		if _, err := w.CreateConnection(t.Context(), connection(tenantB), tokenOf(tenantB, 0)); err != connector.ErrExists {
			w.must(err)
		}
	}
}

// AWS may refuse a deletion at its last step, or at any before it. What is left works as before, or its
// deletion is finished by the same call.
func TestRefusedDeletion(t *testing.T) {
	for _, fault := range []secretstoretest.Fault{
		{Op: "DescribeSecret", Error: "AccessDeniedException"}, {Op: "TagResource", Error: "AccessDeniedException"},
		{Op: "DeleteSecret", Error: "AccessDeniedException"}, {Op: "DeleteSecret", Error: "InvalidRequestException"},
		{Op: "DeleteSecret", Error: "InternalServiceError"}, {Op: "DeleteSecret", Drop: true},
	} {
		w := open(t, setup{})
		c := w.create()
		w.server.Fail(fault)
		for _, err := range []error{w.DeleteConnection(t.Context(), ref), w.DeleteApp(t.Context(), connector.AppUse{App: app})} {
			if want := cmp.Or(fault.Error, "unreachable"); outcome(err) != want {
				t.Errorf("%s refused: %v, want %s", fault.Op, err, want)
			}
		}
		w.server.ClearFaults()
		if got := w.read(); !reflect.DeepEqual(got, c) {
			t.Errorf("%s refused: the connection is\n%+v, want\n%+v", fault.Op, got, c)
		}
		if _, err := w.LookAtApp(t.Context(), "default"); err != nil {
			t.Errorf("%s refused: the app is %v", fault.Op, err)
		}
		if w.remove(); len(w.server.Names()) != 0 {
			t.Errorf("%s refused: the same call again leaves %v", fault.Op, w.server.Names())
		}
	}

	// The mark of a deletion that broke off cannot be taken back.
	w := open(t, setup{})
	w.create()
	w.server.Fail(secretstoretest.Fault{Op: "TagResource", After: true, Secret: appName, Times: 1})
	if err := w.DeleteApp(t.Context(), connector.AppUse{App: app}); outcome(err) != "unreachable" {
		t.Errorf("a deletion that breaks off: %v", err)
	}
	if _, err := w.LookAtApp(t.Context(), "default"); err != connector.ErrNotFound {
		t.Errorf("an app whose deletion has begun: %v", err)
	}
	for _, want := range []string{"done", "not found"} {
		if got := outcome(w.FinishDeletion(t.Context(), "default")); got != want {
			t.Errorf("finishing the deletion: %s, want %s", got, want)
		}
	}
	_, err := w.CreateApp(t.Context(), app)
	w.must(err)
	if got := outcome(w.FinishDeletion(t.Context(), "default")); got != "already exists" {
		t.Errorf("finishing the deletion of what is in use: %s", got)
	}
}
