package entratest_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"entra-connector/pkg/entra/entratest"
)

const (
	tenant   = "11111111-aaaa-4bbb-8ccc-000000000001"
	other    = "11111111-aaaa-4bbb-8ccc-000000000002" // no service principal here
	gov      = "11111111-aaaa-4bbb-8ccc-000000000003"
	client   = "22222222-aaaa-4bbb-8ccc-000000000001"
	secret   = "c4nary~secret+with/odd=chars&more"
	expired  = "c4nary-expired"
	graph    = "https://graph.microsoft.com/.default"
	formType = "application/x-www-form-urlencoded"
)

// now is the server's clock in all tests.
var now = time.Date(2026, 11, 23, 1, 2, 3, 0, time.UTC)

// start returns a server with one app, which has a service principal in tenant.
func start(t *testing.T) *entratest.Server {
	t.Helper()
	s := entratest.Start(t, entratest.Options{Now: func() time.Time { return now.In(time.FixedZone("", 3600)) }})
	s.AddTenant(entratest.Tenant{ID: tenant, Domains: []string{"contoso.COM"}})
	s.AddTenant(entratest.Tenant{ID: other})
	s.AddTenant(entratest.Tenant{ID: gov, Domains: []string{"agency.us"}, Cloud: "usgov"})
	s.AddApp(entratest.App{ClientID: client, Secrets: []entratest.Secret{
		{Value: expired, Expires: now}, {Value: secret, Expires: now.Add(time.Nanosecond)},
	}})
	s.Consent(tenant, client, "User.Read.All")
	return s
}

// form is a good token request.
func form(change ...string) url.Values {
	f := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {client}, "client_secret": {secret}, "scope": {graph},
	}
	for i := 0; i < len(change); i += 2 {
		if change[i+1] == "" {
			f.Del(change[i])
		} else {
			f.Set(change[i], change[i+1])
		}
	}
	return f
}

// reply is any answer of the server.
type reply struct {
	Status int
	Header http.Header
	Body   string

	TokenType     string `json:"token_type"`
	ExpiresIn     any    `json:"expires_in"`
	ExtExpiresIn  any    `json:"ext_expires_in"`
	AccessToken   string `json:"access_token"`
	Error         string `json:"error"`
	Description   string `json:"error_description"`
	Codes         []int  `json:"error_codes"`
	Timestamp     string `json:"timestamp"`
	TraceID       string `json:"trace_id"`
	CorrelationID string `json:"correlation_id"`
	URI           string `json:"error_uri"`
}

func (r reply) code() int {
	if len(r.Codes) == 1 {
		return r.Codes[0]
	}
	return 0
}

// direct follows no redirects and keeps no connections, so that no test disturbs another.
var direct = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Timeout:       20 * time.Second,
}

func do(t *testing.T, method, url, body string, header ...string) (reply, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := direct.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return reply{}, err
	}
	r := reply{Status: res.StatusCode, Header: res.Header, Body: string(b)}
	if strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
		if err := json.Unmarshal(b, &r); err != nil {
			t.Fatalf("answer is not JSON: %s", b)
		}
	}
	return r, nil
}

// ask posts a form to the tenant's token endpoint.
func ask(t *testing.T, s *entratest.Server, tenant string, f url.Values, header ...string) reply {
	t.Helper()
	r, err := do(t, "POST", s.URL()+"/"+tenant+"/oauth2/v2.0/token", f.Encode(), append([]string{"Content-Type", formType}, header...)...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func last(t *testing.T, s *entratest.Server) entratest.Request {
	t.Helper()
	all := s.Requests()
	if len(all) == 0 {
		t.Fatal("no request was recorded")
	}
	return all[len(all)-1]
}

func claims(t *testing.T, token string) map[string]any {
	t.Helper()
	part := strings.Split(token, ".")
	if len(part) != 3 {
		t.Fatalf("token has %d parts, want 3", len(part))
	}
	b, err := base64.RawURLEncoding.DecodeString(part[1])
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// wantRefusal checks that the answer is the documented error body with this code, and is recorded.
func wantRefusal(t *testing.T, s *entratest.Server, r reply, code int, oauth string) {
	t.Helper()
	status := http.StatusBadRequest
	if oauth == "invalid_client" {
		status = http.StatusUnauthorized
	}
	if r.code() != code || r.Error != oauth || r.Status != status {
		t.Fatalf("got %d %s %v, want %d %s [%d]\n%s", r.Status, r.Error, r.Codes, status, oauth, code, r.Body)
	}
	if !description.MatchString(r.Description) {
		t.Errorf("error_description is not of Entra's form: %q", r.Description)
	}
	if r.Timestamp != "2026-11-23 01:02:03Z" || !strings.Contains(r.Description, r.TraceID) || !strings.Contains(r.Description, r.CorrelationID) {
		t.Errorf("error body disagrees with itself: %s", r.Body)
	}
	if strings.Contains(r.Description, "{") || strings.Contains(r.Body, "c4nary") {
		t.Errorf("error body holds a placeholder or a secret: %s", r.Body)
	}
	if q := last(t, s); q.Code != code || q.Status != status || q.Token != "" {
		t.Errorf("recorded %d with status %d and token %q", q.Code, q.Status, q.Token)
	}
	if n := len(s.Tokens()); n != 0 {
		t.Errorf("%d tokens were issued", n)
	}
}

var description = regexp.MustCompile(`^AADSTS\d+: (?s:.+)\r\nTrace ID: [0-9a-f-]{36}\r\nCorrelation ID: [0-9a-f-]{36}\r\nTimestamp: \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ$`)

func newRequest(ctx context.Context, t *testing.T, url, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, "POST", url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", formType)
	return req
}
