package secretstore_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"entra-connector/internal/connector"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"entra-connector/internal/secretstore"
	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/pkg/entra"
)

const tenant = "aaaaaaaa-0000-4000-8000-000000000001"

var update = flag.Bool("update", false, "rewrite the golden files")

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
	token = entra.Token{TenantID: tenant, Type: "Bearer", AccessToken: entra.NewSecret("t0ken"), ExpiresIn: 3599, ExtExpiresIn: 7199, RequestedAt: start}
)

func connection() connector.Connection {
	return connector.Connection{
		ConnectionRef: ref, TenantID: tenant, Cloud: entra.Public, Scope: app.Scope, TokenType: "Bearer",
		ExpiresAt: token.ExpiresAt(), Lifetime: token.Lifetime(), RefreshedAt: start,
	}
}

// open returns a store on the stand-in, without the SDK's retries.
func open(t *testing.T) (*secretstore.Store, *secretstoretest.Server) {
	server := secretstoretest.Start(t, secretstoretest.Options{Now: func() time.Time { return start }})
	return openAt(server.URL(), secretstore.Config{Prefix: "entra"}, func(o *secretsmanager.Options) { o.RetryMaxAttempts = 1 }), server
}

func openAt(url string, cfg secretstore.Config, change func(*secretsmanager.Options)) *secretstore.Store {
	return secretstore.New(secretsmanager.New(secretsmanager.Options{
		Region: "us-east-1", BaseEndpoint: aws.String(url),
		Credentials: credentials.NewStaticCredentialsProvider("id", "key", ""),
	}, change), cfg)
}

