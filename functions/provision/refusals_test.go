package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/stack"
	. "entra-connector/internal/stack/stacktest"
	"entra-connector/pkg/entra/entratest"
)

// brief leaves no time to wait for a secret or a consent to be known.
var brief = stack.Options{APITimeout: 5 * time.Second}

// After any refused or failed provisioning, Secrets Manager holds what it held
// before, and the answer says what happened and what to do.
func TestProveBeforeStore(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		response   entratest.Response
		body       string
		status     int
		code       string
		retryAfter string
	}{
		{name: "wrong secret", body: Body("client_secret", Wrong), status: 422, code: "AADSTS7000215"},
		{name: "expired secret", body: Body("client_secret", Expired), status: 422, code: "AADSTS7000222"},
		{name: "unknown tenant", body: Body("tenant_id", "eeeeeeee-0000-4000-8000-000000000005"), status: 422, code: "AADSTS90002"},
		{name: "unknown domain", body: Body("tenant_id", "nobody.example"), status: 422, code: "AADSTS90002"},
		{name: "unknown app", body: Body("client_id", "eeeeeeee-0000-4000-8000-000000000005"), status: 422, code: "AADSTS700016"},
		{name: "unknown resource", body: Body("scope", "https://nothing.example/.default"), status: 422, code: "AADSTS500011"},
		{name: "no consent", body: Body(), response: entratest.Refused(7000229), status: 422, code: "AADSTS7000229"},
		{name: "refused under status 200", body: Body(), response: entratest.OKWithError(7000222), status: 422, code: "AADSTS7000222"},
		{name: "web page", body: Body(), response: entratest.HTML(200), status: 502, code: "invalid_response"},
		{name: "echoed form", body: Body(), response: entratest.EchoForm(400), status: 502, code: "invalid_response"},
		{name: "truncated", body: Body(), response: entratest.Truncated(), status: 502, code: "invalid_response"},
		{name: "over 1 MiB", body: Body(), response: entratest.HugeBody(), status: 502, code: "invalid_response"},
		{name: "redirect", body: Body(), response: entratest.Redirect("https://example.com/"), status: 502, code: "invalid_response"},
		{name: "throttled", body: Body(), response: entratest.Throttled("60"), status: 503, code: "throttled", retryAfter: "60"},
		{name: "unavailable", body: Body(), response: entratest.Unavailable("120"), status: 503, code: "unavailable", retryAfter: "120"},
		{name: "echoed form from a gateway", body: Body(), response: entratest.EchoForm(502), status: 503, code: "unavailable", retryAfter: "30"},
		{name: "dropped", body: Body(), response: entratest.Drop(), status: 503, code: "unavailable", retryAfter: "30"},
		{name: "domain look-up throttled", body: Body("tenant_id", "contoso.com"), response: entratest.Throttled("60"), status: 503, code: "throttled", retryAfter: "60"},
	}
	c := Start(t, brief)
	c.Call("POST", "/connections", Body("connection", "healthy")).Want(t, 201)
	before := c.Secrets.Snapshot()
	for _, app := range []string{"default", "new"} {
		for _, tt := range tests {
			name := tt.name + ", app " + app
			c.Entra.ClearFaults()
			c.Entra.Fail(entratest.Fault{Response: tt.response})
			request := strings.TrimSuffix(tt.body, "}") + `,"app":"` + app + `"}`
			if app == "default" && strings.Contains(tt.name, "unknown app") || app == "default" && strings.Contains(tt.name, "unknown resource") {
				continue // a conflict, before Entra is asked
			}
			r := c.Call("POST", "/connections", request)
			if r.Status != tt.status {
				t.Errorf("%s: status %d, want %d: %s", name, r.Status, tt.status, r.Body)
				continue
			}
			problem := r.Want(t, tt.status).JSON(t)
			if problem["code"] != tt.code || fmt.Sprint(problem["action"]) == "" || r.Header.Get("Retry-After") != tt.retryAfter {
				t.Errorf("%s: code %v, action %v, Retry-After %q", name, problem["code"], problem["action"], r.Header.Get("Retry-After"))
			}
			if tt.status == 422 && (problem["trace_id"] == nil || problem["correlation_id"] == nil) {
				t.Errorf("%s: no trace or correlation ID: %s", name, r.Body)
			}
			if c.Secrets.Snapshot() != before {
				t.Fatalf("%s: Secrets Manager holds something else than before", name)
			}
		}
	}
}

// With nobody answering, the reply still gets out before the function's time is
// over, and the function lives.
func TestNoAnswerInTime(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{APITimeout: 3 * time.Second})
	c.Call("POST", "/connections", Body("connection", "healthy")).Want(t, 201)
	before := c.Secrets.Snapshot()
	c.Entra.Fail(entratest.Fault{Times: 1, Response: entratest.Hang()})
	c.Call("POST", "/connections", Body()).Want(t, 504)
	c.Secrets.Fail(secretstoretest.Fault{Op: "GetSecretValue", Times: 1, Delay: time.Minute})
	c.Call("POST", "/connections", Body()).Want(t, 504)
	if c.Secrets.Snapshot() != before {
		t.Error("Secrets Manager holds something else than before")
	}
	c.Call("GET", "/connections/default/healthy", "").Want(t, 200)
}

func TestSecretsManagerInTrouble(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	c.Call("POST", "/connections", Body("connection", "healthy")).Want(t, 201)
	for name, tt := range map[string]struct {
		fault  secretstoretest.Fault
		status int
		retry  string
	}{
		"throttled":   {secretstoretest.Fault{Error: "ThrottlingException"}, 503, "30"},
		"unavailable": {secretstoretest.Fault{Error: "InternalServiceError"}, 503, "30"},
		"dropped":     {secretstoretest.Fault{Drop: true}, 503, "30"},
		"forbidden":   {secretstoretest.Fault{Error: "AccessDeniedException"}, 500, ""},
	} {
		c.Secrets.Fail(tt.fault)
		for _, route := range [][3]string{
			{"POST", "/connections", Body()}, {"GET", "/connections", ""}, {"GET", "/connections/default/healthy", ""}, {"POST", "/connections/default/healthy/refresh", ""},
			{"DELETE", "/connections/default/healthy", ""}, {"PUT", "/apps/default", AppBody()}, {"GET", "/apps", ""}, {"GET", "/apps/default", ""}, {"DELETE", "/apps/default", ""},
		} {
			r := c.Call(route[0], route[1], route[2])
			if r.Status != tt.status || r.Header.Get("Retry-After") != tt.retry || strings.Contains(r.Body, "arn:") {
				t.Errorf("%s: %s %s: %d, Retry-After %q, %s", name, route[0], route[1], r.Status, r.Header.Get("Retry-After"), r.Body)
			}
		}
		c.Secrets.ClearFaults()
	}
	c.Call("GET", "/connections/default/healthy", "").Want(t, 200)
}
