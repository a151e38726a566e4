package lambdahost

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-lambda-go/events"
)

// recorder is a function that keeps its event and gives a fixed answer.
type recorder struct {
	event  events.APIGatewayV2HTTPRequest
	raw    []byte
	result Result
	err    error
}

func (r *recorder) invoke(_ context.Context, payload []byte) (Result, error) {
	r.raw = payload
	if err := json.Unmarshal(payload, &r.event); err != nil {
		return Result{}, err
	}
	return r.result, r.err
}

func (r *recorder) serve(req *http.Request) *httptest.ResponseRecorder {
	res := httptest.NewRecorder()
	httpAPI{invoke: r.invoke}.ServeHTTP(res, req)
	return res
}

func reply(payload string) *recorder { return &recorder{result: Result{Payload: []byte(payload)}} }

func TestEventOfARequest(t *testing.T) {
	before := time.Now().UnixMilli()
	req := httptest.NewRequest("POST", "http://127.0.0.1:3000/connections/default/a%20b//../%2e%2e?app=x%2Fy&app=z&empty=", strings.NewReader(`{"ü":1}`))
	req.RemoteAddr = "192.0.2.7:4711"
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	req.Header.Set("User-Agent", "test/1")
	req.Header.Add("X-Many", "one")
	req.Header.Add("X-Many", "two")
	req.Header.Set("Cookie", "a=1; b=2")
	f := reply(`{"statusCode":204}`)
	res := f.serve(req)
	e := f.event

	for _, c := range []struct{ what, got, want string }{
		{"version", e.Version, "2.0"},
		{"routeKey", e.RouteKey, "$default"},
		{"rawPath", e.RawPath, "/connections/default/a b//../.."},
		{"rawQueryString", e.RawQueryString, "app=x%2Fy&app=z&empty="},
		{"query app", e.QueryStringParameters["app"], "x/y,z"},
		{"header content-type", e.Headers["content-type"], "application/json; charset=utf-8"},
		{"header x-many", e.Headers["x-many"], "one,two"},
		{"header host", e.Headers["host"], "127.0.0.1:3000"},
		{"header content-length", e.Headers["content-length"], "8"},
		{"header cookie", e.Headers["cookie"], ""},
		{"cookies", strings.Join(e.Cookies, "|"), "a=1|b=2"},
		{"body", e.Body, `{"ü":1}`},
		{"method", e.RequestContext.HTTP.Method, "POST"},
		{"path", e.RequestContext.HTTP.Path, "/connections/default/a b//../.."},
		{"protocol", e.RequestContext.HTTP.Protocol, "HTTP/1.1"},
		{"sourceIp", e.RequestContext.HTTP.SourceIP, "192.0.2.7"},
		{"userAgent", e.RequestContext.HTTP.UserAgent, "test/1"},
		{"stage", e.RequestContext.Stage, "$default"},
		{"requestId", e.RequestContext.RequestID, res.Header().Get("Apigw-Requestid")},
		{"accountId", e.RequestContext.AccountID, "123456789012"},
		{"apiId", e.RequestContext.APIID, "local"},
		{"domainName", e.RequestContext.DomainName, "localhost"},
	} {
		if c.got != c.want {
			t.Errorf("%s is %q, want %q", c.what, c.got, c.want)
		}
	}
	if _, ok := e.QueryStringParameters["empty"]; !ok || e.IsBase64Encoded || e.RequestContext.RequestID == "" {
		t.Errorf("the event is %s", f.raw)
	}
	if e.RequestContext.TimeEpoch < before || e.RequestContext.TimeEpoch > time.Now().UnixMilli() {
		t.Errorf("timeEpoch is %d", e.RequestContext.TimeEpoch)
	}
	if at, err := time.Parse("02/Jan/2006:15:04:05 -0700", e.RequestContext.Time); err != nil || at.Unix() != e.RequestContext.TimeEpoch/1000 {
		t.Errorf("time is %q: %v", e.RequestContext.Time, err)
	}
}

func TestEventWithoutQueryAndBody(t *testing.T) {
	f := reply(`{"statusCode":200}`)
	f.serve(httptest.NewRequest("GET", "/apps", nil))
	var event map[string]any
	if err := json.Unmarshal(f.raw, &event); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"queryStringParameters", "body", "cookies"} {
		if value, ok := event[name]; ok {
			t.Errorf("%s is %v, want it absent", name, value)
		}
	}
	if event["isBase64Encoded"] != false || event["rawQueryString"] != "" {
		t.Errorf("the event is %s", f.raw)
	}
}

func TestBodiesThatAreNotText(t *testing.T) {
	const text, encoded = "Grüße", "R3LDvMOfZQ=="
	for contentType, isText := range map[string]bool{
		"application/json": true, "Application/JSON": true, "text/plain;charset=utf-8": true, "application/xml": true,
		"application/javascript": true, "application/json; =broken": true,
		"": false, "application/x-www-form-urlencoded": false, "application/problem+json": false,
		"application/octet-stream": false, "text": false, "application/json/x": false,
	} {
		t.Run(contentType, func(t *testing.T) {
			req := httptest.NewRequest("POST", "/", strings.NewReader(text))
			if contentType != "" {
				req.Header.Set("Content-Type", contentType)
			}
			f := reply(`{"statusCode":200}`)
			f.serve(req)
			want := encoded
			if isText {
				want = text
			}
			if f.event.IsBase64Encoded == isText || f.event.Body != want {
				t.Errorf("body %q, isBase64Encoded %v", f.event.Body, f.event.IsBase64Encoded)
			}
		})
	}
}

