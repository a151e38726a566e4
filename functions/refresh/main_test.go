package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/stack"
	. "entra-connector/internal/stack/stacktest"
	"entra-connector/pkg/entra/entratest"
)

func TestMain(m *testing.M) { Main(m) }

// sweep runs the refresh function and returns its answer as it is.
func sweep(t *testing.T, c *Connector, event string) string {
	t.Helper()
	result := c.Invoke(c.Refresh, event)
	if result.FunctionError != "" {
		t.Fatalf("the invocation fails: %s", result.Payload)
	}
	return string(result.Payload)
}

// provision makes the connections default/a of TenantA and default/b of TenantB.
func provision(t *testing.T, c *Connector) {
	t.Helper()
	c.Call("POST", "/connections", Body("connection", "a")).Want(t, 201)
	c.Call("POST", "/connections", Body("connection", "b", "tenant_id", TenantB)).Want(t, 201)
}

// age makes a connection's token expire that long from now, and have been asked
// for an hour before.
func age(t *testing.T, c *Connector, name string, left time.Duration) {
	t.Helper()
	c.Secrets.Edit("entra/connections/"+name, func(x *secretstoretest.Secret) {
		var state map[string]any
		if err := json.Unmarshal([]byte(x.Description), &state); err != nil {
			t.Error(err)
		}
		expires := time.Now().Add(left).UTC().Truncate(time.Second)
		state["expires_at"], state["refreshed_at"], state["lifetime"] = expires, expires.Add(-time.Hour), 3600
		aged, _ := json.Marshal(state)
		x.Description = string(aged)
	})
}

func TestScheduledSweep(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	const nothing = `{"checked":0,"due":0,"refreshed":0,"failed":0,"waiting":0,"deferred":0,"failures":[]}`
	// Whatever the event, unless it has the fields that ask for something.
	for _, event := range []string{`{}`, `null`, `[]`, `"x"`, `7`, `{"force":false}`, `{"Force":true}`,
		`{"version":"0","source":"aws.scheduler","detail-type":"Scheduled Event","resources":["arn:aws:scheduler:::x"],"detail":"{}"}`} {
		if got := sweep(t, c, event); got != nothing {
			t.Errorf("%s: %s", event, got)
		}
	}

	provision(t, c)
	old := c.Token("default/b")
	age(t, c, "default/a", 29*time.Minute)
	c.Secrets.ResetCalls()
	if got, want := sweep(t, c, `{}`), `{"checked":2,"due":1,"refreshed":1,"failed":0,"waiting":0,"deferred":0,"failures":[]}`; got != want {
		t.Errorf("one is due:\n got %s\nwant %s", got, want)
	}
	var calls []string
	for _, call := range c.Secrets.Calls() {
		calls = append(calls, call.Op+" "+call.Secret)
	}
	if want := []string{"ListSecrets ", "GetSecretValue entra/apps/default", "UpdateSecret entra/connections/default/a"}; !slices.Equal(calls, want) {
		t.Errorf("calls %q, want %q", calls, want)
	}
	if c.Token("default/a") != c.LastToken() || c.Token("default/b") != old {
		t.Error("not exactly the due connection has a new token")
	}
	for _, word := range []string{"access_token", "client_secret", "ACCESS_TOKEN"} {
		if strings.Contains(c.Output(), word) {
			t.Errorf("the log speaks of %s", word)
		}
	}
}

