package secretstore_test

import (
	"context"
	"errors"
	"flag"
	"net/http"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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
	ref   = entra.ConnectionRef{App: "default", Name: "acme"}
	app   = entra.App{
		Name: "default", ClientID: "cccccccc-0000-4000-8000-000000000003", Credential: entra.Credential{ClientSecret: entra.NewSecret("s3cret <&>")},
		Scope: "https://graph.microsoft.com/.default", Cloud: entra.Public, ChangedAt: start,
	}
	token = entra.Token{TenantID: tenant, Type: "Bearer", AccessToken: entra.NewSecret("t0ken"), ExpiresIn: 3599, ExtExpiresIn: 7199, RequestedAt: start}
)

func connection() entra.Connection {
	return entra.Connection{
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

	c.Failure = &entra.Failure{Status: entra.NeedsPerson, Code: "AADSTS7000222", At: start.Add(time.Hour), Refusals: 2,
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
	c.Failure = &entra.Failure{Status: entra.NeedsPerson, Code: "AADSTS123456789", At: start.Add(1), Refusals: 1 << 30, NextAttempt: start.Add(1), TraceID: tenant, CorrelationID: tenant}
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
		_, err2 := store.DescribeApp(ctx, "default")
		_, err3 := store.Connection(ctx, ref)
		for i, err := range []error{err1, err2, err3, store.UpdateApp(ctx, app), store.SaveToken(ctx, connection(), token),
			store.SaveFailure(ctx, connection()), store.DeleteApp(ctx, "default"), store.DeleteConnection(ctx, ref)} {
			if !errors.Is(err, entra.ErrNotFound) {
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
		if err := store.CreateApp(ctx, app); !errors.Is(err, entra.ErrExists) {
			t.Errorf("creating an app again: %v", err)
		}
		if _, err := store.CreateConnection(ctx, connection(), token); !errors.Is(err, entra.ErrExists) {
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
	if _, err := store.Connection(ctx, ref); !errors.Is(err, entra.ErrNotFound) {
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

// A write whose answer is lost has landed when the SDK tries it again.
func TestLostAnswers(t *testing.T) {
	_, server := open(t)
	store := openAt(server.URL(), secretstore.Config{Prefix: "entra"}, func(*secretsmanager.Options) {})
	for _, op := range []string{"CreateSecret", "UpdateSecret", "DeleteSecret"} {
		server.Fail(secretstoretest.Fault{Op: op, After: true, Times: 1})
	}
	ctx := t.Context()
	if _, err := store.CreateConnection(ctx, connection(), token); err != nil {
		t.Errorf("creating: %v", err)
	}
	if err := store.SaveToken(ctx, connection(), token); err != nil {
		t.Errorf("updating: %v", err)
	}
	if server.Count("CreateSecret") != 2 || server.Count("UpdateSecret") != 2 {
		t.Error("the SDK did not try again, so nothing is shown")
	}
}

func TestErrorsKeepToThemselves(t *testing.T) {
	store, server := open(t)
	for code, want := range map[string]bool{
		"ThrottlingException": true, "InternalServiceError": true, "AccessDeniedException": false, "DecryptionFailure": false, "LimitExceededException": true,
	} {
		server.Fail(secretstoretest.Fault{Error: code})
		_, err := store.App(t.Context(), "default")
		server.ClearFaults()
		var failed *entra.StoreError
		if !errors.As(err, &failed) || failed.Code != code || failed.Temporary != want || strings.Contains(err.Error(), "A fault") {
			t.Errorf("%s: %#v", code, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := store.App(ended, "default"); !errors.Is(err, context.Canceled) {
		t.Errorf("after the caller gave up: %v", err)
	}
	server.Close()
	_, err := store.App(t.Context(), "default")
	var failed *entra.StoreError
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
	for _, cursor := range []string{"%", "bm90LW91cnM"} {
		_, _, err := store.Connections(t.Context(), "", 100, cursor)
		var invalid *entra.InvalidError
		if !errors.As(err, &invalid) {
			t.Errorf("cursor %q: %v", cursor, err)
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

type httpClient func(*http.Request) (*http.Response, error)

func (f httpClient) Do(r *http.Request) (*http.Response, error) { return f(r) }
