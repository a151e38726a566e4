// Package stacktest runs the built functions for end-to-end tests, and watches
// all that comes out of them for secrets.
package stacktest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"entra-connector/internal/lambdahost"
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

var binaries struct{ provision, refresh string }

// Main builds the functions, runs the tests and exits.
func Main(m *testing.M) {
	dir, err := os.MkdirTemp("", "functions")
	if err == nil {
		binaries.provision, binaries.refresh, err = stack.Build(dir)
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// Connector is the built functions between the two stand-ins.
type Connector struct {
	*stack.Stack
	t   *testing.T
	out *output
}

// output is all that the functions logged or answered.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

// Start runs a connector until the test ends, and then fails the test if a
// secret was in anything that came out of it.
func Start(t *testing.T, options stack.Options) *Connector {
	t.Helper()
	c := &Connector{t: t, out: new(output)}
	c.start(options)
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
		out := c.Output()
		for _, event := range c.Events.Events() {
			out += event.Detail
		}
		for _, canary := range append(c.Entra.Tokens(), Secret, NewSecret, Expired, Wrong) {
			if strings.Contains(out, canary) {
				t.Errorf("%.12s… is in a log line, a reply or an event", canary)
			}
		}
	})
	return c
}

// Twin is two more functions on the same stand-ins, which stay c's to ask: Lambda
// starts as many as there are requests at a time. What comes out of them is
// watched with the rest. It ends with the test, if not closed before.
func (c *Connector) Twin() *Connector {
	c.t.Helper()
	twin := &Connector{t: c.t, out: c.out}
	twin.start(stack.Options{
		Authority: c.Authority, SecretsEndpoint: c.SecretsEndpoint,
		// To the stack this is AWS itself, for which it would take the developer's own.
		Env: []string{"AWS_ENDPOINT_URL_STS=" + c.STS.URL(), "AWS_ENDPOINT_URL_EVENTBRIDGE=" + c.Events.URL(), "EVENT_BUS=default",
			"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local", "AWS_PROFILE=",
			"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true"},
	})
	c.t.Cleanup(func() { twin.Close() })
	return twin
}

func (c *Connector) start(options stack.Options) {
	c.t.Helper()
	options.Provision, options.Refresh = binaries.provision, binaries.refresh
	options.Log = c.out
	// The SDK's retries would hide the faults that tests inject.
	options.Env = append([]string{"AWS_MAX_ATTEMPTS=1", "LOG_LEVEL=DEBUG"}, options.Env...)
	var err error
	if c.Stack, err = stack.Start(options); err != nil {
		c.t.Fatal(err)
	}
}

// Output is all that the functions have logged or answered so far.
func (c *Connector) Output() string {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return c.out.b.String()
}

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
func (r Reply) JSON(t *testing.T) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(r.Body), &v); err != nil {
		t.Fatalf("the answer is no JSON object: %s", r.Body)
	}
	return v
}

// Want stops the test unless the answer has the status, and the form that goes
// with it.
func (r Reply) Want(t *testing.T, status int) Reply {
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

// Text is the string that a member of a JSON object holds, "" where it is missing
// or something else: compared with "" itself, a missing member passes for text.
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

// Token is the access token that integrations read now, "" where there is none.
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
	if len(tokens) == 0 {
		return ""
	}
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
