package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"entra-connector/internal/stack"
	"entra-connector/internal/stack/stacktest"
	"entra-connector/pkg/entra/entratest"
)

// The test binary is also the command: started with COMMAND_TEST_MAIN set, it is main.
func TestMain(m *testing.M) {
	if os.Getenv("COMMAND_TEST_MAIN") != "" {
		main()
	}
	stacktest.Main(m)
}

// command is the command in a process of its own, in a directory of its own and without AWS
// credentials.
type command struct {
	t   *testing.T
	api string
	dir string
	env []string
}

func newCommand(t *testing.T, api string) *command {
	return &command{t: t, api: api, dir: t.TempDir(), env: []string{
		"COMMAND_TEST_MAIN=1", "ENTRA_CONNECTOR_API=" + api, "PATH=" + os.Getenv("PATH"), "AWS_EC2_METADATA_DISABLED=true",
		"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null",
	}}
}

// answer is what a run leaves.
type answer struct {
	t        *testing.T
	args     []string
	code     int
	out, err string
}

func (c *command) prepare(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(c.t.Context(), os.Args[0], args...)
	cmd.Dir, cmd.Env = c.dir, c.env
	return cmd
}

// run runs it to its end. No secret may come out.
func (c *command) run(stdin string, args ...string) answer {
	c.t.Helper()
	cmd := c.prepare(args...)
	var out, err bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &err
	if e := cmd.Run(); e != nil && cmd.ProcessState == nil {
		c.t.Fatal(e)
	}
	return c.ran(args, cmd.ProcessState.ExitCode(), out.String(), err.String())
}

func (c *command) ran(args []string, code int, out, err string) answer {
	c.t.Helper()
	if args[0] != "exec" && regexp.MustCompile(`c4nary|eyJ`).MatchString(out+err) {
		c.t.Errorf("%v prints a secret:\n%s%s", args, out, err)
	}
	return answer{c.t, args, code, out, err}
}

// want checks the exit code, and that each text is in what was printed.
func (a answer) want(code int, texts ...string) answer {
	a.t.Helper()
	if a.code != code {
		a.t.Errorf("%v ends with %d, want %d:\n%s%s", a.args, a.code, code, a.out, a.err)
	}
	for _, text := range texts {
		if !strings.Contains(a.out+a.err, text) {
			a.t.Errorf("%v does not print %q:\n%s%s", a.args, text, a.out, a.err)
		}
	}
	return a
}

// decode reads what a program would.
func decode[T any](a answer) (v T) {
	a.t.Helper()
	if err := json.Unmarshal([]byte(a.out), &v); err != nil {
		a.t.Errorf("%v prints no JSON alone: %v\n%s", a.args, err, a.out)
	}
	return v
}

func (c *command) write(name, text string) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// start runs the whole connector, and the command against it.
func start(t *testing.T, options stack.Options) (*stacktest.Connector, *command) {
	connector := stacktest.Start(t, options)
	server := httptest.NewServer(connector.API())
	t.Cleanup(server.Close)
	c := newCommand(t, server.URL)
	c.env = append(c.env, "AWS_ENDPOINT_URL_SECRETS_MANAGER="+connector.SecretsEndpoint)
	return connector, c
}

func (c *command) putApp() {
	c.t.Helper()
	c.run(stacktest.Secret+"\n", "app", "put", "default", "--client-id", stacktest.ClientID, "--service", "microsoft-graph", "--secret-stdin").
		want(0, "created", "https://graph.microsoft.com/.default")
}

