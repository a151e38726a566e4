package secretstore_test

import (
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"entra-connector/internal/connector"
	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/pkg/entra"
)

var update = flag.Bool("update", false, "rewrite the golden files")

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

// Those who create connections on an app announce them, and those who delete or replace it hold it. Nobody overwrites what
// another says, and nothing of it stays for ever.
func TestWhoMeetsOnAnApp(t *testing.T) {
	w := open(t, setup{})
	w.create()
	look := func() connector.AppUse {
		t.Helper()
		use, err := w.LookAtApp(t.Context(), "default")
		w.must(err)
		return use
	}
	announce := func(name, version string) {
		t.Helper()
		c := connector.Connection{ConnectionRef: connector.ConnectionRef{App: "default", Name: name}, Version: version}
		w.must(w.Announce(t.Context(), look(), c))
	}
	expect := func(when, announced, old string, busy, held bool) {
		t.Helper()
		use := look()
		names, was := slices.Sorted(maps.Keys(use.Announced)), slices.Sorted(slices.Values(use.Old))
		if len(names) > 2 {
			names = []string{names[0], fmt.Sprintf("%d more", len(names)-1)}
		}
		if got := strings.Join(names, ", "); got != announced || strings.Join(was, ", ") != old || use.Busy > 0 != busy || use.Busy > 11*time.Minute || use.Held != held {
			t.Errorf("%s: announced %q, old %q, busy for %v, held %t", when, got, was, use.Busy, use.Held)
		}
	}
	expect("at first", "", "", false, false)
	announce("c01", "one")
	announce("c02", "")
	announce("c01", "two")
	expect("two", "c01, c02", "", false, false)
	if got := look().Announced["c01"]; got.Version != "two" || time.Since(got.At).Abs() > time.Minute {
		t.Errorf("announced as %+v", got)
	}
	for n := 3; n <= 20; n++ {
		announce(fmt.Sprintf("c%02d", n), "")
	}
	expect("twenty", "c01, 19 more", "", false, false)
	announce("c21", "")
	announce("c20", "again")
	expect("the next", "c01, 19 more", "", true, false)
	if got := look().Announced["c20"].Version; got != "again" {
		t.Errorf("the last is announced as %q", got)
	}

	w.ahead += 11 * time.Minute
	announce("c22", "")
	expect("later", "c22", "", false, false)
	w.ahead += 11 * time.Minute
	expect("later still", "", "c22", false, false)
	announce("c23", "")
	expect("a few old ones stay", "c23", "c22", false, false)

	release, err := w.Hold(t.Context(), look())
	w.must(err)
	_, err = w.Hold(t.Context(), look())
	w.must(err)
	release(t.Context())
	expect("held by another", "c23", "c22", false, true)
	w.ahead += 61 * time.Second
	expect("a hold that nobody has released", "c23", "c22", false, false)

	// Whoever takes a deleted app's name is not held by those who deleted it.
	w.must(w.DeleteApp(t.Context(), look()))
	_, err = w.CreateApp(t.Context(), app)
	w.must(err)
	expect("created again", "c23", "c22", false, false)
	x, _ := w.server.Look(appName)
	if len(x.Tags) != 5 { // app, state, the two, and until when it was busy
		t.Errorf("the tags that are left: %v", x.Tags)
	}
	w.server.Edit(appName, func(x *secret) { x.Tags["entra-connector:new:odd"] = "yesterday" })
	expect("an odd announcement", "c23", "c22, odd", false, false)
}