func TestSweepOnDemand(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	provision(t, c)
	for event, want := range map[string]string{
		`{"connections":["default/a"]}`:                            `{"checked":1,"due":0,"refreshed":0,"failed":0,"waiting":0,"deferred":0,"failures":[]}`,
		`{"connections":["default/a"],"force":true}`:               `{"checked":1,"due":1,"refreshed":1,"failed":0,"waiting":0,"deferred":0,"failures":[]}`,
		`{"connections":["default/a","default/a"],"force":true}`:   `{"checked":1,"due":1,"refreshed":1,"failed":0,"waiting":0,"deferred":0,"failures":[]}`,
		`{"connections":[],"force":true}`:                          `{"checked":0,"due":0,"refreshed":0,"failed":0,"waiting":0,"deferred":0,"failures":[]}`,
		`{"force":true}`:                                           `{"checked":2,"due":2,"refreshed":2,"failed":0,"waiting":0,"deferred":0,"failures":[]}`,
		`{"connections":["default/none","default/b"]}`:             `{"checked":2,"due":1,"refreshed":0,"failed":1,"waiting":0,"deferred":0,"failures":[{"connection":"default/none","code":"connection_not_found","status":"refused"}]}`,
		`{"connections":["default/b"],"force":true,"source":"me"}`: `{"checked":1,"due":1,"refreshed":1,"failed":0,"waiting":0,"deferred":0,"failures":[]}`,
	} {
		if got := sweep(t, c, event); got != want {
			t.Errorf("%s:\n got %s\nwant %s", event, got, want)
		}
	}
	for event, says := range map[string]string{
		`{"force":"true"}`:                        "force",
		`{"force":1}`:                             "force",
		`{"connections":"default/a"}`:             "connections",
		`{"connections":[1]}`:                     "connections",
		`{"connections":null,"force":true}`:       "connections",
		`{"connections":["default/a","a"]}`:       "connections[1]",
		`{"connections":["../apps/default"]}`:     "connections[0]",
		`{"connections":["default/a/b"]}`:         "connections[0]",
		`{"connections":{"default/a":true}}`:      "connections",
		`{"connections":["default/a "]}`:          "connections[0]",
		`{"connections":["default/c4nary-new/"]}`: "connections[0]",
	} {
		result := c.Invoke(c.Refresh, event)
		var problem struct{ ErrorMessage, ErrorType string }
		json.Unmarshal(result.Payload, &problem)
		if result.FunctionError == "" || problem.ErrorType != "EventError" || !strings.Contains(problem.ErrorMessage, says) {
			t.Errorf("%s: %s", event, result.Payload)
		}
	}
}

