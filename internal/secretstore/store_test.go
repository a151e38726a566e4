package secretstore_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"entra-connector/internal/connector"
	"entra-connector/internal/secretstore"
	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/pkg/entra"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const (
	tenantA    = "aaaaaaaa-0000-4000-8000-000000000001"
	tenantB    = "bbbbbbbb-0000-4000-8000-000000000002"
	secretName = "entra/connections/default/acme"
	appName    = "entra/apps/default"
)

var (
	start = time.Date(2026, 11, 23, 1, 0, 0, 0, time.UTC)
	ref   = connector.ConnectionRef{App: "default", Name: "acme"}
	app   = connector.App{
		Name: "default", Scope: "https://graph.microsoft.com/.default", ChangedAt: start,
		Registration: entra.Registration{
			ClientID: "cccccccc-0000-4000-8000-000000000003", Cloud: entra.Public,
			Credential: entra.Credential{ClientSecret: entra.NewSecret("s3cret <&>")},
		},
	}
)

// tokenOf returns a token that was requested so long after start.
func tokenOf(tenant string, after time.Duration) entra.Token {
	return entra.Token{
		TenantID: tenant, Type: "Bearer", AccessToken: entra.NewSecret("t0ken of " + after.String()),
		ExpiresIn: 3599, ExtExpiresIn: 7199, RequestedAt: start.Add(after),
	}
}

// with returns the connection as it is with a token.
func with(c connector.Connection, t entra.Token) connector.Connection {
	c.TokenType, c.ExpiresAt, c.Lifetime, c.RefreshedAt, c.Failure = t.Type, t.ExpiresAt(), t.Lifetime(), t.RequestedAt, nil
	return c
}

// connection returns default/acme of a tenant, which is not stored yet.
func connection(tenant string) connector.Connection {
	return with(connector.Connection{ConnectionRef: ref, TenantID: tenant, Cloud: entra.Public, Scope: app.Scope}, tokenOf(tenant, 0))
}

// setup says how a world differs from one that tries every call once.
type setup struct {
	secretstoretest.Options
	secretstore.Config
	retries bool // as the SDK does, whose pauses need a bubble
}

// world is a Store on the stand-in Secrets Manager, without a network.
type world struct {
	*secretstore.Store
	t      *testing.T
	client *secretsmanager.Client
	server *secretstoretest.Server
	ahead  time.Duration                       // of the stand-in's clock
	change func(op string, body []byte) []byte // what becomes of a request on its way; may be nil
}

func open(t *testing.T, s setup) *world {
	t.Helper()
	w := &world{t: t}
	s.Now = func() time.Time { return time.Now().Add(w.ahead) }
	var err error
	if w.server, err = secretstoretest.New(s.Options); err != nil {
		t.Fatal(err)
	}
	w.client = secretsmanager.New(secretsmanager.Options{
		Region: "us-east-1", BaseEndpoint: aws.String("http://stand-in.invalid"), HTTPClient: w,
		Credentials: credentials.NewStaticCredentialsProvider("id", "key", ""),
	}, func(o *secretsmanager.Options) {
		if !s.retries {
			o.RetryMaxAttempts = 1
		}
	})
	s.Prefix = "entra"
	w.Store = secretstore.New(w.client, s.Config)
	return w
}

// Do takes a request to the stand-in.
func (w *world) Do(r *http.Request) (response *http.Response, err error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if w.change != nil {
		body = w.change(strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "secretsmanager."), body)
	}
	answer := httptest.NewRecorder()
	defer func() {
		if recover() == nil {
			return
		}
		// The connection is cut, before the answer or in the middle of it.
		if response, err = nil, io.ErrUnexpectedEOF; answer.Body.Len() > 0 {
			response, err = answer.Result(), nil
			response.Body = io.NopCloser(io.MultiReader(response.Body, iotest.ErrReader(io.ErrUnexpectedEOF)))
		}
	}()
	in := httptest.NewRequestWithContext(r.Context(), r.Method, "/", bytes.NewReader(body))
	in.Header = r.Header
	w.server.ServeHTTP(answer, in)
	return answer.Result(), nil
}

