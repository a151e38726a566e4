package lambdahost

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/events"
)

// Quotas of an API Gateway HTTP API. https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-quotas.html
const (
	maxHTTPBody        = 10 << 20
	integrationTimeout = 30 * time.Second
)

// HTTPAPI serves the function as an API Gateway HTTP API with a Lambda integration and payload format 2.0 does: every
// request, whatever its method and path, becomes an event of the $default route, and the function's reply becomes the
// response. Nobody is authorised: requests carry no identity.
//
// Where the documentation leaves open what API Gateway does, this follows what others measured of it: which bodies are
// text (ministackorg/ministack#766), that rawPath is decoded and what a reply without statusCode means
// (aws/aws-lambda-dotnet, LambdaTestTool-v2), and 503 for an integration that takes too long (cortexlabs/cortex#1225).
func HTTPAPI(f *Function) http.Handler {
	return httpAPI{invoke: f.Invoke}
}

type httpAPI struct {
	invoke func(context.Context, []byte) (Result, error)
}

func (a httpAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	requestID := apiRequestID()
	w.Header().Set("Apigw-Requestid", requestID)

	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxHTTPBody))
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		gatewayMessage(w, http.StatusRequestEntityTooLarge, "Request Entity Too Large")
		return
	} else if err != nil {
		gatewayMessage(w, http.StatusBadRequest, "Bad Request")
		return
	}
	event, err := json.Marshal(newEvent(r, body, requestID, time.Now()))
	if err != nil {
		gatewayMessage(w, http.StatusInternalServerError, "Internal Server Error")
		return
	}

	// A client that hangs up does not stop the function.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), integrationTimeout)
	defer cancel()
	result, err := a.invoke(ctx, event)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		gatewayMessage(w, http.StatusServiceUnavailable, "Service Unavailable")
	case errors.Is(err, ErrRequestTooLarge): // below API Gateway's limit, above Lambda's
		gatewayMessage(w, http.StatusRequestEntityTooLarge, "Request Entity Too Large")
	case err != nil || result.FunctionError != "":
		gatewayMessage(w, http.StatusInternalServerError, "Internal Server Error")
	default:
		writeReply(w, result.Payload)
	}
}

func newEvent(r *http.Request, body []byte, requestID string, now time.Time) events.APIGatewayV2HTTPRequest {
	sourceIP, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		sourceIP = r.RemoteAddr
	}
	event := events.APIGatewayV2HTTPRequest{
		Version:        "2.0",
		RouteKey:       "$default",
		RawPath:        r.URL.Path,
		RawQueryString: r.URL.RawQuery,
		Headers:        map[string]string{"host": r.Host, "x-forwarded-for": sourceIP, "x-forwarded-proto": "http"},
		RequestContext: events.APIGatewayV2HTTPRequestContext{
			RouteKey:     "$default",
			AccountID:    accountID,
			Stage:        "$default",
			RequestID:    requestID,
			APIID:        "local",
			DomainName:   "localhost",
			DomainPrefix: "localhost",
			Time:         now.UTC().Format("02/Jan/2006:15:04:05 -0700"),
			TimeEpoch:    now.UnixMilli(),
			HTTP: events.APIGatewayV2HTTPRequestContextHTTPDescription{
				Method: r.Method, Path: r.URL.Path, Protocol: r.Proto, SourceIP: sourceIP, UserAgent: r.UserAgent(),
			},
		},
	}
	for name, values := range r.Header {
		if name == "Cookie" {
			for _, cookies := range values {
				for cookie := range strings.SplitSeq(cookies, ";") {
					event.Cookies = append(event.Cookies, strings.TrimSpace(cookie))
				}
			}
			continue
		}
		event.Headers[strings.ToLower(name)] = strings.Join(values, ",")
	}
	event.Headers["content-length"] = strconv.Itoa(len(body))
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

// isText reports whether API Gateway hands a body of this type over as it is. A form, +json and no type at all are not
// text to it.
func isText(contentType string) bool {
	kind, _, _ := mime.ParseMediaType(contentType)
	return strings.HasPrefix(kind, "text/") ||
		slices.Contains([]string{"application/json", "application/xml", "application/javascript"}, kind)
}

// writeReply turns what the function returned into the response. A reply without statusCode is taken whole as the body
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
	for _, name := range slices.Sorted(maps.Keys(reply.Headers)) {
		w.Header().Set(name, reply.Headers[name])
	}
	for _, cookie := range reply.Cookies {
		w.Header().Add("Set-Cookie", cookie)
	}
	w.WriteHeader(reply.StatusCode)
	_, _ = w.Write(body)
}

func gatewayMessage(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, `{"message":"`+message+`"}`)
}

// apiRequestID looks like API Gateway's, which is not a UUID.
func apiRequestID() string {
	var b [11]byte
	_, _ = rand.Read(b[:])
	return base64.StdEncoding.EncodeToString(b[:])
}
