package lambdahost

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"
)

// recorder is a function that keeps its event and gives a fixed answer.
type recorder struct {
	raw    []byte // the event, nil if it was not invoked
	event  events.APIGatewayV2HTTPRequest
	result Result
	err    error
}

func (r *recorder) serve(req *http.Request, routes ...string) *httptest.ResponseRecorder {
	res := httptest.NewRecorder()
	httpAPI{func(_ context.Context, event []byte) (Result, error) {
		r.raw = event
		if err := json.Unmarshal(event, &r.event); err != nil {
			return Result{}, err
		}
		return r.result, r.err
	}, routes}.ServeHTTP(res, req)
	return res
}

func reply(payload string) *recorder { return &recorder{result: Result{Payload: []byte(payload)}} }

func TestEventOfARequest(t *testing.T) {
	req := httptest.NewRequest("POST", "http://127.0.0.1:3000/connections/default/a%20b//../%2e%2e?app=x%2Fy&app=z&empty=",
		strings.NewReader(`{"ü":1}`))
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	req.Header.Add("X-Many", "one")
	req.Header.Add("X-Many", "two")
	f := reply(`{"statusCode":204}`)
	res := f.serve(req)
	e := f.event
	for _, c := range []struct{ what, got, want string }{
		{"version", e.Version, "2.0"},
		{"routeKey", e.RouteKey + e.RequestContext.RouteKey, "$default$default"},
		{"rawPath", e.RawPath, "/connections/default/a b//../.."},
		{"rawQueryString", e.RawQueryString, "app=x%2Fy&app=z&empty="},
		{"query app", e.QueryStringParameters["app"], "x/y,z"},
		{"header content-type", e.Headers["content-type"], "application/json; charset=utf-8"},
		{"header x-many", e.Headers["x-many"], "one,two"},
		{"header host", e.Headers["host"], "127.0.0.1:3000"},
		{"body", e.Body, `{"ü":1}`},
		{"method", e.RequestContext.HTTP.Method, "POST"},
		{"path", e.RequestContext.HTTP.Path, "/connections/default/a b//../.."},
		{"stage", e.RequestContext.Stage, "$default"},
		{"requestId", e.RequestContext.RequestID, res.Header().Get("Apigw-Requestid")},
	} {
		if c.got != c.want || c.got == "" {
			t.Errorf("%s is %q, want %q", c.what, c.got, c.want)
		}
	}
	if _, ok := e.QueryStringParameters["empty"]; !ok {
		t.Errorf("the event is %s", f.raw)
	}

	f = reply(`{"statusCode":200}`)
	f.serve(httptest.NewRequest("GET", "/apps", nil))
	for _, name := range []string{"queryStringParameters", "pathParameters", "body"} {
		if strings.Contains(string(f.raw), `"`+name+`"`) {
			t.Errorf("%s is there without a value: %s", name, f.raw)
		}
	}
}

func TestRoutes(t *testing.T) {
	routes := []string{"POST /connections", "GET /connections/{app}/{connection}", "GET /connections/{app}/of-a-name",
		"GET /apps/of-a-name", "GET /apps/{app}", "$default"}
	for _, c := range []struct {
		request, key string
		parameters   map[string]string
	}{
		{"POST /connections", "POST /connections", nil},
		{"GET /connections/a/b%20c?app=x", "GET /connections/{app}/{connection}", map[string]string{"app": "a", "connection": "b c"}},
		{"GET /connections/a/of-a-name", "GET /connections/{app}/of-a-name", map[string]string{"app": "a"}},
		{"GET /apps/of-a-name", "GET /apps/of-a-name", nil},
		{"GET /connections", "", nil},
		{"HEAD /connections/a/b", "", nil},
		{"POST /connections/", "", nil},
		{"GET /connections/a/", "", nil},
		{"GET /connections/a/b/c", "", nil},
	} {
		method, path, _ := strings.Cut(c.request, " ")
		f := reply(`{"statusCode":200}`)
		res := f.serve(httptest.NewRequest(method, path, nil), routes[:5]...)
		if c.key == "" {
			if res.Code != 404 || res.Body.String() != `{"message":"Not Found"}` || f.raw != nil {
				t.Errorf("%s is answered %d %s, want API Gateway's 404", c.request, res.Code, res.Body)
			}
			f.serve(httptest.NewRequest(method, path, nil), routes...)
			c.key = "$default"
		}
		if f.event.RouteKey != c.key || f.event.RequestContext.RouteKey != c.key || !maps.Equal(f.event.PathParameters, c.parameters) {
			t.Errorf("%s: route %q, parameters %v", c.request, f.event.RouteKey, f.event.PathParameters)
		}
	}
}

func TestBodiesThatAreNotText(t *testing.T) {
	const text, encoded = "Grüße", "R3LDvMOfZQ=="
	for contentType, want := range map[string]string{
		"application/json": text, "Application/JSON": text, "text/plain;charset=utf-8": text, "application/xml": text,
		"application/javascript": text, "application/json; =broken": text,
		"": encoded, "application/x-www-form-urlencoded": encoded, "application/problem+json": encoded,
		"application/octet-stream": encoded, "text": encoded, "application/json/x": encoded,
	} {
		req := httptest.NewRequest("POST", "/", strings.NewReader(text))
		req.Header.Set("Content-Type", contentType)
		f := reply(`{"statusCode":200}`)
		f.serve(req)
		if f.event.Body != want || f.event.IsBase64Encoded != (want == encoded) {
			t.Errorf("%q: body %q, isBase64Encoded %v", contentType, f.event.Body, f.event.IsBase64Encoded)
		}
	}
}

func TestResponse(t *testing.T) {
	const internal = `{"message":"Internal Server Error"}`
	for name, c := range map[string]struct {
		f                 *recorder
		status            int
		contentType, body string
	}{
		"complete":            {reply(`{"statusCode":201,"headers":{"Content-Type":"a/b"},"body":"{\"a\":1}"}`), 201, "a/b", `{"a":1}`},
		"no content type":     {reply(`{"statusCode":200,"body":"hi"}`), 200, "text/plain; charset=utf-8", "hi"},
		"statusCode 99":       {reply(`{"statusCode":99}`), 500, "application/json", internal},
		"statusCode 600":      {reply(`{"statusCode":600}`), 500, "application/json", internal},
		"headers not strings": {reply(`{"statusCode":200,"headers":{"A":["b"]}}`), 500, "application/json", internal},
		"function error":      {&recorder{result: Result{[]byte(`{"statusCode":200}`), "Unhandled", Report{}}}, 500, "application/json", internal},
		"function closed":     {&recorder{err: ErrClosed}, 500, "application/json", internal},
		"event too large":     {&recorder{err: ErrRequestTooLarge}, 413, "application/json", `{"message":"Request Entity Too Large"}`},
	} {
		res := c.f.serve(httptest.NewRequest("GET", "/", nil))
		if res.Code != c.status || res.Header().Get("Content-Type") != c.contentType || res.Body.String() != c.body {
			t.Errorf("%s: got %d, %q, %q", name, res.Code, res.Header().Get("Content-Type"), res.Body)
		}
	}
}
