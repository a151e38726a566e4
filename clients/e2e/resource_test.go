package e2e

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// resource is what a Microsoft service does with a token: it verifies signature, audience, issuer,
// tenant, roles and times, with the keys that Entra publishes. It remembers what it was shown.
type resource struct {
	authority, tenant string // of Entra
	audience, role    string // of the service; it may ask for no role

	mu      sync.Mutex
	key     *rsa.PublicKey
	ends    map[string]time.Time // tokens that were good, by their identifier
	calls   int
	last    time.Time // the last call
	refused []string
}

// authorize verifies a token and remembers what came of it.
func (r *resource) authorize(token string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls, r.last = r.calls+1, time.Now()
	id, ends, err := r.verifyLocked(token)
	if err != nil {
		r.refused = append(r.refused, err.Error())
		return err
	}
	if r.ends == nil {
		r.ends = make(map[string]time.Time)
	}
	r.ends[id] = ends
	return nil
}

func (r *resource) verifyLocked(token string) (id string, ends time.Time, err error) {
	var claims struct {
		jwt.RegisteredClaims
		Tenant  string   `json:"tid"`
		Version string   `json:"ver"`
		ID      string   `json:"uti"`
		Roles   []string `json:"roles"`
	}
	if _, err := jwt.NewParser(jwt.WithValidMethods([]string{"RS256"}), jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
		jwt.WithAudience(r.audience)).ParseWithClaims(token, &claims, r.publishedLocked); err != nil {
		return "", ends, err
	}
	issuer := map[string]string{"1.0": "https://sts.windows.net/" + r.tenant + "/", "2.0": r.authority + "/" + r.tenant + "/v2.0"}[claims.Version]
	switch {
	case claims.Issuer != issuer || claims.Tenant != r.tenant:
		return "", ends, fmt.Errorf("a token of %s for the tenant %s", claims.Issuer, claims.Tenant)
	case r.role != "" && !slices.Contains(claims.Roles, r.role):
		return "", ends, fmt.Errorf("%s is not among the roles %q", r.role, claims.Roles)
	}
	return claims.ID, claims.ExpiresAt.Time, nil
}

// publishedLocked finds the key of a token where Entra's OpenID configuration says.
func (r *resource) publishedLocked(token *jwt.Token) (any, error) {
	if r.key != nil {
		return r.key, nil
	}
	var configuration struct {
		Keys string `json:"jwks_uri"`
	}
	var published struct {
		Keys []struct{ Kid, N, E string }
	}
	if err := errors.Join(getJSON(r.authority+"/"+r.tenant+"/v2.0/.well-known/openid-configuration", &configuration),
		getJSON(configuration.Keys, &published)); err != nil {
		return nil, err
	}
	for _, key := range published.Keys {
		if key.Kid == token.Header["kid"] {
			n, err1 := base64.RawURLEncoding.DecodeString(key.N)
			e, err2 := base64.RawURLEncoding.DecodeString(key.E)
			r.key = &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
			return r.key, errors.Join(err1, err2)
		}
	}
	return nil, fmt.Errorf("Entra publishes no key %v", token.Header["kid"])
}

func getJSON(url string, v any) error {
	response, err := http.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	return json.NewDecoder(response.Body).Decode(v)
}

// serve serves a handler behind the resource, with TLS, and returns its URL.
func (r *resource) serve(t *testing.T, handler http.Handler) string {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		token, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
		if err := r.authorize(token); err != nil || !ok {
			http.Error(w, "entra-connector's test: the token is no good", http.StatusUnauthorized)
			return
		}
		handler.ServeHTTP(w, req)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// check fails the test unless the resource was called with good tokens only, in more than the life
// of the first, and with more than one.
func (r *resource) check(t *testing.T) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	var expired, good int
	for _, ends := range r.ends {
		good++
		if ends.Before(r.last) {
			expired++
		}
	}
	t.Logf("%d calls, %d tokens, %d of which have expired since, %d refused", r.calls, good, expired, len(r.refused))
	if good < 2 || expired < 1 || len(r.refused) > 0 {
		t.Errorf("want calls across a refresh and an expiry, and none refused: %q", slices.Compact(r.refused))
	}
}

