package main

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"entra-connector/internal/stack"
	. "entra-connector/internal/stack/stacktest"
)

// Bad input gets a 4xx problem document that names every bad field and quotes no value. Nothing is
// stored, nothing is sent to Entra, and the function goes on.
func TestBadInput(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	c.Call("POST", "/connections", Body()).Want(t, 201)
	before, asked := c.Secrets.Snapshot(), len(c.Entra.Requests())
	long := strings.Repeat("a", 1025)
	sized := func(bytes int) string {
		return `{"x":"` + strings.Repeat("a", bytes-len(`{"x":""}`)) + `"}`
	}
	raw := func(field, json string) string {
		return strings.TrimSuffix(Body(), "}") + `,"` + field + `":` + json + `}`
	}

	tests := []struct {
		name, body string
		status     int
		fields     string
	}{
		{"empty", "", 400, ""},
		{"not JSON", "tenant_id=x", 400, ""},
		{"cut off", Body()[:40], 400, ""},
		{"two objects", Body() + Body(), 400, ""},
		{"text after it", Body() + "x", 400, ""},
		{"a list", "[" + Body() + "]", 400, ""},
		{"a string", `"x"`, 400, ""},
		{"null", "null", 400, ""},
		{"not UTF-8", strings.Replace(Body("client_secret", "xy"), "xy", "x\xffy", 1), 400, ""},
		{"behind a byte order mark", "\ufeff{}", 400, "tenant_id"},
		{"two byte order marks", "\ufeff\ufeff" + Body(), 400, ""},
		{"nested too deep", `{"tenant_id":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, 400, ""},
		{"control character in JSON", `{"tenant_id":"` + "\n" + `"}`, 400, ""},

		{"nothing", "{}", 400, "tenant_id"},
		{"unknown field", raw("tenant", `"x"`), 400, "tenant"},
		{"field in capitals", raw("Connection", `"x"`), 400, "Connection"},
		{"field twice", raw("scope", `"`+Graph+`"`), 400, "scope"},
		{"field twice under an escape", raw(`sc\u006fpe`, `"`+Graph+`"`), 400, "scope"},
		{"number", raw("connection", "1"), 400, "connection"},
		{"null field", raw("connection", "null"), 400, "connection"},
		{"object field", raw("connection", `{"a":"b"}`), 400, "connection"},
		{"list of one", raw("connection", `["a"]`), 400, "connection"},
		{"true", raw("app", "true"), 400, "app"},
		{"empty field", raw("app", `""`), 400, "app"},
		{"half a surrogate", raw("connection", `"\ud800"`), 400, "connection"},
		{"lone surrogate in the secret", strings.Replace(Body("client_secret", "xy"), "xy", `x\udc00y`, 1), 400, "client_secret"},
		{"long unknown field", raw(long, `"x"`), 400, long[:64] + "…"},

		{"hostile tenant", Body("tenant_id", "../../common"), 400, "tenant_id"},
		{"multi-tenant authority", Body("tenant_id", "common"), 400, "tenant_id"},
		{"consumers' GUID", Body("tenant_id", "9188040d-6c67-4c5b-b112-36a304b66dad"), 400, "tenant_id"},
		{"address for a tenant", Body("tenant_id", "127.0.0.1"), 400, "tenant_id"},
		{"tenant with a line break", Body("tenant_id", "contoso.com\r\nHost: x"), 400, "tenant_id"},
		{"hostile names", Body("app", "../apps", "connection", "a/../../b"), 400, "app connection"},
		{"hostile scope", Body("scope", "https://graph.microsoft.com/.default https://x/.default"), 400, "scope"},
		{"pasted line break", Body("client_secret", Secret+"\n"), 400, "client_secret"},
		{"pasted space", Body("client_id", ClientID+" "), 400, "client_id"},
		{"invisible character in the secret", Body("client_secret", "c4nary\u200bx"), 400, "client_secret"},
		{"invisible character behind the secret", Body("client_secret", "c4nary\ufeff"), 400, "client_secret"},
		{"invisible character in the client ID", Body("client_id", ClientID[:8]+"\u200d"+ClientID[8:]), 400, "client_id"},
		{"invisible character in the tenant", Body("tenant_id", "contoso\u00ad.com"), 400, "tenant_id"},
		{"invisible character in the scope", Body("scope", "https://graph.microsoft.com\u2060/.default"), 400, "scope"},
		{"invisible characters in all of them", Body("client_secret", "c4nary\u202e", "tenant_id", "\u200bx.com", "scope", "\u200e"+Graph), 400, "client_secret scope tenant_id"},
		{"scope that AWS cannot store", Body("scope", "https://x.example/"+strings.Repeat("'", 200)+"/.default"), 400, "scope"},
		{"own scope that AWS cannot store", Object("tenant_id", TenantA, "scope", "https://x.example/"+strings.Repeat("~", 200)+"/.default"), 400, "scope"},
		{"long secret", Body("client_secret", long), 400, "client_secret"},
		{"service and scope", Body("service", "microsoft-graph"), 400, "service"},
		{"service that the cloud has not", Object("tenant_id", TenantA, "client_id", ClientID, "client_secret", Secret, "service", "azure-devops", "cloud", "china"), 400, "service"},
		{"service and hostile scope", Body("service", "microsoft-graph", "scope", "x"), 400, "scope service"},
		{"empty service", Object("tenant_id", TenantA, "client_id", ClientID, "client_secret", Secret, "service", ""), 400, "service"},
		{"cloud alone", Object("tenant_id", TenantA, "cloud", "public"), 400, "client_id client_secret scope"},
		{"client ID empty", Object("tenant_id", TenantA, "client_id", ""), 400, "client_id client_secret scope"},
		{"secret as a number", `{"tenant_id":"` + TenantA + `","client_secret":7}`, 400, "client_id client_secret scope"},
		{"no credential", Object("tenant_id", TenantA, "client_id", ClientID, "scope", Graph), 400, "client_secret"},
		{"everything at once", `{"tenant_id":1,"app":"A","connection":"","client_id":"x","client_secret":" x","scope":"x","cloud":"x","x":"x"}`, 400,
			"app client_id client_secret cloud connection scope tenant_id x"},

		{"64 KiB", sized(64 << 10), 400, "tenant_id x"},
		{"64 KiB and a byte", sized(64<<10 + 1), 413, ""},
		{"5 MB", Body("client_secret", strings.Repeat("a", 5<<20)), 413, ""},
	}
	for _, tt := range tests {
		for _, form := range []string{"plain", "base64"} {
			event := map[string]any{"version": "2.0", "rawPath": "/connections", "headers": map[string]string{"content-type": "application/json"}, "body": tt.body,
				"requestContext": map[string]any{"stage": "$default", "http": map[string]string{"method": "POST", "path": "/connections"}}}
			if form == "base64" {
				if len(tt.body) > 4<<20 {
					continue // larger than Lambda takes
				}
				event["body"], event["isBase64Encoded"] = base64.StdEncoding.EncodeToString([]byte(tt.body)), true
			} else if strings.Contains(tt.body, "\xff") {
				continue // an event is JSON, which cannot carry it
			}
			got := invoke(t, c, event)
			r := Reply{Status: got.StatusCode, Body: got.Body, Header: map[string][]string{"Content-Type": {got.Headers["content-type"]}}}
			if r.Status != tt.status {
				t.Errorf("%s, %s: status %d, want %d: %.300s", tt.name, form, r.Status, tt.status, r.Body)
				continue
			}
			if strings.Contains(r.Body, "c4nary") || strings.Contains(r.Body, "\u200b") {
				t.Errorf("%s: quotes a value: %s", tt.name, r.Body)
			}
			var fields []string
			errors, _ := r.Want(t, tt.status).JSON(t)["errors"].([]any)
			for _, e := range errors {
				fields = append(fields, Text(e, "field"))
				if Text(e, "detail") == "" {
					t.Errorf("%s: a field error says nothing", tt.name)
				}
			}
			slices.Sort(fields)
			if got := strings.Join(fields, " "); got != tt.fields {
				t.Errorf("%s, %s: names %q, want %q", tt.name, form, got, tt.fields)
			}
		}
	}

	event := map[string]any{"rawPath": "/connections", "isBase64Encoded": true, "body": "{not base64}",
		"requestContext": map[string]any{"http": map[string]string{"method": "POST"}}}
	if got := invoke(t, c, event); got.StatusCode != 400 || !strings.Contains(got.Body, "base64") {
		t.Errorf("bad base64: %d %s", got.StatusCode, got.Body)
	}
	var many strings.Builder
	many.WriteString(`{"tenant_id":"` + TenantA + `"`)
	for i := range 2000 {
		fmt.Fprintf(&many, `,"%s%04d":"x"`, "unknown", i)
	}
	if r := c.Call("POST", "/connections", many.String()+"}").Want(t, 400); strings.Count(r.Body, `"field"`) != 50 || !strings.Contains(r.Body, `"unknown0049"`) {
		t.Errorf("2000 unknown fields: %d bytes, %.200s", len(r.Body), r.Body)
	}
	// An event made by hand may have the query in its parsed form alone.
	for app, want := range map[string]int{"default": 200, "none": 200, "a&limit=1": 400} {
		event := map[string]any{"rawPath": "/connections", "queryStringParameters": map[string]string{"app": app},
			"requestContext": map[string]any{"http": map[string]string{"method": "GET"}}}
		got := invoke(t, c, event)
		if got.StatusCode != want || (app == "default") != strings.Contains(got.Body, TenantA) || (want == 400) != strings.Contains(got.Body, `"field":"app"`) {
			t.Errorf("app %s in a parsed query: %d %s", app, got.StatusCode, got.Body)
		}
	}
	if got := invoke(t, c, map[string]any{}); got.StatusCode != 404 {
		t.Errorf("an empty event: %d", got.StatusCode)
	}
	// A field after the fiftieth mistake is not called missing.
	many.Reset()
	for i := range 60 {
		fmt.Fprintf(&many, `"unknown%d":"x",`, i)
	}
	if r := c.Call("POST", "/connections", "{"+many.String()+Body()[1:]).Want(t, 400); strings.Contains(r.Body, "is required") {
		t.Errorf("%s", r.Body[len(r.Body)-200:])
	}
	for _, path := range []string{"/connections/Default/acme", "/connections/default/a%00b", "/connections/default/%20", "/apps/A", "/apps/" + strings.Repeat("a", 65)} {
		if r := c.Call("GET", path, ""); r.Status != 400 || !strings.Contains(r.Body, `"field"`) {
			t.Errorf("GET %s: %d %s", path, r.Status, r.Body)
		}
	}
	if r := c.Call("PUT", "/apps/Default", Object("app", "x", "client_id", "x")).Want(t, 400); strings.Count(r.Body, `"field"`) != 3 {
		t.Errorf("PUT of a bad app: %s", r.Body)
	}

	if c.Secrets.Snapshot() != before {
		t.Error("bad input changed what is stored")
	}
	if now := len(c.Entra.Requests()); now != asked {
		t.Errorf("bad input sent %d requests to Entra", now-asked)
	}
	c.Call("GET", "/connections/default/"+TenantA, "").Want(t, 200)
}
