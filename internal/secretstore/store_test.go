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
	"sync"
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
	tagState   = "entra-connector:state"
	tagClaim   = "entra-connector:claim:somebody"
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
	if wait, ok := r.Context().Value(gate{}).(func()); ok {
		wait()
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

type gate struct{}

// gated returns a context that calls f before the n-th call to AWS that is made with it.
func gated(ctx context.Context, n int, f func()) context.Context {
	calls := 0
	return context.WithValue(ctx, gate{}, func() {
		if calls++; calls == n+1 {
			f()
		}
	})
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
	c, err := w.take(w.t.Context(), tenantA, 0)
	w.must(err)
	return c
}

// take creates default/acme for a tenant, as the connector does, which looks first what is there.
func (w *world) take(ctx context.Context, tenant string, at time.Duration) (connector.Connection, error) {
	found, _ := w.Connection(ctx, ref)
	c := connection(tenant)
	c.Version = found.Version
	return w.CreateConnection(ctx, c, tokenOf(tenant, at))
}

// remove deletes the app and default/acme.
func (w *world) remove() {
	w.t.Helper()
	w.must(w.DeleteConnection(w.t.Context(), ref))
	w.must(w.DeleteApp(w.t.Context(), connector.AppUse{App: app}))
	if _, err := w.App(w.t.Context(), "default"); err != connector.ErrNotFound {
		w.t.Errorf("the deleted app: %v", err)
	}
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

// What is stored is a contract with integrations, with people in the console, and with the next
// version of the connector.
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
	// 0.1.0 named no version and no state.
	w.server.Edit(appName, func(x *secret) {
		x.Description = strings.Replace(x.Description, `,"version":"`+x.Version+`"`, "", 1)
		delete(x.Tags, tagState)
	})
	use, err = w.LookAtApp(t.Context(), "default")
	if listed, listErr := w.Apps(t.Context()); err != nil || listErr != nil || !reflect.DeepEqual(use.App, readApp) || !reflect.DeepEqual(listed, []connector.App{readApp}) {
		t.Errorf("as 0.1.0 stored it, looked at: %+v, %v, listed: %+v, %v", use.App, err, listed, listErr)
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
	tag := func(key, value string) func(*world, string) {
		return edited(func(x *secret) { x.Tags[key] = value })
	}
	deleting := tag(tagState, "deleting 1")
	untagged := edited(func(x *secret) { x.Tags = nil })
	claimed := func(ago time.Duration) func(*world, string) {
		return later(func(w *world, name string) {
			tag(tagClaim, time.Now().Add(61*time.Second-ago).UTC().Format(time.RFC3339))(w, name)
		})
	}
	moved := edited(func(x *secret) { x.Description = strings.Replace(x.Description, tenantA, tenantB, 1) })
	rescoped := edited(func(x *secret) {
		x.Description = strings.Replace(x.Description, app.Scope, "https://other.example/.default", 1)
	})
	empty := func(scope string) func(*world, string) {
		return func(w *world, name string) {
			w.server.Edit(name, func(x *secret) {
				x.Tags = map[string]string{"entra-connector:app": "default", "entra-connector:connection": "acme",
					"entra-connector:tenant": tenantA, "entra-connector:scope": scope}
			})
		}
	}
	const (
		none       = "" // the row is about connections
		unfinished = "The connection's deletion has not finished"
		tagsGone   = "refused: The tags of the connection's secret are gone or were edited"
		other      = "conflict: The secret belongs to another connection, tenant or scope"
	)
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
		{"deleted by hand, without tags", edited(func(x *secret) { x.Pending, x.Tags = true, nil }), "", "not found", "done", "done", "not found"},
		{"deleted, with the tags of another", edited(func(x *secret) { x.Pending, x.Tags["entra-connector:app"] = true, "other" }), "", none, other, other, "not found"},
		{"somebody's, deleted", func(w *world, name string) {
			w.server.Put(name, "theirs", "theirs")
			w.server.Edit(name, func(x *secret) { x.Pending = true })
		}, "", foreign, foreign, foreign, "not found"},
		{"a deletion that may be under way", deleting, "retrying: " + unfinished, "not found", "busy", "busy", "done"},
		{"a deletion that broke off", later(deleting), "refused: " + unfinished, "not found", "done", "done", "done"},
		{"a claim that may be under way", claimed(30 * time.Second), "refused: " + unfinished, "not found", "busy", "busy", "busy"},
		{"a claim that broke off at first", claimed(61 * time.Second), ok, "done", "already exists", "already exists", "done"},
		{"a deletion that broke off, and a claim", later(edited(func(x *secret) { x.Tags[tagState], x.Tags[tagClaim] = "deleting 1", "long ago" })),
			"refused: " + unfinished, "not found", "done", "done", "done"},
		{"a claim that has ended", tag(tagClaim, "done"), ok, "done", "already exists", "already exists", "done"},
		{"a claim that may be under way, with a value", moved, "retrying: " + unfinished, none, "busy", "busy", "done"},
		{"a claim that broke off, with a value", later(moved), "refused: " + unfinished, none, "done", "done", "done"},
		{"a claim that broke off, for another scope", later(rescoped), "refused: " + unfinished, none, "done", "done", "done"},
		{"no value and no tags", func(w *world, name string) { w.server.Edit(name, func(*secret) {}) }, "", "not found", "done", "done", "not found"},
		{"no value and no tags, deleted", func(w *world, name string) { w.server.Edit(name, func(x *secret) { x.Pending = true }) }, "", "not found", "done", "done", "not found"},
		{"all tags, and no value", empty("https://graph.microsoft.com"), "refused: The connection's secret has no value", none, "done", other, "done"},
		{"all tags, for another scope", empty("https://other.example"), "refused: The connection's secret has no value", none, other, other, "done"},
		{"our tags, and no value", func(w *world, name string) {
			w.server.Edit(name, func(x *secret) {
				x.Tags = map[string]string{"entra-connector:app": "default"}
				if name == secretName {
					x.Tags["entra-connector:connection"] = "acme"
				}
			})
		}, "refused: The connection's secret has no value", "not found", "done", "done", "done"},
		{"tags gone", later(untagged), tagsGone, "done", "done", foreign, "done"},
		{"tags gone just now", untagged, tagsGone, "done", "busy", foreign, "done"},
		{"tags gone, of another scope", later(edited(func(x *secret) {
			x.Tags, x.Description = nil, strings.Replace(x.Description, app.Scope, "https://other.example/.default", 1)
		})), tagsGone, none, foreign, foreign, "done"},
		{"a scope that is none", later(tag("entra-connector:scope", "=4")), tagsGone, none, "done", foreign, "done"},
		{"a tenant that is none", later(tag("entra-connector:tenant", "contoso.com")), tagsGone, none, "done", foreign, "done"},
		{"tags and Description gone", edited(func(x *secret) { x.Tags, x.Description = nil, "" }), refused(foreign), foreign, foreign, foreign, foreign},
		{"the tags of another", tag("entra-connector:app", "other"), refused(other), none, other, other, other},
		{"only the tag of another", edited(func(x *secret) { x.Tags = map[string]string{"entra-connector:app": "other"} }), refused(foreign), foreign, foreign, foreign, foreign},
		{"somebody's secret", func(w *world, name string) { w.server.Put(name, "theirs", "theirs") }, refused(foreign), foreign, foreign, foreign, foreign},
		{"a replica", edited(func(x *secret) { x.PrimaryRegion = "eu-west-1" }), refused(replica), replica, replica, replica, replica},
		{"a primary, here", edited(func(x *secret) { x.PrimaryRegion, x.Replicas = "us-east-1", []string{"eu-west-1"} }), ok, "done",
			"already exists", "already exists", "conflict: replicas in eu-west-1"},
		{"managed", edited(func(x *secret) { x.OwningService = "rds" }), refused(managed), managed, managed, managed, managed},
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
		if blocked := strings.HasPrefix(tt.shows, "refused") && strings.HasPrefix(tt.remove, "conflict"); one.Blocked != blocked {
			t.Errorf("%s: blocked %t", tt.name, one.Blocked)
		}
		for tenant, want := range map[string]string{tenantA: tt.claim, tenantB: tt.other} {
			w := attempt("provisioning for "+tenant[:1], secretName, want, func(w *world) error {
				_, err := w.take(t.Context(), tenant, time.Minute)
				return err
			})
			x, _ := w.server.Look(secretName)
			maps.DeleteFunc(x.Tags, func(key, value string) bool { return value == "done" }) // of the claim
			if want == "done" && (w.read().TenantID != tenant || w.read().Failure != nil || len(x.Tags) != 5 || !strings.Contains(x.Value, tenant)) {
				t.Errorf("%s: provisioned for %s it is %+v, with %v, and holds %s", tt.name, tenant, w.read(), x.Tags, x.Value)
			}
		}
		w = attempt("deleting", secretName, tt.remove, func(w *world) error { return w.DeleteConnection(t.Context(), ref) })
		if _, err := w.Connection(t.Context(), ref); tt.remove == "done" && err != connector.ErrNotFound {
			t.Errorf("%s: deleted it is %v", tt.name, err)
		}

		if tt.app == none {
			continue
		}
		attempt("looking at the app", appName, tt.app, func(w *world) error { _, err := w.LookAtApp(t.Context(), "default"); return err })
		attempt("creating the app", appName, tt.claim, func(w *world) error { _, err := w.CreateApp(t.Context(), app); return err })
		attempt("deleting the app", appName, tt.remove, func(w *world) error { return w.DeleteApp(t.Context(), connector.AppUse{App: app}) })
		finish := tt.remove
		switch {
		case tt.app == "done":
			finish = "already exists"
		case tt.name == "our tags, and no value":
			finish = "not found"
		}
		attempt("finishing the app's deletion", appName, finish, func(w *world) error { return w.FinishDeletion(t.Context(), "default") })
		w = attempt("listing apps", appName, "done", func(w *world) error { _, err := w.Apps(t.Context()); return err })
		if apps, _ := w.Apps(t.Context()); (len(apps) == 1) != (tt.app == "done") {
			t.Errorf("%s: the apps are %+v", tt.name, apps)
		}
		if tt.app != "done" {
			continue
		}
		// Whoever writes to the app restores tags that are gone.
		for what, do := range map[string]func(*world, connector.AppUse) error{
			"replacing the app": func(w *world, use connector.AppUse) error {
				_, err := w.UpdateApp(t.Context(), use, use.App)
				return err
			},
			"announcing":      func(w *world, use connector.AppUse) error { return w.Announce(t.Context(), use, connection(tenantA)) },
			"holding the app": func(w *world, use connector.AppUse) error { _, err := w.Hold(t.Context(), use); return err },
		} {
			w := attempt(what, appName, "done", func(w *world) error {
				use, err := w.LookAtApp(t.Context(), "default")
				w.must(err)
				return do(w, use)
			})
			if x, _ := w.server.Look(appName); x.Tags["entra-connector:app"] != "default" {
				t.Errorf("%s, %s: the tags are %v", tt.name, what, x.Tags)
			}
		}
	}
}

// What is known about a connection is what its Description says about the current version. Whatever
// else stands there was overtaken. It is shown as unknown, and the next write sets it right.
func TestOvertakenDescriptions(t *testing.T) {
	const ok, unknown = "ok of a until 02:59:59", "retrying: The state of the connection is unknown"
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
		{"as 0.1.0 wrote it", edited(func(x *secret) { x.Description = strings.Replace(x.Description, `"version":"`+x.Version+`",`, "", 1) }), unknown, false},
		{"another tenant, in a write that was overtaken", func(w *world, first connector.Connection) {
			replaced(tenantA, tenantB)(w, first)
			edited(func(x *secret) { x.Description = strings.Replace(x.Description, x.Version, first.Version, 1) })(w, first)
		}, unknown, false},
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
		failed := page[0]
		failed.Failure = &connector.Failure{Status: connector.StatusRefused, Code: "AADSTS7000112", Advice: entra.Advice{Title: "Disabled", Action: "Enable it."}, At: start}
		if w.must(w.SaveFailure(t.Context(), failed)); shown(w.read()) != "refused: Disabled" {
			t.Errorf("%s: after a refusal it is %s", tt.name, shown(w.read()))
		}
		next := tokenOf(tenantA, 2*time.Hour)
		w.must(w.SaveToken(t.Context(), with(page[0], next), next))
		if value, _ := w.server.Value(secretName); shown(w.read()) != "ok of a until 03:59:59" || !strings.Contains(value, "t0ken of 2h") {
			t.Errorf("%s: after the next write it is %s, and holds %s", tt.name, shown(w.read()), value)
		}
	}
}

