package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/stack"
	"entra-connector/internal/stack/stacktest"
)

func TestExec(t *testing.T) {
	var denied atomic.Bool
	connector, c := start(t, stack.Options{Secrets: secretstoretest.Options{Authorize: func(_, action, _ string) bool {
		return !denied.Load() || action != "secretsmanager:GetSecretValue"
	}}})
	c.putApp()
	c.run("", "connect", "contoso.com", "--name", "contoso").want(0)
	const name = "entra/connections/default/contoso"
	stored, _ := connector.Secrets.Value(name)
	var six map[string]string
	if err := json.Unmarshal([]byte(stored), &six); err != nil {
		t.Fatal(err)
	}
	// What was set before gives way.
	c.env = append(c.env, "PAN_SEC_MICROSOFT_ENTRA_TENANT_ID=old", "MINE=kept")
	got := c.run("in", "exec", "default/contoso", "--", "sh", "-c", `env; cat; exit 7`).want(7, "MINE=kept\n")
	for name, value := range six {
		if !strings.Contains(got.out, name+"="+value+"\n") {
			t.Errorf("the program does not get %s", name)
		}
	}
	if n := strings.Count(got.out, "PAN_SEC_"); n != 6 || !strings.HasSuffix(got.out, "in") {
		t.Errorf("the program gets %d of the values, and prints %.20s…", n, got.out[len(got.out)-20:])
	}
	if raw := c.run("", "exec", "default/contoso", "--", "env").want(0); strings.Count(raw.out, "ENTRA_TENANT_ID=") != 1 {
		t.Errorf("the program gets two of a variable:\n%s", regexp.MustCompile(`.*TENANT_ID.*`).FindAllString(raw.out, -1))
	}
	c.run("", "exec", "default/contoso", "--prefix", "other", "--", "true").want(3, "no secret other/connections/default/contoso", "--prefix")
	c.run("", "exec", "default/nobody", "--", "true").want(3, "no secret entra/connections/default/nobody", "AWS_REGION")
	c.run("", "exec", "default/contoso", "--", "no-such-program").want(127, "no-such-program")
	c.write("script", "#!/nowhere/interpreter")
	if err := os.Chmod(filepath.Join(c.dir, "script"), 0o700); err != nil {
		t.Fatal(err)
	}
	c.run("", "exec", "default/contoso", "--", "./script").want(126, "cannot be run")

	env := c.env
	c.env = append(env, "AWS_ENDPOINT_URL_SECRETS_MANAGER=")
	c.run("", "exec", "default/contoso", "--", "true").want(1, "no AWS credentials")
	c.env = append(c.env, "AWS_ACCESS_KEY_ID=AKID", "AWS_SECRET_ACCESS_KEY=c4nary")
	c.run("", "exec", "default/contoso", "--", "true").want(1, "set AWS_REGION")
	c.env = env

	denied.Store(true)
	c.run("", "exec", "default/contoso", "--", "true").want(3, "not permitted (AccessDeniedException)", "IntegrationPolicyArn")
	denied.Store(false)
	set := func(key, value string) {
		changed := make(map[string]string)
		for name := range six {
			changed[name] = six[name]
		}
		changed["PAN_SEC_MICROSOFT_ENTRA_"+key] = value
		b, _ := json.Marshal(changed)
		connector.Secrets.Put(name, string(b), "")
	}
	set("EXPIRES_AT", fmt.Sprint(time.Now().Add(-time.Second).Unix()))
	c.run("", "exec", "default/contoso", "--", "true").want(1, "token of default/contoso expired", "connector is behind")
	for key, value := range map[string]string{"EXPIRES_AT": "soon", "ACCESS_TOKEN": "", "SEVENTH": "x", "TENANT_ID": "a\x00b"} {
		set(key, value)
		c.run("", "exec", "default/contoso", "--", "true").want(1, "does not hold the six values")
	}
	connector.Secrets.Put(name, `no JSON c4nary`, "")
	if got := c.run("", "exec", "default/contoso", "--", "true").want(1, "does not hold the six values"); strings.Contains(got.err, "c4nary") {
		t.Errorf("the error quotes the secret: %s", got.err)
	}
	connector.Secrets.Fail(secretstoretest.Fault{Op: "GetSecretValue", Error: "InternalServiceError"})
	c.env = append(c.env, "AWS_MAX_ATTEMPTS=1")
	c.run("", "exec", "default/contoso", "--", "true").want(4, "try again")
}

func TestExecBecomesTheProgram(t *testing.T) {
	connector, c := start(t, stack.Options{})
	c.putApp()
	c.run("", "connect", "contoso.com", "--name", "contoso").want(0)
	cmd := c.prepare("exec", "default/contoso", "--", "sh", "-c", `trap 'exit 9' TERM; echo $$; while :; do sleep 0.01; done`)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	pid := 0
	if _, err := fmt.Fscanln(out, &pid); err != nil || pid != cmd.Process.Pid {
		t.Errorf("the program is process %d, not %d: %v", pid, cmd.Process.Pid, err)
	}
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, line := range lines {
		if b, _ := os.ReadFile(line); strings.Contains(string(b), connector.LastToken()) || strings.Contains(string(b), stacktest.Secret) {
			t.Errorf("a secret is on a command line: %.40q…", b)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // its error is the exit code
	if code := cmd.ProcessState.ExitCode(); code != 9 {
		t.Errorf("the program ends with %d", code)
	}
}