// Both kinds of failure show in the answer, and neither touches the others.
func TestFailuresInTheAnswer(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	provision(t, c)
	c.Call("POST", "/connections", Body("app", "other", "client_id", OtherID, "connection", "c")).Want(t, 201)
	a, b := c.Token("default/a"), c.Token("default/b")
	c.Entra.Fail(entratest.Fault{Tenant: TenantA, ClientID: ClientID, Response: entratest.Refused(7000222)})
	c.Entra.Fail(entratest.Fault{Tenant: TenantB, ClientID: ClientID, Response: entratest.Throttled("600")})
	var report struct {
		Checked, Due, Refreshed, Failed, Waiting int
		Failures                                 []struct{ Connection, Code, Status string }
	}
	if err := json.Unmarshal([]byte(sweep(t, c, `{"force":true}`)), &report); err != nil {
		t.Fatal(err)
	}
	var failures []string
	for _, f := range report.Failures {
		failures = append(failures, fmt.Sprint(f))
	}
	slices.Sort(failures)
	if want := []string{"{default/a AADSTS7000222 refused}", "{default/b throttled retrying}"}; report.Refreshed != 1 || !slices.Equal(failures, want) {
		t.Errorf("refreshed %d, failures %q, want %q", report.Refreshed, failures, want)
	}
	if c.Token("default/a") != a || c.Token("default/b") != b {
		t.Error("a failed refresh changed the stored token")
	}
	for name, status := range map[string]string{"a": "refused", "b": "retrying"} {
		got := c.Call("GET", "/connections/default/"+name, "").Want(t, 200).JSON(t)
		if got["status"] != status || got["error"] == nil || got["next_attempt_at"] == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got, want := sweep(t, c, `{}`), `{"checked":3,"due":0,"refreshed":0,"failed":0,"waiting":2,"deferred":0,"failures":[]}`; got != want {
		t.Errorf("next sweep:\n got %s\nwant %s", got, want)
	}
	// The person acts; the refusal is tried again at the next sweep, the throttled one is not.
	c.Entra.ClearFaults()
	c.Call("PUT", "/apps/default", AppBody("client_secret", NewSecret)).Want(t, 200)
	if got, want := sweep(t, c, `{}`), `{"checked":3,"due":1,"refreshed":1,"failed":0,"waiting":1,"deferred":0,"failures":[]}`; got != want {
		t.Errorf("after the rotation:\n got %s\nwant %s", got, want)
	}
	if requests := c.Entra.Requests(); requests[len(requests)-1].SecretIndex != 1 {
		t.Error("Entra was not asked with the new secret")
	}
}

// What Entra's answers quote does not get out.
func TestEchoedCredentialsStayInside(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	provision(t, c)
	for _, status := range []int{200, 400, 403, 502} {
		c.Entra.ClearFaults()
		c.Entra.Fail(entratest.Fault{Response: entratest.EchoForm(status)})
		if got := sweep(t, c, `{"force":true}`); !strings.Contains(got, `"failed":2`) {
			t.Errorf("status %d: %s", status, got)
		}
	}
}

func TestSweepThatCannotWork(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	provision(t, c)
	c.Secrets.Fail(secretstoretest.Fault{Op: "ListSecrets", Times: 1, Error: "AccessDeniedException"})
	result := c.Invoke(c.Refresh, `{}`)
	var problem struct{ ErrorMessage, ErrorType string }
	json.Unmarshal(result.Payload, &problem)
	if result.FunctionError == "" || problem.ErrorType != "SweepError" || !strings.Contains(problem.ErrorMessage, "AccessDeniedException") || strings.Contains(problem.ErrorMessage, "arn:") {
		t.Errorf("the invocation answers %s", result.Payload)
	}
	if got := sweep(t, c, `{}`); !strings.Contains(got, `"checked":2`) {
		t.Errorf("the next sweep: %s", got)
	}
	// Of connections that are named, none can be looked at, or one.
	c.Secrets.Fail(secretstoretest.Fault{Op: "DescribeSecret", Times: 2, Error: "InternalServiceError"})
	result = c.Invoke(c.Refresh, `{"connections":["default/a","default/b"]}`)
	if result.FunctionError == "" || !strings.Contains(string(result.Payload), "InternalServiceError") {
		t.Errorf("with nothing to be had of the named ones: %s", result.Payload)
	}
	c.Secrets.Fail(secretstoretest.Fault{Op: "DescribeSecret", Times: 1, Drop: true})
	if got, want := sweep(t, c, `{"connections":["default/a","default/b"]}`), `{"checked":2,"due":1,"refreshed":0,"failed":1,"waiting":0,"deferred":0,`+
		`"failures":[{"connection":"default/a","code":"unreachable","status":"retrying"}]}`; got != want {
		t.Errorf("with one of them:\n got %s\nwant %s", got, want)
	}
}

// What the store has against one connection shows with its own code, and the
// others do not notice.
func TestStoreFailuresInTheAnswer(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	provision(t, c)
	c.Call("POST", "/connections", Body("app", "other", "client_id", OtherID, "connection", "c")).Want(t, 201)
	c.Call("POST", "/connections", Body("app", "third", "connection", "d")).Want(t, 201)
	c.Call("POST", "/connections", Body("connection", "e")).Want(t, 201)
	old := c.Token("default/a")
	c.Secrets.Fail(secretstoretest.Fault{Op: "UpdateSecret", Secret: "entra/connections/default/a", Error: "ThrottlingException"})
	c.Secrets.Fail(secretstoretest.Fault{Op: "GetSecretValue", Secret: "entra/apps/other", Error: "DecryptionFailure"})
	c.Secrets.Put("entra/apps/third", "edited", "{}")
	c.Secrets.Put("entra/connections/default/e", "{}", "edited")
	var report struct {
		Checked, Refreshed, Failed int
		Failures                   []struct{ Connection, Code, Status string }
	}
	if err := json.Unmarshal([]byte(sweep(t, c, `{"force":true}`)), &report); err != nil {
		t.Fatal(err)
	}
	var failures []string
	for _, f := range report.Failures {
		failures = append(failures, fmt.Sprint(f))
	}
	slices.Sort(failures)
	want := []string{"{default/a ThrottlingException retrying}", "{default/e unreadable_state refused}",
		"{other/c DecryptionFailure retrying}", "{third/d unreadable_state retrying}"}
	if report.Checked != 5 || report.Refreshed != 1 || report.Failed != 4 || !slices.Equal(failures, want) {
		t.Errorf("checked %d, refreshed %d, failed %d\n got %q\nwant %q", report.Checked, report.Refreshed, report.Failed, failures, want)
	}
	if c.Token("default/a") != old {
		t.Error("a write that failed changed the stored token")
	}
}

func TestSweepReadsEveryPage(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{Env: []string{"WRITES_PER_SECOND=0"}})
	provision(t, c)
	value, _ := c.Secrets.Value("entra/connections/default/a")
	description, _ := c.Secrets.Description("entra/connections/default/a")
	for i := range 199 {
		c.Secrets.Put(fmt.Sprintf("entra/connections/default/n%03d", i), value, description)
	}
	age(t, c, "default/a", time.Minute)    // on the first page
	age(t, c, "default/n198", time.Minute) // on the last
	for _, tt := range [][2]string{
		{`{}`, `{"checked":201,"due":2,"refreshed":2,"failed":0,"waiting":0,"deferred":0,"failures":[]}`},
		{`{"force":true}`, `{"checked":201,"due":201,"refreshed":201,"failed":0,"waiting":0,"deferred":0,"failures":[]}`},
	} {
		c.Secrets.ResetCalls()
		if got := sweep(t, c, tt[0]); got != tt[1] {
			t.Errorf("%s:\n got %s\nwant %s", tt[0], got, tt[1])
		}
		calls := make(map[string]int)
		for _, call := range c.Secrets.Calls() {
			calls[call.Op]++
		}
		if calls["ListSecrets"] != 3 || calls["GetSecretValue"] != 1 {
			t.Errorf("%s: calls %v, want 3 pages and the app once", tt[0], calls)
		}
	}
}

