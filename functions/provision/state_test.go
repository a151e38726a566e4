package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/stack"
	. "entra-connector/internal/stack/stacktest"
	"entra-connector/pkg/entra/entratest"
)

// What a person has overwritten by hand is reported as such and repaired by the
// call that made it.
func TestUnreadableState(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	one, secret := "/connections/default/acme", "entra/connections/default/acme"
	c.Call("POST", "/connections", Body("connection", "acme")).Want(t, 201)
	value, _ := c.Secrets.Value(secret)
	for _, description := range []string{"", "ask the team", `{"status":"ok"}`, `{"status":1}`} {
		c.Secrets.Put(secret, value, description)
		for _, path := range []string{one, "/connections"} {
			r := c.Call("GET", path, "").Want(t, 200)
			got := r.JSON(t)
			if list, _ := got["connections"].([]any); len(list) == 1 {
				got = list[0].(map[string]any)
			}
			failure := got["error"]
			if Text(got, "status") != "refused" || Text(failure, "code") != "unreadable_state" || Text(failure, "title") == "" || Text(failure, "action") == "" {
				t.Errorf("%q, GET %s: %s", description, path, r.Body)
			}
			if strings.Contains(r.Body, "0001-01-01") || got["expires_at"] != nil {
				t.Errorf("%q, GET %s tells times that nobody knows: %s", description, path, r.Body)
			}
		}
		c.Call("POST", one+"/refresh", "").Want(t, 409)
		if got := c.Call("POST", "/connections", Body("connection", "acme")).Want(t, 200).JSON(t); got["status"] != "ok" {
			t.Errorf("%q: provisioned again: %v", description, got)
		}
	}
	c.Secrets.Put(secret, value, "")
	c.Call("DELETE", one, "").Want(t, 204)

	for _, broken := range []string{"", "edited", `["x"]`, `{"client_id":1}`} {
		description, _ := c.Secrets.Description("entra/apps/default")
		c.Secrets.Put("entra/apps/default", broken, description)
		c.Call("GET", "/apps/default", "").Want(t, 200)
		for _, body := range []string{Body(), Object("tenant_id", TenantA)} {
			if r := c.Call("POST", "/connections", body).Want(t, 500); !strings.Contains(Text(r.JSON(t), "detail"), "PUT /apps/") {
				t.Errorf("%q: %s", broken, r.Body)
			}
		}
		c.Call("PUT", "/apps/default", AppBody()).Want(t, 200)
		c.Call("POST", "/connections", Object("tenant_id", TenantA)).Want(t, 201)
		c.Call("DELETE", "/connections/default/"+TenantA, "").Want(t, 204)
	}
}

// Lambda runs as many copies of a function as there are requests at a time.
// Whatever they overtake each other at, a name that is free goes to one of two
// and the other learns of it.
func TestTwoAtOnce(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	twin := c.Twin()
	both := func(bodies ...string) (replies [2]Reply) {
		// Both have looked for the name before either has stored anything.
		c.Entra.Fail(entratest.Fault{Endpoint: "token", Times: 2, Delay: 50 * time.Millisecond})
		var calls sync.WaitGroup
		for i, one := range []*Connector{c, twin} {
			calls.Go(func() { replies[i] = one.Call("POST", "/connections", bodies[i]) })
		}
		calls.Wait()
		c.Entra.ClearFaults()
		c.Secrets.ClearFaults()
		return replies
	}
	winner := func(step string, replies [2]Reply) int {
		statuses := []int{replies[0].Status, replies[1].Status}
		won := slices.Index(statuses, 201)
		if slices.Sort(statuses); !slices.Equal(statuses, []int{201, 409}) {
			t.Fatalf("the first %s is slow: answers\n%s%s", step, replies[0].Body, replies[1].Body)
		}
		return won
	}
	tenants := []string{TenantA, TenantB}
	c.Call("PUT", "/apps/default", AppBody()).Want(t, 201)
	for _, step := range []string{"CreateSecret", "DescribeSecret", "RestoreSecret", "UpdateSecret"} {
		for _, times := range []int{1, 3} {
			c.Call("POST", "/connections", Object("tenant_id", TenantA, "connection", "acme"))
			c.Call("DELETE", "/connections/default/acme", "").Want(t, 204)
			c.Secrets.Fail(secretstoretest.Fault{Op: step, Times: times, Delay: 50 * time.Millisecond})
			won := winner(step, both(Object("tenant_id", TenantA, "connection", "acme"), Object("tenant_id", TenantB, "connection", "acme")))
			value, _ := c.Secrets.Value("entra/connections/default/acme")
			got := c.Call("GET", "/connections/default/acme", "").Want(t, 200)
			if Text(got.JSON(t), "tenant_id") != tenants[won] || !strings.Contains(value, tenants[won]) {
				t.Fatalf("the first %s is slow: %s has won, the connection is %s", step, tenants[won], got.Body)
			}
			c.Call("DELETE", "/connections/default/acme", "").Want(t, 204)
		}
	}

	// An app's name is given to one client ID alone, too.
	clients := []string{ClientID, OtherID}
	won := winner("CreateSecret", both(Body("app", "new"), Body("app", "new", "client_id", OtherID)))
	if got := c.Call("GET", "/apps/new", "").Want(t, 200).JSON(t); got["client_id"] != clients[won] {
		t.Errorf("%s has won, the app is %v", clients[won], got)
	}
	// The same request twice is no conflict, and no second connection.
	replies := both(Body("app", "same"), Body("app", "same"))
	if a, b := replies[0].Status, replies[1].Status; a+b != 401 && a+b != 400 || a < 200 || b < 200 {
		t.Errorf("the same request at once: %d %s, %d %s", a, replies[0].Body, b, replies[1].Body)
	}
}

