package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/stack"
	. "entra-connector/internal/stack/stacktest"
	"entra-connector/pkg/entra/entratest"
)

// brief leaves no time to try again what may pass.
var brief = stack.Options{APITimeout: 5 * time.Second}

// A provisioning that is refused or fails stores nothing. Its answer says what happened and what to
// do.
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
		{name: "disabled app", body: Body(), response: entratest.Refused(7000112), status: 422, code: "AADSTS7000112"},
		{name: "unknown tenant", body: Body("tenant_id", "eeeeeeee-0000-4000-8000-000000000005"), status: 422, code: "AADSTS90002"},
		{name: "unknown domain", body: Body("tenant_id", "nobody.example"), status: 422, code: "AADSTS90002"},
		{name: "unknown app", body: Body("client_id", "eeeeeeee-0000-4000-8000-000000000005"), status: 422, code: "AADSTS700016"},
		{name: "unknown resource", body: Body("scope", "https://nothing.example/.default"), status: 422, code: "AADSTS500011"},
		{name: "no consent", body: Body(), response: entratest.Refused(7000229), status: 422, code: "AADSTS7000229"},
		{name: "refused under status 200", body: Body(), response: entratest.OKWithError(7000222), status: 422, code: "AADSTS7000222"},
		{name: "web page", body: Body(), response: entratest.HTML(200), status: 502, code: "invalid_response"},
		{name: "echoed form", body: Body(), response: entratest.EchoForm(400), status: 502, code: "invalid_response"},
		{name: "truncated", body: Body(), response: entratest.Truncated(), status: 502, code: "invalid_response"},
		{name: "over 1 MiB", body: Body(), response: entratest.With("padding", strings.Repeat("x", 1<<20)), status: 502, code: "invalid_response"},
		{name: "token that no secret can hold", body: Body(), status: 502, code: "invalid_response",
			response: entratest.Raw(200, "application/json", `{"token_type":"Bearer","expires_in":3599,"access_token":"`+strings.Repeat("a", 64<<10+1)+`"}`)},
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
			if problem["code"] != tt.code || Text(problem, "action") == "" || r.Header.Get("Retry-After") != tt.retryAfter {
				t.Errorf("%s: code %v, action %v, Retry-After %q", name, problem["code"], problem["action"], r.Header.Get("Retry-After"))
			}
			if tt.status == 422 && (Text(problem, "trace_id") == "" || Text(problem, "correlation_id") == "") {
				t.Errorf("%s: no trace or correlation ID: %s", name, r.Body)
			}
			if c.Secrets.Snapshot() != before {
				t.Fatalf("%s: Secrets Manager holds something else than before", name)
			}
		}
	}
}

// Every code that Entra is known to refuse with becomes an answer with the right status and advice.
func TestEveryCodeHasItsStatus(t *testing.T) {
	t.Parallel()
	statuses := map[int][]int{
		422: {7000215, 70002, 700027, 70021, 700211, 700212, 700213, 7002131, 700016, 7000229, 700011, 500011, 65001, 650056, 90094,
			7000222, 7000216, 7000218, 700025, 50012, 700030, 50048, 50027, 50013, 500133, 700024, 700229, 1000502, 7000213, 7000214,
			7000112, 70001, 1000031, 90002, 900023, 90019, 50059, 50128, 9001023, 90124, 90130, 50194, 90038, 900382, 900432, 500021, 500022,
			70011, 1002012, 28002, 28003, 700022, 700023, 901002, 500014, 650052, 650054, 650057, 50001, 501051, 90036, 90092, 50000, 123456,
			53003, 53000, 53001, 53002, 53004, 530031, 530032, 530034, 530084},
		503: {50196, 90055, 90033, 90006, 90012, 90024, 50033, 90085, 90090, 90091, 40010, 50087, 50166, 90061, 501661, 7002381},
	}
	c := Start(t, brief)
	for status, codes := range statuses {
		for _, code := range codes {
			c.Entra.ClearFaults()
			c.Entra.Fail(entratest.Fault{Endpoint: "token", Response: answerOf("invalid_request", code)})
			r := c.Call("POST", "/connections", Body()).Want(t, status)
			problem := r.JSON(t)
			if problem["code"] != fmt.Sprintf("AADSTS%d", code) || Text(problem, "action") == "" || Text(problem, "correlation_id") == "" {
				t.Errorf("%d: %v", code, problem)
			}
			if (status == 503) != (r.Header.Get("Retry-After") != "") {
				t.Errorf("%d: Retry-After %q", code, r.Header.Get("Retry-After"))
			}
		}
	}
	if names := c.Secrets.Names(); len(names) != 0 {
		t.Errorf("stored: %v", names)
	}
}