// AWS may refuse a deletion at any step. What is left works as before, or its deletion is finished
// by the same call.
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
	// It has been replicated meanwhile.
	w := open(t, setup{})
	c := w.create()
	w.change = func(op string, body []byte) []byte {
		if op == "DeleteSecret" {
			w.server.Edit(secretName, func(x *secret) { x.Replicas = []string{"eu-west-1"} })
		}
		return body
	}
	if err := w.DeleteConnection(t.Context(), ref); outcome(err) != "conflict: replicas in eu-west-1" || !reflect.DeepEqual(w.read(), c) {
		t.Errorf("replicated: %v, the connection is\n%+v, want\n%+v", err, w.read(), c)
	}
	// Without its Description nobody knows whose the value is.
	w = open(t, setup{})
	w.create()
	w.server.Edit(secretName, func(x *secret) { x.Description = "" })
	w.server.Fail(secretstoretest.Fault{Op: "DeleteSecret", Error: "AccessDeniedException"})
	if err := w.DeleteConnection(t.Context(), ref); err == nil || w.read().Failure.Code != connector.CodeUnfinished {
		t.Errorf("unknown: %v, the connection is %s", err, shown(w.read()))
	}
	// The mark of a deletion that broke off cannot be taken back.
	w = open(t, setup{})
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
		{"by one who has died", wait(61 * time.Second), "1 ", 2, false, false},
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
	if x, _ := w.server.Look(appName); len(x.Tags) != 7 { // app, state, the claim, the three, and until when it was busy
		t.Errorf("the tags that are left: %v", x.Tags)
	}
}