// must fails the test at an error.
func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// create stores the app and default/acme of tenant A.
func (w *world) create() connector.Connection {
	w.t.Helper()
	_, err := w.CreateApp(w.t.Context(), app)
	w.must(err)
	c, err := w.CreateConnection(w.t.Context(), connection(tenantA), tokenOf(tenantA, 0))
	w.must(err)
	return c
}

// remove deletes the app and default/acme.
func (w *world) remove() {
	w.t.Helper()
	w.must(w.DeleteConnection(w.t.Context(), ref))
	w.must(w.DeleteApp(w.t.Context(), connector.AppUse{App: app}))
}

// read returns default/acme as it is stored.
func (w *world) read() connector.Connection {
	w.t.Helper()
	c, err := w.Connection(w.t.Context(), ref)
	w.must(err)
	return c
}

// outcome names an error in a few words.
func outcome(err error) string {
	var conflict *connector.ConflictError
	var failed *connector.StoreError
	switch {
	case err == nil:
		return "done"
	case errors.As(err, &conflict) && conflict.Reason == connector.Replicated:
		return "conflict: replicas in " + strings.Join(conflict.Fields, ", ")
	case errors.As(err, &conflict):
		return "conflict: " + conflict.Advice.Title
	case errors.As(err, &failed):
		return failed.Code
	}
	return err.Error()
}

// What is stored is a contract with integrations, with people in the console, and with the next version of the connector.
func TestStoredForm(t *testing.T) {
	w := open(t, setup{})
	_, err := w.CreateApp(t.Context(), app)
	w.must(err)
	c := connection(tenantA)
	c.Scope = "https://contoso.com/a'b(c)/.default" // the tag cannot have it as it is
	c, err = w.CreateConnection(t.Context(), c, tokenOf(tenantA, 0))
	w.must(err)
	compare := func(golden, name string) {
		t.Helper()
		x, _ := w.server.Look(name)
		var b strings.Builder
		fmt.Fprintf(&b, "value\n%s\n\ndescription\n%s\n\ntags\n", x.Value, strings.ReplaceAll(x.Description, x.Version, "(its version)"))
		for _, key := range slices.Sorted(maps.Keys(x.Tags)) {
			fmt.Fprintf(&b, "%s = %s\n", key, x.Tags[key])
		}
		if *update {
			w.must(os.WriteFile("testdata/"+golden, []byte(b.String()), 0o644))
		}
		if want, err := os.ReadFile("testdata/" + golden); err != nil || b.String() != string(want) {
			t.Errorf("%s is not as in testdata/%s (%v):\n%s", name, golden, err, b.String())
		}
	}
	use, err := w.LookAtApp(t.Context(), "default")
	w.must(err)
	use.Now = start
	w.must(w.Announce(t.Context(), use, connector.Connection{ConnectionRef: ref, Version: "what was there"}))
	compare("app.golden", appName)
	compare("connection.golden", secretName)

	c.Warnings = []string{connector.WarnNoRoles}
	c.Failure = &connector.Failure{Status: connector.StatusRefused, Code: "AADSTS7000222", At: start.Add(time.Hour), Refusals: 2,
		Advice: entra.Advice{Title: "As exactly", Action: "as the first answer did."}, RefusedSince: start, NextAttempt: start.Add(90 * time.Minute), TraceID: tenantA, CorrelationID: app.ClientID, ConsentURL: "https://consent.example"}
	w.must(w.SaveFailure(t.Context(), c))
	compare("refused.golden", secretName)
	if got := w.read(); !reflect.DeepEqual(got, c) {
		t.Errorf("read back:\n got %+v\nwant %+v", got, c)
	}
	readApp, err := w.App(t.Context(), "default")
	if err != nil || !readApp.Credential.Equal(app.Credential) || !readApp.ChangedAt.Equal(start) || readApp.Scope != app.Scope || readApp.Version != use.Version {
		t.Errorf("app read back: %+v, %v", readApp, err)
	}

	// What fits no Description is left to the value.
	long := app
	long.Version = use.Version
	long.Credential = entra.Credential{Federation: &entra.Federation{Audience: strings.Repeat("a", 600), Issuer: strings.Repeat("i", 1400), Subject: "s"}}
	_, err = w.UpdateApp(t.Context(), use, long)
	w.must(err)
	use, err = w.LookAtApp(t.Context(), "default")
	if listed, listErr := w.Apps(t.Context()); err != nil || listErr != nil || !use.Credential.Equal(long.Credential) || !listed[0].Credential.Equal(long.Credential) {
		t.Errorf("looked at: %+v, %v, listed: %+v, %v", use.App, err, listed, listErr)
	}
	for _, value := range []string{"", "{}", `{"client_id":1}`, `{"client_id":"c","credential":"certificate"}`} {
		w.server.Edit(appName, func(x *secret) { x.Value, x.Version = value, "" })
		_, err := w.App(t.Context(), "default")
		use, lookErr := w.LookAtApp(t.Context(), "default")
		listed, listErr := w.Apps(t.Context())
		if err != connector.ErrUnreadable || lookErr != nil || use.Name != "default" || listErr != nil || len(listed) != 1 || listed[0].Name != "default" {
			t.Errorf("an app with the value %q: %v, looked at: %+v, %v, listed: %+v, %v", value, err, use, lookErr, listed, listErr)
		}
	}
}

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

