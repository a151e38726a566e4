package setup

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"entra-connector/internal/stack"
	. "entra-connector/internal/stack/stacktest"
)

func TestMain(m *testing.M) { Main(m) }

// front passes every request on to a stand-in and records the User-Agents.
type front struct {
	behind func() http.Handler
	mu     sync.Mutex
	agents []string
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.agents = append(f.agents, r.UserAgent())
	f.mu.Unlock()
	f.behind().ServeHTTP(w, r)
}

// take returns the User-Agents since it was last called.
func (f *front) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	agents := f.agents
	f.agents = nil
	return agents
}

// Each function logs which build it is, and names itself to the services that it calls.
func TestFunctionsNameTheirBuild(t *testing.T) {
	var c *Connector
	entra := &front{behind: func() http.Handler { return c.Entra }}
	secrets := &front{behind: func() http.Handler { return c.Secrets }}
	var urls []string
	for _, f := range []*front{entra, secrets} {
		server := httptest.NewServer(f)
		t.Cleanup(server.Close)
		urls = append(urls, server.URL)
	}
	c = Start(t, stack.Options{Env: []string{"AZURE_AUTHORITY_HOST=" + urls[0], "AWS_ENDPOINT_URL_SECRETS_MANAGER=" + urls[1]}})

	started := fmt.Sprintf(`"level":"INFO","message":"starting","version":%q,"commit":%q}`, version, commit)
	calls := []func(){
		func() { c.Call("POST", "/connections", Body("tenant_id", "contoso.com")).Want(t, 201) },
		func() { c.Invoke(c.Refresh, `{"force":true}`) },
	}
	for i, call := range calls {
		call()
		if got, want := strings.Count(c.Output(), started), i+1; got != want {
			t.Errorf("%d lines %s, want %d, in\n%s", got, started, want, c.Output())
		}
		agents := entra.take()
		if !all(agents, func(agent string) bool { return agent == "entra-connector/"+version }) {
			t.Errorf("User-Agents at Entra %q", agents)
		}
		agents = secrets.take()
		if !all(agents, func(agent string) bool {
			return slices.Contains(strings.Fields(agent), "entra-connector/"+version) && strings.Contains(agent, "aws-sdk-go-v2/")
		}) {
			t.Errorf("User-Agents at Secrets Manager %q", agents)
		}
	}
}

// all reports whether there are agents and all of them are as wanted.
func all(agents []string, wanted func(string) bool) bool {
	return len(agents) > 0 && !slices.ContainsFunc(agents, func(agent string) bool { return !wanted(agent) })
}