// What is stored is a contract with integrations, with people in the console,
// and with the next version of the connector.
func TestStoredForm(t *testing.T) {
	store, server := open(t)
	if err := store.CreateApp(t.Context(), app); err != nil {
		t.Fatal(err)
	}
	c, err := store.CreateConnection(t.Context(), connection(), token)
	if err != nil {
		t.Fatal(err)
	}
	compare := func(golden, name string) {
		t.Helper()
		value, _ := server.Value(name)
		description, _ := server.Description(name)
		got := "value\n" + value + "\n\ndescription\n" + description + "\n"
		if *update {
			os.WriteFile("testdata/"+golden, []byte(got), 0o644)
		}
		want, err := os.ReadFile("testdata/" + golden)
		if err != nil || got != string(want) {
			t.Errorf("%s is not as in testdata/%s (%v):\n%s", name, golden, err, got)
		}
	}
	compare("app.golden", "entra/apps/default")
	compare("connection.golden", c.SecretName)

	c.Failure = &connector.Failure{Status: connector.StatusRefused, Code: "AADSTS7000222", Advice: connector.Explain("AADSTS7000222"), At: start.Add(time.Hour), Refusals: 2,
		NextAttempt: start.Add(90 * time.Minute), TraceID: tenant, CorrelationID: app.ClientID}
	if err := store.SaveFailure(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	compare("refused.golden", c.SecretName)

	got, err := store.Connection(t.Context(), ref)
	if err != nil || got.Failure == nil || *got.Failure != *c.Failure {
		t.Errorf("read back: %+v, %v", got, err)
	}
	if got.Version == "" {
		t.Error("read back without a version")
	}
	got.Failure, c.Failure, got.Version = nil, nil, ""
	if !reflect.DeepEqual(got, c) {
		t.Errorf("read back:\n got %+v\nwant %+v", got, c)
	}
	readApp, err := store.App(t.Context(), "default")
	if err != nil || !readApp.Credential.Equal(app.Credential) || !readApp.ChangedAt.Equal(start) || readApp.Scope != app.Scope {
		t.Errorf("app read back: %+v, %v", readApp, err)
	}
}

// The longest of everything still fits a Description of 2,048 characters.
func TestDescriptionFits(t *testing.T) {
	store, _ := open(t)
	c := connection()
	c.App, c.Name = strings.Repeat("a", 64), strings.Repeat("b", 64)
	c.Scope = "https://" + strings.Repeat("&", 494) + "/.default"
	c.Failure = &connector.Failure{Status: connector.StatusRefused, Code: "AADSTS123456789", At: start.Add(1), Refusals: 1 << 30, NextAttempt: start.Add(1), TraceID: tenant, CorrelationID: tenant}
	if _, err := store.CreateConnection(t.Context(), c, token); err != nil {
		t.Error(err)
	}
}

func TestAbsent(t *testing.T) {
	store, _ := open(t)
	ctx := t.Context()
	check := func(when string) {
		t.Helper()
		_, err1 := store.App(ctx, "default")
		_, err2 := store.AppWithoutCredential(ctx, "default")
		_, err3 := store.Connection(ctx, ref)
		for i, err := range []error{err1, err2, err3, store.UpdateApp(ctx, app), store.SaveToken(ctx, connection(), token),
			store.SaveFailure(ctx, connection()), store.DeleteApp(ctx, "default"), store.DeleteConnection(ctx, ref)} {
			if !errors.Is(err, connector.ErrNotFound) {
				t.Errorf("%s, call %d: %v, want ErrNotFound", when, i, err)
			}
		}
		if apps, err := store.Apps(ctx); len(apps) != 0 || err != nil {
			t.Errorf("%s: apps %v, %v", when, apps, err)
		}
	}
	check("at first")
	for range 2 { // a second time from the recovery window
		if err := store.CreateApp(ctx, app); err != nil {
			t.Fatal(err)
		}
		if _, err := store.CreateConnection(ctx, connection(), token); err != nil {
			t.Fatal(err)
		}
		if err := store.CreateApp(ctx, app); !errors.Is(err, connector.ErrExists) {
			t.Errorf("creating an app again: %v", err)
		}
		if _, err := store.CreateConnection(ctx, connection(), token); !errors.Is(err, connector.ErrExists) {
			t.Errorf("creating a connection again: %v", err)
		}
		if err := errors.Join(store.DeleteApp(ctx, "default"), store.DeleteConnection(ctx, ref)); err != nil {
			t.Fatal(err)
		}
		check("after the deletion")
	}
}

// A deletion that was interrupted between its two steps counts as done, and is
// finished by the same call.
func TestInterruptedDeletion(t *testing.T) {
	store, server := open(t)
	ctx := t.Context()
	if _, err := store.CreateConnection(ctx, connection(), token); err != nil {
		t.Fatal(err)
	}
	server.Fail(secretstoretest.Fault{Op: "DeleteSecret", Error: "AccessDeniedException"})
	if err := store.DeleteConnection(ctx, ref); err == nil {
		t.Fatal("the deletion does not fail")
	}
	server.ClearFaults()
	if _, err := store.Connection(ctx, ref); !errors.Is(err, connector.ErrNotFound) {
		t.Errorf("the connection: %v", err)
	}
	if page, _, err := store.Connections(ctx, "", 100, ""); len(page) != 0 || err != nil {
		t.Errorf("the list: %v, %v", page, err)
	}
	if err := store.DeleteConnection(ctx, ref); err != nil {
		t.Errorf("the same call again: %v", err)
	}
	if names := server.Names(); len(names) != 0 {
		t.Errorf("left over: %v", names)
	}
}

// What AWS will not delete, such as a secret with replicas, is not reported as
// deleted.
func TestRefusedDeletion(t *testing.T) {
	store, server := open(t)
	if err := store.CreateApp(t.Context(), app); err != nil {
		t.Fatal(err)
	}
	server.Fail(secretstoretest.Fault{Op: "DeleteSecret", Error: "InvalidRequestException"})
	err := store.DeleteApp(t.Context(), "default")
	var failed *connector.StoreError
	if !errors.As(err, &failed) || failed.Code != "InvalidRequestException" {
		t.Errorf("a deletion that AWS refuses: %v", err)
	}
}

// A write whose answer is lost has landed when the SDK tries it again.
func TestLostAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, _, server := openInMemory(t, secretstore.Config{Prefix: "entra"}, nil)
		for _, call := range []struct {
			name, loses string
			do          func() error
		}{
			{"creating", "CreateSecret", func() error { _, err := store.CreateConnection(t.Context(), connection(), token); return err }},
			{"updating", "UpdateSecret", func() error { return store.SaveToken(t.Context(), read(t, store), token) }},
			{"marking as deleted", "UpdateSecret", func() error { return store.DeleteConnection(t.Context(), ref) }},
			{"creating again", "RestoreSecret", func() error { _, err := store.CreateConnection(t.Context(), connection(), token); return err }},
			{"deleting", "DeleteSecret", func() error { return store.DeleteConnection(t.Context(), ref) }},
		} {
			server.ResetCalls()
			server.Fail(secretstoretest.Fault{Op: call.loses, After: true, Times: 1})
			if err := call.do(); err != nil {
				t.Errorf("%s: %v", call.name, err)
			}
			if n := server.Count(call.loses); n < 2 {
				t.Errorf("%s: the SDK did not try again, so nothing is shown", call.name)
			}
		}
		if names := server.Names(); len(names) != 0 {
			t.Errorf("not deleted: %v", names)
		}
	})
}