func TestResponseOfAReply(t *testing.T) {
	for name, c := range map[string]struct {
		payload, contentType, body string
		status                     int
	}{
		"complete":            {`{"statusCode":201,"headers":{"Content-Type":"application/json"},"body":"{\"a\":1}"}`, "application/json", `{"a":1}`, 201},
		"no content type":     {`{"statusCode":200,"body":"hi"}`, "text/plain; charset=utf-8", "hi", 200},
		"base64":              {`{"statusCode":200,"headers":{"content-type":"image/png"},"body":"iVBORw==","isBase64Encoded":true}`, "image/png", "\x89PNG", 200},
		"no statusCode":       {`{"body":"hi"}`, "application/json", `{"body":"hi"}`, 200},
		"no object":           {`[1]`, "application/json", `[1]`, 200},
		"statusCode a word":   {`{"statusCode":"fine"}`, "application/json", `{"message":"Internal Server Error"}`, 500},
		"statusCode 99":       {`{"statusCode":99}`, "application/json", `{"message":"Internal Server Error"}`, 500},
		"statusCode 600":      {`{"statusCode":600}`, "application/json", `{"message":"Internal Server Error"}`, 500},
		"body an object":      {`{"statusCode":200,"body":{}}`, "application/json", `{"message":"Internal Server Error"}`, 500},
		"body not base64":     {`{"statusCode":200,"body":"*","isBase64Encoded":true}`, "application/json", `{"message":"Internal Server Error"}`, 500},
		"headers not strings": {`{"statusCode":200,"headers":{"A":["b"]}}`, "application/json", `{"message":"Internal Server Error"}`, 500},
	} {
		t.Run(name, func(t *testing.T) {
			res := reply(c.payload).serve(httptest.NewRequest("GET", "/", nil))
			if res.Code != c.status || res.Header().Get("Content-Type") != c.contentType || res.Body.String() != c.body {
				t.Errorf("got %d, %q, %q", res.Code, res.Header().Get("Content-Type"), res.Body)
			}
		})
	}

	res := reply(`{"statusCode":503,"headers":{"Retry-After":"60"},"cookies":["a=1","b=2"]}`).serve(httptest.NewRequest("GET", "/", nil))
	if res.Header().Get("Retry-After") != "60" || strings.Join(res.Header().Values("Set-Cookie"), "|") != "a=1|b=2" {
		t.Errorf("headers are %v", res.Header())
	}
}

func TestFailuresOfTheIntegration(t *testing.T) {
	for name, c := range map[string]struct {
		f       *recorder
		status  int
		message string
	}{
		"function error":  {&recorder{result: Result{Payload: []byte(`{"statusCode":200}`), FunctionError: "Unhandled"}}, 500, "Internal Server Error"},
		"function closed": {&recorder{err: ErrClosed}, 500, "Internal Server Error"},
		"event too large": {&recorder{err: ErrRequestTooLarge}, 413, "Request Entity Too Large"},
	} {
		t.Run(name, func(t *testing.T) {
			res := c.f.serve(httptest.NewRequest("GET", "/", nil))
			if want := `{"message":"` + c.message + `"}`; res.Code != c.status || res.Body.String() != want {
				t.Errorf("got %d %s, want %d %s", res.Code, res.Body, c.status, want)
			}
		})
	}
}

func TestBodyLimit(t *testing.T) {
	f := reply(`{"statusCode":200}`)
	if res := f.serve(httptest.NewRequest("POST", "/", strings.NewReader(strings.Repeat("x", 10*1024*1024)))); res.Code != 200 {
		t.Errorf("the largest body: got %d", res.Code)
	}
	f = reply(`{"statusCode":200}`)
	res := f.serve(httptest.NewRequest("POST", "/", strings.NewReader(strings.Repeat("x", 10*1024*1024+1))))
	if res.Code != 413 || res.Body.String() != `{"message":"Request Entity Too Large"}` || f.raw != nil {
		t.Errorf("a body above the limit: got %d %s", res.Code, res.Body)
	}
}

func TestIntegrationTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		res := httptest.NewRecorder()
		httpAPI{invoke: func(ctx context.Context, _ []byte) (Result, error) {
			<-ctx.Done()
			return Result{}, ctx.Err()
		}}.ServeHTTP(res, httptest.NewRequest("GET", "/", nil))
		if res.Code != 503 || res.Body.String() != `{"message":"Service Unavailable"}` {
			t.Errorf("got %d %s", res.Code, res.Body)
		}
		if waited := time.Since(begin); waited != 30*time.Second { // of the bubble's clock
			t.Errorf("after %v, want 30 s", waited)
		}
	})
}

func TestClientThatHangsUp(t *testing.T) {
	ctx, hangUp := context.WithCancel(t.Context())
	hangUp()
	httpAPI{invoke: func(ctx context.Context, _ []byte) (Result, error) {
		if err := ctx.Err(); err != nil {
			t.Errorf("the function is told %v", err)
		}
		return Result{}, nil
	}}.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, "GET", "/", nil))
}

func TestHTTPAPIOverARealFunction(t *testing.T) {
	api := httptest.NewServer(HTTPAPI(host(t, "worker", nil)))
	defer api.Close()
	for path, want := range map[string]int{"/": 200, "/too-large": 413} {
		body := "x"
		if want == 413 {
			body = strings.Repeat("x", 6291456)
		}
		res, err := http.Post(api.URL+path, "text/plain", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: got %d, want %d", path, res.StatusCode, want)
		}
	}
}
