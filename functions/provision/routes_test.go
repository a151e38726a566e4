package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"entra-connector/internal/stack"
	. "entra-connector/internal/stack/stacktest"
	"entra-connector/pkg/entra/entratest"
)

func TestProvisionAnswersWithTheConnection(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	r := c.Call("POST", "/connections", Body("tenant_id", "Contoso.com")).Want(t, 201)
	if got, want := r.Header.Get("Location"), "/connections/default/"+TenantA; got != want {
		t.Errorf("Location %q, want %q", got, want)
	}
	got := r.JSON(t)
	expires, err1 := time.Parse(time.RFC3339, got["expires_at"].(string))
	refreshed, err2 := time.Parse(time.RFC3339, got["refreshed_at"].(string))
	if life := expires.Sub(refreshed); err1 != nil || err2 != nil || life != 3599*time.Second {
		t.Errorf("refreshed at %v, expires at %v", got["refreshed_at"], got["expires_at"])
	}
	delete(got, "expires_at")
	delete(got, "refreshed_at")
	secretOf := got["secret"].(map[string]any)
	if arn := fmt.Sprint(secretOf["arn"]); !strings.HasPrefix(arn, "arn:aws:secretsmanager:us-east-1:123456789012:secret:entra/connections/default/"+TenantA+"-") {
		t.Errorf("ARN %s", arn)
	}
	delete(secretOf, "arn")
	want := `{"app":"default","cloud":"public","connection":"` + TenantA + `","scope":"` + Graph + `","secret":{"name":"entra/connections/default/` + TenantA + `"},` +
		`"status":"ok","tenant_id":"` + TenantA + `","token_type":"Bearer"}`
	if rest, _ := json.Marshal(got); string(rest) != want {
		t.Errorf("connection\n got %s\nwant %s", rest, want)
	}
	if got := c.Token("default/" + TenantA); got == "" || got != c.LastToken() {
		t.Error("the stored token is not the one that Entra issued")
	}
	if got, want := c.Secrets.Names(), []string{"entra/apps/default", "entra/connections/default/" + TenantA}; !slices.Equal(got, want) {
		t.Errorf("secrets %v, want %v", got, want)
	}
}

func TestProvisionConflicts(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	c.Call("POST", "/connections", Body("connection", "acme")).Want(t, 201)
	_, file := newCertificate(t, 365)
	app := Object("tenant_id", TenantA, "client_id", ClientID, "scope", Graph)
	before := c.Secrets.Snapshot()
	for name, tt := range map[string]struct{ body, says string }{
		"other client ID":          {Body("client_id", OtherID), "client_id"},
		"other cloud":              {Body("cloud", "usgov"), "cloud"},
		"certificate":              {with(app, "certificate", quoted(file)), "kind of credential"},
		"federation":               {with(app, "federation", "{}"), "kind of credential"},
		"other tenant":             {Body("connection", "acme", "tenant_id", TenantB), "another tenant"},
		"other tenant, by name":    {Object("connection", "acme", "tenant_id", TenantB), "another tenant"},
		"other scope":              {Body("connection", "acme", "scope", "https://storage.azure.com/.default"), "another scope"},
		"other scope, by name":     {Object("connection", "acme", "tenant_id", TenantA, "service", "azure-devops"), "another scope"},
		"other client ID and kind": {with(Object("tenant_id", TenantA, "client_id", OtherID, "scope", Graph), "federation", "{}"), "client_id, kind of credential"},
	} {
		detail := fmt.Sprint(c.Call("POST", "/connections", tt.body).Want(t, 409).JSON(t)["detail"])
		if !strings.Contains(detail, tt.says) || !regexp.MustCompile(`(?i)use another`).MatchString(detail) {
			t.Errorf("%s: %s", name, detail)
		}
	}
	if c.Secrets.Snapshot() != before {
		t.Error("a conflict changed something")
	}
	c.Call("POST", "/connections", Body("app", "other", "client_id", OtherID)).Want(t, 201)
	if c.Secrets.Snapshot() == before {
		t.Error("the snapshot shows nothing")
	}
	c.Call("POST", "/connections", Object("tenant_id", TenantA, "app", "nowhere")).Want(t, 404)
}