// left says how default/acme is shown, and whether the app is there.
func (w *world) left() string {
	_, appErr := w.LookAtApp(w.t.Context(), "default")
	c, err := w.Connection(w.t.Context(), ref)
	if err != nil {
		return fmt.Sprintf("connection %v, app %s", err, outcome(appErr))
	}
	return fmt.Sprintf("%s, app %s", shown(c), outcome(appErr))
}

// consistent fails the test if default/acme works and holds another tenant's token than it says.
func (w *world) consistent(what string) {
	w.t.Helper()
	c, err := w.Connection(w.t.Context(), ref)
	if value, _ := w.server.Value(secretName); err == nil && c.Failure == nil && !strings.Contains(value, c.TenantID) {
		w.t.Errorf("%s: it is %s, and holds %s", what, shown(c), value)
	}
}

// A claim that breaks off at any of its calls leaves nothing that works with another tenant's
// token. The same claim a minute later succeeds.
func TestInterruptedClaim(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n, interrupted := 0, true; interrupted; n++ {
			what := fmt.Sprintf("broken off at call %d, which takes effect: %t", n, after)
			w := open(t, setup{})
			w.create()
			w.must(w.DeleteConnection(t.Context(), ref))
			call := 0
			w.change = func(_ string, body []byte) []byte {
				if call == n {
					w.server.Fail(secretstoretest.Fault{Times: 1, Drop: true, After: after})
				}
				call++
				return body
			}
			_, err := w.take(t.Context(), tenantB, 0)
			interrupted = call > n
			w.consistent(what)
			w.ahead += 61 * time.Second
			w.consistent(what + ", a minute later")
			if _, again := w.take(t.Context(), tenantB, 0); again != nil && err != nil && again != connector.ErrExists {
				t.Errorf("%s: %v, and again: %v", what, err, again)
			}
			if c := w.read(); shown(c) != "ok of b until 01:59:59" {
				t.Errorf("%s: in the end it is %s", what, shown(c))
			}
		}
	}
}

