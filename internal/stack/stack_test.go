package stack_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"entra-connector/internal/connector"

	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/stack"
	"entra-connector/pkg/entra/entratest"
)

const (
	tenant = "00000000-0000-4000-8000-00000000000a"
	client = "00000000-0000-4000-8000-00000000000b"
	canary = "c4nary-client-secret"
)

var provisionBinary, refreshBinary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "functions")
	if err == nil {
		provisionBinary, refreshBinary, err = stack.Build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// log keeps what the functions print.
type log struct {
	mu    sync.Mutex
	lines []string
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(p))
	return len(p), nil
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "")
}

func start(t *testing.T, o stack.Options) *stack.Stack {
	t.Helper()
	o.Provision, o.Refresh = provisionBinary, refreshBinary
	s, err := stack.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func register(e *entratest.Server) {
	e.AddTenant(entratest.Tenant{ID: tenant, Domains: []string{"customer.example"}})
	e.AddApp(entratest.App{ClientID: client, Secrets: []entratest.Secret{{Value: canary}}})
	e.Consent(tenant, client, "User.Read.All")
}

// provision sends the app and the tenant that register knows to the API.
func provision(t *testing.T, s *stack.Stack) {
	t.Helper()
	req := httptest.NewRequest("POST", "/connections", strings.NewReader(
		`{"tenant_id":"customer.example","connection":"one","client_id":"`+client+`","client_secret":"`+canary+`","service":"microsoft-graph"}`))
	req.Header.Set("Content-Type", "application/json")
	res := httptest.NewRecorder()
	s.API().ServeHTTP(res, req)
	if res.Code != http.StatusCreated {
		t.Fatalf("provisioning answers %d %s", res.Code, res.Body)
	}
}

func sweep(t *testing.T, s *stack.Stack, event string) connector.SweepReport {
	t.Helper()
	result, err := s.Sweep(t.Context(), []byte(event))
	var report connector.SweepReport
	if err == nil {
		err = json.Unmarshal(result.Payload, &report)
	}
	if err != nil || result.FunctionError != "" {
		t.Fatalf("the sweep answers %s %s, %v", result.FunctionError, result.Payload, err)
	}
	return report
}

func TestProvisionSweepRead(t *testing.T) {
	var log log
	s := start(t, stack.Options{Log: &log})
	register(s.Entra)
	provision(t, s)
	const name = "entra/connections/default/one"
	first, _ := s.Secrets.Value(name)
	if report := sweep(t, s, `{"force":true}`); report.Checked != 1 || report.Refreshed != 1 {
		t.Errorf("the sweep reports %+v", report)
	}
	second, ok := s.Secrets.Value(name)
	if !ok || first == "" || first == second {
		t.Errorf("the secret held %d bytes and holds %d; changed: %v", len(first), len(second), first != second)
	}
	if tokens := s.Entra.Tokens(); len(tokens) != 2 || !strings.Contains(second, tokens[1]) {
		t.Error("the secret does not hold the last of two tokens")
	}
	for _, want := range []string{`"route":"POST /connections"`, `"message":"sweep done"`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, &log)
		}
	}
	if strings.Contains(log.String(), canary) || strings.Contains(log.String(), "eyJ") {
		t.Errorf("the log has a secret:\n%s", &log)
	}
}

