package entra_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"entra-connector/pkg/entra"
	"entra-connector/pkg/entra/entratest"
)

func TestTokenValues(t *testing.T) {
	w := newWorld(t)
	token, err := ask(t.Context(), w.client)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"PAN_SEC_MICROSOFT_ENTRA_TOKEN_TYPE":     "Bearer",
		"PAN_SEC_MICROSOFT_ENTRA_EXPIRES_AT":     strconv.FormatInt(start.Unix()+3599, 10),
		"PAN_SEC_MICROSOFT_ENTRA_EXPIRES_IN":     "3599",
		"PAN_SEC_MICROSOFT_ENTRA_EXT_EXPIRES_IN": "3599",
		"PAN_SEC_MICROSOFT_ENTRA_ACCESS_TOKEN":   w.entra.Tokens()[0],
		"PAN_SEC_MICROSOFT_ENTRA_TENANT_ID":      tenantA,
	}
	got := token.Values()
	if len(got) != len(want) {
		t.Errorf("there are %d values, want %d", len(got), len(want))
	}
	for key := range want {
		if got[key] != want[key] {
			t.Errorf("%s = %q, want %q", key, got[key], want[key])
		}
	}
}

// The expiry is counted from when the request was sent, however long the answer took.
func TestExpiryCountsFromTheRequest(t *testing.T) {
	w := newWorld(t)
	slow := w.newClient(entra.ClientConfig{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		w.now = w.now.Add(9 * time.Second)
		return http.DefaultTransport.RoundTrip(r)
	})})
	token, err := ask(t.Context(), slow)
	if err != nil {
		t.Fatal(err)
	}
	if want := start.Add(3599 * time.Second); !token.ExpiresAt().Equal(want) {
		t.Errorf("expires at %v, want %v", token.ExpiresAt(), want)
	}
}