// answerOf is a refusal with an OAuth error and codes that need not fit each other.
func answerOf(oauthError string, codes ...int) entratest.Response {
	list, _ := json.Marshal(codes)
	return entratest.Raw(400, "application/json", fmt.Sprintf(`{"error":%q,"error_codes":%s}`, oauthError, list))
}

// The answer says in words what is wrong, even if only the OAuth error is known.
func TestWhatTheAnswerSays(t *testing.T) {
	t.Parallel()
	c := Start(t, brief)
	for _, tt := range []struct {
		answer              entratest.Response
		code, says, saysNot string
	}{
		{answer: answerOf("invalid_client", 1000502), code: "AADSTS1000502", says: "certificate has expired"},
		{answer: answerOf("invalid_client", 7000214), code: "AADSTS7000214", says: "certificate has been revoked"},
		{answer: answerOf("invalid_client", 7000213), code: "AADSTS7000213", says: "chain of the app's certificate"},
		{answer: answerOf("invalid_grant", 530034), code: "AADSTS530034", says: "Conditional Access"},
		{answer: answerOf("invalid_client", 7009999), code: "AADSTS7009999", says: "does not accept the app's credential (error 7009999)"},
		{answer: answerOf("invalid_scope", 7009999), code: "AADSTS7009999", says: "does not accept the scope (error 7009999)"},
		{answer: answerOf("unauthorized_client", 7009999), code: "AADSTS7009999", says: "may not use this grant in this tenant (error 7009999)"},
		{answer: answerOf("invalid_request", 1002016), code: "AADSTS1002016", says: "(error 1002016)"},
		{answer: answerOf("invalid_client", 70002, 50012), code: "AADSTS50012", says: "client assertion", saysNot: "secret is wrong"},
		{answer: answerOf("invalid_client", 7009999, 7000214), code: "AADSTS7000214", says: "revoked"},
		{answer: answerOf("invalid_request", 50166), code: "AADSTS50166", says: "cannot fetch the signing keys"},
	} {
		c.Entra.ClearFaults()
		c.Entra.Fail(entratest.Fault{Endpoint: "token", Response: tt.answer})
		r := c.Call("POST", "/connections", Body())
		if p := r.JSON(t); p["code"] != tt.code || !strings.Contains(Text(p, "title"), tt.says) && !strings.Contains(Text(p, "action"), tt.says) ||
			tt.saysNot != "" && strings.Contains(r.Body, tt.saysNot) || strings.Contains(r.Body, "Microsoft's list") {
			t.Errorf("%s: %s", tt.code, r.Body)
		}
	}
	c.Entra.ClearFaults()
	c.Entra.Revoke(TenantA, ClientID)
	refused := c.Call("POST", "/connections", Body()).Want(t, 422).JSON(t)
	if want := c.Entra.URL() + "/" + TenantA + "/adminconsent?client_id=" + ClientID; refused["consent_url"] != want {
		t.Errorf("consent at %v, want %s", refused["consent_url"], want)
	}
}

// A failure that passes within seconds is ridden out within the request.
func TestOnePassingFailure(t *testing.T) {
	t.Parallel()
	for _, code := range []int{7000222, 50166} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			t.Parallel()
			c := Start(t, stack.Options{})
			c.Entra.Fail(entratest.Fault{Endpoint: "token", Times: 1, Response: entratest.Refused(code)})
			c.Call("POST", "/connections", Body()).Want(t, 201)
		})
	}
}

// Whoever sends a client secret's ID instead of its value is told so at once.
func TestSecretID(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	const id = "12345678-0000-4000-8000-00000000000f"
	r := c.Call("POST", "/connections", Body("client_secret", id)).Want(t, 422)
	if p := r.JSON(t); !strings.Contains(Text(p, "title"), "secret's ID") || !strings.Contains(Text(p, "action"), "Value") || strings.Contains(r.Body, id) {
		t.Errorf("%s", r.Body)
	}
	if n := len(c.Entra.Requests()); n != 1 {
		t.Errorf("Entra was asked %d times", n)
	}
}

// If nobody answers, the reply still gets out before Lambda stops the function.
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

// A reply is out within 25 s even if everything is slow, but nothing so slow that its own time-out
// ends it. A function that took longer would have the token after 25.5 s, and answer 201.
func TestEveryReplyIsOutIn25Seconds(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	c.Secrets.Fail(secretstoretest.Fault{Op: "DescribeSecret", Times: 1, Delay: 4 * time.Second})
	c.Entra.Fail(entratest.Fault{Endpoint: "openid", Times: 1, Delay: 9 * time.Second})
	c.Entra.Fail(entratest.Fault{Endpoint: "token", Times: 1, Delay: 8500 * time.Millisecond})
	c.Secrets.Fail(secretstoretest.Fault{Op: "CreateSecret", Times: 1, Delay: 4 * time.Second})
	c.Call("POST", "/connections", Body("tenant_id", "contoso.com")).Want(t, 504)
	if requests := c.Entra.Requests(); len(requests) != 2 || requests[1].Endpoint != "token" {
		t.Errorf("it was over after %d requests to Entra", len(requests))
	}
	if names := c.Secrets.Names(); len(names) != 0 || strings.Contains(c.Output(), "timed out") {
		t.Errorf("stored: %v; output\n%s", names, c.Output())
	}
	c.Call("POST", "/connections", Body("tenant_id", "contoso.com")).Want(t, 201)
}

