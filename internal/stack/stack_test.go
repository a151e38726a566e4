package stack_test

import (
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/stack"
	. "entra-connector/internal/stack/stacktest"
)

func TestMain(m *testing.M) { Main(m) }

// environment is what the refresh function gets. A script that prints it stands in for both.
func environment(t *testing.T, o stack.Options) []string {
	t.Helper()
	o.Provision = filepath.Join(t.TempDir(), "bootstrap")
	if err := os.WriteFile(o.Provision, []byte("#!/bin/sh\nenv\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	var out Output
	o.Refresh, o.Log = o.Provision, &out
	s, err := stack.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Sweep(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return strings.Split(out.String(), "\n")
}

func TestEnvironment(t *testing.T) {
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_ENDPOINT_URL_SECRETS_MANAGER",
		"AWS_LAMBDA_FUNCTION_NAME", "HOME", "https_proxy", "SSL_CERT_FILE", "GOFLAGS"} {
		t.Setenv(name, "own")
	}
	t.Setenv("AWS_REGION", "")
	t.Setenv("AWS_DEFAULT_REGION", "")
	const entra, secrets = "https://login.example", "https://secrets.example"
	standIns := stack.Options{Secrets: secretstoretest.Options{Region: "eu-north-1"}, RefreshEnv: []string{"A=refresh"},
		Env: []string{"AWS_ENDPOINT_URL_SECRETS_MANAGER=" + secrets, "A=both", "B=both"}}
	check := func(o stack.Options, wanted string) { // NAME is a variable that is not there
		t.Helper()
		env := environment(t, o)
		for want := range strings.FieldsSeq(wanted) {
			found := slices.ContainsFunc(env, func(v string) bool { return v == want || strings.HasPrefix(v, want+"=") })
			if found != strings.Contains(want, "=") {
				t.Errorf("%s is wrong in:\n%s", want, strings.Join(env, "\n"))
			}
		}
	}
	check(standIns, `AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local AWS_REGION=eu-north-1 AWS_CONFIG_FILE=/dev/null
		AWS_SHARED_CREDENTIALS_FILE=/dev/null AWS_EC2_METADATA_DISABLED=true AWS_LAMBDA_FUNCTION_NAME=RefreshFunction
		AWS_LAMBDA_FUNCTION_VERSION=$LATEST TZ=:UTC EVENT_BUS=default A=refresh B=both AWS_PROFILE HOME https_proxy GOFLAGS
		AWS_ENDPOINT_URL_SECRETS_MANAGER=`+secrets)
	check(stack.Options{Authority: entra}, "https_proxy=own AWS_ACCESS_KEY_ID=local AWS_PROFILE AZURE_AUTHORITY_HOST="+entra)
	// AWS_REGION: Lambda's own would hide a profile's. EVENT_BUS: nobody asked for events.
	check(stack.Options{Authority: entra, SecretsEndpoint: secrets}, `AWS_ACCESS_KEY_ID=own AWS_PROFILE=own HOME=own AWS_REGION=
		AWS_DEFAULT_REGION= https_proxy=own SSL_CERT_FILE=own AWS_LAMBDA_FUNCTION_NAME=RefreshFunction GOFLAGS EVENT_BUS
		AZURE_AUTHORITY_HOST=`+entra+" AWS_ENDPOINT_URL_SECRETS_MANAGER="+secrets)
	t.Setenv("AWS_REGION", "eu-west-3")
	check(stack.Options{SecretsEndpoint: secrets}, "AWS_REGION=eu-west-3")
}

func TestRoutes(t *testing.T) {
	c := Start(t, stack.Options{Routes: []string{"GET /apps", "GET /apps/{app}"}})
	c.Call("GET", "/apps", "").Want(t, 200)
	if r := c.Call("GET", "/nothing", ""); r.Status != 404 || r.Body != `{"message":"Not Found"}` {
		t.Errorf("a request without a route is answered %d %s", r.Status, r.Body)
	}
}

func TestTwinAndClose(t *testing.T) {
	c := Start(t, stack.Options{})
	twin := c.Twin()
	twin.Call("POST", "/connections", Body("connection", "one")).Want(t, 201)
	if err := twin.Close(); err != nil {
		t.Error(err)
	}
	c.Call("GET", "/connections/default/one", "").Want(t, 200)
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, url := range []string{c.Authority, c.SecretsEndpoint, c.STS.URL(), c.Events.URL()} {
		if res, err := http.Get(url); err == nil {
			_ = res.Body.Close()
			t.Errorf("%s still answers", url)
		}
	}
	if _, err := c.Sweep(t.Context(), nil); err == nil {
		t.Error("a closed stack sweeps")
	}
}

func TestFailedStartLeavesNothing(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "secrets.json")
	if err := os.WriteFile(broken, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	if s, err := stack.Start(stack.Options{Secrets: secretstoretest.Options{File: broken}}); err == nil || s != nil {
		t.Errorf("with broken data: %v, %v", s, err)
	}
	for i := 0; runtime.NumGoroutine() > before; i++ { // the stand-ins' servers end a moment after they are closed
		if time.Sleep(time.Millisecond); i == 1000 {
			t.Fatalf("%d goroutines before, %d after", before, runtime.NumGoroutine())
		}
	}
}

// failure is a test that only notes that it has failed.
type failure struct {
	testing.TB
	failed bool
}

func (f *failure) Helper() {}

func (f *failure) Errorf(string, ...any) { f.failed = true }

func TestOutputFindsSecrets(t *testing.T) {
	var out Output
	out.Guard("", "s3cret", "t0ken")
	for text, leaks := range map[string]bool{"fine\n": false, "a\nb t0ken c": true, "s3crets3cret": true} {
		out.Write([]byte(text))
		var seen failure
		got := out.Take(&seen)
		if seen.failed != leaks || strings.Contains(got, "s3cret") || strings.Contains(got, "t0ken") || !leaks && got != text {
			t.Errorf("%q: failed %v, and it is shown as %q", text, seen.failed, got)
		}
	}
	if out.String() != "" {
		t.Error("it is not empty afterwards")
	}
	seen := failure{TB: t}
	t.Run("at the end of a test", func(t *testing.T) {
		seen.TB = t
		Start(&seen, stack.Options{}).Call("GET", "/connections/default/"+Secret, "")
	})
	if !seen.failed {
		t.Error("a connector whose answers show a secret passes")
	}
}

func TestBuildSaysWhatIsWrong(t *testing.T) {
	t.Setenv("GOFLAGS", "-mod=nonsense")
	if _, _, err := stack.Build(t.TempDir()); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("got %v", err)
	}
}
