package entra_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"entra-connector/pkg/entra"
	"entra-connector/pkg/entra/entratest"
)

const (
	canary   = "c4nary-secret"
	tenantA  = "aaaaaaaa-0000-4000-8000-000000000001"
	tenantB  = "bbbbbbbb-0000-4000-8000-000000000002"
	clientID = "cccccccc-0000-4000-8000-000000000003"
	graph    = "https://graph.microsoft.com/.default"
)

var start = time.Date(2026, 11, 23, 1, 0, 0, 0, time.UTC)

// world is a client of the stand-in Entra, on a clock that the test moves.
type world struct {
	now    time.Time
	entra  *entratest.Server
	client *entra.Client
}

// newWorld knows one app, which has consent in one tenant.
func newWorld(t *testing.T) *world {
	w := &world{now: start}
	w.entra = entratest.Start(t, entratest.Options{Now: w.clock})
	w.entra.AddApp(entratest.App{ClientID: clientID, Secrets: []entratest.Secret{{Value: canary}}})
	w.entra.AddTenant(entratest.Tenant{ID: tenantA, Domains: []string{"contoso.com"}})
	w.entra.AddTenant(entratest.Tenant{ID: tenantB, Domains: []string{"fabrikam.com"}})
	w.entra.Consent(tenantA, clientID, "User.Read.All")
	w.client = w.newClient(entra.ClientConfig{})
	return w
}

func (w *world) clock() time.Time { return w.now }

func (w *world) newClient(cfg entra.ClientConfig) *entra.Client {
	cfg.Authority, cfg.Now = w.entra.URL(), w.clock
	return entra.NewClient(cfg)
}

var registration = entra.Registration{
	ClientID: clientID, Credential: entra.Credential{ClientSecret: entra.NewSecret(canary)}, Cloud: entra.Public,
}

func ask(ctx context.Context, client *entra.Client) (entra.Token, error) {
	return client.Token(ctx, registration, graph, tenantA)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func asEntraError(t *testing.T, err error) *entra.Error {
	t.Helper()
	var refused *entra.Error
	if !errors.As(err, &refused) {
		t.Fatalf("error is %T (%v), want *entra.Error", err, err)
	}
	return refused
}

// The expiry is counted from when the request was sent, however long the answer took.
func TestTokenResponseForms(t *testing.T) {
	tests := []struct {
		name         string
		response     entratest.Response
		expires, ext int64 // seconds; zero: not a token response
	}{
		{"numbers as strings", entratest.With("expires_in", "3599", "ext_expires_in", "3599"), 3599, 3599},
		{"no ext_expires_in", entratest.With("ext_expires_in", nil), 3599, 3599},
		{"ten minutes", entratest.Lifetime(600), 600, 600},
		{"a day", entratest.Lifetime(86400), 86400, 86400},
		{"other ext_expires_in", entratest.Raw(200, "application/json", `{"token_type":"bearer","expires_in":3599,"ext_expires_in":7200,"access_token":"t"}`), 3599, 7200},
		{"odd ext_expires_in", entratest.Raw(200, "application/json", `{"token_type":"Bearer","expires_in":3599,"ext_expires_in":{},"access_token":"t"}`), 3599, 3599},
		{"no expires_in", entratest.With("expires_in", nil), 0, 0},
		{"no life", entratest.Lifetime(0), 0, 0},
		{"negative life", entratest.Lifetime(-1), 0, 0},
		{"other token type", entratest.Raw(200, "application/json", `{"token_type":"pop","expires_in":3599,"access_token":"t"}`), 0, 0},
		{"no token", entratest.Raw(200, "application/json", `{"token_type":"Bearer","expires_in":3599}`), 0, 0},
		{"token in a form", entratest.Raw(200, "text/plain", `token_type=Bearer&expires_in=3599&access_token=t`), 0, 0},
		{"web page", entratest.HTML(200), 0, 0},
		{"truncated", entratest.Truncated(), 0, 0},
		{"over 1 MiB", entratest.With("padding", strings.Repeat("x", 1<<20)), 0, 0},
		{"a token with a line break", entratest.Raw(200, "application/json", `{"token_type":"Bearer","expires_in":3599,"access_token":"a\nb"}`), 0, 0},
		{"a token that no secret holds", entratest.Raw(200, "application/json", `{"token_type":"Bearer","expires_in":3599,"access_token":"`+strings.Repeat("t", 64<<10)+`"}`), 0, 0},
	}
	w := newWorld(t)
	slow := w.newClient(entra.ClientConfig{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		w.now = w.now.Add(9 * time.Second)
		return http.DefaultTransport.RoundTrip(r)
	})})
	for _, tt := range tests {
		w.now = start.Add(700 * time.Millisecond)
		w.entra.Fail(entratest.Fault{Times: 1, Response: tt.response})
		token, err := ask(t.Context(), slow)
		if tt.expires == 0 {
			if e := asEntraError(t, err); e.Class != entra.Malformed {
				t.Errorf("%s: class %s, want malformed", tt.name, e.Class)
			}
			continue
		}
		want := map[string]string{
			"PAN_SEC_MICROSOFT_ENTRA_TOKEN_TYPE":     "Bearer",
			"PAN_SEC_MICROSOFT_ENTRA_EXPIRES_AT":     fmt.Sprint(start.Unix() + tt.expires),
			"PAN_SEC_MICROSOFT_ENTRA_EXPIRES_IN":     fmt.Sprint(tt.expires),
			"PAN_SEC_MICROSOFT_ENTRA_EXT_EXPIRES_IN": fmt.Sprint(tt.ext),
			"PAN_SEC_MICROSOFT_ENTRA_ACCESS_TOKEN":   token.AccessToken.Reveal(),
			"PAN_SEC_MICROSOFT_ENTRA_TENANT_ID":      tenantA,
		}
		if got := token.Values(); err != nil || !maps.Equal(got, want) || token.AccessToken.Reveal() == "" || token.ExpiresAt().Nanosecond() != 0 {
			t.Errorf("%s: values %v, %v, want %v", tt.name, got, err, want)
		}
	}
}

