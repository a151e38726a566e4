package main

import (
	"bufio"
	"bytes"
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
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"entra-connector/internal/connector"

	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/stack"
	"entra-connector/pkg/entra/entratest"
)

// The test binary is also the program: started with LOCAL_TEST_MAIN set, it is main. The functions are built once.
var provisionBinary, refreshBinary string

func TestMain(m *testing.M) {
	if os.Getenv("LOCAL_TEST_MAIN") != "" {
		main()
	}
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

// program is the program in a process of its own, with its output as it comes.
type program struct {
	*exec.Cmd
	t      *testing.T
	stderr bytes.Buffer
	lines  chan string // of stdout; closed at its end

	mu     sync.Mutex
	stdout strings.Builder
}

// launch starts the program with a clean environment but for env.
func launch(t *testing.T, env []string, args ...string) *program {
	t.Helper()
	p := &program{t: t, lines: make(chan string, 1000)}
	p.Cmd = exec.CommandContext(t.Context(), os.Args[0], append(args, "-provision", provisionBinary, "-refresh", refreshBinary)...)
	p.Dir = t.TempDir()
	p.Env = append([]string{"LOCAL_TEST_MAIN=1", "PATH=" + os.Getenv("PATH")}, env...)
	p.Stderr = &p.stderr
	stdout, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
			p.mu.Lock()
			p.stdout.WriteString(scanner.Text() + "\n")
			p.mu.Unlock()
			p.lines <- scanner.Text()
		}
	}()
	t.Cleanup(func() { _ = p.Process.Kill() })
	return p
}

// await returns the first group of pattern in the first line, from here on, that matches.
func (p *program) await(pattern string) string {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	for line := range p.lines {
		if m := re.FindStringSubmatch(line); m != nil {
			return m[len(m)-1]
		}
	}
	_ = p.Wait()
	p.t.Fatalf("no line matches %s in:\n%s\n%s", pattern, p.output(), &p.stderr)
	return ""
}

// exit waits for the end and returns the exit code. Nothing that the program started may be left.
func (p *program) exit() int {
	p.t.Helper()
	for range p.lines { // Wait must not come before the end of stdout
	}
	_ = p.Wait()
	// A process that was killed is on its way out for a moment; one that was forgotten stays.
	left := running(p.t, filepath.Dir(provisionBinary))
	for deadline := time.Now().Add(5 * time.Second); len(left) > 0 && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		left = running(p.t, filepath.Dir(provisionBinary))
	}
	for _, left := range left {
		p.t.Errorf("process %s is left", left)
	}
	return p.ProcessState.ExitCode()
}

func (p *program) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stdout.String()
}

// running are the processes whose program lies in dir, where the system says so.
func running(t *testing.T, dir string) (found []string) {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if binary, err := os.Readlink(link); err == nil && strings.HasPrefix(binary, dir) {
			found = append(found, link)
		}
	}
	return found
}

var token = regexp.MustCompile(`eyJ[\w-]{10,}`) // more than the start that the demo shows

func noSecrets(t *testing.T, what, text string) {
	t.Helper()
	if strings.Contains(text, "not-a-real-secret") {
		t.Errorf("%s has a client secret:\n%s", what, text)
	}
	noTokens(t, what, text)
}

func noTokens(t *testing.T, what, text string) {
	t.Helper()
	if token.MatchString(text) {
		t.Errorf("%s has an access token:\n%s", what, text)
	}
}