// An announced connection that is not there is still to come, unless it was there and has been deleted.
func TestAnnouncedConnections(t *testing.T) {
	deleted := func(w *world) { w.create(); w.must(w.DeleteConnection(t.Context(), ref)) }
	for _, tt := range []struct {
		name  string
		make  func(*world)
		ago   time.Duration
		grave string // what the announcement names: "", "this", "other"
		want  string
	}{
		{"missing", func(*world) {}, 0, "", "busy"},
		{"missing for a minute", func(*world) {}, 61 * time.Second, "", "false"},
		{"missing, once deleted and purged", func(*world) {}, 0, "other", "false"},
		{"there", func(w *world) { w.create() }, 0, "", "true"},
		{"there for long", func(w *world) { w.create() }, time.Hour, "", "true"},
		{"deleted since", deleted, 0, "", "false"},
		{"deleted before", deleted, 0, "this", "busy"},
		{"deleted before, a minute ago", deleted, 61 * time.Second, "this", "false"},
		{"deleted before, and again", deleted, 0, "other", "false"},
		{"about to be claimed", func(w *world) {
			w.create()
			w.server.Edit(secretName, func(x *secret) { x.Tags["entra-connector:state"] = "deleting" })
		}, time.Hour, "", "busy"},
	} {
		w := open(t, setup{})
		tt.make(w)
		c, _ := w.Connection(t.Context(), ref)
		version := map[string]string{"this": c.Version, "other": c.Version + "x"}[tt.grave]
		exists, err := w.Exists(t.Context(), ref, connector.Announcement{At: time.Now().Add(-tt.ago), Version: version})
		got := fmt.Sprint(exists)
		if err != nil {
			got = outcome(err)
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// A claim that breaks off at any of its calls, before or after that takes effect, leaves nothing that works for the former
// tenant, and the same call finishes it a minute later.
func TestInterruptedClaim(t *testing.T) {
	for _, call := range []string{"CreateSecret", "DescribeSecret", "RestoreSecret", "UpdateSecret", "TagResource"} {
		for _, after := range []bool{false, true} {
			w := open(t, setup{})
			w.create()
			w.must(w.DeleteConnection(t.Context(), ref))
			claim := func() error {
				_, err := w.CreateConnection(t.Context(), connection(tenantB), tokenOf(tenantB, 0))
				return err
			}
			w.server.Fail(secretstoretest.Fault{Op: call, Times: 1, After: after, Drop: true})
			if err := claim(); err == nil && !(after && call == "CreateSecret") { // which AWS refuses at any rate
				t.Errorf("%s fails, after its effect %t: no error", call, after)
			}
			if c, err := w.Connection(t.Context(), ref); err == nil && c.TenantID == tenantA {
				t.Errorf("%s fails, after its effect %t: the former connection is back", call, after)
			}
			w.ahead += 61 * time.Second
			if err := claim(); err != nil && err != connector.ErrExists || w.read().TenantID != tenantB || w.read().Failure != nil {
				t.Errorf("%s fails, after its effect %t: the same call again: %v, %s", call, after, err, shown(w.read()))
			}
		}
	}
}

func TestErrorsKeepToThemselves(t *testing.T) {
	w := open(t, setup{})
	for code, temporary := range map[string]bool{
		"ThrottlingException": true, "InternalServiceError": true, "AccessDeniedException": false, "DecryptionFailure": false, "LimitExceededException": true,
	} {
		w.server.Fail(secretstoretest.Fault{Error: code})
		_, err := w.App(t.Context(), "default")
		w.server.ClearFaults()
		var failed *connector.StoreError
		if !errors.As(err, &failed) || failed.Temporary != temporary || failed.Unanswered || err.Error() != "GetSecretValue: entra/apps/default: "+code {
			t.Errorf("%s: %#v", code, err)
		}
	}
	for status, temporary := range map[int]bool{520: true, 501: true, 499: false, 400: false} {
		strange := open(t, setup{})
		strange.answer = func() *http.Response {
			return &http.Response{StatusCode: status, Header: http.Header{"X-Amzn-Errortype": {"SomethingNew"}}, Body: http.NoBody}
		}
		_, err := strange.App(t.Context(), "default")
		var failed *connector.StoreError
		if !errors.As(err, &failed) || failed.Code != "SomethingNew" || failed.Temporary != temporary {
			t.Errorf("status %d with a code that nobody knows: %#v, want temporary: %t", status, err, temporary)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.App(ended, "default"); !errors.Is(err, context.Canceled) {
		t.Errorf("after the caller gave up: %v", err)
	}
	w.server.Fail(secretstoretest.Fault{Drop: true})
	_, err := w.App(t.Context(), "default")
	var failed *connector.StoreError
	if !errors.As(err, &failed) || failed.Code != "unreachable" || !failed.Temporary || !failed.Unanswered {
		t.Errorf("with nobody there: %v", err)
	}
}

// A listing has what is below the prefix, and no more, though emulators take filters for less than they are.
func TestListing(t *testing.T) {
	for _, loose := range []bool{false, true} {
		w := open(t, setup{})
		w.change = func(op string, body []byte) []byte {
			if loose && op == "ListSecrets" {
				return []byte(`{"IncludePlannedDeletion":true}`)
			}
			return body
		}
		for _, name := range []string{"default/a", "default/b", "default-2/c", "default/deleted"} {
			c := connection(tenantA)
			c.App, c.Name, _ = strings.Cut(name, "/")
			_, err := w.CreateConnection(t.Context(), c, tokenOf(tenantA, 0))
			w.must(err)
		}
		for _, name := range []string{"default", "deleted"} {
			_, err := w.CreateApp(t.Context(), connector.App{Name: name, Registration: app.Registration})
			w.must(err)
		}
		w.must(w.DeleteApp(t.Context(), connector.AppUse{App: connector.App{Name: "deleted"}}))
		w.must(w.DeleteConnection(t.Context(), connector.ConnectionRef{App: "default", Name: "deleted"}))
		x, _ := w.server.Look("entra/connections/default/a")
		for _, name := range []string{"entra/connections/default/not/one", "entra/connections/UPPER/x", "entra/connectionsx/default/y", "other/connections/default/z",
			"old/entra/connections/default/d", "old-entra/connections/default/e", "entra/apps/not/one", "entra", "e"} {
			w.server.Edit(name, func(y *secret) { *y = x; y.Version = "" })
		}
		names := func(app string, limit int) string {
			var names []string
			for cursor := ""; ; {
				page, next, err := w.Connections(t.Context(), app, limit, cursor)
				w.must(err)
				for _, c := range page {
					names = append(names, c.String())
				}
				if cursor = next; cursor == "" {
					slices.Sort(names)
					return strings.Join(names, " ")
				}
			}
		}
		limits := []int{1, 100}
		if loose {
			limits = limits[1:]
		}
		for _, limit := range limits {
			if all, one := names("", limit), names("default", limit); all != "default-2/c default/a default/b" || one != "default/a default/b" {
				t.Errorf("filters are loose: %t, pages of %d: all %s, of one app %s", loose, limit, all, one)
			}
		}
		if apps, err := w.Apps(t.Context()); len(apps) != 1 || apps[0].Name != "default" || err != nil {
			t.Errorf("filters are loose: %t: apps %+v, %v", loose, apps, err)
		}
	}

	w := open(t, setup{})
	long := func(n int) string { return base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("x", n))) }
	for i, cursor := range []string{"%", long(4097), "bm90LW91cnM", long(4096)} {
		_, _, err := w.Connections(t.Context(), "", 100, cursor)
		// What AWS would not even take is not sent.
		if invalid := new(connector.InvalidError); !errors.As(err, &invalid) || w.server.Count("ListSecrets") != max(i-1, 0) {
			t.Errorf("cursor %.20q: %v after %d calls", cursor, err, w.server.Count("ListSecrets"))
		}
	}
}

// The key is for what is created, and the recovery window for what is deleted.
func TestKeyAndRecoveryWindow(t *testing.T) {
	for _, configured := range []bool{false, true} {
		var s setup
		if configured {
			s.KMSKeyID, s.RecoveryDays = "alias/entra", 7
		}
		w := open(t, s)
		said := make(map[string]string)
		w.change = func(op string, body []byte) []byte {
			for _, what := range []string{"KmsKeyId", `"KmsKeyId":"alias/entra"`, "RecoveryWindowInDays", `"RecoveryWindowInDays":7`} {
				if strings.Contains(string(body), what) {
					said[what] += op + " "
				}
			}
			return body
		}
		w.create()
		w.remove()
		w.create() // restored
		want := make(map[string]string)
		if configured {
			creates, deletes := strings.Repeat("CreateSecret ", 4), strings.Repeat("DeleteSecret ", 2)
			want = map[string]string{"KmsKeyId": creates, `"KmsKeyId":"alias/entra"`: creates, "RecoveryWindowInDays": deletes, `"RecoveryWindowInDays":7`: deletes}
		}
		if !maps.Equal(said, want) {
			t.Errorf("configured %t: said %v, want %v", configured, said, want)
		}
	}
}