func TestConnectionRoutes(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	one := "/connections/default/acme"
	for _, route := range [][2]string{{"GET", one}, {"POST", one + "/refresh"}, {"DELETE", one}} {
		c.Call(route[0], route[1], "").Want(t, 404)
	}
	created := c.Call("POST", "/connections", Body("connection", "acme")).Want(t, 201)
	if got := c.Call("GET", one, "").Want(t, 200); got.Body != created.Body {
		t.Errorf("GET answers\n%s, POST answered\n%s", got.Body, created.Body)
	}
	old := c.Token("default/acme")
	c.Call("POST", one+"/refresh", "").Want(t, 200)
	if now := c.Token("default/acme"); now == old || now != c.LastToken() {
		t.Error("refresh did not store a new token")
	}

	c.Call("DELETE", one, "").Want(t, 204)
	c.Call("GET", one, "").Want(t, 404)
	c.Call("DELETE", one, "").Want(t, 404)
	c.Call("POST", one+"/refresh", "").Want(t, 404)
	if list := c.Call("GET", "/connections", "").Want(t, 200); list.Body != `{"connections":[]}`+"\n" {
		t.Errorf("after the deletion: %s", list.Body)
	}
	// The name can be had again within the recovery window, by another tenant too.
	restored := c.Call("POST", "/connections", Body("connection", "acme", "tenant_id", TenantB)).Want(t, 201).JSON(t)
	if restored["tenant_id"] != TenantB || restored["status"] != "ok" || c.Token("default/acme") != c.LastToken() {
		t.Errorf("restored as %v", restored)
	}
	if arn := created.JSON(t)["secret"].(map[string]any)["arn"]; restored["secret"].(map[string]any)["arn"] != arn {
		t.Error("the restored secret has another ARN, so policies on the old one are void")
	}
}

func TestRefreshTellsWhatEntraSays(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	one := "/connections/default/acme"
	c.Call("POST", "/connections", Body("connection", "acme")).Want(t, 201)
	old := c.Token("default/acme")
	c.Entra.Fail(entratest.Fault{Times: 1, Response: entratest.Refused(7000112)})
	c.Call("POST", one+"/refresh", "").Want(t, 422)
	got := c.Call("GET", one, "").Want(t, 200).JSON(t)
	failure, _ := got["error"].(map[string]any)
	if got["status"] != "refused" || failure["code"] != "AADSTS7000112" || got["next_attempt_at"] == nil {
		t.Errorf("connection %v", got)
	}
	for _, key := range []string{"title", "action", "at", "trace_id", "correlation_id"} {
		if s, _ := failure[key].(string); s == "" {
			t.Errorf("the error has no %s", key)
		}
	}
	if c.Token("default/acme") != old {
		t.Error("a failed refresh changed the stored token")
	}

	c.Entra.Fail(entratest.Fault{Times: 1, Response: entratest.Throttled("60")})
	throttled := c.Call("POST", one+"/refresh", "").Want(t, 503)
	if got := throttled.Header.Get("Retry-After"); got != "60" {
		t.Errorf("Retry-After %q, want Entra's own", got)
	}
	if got := c.Call("GET", one, "").JSON(t); got["status"] != "retrying" {
		t.Errorf("status %v", got["status"])
	}
	// Refreshing by hand does not wait.
	if got := c.Call("POST", one+"/refresh", "").Want(t, 200).JSON(t); got["status"] != "ok" || got["error"] != nil || got["next_attempt_at"] != nil {
		t.Errorf("after a refresh that worked: %v", got)
	}
}

func TestListPages(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	c.Call("POST", "/connections", Body("connection", "first")).Want(t, 201)
	c.Call("POST", "/connections", Body("app", "other", "client_id", OtherID, "connection", "x")).Want(t, 201)
	for i := range 120 {
		c.Clone("default/first", fmt.Sprintf("default/n%03d", i))
	}
	c.Clone("default/first", "default-2/x")

	read := func(query string) (names []string, pages int) {
		for next := ""; ; pages++ {
			page := c.Call("GET", "/connections?"+query+next, "").Want(t, 200).JSON(t)
			for _, item := range page["connections"].([]any) {
				names = append(names, fmt.Sprint(item.(map[string]any)["app"], "/", item.(map[string]any)["connection"]))
			}
			cursor, more := page["next"].(string)
			if !more {
				return names, pages + 1
			}
			next = "&cursor=" + cursor
		}
	}
	if names, pages := read(""); len(names) != 123 || pages != 2 || len(slices.Compact(slices.Sorted(slices.Values(names)))) != 123 {
		t.Errorf("%d connections on %d pages, want 123 on 2", len(names), pages)
	}
	if names, pages := read("app=default&limit=50"); len(names) != 121 || pages != 3 {
		t.Errorf("%d connections of the app on %d pages, want 121 on 3", len(names), pages)
	}
	if names, _ := read("app=other"); !slices.Equal(names, []string{"other/x"}) {
		t.Errorf("connections of the other app: %v", names)
	}
	if names, _ := read("app=none"); len(names) != 0 {
		t.Errorf("connections of no app: %v", names)
	}
	for query, field := range map[string]string{
		"limit=0": "limit", "limit=101": "limit", "limit=ten": "limit", "limit=": "limit", "app=X": "app", "app=": "app",
		"cursor=%25": "cursor", "cursor=bm8": "cursor", "cursor=": "cursor", "ap=default": "ap", "app=a&app=b": "app",
	} {
		problem := c.Call("GET", "/connections?"+query, "").Want(t, 400)
		if !strings.Contains(problem.Body, `"field":"`+field+`"`) {
			t.Errorf("%s: %s", query, problem.Body)
		}
	}
}