// Whoever waits as long as Retry-After says is not early, even if Entra named a date, which is no
// whole number of seconds away.
func TestRetryAfterIsNeverTooShort(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	start := time.Now()
	at := start.Add(90 * time.Second).Truncate(time.Second)
	c.Entra.Fail(entratest.Fault{Response: entratest.Throttled(at.UTC().Format(http.TimeFormat))})
	r := c.Call("POST", "/connections", Body()).Want(t, 503)
	wait, err := time.ParseDuration(r.Header.Get("Retry-After") + "s")
	if now := time.Now(); err != nil || now.Add(wait).Before(at) || start.Add(wait).After(at.Add(time.Second)) {
		t.Errorf("Retry-After %q, for %s at %s", r.Header.Get("Retry-After"), at, now)
	}
}

// routes returns all routes, in an order in which each finds what it needs if default/healthy
// exists.
func routes() [][3]string {
	return [][3]string{
		{"POST", "/connections", Body("connection", "healthy")}, {"GET", "/connections", ""}, {"GET", "/connections/default/healthy", ""},
		{"POST", "/connections/default/healthy/refresh", ""}, {"PUT", "/apps/default", AppBody()}, {"GET", "/apps", ""}, {"GET", "/apps/default", ""},
		{"DELETE", "/connections/default/healthy", ""}, {"DELETE", "/apps/default", ""},
	}
}

func TestSecretsManagerInTrouble(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	c.Call("POST", "/connections", Body("connection", "healthy")).Want(t, 201)
	for name, tt := range map[string]struct {
		fault  secretstoretest.Fault
		status int
		retry  string
		says   string
	}{
		"throttled":   {secretstoretest.Fault{Error: "ThrottlingException"}, 503, "30", "not available"},
		"unavailable": {secretstoretest.Fault{Error: "InternalServiceError"}, 503, "30", "not available"},
		"dropped":     {secretstoretest.Fault{Drop: true}, 503, "30", "not available"},
		"forbidden":   {secretstoretest.Fault{Error: "AccessDeniedException"}, 500, "", "function's role"},
		"no key":      {secretstoretest.Fault{Error: "DecryptionFailure"}, 500, "", "KMS"},
	} {
		c.Secrets.Fail(tt.fault)
		for _, route := range routes() {
			c.Secrets.ResetCalls()
			r := c.Call(route[0], route[1], route[2])
			if r.Status != tt.status || r.Header.Get("Retry-After") != tt.retry || strings.Contains(r.Body, "arn:") || !strings.Contains(r.Body, tt.says) {
				t.Errorf("%s: %s %s: %d, Retry-After %q, %s", name, route[0], route[1], r.Status, r.Header.Get("Retry-After"), r.Body)
			}
			if calls := c.Secrets.Calls(); !slices.ContainsFunc(calls, func(call secretstoretest.Call) bool {
				return strings.Contains(r.Body, call.Op+" on entra/") && strings.Contains(r.Body, call.Secret)
			}) {
				t.Errorf("%s: %s %s names none of %v: %s", name, route[0], route[1], calls, r.Body)
			}
		}
		c.Secrets.ClearFaults()
	}
	c.Call("GET", "/connections/default/healthy", "").Want(t, 200)
}

// A call to AWS whose answer breaks off is made again, whatever the call.
func TestAnswersThatBreakOff(t *testing.T) {
	t.Parallel()
	options, forward := ahead()
	options.Env = []string{"AWS_MAX_ATTEMPTS=3"}
	c := Start(t, options)
	for _, op := range []string{"", "GetSecretValue", "DescribeSecret", "ListSecrets", "CreateSecret", "UpdateSecret", "TagResource", "UntagResource", "DeleteSecret", "RestoreSecret"} {
		for _, route := range routes() {
			c.Secrets.Fail(secretstoretest.Fault{Op: op, Times: 1, Break: true, After: true})
			if r := c.Call(route[0], route[1], route[2]); r.Status/100 != 2 {
				t.Errorf("%s %s, when %s breaks off: %d %s", route[0], route[1], op, r.Status, r.Body)
			}
			c.Secrets.ClearFaults()
		}
		forward(2 * time.Minute)
	}
}