func TestADay(t *testing.T) {
	connector, c := start(t, stack.Options{})
	c.run("", "status").want(0, "entra-connector app put NAME")
	c.run("", "app", "list").want(0, "entra-connector app put NAME")
	c.run("", "app", "put", "default", "--secret-stdin").want(2, "--client-id")
	c.putApp()
	c.run("", "status").want(0, "entra-connector connect TENANT")
	c.run("", "list").want(0, "entra-connector connect TENANT")
	c.run("", "connect", "contoso.com").want(0, "default/"+stacktest.TenantA+" is connected. Its token lasts ")
	c.run("", "connect", "fabrikam.com", "--name", "fabrikam", "--service", "microsoft-graph", "--service", "azure-devops").
		want(0, "default/fabrikam-microsoft-graph is connected", "default/fabrikam-azure-devops is connected", "azure_devops_user", "Basic licence")

	list := c.run("", "list").want(0, "CONNECTION", "fabrikam-azure-devops", "azure-devops", stacktest.TenantB, " min ")
	if lines := strings.Count(list.out, "\n"); lines != 4 {
		t.Errorf("the list has %d lines:\n%s", lines, list.out)
	}
	// For programs, connections are as the API sends them.
	var sent struct{ Connections []any }
	if err := json.Unmarshal([]byte(connector.Call("GET", "/connections", "").Body), &sent); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"list", "-o", "json"}, {"list", "--app", "default", "--status", "ok", "-o", "json"}} {
		if got := decode[[]any](c.run("", args...)); fmt.Sprint(got) != fmt.Sprint(sent.Connections) {
			t.Errorf("%v prints %v, the API sent %v", args, got, sent.Connections)
		}
	}
	if got := decode[[]any](c.run("", "list", "--status", "refused", "-o", "json")); len(got) != 0 {
		t.Errorf("these are refused: %v", got)
	}
	if got := decode[map[string]any](c.run("", "show", "default/fabrikam-azure-devops", "-o", "json")); fmt.Sprint(got) != fmt.Sprint(sent.Connections[1]) {
		t.Errorf("show prints %v, the API sent %v", got, sent.Connections[1])
	}
	c.run("", "show", "default/fabrikam-azure-devops").want(0, "tenant_id", stacktest.TenantB, " min)", "secret.arn", "azure_devops_user")

	// Another secret for the same app. The next sweep takes the connections of all services over.
	c.write("secret", stacktest.NewSecret+"\r\n")
	c.run("", "app", "put", "default", "--secret-file", "secret", "--secret-expires", time.Now().UTC().AddDate(0, 0, 9).Format(time.DateOnly)).want(0, "replaced")
	c.run("", "app", "list").want(0, "8 days")
	connector.Entra.SetSecrets(stacktest.ClientID, entratest.Secret{Value: stacktest.NewSecret})
	if swept := string(connector.Invoke(connector.Refresh, `{}`).Payload); !strings.Contains(swept, `"refreshed":3`) {
		t.Errorf("the sweep after a rotation reports %s", swept)
	}
	c.run("", "status").want(0, "3 connections of 1 app", "3  ok", "EXPIRES WITHIN 30 DAYS", "8 days")
	connector.Entra.Fail(entratest.Fault{Tenant: stacktest.TenantB, Endpoint: "token", Response: entratest.Refused(7000112)})
	refreshed := c.run("", "refresh", "default/fabrikam-azure-devops", "default/nobody", "-o", "json").want(3, "There is no connection")
	if o := decode[[]outcome](refreshed); len(o) != 2 || o[0].Problem.Code != "AADSTS7000112" || o[1].Name != "default/nobody" ||
		o[1].Problem.Status != 404 || o[1].Problem.RequestID == "" {
		t.Errorf("refresh prints %s", refreshed.out)
	}
	status := decode[overview](c.run("", "status", "-o", "json").want(0))
	if status.Connections != 3 || status.ByStatus["refused"] != 1 || len(status.Expiring) != 1 || len(status.NeedsPerson) == 0 {
		t.Errorf("status is %+v", status)
	}

	c.run("", "app", "delete", "default", "--yes").want(3, "Connections use app")
	c.run("y\n", "delete", "default/"+stacktest.TenantA).want(2, "--yes")
	if names := connector.Secrets.Names(); len(names) != 4 {
		t.Errorf("there are %v", names)
	}
	c.run("", "delete", "--yes", "default/"+stacktest.TenantA, "default/fabrikam-microsoft-graph", "default/fabrikam-azure-devops").want(0, "default/fabrikam-azure-devops is deleted")
	c.run("", "app", "show", "default").want(0, stacktest.ClientID, "client_secret")
	c.run("", "app", "delete", "default", "-y").want(0, "default is deleted")
	c.run("", "app", "show", "default").want(3, "There is no app", "entra-connector app list")
}