func TestTokenResponseForms(t *testing.T) {
	tests := []struct {
		name         string
		response     entratest.Response
		expires, ext string // empty: not a token response
	}{
		{"numbers as strings", entratest.With("expires_in", "3599", "ext_expires_in", "3599"), "3599", "3599"},
		{"no ext_expires_in", entratest.With("ext_expires_in", nil), "3599", "3599"},
		{"ten minutes", entratest.Lifetime(600), "600", "600"},
		{"a day", entratest.Lifetime(86400), "86400", "86400"},
		{"other ext_expires_in", entratest.Raw(200, "application/json", `{"token_type":"bearer","expires_in":3599,"ext_expires_in":7200,"access_token":"t"}`), "3599", "7200"},
		{"odd ext_expires_in", entratest.Raw(200, "application/json", `{"token_type":"Bearer","expires_in":3599,"ext_expires_in":{},"access_token":"t"}`), "3599", "3599"},
		{"no expires_in", entratest.With("expires_in", nil), "", ""},
		{"no life", entratest.Lifetime(0), "", ""},
		{"negative life", entratest.Lifetime(-1), "", ""},
		{"other token type", entratest.Raw(200, "application/json", `{"token_type":"pop","expires_in":3599,"access_token":"t"}`), "", ""},
		{"no token", entratest.Raw(200, "application/json", `{"token_type":"Bearer","expires_in":3599}`), "", ""},
		{"token in a form", entratest.Raw(200, "text/plain", `token_type=Bearer&expires_in=3599&access_token=t`), "", ""},
		{"web page", entratest.HTML(200), "", ""},
		{"truncated", entratest.Truncated(), "", ""},
		{"a token with a line break", entratest.Raw(200, "application/json", `{"token_type":"Bearer","expires_in":3599,"access_token":"a\nb"}`), "", ""},
		{"over 1 MiB", entratest.With("padding", strings.Repeat("x", 1<<20)), "", ""},
		{"a token that no secret holds", entratest.Raw(200, "application/json", `{"token_type":"Bearer","expires_in":3599,"access_token":"`+strings.Repeat("t", 64<<10)+`"}`), "", ""},
	}
	w := newWorld(t)
	for _, tt := range tests {
		w.entra.Fail(entratest.Fault{Times: 1, Response: tt.response})
		token, err := ask(t.Context(), w.client)
		if tt.expires == "" {
			if e := asEntraError(t, err); e.Class != entra.Malformed {
				t.Errorf("%s: class %d, want Malformed", tt.name, e.Class)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		values := token.Values()
		if values[entra.KeyExpiresIn] != tt.expires || values[entra.KeyExtExpiresIn] != tt.ext || values[entra.KeyTokenType] != "Bearer" {
			t.Errorf("%s: values %s/%s/%s, want %s/%s/Bearer", tt.name,
				values[entra.KeyExpiresIn], values[entra.KeyExtExpiresIn], values[entra.KeyTokenType], tt.expires, tt.ext)
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
		if e.Class != tt.class || e.Code != tt.code || e.RetryAfter != tt.wait {
			t.Errorf("%s: class %d, code %s, retry after %v, want %d, %s, %v", tt.name, e.Class, e.Code, e.RetryAfter, tt.class, tt.code, tt.wait)
		}
		if n := len(w.entra.Requests()); n != 1 {
			t.Errorf("%s: %d requests, want 1", tt.name, n)
		}
		shown, _ := json.Marshal(e)
		if text := fmt.Sprintf("%+v %#v %s", e, e, shown); strings.Contains(text, canary) || strings.Contains(text, "html") {
			t.Errorf("%s: the error shows what was sent or answered: %s", tt.name, text)
		}
		if e.Title == "" || e.Action == "" {
			t.Errorf("%s: no title or action", tt.name)
		}
	}
}

// Microsoft's support finds a request by the ID that the client gave it.
func TestCorrelationID(t *testing.T) {
	w := newWorld(t)
	w.entra.Fail(entratest.Fault{Times: 1, Response: entratest.Refused(7000222)})
	w.entra.Fail(entratest.Fault{Times: 1, Response: entratest.HTML(502)})
	w.entra.Fail(entratest.Fault{Times: 1, Response: entratest.Drop()})
	for _, what := range []string{"refused", "bad gateway", "connection closed"} {
		_, err := ask(t.Context(), w.client)
		requests := w.entra.Requests()
		if sent := requests[len(requests)-1].RequestID; sent == "" || asEntraError(t, err).CorrelationID != sent {
			t.Errorf("%s: correlation ID %q, the request had %q", what, asEntraError(t, err).CorrelationID, sent)
		}
	}
}

// Identifiers are shown and logged, so only what is one is kept of an answer.
func TestIdentifiersAreKeptInTheirFormOnly(t *testing.T) {
	const trace, correlation = "eeeeeeee-0000-4000-8000-00000000000e", "ffffffff-0000-4000-8000-00000000000f"
	for _, tt := range []struct{ trace, correlation, wantTrace, wantCorrelation string }{
		{trace, correlation, trace, correlation},
		{"<script>", "a\nb", "", "sent"},
		{trace + "\n", correlation + " " + canary, "", "sent"},
		{canary, strings.Repeat("f", 5000), "", "sent"},
		{"", "", "", "sent"},
	} {
		w := newWorld(t)
		body, _ := json.Marshal(map[string]string{"error": "invalid_client", "trace_id": tt.trace, "correlation_id": tt.correlation})
		w.entra.Fail(entratest.Fault{Response: entratest.Raw(401, "application/json", string(body))})
		_, err := ask(t.Context(), w.client)
		if tt.wantCorrelation == "sent" {
			tt.wantCorrelation = w.entra.Requests()[0].RequestID
		}
		if e := asEntraError(t, err); e.TraceID != tt.wantTrace || e.CorrelationID != tt.wantCorrelation {
			t.Errorf("of %s the error keeps trace ID %q and correlation ID %q", body, e.TraceID, e.CorrelationID)
		}
	}
}

// An answer is waited for ten seconds, whether it does not begin or does not end.
func TestTenSecondsForAnAnswer(t *testing.T) {
	ctxBody := func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: endless{r.Context()}, Request: r}, nil
	}
	silence := func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	for name, transport := range map[string]roundTripper{"no answer": silence, "an answer without an end": ctxBody} {
		synctest.Test(t, func(t *testing.T) {
			client := entra.NewClient(entra.ClientConfig{Transport: transport})
			for call, ask := range map[string]func() error{
				"a token":  func() error { _, err := ask(t.Context(), client); return err },
				"a tenant": func() error { _, err := client.ResolveTenant(t.Context(), entra.Public, "contoso.com"); return err },
			} {
				begin := time.Now()
				e := asEntraError(t, ask())
				if took := time.Since(begin); took != 10*time.Second || e.Class != entra.Timeout || e.Code != "timeout" {
					t.Errorf("%s to the question for %s: class %d, code %s after %v, want a timeout after 10s", name, call, e.Class, e.Code, took)
				}
			}
		})
	}
}

// endless is a body of which nothing comes until its request ends.
type endless struct{ context.Context }

func (b endless) Read([]byte) (int, error) { <-b.Done(); return 0, b.Err() }
func (b endless) Close() error             { return nil }

// Of a tenant's configuration no more than 1 MiB is read.
func TestConfigurationHasALimit(t *testing.T) {
	base := "https://login.microsoftonline.com/" + tenantA
	config := fmt.Sprintf(`{"issuer":"%s/v2.0","token_endpoint":"%[1]s/oauth2/v2.0/token"}`, base)
	w := newWorld(t)
	for size, good := range map[int]bool{1 << 20: true, 1<<20 + 1: false} {
		w.entra.Fail(entratest.Fault{Times: 1, Response: entratest.Raw(200, "application/json", strings.Repeat(" ", size-len(config))+config)})
		got, err := w.client.ResolveTenant(t.Context(), entra.Public, "contoso.com")
		if good && (got != tenantA || err != nil) || !good && asEntraError(t, err).Class != entra.Malformed {
			t.Errorf("%d bytes: %q, %v, want it read: %t", size, got, err, good)
		}
	}
}

func TestNoAnswer(t *testing.T) {
	w := newWorld(t)
	w.entra.Fail(entratest.Fault{Response: entratest.Hang()})

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ask(ended, w.client); !errors.Is(err, context.Canceled) {
		t.Errorf("after the caller gave up: %v, want context.Canceled", err)
	}
	if _, err := w.client.ResolveTenant(ended, entra.Public, "contoso.com"); !errors.Is(err, context.Canceled) {
		t.Errorf("after the caller gave up: %v, want context.Canceled", err)
	}
	// The transport stands for the ten seconds that a request may take.
	late := entra.NewClient(entra.ClientConfig{Authority: w.entra.URL(), Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		ctx, cancel := context.WithDeadline(r.Context(), time.Now())
		defer cancel()
		return http.DefaultTransport.RoundTrip(r.WithContext(ctx))
	})})
	if _, err := ask(t.Context(), late); asEntraError(t, err).Class != entra.Unavailable {
		t.Errorf("after the transport gave up: %v", err)
	}
	w.entra.Close()
	if _, err := ask(t.Context(), w.client); asEntraError(t, err).Class != entra.Unavailable {
		t.Errorf("with nobody there: %v", err)
	}
}

