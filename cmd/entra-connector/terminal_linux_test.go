package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// session is the command on a terminal of its own.
type session struct {
	c        *command
	args     []string
	master   *os.File
	terminal *os.File
	done     chan int // the exit code

	mu     sync.Mutex
	screen bytes.Buffer
}

func (c *command) onTerminal(columns, rows int, args ...string) *session {
	c.t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { master.Close() })
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(rows), Col: uint16(columns)})
	}
	if err != nil {
		c.t.Fatal(err)
	}
	terminal, err := os.OpenFile(fmt.Sprint("/dev/pts/", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { terminal.Close() })
	s := &session{c: c, args: args, master: master, terminal: terminal, done: make(chan int, 1)}
	cmd := c.prepare(args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.screen.Write(b[:n])
			s.mu.Unlock()
		}
	}()
	go func() {
		_ = cmd.Wait() // its error is the exit code
		s.done <- cmd.ProcessState.ExitCode()
	}()
	return s
}

func (s *session) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.ReplaceAll(s.screen.String(), "\r\n", "\n")
}

// await waits until the text is on the screen, and takes away what was there until then.
func (s *session) await(text string) {
	s.c.t.Helper()
	for range 3000 {
		s.mu.Lock()
		i := bytes.Index(s.screen.Bytes(), []byte(text))
		if i >= 0 {
			s.screen.Next(i + len(text))
		}
		s.mu.Unlock()
		if i >= 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.c.t.Fatalf("%v does not show %q but\n%s", s.args, text, s.text())
}

func (s *session) press(keys string) {
	s.c.t.Helper()
	if _, err := s.master.WriteString(keys); err != nil {
		s.c.t.Fatal(err)
	}
}

// end waits for the end of the command, and then for all that it wrote.
func (s *session) end(code int) string {
	s.c.t.Helper()
	if got := <-s.done; got != code {
		s.c.t.Errorf("%v ends with %d, want %d:\n%s", s.args, got, code, s.text())
	}
	fmt.Fprint(s.terminal, "THE-END")
	for range 3000 {
		if before, _, found := strings.Cut(s.text(), "THE-END"); found {
			return s.c.ran(s.args, code, before, "").out
		}
		time.Sleep(time.Millisecond)
	}
	s.c.t.Fatal("the terminal shows nothing any more")
	return ""
}

const (
	guid  = "01234567-89ab-4cde-8f01-23456789abcd"
	guid2 = "fedcba98-7654-4321-8765-ba9876543210"
)

// troubled answers with connections in every state.
func troubled(w http.ResponseWriter, r *http.Request) {
	in := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339) }
	refused := func(code, action, consent string) string {
		return fmt.Sprintf(`"status":"refused","error":{"code":%q,"title":"It was refused","action":%q,"consent_url":%q}`, code, action, consent)
	}
	connection := func(app, name, state, more string) string {
		return fmt.Sprintf(`{"app":%q,"connection":%q,"tenant_id":%q,"scope":"https://graph.microsoft.com/.default",%s%s}`, app, name, guid2, state, more)
	}
	expires := func(d time.Duration) string { return fmt.Sprintf(`,"expires_at":%q`, in(d)) }
	long := "Create a new client secret under App registrations, and replace the stored credential with PUT /apps/{app}."
	all := []string{
		connection("default", guid, `"status":"ok"`, expires(30*time.Minute)),
		connection("default", "short", `"status":"retrying","error":{"code":"unavailable","title":"Entra is away","action":"Nothing."}`, expires(12*time.Minute+30*time.Second)),
		connection("default", "gone", refused("AADSTS1", long, ""), expires(-time.Minute)),
		connection("legacy", strings.Repeat("long-name.", 6)+"1234", refused("AADSTS2", "Send the page.", "https://login.example/one"), ""),
		connection("legacy", "other", refused("AADSTS2", "Send the page.", "https://login.example/two"), ""),
		connection("default", "warned", `"status":"ok","warnings":[{"code":"no_roles","title":"No roles","action":"Grant some."}]`, expires(time.Hour)),
		connection("legacy", "third", refused("AADSTS1", long, ""), ""),
		connection("default", "asked", `"status":"invited"`, ""),
	}
	switch r.URL.Path {
	case "/apps":
		fmt.Fprintf(w, `{"apps":[{"app":"default","client_id":%q,"credential":"client_secret","expires_at":%q},{"app":"later","client_id":%[1]q,"credential":"certificate","expires_at":%[3]q},
			{"app":"legacy","client_id":%[1]q,"credential":"client_secret"}]}`, guid, in(7*24*time.Hour+time.Minute), in(40*24*time.Hour))
	case "/connections":
		fmt.Fprintf(w, `{"connections":[%s]}`, strings.Join(all, ","))
	default:
		fmt.Fprint(w, all[2])
	}
}