// A request is one line at INFO, with who sent it; one that failed is one more at
// WARN, with why; and each names the invocation that it belongs to.
func TestLogLines(t *testing.T) {
	t.Parallel()
	c := Start(t, brief)
	const arn = "arn:aws:iam::123456789012:user/operator"
	signed := func(method, path, body string) {
		invoke(t, c, map[string]any{"rawPath": path, "body": body, "requestContext": map[string]any{
			"http": map[string]string{"method": method}, "authorizer": map[string]any{"iam": map[string]string{"userArn": arn}}}})
	}
	signed("GET", "/apps/default", "")
	signed("POST", "/connections", Body("client_secret", Wrong))
	signed("POST", "/connections", "{}")
	c.Secrets.Fail(secretstoretest.Fault{Times: 1, Error: "AccessDeniedException"})
	signed("GET", "/apps", "")

	invocations := make(map[string]bool)
	var lines []string
	for line := range strings.Lines(c.Output()) {
		line = line[strings.Index(line, "{"):] // a reply ends without a line break
		if start := strings.Index(line, `{"timestamp"`); start >= 0 {
			line = line[start:]
		}
		var l struct {
			Level, Message, Route, Caller, RequestID, Error string
			Status                                          int
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil || !strings.HasPrefix(l.Message, "request") {
			continue
		}
		if l.RequestID == "" || l.Level == "INFO" && (invocations[l.RequestID] || l.Caller != arn) || l.Level == "WARN" && !invocations[l.RequestID] {
			t.Errorf("line %s", line)
		}
		invocations[l.RequestID] = true
		lines = append(lines, fmt.Sprint(l.Level, " ", l.Message, " ", l.Route, " ", l.Status, " ", l.Error))
	}
	want := []string{
		"INFO request GET /apps/{app} 404 ",
		"INFO request POST /connections 422 ",
		"WARN request failed POST /connections 422 entra: AADSTS7000215: ",
		"INFO request POST /connections 400 ",
		"INFO request GET /apps 500 ",
		"WARN request failed GET /apps 500 listing secrets: AccessDeniedException",
	}
	if !slices.EqualFunc(lines, want, strings.HasPrefix) {
		t.Errorf("lines\n got %q\nwant %q", lines, want)
	}
}

// A refused connection is tried again once its app has been put, due or not.
func TestPuttingTheSameAppTriesARefusedConnectionThatIsNotDue(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	c.Call("POST", "/connections", Body("connection", "a")).Want(t, 201)
	c.Entra.Fail(entratest.Fault{Times: 1, Response: entratest.Refused(7000222)})
	c.Call("POST", "/connections/default/a/refresh", "").Want(t, 422)
	c.Call("PUT", "/apps/default", AppBody()).Want(t, 200)
	if got := c.Invoke(c.Refresh, `{}`); !strings.Contains(string(got.Payload), `"refreshed":1`) {
		t.Errorf("the sweep answers %s", got.Payload)
	}
}

// An app's value that a person has set to {} is unreadable, not deleted, and PUT
// mends it.
func TestAppOfAnEmptyObject(t *testing.T) {
	t.Parallel()
	for _, route := range [][2]string{{"POST", "/connections"}, {"PUT", "/apps/default"}} {
		c := Start(t, brief)
		c.Call("PUT", "/apps/default", AppBody()).Want(t, 201)
		description, _ := c.Secrets.Description("entra/apps/default")
		c.Secrets.Put("entra/apps/default", "{}", description)
		c.Secrets.ResetCalls()
		body := AppBody()
		if route[0] == "POST" {
			body = Body()
		}
		r := c.Call(route[0], route[1], body)
		want := map[string]int{"POST": 500, "PUT": 200}[route[0]]
		if n := len(c.Secrets.Calls()); n > 20 || r.Status != want {
			t.Errorf("%s: %d after %d calls, want %d", route, r.Status, n, want)
		}
	}
}

// A field after the fiftieth mistake is not called missing.
func TestFieldAfterManyMistakes(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	var many strings.Builder
	for i := range 60 {
		fmt.Fprintf(&many, `"unknown%d":"x",`, i)
	}
	r := c.Call("POST", "/connections", "{"+many.String()+Body()[1:]).Want(t, 400)
	if strings.Contains(r.Body, "is required") {
		t.Errorf("%s", r.Body[len(r.Body)-200:])
	}
}
