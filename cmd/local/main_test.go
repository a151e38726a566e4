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
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"entra-connector/internal/connector"
	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/stack/stacktest"
	"entra-connector/pkg/entra/entratest"
)

func TestMain(m *testing.M) {
	for _, name := range append(passedOn, "AZURE_AUTHORITY_HOST", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SECRETS_MANAGER") {
		os.Unsetenv(name)
	}
	stacktest.Main(m)
}

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
	for name, value := range env {
		t.Setenv(name, value)
	}
	if len(args) > 0 {
		args = slices.Insert(args, 1, "-provision", stacktest.ProvisionBinary, "-refresh", stacktest.RefreshBinary)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute) // what hangs fails
	stdout, w := io.Pipe()
	p := &program{t: t, stdout: bufio.NewScanner(stdout), stop: stop, code: make(chan int, 1)}
	go func() {
		defer close(p.code)
		p.code <- run(ctx, args, w, &p.stderr)
		w.Close()
	}()
	t.Cleanup(func() {
		stop()
		for p.scan() {
		}
		<-p.code
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

// await reads on to a line that matches.
func (p *program) await(pattern string) {
	p.t.Helper()
	for p.scan() {
		if regexp.MustCompile(pattern).MatchString(p.stdout.Text()) {
			return
		}
	}
	p.t.Fatalf("no line matches %s in:\n%s\n%s", pattern, &p.seen, &p.stderr)
}

// exit sends a signal, unless it is 0, and wants the program to end with the code.
func (p *program) exit(signal syscall.Signal, want int) {
	p.t.Helper()
	if err := syscall.Kill(os.Getpid(), signal); err != nil {
		p.t.Fatal(err)
	}
	for p.scan() {
	}
	if code := <-p.code; code != want {
		p.t.Errorf("exit code %d, want %d:\n%s\n%s", code, want, &p.seen, &p.stderr)
	}
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
	p := launch(t, map[string]string{"AZURE_AUTHORITY_HOST": "http://127.0.0.1:1", "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
		"AWS_ENDPOINT_URL_SECRETS_MANAGER": "http://127.0.0.1:1", "AWS_PROFILE": "none-such", "AWS_MAX_ATTEMPTS": "no number",
		"AWS_REGION": "eu-west-1", "SECRET_PREFIX": "theirs"}, "demo")
	if p.exit(0, 0); p.said() != "" {
		t.Errorf("it says %s", p.said())
	}
	noSecrets(t, p.seen.String())
	narrow(t, p.seen.String())
	has(t, p.seen.String(), "POST /connections\n", "→ 201 Created\n", "PAN_SEC_MICROSOFT_ENTRA_ACCESS_TOKEN    eyJ0eXAiOiJK… (",
		"→ 422 Unprocessable Entity\n", "AADSTS7000222\n", "PUT /apps/default\n", "→ checked 2, due 2, refreshed 2, failed 0",
		"AADSTS7000112 refused\n", "everything went as it should")
	for _, url := range regexp.MustCompile(`http://\S+`).FindAllString(p.seen.String(), 3) {
		if _, err := http.Get(url); err == nil {
			t.Errorf("%s still answers", url)
		}
	}

	p = launch(t, nil, "demo", "-v")
	p.exit(0, 0)
	has(t, p.said(), `"message":"sweep done"`)
	noSecrets(t, p.said())
}

func TestDemoThatGoesWrong(t *testing.T) {
	// Each function is in the other's place: the API answers, but with a sweep's report.
	p := launch(t, nil, "demo", "-provision", stacktest.RefreshBinary, "-refresh", stacktest.ProvisionBinary)
	if p.exit(0, 1); strings.Contains(p.seen.String(), "2  Read") || strings.Contains(p.seen.String(), "as it should") {
		t.Errorf("it went on:\n%s", &p.seen)
	}
	has(t, p.said(), "step 1 of the demo did not go as it should: POST /connections answered 500 Internal Server Error, not 201:",
		"What the functions logged: {")
	noSecrets(t, p.seen.String()+p.said())
}

// post sends a request to the API, and wants the answer to have the HTTP status and the "status".
func post(t *testing.T, url, body, want string) {
	t.Helper()
	res, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var answer struct{ Status any }
	_ = json.NewDecoder(res.Body).Decode(&answer)
	if got := fmt.Sprint(res.StatusCode, " ", answer.Status); got != want {
		t.Errorf("POST %s of %s answers %s, want %s", url, body, got, want)
	}
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
	post(t, api+"/connections", firstConnection, "201 ok")
	kept, err := os.ReadFile(filepath.Join(filepath.Dir(data), "certificate.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pem, _ := json.Marshal(string(kept))
	post(t, api+"/connections", fmt.Sprintf(`{"app":"signed","connection":"first","tenant_id":"contoso.example",`+
		`"service":"microsoft-graph","client_id":"%s","certificate":%s}`, clientID, pem), "201 ok")
	if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	p.await(`^\d\d:\d\d:\d\d  sweep: checked 2, due 2, refreshed 2, failed 0, waiting 0, deferred 0$`)
	// The functions warn of what Entra refuses.
	expired := strings.NewReplacer(clientID, expiredClientID, clientSecret, expiredClientSecret).Replace(firstConnection)
	post(t, api+"/connections", strings.Replace(expired, "{", `{"app":"old",`, 1), "422 422")
	second := launch(t, nil, "serve", "-addr", "127.0.0.1:0", "-data", data)
	second.exit(0, 1)
	has(t, second.said(), "another make local uses "+data, "DATA=.local/other.json")
	p.exit(syscall.SIGTERM, 0)
	if !strings.Contains(p.said(), `"level":"WARN"`) || strings.Contains(p.said(), `"level":"INFO"`) {
		t.Errorf("want what the functions warn of, and no more:\n%s", p.said())
	}
	noSecrets(t, strings.ReplaceAll(p.seen.String(), "not-a-real-secret", "")+p.said())
	if info, err := os.Stat(filepath.Dir(data)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory of the data: %v, %v, want mode 700", info, err)
	}

	// Its addresses are free again. The next run has all the data, and its Entra knows the app.
	p = launch(t, nil, "serve", "-v", "-addr", at(0), "-every", "1h", "-data", data)
	p.await(`^  Entra +http://` + at(100) + ` \(stand-in\)$`)
	p.await(`sweep: checked 2, `)
	post(t, api+"/connections/default/first/refresh", "", "200 ok")
	post(t, api+"/connections/signed/first/refresh", "", "200 ok")
	p.exit(syscall.SIGINT, 0)
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
		".local/secrets.json", "every 100ms", "--secret-id team/entra/connections/default/first", taken.Addr().String()+" is taken)")
	if lines := strings.Count(screen, "\n"); lines > 42 {
		t.Errorf("the screen has %d lines", lines)
	}
	// The command to provision with works: sh runs it, with a curl that only shows its arguments.
	provision, _, _ := strings.Cut(screen[strings.Index(screen, "  curl -s"):], "}'\n")
	shown, err := exec.Command("sh", "-c", `curl() { for a; do printf '%s\n' "$a"; done; }`+"\n"+provision+"}'").Output()
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(shown), "-d\n")
	post(t, regexp.MustCompile(`http://\S+`).FindString(string(shown)), body, "201 ok")
	// So does the one with the certificate, with jq's part in its place.
	pem, err := os.ReadFile(regexp.MustCompile(`--rawfile pem (\S+)`).FindStringSubmatch(screen)[1])
	if err != nil {
		t.Fatal(err)
	}
	filter := regexp.MustCompile(`(?s)--rawfile pem \S+ '(.+?)'`).FindStringSubmatch(screen)[1]
	quoted, _ := json.Marshal(string(pem))
	post(t, "http://"+at(1)+"/connections", strings.Replace(filter, "$pem", string(quoted), 1), "201 ok")
	for range 3 {
		p.await(`sweep: checked [0-2], `)
	}
}

func TestServeAgainstOtherServices(t *testing.T) {
	theirs := entratest.Start(t, entratest.Options{})
	fill(theirs, nil, "")
	secrets := secretstoretest.Start(t, secretstoretest.Options{Region: "eu-central-1"})
	for _, variable := range []string{"AWS_ENDPOINT_URL_SECRETS_MANAGER", "AWS_ENDPOINT_URL"} {
		t.Run(variable, func(t *testing.T) {
			p := launch(t, map[string]string{
				"AZURE_AUTHORITY_HOST": theirs.URL(), variable: secrets.URL(), "SECRET_PREFIX": strings.ToLower(variable),
				"AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "theirs", "AWS_SECRET_ACCESS_KEY": "theirs",
			}, "serve", "-addr", at(2))
			p.await("Ctrl-C")
			has(t, p.seen.String(), theirs.URL(), secrets.URL())
			if strings.Contains(p.seen.String(), "stand-in") || strings.Contains(p.seen.String(), "NOT A REAL SECRET") {
				t.Errorf("the screen is\n%s", &p.seen)
			}
			post(t, "http://"+at(2)+"/connections", firstConnection, "201 ok")
			if name := strings.ToLower(variable) + "/connections/default/first"; !slices.Contains(secrets.Names(), name) {
				t.Errorf("Secrets Manager has %v", secrets.Names())
			}
			if _, err := os.Stat(".local"); err == nil {
				t.Error("data were kept in a file")
			}
		})
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
		"no command":      {nil, 2, "usage: "},
		"unknown command": {[]string{"start"}, 2, "usage: "},
		"argument":        {[]string{"serve", "now"}, 2, `local serve takes flags only, not "now".`},
		"unknown flag":    {[]string{"demo", "-x"}, 2, "flag provided but not defined: -x "},
		"help":            {[]string{"serve", "-h"}, 0, "Usage of local serve:"},
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
		if p.exit(0, c.code); !strings.HasPrefix(p.said(), c.want) {
			t.Errorf("%s: it says %s", name, p.said())
		}
	}
	// Stopped before it has swept, it says nothing of a sweep and reports no error.
	p := launch(t, map[string]string{"REFRESH_WINDOW": ""}, "serve", "-addr", "127.0.0.1:0")
	p.stop()
	if p.exit(0, 0); strings.Contains(p.seen.String(), "sweep:") || p.said() != "" {
		t.Errorf("it says %s\n%s", p.said(), &p.seen)
	}
}

func TestSummary(t *testing.T) {
	failures := slices.Repeat([]connector.SweepFailure{{Connection: "a/b", Code: "AADSTS7000222", Status: connector.StatusRefused}}, 7)
	got := summary(connector.SweepReport{Checked: 9, Due: 7, Failed: 7, Incomplete: true, Failures: failures})
	want := "checked 9, due 7, refreshed 0, failed 7, waiting 0, deferred 0, incomplete" +
		strings.Repeat("; a/b AADSTS7000222 refused", 5) + "; and 2 more"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