func TestErrorsKeepToThemselves(t *testing.T) {
	store, server := open(t)
	for code, want := range map[string]bool{
		"ThrottlingException": true, "InternalServiceError": true, "AccessDeniedException": false, "DecryptionFailure": false, "LimitExceededException": true,
	} {
		server.Fail(secretstoretest.Fault{Error: code})
		_, err := store.App(t.Context(), "default")
		server.ClearFaults()
		var failed *connector.StoreError
		if !errors.As(err, &failed) || failed.Code != code || failed.Temporary != want || strings.Contains(err.Error(), "A fault") {
			t.Errorf("%s: %#v", code, err)
		}
	}
	for status, want := range map[int]bool{520: true, 501: true, 499: false, 400: false} {
		strange := openAt("http://stand-in.invalid", secretstore.Config{Prefix: "entra"}, func(o *secretsmanager.Options) {
			o.RetryMaxAttempts = 1
			o.HTTPClient = httpClient(func(*http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(`{"__type":"SomethingNew"}`))}, nil
			})
		})
		_, err := strange.App(t.Context(), "default")
		var failed *connector.StoreError
		if !errors.As(err, &failed) || failed.Code != "SomethingNew" || failed.Temporary != want {
			t.Errorf("status %d with a code that nobody knows: %#v, want temporary: %t", status, err, want)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := store.App(ended, "default"); !errors.Is(err, context.Canceled) {
		t.Errorf("after the caller gave up: %v", err)
	}
	server.Close()
	_, err := store.App(t.Context(), "default")
	var failed *connector.StoreError
	if !errors.As(err, &failed) || failed.Code != "unreachable" || !failed.Temporary {
		t.Errorf("with nobody there: %v", err)
	}
}

func TestListing(t *testing.T) {
	store, server := open(t)
	for _, name := range []string{"entra/connections/default/a", "entra/connections/default/b", "entra/connections/default-2/c",
		"entra/connections/default/not/one", "entra/connections/UPPER/x", "entra/connectionsx/default/y", "other/connections/default/z"} {
		server.Put(name, "{}", `{"status":"ok","tenant_id":"`+tenant+`"}`)
	}
	names := func(app string, limit int) (names []string) {
		for cursor := ""; ; {
			page, next, err := store.Connections(t.Context(), app, limit, cursor)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range page {
				names = append(names, c.String())
			}
			if cursor = next; cursor == "" {
				return names
			}
		}
	}
	for _, limit := range []int{1, 100} {
		if got := strings.Join(names("", limit), " "); got != "default-2/c default/a default/b" {
			t.Errorf("all, pages of %d: %s", limit, got)
		}
		if got := strings.Join(names("default", limit), " "); got != "default/a default/b" {
			t.Errorf("of one app, pages of %d: %s", limit, got)
		}
	}
	server.ResetCalls()
	long := func(n int) string { return base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("x", n))) }
	for i, cursor := range []string{"%", long(4097), "bm90LW91cnM", long(4096)} {
		_, _, err := store.Connections(t.Context(), "", 100, cursor)
		var invalid *connector.InvalidError
		if !errors.As(err, &invalid) {
			t.Errorf("cursor %.20q: %v", cursor, err)
		}
		// What AWS would not even take is not sent.
		if sent := max(i-1, 0); server.Count("ListSecrets") != sent {
			t.Errorf("cursor %.20q: Secrets Manager was asked %d times, want %d", cursor, server.Count("ListSecrets"), sent)
		}
	}
}

