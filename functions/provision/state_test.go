package main

import (
	"encoding/json"
	"fmt"
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

// secretOf returns the name of a connection's secret.
func secretOf(connection string) string { return "entra/connections/" + connection }

// ahead returns options with a Secrets Manager whose clock a test can put forward. The functions go
// by that clock to judge whether somebody else is still at work.
func ahead() (_ stack.Options, forward func(time.Duration)) {
	var by atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(by.Load())) }
	return stack.Options{Secrets: secretstoretest.Options{Now: now}}, func(d time.Duration) { by.Add(int64(d)) }
}

// shown returns how the API shows a connection, by itself and in the list: its status, and the code
// and title of its error.
func shown(t *testing.T, c *Connector, connection string) string {
	t.Helper()
	one := c.Call("GET", "/connections/"+connection, "").Want(t, 200).JSON(t)
	var list struct{ Connections []map[string]any }
	app, _, _ := strings.Cut(connection, "/")
	if err := json.Unmarshal([]byte(c.Call("GET", "/connections?app="+app, "").Want(t, 200).Body), &list); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list.Connections, func(x map[string]any) bool { return x["connection"] == one["connection"] })
	if i < 0 || fmt.Sprint(list.Connections[i]) != fmt.Sprint(one) {
		t.Errorf("%s is %v, and in the list %v", connection, one, list.Connections)
	}
	if status := one["status"]; status == "ok" && one["expires_at"] == nil || strings.Contains(fmt.Sprint(one), "0001-01-01") {
		t.Errorf("%s is %v", connection, one)
	}
	return strings.TrimSpace(fmt.Sprint(one["status"], " ", Text(one["error"], "code"), " ", Text(one["error"], "title")))
}