func TestAppRoutes(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	if got := c.Call("GET", "/apps", "").Want(t, 200).Body; got != `{"apps":[]}`+"\n" {
		t.Errorf("no apps: %s", got)
	}
	c.Call("GET", "/apps/default", "").Want(t, 404)
	c.Call("DELETE", "/apps/default", "").Want(t, 404)

	// Without connections there is no tenant in which it could be proved.
	created := c.Call("PUT", "/apps/default", AppBody("client_secret", Wrong)).Want(t, 201)
	app := created.JSON(t)
	if app["app"] != "default" || app["client_id"] != ClientID || app["scope"] != Graph || app["cloud"] != "public" {
		t.Errorf("app %v", app)
	}
	if location := created.Header.Get("Location"); location != "/apps/default" {
		t.Errorf("Location %q", location)
	}
	c.Call("PUT", "/apps/default", Object("client_id", ClientID, "client_secret", Secret, "service", "microsoft-graph")).Want(t, 200)
	c.Call("PUT", "/apps/two", AppBody("client_id", OtherID)).Want(t, 201)
	if list := c.Call("GET", "/apps", "").Want(t, 200); !strings.Contains(list.Body, `"app":"default"`) || !strings.Contains(list.Body, `"app":"two","client_id":"`+OtherID) {
		t.Errorf("apps: %s", list.Body)
	}
	c.Call("POST", "/connections", Object("tenant_id", TenantA)).Want(t, 201)
	c.Call("DELETE", "/apps/default", "").Want(t, 409)
	c.Call("DELETE", "/connections/default/"+TenantA, "").Want(t, 204)
	c.Call("DELETE", "/apps/default", "").Want(t, 204)
	c.Call("GET", "/apps/default", "").Want(t, 404)
	c.Call("POST", "/connections", Object("tenant_id", TenantA)).Want(t, 404)
	c.Call("PUT", "/apps/default", AppBody("client_id", OtherID)).Want(t, 201)
	c.Call("POST", "/connections", Object("tenant_id", TenantA)).Want(t, 201)
}

// An app with connections is proved in one of their tenants. A tenant with troubles of its own does
// not count.
func TestPutAppProvesFirst(t *testing.T) {
	t.Parallel()
	c := Start(t, brief)
	c.Call("POST", "/connections", Body("connection", "a")).Want(t, 201)
	c.Call("POST", "/connections", Body("connection", "b", "tenant_id", TenantB)).Want(t, 201)
	before := c.Secrets.Snapshot()
	refused := c.Call("PUT", "/apps/default", AppBody("client_secret", Expired)).Want(t, 422).JSON(t)
	if refused["code"] != "AADSTS7000222" || !strings.Contains(fmt.Sprint(refused["action"]), "new client secret") {
		t.Errorf("problem %v", refused)
	}
	c.Entra.Fail(entratest.Fault{Times: 3, Response: entratest.Throttled("7")})
	if got := c.Call("PUT", "/apps/default", AppBody("client_secret", NewSecret)).Want(t, 503).Header.Get("Retry-After"); got != "7" {
		t.Errorf("Retry-After %q", got)
	}
	c.Entra.ClearFaults()
	if c.Secrets.Snapshot() != before {
		t.Error("an app that was not proved changed what is stored")
	}
	c.Entra.Revoke(TenantA, ClientID)
	c.Call("PUT", "/apps/default", AppBody("client_secret", NewSecret)).Want(t, 200)
}

