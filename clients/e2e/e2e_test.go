// Package e2e runs each service's own client and the two integrations of examples/ with tokens of
// the built functions, read by the readers of this repository, for longer than a token lives.
// scripts/e2e/readers.sh installs what it needs and says where.
package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"entra-connector/internal/lambdahost"
	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/stack"
	"entra-connector/internal/stack/stacktest"
	"entra-connector/internal/templatetest"
	"entra-connector/pkg/entra/entratest"
)

const (
	// life is that of a token, in seconds. The connector refreshes it at half of it. A reader reads
	// once a minute at most, so this is about the shortest life through which it always has a live
	// token.
	life = 160
	// onItsWay is how long a request may take to reach the service, in seconds. A reader hands out
	// a token of this life until its end; one of an hour it replaces 24 minutes earlier.
	onItsWay = 5
	// pause is the time between two calls.
	pause = 2
	// running is how long a program runs: longer than a token lives, so that it needs another.
	running = life + 30
)

// installed is the folder in which scripts/e2e/readers.sh has installed the programs.
var installed = os.Getenv("READERS_E2E")

func TestMain(m *testing.M) {
	if installed == "" {
		os.Exit(m.Run())
	}
	stacktest.Main(m)
}

// service is one of the seven services: a connection's, and what stands in for it.
type service struct {
	name           string // as the API has it, and the connection's name
	audience, role string
	api            http.Handler // nil: Azure SQL
}

// world is a connector whose tokens live briefly, with a connection for each service.
type world struct {
	*stacktest.Connector
	services []service
	certFile string
}

func start(t *testing.T) *world {
	permitted := permissions{}
	for program, policy := range map[string]string{"graph-users": "microsoft-graph", "work-items": "azure-devops"} {
		permitted.read(t, program, "default/"+policy)
	}
	w := &world{Connector: stacktest.Start(t, stack.Options{Secrets: secretstoretest.Options{Authorize: permitted.allow}})}
	cert, key := certificate(t, t.TempDir())
	w.certFile = cert
	const graph = "https://graph.microsoft.com"
	w.services = []service{
		{"azure-devops", "499b84ac-1321-427f-aa17-267ca6975798", "", devOpsAPI()},
		{"azure-sql", "https://database.windows.net", "", nil},
		{"azure-storage", "https://storage.azure.com", "", azurite(t, cert, key)},
		{"business-central", "https://api.businesscentral.dynamics.com", "API.ReadWrite.All", businessCentralAPI()},
		{"microsoft-365", graph, "Sites.Read.All", graphAPI()},
		{"microsoft-graph", graph, "User.Read.All", graphAPI()},
		{"microsoft-teams", graph, "Channel.ReadBasic.All", graphAPI()},
	}
	w.Entra.Consent(stacktest.TenantA, stacktest.ClientID, "User.Read.All", "Channel.ReadBasic.All", "Sites.Read.All", "API.ReadWrite.All")
	for i, s := range w.services {
		fields := []string{"tenant_id", stacktest.TenantA, "connection", s.name, "service", s.name}
		if i == 0 {
			fields = append(fields, "client_id", stacktest.ClientID, "client_secret", stacktest.Secret)
		}
		w.Call("POST", "/connections", stacktest.Object(fields...)).Want(t, 201)
	}
	// A token of less than half an hour is refused when it is provisioned, but not later. The
	// reader is told an end that counts from when Entra was asked, so a token is good for a little
	// longer.
	w.Entra.Fail(entratest.Fault{Endpoint: "token", Delay: onItsWay * time.Second, Response: entratest.Lifetime(life)})
	w.sweep(t, `{"force":true}`)
	ctx, stop := context.WithCancel(context.Background())
	var sweeps sync.WaitGroup
	sweeps.Go(func() {
		for ctx.Err() == nil {
			w.sweep(t, `{}`)
			select {
			case <-ctx.Done():
			case <-time.After(pause * time.Second):
			}
		}
	})
	t.Cleanup(func() {
		stop()
		sweeps.Wait()
	})
	return w
}

func (w *world) sweep(t *testing.T, event string) {
	result, err := w.Sweep(context.Background(), []byte(event))
	var report struct{ Failed, Deferred, Waiting int }
	if err != nil || result.FunctionError != "" || json.Unmarshal(result.Payload, &report) != nil || report.Failed+report.Deferred+report.Waiting > 0 {
		t.Errorf("sweep: %v %s", err, result.Payload)
	}
}

func (w *world) resource(s service) *resource {
	return &resource{authority: w.Authority, tenant: stacktest.TenantA, audience: s.audience, role: s.role}
}

// environment is that of a program which reads tokens with these AWS credentials.
func (w *world) environment(accessKey string) []string {
	return append(stack.Callers(func(name string) bool { return name == "PATH" || name == "HOME" }),
		"AWS_ENDPOINT_URL_SECRETS_MANAGER="+w.SecretsEndpoint, "AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1",
		"AWS_ACCESS_KEY_ID="+accessKey, "AWS_SECRET_ACCESS_KEY=none", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null",
		"SSL_CERT_FILE="+w.certFile, "REQUESTS_CA_BUNDLE="+w.certFile, "NODE_EXTRA_CA_CERTS="+w.certFile, "NODE_NO_WARNINGS=1")
}