// The API shows what people and other tools have done to a connection's secret. Other connections
// do not suffer, and provisioning mends what may be mended.
func TestWhatOthersDoToASecret(t *testing.T) {
	t.Parallel()
	options, forward := ahead()
	c := Start(t, options)
	c.Call("POST", "/connections", Body("connection", "healthy")).Want(t, 201)
	describe := func(d string) func(*secretstoretest.Secret) {
		return func(s *secretstoretest.Secret) { s.Description = d }
	}
	tag := func(key, value string) func(*secretstoretest.Secret) {
		return func(s *secretstoretest.Secret) { s.Tags["entra-connector:"+key] = value }
	}
	unknown := "retrying state_unknown"
	rows := []struct {
		name                   string
		edit                   func(*secretstoretest.Secret)
		shows                  string
		refresh, again, remove int
	}{
		{"no description", describe(""), unknown, 200, 200, 204},
		{"a note for a description", describe("ask the team"), unknown, 200, 200, 204},
		{"a description without a version", describe(`{"status":"ok"}`), unknown, 200, 200, 204},
		{"a description of the wrong type", describe(`{"status":1}`), unknown, 200, 200, 204},
		{"an edited value", func(s *secretstoretest.Secret) { s.Value = "edited" }, unknown, 200, 200, 204},
		{"an older version", func(s *secretstoretest.Secret) { s.Version = s.Versions[0] }, unknown, 200, 200, 204},
		{"an expired token", func(s *secretstoretest.Secret) {
			s.Description = `{"status":"ok","version":"` + s.Version + `","refreshed_at":"2026-01-01T00:00:00Z","expires_at":"2026-01-01T01:00:00Z","lifetime":3600}`
		}, "retrying token_expired The stored token has expired", 200, 200, 204},
		{"replicas", func(s *secretstoretest.Secret) { s.Replicas = []string{"us-west-2"} }, "ok", 200, 200, 409},
		{"tags of another tool", func(s *secretstoretest.Secret) { s.Tags["team"] = "a" }, "ok", 200, 200, 204},
		{"no tags", func(s *secretstoretest.Secret) { clear(s.Tags) }, "refused unreadable_state The tags of", 409, 201, 204},
		{"restored after a deletion", tag("state", "deleting"), "refused deletion_unfinished", 409, 201, 204},
		{"no value", nil, "refused unreadable_state The connection's secret has no value", 409, 201, 204},
		{"tags of another app", tag("app", "other"), "refused unreadable_state The secret belongs to another connection", 409, 409, 409},
		{"a replica", func(s *secretstoretest.Secret) { s.PrimaryRegion = "eu-west-1" }, "refused unreadable_state The secret is a replica of one in eu-west-1", 409, 409, 409},
		{"managed by a service", func(s *secretstoretest.Secret) { s.OwningService = "appflow" }, "refused unreadable_state The secret is managed by the AWS service appflow", 409, 409, 409},
	}
	for _, row := range rows {
		name := "default/" + strings.ReplaceAll(row.name, " ", "-")
		for _, name := range []string{name, name + "-swept"} {
			if row.edit == nil {
				_, connection, _ := strings.Cut(name, "/")
				c.Secrets.Edit(secretOf(name), func(s *secretstoretest.Secret) {
					s.Tags = map[string]string{"entra-connector:app": "default", "entra-connector:connection": connection}
				})
				continue
			}
			c.Clone("default/healthy", name)
			c.Call("POST", "/connections/"+name+"/refresh", "").Want(t, 200)
			c.Secrets.Edit(secretOf(name), row.edit)
		}
		forward(2 * time.Minute)
		if got := shown(t, c, name); !strings.HasPrefix(got, row.shows) {
			t.Errorf("%s: shown as %q, want %q", row.name, got, row.shows)
		}
		_, connection, _ := strings.Cut(name, "/")
		got := []int{c.Call("POST", "/connections/"+name+"/refresh", "").Status,
			c.Call("POST", "/connections", Object("tenant_id", TenantA, "connection", connection)).Status,
			c.Call("DELETE", "/connections/"+name, "").Status}
		if want := []int{row.refresh, row.again, row.remove}; !slices.Equal(got, want) {
			t.Errorf("%s: refreshed, provisioned again and deleted: %v, want %v", row.name, got, want)
		}
	}
	if result := c.Invoke(c.Refresh, `{}`); result.FunctionError != "" {
		t.Errorf("the sweep fails: %s", result.Payload)
	}
	for _, row := range rows {
		want := row.shows
		if strings.HasPrefix(want, "retrying") {
			want = "ok"
		}
		name := "default/" + strings.ReplaceAll(row.name, " ", "-") + "-swept"
		if got := shown(t, c, name); !strings.HasPrefix(got, want) {
			t.Errorf("%s: after a sweep shown as %q, want %q", row.name, got, want)
		}
	}
	if got := shown(t, c, "default/healthy"); got != "ok" {
		t.Errorf("the healthy connection is %s", got)
	}
}