// What goes wrong lands in its class, after one request, and shows nothing of
// the answer or of the credential.
func TestFailures(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("a redirect was followed")
	}))
	defer elsewhere.Close()
	tests := []struct {
		name     string
		response entratest.Response
		class    entra.Class
		code     string
		wait     time.Duration
	}{
		{"throttled", entratest.Throttled("60"), entra.Throttled, "throttled", time.Minute},
		{"throttled until a date", entratest.Throttled(start.Add(90 * time.Second).Format(http.TimeFormat)), entra.Throttled, "throttled", 90 * time.Second},
		{"throttled until a date gone by", entratest.Throttled(start.Add(-time.Hour).Format(http.TimeFormat)), entra.Throttled, "throttled", 0},
		{"throttled for years", entratest.Throttled("999999999"), entra.Throttled, "throttled", 24 * time.Hour},
		{"throttled for ever", entratest.Throttled("99999999999999999999"), entra.Throttled, "throttled", 24 * time.Hour},
		{"throttled by nonsense", entratest.Throttled("soon"), entra.Throttled, "throttled", 0},
		{"throttled by less than nothing", entratest.Throttled("-5"), entra.Throttled, "throttled", 0},
		{"unavailable", entratest.Unavailable("120"), entra.Unavailable, "unavailable", 2 * time.Minute},
		{"bad gateway", entratest.HTML(502), entra.Unavailable, "unavailable", 0},
		{"timed out at a proxy", entratest.HTML(408), entra.Unavailable, "unavailable", 0},
		{"unavailable in OAuth's words", entratest.Raw(400, "application/json", `{"error":"temporarily_unavailable"}`), entra.Unavailable, "temporarily_unavailable", 0},
		{"passing code on 400", entratest.Refused(90033), entra.Unavailable, "AADSTS90033", 0},
		{"connection closed", entratest.Drop(), entra.Unavailable, "unavailable", 0},
		{"refused", entratest.Refused(7000112), entra.Refused, "AADSTS7000112", 0},
		{"refused under status 200", entratest.OKWithError(7000112), entra.Refused, "AADSTS7000112", 0},
		{"refused without codes", entratest.Raw(401, "application/json", `{"error":"invalid_client","error_description":"AADSTS7000112: disabled"}`), entra.Refused, "AADSTS7000112", 0},
		{"refused with a code that is none", entratest.Raw(401, "application/json", `{"error":"invalid_client","error_description":"AADSTS`+strings.Repeat("1", 5000)+`: x"}`), entra.Refused, "invalid_client", 0},
		{"refused with a code beyond all numbers", entratest.Raw(401, "application/json", `{"error":"invalid_client","error_codes":[1e999]}`), entra.Refused, "invalid_client", 0},
		{"refused with a code that is a fraction", entratest.Raw(401, "application/json", `{"error":"invalid_client","error_codes":[7000222.5],"error_description":"AADSTS7000215: x"}`), entra.Unsettled, "AADSTS7000215", 0},
		{"refused with a code that is text", entratest.Raw(401, "application/json", `{"error":"invalid_client","error_codes":["x"]}`), entra.Refused, "invalid_client", 0},
		{"out of order in OAuth's words", entratest.Raw(400, "application/json", `{"error":"server_error"}`), entra.Unavailable, "server_error", 0},
		{"throttled in JSON", entratest.Raw(429, "application/json", `{"error":"invalid_client","error_codes":[7000215]}`), entra.Throttled, "throttled", 0},
		{"out of order in JSON", entratest.Raw(503, "application/json", `{"error":"invalid_client","error_codes":[7000215]}`), entra.Unavailable, "unavailable", 0},
		{"refused without any code", entratest.Raw(401, "application/json", `{"error":"invalid_client"}`), entra.Refused, "invalid_client", 0},
		{"unknown error", entratest.Raw(400, "application/json", `{"error":"something_new"}`), entra.Refused, "something_new", 0},
		{"error that is no word", entratest.Raw(400, "application/json", `{"error":"<script>"}`), entra.Malformed, "invalid_response", 0},
		{"proxy that wants a login", entratest.HTML(407), entra.Malformed, "invalid_response", 0},
		{"proxy that echoes the form", entratest.EchoForm(403), entra.Malformed, "invalid_response", 0},
		{"gateway that echoes the form", entratest.EchoForm(502), entra.Unavailable, "unavailable", 0},
		{"redirect", entratest.Redirect(elsewhere.URL), entra.Malformed, "invalid_response", 0},
	}
	w := newWorld(t)
	for _, tt := range tests {
		w.entra.ResetRequests()
		w.entra.Fail(entratest.Fault{Times: 1, Response: tt.response})
		_, err := ask(t.Context(), w.client)
		e := asEntraError(t, err)
		if e.Class != tt.class || e.Code != tt.code || e.RetryAfter != tt.wait || e.Title == "" || e.Action == "" {
			t.Errorf("%s: %#v", tt.name, e)
		}
		// Microsoft's support finds a request by the ID that the client gave it.
		requests := w.entra.Requests()
		if len(requests) != 1 || requests[0].RequestID == "" || e.CorrelationID != requests[0].RequestID && requests[0].Status != 200 {
			t.Errorf("%s: correlation ID %q, of %d requests", tt.name, e.CorrelationID, len(requests))
		}
		shown, _ := json.Marshal(e)
		if text := fmt.Sprintf("%+v %#v %s", e, e, shown); strings.Contains(text, canary) || strings.Contains(text, "html") {
			t.Errorf("%s: the error shows what was sent or answered: %s", tt.name, text)
		}
	}
}