func TestRefusalsSayWhatToDo(t *testing.T) {
	s, c := start(t, stack.Options{})
	c.run("", "connect", "contoso.com").want(3, `There is no app "default"`, "entra-connector app put default")
	c.run(stacktest.Wrong, "app", "put", "default", "--client-id", "x", "--service", "y", "--secret-stdin").
		want(3, "The request is invalid", "\n  client_id  ", "\n  service    must be one of azure-devops")
	c.putApp()
	refused := c.run("", "connect", "nobody.com", "--name", "contoso", "-o", "json").want(3, "AADSTS90002", "to do", "request ", "trace ", "correlation ")
	if problem := decode[[]outcome](refused)[0].Problem; problem.Action == "" || !strings.Contains(refused.err, problem.RequestID) {
		t.Errorf("the problem for programs is %+v", problem)
	}
	s.Entra.Fail(entratest.Fault{Response: entratest.Refused(7000216)})
	c.run("", "connect", "contoso.com", "--name", "contoso").want(3, "entra-connector app put default")
	if one := decode[outcome](c.run("", "show", "default/contoso", "-o", "json").want(3)); one.Problem.Status != 404 {
		t.Errorf("the problem for programs is %+v", one.Problem)
	}
}

func TestWrongUsage(t *testing.T) {
	c := newCommand(t, "http://127.0.0.1:1")
	c.write("not.csv", "connection\nx\n")
	for _, args := range [][]string{
		{"nonsense"}, {"app", "nonsense"}, {"connect"}, {"connect", "a", "b"}, {"show", "contoso"}, {"show", "../apps"}, {"show", "default/.."},
		{"app", "show", "a/b"}, {"refresh"}, {"list", "-o", "yaml"}, {"list", "--nonsense"}, {"app", "put", "a", "--secret-stdin", "--federation"},
		{"app", "put", "a", "--client-id", "x"}, {"app", "put", "a", "--client-id", "x", "--secret-stdin"}, {"delete", "default/a"},
		{"list", "--api", "ftp://x"}, {"list", "--api", "http://example.com"}, {"list", "--api", "https://user@x"}, {"list", "--api", "x"},
		{"import", "missing.csv"}, {"import", "not.csv"}, {"import", "not.csv", "--parallel", "0"}, {"exec", "default/a", "true"}, {"exec", "a", "--", "true"},
	} {
		c.run("", args...).want(2, "Usage: entra-connector", "--help")
	}
	c.env = append(c.env, "ENTRA_CONNECTOR_API=")
	c.run("", "list").want(2, "--api", "ApiUrl")
	for _, args := range [][]string{{"--version"}, {"app"}, {"--help"}, {"completion", "bash"}, {"completion", "zsh"}} {
		c.run("", args...).want(0, "entra-connector")
	}
	c.run("", "__complete", "connect", "--service", "").want(0, "azure-devops\n")
	c.run("", "__complete", "import", "").want(0, "csv\n")
}

// recorder is an API that keeps what it is asked and looks for secrets among the arguments of all
// processes meanwhile.
type recorder struct {
	t      *testing.T
	answer http.HandlerFunc

	mu    sync.Mutex
	asked []string
}

func record(t *testing.T, answer http.HandlerFunc) (*recorder, *command) {
	r := &recorder{t: t, answer: answer}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	return r, newCommand(t, server.URL)
}

// taken returns what was asked since it was last called.
func (r *recorder) taken() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	asked := strings.Join(r.asked, "|")
	r.asked = nil
	return asked
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, line := range lines {
		if b, _ := os.ReadFile(line); bytes.Contains(b, []byte("c4nary")) {
			r.t.Errorf("a secret is on a command line: %q", b)
		}
	}
	r.mu.Lock()
	r.asked = append(r.asked, strings.TrimSpace(req.Method+" "+req.URL.String()+" "+string(body)))
	r.mu.Unlock()
	if req.Header.Get("Authorization") != "" || req.Header.Get("Content-Type") != map[bool]string{true: "application/json"}[len(body) > 0] {
		r.t.Errorf("%s %s has the headers %v", req.Method, req.URL, req.Header)
	}
	req.Body = io.NopCloser(bytes.NewReader(body))
	r.answer(w, req)
}