// run runs a program until it ends or ctx does, and fails the test unless it ends well.
func run(t *testing.T, ctx context.Context, env []string, program ...string) string {
	t.Helper()
	cmd := exec.CommandContext(ctx, program[0], program[1:]...)
	cmd.Env, cmd.WaitDelay = env, 10*time.Second
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	out, err := cmd.CombinedOutput()
	if err != nil && ctx.Err() == nil {
		t.Errorf("%s: %v\n%s", program[0], err, out)
	}
	return string(out)
}

func TestReaders(t *testing.T) {
	if installed == "" {
		t.Skip("needs what scripts/e2e/readers.sh installs")
	}
	w := start(t)
	python, node := filepath.Join(installed, "venv/bin/python"), filepath.Join(installed, "node/services.js")
	t.Run("for longer than a token lives", func(t *testing.T) {
		w.clients(t, "Go", []string{filepath.Join(installed, "services")}, "azure-devops")
		w.clients(t, "Python", []string{python, "python/services.py"}, "azure-sql")
		w.clients(t, "TypeScript", []string{"node", node})
		t.Run("example: a Python Lambda function lists users", func(t *testing.T) { w.graphUsers(t, python) })
		t.Run("example: a Node container reads work items", w.workItems)
		t.Run("recipes of docs/reading.md", w.recipes)
	})
}

// clients runs a program that calls each service by its own client.
func (w *world) clients(t *testing.T, language string, program []string, without ...string) {
	t.Run(language, func(t *testing.T) {
		t.Parallel()
		type target struct {
			Connection string `json:"connection"`
			URL        string `json:"url"`
		}
		targets, resources := map[string]target{}, map[string]*resource{}
		for _, s := range w.services {
			if slices.Contains(without, s.name) {
				continue
			}
			r := w.resource(s)
			resources[s.name] = r
			to := target{Connection: "default/" + s.name}
			if s.api == nil {
				to.URL = fmt.Sprintf("tcp://127.0.0.1:%d", r.serveSQL(t))
			} else {
				to.URL = r.serve(t, s.api)
			}
			targets[s.name] = to
		}
		// The name of one connection is its ARN, as it is for a reader in another account or
		// Region.
		arn := stacktest.Text(w.Call("GET", "/connections/default/microsoft-365", "").Want(t, 200).JSON(t)["secret"], "arn")
		targets["microsoft-365"] = target{arn, targets["microsoft-365"].URL}
		text, _ := json.Marshal(targets)
		env := append(w.environment("integration"), "SERVICES="+string(text), fmt.Sprint("SECONDS_TO_RUN=", running), fmt.Sprint("PAUSE=", pause),
			"AZURE_DEVOPS_CACHE_DIR="+t.TempDir(), "TENANT="+stacktest.TenantA)
		run(t, t.Context(), env, program...)
		for _, name := range slices.Sorted(maps.Keys(resources)) {
			t.Run(name, func(t *testing.T) { resources[name].check(t) })
		}
	})
}