func TestNoAnswer(t *testing.T) {
	w := newWorld(t)
	w.entra.Fail(entratest.Fault{Response: entratest.Hang()})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, token := ask(ended, w.client)
	_, tenant := w.client.ResolveTenant(ended, entra.Public, "contoso.com")
	if !errors.Is(token, context.Canceled) || !errors.Is(tenant, context.Canceled) {
		t.Errorf("after the caller gave up: %v, %v", token, tenant)
	}
	late := w.newClient(entra.ClientConfig{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		ctx, cancel := context.WithDeadline(r.Context(), time.Now())
		defer cancel()
		return http.DefaultTransport.RoundTrip(r.WithContext(ctx))
	})})
	_, token = ask(t.Context(), late)
	w.entra.Close()
	_, nobody := ask(t.Context(), w.client)
	if asEntraError(t, token).Class != entra.Unavailable || asEntraError(t, nobody).Class != entra.Unavailable {
		t.Errorf("after the transport gave up: %v, with nobody there: %v", token, nobody)
	}
}

func TestResolveTenant(t *testing.T) {
	w := newWorld(t)
	const base = "https://login.microsoftonline.com/"
	config := func(size int, issuer, endpoint string) entratest.Response {
		body := fmt.Sprintf(`{"issuer":"%s/v2.0","token_endpoint":"%s/oauth2/v2.0/token"}`, base+issuer, base+endpoint)
		return entratest.Raw(200, "application/json", strings.Repeat(" ", max(size-len(body), 0))+body)
	}
	for _, tt := range []struct {
		name, tenant string
		response     entratest.Response
		want         string // GUID or code
	}{
		{"a domain", "contoso.com", entratest.Response{}, tenantA},
		{"another", "fabrikam.com", entratest.Response{}, tenantB},
		{"a GUID", strings.ToUpper(tenantA), entratest.Refused(90002), tenantA},
		{"nobody's", "nobody.example", entratest.Response{}, "AADSTS90002"},
		{"as much as is read", "contoso.com", config(1<<20, tenantA, tenantA), tenantA},
		{"more", "contoso.com", config(1<<20+1, tenantA, tenantA), "invalid_response"},
		{"no JSON", "contoso.com", entratest.HTML(200), "invalid_response"},
		{"placeholder", "contoso.com", config(0, "{tenantid}", "{tenantid}"), "invalid_response"},
		{"issuer and endpoint disagree", "contoso.com", config(0, tenantA, tenantB), "invalid_response"},
		{"no GUID", "contoso.com", config(0, "contoso.com", "contoso.com"), "invalid_response"},
		{"another cloud", "contoso.com", entratest.Raw(200, "application/json", `{"issuer":"`+base+tenantA+`","token_endpoint":"https://login.microsoftonline.us/`+tenantA+`"}`), "AADSTS90038"},
		{"redirect", "contoso.com", entratest.Redirect("https://example.com"), "invalid_response"},
	} {
		w.entra.ClearFaults()
		w.entra.Fail(entratest.Fault{Response: tt.response})
		got, err := w.client.ResolveTenant(t.Context(), entra.Public, tt.tenant)
		if err != nil {
			got = asEntraError(t, err).Code
		}
		if got != tt.want {
			t.Errorf("%s: %s, %v, want %s", tt.name, got, err, tt.want)
		}
	}
}