// AWS may refuse a deletion at any step. What is left works as before, or its deletion is finished by the
// same call.
func TestRefusedDeletion(t *testing.T) {
	for _, fault := range []secretstoretest.Fault{
		{Op: "DescribeSecret", Error: "AccessDeniedException"}, {Op: "TagResource", Error: "AccessDeniedException"},
		{Op: "DeleteSecret", Error: "AccessDeniedException"}, {Op: "DeleteSecret", Error: "InvalidRequestException"},
		{Op: "DeleteSecret", Error: "InternalServiceError"}, {Op: "DeleteSecret", Drop: true},
	} {
		w := open(t, setup{})
		c := w.create()
		w.server.Fail(fault)
		connectionErr, appErr := w.DeleteConnection(t.Context(), ref), w.DeleteApp(t.Context(), connector.AppUse{App: app})
		w.server.ClearFaults()
		_, err := w.LookAtApp(t.Context(), "default")
		want := cmp.Or(fault.Error, "unreachable")
		if outcome(connectionErr) != want || outcome(appErr) != want || !reflect.DeepEqual(w.read(), c) || err != nil {
			t.Errorf("%+v: %v, %v, the connection is\n%+v, want\n%+v, the app %v", fault, connectionErr, appErr, w.read(), c, err)
		}
		if w.remove(); len(w.server.Names()) != 0 {
			t.Errorf("%+v: the same call again leaves %v", fault, w.server.Names())
		}
	}
	// The mark of a deletion that broke off cannot be taken back.
	w := open(t, setup{})
	w.create()
	w.server.Fail(secretstoretest.Fault{Op: "TagResource", After: true, Times: 1})
	finish := func() error { return w.FinishDeletion(t.Context(), "default") }
	for n, do := range []func() error{
		func() error { return w.DeleteApp(t.Context(), connector.AppUse{App: app}) },
		func() error { _, err := w.LookAtApp(t.Context(), "default"); return err }, finish, finish,
		func() error { _, err := w.CreateApp(t.Context(), app); return err }, finish,
	} {
		if got, want := outcome(do()), []string{"unreachable", "not found", "done", "not found", "done", "already exists"}[n]; got != want {
			t.Errorf("after a deletion that broke off, %d: %s, want %s", n, got, want)
		}
	}
}

