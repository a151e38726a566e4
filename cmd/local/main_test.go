package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/stack/stacktest"
	"entra-connector/pkg/entra"
	"entra-connector/pkg/entra/entratest"
)

func TestMain(m *testing.M) { stacktest.Main(m) }

// program is a run of the program.
type program struct {
	t      *testing.T
	stdout *bufio.Scanner
	seen   strings.Builder // of stdout
	stderr stacktest.Output
	stop   context.CancelFunc
	code   chan int
}

// launch starts the program in a directory of its own, with these variables.
func launch(t *testing.T, env map[string]string, args ...string) *program {
	t.Helper()
	t.Chdir(t.TempDir())
	for _, name := range append(passedOn, "AZURE_AUTHORITY_HOST", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SECRETS_MANAGER") {
		t.Setenv(name, env[name])
	}
	for name, value := range env {
		t.Setenv(name, value)
	}
	if len(args) > 0 {
		args = slices.Insert(args, 1, "-provision", stacktest.ProvisionBinary, "-refresh", stacktest.RefreshBinary)
	}
	ctx, stop := context.WithCancel(t.Context())
	stdout, w := io.Pipe()
	p := &program{t: t, stdout: bufio.NewScanner(stdout), stop: stop, code: make(chan int, 1)}
	go func() {
		defer close(p.code)
		p.code <- run(ctx, args, w, &p.stderr)
		w.Close()
	}()
	t.Cleanup(func() {
		stop()
		p.exit(0)
	})
	return p
}

func (p *program) scan() bool {
	ok := p.stdout.Scan()
	if ok {
		p.seen.WriteString(p.stdout.Text() + "\n")
	}
	return ok
}

// await returns the last group of the pattern in the next line that matches.
func (p *program) await(pattern string) string {
	p.t.Helper()
	for re := regexp.MustCompile(pattern); p.scan(); {
		if m := re.FindStringSubmatch(p.stdout.Text()); m != nil {
			return m[len(m)-1]
		}
	}
	p.t.Fatalf("no line matches %s in:\n%s\n%s", pattern, &p.seen, &p.stderr)
	return ""
}

// exit sends a signal, unless it is 0, and returns the exit code. No function may be left.
func (p *program) exit(signal syscall.Signal) int {
	p.t.Helper()
	if err := syscall.Kill(os.Getpid(), signal); err != nil {
		p.t.Fatal(err)
	}
	for p.scan() {
	}
	code := <-p.code
	if left := functions(); left > 0 {
		p.t.Errorf("%d functions are left", left)
	}
	return code
}

// functions counts the processes that run a function, if the system lists them.
func functions() (n int) {
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, link := range links {
		if binary, _ := os.Readlink(link); strings.HasPrefix(binary, filepath.Dir(stacktest.RefreshBinary)) {
			n++
		}
	}
	return n
}

// said is what the program wrote for people, in one line.
func (p *program) said() string { return strings.Join(strings.Fields(p.stderr.String()), " ") }

// noSecrets wants no client secret and no more of a token than the start that the demo shows.
func noSecrets(t *testing.T, text string) {
	t.Helper()
	if regexp.MustCompile(`not-a-real-secret|eyJ[\w-]{10,}`).MatchString(text) {
		t.Errorf("a secret is in:\n%s", text)
	}
}

func narrow(t *testing.T, text string) {
	t.Helper()
	if line := regexp.MustCompile(`(?m)^.{81,}$`).FindString(text); line != "" {
		t.Errorf("a line has more than 80 columns: %s", line)
	}
}

func has(t *testing.T, text string, wanted ...string) {
	t.Helper()
	for _, want := range wanted {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in:\n%s", want, text)
		}
	}
}

