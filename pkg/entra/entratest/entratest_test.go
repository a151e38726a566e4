package entratest_test

import (
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"go/build"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"entra-connector/pkg/entra/entratest"
)

const (
	tenant   = "11111111-aaaa-4bbb-8ccc-000000000001" // contoso.com
	other    = "11111111-aaaa-4bbb-8ccc-000000000002" // has not consented to the app
	gov      = "11111111-aaaa-4bbb-8ccc-000000000003"
	client   = "22222222-aaaa-4bbb-8ccc-000000000001"
	request  = "33333333-aaaa-4bbb-8ccc-000000000001" // the client-request-id of all requests
	secret   = "c4nary~secret+with/odd=chars&more"
	expired  = "c4nary-expired"
	graph    = "https://graph.microsoft.com/.default"
	formType = "application/x-www-form-urlencoded"
)

// now is the server's clock in all tests.
var now = time.Date(2026, 11, 23, 1, 2, 3, 0, time.UTC)

// start returns a server with one app, to which one tenant has consented.
func start(t *testing.T) *entratest.Server {
	t.Helper()
	s := entratest.Start(t, entratest.Options{Now: func() time.Time { return now.In(time.FixedZone("", 3600)) }})
	s.AddTenant(entratest.Tenant{ID: strings.ToUpper(tenant), Domains: []string{"contoso.COM"}})
	s.AddTenant(entratest.Tenant{ID: other})
	s.AddTenant(entratest.Tenant{ID: gov, Cloud: "usgov"})
	s.AddApp(entratest.App{ClientID: strings.ToUpper(client), Secrets: []entratest.Secret{
		{Value: expired, Expires: now}, {Value: secret, Expires: now.Add(time.Nanosecond)},
	}})
	s.Consent(tenant, client, "User.Read.All")
	return s
}

// form is a good token request with changes: names and values alternate, and "" deletes.
func form(change ...string) string {
	f := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {client}, "client_secret": {secret}, "scope": {graph},
	}
	for i := 0; i < len(change); i += 2 {
		if f.Set(change[i], change[i+1]); change[i+1] == "" {
			f.Del(change[i])
		}
	}
	return f.Encode()
}

// reply is any answer of the server.
type reply struct {
	Status int
	Header http.Header
	Body   string

	AccessToken   string `json:"access_token"`
	Error         string `json:"error"`
	Description   string `json:"error_description"`
	Codes         []int  `json:"error_codes"`
	Timestamp     string `json:"timestamp"`
	TraceID       string `json:"trace_id"`
	CorrelationID string `json:"correlation_id"`
}

// direct follows no redirects and keeps no connections, so that no test disturbs another.
var direct = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Timeout:       20 * time.Second,
}

func do(t *testing.T, method, url, contentType, body string) (r reply, err error) {
	t.Helper()
	req := must(http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body)))
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("client-request-id", request)
	res, err := direct.Do(req)
	if err != nil {
		return r, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	r.Status, r.Header, r.Body = res.StatusCode, res.Header, string(b)
	json.Unmarshal(b, &r) // if it is JSON
	return r, err
}

// ask posts a form to the tenant's token endpoint.
func ask(t *testing.T, s *entratest.Server, tenant, form string) (reply, error) {
	t.Helper()
	return do(t, "POST", s.URL()+"/"+tenant+"/oauth2/v2.0/token", formType, form)
}

// last is the request that the server saw last.
func last(s *entratest.Server) entratest.Request {
	all := s.Requests()
	return all[len(all)-1]
}

var description = regexp.MustCompile(`^AADSTS\d+: [^{]+\r\nTrace ID: [0-9a-f-]{36}\r\nCorrelation ID: ` + request + `\r\nTimestamp: 2026-11-23 01:02:03Z$`)

// invalidClient are the codes with this error string and status 401.
var invalidClient = []int{
	7000215, 7000216, 7000222, 7000229, 50012, 50048, 700021, 700024, 700027, 700211, 700212, 700213,
}