// Writes keep to the ceiling, and reads do not wait for it.
func TestWritesPerSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := httpClient(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Body: http.NoBody, Header: http.Header{}}, nil
		})
		ok := func(o *secretsmanager.Options) { o.HTTPClient = answer }
		store := openAt("http://stand-in.invalid", secretstore.Config{Prefix: "entra", WritesPerSecond: 10}, ok)
		begin := time.Now()
		for range 21 {
			if err := store.SaveToken(t.Context(), connection(), token); err != nil {
				t.Fatal(err)
			}
			if _, _, err := store.Connections(t.Context(), "", 1, ""); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begin); took != 2*time.Second {
			t.Errorf("21 writes at 10 a second took %v", took)
		}
		// A wait that the deadline does not allow is refused at once.
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := store.SaveToken(ctx, connection(), token); !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			t.Errorf("with no time left: %v", err)
		}
		unlimited := openAt("http://stand-in.invalid", secretstore.Config{Prefix: "entra"}, ok)
		begin = time.Now()
		for range 1000 {
			if err := unlimited.SaveToken(t.Context(), connection(), token); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("1,000 writes without a ceiling took %v", took)
		}
	})
}

// Each write of whatever kind takes its turn under the ceiling.
func TestEveryWriteCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, _, _ := openInMemory(t, secretstore.Config{Prefix: "entra", WritesPerSecond: 10}, nil)
		ctx, begin, writes := t.Context(), time.Now(), -1 // the first does not wait
		for _, call := range []struct {
			name   string
			writes int
			do     func() error
		}{
			{"creating", 1, func() error { return store.CreateApp(ctx, app) }},
			{"noting", 1, func() error { return store.NoteConnection(ctx, ref) }},
			{"replacing", 1, func() error { return store.UpdateApp(ctx, app) }},
			{"reading", 0, func() error { _, err := store.App(ctx, "default"); return err }},
			{"marking and deleting", 2, func() error { return store.DeleteApp(ctx, "default") }},
			{"trying to create, restoring and replacing", 3, func() error { return store.CreateApp(ctx, app) }},
		} {
			writes += call.writes
			if err := call.do(); err != nil {
				t.Fatalf("%s: %v", call.name, err)
			}
			if took, want := time.Since(begin), time.Duration(writes)*100*time.Millisecond; took != want {
				t.Errorf("after %s %v have gone by, want %v", call.name, took, want)
			}
		}
	})
}

// The key is for what is created, and the time for what is deleted.
func TestKeyAndRecoveryWindow(t *testing.T) {
	for _, tt := range []struct {
		cfg       secretstore.Config
		key, days string
	}{
		{secretstore.Config{Prefix: "entra"}, "", ""},
		{secretstore.Config{Prefix: "entra", KMSKeyID: "alias/entra", RecoveryDays: 7}, `"KmsKeyId":"alias/entra"`, `"RecoveryWindowInDays":7`},
	} {
		got := make(map[string][]string) // by what is said, in which calls
		store, _, _ := openInMemory(t, tt.cfg, func(op string, body []byte) []byte {
			for _, said := range []string{"KmsKeyId", "RecoveryWindowInDays", tt.key, tt.days} {
				if said != "" && strings.Contains(string(body), said) {
					got[said] = append(got[said], op)
				}
			}
			return body
		})
		for range 2 { // the second time it is restored
			if _, err := store.CreateConnection(t.Context(), connection(), token); err != nil {
				t.Fatal(err)
			}
			if err := store.DeleteConnection(t.Context(), ref); err != nil {
				t.Fatal(err)
			}
		}
		want := make(map[string][]string)
		if tt.key != "" {
			want["KmsKeyId"] = []string{"CreateSecret", "CreateSecret"}
			want["RecoveryWindowInDays"] = []string{"DeleteSecret", "DeleteSecret"}
			want[tt.key], want[tt.days] = want["KmsKeyId"], want["RecoveryWindowInDays"]
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%+v: said %v, want %v", tt.cfg, got, want)
		}
	}
}

// A connection is replaced as it was read or not at all. Only where it is not
// known which version that was, nothing is checked.
func TestOnlyTheVersionThatWasReadIsReplaced(t *testing.T) {
	store, server := open(t)
	ctx := t.Context()
	if _, err := store.CreateConnection(ctx, connection(), token); err != nil {
		t.Fatal(err)
	}
	save := func(version string, minutes int) error {
		c := connection()
		c.Version, c.RefreshedAt = version, start.Add(time.Duration(minutes)*time.Minute)
		token := token
		token.AccessToken = entra.NewSecret(strings.Repeat("t", minutes+1)) // AWS lets the same value pass
		return store.SaveToken(ctx, c, token)
	}
	first := read(t, store).Version
	for i, tt := range []struct {
		name, version string
		want          error
	}{
		{"as read", first, nil},
		{"superseded", first, connector.ErrChanged},
		{"unknown", "", nil},
		{"unknown again", "", nil},
		{"superseded twice", first, connector.ErrChanged},
		{"as read again", "current", nil},
	} {
		if tt.version == "current" {
			tt.version = read(t, store).Version
		}
		before := server.Snapshot()
		if err := save(tt.version, i); !errors.Is(err, tt.want) || (tt.want == nil) != (err == nil) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if stored := server.Snapshot() != before; stored != (tt.want == nil) {
			t.Errorf("%s: stored %t", tt.name, stored)
		}
	}
	// The listing knows the version too: a sweep reads nothing else.
	page, _, err := store.Connections(ctx, "", 100, "")
	if err != nil || len(page) != 1 || page[0].Version != read(t, store).Version {
		t.Errorf("listed as %+v, %v", page, err)
	}
}