// A sweep that dies half-way, here with the process, has lost nothing: the next
// one finishes the work, and only that.
func TestSweepThatDies(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	provision(t, c)
	age(t, c, "default/a", 10*time.Minute)
	age(t, c, "default/b", 10*time.Minute)
	old := c.Token("default/b")
	c.Secrets.ResetCalls()
	// One token is stored, though the function does not learn of it; the other is not.
	c.Secrets.Fail(secretstoretest.Fault{Op: "UpdateSecret", Secret: "entra/connections/default/a", After: true, Delay: time.Minute})
	c.Secrets.Fail(secretstoretest.Fault{Op: "UpdateSecret", Secret: "entra/connections/default/b", Delay: time.Minute})
	twin := c.Twin()
	ended := make(chan error)
	go func() {
		_, err := twin.Sweep(t.Context(), []byte(`{}`))
		ended <- err
	}()
	writes := func() (n int) {
		for _, call := range c.Secrets.Calls() {
			if call.Op == "UpdateSecret" {
				n++
			}
		}
		return n
	}
	for range 10_000 {
		if writes() == 2 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	twin.Close()
	if err := <-ended; err == nil || writes() != 2 {
		t.Fatalf("the sweep ended by itself, with %v, after %d writes", err, writes())
	}
	c.Secrets.ClearFaults()
	if c.Token("default/b") != old {
		t.Error("a sweep that died changed what it had not written")
	}
	if got, want := sweep(t, c, `{}`), `{"checked":2,"due":1,"refreshed":1,"failed":0,"waiting":0,"deferred":0,"failures":[]}`; got != want {
		t.Errorf("the next sweep:\n got %s\nwant %s", got, want)
	}
	for _, name := range []string{"default/a", "default/b"} {
		got := c.Call("GET", "/connections/"+name, "").Want(t, 200).JSON(t)
		if tokens := c.Entra.Tokens(); got["status"] != "ok" || !slices.Contains(tokens[2:], c.Token(name)) {
			t.Errorf("%s is %v, on a token of before the sweeps: %t", name, got, slices.Contains(tokens[:2], c.Token(name)))
		}
	}
}

// There is nothing to rotate to when an app is put as it is, but what was
// refused is tried again.
func TestPutOfTheSameAppEndsTheWait(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	provision(t, c)
	c.Entra.Fail(entratest.Fault{Tenant: TenantB, Times: 1, Response: entratest.Refused(7000222)})
	c.Call("POST", "/connections/default/b/refresh", "").Want(t, 422)
	age(t, c, "default/b", 10*time.Minute)
	if got := sweep(t, c, `{}`); !strings.Contains(got, `"due":0,"refreshed":0,"failed":0,"waiting":1`) {
		t.Errorf("before: %s", got)
	}
	for _, want := range []string{`"due":1,"refreshed":1`, `"due":0,"refreshed":0`} {
		c.Call("PUT", "/apps/default", AppBody()).Want(t, 200)
		if got := sweep(t, c, `{}`); !strings.Contains(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// A tenant that does not answer takes no time from the others, and what could
// not be done is deferred, not lost.
func TestSweepEndsInTime(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{SweepTimeout: 4 * time.Second})
	provision(t, c)
	c.Entra.Fail(entratest.Fault{Tenant: TenantA, Response: entratest.Hang()})
	if got, want := sweep(t, c, `{"force":true}`), `{"checked":2,"due":2,"refreshed":1,"failed":0,"waiting":0,"deferred":1,"failures":[]}`; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	t.Run("prefix and window", func(t *testing.T) {
		c := Start(t, stack.Options{Env: []string{"SECRET_PREFIX=team-a/entra", "REFRESH_WINDOW=1m"}})
		c.Call("POST", "/connections", Body("connection", "a")).Want(t, 201)
		if got, want := c.Secrets.Names(), []string{"team-a/entra/apps/default", "team-a/entra/connections/default/a"}; !slices.Equal(got, want) {
			t.Errorf("secrets %v, want %v", got, want)
		}
		c.Secrets.Put("entra/connections/default/b", "{}", "{}") // somebody else's
		if got := sweep(t, c, `{}`); !strings.Contains(got, `"checked":1,"due":0`) {
			t.Errorf("sweep: %s", got)
		}
	})
	t.Run("log level", func(t *testing.T) {
		c := Start(t, stack.Options{Env: []string{"LOG_LEVEL=ERROR"}})
		sweep(t, c, `{}`)
		if strings.Contains(c.Output(), "sweep done") {
			t.Error("an INFO line at level ERROR")
		}
	})
	t.Run("everything wrong", func(t *testing.T) {
		c := Start(t, stack.Options{Env: []string{"SECRET_PREFIX=/x", "REFRESH_WINDOW=30", "WRITES_PER_SECOND=-1", "LOG_LEVEL=LOUD",
			"AZURE_AUTHORITY_HOST=http://entra.example", "ALLOW_INSECURE_AUTHORITY=perhaps"}})
		if result := c.Invoke(c.Refresh, `{}`); result.FunctionError == "" {
			t.Errorf("the function runs: %s", result.Payload)
		}
		for _, name := range []string{"SECRET_PREFIX", "REFRESH_WINDOW", "WRITES_PER_SECOND", "LOG_LEVEL", "AZURE_AUTHORITY_HOST", "ALLOW_INSECURE_AUTHORITY"} {
			if !strings.Contains(c.Output(), name+" must be") {
				t.Errorf("nothing is said of %s", name)
			}
		}
	})
}