func TestDemo(t *testing.T) {
	// The demo ignores whatever a developer has set.
	p := launch(t, map[string]string{"AZURE_AUTHORITY_HOST": "http://127.0.0.1:1", "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_REGION": "eu-west-1",
		"AWS_ENDPOINT_URL_SECRETS_MANAGER": "http://127.0.0.1:1", "AWS_PROFILE": "none-such", "SECRET_PREFIX": "theirs", "AWS_MAX_ATTEMPTS": "no number"},
		"demo")
	if code := p.exit(0); code != 0 || p.said() != "" {
		t.Errorf("exit code %d: %s", code, p.said())
	}
	noSecrets(t, p.seen.String())
	narrow(t, p.seen.String())
	has(t, p.seen.String(), "POST /connections\n", "→ 201 Created\n", "PAN_SEC_MICROSOFT_ENTRA_ACCESS_TOKEN    eyJ0eXAiOiJK… (",
		"→ 422 Unprocessable Entity\n", "AADSTS7000222\n", "PUT /apps/default\n", "→ checked 2, due 2, refreshed 2, failed 0",
		"AADSTS7000112 refused\n", "everything went as it should")

	p = launch(t, nil, "demo", "-v")
	if code := p.exit(0); code != 0 {
		t.Errorf("exit code %d", code)
	}
	has(t, p.said(), `"message":"sweep done"`)
	noSecrets(t, p.said())
}

func TestDemoThatGoesWrong(t *testing.T) {
	// Each function is in the other's place: the API answers, but with a sweep's report.
	p := launch(t, nil, "demo", "-provision", stacktest.RefreshBinary, "-refresh", stacktest.ProvisionBinary)
	if code := p.exit(0); code != 1 || strings.Contains(p.seen.String(), "2  Read") || strings.Contains(p.seen.String(), "as it should") {
		t.Errorf("exit code %d:\n%s", code, &p.seen)
	}
	has(t, p.said(), "step 1 of the demo did not go as it should: POST /connections answered 500 Internal Server Error, not 201:",
		"What the functions logged: {")
	noSecrets(t, p.seen.String()+p.said())
}

// do sends a request to the API and returns the answer's status and "status".
func do(t *testing.T, method, url, body string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var answer struct{ Status any }
	_ = json.NewDecoder(res.Body).Decode(&answer)
	return fmt.Sprint(res.StatusCode, " ", answer.Status)
}

const firstConnection = `{"tenant_id":"contoso.example","connection":"first","service":"microsoft-graph",` +
	`"client_id":"` + clientID + `","client_secret":"` + clientSecret + `"}`

// at is an address that is likely to be free: systems hand out higher ports.
func at(offset int) string { return fmt.Sprintf("127.0.0.1:%d", 20000+os.Getpid()%10000+offset) }