func TestDemo(t *testing.T) {
	// Whatever a developer has set, the demo leaves it alone.
	elsewhere := []string{
		"AZURE_AUTHORITY_HOST=http://127.0.0.1:1", "AWS_ENDPOINT_URL=http://127.0.0.1:1", "AWS_REGION=eu-west-1",
		"AWS_ENDPOINT_URL_SECRETS_MANAGER=http://127.0.0.1:1", "AWS_PROFILE=none-such", "SECRET_PREFIX=theirs",
		"AWS_MAX_ATTEMPTS=no number",
	}
	p := launch(t, elsewhere, "demo")
	if code := p.exit(); code != 0 {
		t.Fatalf("exit code %d:\n%s\n%s", code, p.output(), &p.stderr)
	}
	out := p.output()
	noSecrets(t, "the output", out)
	for line := range strings.Lines(out) {
		if columns := len([]rune(strings.TrimSuffix(line, "\n"))); columns > 100 {
			t.Errorf("a line has %d columns: %s", columns, line)
		}
	}
	for _, want := range []string{
		"POST /connections\n", "→ 201 Created\n", "PAN_SEC_MICROSOFT_ENTRA_ACCESS_TOKEN    eyJ0eXAiOiJK… (",
		"→ 422 Unprocessable Entity\n", "AADSTS7000222\n", "PUT /apps/default\n", "→ checked 2, due 2, refreshed 2, failed 0",
		"AADSTS7000112 refused\n", "everything went as it should",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
	if p.stderr.Len() > 0 {
		t.Errorf("the functions' log is mixed in: %s", &p.stderr)
	}
}

func TestDemoVerbose(t *testing.T) {
	p := launch(t, nil, "demo", "-v")
	if code := p.exit(); code != 0 || !strings.Contains(p.stderr.String(), `"message":"sweep done"`) {
		t.Fatalf("exit code %d, log:\n%s", code, &p.stderr)
	}
	noSecrets(t, "the log", p.stderr.String())
}

func TestDemoThatGoesWrong(t *testing.T) {
	// Each function in the other's place: the API answers, but with a sweep's report.
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), []string{"demo", "-provision", refreshBinary, "-refresh", provisionBinary}, &stdout, &stderr)
	want := "step 1 of the demo did not go as it should: POST /connections answered 200 OK, not 201: no reason given\n"
	if code != 1 || !strings.HasSuffix(stderr.String(), want) || !strings.Contains(stderr.String(), "What the functions logged:\n{") {
		t.Errorf("exit code %d, stderr:\n%s", code, &stderr)
	}
	noSecrets(t, "the output", stdout.String()+stderr.String())
}

// do sends a request to the API and returns the answer, decoded, with its status.
func do(t *testing.T, method, url, body string) (int, map[string]any) {
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
	answer := map[string]any{}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		t.Fatalf("%s %s answered %s: %v", method, url, res.Status, err)
	}
	return res.StatusCode, answer
}

const firstConnection = `{"tenant_id":"contoso.example","connection":"first","service":"microsoft-graph",` +
	`"client_id":"` + clientID + `","client_secret":"` + clientSecret + `"}`

func TestServe(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, ".local", "secrets.json")
	p := launch(t, nil, "serve", "-addr", "127.0.0.1:0", "-every", "1h", "-data", data)
	api := p.await(`^  API +(http://127\.0\.0\.1:\d+)$`)
	p.await(`sweep: checked 0, `)
	if status, answer := do(t, "POST", api+"/connections", firstConnection); status != 201 || answer["status"] != "ok" {
		t.Fatalf("provisioning answers %d %v", status, answer)
	}
	if err := p.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	p.await(`^\d\d:\d\d:\d\d  sweep: checked 1, due 1, refreshed 1, failed 0, waiting 0, deferred 0$`)
	// What Entra refuses, the functions warn of.
	if status, answer := do(t, "PUT", api+"/apps/old", `{"client_id":"`+expiredClientID+`","client_secret":"`+expiredClientSecret+`","service":"microsoft-graph"}`); status != 201 {
		t.Fatalf("storing an app answers %d %v", status, answer)
	}
	if status, answer := do(t, "POST", api+"/connections", `{"tenant_id":"contoso.example","app":"old"}`); status != 422 {
		t.Fatalf("provisioning with an expired secret answers %d %v", status, answer)
	}
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d after SIGTERM:\n%s\n%s", code, p.output(), &p.stderr)
	}
	if log := p.stderr.String(); !strings.Contains(log, `"level":"WARN"`) || strings.Contains(log, `"level":"INFO"`) {
		t.Errorf("want what the functions warn of, and no more:\n%s", log)
	}
	noSecrets(t, "the log", p.stderr.String())
	noTokens(t, "the output", p.output())
	for path, want := range map[string]os.FileMode{data: 0o600, filepath.Dir(data): 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want mode %o", path, info, err, want)
		}
	}

	// The next run has it all, and its Entra still knows the app.
	p = launch(t, nil, "serve", "-v", "-addr", "127.0.0.1:0", "-every", "1h", "-data", data)
	api = p.await(`^  API +(http://127\.0\.0\.1:\d+)$`)
	p.await(`sweep: checked 1, `)
	if status, answer := do(t, "POST", api+"/connections/default/first/refresh", ""); status != 200 || answer["status"] != "ok" {
		t.Errorf("refreshing what a former run stored answers %d %v", status, answer)
	}
	if err := p.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d after Ctrl-C:\n%s\n%s", code, p.output(), &p.stderr)
	}
	if log := p.stderr.String(); !strings.Contains(log, `"level":"INFO"`) {
		t.Errorf("-v shows no more:\n%s", log)
	}
}

func TestServeSweepsOnSchedule(t *testing.T) {
	p := launch(t, nil, "serve", "-addr", "127.0.0.1:0", "-every", "10ms")
	for range 3 {
		p.await(`sweep: checked 0, `)
	}
}