func TestResolveTenant(t *testing.T) {
	w := newWorld(t)
	for tenant, want := range map[string]string{"contoso.com": tenantA, "fabrikam.com": tenantB, strings.ToUpper(tenantA): tenantA} {
		if got, err := w.client.ResolveTenant(t.Context(), entra.Public, tenant); got != want || err != nil {
			t.Errorf("%s is %q, %v, want %q", tenant, got, err, want)
		}
	}
	_, err := w.client.ResolveTenant(t.Context(), entra.Public, "nobody.example")
	if e := asEntraError(t, err); e.Class != entra.Refused || e.Code != "AADSTS90002" {
		t.Errorf("unknown domain: %v", err)
	}

	config := func(issuer, endpoint string) entratest.Response {
		return entratest.Raw(200, "application/json", fmt.Sprintf(`{"issuer":%q,"token_endpoint":%q}`, issuer, endpoint))
	}
	base := "https://login.microsoftonline.com/"
	for name, response := range map[string]entratest.Response{
		"no JSON":                      entratest.HTML(200),
		"placeholder":                  config(base+"{tenantid}/v2.0", base+"{tenantid}/oauth2/v2.0/token"),
		"issuer and endpoint disagree": config(base+tenantA+"/v2.0", base+tenantB+"/oauth2/v2.0/token"),
		"no GUID":                      config(base+"contoso.com/v2.0", base+"contoso.com/oauth2/v2.0/token"),
		"redirect":                     entratest.Redirect("https://example.com"),
	} {
		w.entra.Fail(entratest.Fault{Times: 1, Response: response})
		if got, err := w.client.ResolveTenant(t.Context(), entra.Public, "contoso.com"); err == nil || asEntraError(t, err).Class != entra.Malformed {
			t.Errorf("%s: %q, %v, want Malformed", name, got, err)
		}
	}
}