// Those who create connections on an app announce them, and those who delete or replace it hold it.
// Nobody overwrites what another says, and nothing of it stays for ever.
func TestWhoMeetsOnAnApp(t *testing.T) {
	w := open(t, setup{})
	w.create()
	look := func() connector.AppUse {
		use, err := w.LookAtApp(t.Context(), "default")
		w.must(err)
		return use
	}
	announce := func(version string, names ...int) func() {
		return func() {
			for _, n := range names {
				c := connector.Connection{ConnectionRef: connector.ConnectionRef{App: "default", Name: fmt.Sprintf("c%02d", n)}, Version: version}
				w.must(w.Announce(t.Context(), look(), c))
			}
		}
	}
	var release func(context.Context)
	hold := func() {
		var err error
		release, err = w.Hold(t.Context(), look())
		w.must(err)
	}
	wait := func(d time.Duration) func() { return func() { w.ahead += d } }
	for _, step := range []struct {
		name       string
		do         func()
		announced  string // how many, and with what version the first
		old        int
		busy, held bool
	}{
		{"at first", func() {}, "0 ", 0, false, false},
		{"two", announce("a", 1, 2), "2 a", 0, false, false},
		{"one of them again", announce("b", 1), "2 b", 0, false, false},
		{"twenty", announce("", 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20), "20 b", 0, false, false},
		{"one of them again", announce("c", 1), "20 c", 0, false, false},
		{"the next", announce("d", 21), "20 c", 0, true, false},
		{"later, and one more", func() { wait(11 * time.Minute)(); announce("e", 22)() }, "1 ", 0, false, false},
		{"later still", wait(11 * time.Minute), "0 ", 1, false, false},
		{"one more, and a few old ones stay", announce("f", 23), "1 ", 1, false, false},
		{"held", hold, "1 ", 1, false, true},
		{"held by another as well", func() { first := release; hold(); first(t.Context()) }, "1 ", 1, false, true},
		{"by one who has died", wait(61 * time.Second), "1 ", 1, false, false},
		{"held, deleted and created again", func() {
			hold()
			w.must(w.DeleteApp(t.Context(), look()))
			_, err := w.CreateApp(t.Context(), app)
			w.must(err)
		}, "1 ", 1, false, false},
		{"an odd one", func() {
			w.server.Edit(appName, func(x *secret) { x.Tags["entra-connector:new:odd"] = "yesterday" })
		}, "1 ", 2, false, false},
	} {
		step.do()
		use := look()
		if got := fmt.Sprint(len(use.Announced), " ", use.Announced["c01"].Version); got != step.announced || len(use.Stale) != step.old || use.Busy > 0 != step.busy || use.Held != step.held {
			t.Errorf("%s: announced %s, old %v, busy for %v, held %t", step.name, got, use.Stale, use.Busy, use.Held)
		}
		if at := use.Announced["c01"].At; !at.IsZero() && use.Now.Sub(at) > 2*time.Second || use.Busy > 10*time.Minute {
			t.Errorf("%s: announced at %v, busy for %v", step.name, at, use.Busy)
		}
	}
	if x, _ := w.server.Look(appName); len(x.Tags) != 6 { // app, state, the three, and until when it was busy
		t.Errorf("the tags that are left: %v", x.Tags)
	}
}

// A claim that breaks off at any of its calls leaves nothing that works with another tenant's token. The
// same call finishes it a minute later.
func TestInterruptedClaim(t *testing.T) {
	for n, call := range []string{"CreateSecret", "DescribeSecret", "RestoreSecret", "UpdateSecret", "TagResource", "CreateSecret", "DescribeSecret", "RestoreSecret", "UpdateSecret", "TagResource"} {
		w := open(t, setup{})
		w.create()
		w.must(w.DeleteConnection(t.Context(), ref))
		w.server.Fail(secretstoretest.Fault{Op: call, Times: 1, After: n < 5, Drop: true})
		for range 2 {
			_, err := w.CreateConnection(t.Context(), connection(tenantB), tokenOf(tenantB, 0))
			c, lookErr := w.Connection(t.Context(), ref)
			if value, _ := w.server.Value(secretName); lookErr == nil && c.Failure == nil && !strings.Contains(value, c.TenantID) || err == nil && c.TenantID != tenantB {
				t.Errorf("%s fails, %d: %v, it is %s and holds %s", call, n, err, shown(c), value)
			}
			w.ahead += 61 * time.Second
		}
		if c := w.read(); shown(c) != "ok of b until 01:59:59" {
			t.Errorf("%s fails, %d: in the end it is %s", call, n, shown(c))
		}
	}
}

func TestErrorsKeepToThemselves(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		ctx                   context.Context
		code                  string // of AWS
		drop                  bool
		want                  string
		temporary, unanswered bool
	}{
		{t.Context(), "ThrottlingException", false, "ThrottlingException", true, false},
		{t.Context(), "InternalServiceError", false, "InternalServiceError", true, false},
		{t.Context(), "AccessDeniedException", false, "AccessDeniedException", false, false},
		{t.Context(), "DecryptionFailure", false, "DecryptionFailure", false, false},
		{t.Context(), "LimitExceededException", false, "LimitExceededException", true, false},
		{t.Context(), "", true, "unreachable", true, true},
		{ended, "", true, "context canceled", false, false},
	} {
		w := open(t, setup{})
		w.server.Fail(secretstoretest.Fault{Error: tt.code, Drop: tt.drop})
		_, err := w.App(tt.ctx, "default")
		failed := new(connector.StoreError)
		if errors.As(err, &failed) {
			tt.want = "GetSecretValue: entra/apps/default: " + tt.want
		}
		if err == nil || err.Error() != tt.want || failed.Temporary != tt.temporary || failed.Unanswered != tt.unanswered {
			t.Errorf("%+v: %v, %+v", tt, err, failed)
		}
	}
}