// wantCode checks that the server refused with this code, in the documented form, and gave no token
// away. Code 0 is a token.
func wantCode(t *testing.T, s *entratest.Server, r reply, code int) {
	t.Helper()
	if code == 0 {
		if r.Status != 200 || len(s.Tokens()) != 1 || s.Tokens()[0] != r.AccessToken {
			t.Fatalf("got %d %s, issued were %q", r.Status, r.Body, s.Tokens())
		}
		return
	}
	status := 400
	if slices.Contains(invalidClient, code) {
		status = 401
	}
	if r.Status != status || !slices.Equal(r.Codes, []int{code}) || r.Error == "" || (r.Error == "invalid_client") != (status == 401) {
		t.Fatalf("got %d, want %d [%d]\n%s", r.Status, status, code, r.Body)
	}
	if q := last(s); q.Code != code || q.Status != status || q.RequestID != request {
		t.Errorf("recorded %+v", q)
	}
	if !description.MatchString(r.Description) || r.Timestamp != "2026-11-23 01:02:03Z" || !strings.Contains(r.Description, r.TraceID) ||
		r.CorrelationID != request || r.Header.Get("client-request-id") != request || r.Header.Get("x-ms-request-id") != r.TraceID {
		t.Errorf("the answer is not of Entra's form, or disagrees with itself: %v %s", r.Header, r.Body)
	}
	if strings.Contains(r.Body, "c4nary") || len(s.Tokens()) != 0 {
		t.Errorf("a refusal quotes a secret or issued %d tokens: %s", len(s.Tokens()), r.Body)
	}
}

// published finds the key that verifies tokens by way of a tenant's OpenID configuration, as a
// resource does.
func published(t *testing.T, s *entratest.Server) jwt.Keyfunc {
	t.Helper()
	var config struct {
		Keys string `json:"jwks_uri"`
	}
	var set struct {
		Keys []struct{ Kty, Kid, N, E string }
	}
	r, _ := do(t, "GET", s.URL()+"/contoso.com/v2.0/.well-known/openid-configuration", "", "")
	json.Unmarshal([]byte(r.Body), &config)
	r, _ = do(t, "GET", config.Keys, "", "")
	if json.Unmarshal([]byte(r.Body), &set); len(set.Keys) != 1 || set.Keys[0].Kty != "RSA" {
		t.Fatalf("%s answers %d %s", config.Keys, r.Status, r.Body)
	}
	number := func(s string) *big.Int { return new(big.Int).SetBytes(must(base64.RawURLEncoding.DecodeString(s))) }
	key := &rsa.PublicKey{N: number(set.Keys[0].N), E: int(number(set.Keys[0].E).Int64())}
	return func(token *jwt.Token) (any, error) {
		return map[any]any{set.Keys[0].Kid: key}[token.Header["kid"]], nil
	}
}

func TestToken(t *testing.T) {
	s := start(t)
	key := published(t, s)
	s.Consent(other, client)
	ids := map[any]bool{}
	for _, tt := range []struct {
		tenant, scope, id, audience string
		roles                       any
	}{
		{strings.ToUpper(tenant), graph, tenant, "https://graph.microsoft.com", []any{"User.Read.All"}},
		{"CONTOSO.com", "https://storage.azure.com//.default", tenant, "https://storage.azure.com/", []any{"User.Read.All"}},
		{other, "openid " + graph + " offline_access profile", other, "https://graph.microsoft.com", nil}, // as MSAL has it
	} {
		s.ResetRequests()
		r, _ := ask(t, s, tt.tenant, form("scope", tt.scope))
		wantCode(t, s, r, 0)
		if want := fmt.Sprintf(`{"access_token":%q,"expires_in":3599,"ext_expires_in":3599,"token_type":"Bearer"}`, r.AccessToken); r.Body != want {
			t.Errorf("got %s, want %s", r.Body, want)
		}
		got := jwt.MapClaims{}
		if _, err := jwt.NewParser(jwt.WithValidMethods([]string{"RS256"}), jwt.WithTimeFunc(func() time.Time { return now })).
			ParseWithClaims(r.AccessToken, got, key); err != nil {
			t.Fatal(err)
		}
		ids[got["uti"]] = true
		want := jwt.MapClaims{
			"aud": tt.audience, "iss": s.URL() + "/" + tt.id + "/v2.0", "tid": tt.id, "ver": "2.0", "appid": client, "azp": client, "idtyp": "app", "uti": got["uti"],
			"iat": float64(now.Unix()), "nbf": float64(now.Unix()), "exp": float64(now.Unix() + 3599),
		}
		if tt.roles != nil { // else there is no such claim
			want["roles"] = tt.roles
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("the token says\n%v, want\n%v", got, want)
		}
		recorded := entratest.Request{Endpoint: "token", Tenant: tt.tenant, ClientID: client, CredentialKind: "secret", SecretIndex: 1, Scope: tt.scope, RequestID: request, Status: 200}
		if got := s.Requests(); len(got) != 1 || got[0] != recorded {
			t.Errorf("recorded\n%+v, want\n%+v", got, recorded)
		}
	}
	if len(ids) != 3 {
		t.Error("two tokens have the same uti")
	}
}