func TestWhatHTTPSays(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	for _, path := range []string{"/", "/connection", "/connections/", "/connections/default", "/connections/a/b/c", "/connections/a/b/refresh/", "/apps/", "/apps/a/b",
		"//connections", "/connections/../apps", "/connections/./a", "/apps/..", "/connections//a"} {
		event := map[string]any{"version": "2.0", "rawPath": path, "requestContext": map[string]any{"http": map[string]string{"method": "GET", "path": path}}}
		if got := invoke(t, c, event); got.StatusCode != 404 || got.Headers["content-type"] != "application/problem+json" {
			t.Errorf("GET %s: %d %s", path, got.StatusCode, got.Headers["content-type"])
		}
	}
	for path, allow := range map[string]string{
		"/connections": "GET, HEAD, POST", "/connections/a/b": "DELETE, GET, HEAD", "/connections/a/b/refresh": "POST", "/apps": "GET, HEAD", "/apps/a": "DELETE, GET, HEAD, PUT",
	} {
		if got := c.Call("PATCH", path, "").Want(t, 405).Header.Get("Allow"); got != allow {
			t.Errorf("PATCH %s: Allow %q, want %q", path, got, allow)
		}
	}
	for _, mediaType := range []string{"text/plain", "application/x-www-form-urlencoded", "application/jsonp", "application/json; charset=latin1", "application/json;;", "nonsense"} {
		event := map[string]any{"rawPath": "/connections", "headers": map[string]string{"content-type": mediaType}, "body": Body(),
			"requestContext": map[string]any{"http": map[string]string{"method": "POST"}}}
		if got := invoke(t, c, event); got.StatusCode != http.StatusUnsupportedMediaType {
			t.Errorf("%s: %d", mediaType, got.StatusCode)
		}
	}
	for mediaType, body := range map[string]string{"application/json": Body(), "Application/JSON; charset=UTF-8": Body(), "application/json; charset=utf-8": "\ufeff" + Body()} {
		event := map[string]any{"rawPath": "/connections", "headers": map[string]string{"content-type": mediaType}, "body": body,
			"requestContext": map[string]any{"http": map[string]string{"method": "POST"}}}
		if got := invoke(t, c, event); got.StatusCode >= 300 {
			t.Errorf("%s: %d", mediaType, got.StatusCode)
		}
	}
	staged := map[string]any{"rawPath": "/prod/connections", "requestContext": map[string]any{"stage": "prod", "http": map[string]string{"method": "GET"}}}
	if got := invoke(t, c, staged); got.StatusCode != 200 || got.Headers["cache-control"] != "no-store" {
		t.Errorf("on a named stage: %d %v", got.StatusCode, got.Headers)
	}
}

// API Gateway chooses and authorises the route. The path that it passes on may begin with the base
// path of a custom domain.
func TestRouteKeys(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	send := func(routeKey, base, body, query string, parameters map[string]string) (status int, reply string) {
		method, path, _ := strings.Cut(routeKey, " ")
		for name, value := range parameters {
			path = strings.ReplaceAll(path, "{"+name+"}", value)
		}
		got := invoke(t, c, map[string]any{
			"version": "2.0", "routeKey": routeKey, "rawPath": base + path, "rawQueryString": query, "pathParameters": parameters, "body": body,
			"headers":        map[string]string{"content-type": "application/json", "host": "api.contoso.example"},
			"requestContext": map[string]any{"routeKey": routeKey, "stage": "$default", "http": map[string]string{"method": method, "path": base + path}},
		})
		return got.StatusCode, got.Body
	}
	app, one := map[string]string{"app": "default"}, map[string]string{"app": "default", "connection": "c"}
	for _, base := range []string{"", "/entra", "/a/b", "/connections"} {
		for _, tt := range []struct {
			routeKey, body, query string
			parameters            map[string]string
			status                int
			says                  string
		}{
			{"POST /connections", Body("connection", "c"), "", nil, 201, `"connection":"c"`},
			{"GET /connections", "", "app=default", nil, 200, `"connection":"c"`},
			{"GET /connections", "", "limit=0", nil, 400, `"field":"limit"`},
			{"GET /connections/{app}/{connection}", "", "", one, 200, `"connection":"c"`},
			{"POST /connections/{app}/{connection}/refresh", "", "", one, 200, `"connection":"c"`},
			{"PUT /apps/{app}", AppBody(), "", app, 200, `"app":"default"`},
			{"GET /apps", "", "", nil, 200, `"app":"default"`},
			{"GET /apps/{app}", "", "", app, 200, `"app":"default"`},
			{"GET /apps/{app}", "", "", map[string]string{"app": "a/b c"}, 400, `"field":"app"`},
			{"PATCH /apps/{app}", "", "", app, 405, "Allow"},
			{"GET /things/{app}", "", "", app, 404, "nothing at this path"},
			{"POST /connections/{app}/{connection}/rotate", "", "", one, 404, "nothing at this path"},
			{"GET /{proxy+}", "", "", map[string]string{"proxy": "apps"}, 404, "nothing at this path"},
			{"DELETE /connections/{app}/{connection}", "", "", one, 204, ""},
			{"DELETE /apps/{app}", "", "", app, 204, ""},
		} {
			if status, body := send(tt.routeKey, base, tt.body, tt.query, tt.parameters); status != tt.status || !strings.Contains(body, tt.says) {
				t.Errorf("%s below %q: %d %s", tt.routeKey, base, status, body)
			}
		}
	}
}
