package lambdahost

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/events"
)

// integrationTimeout is a quota of an API Gateway HTTP API.
// https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-quotas.html
const integrationTimeout = 30 * time.Second

const defaultRoute = "$default"

// HTTPAPI serves the function as an API Gateway HTTP API does, with a Lambda integration and payload
// format 2.0: a request becomes an event, and the function's reply becomes the response. Requests carry
// no identity, and none is asked for.
//
// Routes are route keys such as "GET /apps/{app}". A request that matches none of them is answered with
// 404, and the function does not see it. Without routes there is only $default, which every request
// matches.
//
// Where the documentation leaves open what API Gateway does, this follows what others measured: which
// bodies are text (ministackorg/ministack#766), that rawPath is decoded and what a reply without
// statusCode means (aws/aws-lambda-dotnet, LambdaTestTool-v2), and 503 for an integration that takes too
// long (cortexlabs/cortex#1225).
func HTTPAPI(f *Function, routes ...string) http.Handler {
	return httpAPI{f.Invoke, routes}
}

type httpAPI struct {
	invoke func(context.Context, []byte) (Result, error)
	routes []string
}

func (a httpAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	requestID := rand.Text()
	w.Header().Set("Apigw-Requestid", requestID)
	routeKey, parameters := match(a.routes, r.Method, r.URL.Path)
	if routeKey == "" {
		gatewayMessage(w, http.StatusNotFound, "Not Found")
		return
	}
	// API Gateway would take up to 10 MB, and then Lambda would refuse the event with the same 413.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxEventBytes))
	if err != nil {
		gatewayMessage(w, http.StatusRequestEntityTooLarge, "Request Entity Too Large")
		return
	}
	event := newEvent(r, body)
	event.RouteKey, event.PathParameters = routeKey, parameters
	event.RequestContext.RouteKey, event.RequestContext.RequestID = routeKey, requestID
	payload, _ := json.Marshal(event) // strings and numbers only

	// A client that hangs up does not stop the function.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), integrationTimeout)
	defer cancel()
	result, err := a.invoke(ctx, payload)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		gatewayMessage(w, http.StatusServiceUnavailable, "Service Unavailable")
	case errors.Is(err, ErrRequestTooLarge):
		gatewayMessage(w, http.StatusRequestEntityTooLarge, "Request Entity Too Large")
	case err != nil || result.FunctionError != "":
		gatewayMessage(w, http.StatusInternalServerError, "Internal Server Error")
	default:
		writeReply(w, result.Payload)
	}
}

// match finds the route of a request, "" if there is none. Of several the most specific counts: the one
// with the fewest variables, and $default last.
// https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-routes.html
func match(routes []string, method, path string) (key string, parameters map[string]string) {
	for _, route := range routes {
		routeMethod, pattern, _ := strings.Cut(route, " ")
		if found, ok := matchPath(pattern, path); ok && method == routeMethod && (key == "" || len(found) < len(parameters)) {
			key, parameters = route, found
		}
	}
	if key == "" && (len(routes) == 0 || slices.Contains(routes, defaultRoute)) {
		key = defaultRoute
	}
	return key, parameters
}

// matchPath returns the values of the pattern's variables. Each stands for one segment that is not empty.
func matchPath(pattern, path string) (map[string]string, bool) {
	var values map[string]string
	want, got := strings.Split(pattern, "/"), strings.Split(path, "/")
	if len(want) != len(got) {
		return nil, false
	}
	for i, segment := range want {
		name, variable := strings.CutPrefix(segment, "{")
		switch {
		case variable && got[i] != "":
			if values == nil {
				values = map[string]string{}
			}
			values[strings.TrimSuffix(name, "}")] = got[i]
		case segment != got[i]:
			return nil, false
		}
	}
	return values, true
}

func newEvent(r *http.Request, body []byte) events.APIGatewayV2HTTPRequest {
	sourceIP, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		sourceIP = r.RemoteAddr
	}
	event := events.APIGatewayV2HTTPRequest{
		Version:        "2.0",
		RawPath:        r.URL.Path,
		RawQueryString: r.URL.RawQuery,
		Headers:        map[string]string{"host": r.Host, "x-forwarded-for": sourceIP, "x-forwarded-proto": "http"},
		RequestContext: events.APIGatewayV2HTTPRequestContext{
			Stage: "$default",
			HTTP: events.APIGatewayV2HTTPRequestContextHTTPDescription{
				Method: r.Method, Path: r.URL.Path, Protocol: r.Proto, SourceIP: sourceIP, UserAgent: r.UserAgent(),
			},
		},
	}
	for name, values := range r.Header {
		event.Headers[strings.ToLower(name)] = strings.Join(values, ",")
	}
	for name, values := range r.URL.Query() {
		if event.QueryStringParameters == nil {
			event.QueryStringParameters = map[string]string{}
		}
		event.QueryStringParameters[name] = strings.Join(values, ",")
	}
	switch {
	case len(body) == 0:
	case isText(r.Header.Get("Content-Type")):
		event.Body = string(body)
	default:
		event.Body, event.IsBase64Encoded = base64.StdEncoding.EncodeToString(body), true
	}
	return event
}

// isText reports whether API Gateway passes a body of this type on as it is. To API Gateway a form, +json
// and a body without a type are not text.
func isText(contentType string) bool {
	kind, _, _ := mime.ParseMediaType(contentType)
	return strings.HasPrefix(kind, "text/") ||
		slices.Contains([]string{"application/json", "application/xml", "application/javascript"}, kind)
}

// writeReply turns what the function returned into the response. A reply without statusCode is the body
// of a 200.
func writeReply(w http.ResponseWriter, payload []byte) {
	var shape map[string]json.RawMessage
	if json.Unmarshal(payload, &shape) != nil || shape["statusCode"] == nil {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(payload)
		return
	}
	var reply events.APIGatewayV2HTTPResponse
	err := json.Unmarshal(payload, &reply)
	body := []byte(reply.Body)
	if err == nil && reply.IsBase64Encoded {
		body, err = base64.StdEncoding.DecodeString(reply.Body)
	}
	if err != nil || reply.StatusCode < 200 || reply.StatusCode > 599 {
		gatewayMessage(w, http.StatusInternalServerError, "Internal Server Error")
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	for name, value := range reply.Headers {
		w.Header().Set(name, value)
	}
	w.WriteHeader(reply.StatusCode)
	_, _ = w.Write(body)
}

func gatewayMessage(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, `{"message":"`+message+`"}`)
}
