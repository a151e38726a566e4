package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/stack"
	. "entra-connector/internal/stack/stacktest"
	"entra-connector/pkg/entra/entratest"
)

func TestMain(m *testing.M) { Main(m) }

// sweep runs the refresh function and returns its answer.
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

// age makes a connection's token one of an hour that expires that long from now.
func age(t *testing.T, c *Connector, name string, left time.Duration) {
	t.Helper()
	expires := time.Now().Add(left).UTC().Truncate(time.Second)
	c.Describe("entra/connections/"+name, func(d map[string]any) {
		d["expires_at"], d["refreshed_at"], d["lifetime"] = expires, expires.Add(-time.Hour), 3600
	})
}

func TestScheduledSweep(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	const nothing = `{"checked":0,"due":0,"refreshed":0,"failed":0,"waiting":0,"deferred":0,"failures":[]}`
	// Any event without the fields that ask for something is a scheduled sweep.
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

// failures returns what a sweep's answer says of each connection that failed, and the rest of it.
func failures(t *testing.T, answer string) (list []string, rest string) {
	t.Helper()
	var report struct {
		Failures []struct{ Connection, Code, Status string }
	}
	if err := json.Unmarshal([]byte(answer), &report); err != nil {
		t.Fatal(err)
	}
	for _, f := range report.Failures {
		list = append(list, fmt.Sprint(f.Connection, " ", f.Code, " ", f.Status))
	}
	rest, _, _ = strings.Cut(answer, `,"failures"`)
	return slices.Sorted(slices.Values(list)), rest
}

// A connection that Entra refuses and one that fails for a reason that passes each show as what
// they are, and the others are refreshed.
func TestFailuresInTheAnswer(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	provision(t, c)
	c.Call("POST", "/connections", Body("app", "other", "client_id", OtherID, "connection", "c")).Want(t, 201)
	a, b := c.Token("default/a"), c.Token("default/b")
	c.Entra.Fail(entratest.Fault{Tenant: TenantA, ClientID: ClientID, Response: entratest.Refused(7000112)})
	c.Entra.Fail(entratest.Fault{Tenant: TenantB, ClientID: ClientID, Response: entratest.Throttled("600")})
	got, rest := failures(t, sweep(t, c, `{"force":true}`))
	if want := []string{"default/a AADSTS7000112 refused", "default/b throttled retrying"}; rest != `{"checked":3,"due":3,"refreshed":1,"failed":2,"waiting":0,"deferred":0` || !slices.Equal(got, want) {
		t.Errorf("%s, failures %q, want %q", rest, got, want)
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
	// Once a person has acted, the refusal is tried again at the next sweep. The throttled one
	// still waits.
	c.Entra.ClearFaults()
	c.Call("PUT", "/apps/default", AppBody("client_secret", NewSecret)).Want(t, 200)
	if got, want := sweep(t, c, `{}`), `{"checked":3,"due":1,"refreshed":1,"failed":0,"waiting":1,"deferred":0,"failures":[]}`; got != want {
		t.Errorf("after the rotation:\n got %s\nwant %s", got, want)
	}
	if requests := c.Entra.Requests(); requests[len(requests)-1].SecretIndex != 1 {
		t.Error("Entra was not asked with the new secret")
	}
}

// An answer of Entra may quote the request. None of that gets out.
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
	// Of the connections that are named, none can be looked at, and then one.
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

// A failure of the store about one connection or one app shows with its own code, and harms no
// other connection.
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
	c.Secrets.Edit("entra/connections/default/e", func(s *secretstoretest.Secret) { s.OwningService = "appflow" })
	got, rest := failures(t, sweep(t, c, `{"force":true}`))
	want := []string{"default/a ThrottlingException retrying", "default/e unreadable_state refused",
		"other/c DecryptionFailure retrying", "third/d unreadable_state retrying"}
	if rest != `{"checked":5,"due":5,"refreshed":1,"failed":4,"waiting":0,"deferred":0` || !slices.Equal(got, want) {
		t.Errorf("%s\n got %q\nwant %q", rest, got, want)
	}
	if c.Token("default/a") != old {
		t.Error("a write that failed changed the stored token")
	}
}

func TestSweepReadsEveryPage(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{Env: []string{"WRITES_PER_SECOND=0"}})
	provision(t, c)
	for i := range 199 {
		c.Clone("default/a", fmt.Sprintf("default/n%03d", i))
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

// Putting an app as it is makes nothing due, except connections that were refused.
func TestPutOfTheSameAppEndsTheWait(t *testing.T) {
	t.Parallel()
	for _, left := range []time.Duration{10 * time.Minute, 50 * time.Minute} {
		c := Start(t, stack.Options{})
		provision(t, c)
		c.Entra.Fail(entratest.Fault{Tenant: TenantB, Times: 1, Response: entratest.Refused(7000112)})
		c.Call("POST", "/connections/default/b/refresh", "").Want(t, 422)
		age(t, c, "default/b", left)
		if got := sweep(t, c, `{}`); !strings.Contains(got, `"due":0,"refreshed":0,"failed":0,"waiting":`) {
			t.Errorf("before: %s", got)
		}
		for _, want := range []string{`"due":1,"refreshed":1`, `"due":0,"refreshed":0`} {
			c.Call("PUT", "/apps/default", AppBody()).Want(t, 200)
			if got := sweep(t, c, `{}`); !strings.Contains(got, want) {
				t.Errorf("got %s, want %s", got, want)
			}
		}
	}
}

// A failure that passes needs nobody: it counts as no refusal, publishes no event, and the next
// sweep tries again. For 15 minutes after the app changed, that goes for refusals of what Entra may
// not know everywhere.
func TestWhatPasses(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	c.Call("POST", "/connections", Body("connection", "a")).Want(t, 201)
	for _, tt := range []struct {
		code      int
		unsettled bool
	}{
		{50166, false}, {90061, false}, {501661, false}, {7002381, false}, {90085, false}, {90033, false},
		{7000222, true}, {7000215, true}, {7000229, true}, {700016, true}, {700027, true}, {700213, true}, {65001, true},
	} {
		c.Call("PUT", "/apps/default", AppBody()).Want(t, 200)
		for _, settled := range []bool{false, true} {
			if settled {
				c.Secrets.Edit("entra/apps/default", func(s *secretstoretest.Secret) {
					s.Value = regexp.MustCompile(`20\d\d-\d\d-\d\dT`).ReplaceAllString(s.Value, "2026-01-01T")
				})
			}
			status, told := "retrying", 0
			if settled && tt.unsettled {
				status, told = "refused", 1
			}
			before := len(c.Events.Events())
			c.Entra.Fail(entratest.Fault{Response: entratest.Refused(tt.code)})
			got := metricsOf(t, c, `{"force":true}`)
			failure := c.Call("GET", "/connections/default/a", "").Want(t, 200).JSON(t)
			if failure["status"] != status || Text(failure["error"], "code") != fmt.Sprintf("AADSTS%d", tt.code) || got["Failed"] != 1 || got["NewRefusals"] != float64(told) {
				t.Errorf("%d, settled: %t: metrics %v, connection %v", tt.code, settled, got, failure)
			}
			if n := len(c.Events.Events()) - before; n != told {
				t.Errorf("%d, settled: %t: %d events", tt.code, settled, n)
			}
			c.Entra.ClearFaults()
			age(t, c, "default/a", 10*time.Minute)
			c.Describe("entra/connections/default/a", func(d map[string]any) { d["writes_whole_at"] = "2026-01-01T00:00:00Z" })
			if got := sweep(t, c, `{}`); (status == "retrying") != strings.Contains(got, `"due":1,"refreshed":1`) {
				t.Errorf("%d, settled: %t: the next sweep answers %s", tt.code, settled, got)
			}
			sweep(t, c, `{"force":true}`)
		}
	}
}

// A connection that was deleted since it was listed is no failure. A metric counts it.
func TestStaleEntries(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	c := Start(t, stack.Options{Secrets: secretstoretest.Options{ListLag: 5 * time.Minute, Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }}})
	provision(t, c)
	ahead.Add(int64(10 * time.Minute))
	c.Call("DELETE", "/connections/default/a", "").Want(t, 204)
	got := metricsOf(t, c, `{"force":true}`)
	if got["StaleEntries"] != 1 || got["Checked"] != 2 || got["Refreshed"] != 1 || got["Failed"] != 0 || got["SweepsSucceeded"] != 1 {
		t.Errorf("the sweep leaves %v", got)
	}
	ahead.Add(int64(10 * time.Minute))
	if got := metricsOf(t, c, `{"force":true}`); got["StaleEntries"] != 0 || got["Checked"] != 1 {
		t.Errorf("once the list has caught up: %v", got)
	}
}

// A call to AWS whose answer breaks off is made again: the first list, the read of an app, a write.
func TestAnswersThatBreakOff(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{Env: []string{"AWS_MAX_ATTEMPTS=3"}})
	provision(t, c)
	for _, op := range []string{"ListSecrets", "GetSecretValue", "UpdateSecret"} {
		c.Secrets.ResetCalls()
		c.Secrets.Fail(secretstoretest.Fault{Op: op, Times: 1, Break: true, After: true})
		if got, want := sweep(t, c, `{"force":true}`), `{"checked":2,"due":2,"refreshed":2,"failed":0,"waiting":0,"deferred":0,"failures":[]}`; got != want {
			t.Errorf("%s:\n got %s\nwant %s", op, got, want)
		}
		if !slices.ContainsFunc(c.Secrets.Calls(), func(call secretstoretest.Call) bool { return call.Dropped }) {
			t.Errorf("%s: nothing broke off", op)
		}
	}
}