func TestRefused(t *testing.T) {
	const devOps = "499b84ac-1321-427f-aa17-267ca6975798/.default"
	for _, tt := range []struct {
		name, tenant, form string
		code               int
	}{
		{"no form", tenant, "", 900144},
		{"field twice", tenant, form() + "&scope=x", 9000411},
		{"bad escape", tenant, form() + "&x=%zz", 9002313},
		{"no grant_type", tenant, form("grant_type", ""), 900144},
		{"grant_type", tenant, form("grant_type", "password"), 70003},
		{"no client", tenant, form("client_id", ""), 900144},
		{"client unknown", tenant, form("client_id", other), 700016},
		{"no scope", tenant, form("scope", ""), 900144},
		{"scope of one permission", tenant, form("scope", "https://graph.microsoft.com/User.Read"), 1002012},
		{"scope encoded twice", tenant, form("scope", url.QueryEscape(graph)), 1002012},
		{"scope with space", tenant, form("scope", graph+" "), 1002012},
		{"scope with line break", tenant, form("scope", graph+"\n"), 1002012},
		{"scope without resource", tenant, form("scope", "/.default"), 1002012},
		{"scope of sign-in", tenant, form("scope", "openid"), 1002012},
		{"scope twice", tenant, form("scope", graph+" "+graph), 70011},
		{"two resources", tenant, form("scope", graph+" "+devOps), 700022},
		{"resource unknown", tenant, form("scope", "https://graph.microsoft.us/.default"), 500011},
		{"no credential", tenant, form("client_secret", ""), 7000216},
		{"wrong secret", tenant, form("client_secret", secret+" "), 7000215},
		{"expired secret", tenant, form("client_secret", expired), 7000222},
		{"tenant unknown", client, form(), 90002},
		{"domain unknown", "fabrikam.com", form(), 90002},
		{"tenant of one label", "common", form(), 900023},
		{"tenant with slash", "contoso.com%2Fx", form(), 900023},
		{"other cloud", gov, form(), 90038},
		{"no consent", other, form(), 7000229},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := start(t)
			r, _ := ask(t, s, tt.tenant, tt.form)
			wantCode(t, s, r, tt.code)
		})
	}
	s := start(t)
	r, _ := do(t, "POST", s.URL()+"/"+tenant+"/oauth2/v2.0/token", "text/plain", form()) // not read as a form
	wantCode(t, s, r, 900144)
	r, _ = do(t, "POST", s.URL()+"/"+tenant+"/oauth2/v2.0/token?"+form(), formType, "") // nor is a query
	wantCode(t, s, r, 900144)
	r, _ = do(t, "GET", s.URL()+"/fabrikam.com/v2.0/.well-known/openid-configuration", "", "")
	wantCode(t, s, r, 90002)
	if r.Error != "invalid_tenant" {
		t.Errorf("the OpenID configuration's error is %s", r.Error)
	}
	r, _ = do(t, "POST", s.URL()+"/"+tenant+"/oauth2/token", formType, form())
	if q := last(s); r.Status != 404 || q.Status != 404 || q.Endpoint != "" {
		t.Errorf("an endpoint that is not there answers %d, recorded %+v", r.Status, q)
	}
}

// The stand-in must not know what it is there to test, nor share a library with it.
func TestImports(t *testing.T) {
	for _, path := range must(build.ImportDir(".", 0)).Imports {
		if strings.Contains(path, ".") || strings.HasPrefix(path, "entra-connector/") {
			t.Errorf("entratest imports %s", path)
		}
	}
}