// People delete and restore secrets in the console. What they deleted is gone,
// and what the connector deleted stays so until it is provisioned again.
func TestDeletionsByHand(t *testing.T) {
	ctx := t.Context()
	exist := func(t *testing.T, store *secretstore.Store) {
		t.Helper()
		if _, err := store.CreateConnection(ctx, connection(), token); err != nil {
			t.Fatal(err)
		}
		if err := store.CreateApp(ctx, app); err != nil {
			t.Fatal(err)
		}
	}
	absent := func(t *testing.T, store *secretstore.Store) {
		t.Helper()
		_, err1 := store.Connection(ctx, ref)
		_, err2 := store.App(ctx, "default")
		_, err3 := store.AppWithoutCredential(ctx, "default")
		for what, err := range map[string]error{"the connection": err1, "the app": err2, "the app's description": err3} {
			if !errors.Is(err, connector.ErrNotFound) {
				t.Errorf("%s: %v, want ErrNotFound", what, err)
			}
		}
		page, _, err1 := store.Connections(ctx, "", 100, "")
		apps, err2 := store.Apps(ctx)
		if len(page)+len(apps) != 0 || err1 != nil || err2 != nil {
			t.Errorf("listed: %v, %v, %v, %v", page, apps, err1, err2)
		}
	}
	names := []string{"entra/connections/default/acme", "entra/apps/default"}
	t.Run("deleted by hand", func(t *testing.T) {
		store, client, _ := openInMemory(t, secretstore.Config{Prefix: "entra"}, nil)
		exist(t, store)
		for _, name := range names {
			if _, err := client.DeleteSecret(ctx, &secretsmanager.DeleteSecretInput{SecretId: &name}); err != nil {
				t.Fatal(err)
			}
		}
		absent(t, store)
		if err := store.DeleteConnection(ctx, ref); !errors.Is(err, connector.ErrNotFound) {
			t.Errorf("deleting it again: %v, want ErrNotFound", err)
		}
		exist(t, store)
	})
	t.Run("restored by hand", func(t *testing.T) {
		store, client, server := openInMemory(t, secretstore.Config{Prefix: "entra"}, nil)
		exist(t, store)
		if err := errors.Join(store.DeleteConnection(ctx, ref), store.DeleteApp(ctx, "default")); err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if _, err := client.RestoreSecret(ctx, &secretsmanager.RestoreSecretInput{SecretId: &name}); err != nil {
				t.Fatal(err)
			}
			if value, live := server.Value(name); !live || value != `{"status":"deleted"}` {
				t.Errorf("%s comes back with %q, live: %t", name, value, live)
			}
		}
		absent(t, store)
		exist(t, store)
		if got := read(t, store); got.TenantID != tenant {
			t.Errorf("provisioned again it reads %+v", got)
		}
	})
}