func TestServeScreen(t *testing.T) {
	p := launch(t, []string{"SECRET_PREFIX=team/entra"}, "serve", "-addr", "127.0.0.1:0")
	p.await("Ctrl-C")
	screen := p.output()
	for _, want := range []string{
		"For development only", "NOT A REAL SECRET", clientID, clientSecret, contosoID, fabrikamID,
		"(stand-in)", ".local/secrets.json", "every 5m0s", "--secret-id team/entra/connections/default/first",
	} {
		if !strings.Contains(screen, want) {
			t.Errorf("the screen lacks %q:\n%s", want, screen)
		}
	}
	if lines := strings.Count(screen, "\n"); lines > 36 {
		t.Errorf("the screen has %d lines", lines)
	}
	// The line to provision with is what it says: sh runs it, with a curl that only shows its arguments.
	provision, _, _ := strings.Cut(screen[strings.Index(screen, "  curl -s"):], "}'\n")
	shown, err := exec.Command("sh", "-c", `curl() { for a; do printf '%s\n' "$a"; done; }`+"\n"+provision+"}'").Output()
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(shown), "-d\n")
	api := regexp.MustCompile(`http://\S+`).FindString(string(shown))
	if status, answer := do(t, "POST", api, body); status != 201 {
		t.Errorf("the line to provision with answers %d %v:\n%s", status, answer, shown)
	}
}

func TestServeAgainstOtherServices(t *testing.T) {
	theirs := entratest.Start(t, entratest.Options{})
	fill(theirs, nil)
	secrets := secretstoretest.Start(t, secretstoretest.Options{Region: "eu-central-1"})
	for _, variable := range []string{"AWS_ENDPOINT_URL_SECRETS_MANAGER", "AWS_ENDPOINT_URL"} {
		p := launch(t, []string{
			"AZURE_AUTHORITY_HOST=" + theirs.URL(), variable + "=" + secrets.URL(),
			"AWS_REGION=eu-central-1", "AWS_ACCESS_KEY_ID=theirs", "AWS_SECRET_ACCESS_KEY=theirs", "SECRET_PREFIX=" + strings.ToLower(variable),
		}, "serve", "-addr", "127.0.0.1:0", "-data", "kept.json")
		api := p.await(`^  API +(http://127\.0\.0\.1:\d+)$`)
		p.await("Ctrl-C")
		if screen := p.output(); strings.Contains(screen, "stand-in") || strings.Contains(screen, "NOT A REAL SECRET") ||
			!strings.Contains(screen, theirs.URL()) || !strings.Contains(screen, secrets.URL()) {
			t.Errorf("the screen is\n%s", screen)
		}
		if status, answer := do(t, "POST", api+"/connections", firstConnection); status != 201 {
			t.Errorf("provisioning answers %d %v", status, answer)
		}
		if name := strings.ToLower(variable) + "/connections/default/first"; !slices.Contains(secrets.Names(), name) {
			t.Errorf("Secrets Manager has %v, not %s", secrets.Names(), name)
		}
		_ = p.Process.Signal(syscall.SIGTERM)
		if code := p.exit(); code != 0 {
			t.Errorf("exit code %d", code)
		}
		if _, err := os.Stat(filepath.Join(p.Dir, "kept.json")); err == nil {
			t.Error("a data file was written")
		}
	}
}

