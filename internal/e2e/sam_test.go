package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
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

	"entra-connector/pkg/entra/entratest"
)

const (
	root  = "../.."                    // of the project, where sam finds what it built
	host  = "host.docker.internal"     // this machine, as containers call it
	image = "entra-connector-e2e:base" // that the functions run in
)

// What the stand-in Entra knows, beside the app of events/create-connection.json.
const (
	contoso       = "c0000000-0000-4000-8000-000000000001"
	contosoDomain = "contoso.example"
	clientID      = "11111111-aaaa-4aaa-8aaa-111111111111"
)

// TestSAM runs both functions as `sam build` left them, in containers of the Docker engine, between the stand-in Entra and
// moto's Secrets Manager. E2E_IMAGE names the image that SAM would run them in; E2E_ARCH is its architecture.
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
	entra   *entratest.Server
	aws     aws.Config // of moto
	moto    *server
	said    *output
	options []string // of every `sam local` command
}

func startSAM(t *testing.T) *sam {
	s := &sam{said: new(output)}
	t.Cleanup(func() { s.show(t) }) // last words: what is registered from here on ends before
	address := thisMachine(t)
	t.Log("containers find this machine at", address)

	port := freePort(t, address)
	s.moto = start(t, new(output), "moto_server", "-H", address, "-p", port)
	await(t, address, port)
	t.Setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://"+net.JoinHostPort(address, port))
	t.Setenv("AWS_ENDPOINT_URL_STS", "http://"+net.JoinHostPort(address, port)) // which sam asks whose account it is
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	var err error
	if s.aws, err = config.LoadDefaultConfig(t.Context()); err != nil {
		t.Fatal(err)
	}

	var authority string
	var ca []byte
	s.entra, authority, ca = startEntra(t, address)
	makeImage(t, ca)
	moto := "http://" + net.JoinHostPort(host, port)
	vars, err := json.Marshal(map[string]any{"Parameters": map[string]string{
		"AZURE_AUTHORITY_HOST":             authority,
		"AWS_ENDPOINT_URL_SECRETS_MANAGER": moto,
		"AWS_ENDPOINT_URL_EVENTBRIDGE":     moto,
	}})
	if err != nil {
		t.Fatal(err)
	}
	envFile := filepath.Join(t.TempDir(), "env.json")
	if err := os.WriteFile(envFile, vars, 0o600); err != nil {
		t.Fatal(err)
	}
	s.options = []string{"--env-vars", envFile, "--add-host", host + ":host-gateway",
		"--parameter-overrides", "Architecture=" + os.Getenv("E2E_ARCH"), "--skip-pull-image", "--invoke-image", image}
	return s
}

// show logs what came out since it last did.
func (s *sam) show(t *testing.T) {
	t.Helper()
	if s.entra != nil {
		s.said.guard(s.entra.Tokens()...)
	}
	t.Log(s.said.take(t))
}