// What an answer says beside a code that nobody knows is not lost. Of several codes, the one that
// says most counts. A secret's ID in place of the secret is told at once. Of identifiers, only what
// is one is kept.
func TestAnswersWithOddCodes(t *testing.T) {
	w := newWorld(t)
	for name, tt := range map[string]struct{ body, code, title string }{
		"unknown code":         {`{"error":"invalid_client","error_codes":[7999999]}`, "AADSTS7999999", "Entra does not accept the app's credential (error 7999999)"},
		"unknown, unknown":     {`{"error":"new_error","error_codes":[7999999]}`, "AADSTS7999999", "Entra refused the request (error 7999999)"},
		"general before":       {`{"error":"invalid_client","error_codes":[70002,50012]}`, "AADSTS50012", "Entra does not accept the client assertion"},
		"general behind":       {`{"error":"invalid_client","error_codes":[50012,70002]}`, "AADSTS50012", "Entra does not accept the client assertion"},
		"unknown before":       {`{"error":"invalid_client","error_codes":[7999999,7000215]}`, "AADSTS7000215", "The client secret is wrong"},
		"two that say as much": {`{"error":"invalid_client","error_codes":[7000222,7000215]}`, "AADSTS7000222", "The client secret has expired"},
		"codes before words":   {`{"error":"invalid_client","error_codes":[7000222],"error_description":"AADSTS7000215: x"}`, "AADSTS7000222", "The client secret has expired"},
		"passing, in words":    {`{"error":"temporarily_unavailable"}`, "temporarily_unavailable", "Entra is not available"},
		"a secret's ID":        {`{"error":"invalid_client","error_codes":[7000215]}`, "AADSTS7000215", "The client secret is wrong: it looks like the secret's ID"},
	} {
		for _, trace := range []string{tenantB, "<script>", tenantB + "\n"} {
			app := registration
			if name == "a secret's ID" {
				app.Credential.ClientSecret = entra.NewSecret(tenantB)
			}
			ids, _ := json.Marshal(map[string]string{"trace_id": trace, "correlation_id": trace})
			w.entra.Fail(entratest.Fault{Times: 1, Response: entratest.Raw(400, "application/json", strings.TrimSuffix(string(ids), "}")+","+tt.body[1:])})
			_, err := w.client.Token(t.Context(), app, graph, tenantA)
			e := asEntraError(t, err)
			if kept := e.TraceID == tenantB && e.CorrelationID == tenantB; e.Code != tt.code || e.Title != tt.title || strings.HasSuffix(e.Title, "ID") && e.Class != entra.Refused || kept != (trace == tenantB) || e.TraceID != "" && !kept {
				t.Errorf("%s: %#v, want %s, %q, with trace ID %q", name, e, tt.code, tt.title, trace)
			}
		}
	}
}
