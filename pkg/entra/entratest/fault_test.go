package entratest_test

import (
	"context"
	"errors"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"entra-connector/pkg/entra/entratest"
)

// tryAsk is ask where the answer may not arrive.
func tryAsk(t *testing.T, s *entratest.Server) (reply, error) {
	t.Helper()
	return do(t, "POST", s.URL()+"/"+tenant+"/oauth2/v2.0/token", form().Encode(), "Content-Type", formType)
}

func TestResponses(t *testing.T) {
	for _, tt := range []struct {
		name     string
		response entratest.Response
		status   int
		header   string // "Name: value"
		body     string // a part of it
		code     int
		token    bool
	}{
		{"throttled", entratest.Throttled(""), 429, "Retry-After: 60", "Too Many Requests", 0, false},
		{"throttled_until", entratest.Throttled("Mon, 23 Nov 2026 02:00:00 GMT"), 429, "Retry-After: Mon, 23 Nov 2026 02:00:00 GMT", "", 0, false},
		{"unavailable", entratest.Unavailable("7"), 503, "Retry-After: 7", "Service Unavailable", 0, false},
		{"unavailable_for_long", entratest.Unavailable(""), 503, "Retry-After: ", "", 0, false},
		{"refused", entratest.Refused(7000222), 401, "Cache-Control: no-store, no-cache", `"error":"invalid_client"`, 7000222, false},
		{"refused_unknown", entratest.Refused(7654321), 400, "", `"error":"invalid_request"`, 7654321, false},
		{"ok_with_error", entratest.OKWithError(90033), 200, "", `"error":"temporarily_unavailable"`, 90033, false},
		{"html", entratest.HTML(502), 502, "Content-Type: text/html; charset=utf-8", "502 Bad Gateway", 0, false},
		{"echo_encoded", entratest.EchoForm(502), 502, "", "client_secret=" + url.QueryEscape(secret), 0, false},
		{"echo_decoded", entratest.EchoForm(200), 200, "", "client_secret = " + secret, 0, false},
		{"raw", entratest.Raw(418, "text/x", "tea"), 418, "Content-Type: text/x", "tea", 0, false},
		{"redirect", entratest.Redirect("https://example.com/"), 307, "Location: https://example.com/", "", 0, false},
		{"lifetime", entratest.Lifetime(0), 200, "", `"expires_in":0,"ext_expires_in":0,`, 0, true},
		{"no_expires_in", entratest.NoExpiresIn(), 200, "", `{"token_type":"Bearer","ext_expires_in":3599,"access_token"`, 0, true},
		{"no_ext", entratest.NoExt(), 200, "", `{"token_type":"Bearer","expires_in":3599,"access_token"`, 0, true},
		{"string_numbers", entratest.StringNumbers(), 200, "", `"expires_in":"3599","ext_expires_in":"3599",`, 0, true},
		{"huge", entratest.HugeBody(), 200, "", strings.Repeat("x", 1<<20), 0, true},
		{"ordinary", entratest.Response{}, 200, "", `{"token_type":"Bearer","expires_in":3599,"ext_expires_in":3599,"access_token"`, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := start(t)
			s.Fail(entratest.Fault{Response: tt.response})
			r, err := tryAsk(t, s)
			if err != nil {
				t.Fatal(err)
			}
			if r.Status != tt.status || !strings.Contains(r.Body, tt.body) || (tt.code != 0 && r.code() != tt.code) {
				t.Errorf("got %d %.300s", r.Status, r.Body)
			}
			if name, want, ok := strings.Cut(tt.header, ": "); ok && r.Header.Get(name) != want {
				t.Errorf("%s: %q, want %q", name, r.Header.Get(name), want)
			}
			if q := last(t, s); q.Status != tt.status || q.Code != tt.code || q.Token != r.AccessToken || (q.Token != "") != tt.token {
				t.Errorf("recorded %+v", q)
			}
			if q := last(t, s); q.SecretIndex != 1 || q.ClientID != client {
				t.Errorf("a fault hides who asked: %+v", q)
			}
		})
	}
}

func TestTruncated(t *testing.T) {
	s := start(t)
	s.Fail(entratest.Fault{Response: entratest.Truncated()})
	if _, err := tryAsk(t, s); err == nil || !strings.Contains(err.Error(), "unexpected EOF") {
		t.Errorf("got %v, want an unexpected EOF", err)
	}
}

func TestDrop(t *testing.T) {
	s := start(t)
	s.Fail(entratest.Fault{Response: entratest.Drop()})
	if r, err := tryAsk(t, s); err == nil || !strings.Contains(err.Error(), "EOF") {
		t.Errorf("got %d, %v, want an EOF", r.Status, err)
	}
	if q := last(t, s); q.Status != 0 || q.ClientID != client {
		t.Errorf("recorded %+v", q)
	}
}