func TestServe(t *testing.T) {
	data := filepath.Join(t.TempDir(), ".local", "secrets.json")
	api := "http://" + at(0)
	p := launch(t, nil, "serve", "-addr", at(0), "-every", "1h", "-data", data)
	p.await(`^  Entra +http://` + at(100) + ` \(stand-in\)$`)
	p.await(`sweep: checked 0, `)
	if got := do(t, "POST", api+"/connections", firstConnection); got != "201 ok" {
		t.Fatalf("provisioning answers %s", got)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	p.await(`^\d\d:\d\d:\d\d  sweep: checked 1, due 1, refreshed 1, failed 0, waiting 0, deferred 0$`)
	// The functions warn of what Entra refuses.
	old := `{"client_id":"` + expiredClientID + `","client_secret":"` + expiredClientSecret + `","service":"microsoft-graph"}`
	if got := do(t, "PUT", api+"/apps/old", old); !strings.HasPrefix(got, "201 ") {
		t.Fatalf("storing an app answers %s", got)
	}
	if got := do(t, "POST", api+"/connections", `{"tenant_id":"contoso.example","app":"old"}`); got != "422 422" {
		t.Fatalf("provisioning with an expired secret answers %s", got)
	}
	second := launch(t, nil, "serve", "-addr", "127.0.0.1:0", "-data", data)
	if code := <-second.code; code != 1 {
		t.Errorf("a second one with the same data ends with %d", code)
	}
	has(t, second.said(), "another make local uses "+data, "DATA=.local/other.json")
	if n := functions(); n != 2 && runtime.GOOS == "linux" {
		t.Errorf("%d functions run, want 2", n)
	}
	if code := p.exit(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d after SIGTERM: %s", code, p.said())
	}
	if !strings.Contains(p.said(), `"level":"WARN"`) || strings.Contains(p.said(), `"level":"INFO"`) {
		t.Errorf("want what the functions warn of, and no more:\n%s", p.said())
	}
	noSecrets(t, strings.ReplaceAll(p.seen.String(), "not-a-real-secret", "")+p.said())
	for path, want := range map[string]os.FileMode{data: 0o600, filepath.Dir(data): 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want mode %o", path, info, err, want)
		}
	}

	// The next run has all of it, and its Entra still knows the app.
	p = launch(t, nil, "serve", "-v", "-addr", at(0), "-every", "1h", "-data", data)
	p.await(`sweep: checked 1, `)
	if got := do(t, "POST", api+"/connections/default/first/refresh", ""); got != "200 ok" {
		t.Errorf("refreshing what an earlier run stored answers %s", got)
	}
	if code := p.exit(syscall.SIGINT); code != 0 {
		t.Errorf("exit code %d after Ctrl-C: %s", code, p.said())
	}
	has(t, p.said(), `"level":"INFO"`)
}

func TestServeScreen(t *testing.T) {
	taken, err := net.Listen("tcp", at(101)) // where Entra would be
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	p := launch(t, map[string]string{"SECRET_PREFIX": "team/entra"}, "serve", "-addr", at(1), "-every", "100ms")
	p.await("Ctrl-C")
	screen := p.seen.String()
	narrow(t, screen)
	has(t, screen, "For development only", "NOT A REAL SECRET", clientID, clientSecret, contosoID, fabrikamID,
		".local/secrets.json", "every 100ms", "--secret-id team/entra/connections/default/first", "not on "+taken.Addr().String()+",")
	if lines := strings.Count(screen, "\n"); lines > 36 {
		t.Errorf("the screen has %d lines", lines)
	}
	// The command to provision with does what it says: sh runs it, with a curl that only shows its arguments.
	provision, _, _ := strings.Cut(screen[strings.Index(screen, "  curl -s"):], "}'\n")
	shown, err := exec.Command("sh", "-c", `curl() { for a; do printf '%s\n' "$a"; done; }`+"\n"+provision+"}'").Output()
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(shown), "-d\n")
	if got := do(t, "POST", regexp.MustCompile(`http://\S+`).FindString(string(shown)), body); got != "201 ok" {
		t.Errorf("the command to provision with answers %s:\n%s", got, shown)
	}
	for range 3 {
		p.await(`sweep: checked [01], `)
	}
}

func TestServeAgainstOtherServices(t *testing.T) {
	theirs := entratest.Start(t, entratest.Options{})
	fill(theirs, nil)
	secrets := secretstoretest.Start(t, secretstoretest.Options{Region: "eu-central-1"})
	for _, variable := range []string{"AWS_ENDPOINT_URL_SECRETS_MANAGER", "AWS_ENDPOINT_URL"} {
		p := launch(t, map[string]string{
			"AZURE_AUTHORITY_HOST": theirs.URL(), variable: secrets.URL(), "SECRET_PREFIX": strings.ToLower(variable),
			"AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "theirs", "AWS_SECRET_ACCESS_KEY": "theirs",
		}, "serve", "-addr", "127.0.0.1:0")
		api := p.await(`^  API +(http://127\.0\.0\.1:\d+)$`)
		p.await("Ctrl-C")
		has(t, p.seen.String(), theirs.URL(), secrets.URL())
		if strings.Contains(p.seen.String(), "stand-in") || strings.Contains(p.seen.String(), "NOT A REAL SECRET") {
			t.Errorf("the screen is\n%s", &p.seen)
		}
		if got := do(t, "POST", api+"/connections", firstConnection); got != "201 ok" {
			t.Errorf("provisioning answers %s", got)
		}
		if name := strings.ToLower(variable) + "/connections/default/first"; !slices.Contains(secrets.Names(), name) {
			t.Errorf("Secrets Manager has %v, not %s", secrets.Names(), name)
		}
		if code := p.exit(syscall.SIGTERM); code != 0 {
			t.Errorf("exit code %d", code)
		}
		if _, err := os.Stat(".local"); err == nil {
			t.Error("data were kept in a file")
		}
	}
}

