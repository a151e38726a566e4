package openapitest_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"entra-connector/internal/openapitest"
	"entra-connector/internal/templatetest"
)

// The template has a route for every operation, and the other way round.
func TestOperationsAreTheTemplatesRoutes(t *testing.T) {
	d, err := openapitest.Read()
	if err != nil {
		t.Fatal(err)
	}
	var routes []string
	events, _ := templatetest.Read(t, nil)["ProvisionFunction"].Properties["Events"].(map[string]any)
	for _, event := range events {
		route := event.(map[string]any)["Properties"].(map[string]any)
		if route["Path"] != nil { // AnythingElse has none
			routes = append(routes, fmt.Sprintf("%s %s", route["Method"], route["Path"]))
		}
	}
	operations := d.Operations()
	slices.Sort(routes)
	slices.Sort(operations)
	if len(routes) == 0 || !slices.Equal(routes, operations) {
		t.Errorf("the routes are\n\t%q\nbut the document has\n\t%q", routes, operations)
	}
}

func TestCheck(t *testing.T) {
	d, err := openapitest.Read()
	if err != nil {
		t.Fatal(err)
	}
	const problem = `{"type":"urn:entra-connector:problem:not-found","title":"Not Found","status":404,"detail":"x"}`
	for _, tt := range []struct {
		method, path, request string
		status                int
		header                []string
		body, want            string
	}{
		{"GET", "/connections?limit=1", "", 200, []string{"Content-Type", "application/json"}, `{"connections":[]}`, ""},
		{"GET", "/connections", "", 200, []string{"Content-Type", "application/json"}, `{"connections":[],"more":1}`, "GET /connections 200: / fails additionalProperties"},
		{"GET", "/apps/a", "", 404, []string{"Content-Type", "application/problem+json"}, problem, ""},
		{"GET", "/apps/a", "", 202, nil, ``, "GET /apps/{app}: the status 202 is not documented"},
		{"GET", "/nothing", "", 404, nil, problem, ""},
		{"DELETE", "/apps/a", "", 204, nil, "", ""},
		{"DELETE", "/apps/a", "", 204, []string{"Retry-After", "1"}, "", "DELETE /apps/{app} 204: the header Retry-After is documented: false"},
		{"GET", "/apps", "", 503, []string{"Content-Type", "application/problem+json"}, problem, "GET /apps 503: the header Retry-After is documented: true"},
		{"PUT", "/apps/a", `{"client_id":"s3cret"}`, 200, []string{"Content-Type", "application/json"},
			`{"app":"a","client_id":"","cloud":"","credential":"client_secret"}`, "PUT /apps/{app} 200: /client_id fails pattern"},
	} {
		header := make(http.Header)
		if tt.header != nil {
			header.Set(tt.header[0], tt.header[1])
		}
		got := ""
		if err := d.Check(tt.method, tt.path, tt.request, tt.status, header, []byte(tt.body)); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s %s %d: %q, want %q", tt.method, tt.path, tt.status, got, tt.want)
		}
	}
}