// Go can read some times that it cannot write as JSON. Such a time does no harm, wherever it
// stands.
func TestImpossibleYears(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	c.Call("POST", "/connections", Body("connection", "healthy", "client_secret_expires_at", "9999-12-31T23:59:59-12:00")).Want(t, 201)
	c.Entra.Fail(entratest.Fault{Times: 1, Response: entratest.Refused(7000112)})
	c.Clone("default/healthy", "default/refused")
	c.Call("POST", "/connections/default/refused/refresh", "").Want(t, 422)
	i := 0
	for _, year := range []string{"9999-12-31T23:59:59-12:00", "0000-01-01T00:00:00+23:59"} {
		for _, member := range []string{"expires_at", "refreshed_at", "app_as_of", "writes_whole_at", "at", "refused_since", "next_attempt_at", "failure.app_as_of"} {
			i++
			name := fmt.Sprintf("default/n%d", i)
			c.Clone("default/refused", name)
			c.Describe(secretOf(name), func(d map[string]any) {
				if failure := d["failure"].(map[string]any); d[member] == nil {
					d = failure
				}
				d[strings.TrimPrefix(member, "failure.")] = year
			})
			shown(t, c, name)
			c.Call("POST", "/connections/"+name+"/refresh", "").Want(t, 200)
			if got := shown(t, c, name); got != "ok" {
				t.Errorf("%s at %s: then the connection is %s", member, year, got)
			}
		}
		for _, member := range []string{"changed_at", "rotated_at", "expires_at"} {
			for _, edit := range []func(*secretstoretest.Secret){
				func(s *secretstoretest.Secret) { s.Description = with(s.Description, member, quoted(year)) },
				func(s *secretstoretest.Secret) { s.Value = with(s.Value, member, quoted(year)) },
			} {
				c.Secrets.Edit("entra/apps/default", edit)
				c.Call("GET", "/apps", "").Want(t, 200)
				c.Call("GET", "/apps/default", "").Want(t, 200)
				c.Call("POST", "/connections/default/healthy/refresh", "").Want(t, 200)
				c.Call("PUT", "/apps/default", AppBody()).Want(t, 200)
			}
		}
	}
	if result := c.Invoke(c.Refresh, `{"force":true}`); !strings.Contains(string(result.Payload), `"refreshed":18,"failed":0`) {
		t.Errorf("the sweep answers %s", result.Payload)
	}
}

// A secret that another tool has filled is left alone. Whoever asks for its name gets 409.
func TestSecretsOfOtherTools(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	c.Call("POST", "/connections", Body("connection", "healthy")).Want(t, 201)
	like, _ := c.Secrets.Look(secretOf("default/healthy"))
	for name, edit := range map[string]func(*secretstoretest.Secret){
		"text":           func(s *secretstoretest.Secret) { s.Value = "password" },
		"json":           func(s *secretstoretest.Secret) { s.Value, s.Description = `{"username":"x","password":"y"}`, "RDS" },
		"like-ours":      func(s *secretstoretest.Secret) { s.Value, s.Description = like.Value, like.Description },
		"of-another-app": func(s *secretstoretest.Secret) { s.Value, s.Tags["entra-connector:app"] = "x", "else" },
	} {
		app, connection := "entra/apps/"+name, secretOf("default/"+name)
		c.Secrets.Edit(app, edit)
		c.Secrets.Edit(connection, edit)
		both := func() string {
			a, _ := c.Secrets.Look(app)
			b, _ := c.Secrets.Look(connection)
			return fmt.Sprint(a, b)
		}
		before := both()
		for _, call := range [][3]string{
			{"POST", "/connections", Object("tenant_id", TenantA, "connection", name)},
			{"POST", "/connections/default/" + name + "/refresh", ""},
			{"DELETE", "/connections/default/" + name, ""},
			{"POST", "/connections", Body("app", name)},
			{"POST", "/connections", Object("tenant_id", TenantA, "app", name)},
			{"PUT", "/apps/" + name, AppBody()},
			{"GET", "/apps/" + name, ""},
			{"DELETE", "/apps/" + name, ""},
		} {
			c.Secrets.ResetCalls()
			r := c.Call(call[0], call[1], call[2]).Want(t, 409)
			if detail := Text(r.JSON(t), "detail"); !strings.Contains(detail, name) {
				t.Errorf("%s %s: %s", call[0], call[1], detail)
			}
			if n := len(c.Secrets.Calls()); n > 10 {
				t.Errorf("%s %s: %d calls to AWS", call[0], call[1], n)
			}
		}
		if got := shown(t, c, "default/"+name); !strings.HasPrefix(got, "refused unreadable_state The secret holds something") {
			t.Errorf("%s is shown as %s", name, got)
		}
		if apps := c.Call("GET", "/apps", "").Want(t, 200).Body; strings.Contains(apps, name) {
			t.Errorf("an app: %s", apps)
		}
		if after := both(); after != before {
			t.Errorf("%s: changed from\n%s to\n%s", name, before, after)
		}
	}
	if result := c.Invoke(c.Refresh, `{"force":true}`); !strings.Contains(string(result.Payload), `"checked":5,"due":5,"refreshed":1,"failed":4`) {
		t.Errorf("the sweep answers %s", result.Payload)
	}
}