func TestStatus(t *testing.T) {
	_, c := record(t, troubled)
	c.run("", "status").want(0, "8 connections of 3 apps", "2  ok", "1  retrying", "4  refused", "1  invited",
		"The shortest life left is 12 min, of default/short.",
		"2 connections of app legacy: It was refused (AADSTS2)", "legacy/other https://login.example/two",
		"1 connection of app default: It was refused (AADSTS1)", "credential with entra-connector app put default.",
		"1 connection of app legacy: It was refused (AADSTS1)", "WARNINGS", "1 connection of app default: No roles (no_roles)", "Grant some.", "EXPIRES WITHIN 30 DAYS", "7 days")
	o := decode[overview](c.run("", "status", "-o", "json"))
	if len(o.NeedsPerson) != 3 || len(o.Warnings) != 1 || o.NeedsPerson[0].ConsentURLs["legacy/other"] != "https://login.example/two" || len(o.NeedsPerson[0].Connections) != 2 ||
		!strings.Contains(o.NeedsPerson[1].Action, "PUT /apps/{app}") || len(o.Expiring) != 1 || o.Shortest.Name != "short" {
		t.Errorf("status is %+v", o)
	}
}

func TestTerminal(t *testing.T) {
	_, c := record(t, troubled)
	escape := regexp.MustCompile(`\x1b\[[0-9;]*[mK]|\r`)
	for _, columns := range []int{80, 120, 160} {
		for _, args := range []string{"status", "list", "app list", "show default/gone"} {
			drawn := c.onTerminal(columns, 100, strings.Fields(args)...).end(0)
			if !strings.Contains(drawn, "\x1b[") && !strings.HasPrefix(args, "show") {
				t.Errorf("%s has no colour", args)
			}
			shown := escape.ReplaceAllString(drawn, "")
			for line := range strings.Lines(shown) {
				line = strings.TrimRight(line, "\n")
				if utf8.RuneCountInString(line) > columns && strings.Contains(strings.TrimSpace(line), " ") {
					t.Errorf("at %d columns, %s has a line of %d:\n%s", columns, args, utf8.RuneCountInString(line), line)
				}
			}
			if !strings.Contains(shown, guid) && args != "show default/gone" && args != "status" {
				t.Errorf("at %d columns, %s has a broken GUID:\n%s", columns, args, shown)
			}
			if args == "list" && strings.Contains(shown, guid2) != (columns == 160) {
				t.Errorf("at %d columns the tenants are shown or not:\n%s", columns, shown)
			}
		}
	}
	env := c.env
	for _, variable := range []string{"NO_COLOR=1", "TERM=dumb"} {
		c.env = append(env, variable)
		if drawn := c.onTerminal(80, 100, "list").end(0); regexp.MustCompile(`\x1b\[[0-9;]*m`).MatchString(drawn) {
			t.Errorf("with %s the list has colours", variable)
		} else if variable == "TERM=dumb" && strings.Contains(drawn, "\x1b") {
			t.Errorf("a dumb terminal is told %q", drawn)
		}
	}
	c.env = env
	if drawn := c.run("", "list"); strings.Contains(drawn.out+drawn.err, "\x1b") {
		t.Errorf("what is no terminal is told %q", drawn.out+drawn.err)
	}
}

