package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"

	"entra-connector/internal/stack/stacktest"
	"entra-connector/pkg/entra/entratest"
)

const (
	root  = "../.."                    // of the project, where sam finds what it built
	host  = "example.com"              // what containers call this machine: the name in httptest's certificate
	image = "entra-connector-e2e:base" // that the functions run in
)

// TestSAM runs both functions as `sam build` left them, in containers of the Docker engine, between
// the stand-in Entra and moto's Secrets Manager. E2E_IMAGE names the image that SAM would run them
// in; E2E_ARCH is its architecture.
func TestSAM(t *testing.T) {
	if os.Getenv("E2E_IMAGE") == "" {
		t.Skip("it needs the SAM CLI, moto and a Docker engine: make e2e")
	}
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		t.Setenv(name, "*") // nothing here is further away than a container
	}
	s := startSAM(t)
	t.Run("invoke", s.payloads)
	t.Run("start-api", s.servers)
	t.Run("without Secrets Manager", s.alone)
}

// sam is what `sam local` runs between.
type sam struct {
	entra    *entratest.Server
	aws      aws.Config // of moto
	stopMoto func()
	out      *stacktest.Output
	options  []string // of every `sam local` command
}

func startSAM(t *testing.T) *sam {
	s := &sam{out: new(stacktest.Output), entra: entratest.New(entratest.Options{})}
	t.Cleanup(func() { s.show(t) }) // after everything that is registered from here on
	address := thisMachine(t)
	motoPort, stop := start(t, io.Discard, address, "moto_server", "-H", address, "-p", "PORT")
	s.stopMoto = stop
	t.Setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://"+net.JoinHostPort(address, motoPort))
	t.Setenv("AWS_ENDPOINT_URL_STS", "http://"+net.JoinHostPort(address, motoPort)) // which sam asks whose account it is
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	var err error
	if s.aws, err = config.LoadDefaultConfig(t.Context()); err != nil {
		t.Fatal(err)
	}

	// With TLS, since the functions take nothing else from another machine.
	authority := httptest.NewUnstartedServer(s.entra)
	authority.Listener.Close()
	if authority.Listener, err = net.Listen("tcp", net.JoinHostPort(address, "0")); err != nil {
		t.Fatal(err)
	}
	authority.StartTLS()
	t.Cleanup(authority.Close)
	makeImage(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Certificate().Raw}))

	_, authorityPort, _ := net.SplitHostPort(authority.Listener.Addr().String())
	moto := "http://" + net.JoinHostPort(host, motoPort)
	vars, _ := json.Marshal(map[string]any{"Parameters": map[string]string{
		"AZURE_AUTHORITY_HOST":             "https://" + net.JoinHostPort(host, authorityPort),
		"AWS_ENDPOINT_URL_SECRETS_MANAGER": moto,
		"AWS_ENDPOINT_URL_EVENTBRIDGE":     moto,
	}})
	s.options = []string{"--env-vars", write(t, vars), "--add-host", host + ":host-gateway",
		"--parameter-overrides", "Architecture=" + os.Getenv("E2E_ARCH"), "--skip-pull-image", "--invoke-image", image}
	return s
}

// show logs what came out since it last did.
func (s *sam) show(t *testing.T) {
	t.Helper()
	s.out.Guard(s.entra.Tokens()...)
	t.Log("\n" + s.out.Take(t))
}