// Infrastructure code creates empty secrets, to give them tags, a key or a policy. The connector
// fills such a secret and leaves the rest as it is.
func TestSecretsCreatedEmpty(t *testing.T) {
	t.Parallel()
	app, connection := "entra/apps/default", secretOf("default/c")
	for name, tt := range map[string]struct {
		empty  []string
		call   [3]string
		status int
	}{
		"app and connection":         {[]string{app, connection}, [3]string{"POST", "/connections", Body("connection", "c")}, 201},
		"connection":                 {[]string{connection}, [3]string{"POST", "/connections", Body("connection", "c")}, 201},
		"app, put":                   {[]string{app}, [3]string{"PUT", "/apps/default", AppBody()}, 201},
		"app, only named":            {[]string{app}, [3]string{"POST", "/connections", Object("tenant_id", TenantA, "connection", "c")}, 404},
		"connection, not yet filled": {[]string{connection}, [3]string{"GET", "/connections/default/c", ""}, 404},
		"connection, refreshed":      {[]string{connection}, [3]string{"POST", "/connections/default/c/refresh", ""}, 404},
		"connection, deleted":        {[]string{connection}, [3]string{"DELETE", "/connections/default/c", ""}, 404},
		"app, deleted":               {[]string{app}, [3]string{"DELETE", "/apps/default", ""}, 404},
	} {
		c := Start(t, stack.Options{})
		for _, secret := range tt.empty {
			c.Secrets.Edit(secret, func(s *secretstoretest.Secret) {
				s.Description, s.Tags = "Managed by Terraform", map[string]string{"team": "a"}
			})
		}
		c.Call(tt.call[0], tt.call[1], tt.call[2]).Want(t, tt.status)
		if n := len(c.Secrets.Calls()); n > 20 {
			t.Errorf("%s: %d calls to AWS", name, n)
		}
		if body := c.Call("GET", "/connections", "").Want(t, 200).Body; tt.status == 404 && strings.Contains(body, "default") {
			t.Errorf("%s: the list has %s", name, body)
		}
		for _, secret := range tt.empty {
			now, _ := c.Secrets.Look(secret)
			if now.Tags["team"] != "a" || (tt.status == 201) != (now.Value != "") {
				t.Errorf("%s: then there is %+v", name, now)
			}
		}
		if tt.status == 201 && tt.call[0] == "POST" {
			c.Call("POST", "/connections/default/c/refresh", "").Want(t, 200)
			if got := shown(t, c, "default/c"); got != "ok" {
				t.Errorf("%s: shown as %s", name, got)
			}
		}
		if tt.status == 404 {
			c.Call("PUT", "/apps/default", AppBody()).Want(t, 201)
		}
	}
}

// After a forced deletion AWS may hold on to a name for a while: there is nothing under the name,
// but nothing can be created.
func TestNameThatAWSHasNotReleased(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	for _, tt := range []struct{ secret, method, path, body string }{
		{"entra/apps/default", "POST", "/connections", Body("connection", "c")},
		{"entra/apps/default", "PUT", "/apps/default", AppBody()},
		{secretOf("default/c"), "POST", "/connections", Body("connection", "c")},
	} {
		c.Secrets.Fail(secretstoretest.Fault{Op: "CreateSecret", Secret: tt.secret, Error: "InvalidRequestException"})
		c.Secrets.ResetCalls()
		r := c.Call(tt.method, tt.path, tt.body).Want(t, 503)
		if p := r.JSON(t); !strings.Contains(Text(p, "detail"), tt.secret) || Text(p, "code") != "name_not_released" || r.Header.Get("Retry-After") == "" {
			t.Errorf("%s %s: %s", tt.method, tt.path, r.Body)
		}
		if n := len(c.Secrets.Calls()); n > 12 {
			t.Errorf("%s %s: %d calls to AWS", tt.method, tt.path, n)
		}
		c.Secrets.ClearFaults()
	}
	c.Call("POST", "/connections", Body("connection", "c")).Want(t, 201)
}