// A listing has what is below the prefix and is not deleted. A cursor that AWS would not take is not sent.
func TestListing(t *testing.T) {
	w := open(t, setup{})
	for _, name := range []string{"default/a", "default/b", "default-2/c"} {
		c := connection(tenantA)
		c.App, c.Name, _ = strings.Cut(name, "/")
		_, err := w.CreateConnection(t.Context(), c, tokenOf(tenantA, 0))
		w.must(err)
	}
	w.create()
	w.remove()
	_, err := w.CreateApp(t.Context(), connector.App{Name: "other", Registration: app.Registration})
	w.must(err)
	x, _ := w.server.Look("entra/connections/default/a")
	for _, name := range []string{"entra/connections/default/not/one", "entra/connections/UPPER/x", "entra/connectionsx/default/y", "other/connections/default/z", "entra/apps/not/one", "entra"} {
		w.server.Edit(name, func(y *secret) { *y = x; y.Version = "" })
	}
	for app, want := range map[string]string{"": "default-2/c default/a default/b", "default": "default/a default/b"} {
		for _, limit := range []int{1, 100} {
			var names []string
			for cursor, more := "", true; more; more = cursor != "" {
				var page []connector.Connection
				page, cursor, err = w.Connections(t.Context(), app, limit, cursor)
				w.must(err)
				for _, c := range page {
					names = append(names, c.String())
				}
			}
			if got := strings.Join(names, " "); got != want {
				t.Errorf("of app %q, by %d: %s, want %s", app, limit, got, want)
			}
		}
	}
	// Emulators take filters for less than they are.
	w.change = func(op string, body []byte) []byte {
		if op == "ListSecrets" {
			return []byte(`{"IncludePlannedDeletion":true}`)
		}
		return body
	}
	page, _, err := w.Connections(t.Context(), "", 100, "")
	apps, appsErr := w.Apps(t.Context())
	if len(page) != 3 || len(apps) != 1 || apps[0].Name != "other" || err != nil || appsErr != nil {
		t.Errorf("with loose filters: %v, %v, apps %+v, %v", page, err, apps, appsErr)
	}

	w = open(t, setup{})
	long := func(n int) string { return base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("x", n))) }
	for i, cursor := range []string{"%", long(4097), "bm90LW91cnM", long(4096)} {
		_, _, err := w.Connections(t.Context(), "", 100, cursor)
		if invalid := new(connector.InvalidError); !errors.As(err, &invalid) || w.server.Count("ListSecrets") != max(i-1, 0) {
			t.Errorf("cursor %.20q: %v after %d calls", cursor, err, w.server.Count("ListSecrets"))
		}
	}
}

// The key is for what is created, and the recovery window for what is deleted.
func TestKeyAndRecoveryWindow(t *testing.T) {
	const key, days = `"KmsKeyId":"alias/entra"`, `"RecoveryWindowInDays":7`
	w := open(t, setup{Config: secretstore.Config{KMSKeyID: "alias/entra", RecoveryDays: 7}})
	w.change = func(op string, body []byte) []byte {
		if strings.Contains(string(body), key) != (op == "CreateSecret") || strings.Contains(string(body), days) != (op == "DeleteSecret") {
			t.Errorf("%s: %s", op, body)
		}
		return body
	}
	w.create()
	w.remove()
	w.create() // restored
	w = open(t, setup{})
	w.change = func(op string, body []byte) []byte {
		if strings.Contains(string(body), "KmsKeyId") || strings.Contains(string(body), "RecoveryWindowInDays") {
			t.Errorf("not configured, %s: %s", op, body)
		}
		return body
	}
	w.create()
	w.remove()
}
