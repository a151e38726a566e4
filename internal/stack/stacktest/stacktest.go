// Package stacktest runs the built functions for end-to-end tests, and watches everything that
// comes out of them for secrets.
package stacktest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"entra-connector/internal/lambdahost"
	"entra-connector/internal/openapitest"
	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/stack"
	"entra-connector/pkg/entra/entratest"
)

// What the stand-in Entra of every [Connector] knows.
const (
	TenantA  = "aaaaaaaa-0000-4000-8000-000000000001" // contoso.com
	TenantB  = "bbbbbbbb-0000-4000-8000-000000000002" // fabrikam.com
	ClientID = "cccccccc-0000-4000-8000-000000000003" // consented to in both
	OtherID  = "dddddddd-0000-4000-8000-000000000004" // likewise
	Graph    = "https://graph.microsoft.com/.default"

	Secret    = "c4nary-current"
	NewSecret = "c4nary-new" // good as well
	Expired   = "c4nary-expired"
	Wrong     = "c4nary-wrong"
)

// ProvisionBinary and RefreshBinary are the functions that [Main] built.
var ProvisionBinary, RefreshBinary string

// ConnectBinary is the function of the customer's page, which [MainWithPage] built.
var ConnectBinary string

// MainWithPage is [Main] for tests of the customer's page.
func MainWithPage(m *testing.M) {
	dir, err := os.MkdirTemp("", "connect")
	if err == nil {
		ConnectBinary, err = stack.BuildConnect(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	Main(m, dir)
}

// Main builds the functions, runs the tests, removes these folders too and exits.
func Main(m *testing.M, remove ...string) {
	dir, err := os.MkdirTemp("", "functions")
	if err == nil {
		ProvisionBinary, RefreshBinary, err = stack.Build(dir)
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	for _, dir := range append(remove, dir) {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// Connector is the built functions between the stand-ins.
type Connector struct {
	*stack.Stack
	t   testing.TB
	out *Output
}

// Start runs a connector until the test ends, and fails the test if a secret has come out of it.
func Start(t testing.TB, options stack.Options) *Connector {
	t.Helper()
	c := &Connector{t: t, out: new(Output)}
	options.Provision, options.Refresh, options.Log = ProvisionBinary, RefreshBinary, c.out
	// The SDK's retries would hide the faults that tests inject.
	options.Env = append([]string{"AWS_MAX_ATTEMPTS=1", "LOG_LEVEL=DEBUG"}, options.Env...)
	var err error
	if c.Stack, err = stack.Start(options); err != nil {
		t.Fatal(err)
	}
	c.Entra.AddApp(entratest.App{ClientID: ClientID, Secrets: []entratest.Secret{
		{Value: Secret}, {Value: NewSecret}, {Value: Expired, Expires: time.Unix(1, 0)},
	}})
	c.Entra.AddApp(entratest.App{ClientID: OtherID, Secrets: []entratest.Secret{{Value: Secret}}})
	for tenant, domain := range map[string]string{TenantA: "contoso.com", TenantB: "fabrikam.com"} {
		c.Entra.AddTenant(entratest.Tenant{ID: tenant, Domains: []string{domain}})
		c.Entra.Consent(tenant, ClientID, "User.Read.All")
		c.Entra.Consent(tenant, OtherID, "User.Read.All")
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		for _, event := range c.Events.Events() {
			fmt.Fprintln(c.out, event.Detail)
		}
		c.out.Guard(append(c.Entra.Tokens(), Secret, NewSecret, Expired, Wrong)...)
		c.out.Take(t)
	})
	return c
}

// Twin is two more functions on the same stand-ins, since Lambda starts as many as there are
// requests at a time. What comes out of them is watched too. It ends with the test at the latest.
func (c *Connector) Twin(env ...string) *Connector {
	c.t.Helper()
	twin, err := c.Stack.Twin(env...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { twin.Close() })
	return &Connector{Stack: twin, t: c.t, out: c.out}
}

// TB is the test.
func (c *Connector) TB() testing.TB { return c.t }

// Output is everything that the functions have logged or answered so far.
func (c *Connector) Output() string { return c.out.String() }

// Reply is an answer of the API.
type Reply struct {
	Status int
	Header http.Header
	Body   string
}

// Call sends a request through the HTTP API, a body as JSON.
func (c *Connector) Call(method, path, body string) Reply {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	c.API().ServeHTTP(w, r)
	fmt.Fprintf(c.out, "%s %s: %d %v %s\n", method, path, w.Code, w.Header(), w.Body)
	document, err := openapitest.Read()
	if err == nil {
		err = document.Check(method, path, body, w.Code, w.Header(), w.Body.Bytes())
	}
	if err != nil {
		c.t.Errorf("not as in api/openapi.yaml: %v", err)
	}
	return Reply{w.Code, w.Header(), w.Body.String()}
}

// Invoke sends an event to one of the functions.
func (c *Connector) Invoke(f *lambdahost.Function, event string) lambdahost.Result {
	c.t.Helper()
	result, err := f.Invoke(context.Background(), []byte(event))
	if err != nil {
		c.t.Fatal(err)
	}
	c.out.Write(result.Payload)
	return result
}

// JSON is the answer as an object.
func (r Reply) JSON(t testing.TB) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(r.Body), &v); err != nil {
		t.Fatalf("the answer is no JSON object: %s", r.Body)
	}
	return v
}

// Want stops the test unless the answer has the status, and the form that goes with it.
func (r Reply) Want(t testing.TB, status int) Reply {
	t.Helper()
	if r.Status != status {
		t.Fatalf("status %d, want %d: %s", r.Status, status, r.Body)
	}
	mediaType := "application/json"
	if status >= 400 {
		mediaType = "application/problem+json"
		p := r.JSON(t)
		if p["status"] != float64(status) || Text(p, "title") == "" || Text(p, "type") == "" || Text(p, "detail") == "" {
			t.Errorf("incomplete problem document: %s", r.Body)
		}
	}
	if got := r.Header.Get("Content-Type"); status != http.StatusNoContent && got != mediaType {
		t.Errorf("media type %q, want %q", got, mediaType)
	}
	return r
}

// Text is a string in a JSON object, "" if it is missing or no string. A missing member itself is
// not equal to "".
func Text(object any, member string) string {
	m, _ := object.(map[string]any)
	s, _ := m[member].(string)
	return s
}

// Object is a JSON object of pairs; of two with the same name the last counts.
func Object(pairs ...string) string {
	m := make(map[string]string)
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	b, _ := json.Marshal(m)
	return string(b)
}

// AppBody describes the app, with pairs added or replaced.
func AppBody(pairs ...string) string {
	return Object(append([]string{"client_id", ClientID, "client_secret", Secret, "scope", Graph}, pairs...)...)
}

// Body asks for a connection to TenantA, app included.
func Body(pairs ...string) string {
	return AppBody(append([]string{"tenant_id", TenantA}, pairs...)...)
}

// Token is the access token that integrations read now, "" if there is none.
func (c *Connector) Token(connection string) string {
	c.t.Helper()
	value, ok := c.Secrets.Value("entra/connections/" + connection)
	if !ok {
		return ""
	}
	var six map[string]string
	if err := json.Unmarshal([]byte(value), &six); err != nil || len(six) != 6 {
		c.t.Fatalf("%s does not hold the six values", connection)
	}
	return six["PAN_SEC_MICROSOFT_ENTRA_ACCESS_TOKEN"]
}

// LastToken is the token that Entra issued last.
func (c *Connector) LastToken() string {
	tokens := c.Entra.Tokens()
	return tokens[len(tokens)-1]
}

// Describe changes what a secret's Description says. The version that it describes stays the same.
func (c *Connector) Describe(secret string, change func(d map[string]any)) {
	c.t.Helper()
	c.Secrets.Edit(secret, func(s *secretstoretest.Secret) {
		var d map[string]any
		if err := json.Unmarshal([]byte(s.Description), &d); err != nil {
			c.t.Errorf("the Description of %s is %q", secret, s.Description)
			return
		}
		change(d)
		b, _ := json.Marshal(d)
		s.Description = string(b)
	})
}

// Clone makes a connection like another one, with the same token.
func (c *Connector) Clone(from, to string) {
	like, _ := c.Secrets.Look("entra/connections/" + from)
	app, name, _ := strings.Cut(to, "/")
	c.Secrets.Edit("entra/connections/"+to, func(s *secretstoretest.Secret) {
		s.Value, s.Tags = like.Value, maps.Clone(like.Tags)
		s.Tags["entra-connector:app"], s.Tags["entra-connector:connection"] = app, name
	})
	c.Secrets.Edit("entra/connections/"+to, func(s *secretstoretest.Secret) {
		s.Description = strings.Replace(like.Description, like.Version, s.Version, 1)
	})
}