// A deletion that AWS refuses changes nothing: readers still get the token, and sweeps still
// refresh it.
func TestDeletionThatAWSRefuses(t *testing.T) {
	t.Parallel()
	replicated := func(s *secretstoretest.Secret) { s.Replicas = []string{"us-west-2", "eu-west-1"} }
	for name, tt := range map[string]struct {
		edit   func(*secretstoretest.Secret)
		fault  secretstoretest.Fault
		status int
		says   []string
	}{
		"replicas":        {edit: replicated, status: 409, says: []string{"us-west-2, eu-west-1", "replicated"}},
		"denied":          {fault: secretstoretest.Fault{Op: "DeleteSecret", Error: "AccessDeniedException"}, status: 500, says: []string{"DeleteSecret", "AccessDeniedException"}},
		"denied to tag":   {fault: secretstoretest.Fault{Op: "TagResource", Error: "AccessDeniedException"}, status: 500, says: []string{"TagResource", "AccessDeniedException"}},
		"invalid request": {fault: secretstoretest.Fault{Op: "DeleteSecret", Error: "InvalidRequestException"}, status: 500, says: []string{"DeleteSecret", "InvalidRequestException"}},
		"unavailable":     {fault: secretstoretest.Fault{Op: "DeleteSecret", Error: "InternalServiceError"}, status: 503, says: []string{"DeleteSecret", "InternalServiceError"}},
	} {
		c := Start(t, stack.Options{})
		c.Call("POST", "/connections", Body("connection", "c")).Want(t, 201)
		c.Call("PUT", "/apps/idle", AppBody()).Want(t, 201)
		secrets := map[string]string{"/connections/default/c": secretOf("default/c"), "/apps/idle": "entra/apps/idle"}
		for path, secret := range secrets {
			before := c.Call("GET", path, "").Want(t, 200).Body
			value, _ := c.Secrets.Value(secret)
			if tt.edit != nil {
				c.Secrets.Edit(secret, tt.edit)
			}
			tt.fault.Secret = secret
			if tt.fault.Op != "" {
				c.Secrets.Fail(tt.fault)
			}
			for range 2 { // and again
				r := c.Call("DELETE", path, "").Want(t, tt.status)
				for _, word := range append(tt.says, secret) {
					if !strings.Contains(Text(r.JSON(t), "detail"), word) {
						t.Errorf("%s: DELETE %s does not say %q: %s", name, path, word, r.Body)
					}
				}
			}
			if now, _ := c.Secrets.Value(secret); now != value || c.Call("GET", path, "").Want(t, 200).Body != before {
				t.Errorf("%s: DELETE %s has changed something", name, path)
			}
			c.Secrets.ClearFaults()
		}
		if result := c.Invoke(c.Refresh, `{"force":true}`); !strings.Contains(string(result.Payload), `"checked":1,"due":1,"refreshed":1`) {
			t.Errorf("%s: the sweep answers %s", name, result.Payload)
		}
		c.Call("POST", "/connections", Object("tenant_id", TenantA, "app", "idle", "connection", "d")).Want(t, 201)
		c.Call("DELETE", "/connections/idle/d", "").Want(t, 204)
		for path, secret := range secrets {
			c.Secrets.Edit(secret, func(s *secretstoretest.Secret) { s.Replicas = nil })
			c.Call("DELETE", path, "").Want(t, 204)
		}
	}
}