func TestWhatIsSent(t *testing.T) {
	r, c := record(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "/invitation") {
			w.WriteHeader(201)
			fmt.Fprint(w, `{"url":"https://a.example/connect/x","expires_at":"2030-01-01T00:00:00Z"}`)
			return
		}
		fmt.Fprint(w, `{"client_id":"known","app":"default","connection":"c","status":"ok"}`)
	})
	c.env = append(c.env, "AWS_ACCESS_KEY_ID=AKID", "AWS_SECRET_ACCESS_KEY=c4nary-aws") // not for plain http
	c.write("secret", "c4nary\n\n")
	c.write("empty", "\n")
	c.write("pem", "c4nary\n")
	for _, test := range []struct{ args, stdin, want string }{
		{"app put a --secret-stdin", "c4nary\r\n", `GET /apps/a|PUT /apps/a {"client_id":"known","client_secret":"c4nary"}`},
		{"app put a --client-id i --secret-file secret --secret-expires 2030-01-01 --cloud usgov", "",
			`PUT /apps/a {"client_id":"i","client_secret":"c4nary\n","client_secret_expires_at":"2030-01-01","cloud":"usgov"}`},
		{"app put a --client-id i --certificate-file pem --scope s/.default", "", `PUT /apps/a {"certificate":"c4nary\n","client_id":"i","scope":"s/.default"}`},
		{"app put a --client-id i --federation", "", `PUT /apps/a {"client_id":"i","federation":{}}`},
		{"app put a --client-id i --federation --audience x", "", `PUT /apps/a {"client_id":"i","federation":{"audience":"x"}}`},
		{"app put a --client-id i --secret-file empty", "", ``},
		{"connect T --app a --name n --scope s", "", `POST /connections {"app":"a","connection":"n","scope":"s","tenant_id":"T"}`},
		{"connect T --service x", "", `POST /connections {"app":"default","service":"x","tenant_id":"T"}`},
		{"connect T --service x --service y", "", `POST /connections {"app":"default","connection":"t-x","service":"x","tenant_id":"T"}|` +
			`POST /connections {"app":"default","connection":"t-y","service":"y","tenant_id":"T"}`},
		{"invite a/b", "", `POST /connections/a/b/invitation {}`},
		{"invite a/b --tenant T --service s --days 3", "", `POST /connections/a/b/invitation {"expires_in_days":3,"service":"s","tenant_id":"T"}`},
		{"refresh a/b c/d", "", `POST /connections/a/b/refresh|POST /connections/c/d/refresh`},
		{"list --app a", "", `GET /connections?app=a`},
	} {
		ran := c.run(test.stdin, strings.Fields(test.args)...)
		if got := r.taken(); got != test.want {
			t.Errorf("%s sends %s\nwant %s", test.args, got, test.want)
		}
		if strings.HasPrefix(test.args, "invite") {
			ran.want(0, "https://a.example/connect/x")
		}
	}
}

func TestExitCodesByStatus(t *testing.T) {
	var reply atomic.Value
	_, c := record(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Apigw-Requestid", "the-request")
		reply.Load().(http.HandlerFunc)(w, r)
	})
	answers := func(status int, contentType, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.Header().Set("Retry-After", "7")
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}
	}
	for _, test := range []struct {
		reply http.HandlerFunc
		code  int
		text  string
	}{
		{answers(403, "application/json", `{"message":"Forbidden"}`), 3, "OperatorPolicyArn"},
		{answers(404, "application/json", `{"message":"Not Found"}`), 3, "ApiUrl"},
		{answers(409, "application/problem+json", `{"type":"t","title":"Conflict","status":409,"detail":"Use PUT /apps/a-b."}`), 3, "Use entra-connector app put a-b."},
		{answers(429, "application/json", `{"message":"Too Many Requests"}`), 4, "in 7s or later"},
		{answers(500, "application/json", `{"message":"Internal Server Error"}`), 4, "Try again"},
		{answers(502, "text/html", `<html>c4nary`), 4, "502 Bad Gateway"},
		{answers(503, "application/problem+json", `{"type":"t","title":"Busy","status":503,"detail":"Entra is busy.","action":"Wait."}`), 4, "to do    Wait."},
		{answers(307, "text/plain", ""), 3, "307"},
		{answers(200, "text/html", "<html>"), 1, "check the URL"},
		{func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 4, "did not answer"},
	} {
		reply.Store(test.reply)
		got := c.run("", "show", "a/b", "-o", "json").want(test.code, test.text)
		if problem := decode[outcome](got).Problem; problem == nil || problem.Title == "" {
			t.Errorf("a program reads %s", got.out)
		}
		if test.code != 1 && !strings.Contains(test.text, "did not") && !strings.Contains(got.err, "the-request") {
			t.Errorf("the request is not named in %s", got.err)
		}
	}
	c.run("", "list", "--api", "http://127.0.0.1:1").want(4, "did not answer", "to do")
}