// A tenant that does not answer takes no time from the others. What could not be done is deferred,
// not lost, and so is a connection that was named and not reached.
func TestSweepEndsInTime(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{SweepTimeout: 2 * time.Second})
	provision(t, c)
	c.Entra.Fail(entratest.Fault{Tenant: TenantA, Response: entratest.Hang()})
	if got, want := sweep(t, c, `{"force":true}`), `{"checked":2,"due":2,"refreshed":1,"failed":0,"waiting":0,"deferred":1,"failures":[]}`; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	c.Entra.ClearFaults()
	c.Secrets.Fail(secretstoretest.Fault{Op: "DescribeSecret", Secret: "entra/connections/default/a", Delay: time.Minute})
	for event, want := range map[string]string{
		`{"connections":["default/a"],"force":true}`:             `{"checked":1,"due":1,"refreshed":0,"failed":0,"waiting":0,"deferred":1,"failures":[]}`,
		`{"connections":["default/b","default/a"],"force":true}`: `{"checked":2,"due":2,"refreshed":0,"failed":0,"waiting":0,"deferred":2,"failures":[]}`,
	} {
		if got := sweep(t, c, event); got != want {
			t.Errorf("%s: got %s\nwant %s", event, got, want)
		}
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
		c := Start(t, stack.Options{Env: []string{"SECRET_PREFIX=team/apps", "REFRESH_WINDOW=30", "WRITES_PER_SECOND=-1", "LOG_LEVEL=LOUD",
			"AZURE_AUTHORITY_HOST=http://entra.example", "ALLOW_INSECURE_AUTHORITY=perhaps"}})
		if result := c.Invoke(c.Refresh, `{}`); result.FunctionError == "" {
			t.Errorf("the function runs: %s", result.Payload)
		}
		for _, name := range []string{"SECRET_PREFIX", "REFRESH_WINDOW", "WRITES_PER_SECOND", "LOG_LEVEL", "AZURE_AUTHORITY_HOST", "ALLOW_INSECURE_AUTHORITY"} {
			if !strings.Contains(c.Output(), name+" must ") {
				t.Errorf("nothing is said of %s", name)
			}
		}
	})
}