// certificate writes the certificate and the key of httptest's TLS servers into a folder.
func certificate(t *testing.T, dir string) (cert, key string) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	private, err := x509.MarshalPKCS8PrivateKey(server.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", server.Certificate().Raw), write("key.pem", "PRIVATE KEY", private)
}

// graphAPI has a page of users and another, a team's channels and the root site.
func graphAPI() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1.0/users", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("$skiptoken") == "" {
			reply(w, `{"value":[{"id":"1","displayName":"Adele"}],"@odata.nextLink":"https://%s/v1.0/users?$skiptoken=2"}`, r.Host)
			return
		}
		reply(w, `{"value":[{"id":"2","displayName":"Alex"}]}`)
	})
	mux.HandleFunc("GET /v1.0/teams/{team}/channels", func(w http.ResponseWriter, r *http.Request) {
		reply(w, `{"value":[{"id":"19:1","displayName":"General"}]}`)
	})
	mux.HandleFunc("GET /v1.0/sites/{site}", func(w http.ResponseWriter, r *http.Request) {
		reply(w, `{"id":%q,"displayName":"Contoso"}`, r.PathValue("site"))
	})
	return mux
}

// devOpsAPI has two work items. Its clients first ask where its resources are.
func devOpsAPI() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("OPTIONS /_apis/", func(w http.ResponseWriter, r *http.Request) {
		location := func(id, area, resource, route string) string {
			return fmt.Sprintf(`{"id":%q,"area":%q,"resourceName":%q,"routeTemplate":%q,
				"resourceVersion":3,"minVersion":1.0,"maxVersion":7.2,"releasedVersion":"7.1"}`, id, area, resource, route)
		}
		reply(w, `{"count":3,"value":[%s,%s,%s]}`,
			location("e81700f7-3be2-46de-8624-2eb35882fcaa", "Location", "ResourceAreas", "_apis/{resource}/{areaId}"),
			location("1a9c53f7-f243-4447-b110-35ef023636e4", "wit", "wiql", "{project}/{team}/_apis/{area}/{resource}/{id}"),
			location("72c7ddf8-2cdc-4f60-90cd-ab71c14a399b", "wit", "workItems", "{project}/_apis/{area}/{resource}/{id}"))
	})
	mux.HandleFunc("GET /_apis/ResourceAreas", func(w http.ResponseWriter, r *http.Request) { reply(w, `{"count":0,"value":[]}`) })
	mux.HandleFunc("POST /_apis/wit/wiql", wiql)
	mux.HandleFunc("POST /{project}/_apis/wit/wiql", wiql)
	items := func(w http.ResponseWriter, r *http.Request) {
		reply(w, `{"count":2,"value":[{"id":1,"fields":{"System.Title":"One"}},{"id":2,"fields":{"System.Title":"Two"}}]}`)
	}
	mux.HandleFunc("GET /_apis/wit/workItems", items)
	mux.HandleFunc("GET /{project}/_apis/wit/workItems", items)
	return mux
}

func wiql(w http.ResponseWriter, r *http.Request) {
	var query struct{ Query string }
	body, _ := io.ReadAll(r.Body)
	if json.Unmarshal(body, &query) != nil || !strings.HasPrefix(strings.ToUpper(query.Query), "SELECT ") {
		http.Error(w, "not WIQL", http.StatusBadRequest)
		return
	}
	reply(w, `{"queryType":"flat","asOf":"2026-11-25T00:00:00Z","workItems":[{"id":1},{"id":2}]}`)
}

// businessCentralAPI has one item, by OData.
func businessCentralAPI() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v2.0/{tenant}/Production/ODataV4/{company}/Items", func(w http.ResponseWriter, r *http.Request) {
		reply(w, `{"@odata.context":"$metadata#Items","value":[{"No":"1000","Description":"Bicycle"}]}`)
	})
	return mux
}

func reply(w http.ResponseWriter, format string, args ...any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	fmt.Fprintf(w, format, args...)
}

func freePort(t *testing.T) int {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}