// A call makes these calls to AWS and no others. A refresh is one write and reads no token.
func TestCallsToAWS(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	app, connection := " entra/apps/default", " entra/connections/default/acme"
	for _, tt := range []struct {
		method, path, body string
		calls              []string
	}{
		{"POST", "/connections", Body("connection", "acme"), []string{"DescribeSecret" + app, "GetSecretValue" + app, "DescribeSecret" + connection,
			"CreateSecret" + app, "DescribeSecret" + app, "TagResource" + app, "DescribeSecret" + app, "CreateSecret" + connection}},
		{"POST", "/connections", Body("connection", "acme"), []string{"DescribeSecret" + app, "GetSecretValue" + app, "DescribeSecret" + connection, "UpdateSecret" + connection}},
		{"POST", "/connections/default/acme/refresh", "", []string{"DescribeSecret" + connection, "GetSecretValue" + app, "UpdateSecret" + connection}},
		{"DELETE", "/connections/default/acme", "", []string{"DescribeSecret" + connection, "TagResource" + connection, "DeleteSecret" + connection}},
	} {
		c.Secrets.ResetCalls()
		if r := c.Call(tt.method, tt.path, tt.body); r.Status/100 != 2 {
			t.Fatalf("%s %s: %d %s", tt.method, tt.path, r.Status, r.Body)
		}
		var made []string
		for _, call := range c.Secrets.Calls() {
			made = append(made, call.Op+" "+call.Secret)
		}
		slices.Sort(made) // some go out together
		slices.Sort(tt.calls)
		if !slices.Equal(made, tt.calls) {
			t.Errorf("%s %s\n got %q\nwant %q", tt.method, tt.path, made, tt.calls)
		}
		if tt.method == "POST" && c.Token("default/acme") != c.LastToken() {
			t.Errorf("%s %s: the stored token is not the newest", tt.method, tt.path)
		}
	}
}

// If a person has edited an app's secret, the app works with what it says now, or is unreadable
// until somebody puts it again.
func TestAppEditedByHand(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	c.Call("POST", "/connections", Body("connection", "c")).Want(t, 201)
	edit := func(change func(value string) string) {
		c.Secrets.Edit("entra/apps/default", func(s *secretstoretest.Secret) { s.Value = change(s.Value) })
		c.Secrets.ResetCalls()
	}
	edit(func(value string) string { return strings.Replace(value, Secret, NewSecret, 1) })
	c.Call("POST", "/connections/default/c/refresh", "").Want(t, 200)
	if requests := c.Entra.Requests(); requests[len(requests)-1].SecretIndex != 1 {
		t.Error("Entra was not asked with the secret that a person entered")
	}
	for _, broken := range []string{"", "edited", "{}", `["x"]`, `{"client_id":1}`} {
		edit(func(string) string { return broken })
		c.Call("GET", "/apps", "").Want(t, 200)
		c.Call("GET", "/apps/default", "").Want(t, 200)
		for _, call := range [][2]string{{"/connections", Body("connection", "c")}, {"/connections", Object("tenant_id", TenantB)}, {"/connections/default/c/refresh", ""}} {
			if r := c.Call("POST", call[0], call[1]).Want(t, 500); !strings.Contains(Text(r.JSON(t), "detail"), "PUT /apps/") {
				t.Errorf("%q: %s", broken, r.Body)
			}
		}
		c.Call("PUT", "/apps/default", AppBody()).Want(t, 200)
		if n := len(c.Secrets.Calls()); n > 30 {
			t.Errorf("%q: %d calls to AWS", broken, n)
		}
		c.Call("POST", "/connections/default/c/refresh", "").Want(t, 200)
	}
}

// Each request is logged at INFO with its caller. If it fails, another line at WARN says why. Both
// name the invocation.
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
		"WARN request failed GET /apps 500 ListSecrets: entra/apps/: AccessDeniedException",
	}
	if !slices.EqualFunc(lines, want, strings.HasPrefix) {
		t.Errorf("lines\n got %q\nwant %q", lines, want)
	}
}