// invoke runs a function once, with a payload of the project's, and returns what it answers.
func (s *sam) invoke(t *testing.T, function, event string) string {
	t.Helper()
	args := []string{"local", "invoke", function, "--event", "events/" + event}
	fmt.Fprintf(s.said, "$ sam %s …\n", strings.Join(args, " "))
	var answer bytes.Buffer
	cmd := exec.Command("sam", append(args, s.options...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = root, io.MultiWriter(&answer, s.said), s.said
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
	s.said.guard(secret)
	s.entra.AddTenant(tenant)
	s.entra.AddApp(entratest.App{ClientID: client, Secrets: []entratest.Secret{{Value: secret}}})
	s.entra.Consent(tenant.ID, client, "User.Read.All")
}

// payloads takes those that come with the project, as they are, in an order in which they make sense.
func (s *sam) payloads(t *testing.T) {
	file, err := os.ReadFile(filepath.Join(root, "events/create-connection.json"))
	var event struct{ Body string }
	var body struct {
		TenantID     string `json:"tenant_id"`
		ClientID     string `json:"client_id"`
		ClientSecret string `json:"client_secret"`
	}
	if err = errors.Join(err, json.Unmarshal(file, &event), json.Unmarshal([]byte(event.Body), &body)); err != nil {
		t.Fatal(err)
	}
	s.consented(entratest.Tenant{ID: body.TenantID}, body.ClientID, body.ClientSecret)

	const acme = "entra/connections/default/acme"
	d := deployment{aws: s.aws, said: s.said}
	token := "" // as last read
	for _, x := range []struct {
		function, event, want string // what the answer has to contain
		renews                bool   // and whether the token is another one then
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
				d.missing(t, acme, "InvalidRequestException")
				return
			}
			now := d.values(t, acme)[accessToken]
			if err := s.issued(now); err != nil {
				t.Error(err)
			}
			if (now != token) != x.renews {
				t.Errorf("there is a new token: %v, want %v", now != token, x.renews)
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
	api, lambda := freePort(t, "127.0.0.1"), freePort(t, "127.0.0.1")
	start(t, s.said, "sam", append([]string{"local", "start-api", "--port", api}, s.options...)...)
	start(t, s.said, "sam", append([]string{"local", "start-lambda", "--port", lambda}, s.options...)...)
	await(t, "127.0.0.1", api)
	await(t, "127.0.0.1", lambda)

	d := deployment{
		aws: s.aws, api: "http://127.0.0.1:" + api, lambda: "http://127.0.0.1:" + lambda, refresh: "RefreshFunction", prefix: "entra",
		tenant: contosoDomain, tenantID: contoso, clientID: clientID, secret: rand.Text(),
		scope: "https://graph.microsoft.com/.default", cloud: "public", issued: s.issued, said: s.said,
	}
	s.consented(entratest.Tenant{ID: contoso, Domains: []string{contosoDomain}}, clientID, d.secret)
	d.call(t, http.StatusNotFound, "GET", "/nothing", nil, nil)
	d.call(t, http.StatusMethodNotAllowed, "PATCH", "/apps/default", nil, nil)
	d.call(t, http.StatusBadRequest, "POST", "/connections", map[string]string{}, nil)
	scenario(t, d)
	t.Run("what Entra refuses keeps its token, and recovers", func(t *testing.T) { s.refused(t, d) })
}

// refused needs an Entra that refuses on demand.
func (s *sam) refused(t *testing.T, d deployment) {
	const secret = "entra/connections/refused/contoso"
	var c view
	d.call(t, http.StatusCreated, "POST", "/connections", map[string]string{"tenant_id": d.tenant, "app": "refused",
		"connection": "contoso", "client_id": d.clientID, "client_secret": d.secret, "scope": d.scope}, nil)
	before := d.values(t, secret)

	s.entra.Fail(entratest.Fault{Tenant: contoso, Endpoint: "token", Response: entratest.Refused(7000112)})
	if report := d.sweep(t, `{"force":true}`); report.Failed != 1 || len(report.Failures) != 1 || report.Failures[0].Code != "AADSTS7000112" {
		t.Errorf("the sweep reports %+v", report)
	}
	d.call(t, http.StatusOK, "GET", "/connections/refused/contoso", nil, &c)
	if c.Status != "refused" || !maps.Equal(d.values(t, secret), before) {
		t.Errorf("the status is %s, or the secret has changed", c.Status)
	}

	s.entra.ClearFaults()
	d.call(t, http.StatusOK, "POST", "/connections/refused/contoso/refresh", nil, &c)
	d.check(t, c, secret, d.values(t, secret))
}

// alone shows what a person sees whose Secrets Manager cannot be reached.
func (s *sam) alone(t *testing.T) {
	s.moto.stop()
	s.moto.said.guard(s.said.secrets...)
	s.moto.said.take(t)
	if !strings.Contains(s.invoke(t, "ProvisionFunction", "list-connections.json"), `"statusCode":503`) {
		t.Error("the provision function does not answer 503")
	}
	if !strings.Contains(s.invoke(t, "RefreshFunction", "scheduled.json"), `"errorType":"SweepError"`) {
		t.Error("the refresh function does not fail")
	}
}

// thisMachine is an address of this machine that containers reach: the one that Docker calls host-gateway or, where that is
// an address inside of Docker Desktop's virtual machine, the loopback address.
func thisMachine(t *testing.T) string {
	hosts := docker(t, nil, "run", "--rm", "--add-host", host+":host-gateway", "--entrypoint", "/bin/sh", os.Getenv("E2E_IMAGE"),
		"-c", `while read -r line; do echo "$line"; done </etc/hosts`)
	for line := range strings.Lines(hosts) {
		if fields := strings.Fields(line); len(fields) > 1 && slices.Contains(fields[1:], host) {
			if l, err := net.Listen("tcp", net.JoinHostPort(fields[0], "0")); err == nil {
				l.Close()
				return fields[0]
			}
		}
	}
	return "127.0.0.1"
}

// startEntra starts the stand-in Entra with TLS, since the functions take nothing else from afar. It returns its URL for
// containers, and its certificate.
func startEntra(t *testing.T, address string) (stand *entratest.Server, url string, ca []byte) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "stand-in Entra of make e2e"}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Fatal(err)
	}
	stand = entratest.New(entratest.Options{})
	server := &httptest.Server{
		Listener: listener,
		Config:   &http.Server{Handler: stand},
		TLS:      &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	return stand, "https://" + net.JoinHostPort(host, port), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// makeImage makes the image that the functions run in: the one that SAM would take, and the stand-in Entra's certificate
// among those that Go trusts.
func makeImage(t *testing.T, ca []byte) {
	container := strings.TrimSpace(docker(t, nil, "create", os.Getenv("E2E_IMAGE"), "/bin/sh"))
	var files bytes.Buffer
	w := tar.NewWriter(&files)
	if err := errors.Join(
		w.WriteHeader(&tar.Header{Name: "e2e.pem", Mode: 0o644, Size: int64(len(ca))}),
		func() error { _, err := w.Write(ca); return err }(),
		w.Close(),
	); err != nil {
		t.Fatal(err)
	}
	docker(t, &files, "cp", "-", container+":/etc/ssl/certs/")
	docker(t, nil, "commit", container, image)
	docker(t, nil, "rm", container)
	t.Cleanup(func() {
		_ = exec.Command("docker", "rmi", "--force", image, "entra-connector-e2e:rapid-"+os.Getenv("E2E_ARCH")).Run()
	})
}

func docker(t *testing.T, stdin io.Reader, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "docker", args...)
	cmd.Stdin = stdin
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("docker %s: %s", args[0], stderr(err))
	}
	return string(out)
}

// server is a process that runs until the test ends.
type server struct {
	cmd  *exec.Cmd
	said *output
}

func start(t *testing.T, said *output, name string, args ...string) *server {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = root, said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &server{cmd, said}
	t.Cleanup(s.stop)
	return s
}

func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	_ = s.cmd.Wait()
}

// await waits until somebody listens.
func await(t *testing.T, address, port string) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		if c, err := net.Dial("tcp", net.JoinHostPort(address, port)); err == nil {
			c.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatal("nobody listens on port", port)
		}
	}
}

func freePort(t *testing.T, address string) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}