// invoke runs a function once, with one of the project's events, and returns what it answers.
func (s *sam) invoke(t *testing.T, function, event string) string {
	t.Helper()
	args := []string{"local", "invoke", function, "--event", "events/" + event}
	fmt.Fprintf(s.out, "$ sam %s …\n", strings.Join(args, " "))
	var answer bytes.Buffer
	cmd := exec.Command("sam", append(args, s.options...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = root, io.MultiWriter(&answer, s.out), s.out
	if err := cmd.Run(); err != nil {
		t.Error("sam local invoke:", err)
	}
	s.show(t)
	return strings.ReplaceAll(answer.String(), `": `, `":`) // SAM puts in a space
}

func (s *sam) issued(token string) error {
	if !slices.Contains(s.entra.Tokens(), token) {
		return errors.New("the token is not one that the stand-in Entra issued")
	}
	return nil
}

// consented makes Entra know an app and a tenant that consented to it.
func (s *sam) consented(tenant entratest.Tenant, client, secret string) {
	s.out.Guard(secret)
	s.entra.AddTenant(tenant)
	s.entra.AddApp(entratest.App{ClientID: client, Secrets: []entratest.Secret{{Value: secret}}})
	s.entra.Consent(tenant.ID, client, "User.Read.All")
}

// payloads takes the events that come with the project, as they are, in an order that makes sense.
func (s *sam) payloads(t *testing.T) {
	// What events/create-connection.json asks for.
	s.consented(entratest.Tenant{ID: "aaaabbbb-0000-cccc-1111-dddd2222eeee"}, "00001111-aaaa-2222-bbbb-3333cccc4444", "not-a-real-client-secret")
	const acme = "entra/connections/default/acme"
	d := deployment{aws: s.aws, out: s.out}
	token := "" // as last read
	for _, x := range []struct {
		function, event, want string // what the answer has to contain
		renews                bool   // whether there is a new token then
	}{
		{"ProvisionFunction", "create-connection.json", `"statusCode":201`, true},
		{"ProvisionFunction", "get-connection.json", `"statusCode":200`, false},
		{"ProvisionFunction", "list-connections.json", `"statusCode":200`, false},
		{"RefreshFunction", "scheduled.json", `{"checked":1, "due":0, "refreshed":0,`, false},
		{"RefreshFunction", "refresh-force.json", `{"checked":1, "due":1, "refreshed":1,`, true},
		{"RefreshFunction", "refresh-some.json", `{"checked":1, "due":0, "refreshed":0,`, false},
		{"ProvisionFunction", "refresh-connection.json", `"statusCode":200`, true},
		{"ProvisionFunction", "put-app.json", `"statusCode":200`, false},
		{"ProvisionFunction", "delete-connection.json", `"statusCode":204`, false},
	} {
		ok := t.Run(x.function+" "+x.event, func(t *testing.T) {
			if answer := s.invoke(t, x.function, x.event); !strings.Contains(answer, x.want) {
				t.Fatal("the answer lacks", x.want)
			}
			if strings.HasPrefix(x.event, "delete") {
				d.missing(t, "InvalidRequestException", acme)
				return
			}
			six, _ := d.read(t, acme)
			now := six[accessToken]
			if err := s.issued(now); err != nil || (now != token) != x.renews {
				t.Errorf("there is a new token: %v, want %v; %v", now != token, x.renews, err)
			}
			token = now
		})
		if !ok {
			t.FailNow()
		}
	}
}

// servers takes the scenario through the API, and through Lambda's own for the sweep.
func (s *sam) servers(t *testing.T) {
	api, _ := start(t, s.out, "127.0.0.1", "sam", append([]string{"local", "start-api", "--port", "PORT"}, s.options...)...)
	lambda, _ := start(t, s.out, "127.0.0.1", "sam", append([]string{"local", "start-lambda", "--port", "PORT"}, s.options...)...)
	d := deployment{
		aws: s.aws, api: "http://127.0.0.1:" + api, lambda: "http://127.0.0.1:" + lambda, refresh: "RefreshFunction", prefix: "entra",
		tenant: "contoso.example", tenantID: stacktest.TenantA, clientID: stacktest.ClientID, secret: rand.Text(),
		scope: stacktest.Graph, cloud: "public", issued: s.issued, out: s.out,
	}
	s.consented(entratest.Tenant{ID: d.tenantID, Domains: []string{d.tenant}}, d.clientID, d.secret)
	d.call(t, http.StatusNotFound, "GET", "/nothing", "", nil)
	d.call(t, http.StatusMethodNotAllowed, "PATCH", "/apps/default", "", nil)
	d.call(t, http.StatusBadRequest, "POST", "/connections", "{}", nil)
	scenario(t, d)
	t.Run("a connection that Entra refuses keeps its token, and recovers", func(t *testing.T) { s.refused(t, d) })
}

// refused needs an Entra that refuses on demand.
func (s *sam) refused(t *testing.T, d deployment) {
	const route, secret = "/connections/refused/contoso", "entra/connections/refused/contoso"
	before := d.shows(t, http.StatusCreated, "POST", "/connections", stacktest.Object("tenant_id", d.tenant, "app", "refused",
		"connection", "contoso", "client_id", d.clientID, "client_secret", d.secret, "scope", d.scope), secret)
	s.entra.Fail(entratest.Fault{Tenant: d.tenantID, Endpoint: "token", Response: entratest.Refused(7000112)})
	if report := d.sweep(t, `{"force":true}`); report.Failed != 1 || len(report.Failures) != 1 || report.Failures[0].Code != "AADSTS7000112" {
		t.Errorf("the sweep reports %+v", report)
	}
	var c struct{ Status string }
	d.call(t, http.StatusOK, "GET", route, "", &c)
	if after, _ := d.read(t, secret); c.Status != "refused" || !maps.Equal(after, before) {
		t.Errorf("the status is %s, or the secret has changed", c.Status)
	}
	s.entra.ClearFaults()
	d.shows(t, http.StatusOK, "POST", route+"/refresh", "", secret)
}

// alone shows what a person sees when Secrets Manager cannot be reached.
func (s *sam) alone(t *testing.T) {
	s.stopMoto()
	if !strings.Contains(s.invoke(t, "ProvisionFunction", "list-connections.json"), `"statusCode":503`) {
		t.Error("the provision function does not answer 503")
	}
	if !strings.Contains(s.invoke(t, "RefreshFunction", "scheduled.json"), `"errorType":"SweepError"`) {
		t.Error("the refresh function does not fail")
	}
}

// thisMachine is an address of this machine that containers reach: what Docker calls host-gateway
// or, if that is in Docker Desktop's virtual machine, the loopback address.
func thisMachine(t *testing.T) string {
	for address := range strings.FieldsSeq(docker(t, "run", "--rm", "--add-host", host+":host-gateway", "--entrypoint", "/bin/sh",
		os.Getenv("E2E_IMAGE"), "-c", `while read -r ip name; do [ "$name" != `+host+` ] || echo "$ip"; done </etc/hosts`)) {
		if l, err := net.Listen("tcp", net.JoinHostPort(address, "0")); err == nil {
			l.Close()
			return address
		}
	}
	return "127.0.0.1"
}

// makeImage makes the image that the functions run in: the one that SAM would take, with the
// stand-in Entra's certificate among those that Go trusts.
func makeImage(t *testing.T, ca []byte) {
	container := strings.TrimSpace(docker(t, "create", os.Getenv("E2E_IMAGE"), "/bin/sh"))
	docker(t, "cp", write(t, ca), container+":/etc/ssl/certs/e2e.pem")
	docker(t, "commit", container, image)
	docker(t, "rm", container)
	t.Cleanup(func() {
		_ = exec.Command("docker", "rmi", "--force", image, "entra-connector-e2e:rapid-"+os.Getenv("E2E_ARCH")).Run()
	})
}

func docker(t *testing.T, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "docker", args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("docker %s: %v %s", args[0], err, &stderr)
	}
	return string(out)
}

// write puts the content into a file, which containers may read.
func write(t *testing.T, content []byte) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// start runs a server until the test ends or stop is called, and waits until it listens on the port
// that stands for PORT in its arguments.
func start(t *testing.T, out io.Writer, address, name string, args ...string) (port string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ = net.SplitHostPort(l.Addr().String())
	l.Close()
	args[slices.Index(args, "PORT")] = port
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = root, out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}
	t.Cleanup(stop)
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		if c, err := net.Dial("tcp", net.JoinHostPort(address, port)); err == nil {
			c.Close()
			return port, stop
		}
		if time.Now().After(end) {
			t.Fatal(name, "does not listen on port", port)
		}
	}
}
