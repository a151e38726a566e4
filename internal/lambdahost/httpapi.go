package lambdahost

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-lambda-go/events"
)

// HTTPAPI serves the function as an API Gateway HTTP API does, with a Lambda integration and
// payload format 2.0: a request becomes an event, and the function's reply becomes the response.
// Requests carry no identity, and none is asked for.
//
// Routes are route keys such as "GET /apps/{app}". A request that matches none of them is answered
// with 404, and the function does not see it. Without routes there is only $default, which every
// request matches.
//
// Where the documentation leaves open what API Gateway does, this follows what others measured:
// which bodies are text (ministackorg/ministack#766), and that rawPath is decoded
// (aws/aws-lambda-dotnet, LambdaTestTool-v2).
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
	routeKey, parameters := match(a.routes, r.Method+" "+r.URL.Path)
	if routeKey == "" {
		gatewayMessage(w, http.StatusNotFound, "Not Found")
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client has gone
	}
	event := newEvent(r, body)
	event.RouteKey, event.PathParameters = routeKey, parameters
	event.RequestContext.RouteKey, event.RequestContext.RequestID = routeKey, requestID
	payload, _ := json.Marshal(event) // strings and numbers only

	result, err := a.invoke(r.Context(), payload)
	switch {
	case errors.Is(err, ErrRequestTooLarge): // as API Gateway says by itself above 10 MB
		gatewayMessage(w, http.StatusRequestEntityTooLarge, "Request Entity Too Large")
	case err != nil || result.FunctionError != "":
		gatewayMessage(w, http.StatusInternalServerError, "Internal Server Error")
	default:
		writeReply(w, result.Payload)
	}
}

// As QuoteMeta leaves them: a variable for one segment, and one for all that are left.
var (
	variable = regexp.MustCompile(`\\{(\w+)\\}`)
	greedy   = regexp.MustCompile(`\\{(\w+)\\\+\\}`)
)

// match finds the route of a request, "" if there is none. Of several the most specific counts: the
// one with the fewest variables, then one with a greedy variable, and $default last. A variable stands
// for one segment that is not empty. ANY stands for every method.
// https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-routes.html
func match(routes []string, request string) (key string, parameters map[string]string) {
	isGreedy := func(route string) int { return strings.Count(route, "+}") }
	for _, route := range slices.SortedStableFunc(slices.Values(routes), func(a, b string) int { return isGreedy(a) - isGreedy(b) }) {
		if isGreedy(route) > 0 && key != "" {
			break
		}
		text := variable.ReplaceAllString(regexp.QuoteMeta(route), "(?P<$1>[^/]+)")
		text = greedy.ReplaceAllString(text, "(?P<$1>.+)")
		pattern := regexp.MustCompile("^" + strings.Replace(text, "ANY ", `\S+ `, 1) + "$")
		values := pattern.FindStringSubmatch(request)
		if values == nil || key != "" && len(values) > len(parameters) {
			continue
		}
		key, parameters = route, map[string]string{}
		for i, name := range pattern.SubexpNames()[1:] {
			parameters[name] = values[i+1]
		}
	}
	if key == "" && (len(routes) == 0 || slices.Contains(routes, "$default")) {
		key = "$default"
	}
	return key, parameters
}

func newEvent(r *http.Request, body []byte) events.APIGatewayV2HTTPRequest {
	event := events.APIGatewayV2HTTPRequest{
		Version:        "2.0",
		RawPath:        r.URL.Path,
		RawQueryString: r.URL.RawQuery,
		Headers:        map[string]string{"host": r.Host},
		RequestContext: events.APIGatewayV2HTTPRequestContext{
			Stage: "$default", DomainName: r.Host,
			HTTP: events.APIGatewayV2HTTPRequestContextHTTPDescription{Method: r.Method, Path: r.URL.Path},
		},
	}
	for name, values := range r.Header {
		if name == "Cookie" { // which has a field of its own
			event.Cookies = strings.Split(strings.Join(values, "; "), "; ")
			continue
		}
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

// isText reports whether API Gateway passes a body of this type on as it is. To API Gateway a form,
// +json and a body without a type are not text.
func isText(contentType string) bool {
	kind, _, _ := mime.ParseMediaType(contentType)
	return strings.HasPrefix(kind, "text/") ||
		slices.Contains([]string{"application/json", "application/xml", "application/javascript"}, kind)
}

// writeReply turns the function's reply into the response.
func writeReply(w http.ResponseWriter, payload []byte) {
	var reply events.APIGatewayV2HTTPResponse
	if json.Unmarshal(payload, &reply) != nil || reply.StatusCode < 200 || reply.StatusCode > 599 {
		gatewayMessage(w, http.StatusInternalServerError, "Internal Server Error")
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	for name, value := range reply.Headers {
		w.Header().Set(name, value)
	}
	for _, cookie := range reply.Cookies {
		w.Header().Add("Set-Cookie", cookie)
	}
	w.WriteHeader(reply.StatusCode)
	_, _ = io.WriteString(w, reply.Body)
}

func gatewayMessage(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, `{"message":"`+message+`"}`)
}