func TestEnvReachesBothFunctionsAndWins(t *testing.T) {
	s := start(t, stack.Options{
		Secrets: secretstoretest.Options{Region: "eu-north-1"},
		Env:     []string{"SECRET_PREFIX=mine", "AZURE_AUTHORITY_HOST=http://127.0.0.1:1"},
	})
	register(s.Entra)
	req := httptest.NewRequest("PUT", "/apps/default", strings.NewReader(`{"client_id":"`+client+`","client_secret":"`+canary+`","service":"microsoft-graph"}`))
	req.Header.Set("Content-Type", "application/json")
	res := httptest.NewRecorder()
	s.API().ServeHTTP(res, req)
	if names := s.Secrets.Names(); res.Code != http.StatusCreated || len(names) != 1 || names[0] != "mine/apps/default" {
		t.Fatalf("storing an app answers %d, and there are %v", res.Code, names)
	}
	req = httptest.NewRequest("POST", "/connections", strings.NewReader(`{"tenant_id":"`+tenant+`"}`))
	req.Header.Set("Content-Type", "application/json")
	res = httptest.NewRecorder()
	s.API().ServeHTTP(res, req)
	if res.Code != http.StatusServiceUnavailable || len(s.Entra.Requests()) > 0 {
		t.Errorf("with an authority that is not there, provisioning answers %d; the stand-in was asked %d times", res.Code, len(s.Entra.Requests()))
	}
	s.Secrets.Put("mine/connections/default/one", `{}`, "")
	if report := sweep(t, s, `{}`); report.Checked != 1 {
		t.Errorf("the sweep reports %+v", report)
	}
}

func TestKeepsItsDataInAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secrets.json")
	s := start(t, stack.Options{SecretsFile: file})
	register(s.Entra)
	provision(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = start(t, stack.Options{SecretsFile: file})
	if report := sweep(t, s, `{}`); report.Checked != 1 {
		t.Errorf("after a restart, the sweep reports %+v", report)
	}
}

func TestOtherServices(t *testing.T) {
	e := entratest.Start(t, entratest.Options{})
	register(e)
	standIn, err := secretstoretest.New(secretstoretest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var signed string // who signed the last request, for which Region
	secrets := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		signed = r.Header.Get("Authorization")
		mu.Unlock()
		standIn.ServeHTTP(w, r)
	}))
	defer secrets.Close()
	// As a profile has it: the region is in a file, and so are the credentials.
	config := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(config, []byte("[profile mine]\nregion = eu-central-1\naws_access_key_id = theirs\naws_secret_access_key = theirs\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", config)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	t.Setenv("AWS_PROFILE", "mine")
	t.Setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://127.0.0.1:1")

	s := start(t, stack.Options{Authority: e.URL(), SecretsEndpoint: secrets.URL})
	if s.Entra != nil || s.Secrets != nil || s.Events != nil {
		t.Error("a stand-in was started that nobody needs")
	}
	provision(t, s)
	mu.Lock()
	if !strings.Contains(signed, "Credential=theirs/") || !strings.Contains(signed, "/eu-central-1/secretsmanager/") {
		t.Errorf("the request is signed %s", signed)
	}
	mu.Unlock()
	if report := sweep(t, s, `{}`); report.Checked != 1 {
		t.Errorf("the sweep reports %+v", report)
	}
}

func TestFailedStartLeavesNothing(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "secrets.json")
	if err := os.WriteFile(broken, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	for name, o := range map[string]stack.Options{
		"no provision binary": {Provision: "none", Refresh: refreshBinary},
		"no refresh binary":   {Provision: provisionBinary, Refresh: "none"},
		"broken data":         {Provision: provisionBinary, Refresh: refreshBinary, SecretsFile: broken},
	} {
		if s, err := stack.Start(o); err == nil || s != nil {
			t.Errorf("%s: got %v, %v", name, s, err)
		}
	}
	for range 1000 { // the stand-ins' servers end a moment after they are closed
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Errorf("%d goroutines before, %d after", before, runtime.NumGoroutine())
}

func TestClose(t *testing.T) {
	s := start(t, stack.Options{})
	register(s.Entra)
	provision(t, s)
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, url := range []string{s.Authority, s.SecretsEndpoint, s.Events.URL()} {
		if res, err := http.Get(url); err == nil {
			_ = res.Body.Close()
			t.Errorf("%s still answers", url)
		}
	}
	if _, err := s.Sweep(t.Context(), nil); err == nil {
		t.Error("a closed stack sweeps")
	}
}

func TestBuildSaysWhatIsWrong(t *testing.T) {
	t.Setenv("GOFLAGS", "-mod=nonsense")
	if _, _, err := stack.Build(t.TempDir()); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("got %v", err)
	}
}