func TestHang(t *testing.T) {
	s := start(t)
	s.Fail(entratest.Fault{Times: 1, Response: entratest.Hang()})
	done := make(chan error, 1)
	go func() {
		_, err := tryAsk(t, s)
		done <- err
	}()
	for len(s.Requests()) == 0 { // what hangs is on record
		select {
		case err := <-done:
			t.Fatalf("did not hang: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Error("got an answer")
	}
}

func TestDelay(t *testing.T) {
	s := start(t)
	s.Fail(entratest.Fault{Times: 1, Delay: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	f := form().Encode()
	req := newRequest(ctx, t, s.URL()+"/"+tenant+"/oauth2/v2.0/token", f)
	if _, err := direct.Do(req); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want a timeout", err)
	}
	s.Fail(entratest.Fault{Times: 1, Delay: 10 * time.Millisecond})
	begin := time.Now()
	if r, err := tryAsk(t, s); err != nil || r.Status != 200 || time.Since(begin) < 10*time.Millisecond {
		t.Errorf("got %d, %v after %v", r.Status, err, time.Since(begin))
	}
}

func TestFaultMatches(t *testing.T) {
	const refused = 53003
	for _, tt := range []struct {
		name  string
		fault entratest.Fault
		want  bool
	}{
		{"any", entratest.Fault{}, true},
		{"tenant", entratest.Fault{Tenant: tenant}, true},
		{"tenant_by_domain", entratest.Fault{Tenant: "Contoso.com"}, true},
		{"other_tenant", entratest.Fault{Tenant: other}, false},
		{"client", entratest.Fault{ClientID: strings.ToUpper(client)}, true},
		{"other_client", entratest.Fault{ClientID: other}, false},
		{"endpoint", entratest.Fault{Endpoint: "token"}, true},
		{"other_endpoint", entratest.Fault{Endpoint: "openid"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := start(t)
			tt.fault.Response = entratest.Refused(refused)
			s.Fail(tt.fault)
			if r, err := tryAsk(t, s); err != nil || (r.code() == refused) != tt.want {
				t.Errorf("got %d %s, %v", r.Status, r.Body, err)
			}
		})
	}
}

func TestFaultTimes(t *testing.T) {
	s := start(t)
	s.Fail(entratest.Fault{Times: 2, Response: entratest.HTML(502)})
	s.Fail(entratest.Fault{Times: 1, Tenant: tenant, Response: entratest.HTML(504)})
	s.Fail(entratest.Fault{Response: entratest.HTML(500)})
	for i, want := range []int{502, 502, 504, 500, 500} {
		if r := ask(t, s, tenant, form()); r.Status != want {
			t.Errorf("request %d: got %d, want %d", i+1, r.Status, want)
		}
	}
	s.ClearFaults()
	if r := ask(t, s, tenant, form()); r.Status != 200 {
		t.Errorf("cleared: got %d", r.Status)
	}
}

// Every code that the research names can be had on demand, with a text of its own.
func TestRefusedKnowsAllCodes(t *testing.T) {
	s := start(t)
	for _, code := range listed {
		s.Fail(entratest.Fault{Times: 1, Response: entratest.Refused(code)})
		r := ask(t, s, tenant, form())
		if strings.Contains(r.Description, "The request failed.") {
			t.Errorf("AADSTS%d is not in the table", code)
		}
		wantRefusal(t, s, r, code, r.Error)
		if r.URI != s.URL()+"/error?code="+strconv.Itoa(code) {
			t.Errorf("error_uri %s", r.URI)
		}
	}
}

// listed are the codes of the research's section 2.
var listed = []int{
	7000215, 7000222, 7000216, 7000218, 70002, 700025, 700027, 50012, 700030, 50048, 50027, 50013, 500133, 700024,
	70021, 700213, 700211, 700212, 7002131, 700229,
	700016, 7000229, 7000112, 70001, 700011, 1000031, 90002, 900023, 90019, 50059, 50128, 9001023, 90124, 90130, 50194,
	90038, 900382, 900432, 500021, 500022, 50034, 700082, 70008,
	70011, 1002012, 28002, 28003, 700022, 700023, 901002, 500011, 500014, 650052, 650054, 650057, 50001, 65001, 650056,
	90094, 501051,
	53003, 530032,
	50196, 90055, 90033, 90006, 90012, 90024, 50033, 90090, 90091, 40010, 50087, 90036, 90092, 50000,
}

// The package stands on its own: it must not know what it is there to test, nor be test-only code.
func TestImports(t *testing.T) {
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	foreign := regexp.MustCompile(`(?m)^\s*(?:import )?"(entra-connector[^"]*|testing|[a-z0-9-]+\.[a-z]+/[^"]*)"$`)
	for _, f := range files {
		if strings.HasSuffix(f.Name(), "_test.go") || !strings.HasSuffix(f.Name(), ".go") {
			continue
		}
		b, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		if m := foreign.FindSubmatch(b); m != nil {
			t.Errorf("%s imports %s", f.Name(), m[1])
		}
	}
}