func TestWatch(t *testing.T) {
	var down atomic.Bool
	held := make(chan struct{})
	defer close(held)
	_, c := record(t, func(w http.ResponseWriter, r *http.Request) {
		if down.Load() {
			fail(w, 503, "1")
			return
		}
		select {
		case held <- struct{}{}:
			<-r.Context().Done()
		default:
			troubled(w, r)
		}
	})
	s := c.onTerminal(80, 12, "status", "--watch", "--every", "1s")
	s.await("\x1b[H")
	s.await("12 min")
	s.await("make the window taller")
	s.await("\x1b[H") // painted again
	down.Store(true)
	s.await("It failed.")
	down.Store(false)
	s.await("\x1b[H\x1b[1m8 connections")
	<-held // it looks again
	s.press("\x03")
	if shown := s.end(0); strings.Contains(shown, "canceled") {
		t.Errorf("Ctrl-C shows %s", shown)
	}
}

func TestSecretIsAskedFor(t *testing.T) {
	r, c := record(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"client_id":"i"}`) })
	s := c.onTerminal(80, 24, "app", "put", "a")
	s.await("Client secret of app a: ")
	s.press("c4nary typed\r")
	s.end(0)
	if got := r.taken(); got != `GET /apps/a|PUT /apps/a {"client_id":"i","client_secret":"c4nary typed"}` {
		t.Errorf("what is sent is %s", got)
	}
	s = c.onTerminal(80, 24, "app", "put", "a")
	s.await("Client secret of app a: ")
	s.press("c4n\x03")
	s.end(1)
	if state, err := unix.IoctlGetTermios(int(s.terminal.Fd()), unix.TCGETS); err != nil || state.Lflag&unix.ECHO == 0 {
		t.Errorf("the terminal stays mute: %v", err)
	}
}

func TestDeletionIsAskedFor(t *testing.T) {
	r, c := record(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) })
	for _, test := range []struct {
		keys string
		code int
		sent string
	}{{"\r", 1, ""}, {"n\r", 1, ""}, {"\x03", 1, ""}, {"yes\r", 0, "DELETE /connections/a/b|DELETE /connections/a/c"}} {
		s := c.onTerminal(80, 24, "delete", "a/b", "a/c")
		s.await("Delete a/b, a/c?")
		s.await("[y/N] ")
		s.press(test.keys)
		s.end(test.code)
		if got := r.taken(); got != test.sent {
			t.Errorf("after %q what is sent is %s", test.keys, got)
		}
	}
}

func TestImportIsInterruptedAndGoesOn(t *testing.T) {
	arrived, release := make(chan string, 100), make(chan struct{})
	c := importAPI(t, 40, func(w http.ResponseWriter, tenant string, _ int) {
		arrived <- tenant
		<-release
		w.WriteHeader(201)
	})
	s := c.onTerminal(100, 24, "import", "a.csv", "--parallel", "5", "--rate", "0")
	underWay := make(map[string]bool)
	for range 5 {
		underWay[<-arrived] = true
	}
	s.await("0 of 40 rows: 0 connected, 0 failed; ")
	s.press("\x03")
	s.await("stopping, once what is under way is answered")
	close(release)
	if shown := s.end(1); !strings.Contains(shown, "5 connected, 0 known, 0 failed, 35 not tried") {
		t.Errorf("it shows %s", shown)
	}
	for line, r := range c.results("a.results.csv") {
		if (r["outcome"] == "connected") != underWay[r["tenant_id"]] {
			t.Errorf("line %d, tenant %s, is %s", line, r["tenant_id"], r["outcome"])
		}
	}
	c.run("", "import", "a.csv", "--rate", "0").want(0, "40 connected")
	close(arrived)
	for tenant := range arrived {
		if underWay[tenant] {
			t.Errorf("%s was sent again", tenant)
		}
	}
}