// graphUsers invokes the function of examples/graph-users as Lambda does.
func (w *world) graphUsers(t *testing.T, python string) {
	r, url := w.example(t, "microsoft-graph")
	bootstrap := filepath.Join(t.TempDir(), "bootstrap")
	script := fmt.Sprintf("#!/bin/sh\ncd '%s/graph-users' && exec '%s' -m awslambdaric app.handler\n", installed, python)
	if err := os.WriteFile(bootstrap, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := lambdahost.Start(lambdahost.Config{Name: "GraphUsers", Binary: bootstrap, Timeout: 30 * time.Second,
		Env: append(w.environment("graph-users"), "CONNECTION=default/microsoft-graph", "SECRET_PREFIX=entra", "GRAPH_URL="+url)})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// The function has ten seconds to start, so it starts before the others.
	if _, err := f.Invoke(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	t.Parallel()
	for end := time.Now().Add(running * time.Second); time.Now().Before(end); time.Sleep(pause * time.Second) {
		result, err := f.Invoke(t.Context(), []byte(`{}`))
		if want := `{"users": ["Adele", "Alex"]}`; err != nil || string(result.Payload) != want {
			t.Errorf("%v %s", err, result.Payload)
		}
	}
	r.check(t)
}

// workItems runs the program of examples/work-items as its container does.
func (w *world) workItems(t *testing.T) {
	t.Parallel()
	r, url := w.example(t, "azure-devops")
	ctx, cancel := context.WithTimeout(t.Context(), running*time.Second)
	defer cancel()
	out := run(t, ctx, append(w.environment("work-items"), "CONNECTION=default/azure-devops", "SECRET_PREFIX=entra",
		"ORGANIZATION_URL="+url, "PROJECT=Fabrikam", fmt.Sprint("EVERY_SECONDS=", pause)), "node", filepath.Join(installed, "work-items/work-items.js"))
	for line := range strings.Lines(out) {
		if line != "2 open work items, the first is One\n" {
			t.Errorf("the log says %q", line)
		}
	}
	r.check(t)
}

func (w *world) example(t *testing.T, name string) (*resource, string) {
	s := w.services[slices.IndexFunc(w.services, func(s service) bool { return s.name == name })]
	r := w.resource(s)
	return r, r.serve(t, s.api)
}

// recipes runs the shell blocks of docs/reading.md that read default/contoso.
func (w *world) recipes(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/reading.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```sh\n(.*?)^```").FindAllSubmatch(text, -1)
	if len(blocks) == 0 {
		t.Error("docs/reading.md has no shell block")
	}
	for _, block := range blocks {
		script := string(block[1])
		needs := "aws jq"
		if strings.Contains(script, "entra-connector exec") {
			needs = "entra-connector"
		}
		t.Run(needs, func(t *testing.T) {
			r, url := w.example(t, "microsoft-graph")
			env := append(w.environment("integration"), "PATH="+installed+"/bin:"+os.Getenv("PATH"), "CURL_CA_BUNDLE="+w.certFile)
			script := strings.NewReplacer("https://graph.microsoft.com", url, "default/contoso", "default/microsoft-graph").Replace(script)
			for program := range strings.FieldsSeq(needs + " curl") {
				if _, err := os.Stat(filepath.Join(installed, "bin", program)); err == nil {
					continue
				}
				if _, err := exec.LookPath(program); err != nil {
					t.Skipf("NOT RUN: it needs %s", program)
				}
			}
			if out := run(t, t.Context(), env, "bash", "-euo", "pipefail", "-c", script); !strings.Contains(out, "Adele") {
				t.Errorf("it prints %s", out)
			}
			if r.calls != 1 || len(r.refused) > 0 {
				t.Errorf("%d calls, refused %q", r.calls, r.refused)
			}
		})
	}
}

// azurite starts Azurite, which verifies issuer, audience and times of tokens, and returns a way to
// it.
func azurite(t *testing.T, cert, key string) http.Handler {
	port := freePort(t)
	cmd := exec.Command("node", filepath.Join(installed, "node/node_modules/azurite/dist/src/blob/main.js"), "--inMemoryPersistence",
		"--disableTelemetry", "--skipApiVersionCheck", "--silent", "--oauth", "basic", "--cert", cert, "--key", key, "--blobPort", fmt.Sprint(port))
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Dir = &log, &log, t.TempDir()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	pem, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "https", Host: fmt.Sprintf("127.0.0.1:%d", port)})
			r.Out.Host = r.In.Host
		},
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}},
	}
	client := &http.Client{Transport: proxy.Transport}
	for range 240 {
		response, err := client.Get(fmt.Sprintf("https://127.0.0.1:%d/", port))
		if err == nil {
			_, _ = io.Copy(io.Discard, response.Body)
			response.Body.Close()
			return proxy
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("Azurite ended: %v\n%s", err, log.Bytes())
		case <-time.After(500 * time.Millisecond):
		}
	}
	t.Fatal("Azurite does not answer")
	return nil
}

// permissions are, for some access keys, what a policy allows: actions and resources, with
// wildcards. Every other key is allowed everything.
type permissions map[string][]statement

type statement struct {
	Effect           string
	Action, Resource any
}

// read takes the policies of the role in an example's template, deployed for one connection.
func (p permissions) read(t *testing.T, example, connection string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../examples", example, "template.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	resources, err := templatetest.Parse(text, map[string]string{"Connection": connection})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range resources {
		var found struct{ Policies []any }
		text, _ := json.Marshal(r.Properties)
		_ = json.Unmarshal(text, &found)
		for _, one := range found.Policies {
			p[example] = append(p[example], statements(one)...)
		}
	}
	if len(p[example]) == 0 {
		t.Fatalf("the template of %s has no policy", example)
	}
}

// statements finds those of a policy of SAM or of a role.
func statements(policy any) (found []statement) {
	object, _ := policy.(map[string]any)
	if document, ok := object["PolicyDocument"]; ok {
		return statements(document)
	}
	text, _ := json.Marshal(object["Statement"])
	_ = json.Unmarshal(text, &found)
	return found
}

func (p permissions) allow(accessKey, action, resource string) bool {
	statements, limited := p[accessKey]
	return !limited || slices.ContainsFunc(statements, func(s statement) bool {
		return s.Effect == "Allow" && matches(s.Action, action) && matches(s.Resource, resource)
	})
}

// matches tells whether one of the patterns of IAM fits.
func matches(patterns any, value string) bool {
	list, ok := patterns.([]any)
	if !ok {
		list = []any{patterns}
	}
	return slices.ContainsFunc(list, func(pattern any) bool {
		text, _ := pattern.(string)
		fits, _ := regexp.MatchString("^"+strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(text))+"$", value)
		return fits
	})
}