// A claim meets another caller at any of its calls, who goes on after any of theirs. If one of the
// two succeeds, the secret is as that one leaves it. Nothing is stuck a minute later.
func TestClaimsMeet(t *testing.T) {
	const never = "nothing, since one gives way"
	type call struct {
		do     func(context.Context, *world, connector.Connection) error
		leaves string // empty: does not matter
	}
	claim := func(tenant string) call {
		return call{func(ctx context.Context, w *world, _ connector.Connection) error {
			_, err := w.take(ctx, tenant, 0)
			return err
		}, "ok of " + tenant[:1] + " until 01:59:59"}
	}
	create := call{func(ctx context.Context, w *world, _ connector.Connection) error {
		_, err := w.CreateApp(ctx, app)
		return err
	}, "app done"}
	finish := call{func(ctx context.Context, w *world, _ connector.Connection) error {
		return w.FinishDeletion(ctx, "default")
	}, "app not found"}
	deletion := call{func(ctx context.Context, w *world, _ connector.Connection) error { return w.DeleteConnection(ctx, ref) }, "connection not found"}
	refresh := call{func(ctx context.Context, w *world, c connector.Connection) error {
		return w.SaveToken(ctx, with(c, tokenOf(tenantA, time.Hour)), tokenOf(tenantA, time.Hour))
	}, ""}
	deleted := func(w *world) { w.must(w.DeleteConnection(t.Context(), ref)) }
	unfinished := func(w *world) {
		w.server.Fail(secretstoretest.Fault{Op: "TagResource", After: true, Times: 2})
		_, _ = w.DeleteConnection(t.Context(), ref), w.DeleteApp(t.Context(), connector.AppUse{App: app})
		w.ahead += 61 * time.Second
	}
	for _, tt := range []struct {
		name          string
		before        func(*world)
		first, second call
		both          string // what is left if both succeed
	}{
		{"two claims", deleted, claim(tenantB), claim(tenantA), never},
		{"two claims of what is unfinished", unfinished, claim(tenantB), claim(tenantA), never},
		{"a late refresh", deleted, claim(tenantB), refresh, never},
		{"a late refresh of what is unfinished", unfinished, claim(tenantB), refresh, ""},
		{"a deletion during a claim", unfinished, claim(tenantB), deletion, ""},
		{"a claim during a deletion", unfinished, deletion, claim(tenantB), ""},
		// What is in use again is not deleted.
		{"the end of a deletion during a claim", unfinished, create, finish, "app done"},
		{"a claim during the end of a deletion", unfinished, finish, create, "app done"},
	} {
		for n, reachedN := 0, true; reachedN; n++ {
			reachedN = false
			for m, reachedM := 0, true; reachedM; m++ {
				reachedM = false
				w := open(t, setup{})
				c := w.create()
				tt.before(w)
				paused, ended, second := make(chan struct{}), make(chan struct{}), make(chan error, 1)
				first := tt.first.do(gated(t.Context(), n, func() {
					reachedN = true
					go func() {
						pause := sync.OnceFunc(func() { close(paused) })
						second <- tt.second.do(gated(t.Context(), m, func() {
							reachedM = true
							pause()
							<-ended
						}), w, c)
						pause()
					}()
					<-paused
				}), w, c)
				close(ended)
				if !reachedN {
					break
				}
				what := fmt.Sprintf("%s, after %d and %d calls", tt.name, n, m)
				results := []error{first, <-second}
				w.consistent(what)
				want := ""
				switch {
				case results[0] == nil && results[1] == nil:
					want = tt.both
				case results[0] == nil:
					want = tt.first.leaves
				case results[1] == nil:
					want = tt.second.leaves
				}
				if left := w.left(); !strings.Contains(left, want) || results[0] == connector.ErrChanged {
					t.Errorf("%s: %v, and left is %q, want %q", what, results, left, want)
				}
				w.ahead += 61 * time.Second
				if err := w.DeleteConnection(t.Context(), ref); err != nil && err != connector.ErrNotFound {
					t.Errorf("%s: deleting it a minute later: %v", what, err)
				}
			}
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
		{t.Context(), "LimitExceededException", false, "LimitExceededException", false, false},
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

type emptyAnswer struct{}

func (emptyAnswer) Do(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader("{}"))}, nil
}

// The SDK takes an empty answer for a success. It says nothing about what is stored.
func TestEmptyAnswers(t *testing.T) {
	w := open(t, setup{})
	options := w.client.Options()
	options.HTTPClient = emptyAnswer{}
	s := secretstore.New(secretsmanager.New(options), secretstore.Config{Prefix: "entra"})
	_, lookErr := s.LookAtApp(t.Context(), "default")
	_, _, listErr := s.Connections(t.Context(), "", 100, "")
	for _, err := range []error{lookErr, listErr} {
		if !errors.As(err, new(*connector.StoreError)) {
			t.Errorf("an empty answer: %v", err)
		}
	}
}

// Accounts that may read get a policy on new connections, and on names that are taken again, but
// not on apps and not on what infrastructure code has made. Until it is there, the connection is
// not in use.
func TestReaders(t *testing.T) {
	const policy = `{"Statement":[{"Action":["secretsmanager:GetSecretValue","secretsmanager:DescribeSecret"],"Effect":"Allow",` +
		`"Principal":{"AWS":["111122223333","444455556666"]},"Resource":"*","Sid":"ReadersOfOtherAccounts"}],"Version":"2012-10-17"}`
	w := open(t, setup{Config: secretstore.Config{Prefix: "entra", Readers: []string{"111122223333", "444455556666"}}})
	_, err := w.CreateApp(t.Context(), app)
	w.must(err)
	w.server.Fail(secretstoretest.Fault{Op: "PutResourcePolicy", Times: 1, Error: "AccessDeniedException"})
	if c, err := w.CreateConnection(t.Context(), connection(tenantA), tokenOf(tenantA, 0)); err == nil {
		t.Errorf("without a policy it is %+v", c)
	}
	if x, _ := w.server.Look(secretName); !strings.HasPrefix(x.Tags[tagState], "deleting") || x.Policy != "" {
		t.Errorf("without a policy it is %+v", x)
	}
	w.ahead += 2 * time.Minute
	for range 2 { // it is finished, then taken again after a deletion
		c := connection(tenantA)
		found, _ := w.Connection(t.Context(), ref)
		c.Version = found.Version
		_, err := w.CreateConnection(t.Context(), c, tokenOf(tenantA, 0))
		w.must(err)
		if x, _ := w.server.Look(secretName); x.Tags[tagState] != "live" || x.Policy != policy {
			t.Errorf("its policy is %s, %+v", x.Policy, x)
		}
		w.server.Edit(secretName, func(x *secret) { x.Policy = "" })
		w.must(w.DeleteConnection(t.Context(), ref))
		w.ahead += 2 * time.Minute
	}
	if x, _ := w.server.Look(appName); x.Policy != "" {
		t.Errorf("the app's policy is %s", x.Policy)
	}
	const theirs = "entra/connections/default/theirs"
	w.server.Edit(theirs, func(x *secret) { x.Policy = "theirs" })
	w.ahead += 2 * time.Minute
	c := connection(tenantA)
	c.Name = "theirs"
	found, _ := w.Connection(t.Context(), c.ConnectionRef)
	c.Version = found.Version
	_, err = w.CreateConnection(t.Context(), c, tokenOf(tenantA, 0))
	w.must(err)
	if x, _ := w.server.Look(theirs); x.Policy != "theirs" || x.Tags[tagState] != "live" {
		t.Errorf("infrastructure code's secret is %+v", x)
	}
}

// A listing has what is below the prefix and is not deleted. A cursor that AWS would not take is
// not sent.
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