// Emulators take filters for less than they are. What is no live secret below
// the prefix is left out here as well.
func TestListingsThatShowTooMuch(t *testing.T) {
	store, client, server := openInMemory(t, secretstore.Config{Prefix: "entra"}, func(op string, body []byte) []byte {
		if op == "ListSecrets" {
			return []byte(`{"IncludePlannedDeletion":true}`)
		}
		return body
	})
	ok := `{"status":"ok","tenant_id":"` + tenant + `"}`
	for name, description := range map[string]string{
		"entra/connections/default/a": ok, "entra/connections/default/deleted": ok, "entra/connections/default/marked": `{"status":"deleted"}`,
		"entra/connections/other/b": ok, "entra/apps/default": ok, "entra/apps/deleted": ok, "entra/apps/marked": `{"status":"deleted"}`,
		"e": ok, "entra": ok, "old-entra/connections/default/c": ok, "old/entra/connections/default/d": ok,
	} {
		server.Put(name, "{}", description)
	}
	for _, name := range []string{"entra/connections/default/deleted", "entra/apps/deleted"} {
		if _, err := client.DeleteSecret(t.Context(), &secretsmanager.DeleteSecretInput{SecretId: &name}); err != nil {
			t.Fatal(err)
		}
	}
	for app, want := range map[string]string{"": "default/a other/b", "default": "default/a"} {
		page, _, err := store.Connections(t.Context(), app, 100, "")
		var names []string
		for _, c := range page {
			names = append(names, c.String())
		}
		slices.Sort(names)
		if got := strings.Join(names, " "); got != want || err != nil {
			t.Errorf("of app %q: %s, %v, want %s", app, got, err, want)
		}
	}
	if apps, err := store.Apps(t.Context()); len(apps) != 1 || apps[0].Name != "default" || err != nil {
		t.Errorf("apps: %+v, %v", apps, err)
	}
}

// openInMemory is open without a network, with the SDK's retries, and with the
// bare client. Requests pass through change.
func openInMemory(t *testing.T, cfg secretstore.Config, change func(op string, body []byte) []byte) (*secretstore.Store, *secretsmanager.Client, *secretstoretest.Server) {
	t.Helper()
	return openOn(t, secretstoretest.Options{}, cfg, change)
}

// openOn is openInMemory with a server of some kind.
func openOn(t *testing.T, o secretstoretest.Options, cfg secretstore.Config, change func(op string, body []byte) []byte) (*secretstore.Store, *secretsmanager.Client, *secretstoretest.Server) {
	t.Helper()
	server, err := secretstoretest.New(o)
	if err != nil {
		t.Fatal(err)
	}
	client := secretsmanager.New(secretsmanager.Options{
		Region: "us-east-1", BaseEndpoint: aws.String("http://stand-in.invalid"),
		Credentials: credentials.NewStaticCredentialsProvider("id", "key", ""),
		HTTPClient: httpClient(func(r *http.Request) (response *http.Response, err error) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return nil, err
			}
			if change != nil {
				body = change(strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "secretsmanager."), body)
			}
			defer func() {
				if recover() != nil { // the answer is dropped
					response, err = nil, io.ErrUnexpectedEOF
				}
			}()
			w := httptest.NewRecorder()
			in := httptest.NewRequestWithContext(r.Context(), r.Method, r.URL.String(), bytes.NewReader(body))
			in.Header = r.Header
			server.ServeHTTP(w, in)
			return w.Result(), nil
		}),
	})
	return secretstore.New(client, cfg), client, server
}

// read returns the connection as it is stored.
func read(t *testing.T, store *secretstore.Store) connector.Connection {
	t.Helper()
	c, err := store.Connection(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

type httpClient func(*http.Request) (*http.Response, error)

func (f httpClient) Do(r *http.Request) (*http.Response, error) { return f(r) }

// A person who moves the staging label back leaves the ID of the next version
// taken. What follows is written all the same.
func TestLabelMovedBack(t *testing.T) {
	store, server := open(t)
	ctx := t.Context()
	if _, err := store.CreateConnection(ctx, connection(), token); err != nil {
		t.Fatal(err)
	}
	old, err := store.Connection(ctx, ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.SaveToken(ctx, old, token); err != nil {
		t.Fatal(err)
	}
	// As far as the next write can tell, the first version is current again.
	rolledBack := openAt(server.URL(), secretstore.Config{Prefix: "entra"}, func(o *secretsmanager.Options) {
		o.HTTPClient = httpClient(func(r *http.Request) (*http.Response, error) {
			response, err := http.DefaultClient.Do(r)
			if err == nil && strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".DescribeSecret") {
				response.Body = io.NopCloser(strings.NewReader(`{"Name":"entra/connections/default/acme","VersionIdsToStages":{"` + old.Version + `":["AWSCURRENT"]}}`))
				response.ContentLength = -1
				response.Header.Del("Content-Length")
			}
			return response, err
		})
	})
	newer := token
	newer.AccessToken = entra.NewSecret("newer")
	if err := rolledBack.SaveToken(ctx, old, newer); err != nil {
		t.Fatal(err)
	}
	if value, _ := server.Value("entra/connections/default/acme"); !strings.Contains(value, "newer") {
		t.Errorf("the secret holds %s", value)
	}
}