func TestServeShowsAFunctionThatDoesNotStart(t *testing.T) {
	p := launch(t, []string{"REFRESH_WINDOW=soon"}, "serve", "-addr", "127.0.0.1:0")
	p.await(`sweep: FAILED, Runtime\.ExitError: .*exit status 1`)
	_ = p.Process.Signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 || !strings.Contains(p.stderr.String(), "REFRESH_WINDOW") {
		t.Errorf("exit code %d, stderr:\n%s", code, &p.stderr)
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
	binaries := []string{"-provision", provisionBinary, "-refresh", refreshBinary}
	for name, c := range map[string]struct {
		args []string
		code int
		want string // the start of what it says
	}{
		"no command":       {nil, 2, "usage: "},
		"unknown command":  {[]string{"start"}, 2, "usage: "},
		"unknown flag":     {[]string{"demo", "-addr", "127.0.0.1:1"}, 2, "flag provided but not defined: -addr\n"},
		"argument":         {slices.Concat([]string{"serve"}, binaries, []string{"now"}), 2, `local serve takes flags only, not "now".` + "\n"},
		"help":             {[]string{"serve", "-h"}, 0, "Usage of local serve:"},
		"missing binaries": {[]string{"demo"}, 1, "build/provision/bootstrap is missing: run `make build` first.\n"},
		"address in use":   {slices.Concat([]string{"serve", "-addr", taken.Addr().String()}, binaries), 1, taken.Addr().String() + " is in use: "},
		"open address":     {slices.Concat([]string{"serve", "-addr", "0.0.0.0:0"}, binaries), 1, "-addr 0.0.0.0:0 is not a loopback address"},
		"address, no host": {slices.Concat([]string{"serve", "-addr", ":3000"}, binaries), 1, "-addr :3000 is not a loopback address"},
		"no time at all":   {slices.Concat([]string{"serve", "-every", "0s"}, binaries), 1, "-every must be above zero\n"},
		"broken data": {slices.Concat([]string{"serve", "-addr", "127.0.0.1:0", "-data", broken}, binaries), 1,
			"starting the stand-in Secrets Manager: "},
	} {
		t.Run(name, func(t *testing.T) {
			var stderr bytes.Buffer
			if code := run(t.Context(), c.args, io.Discard, &stderr); code != c.code || !strings.HasPrefix(stderr.String(), c.want) {
				t.Errorf("exit code %d, stderr:\n%s", code, &stderr)
			}
		})
	}
}

func TestStopBeforeTheFirstSweepIsDone(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	var stdout, stderr bytes.Buffer
	args := []string{"serve", "-addr", "127.0.0.1:0", "-data", filepath.Join(t.TempDir(), "secrets.json"),
		"-provision", provisionBinary, "-refresh", refreshBinary}
	if code := run(ctx, args, &stdout, &stderr); code != 0 || strings.Contains(stdout.String(), "sweep:") || stderr.Len() > 0 {
		t.Errorf("exit code %d\n%s\n%s", code, &stdout, &stderr)
	}
}

func TestStopLeavesNoProcess(t *testing.T) {
	if _, err := os.Stat("/proc/self/exe"); err != nil {
		t.Skip("this system does not list its processes in /proc")
	}
	ctx, stop := context.WithCancel(t.Context())
	var stdout, stderr bytes.Buffer
	seen := writerFunc(func(p []byte) {
		if stdout.Write(p); bytes.Contains(p, []byte("sweep: checked 0")) {
			if len(running(t, filepath.Dir(provisionBinary))) != 1 {
				t.Error("the refresh function does not run")
			}
			stop()
		}
	})
	args := []string{"serve", "-addr", "127.0.0.1:0", "-data", filepath.Join(t.TempDir(), "secrets.json"),
		"-provision", provisionBinary, "-refresh", refreshBinary}
	if code := run(ctx, args, seen, &stderr); code != 0 || stderr.Len() > 0 {
		t.Errorf("exit code %d\n%s\n%s", code, &stdout, &stderr)
	}
	if left := running(t, filepath.Dir(provisionBinary)); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}

func TestSummary(t *testing.T) {
	report := connector.SweepReport{Checked: 9, Due: 7, Failed: 7, Incomplete: true}
	for i := range 7 {
		report.Failures = append(report.Failures, connector.SweepFailure{Connection: fmt.Sprintf("a/%d", i), Code: "AADSTS7000222", Status: connector.StatusRefused})
	}
	want := "checked 9, due 7, refreshed 0, failed 7, waiting 0, deferred 0, incomplete; a/0 AADSTS7000222 refused; " +
		"a/1 AADSTS7000222 refused; a/2 AADSTS7000222 refused; a/3 AADSTS7000222 refused; a/4 AADSTS7000222 refused; and 2 more"
	if got := summary(report); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestProblems(t *testing.T) {
	var out bytes.Buffer
	for _, line := range []string{
		`{"level":"DEBUG"}`, `{"level":"INFO"}`, `{"level":"WARN"}`, `{"level":"ERROR"}`, `{"other":1}`, `panic: no`, ``,
	} {
		if n, err := (problems{&out}).Write([]byte(line + "\n")); n != len(line)+1 || err != nil {
			t.Errorf("%s: %d, %v", line, n, err)
		}
	}
	if want := "{\"level\":\"WARN\"}\n{\"level\":\"ERROR\"}\n{\"other\":1}\npanic: no\n\n"; out.String() != want {
		t.Errorf("passed on:\n%s", &out)
	}
}

func TestWrap(t *testing.T) {
	for text, want := range map[string][]string{
		"":                      nil,
		"one":                   {"one"},
		"one two three":         {"one two", "three"},
		"incomprehensible a b ": {"incomprehensible", "a b"},
	} {
		if got := wrap(text, 7); !slices.Equal(got, want) {
			t.Errorf("%q: got %q", text, got)
		}
	}
}