func TestWhatStopsTheProgram(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	broken := filepath.Join(t.TempDir(), "secrets.json")
	if err := os.WriteFile(broken, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		code int
		want string // the start of what it says
	}{
		"no command":       {nil, 2, "usage: "},
		"unknown command":  {[]string{"start"}, 2, "usage: "},
		"unknown flag":     {[]string{"demo", "-addr", "127.0.0.1:1"}, 2, "flag provided but not defined: -addr "},
		"argument":         {[]string{"serve", "now"}, 2, `local serve takes flags only, not "now".`},
		"help":             {[]string{"serve", "-h"}, 0, "Usage of local serve:"},
		"missing binaries": {[]string{"demo", "-refresh", "none"}, 1, "none is missing: run `make build` first."},
		"address in use": {[]string{"serve", "-addr", taken.Addr().String()}, 1, fmt.Sprintf("%s is in use. Stop what listens there, or "+
			"choose another address: make local ADDR=127.0.0.1:%d", taken.Addr(), taken.Addr().(*net.TCPAddr).Port+1)},
		"open address":     {[]string{"serve", "-addr", "0.0.0.0:0"}, 1, "0.0.0.0:0 is not a loopback address"},
		"address, no host": {[]string{"serve", "-addr", ":3000"}, 1, ":3000 is not a loopback address"},
		"no time at all":   {[]string{"serve", "-every", "0s"}, 1, "the time between sweeps must be above zero"},
		"broken data":      {[]string{"serve", "-addr", "127.0.0.1:0", "-data", broken}, 1, "starting the stand-in Secrets Manager: "},
		"environment": {[]string{"serve", "-addr", "127.0.0.1:0"}, 1, "REFRESH_WINDOW must be a Go duration above zero, such as 30m " +
			"ProvisionFunction: Runtime exited with error: exit status 1 the functions cannot start"},
	} {
		p := launch(t, map[string]string{"REFRESH_WINDOW": "abc"}, c.args...)
		if code := p.exit(0); code != c.code || !strings.HasPrefix(p.said(), c.want) {
			t.Errorf("%s: exit code %d: %s", name, code, p.said())
		}
	}
	// Stopped before it has swept, it says nothing of a sweep and reports no error.
	p := launch(t, nil, "serve", "-addr", "127.0.0.1:0")
	p.stop()
	if code := p.exit(0); code != 0 || strings.Contains(p.seen.String(), "sweep:") || p.said() != "" {
		t.Errorf("exit code %d: %s\n%s", code, p.said(), &p.seen)
	}
}

func TestSummary(t *testing.T) {
	failures := slices.Repeat([]entra.SweepFailure{{Connection: "a/b", Code: "AADSTS7000222", Status: entra.NeedsPerson}}, 7)
	got := summary(entra.SweepReport{Checked: 9, Due: 7, Failed: 7, Incomplete: true, Failures: failures})
	want := "checked 9, due 7, refreshed 0, failed 7, waiting 0, deferred 0, incomplete" +
		strings.Repeat("; a/b AADSTS7000222 refused", 5) + "; and 2 more"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
