package entratest_test

import (
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"entra-connector/pkg/entra/entratest"
)

// The product's tests would not notice if most of these answers were ordinary ones, or other
// refusals.
func TestResponses(t *testing.T) {
	for name, tt := range map[string]struct {
		response entratest.Response
		status   int
		body     string // a part of it
		code     int
	}{
		"error with status 200":   {entratest.OKWithError(90033), 200, `"error":"temporarily_unavailable"`, 90033},
		"unknown code":            {entratest.Refused(7654321), 400, `"error_codes":[7654321]`, 7654321},
		"temporarily unavailable": {entratest.Refused(90033), 400, `"error":"temporarily_unavailable"`, 90033},
		"several codes":           {entratest.Raw(401, "application/json", `{"error":"invalid_client","error_codes":[7000222,50012]}`), 401, `[7000222,50012]`, 0},
		"form quoted encoded":     {entratest.EchoForm(502), 502, "client_secret=" + url.QueryEscape(secret), 0},
		"form quoted decoded":     {entratest.EchoForm(200), 200, "client_secret = " + secret, 0},
		"a field less":            {entratest.With("ext_expires_in", nil), 200, `","expires_in":3599,"token_type":"Bearer"}`, 0},
		"other fields":            {entratest.With("expires_in", "3599", "x", 1), 200, `","expires_in":"3599","ext_expires_in":3599,"token_type":"Bearer","x":1}`, 0},
		"lifetime of ten minutes": {entratest.Lifetime(600), 200, `","expires_in":600,"ext_expires_in":600,`, 0},
	} {
		s := start(t)
		s.Fail(entratest.Fault{Response: tt.response})
		if r, err := ask(t, s, tenant, form()); err != nil || r.Status != tt.status || !strings.Contains(r.Body, tt.body) {
			t.Errorf("%s: got %d %.300s, %v", name, r.Status, r.Body, err)
		}
		if q := last(s); q.Status != tt.status || q.Code != tt.code || q.SecretIndex != 1 {
			t.Errorf("%s: recorded %+v", name, q)
		}
	}
	s := start(t)
	s.Fail(entratest.Fault{Times: 1, Response: entratest.Redirect("https://example.com/")})
	if r, err := ask(t, s, tenant, form()); err != nil || r.Status != 307 || r.Header.Get("Location") != "https://example.com/" {
		t.Errorf("redirect: got %d to %q, %v", r.Status, r.Header.Get("Location"), err)
	}
	s.Fail(entratest.Fault{Times: 1, Response: entratest.Truncated()})
	if r, err := ask(t, s, tenant, form()); err == nil || r.Status != 200 || 2*len(r.Body) < len(s.Tokens()[0]) || strings.Contains(r.Body, s.Tokens()[0]) {
		t.Errorf("truncated: got %d %q, %v, want half of the body and an error", r.Status, r.Body, err)
	}
	s.Fail(entratest.Fault{Response: entratest.Drop()})
	if r, err := ask(t, s, tenant, form()); err == nil {
		t.Errorf("drop: got %d", r.Status)
	}
}

// What hangs or takes long is on record, and ends when the server is closed.
func TestHang(t *testing.T) {
	for name, fault := range map[string]entratest.Fault{"hang": {Response: entratest.Hang()}, "delay": {Delay: time.Hour}} {
		s := start(t)
		s.Fail(fault)
		done := make(chan error, 1)
		go func() {
			_, err := ask(t, s, tenant, form())
			done <- err
		}()
		for len(s.Requests()) == 0 {
			time.Sleep(time.Millisecond)
		}
		s.Close()
		if err := <-done; err == nil || os.IsTimeout(err) {
			t.Errorf("%s: %v, want the connection to be closed", name, err)
		}
	}
}

func TestFaults(t *testing.T) {
	s := start(t)
	for i, tt := range []struct {
		fault   entratest.Fault
		matches bool
	}{
		{entratest.Fault{Times: 1}, true},
		{entratest.Fault{Tenant: "Contoso.com"}, true},
		{entratest.Fault{Tenant: other}, false},
		{entratest.Fault{ClientID: strings.ToUpper(client)}, true},
		{entratest.Fault{ClientID: other}, false},
		{entratest.Fault{Endpoint: "token"}, true},
		{entratest.Fault{Endpoint: "openid"}, false},
	} {
		s.ClearFaults()
		tt.fault.Response = entratest.HTML(502)
		s.Fail(tt.fault)
		s.Fail(entratest.Fault{Response: entratest.HTML(504)})
		for _, matches := range []bool{tt.matches, tt.matches && tt.fault.Times == 0} {
			if r, err := ask(t, s, tenant, form()); err != nil || (r.Status == 502) != matches || !matches && r.Status != 504 {
				t.Errorf("%d: got %d, %v, want it to match: %t", i, r.Status, err, matches)
			}
		}
	}
}

// Another caller acts between the decision and the answer that the first caller gets.
func TestBeforeAnswer(t *testing.T) {
	s := start(t)
	var between reply
	s.Fail(entratest.Fault{Endpoint: "token", Times: 1, BeforeAnswer: func() {
		s.SetSecrets(client, entratest.Secret{Value: "n3w"})
		between, _ = ask(t, s, tenant, form("client_secret", "n3w"))
	}})
	first, err := ask(t, s, tenant, form())
	if issued := s.Tokens(); err != nil || len(issued) != 2 || first.AccessToken != issued[0] || between.AccessToken != issued[1] {
		t.Errorf("got %d %s, %v; in between %d %s", first.Status, first.Body, err, between.Status, between.Body)
	}
}

// Several callers and the test act at once, for the race detector.
func TestConcurrency(t *testing.T) {
	s := start(t)
	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() {
			s.Fail(entratest.Fault{Tenant: other, Response: entratest.Drop()})
			s.SetSecrets(client, entratest.Secret{Value: secret})
			if r, err := ask(t, s, tenant, form()); err != nil || r.Status != 200 {
				t.Errorf("got %d, %v", r.Status, err)
			}
		})
	}
	callers.Wait()
	if len(s.Requests()) != 20 || len(s.Tokens()) != 20 {
		t.Errorf("20 callers made %d requests and got %d tokens", len(s.Requests()), len(s.Tokens()))
	}
}
