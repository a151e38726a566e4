package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"

	"github.com/aws/aws-lambda-go/events"
)

// request turns an event of API Gateway's payload format 2.0 into a request. Its body is a form of
// one or two fields.
func request(ctx context.Context, event events.APIGatewayV2HTTPRequest) *http.Request {
	body := event.Body
	if event.IsBase64Encoded {
		text, _ := base64.StdEncoding.DecodeString(body) // what is broken is no form
		body = string(text)
	}
	r := &http.Request{
		Method: event.RequestContext.HTTP.Method,
		URL:    &url.URL{RawQuery: event.RawQueryString},
		Header: make(http.Header),
	}
	for name, value := range event.Headers {
		r.Header.Set(name, value)
	}
	r.Host = cmp.Or(event.RequestContext.DomainName, r.Header.Get("Host"))
	if len(event.Cookies) > 0 {
		r.Header.Set("Cookie", strings.Join(event.Cookies, "; "))
	}
	if len(body) <= maxForm {
		r.PostForm, _ = url.ParseQuery(body)
	}
	return r.WithContext(ctx)
}

const maxForm = 1 << 10 // bytes

// response gathers an answer.
type response struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *response) Header() http.Header { return w.header }

func (w *response) Write(b []byte) (int, error) { return w.body.Write(b) }

func (w *response) WriteHeader(status int) { w.status = status }

// event turns the answer into the function's reply.
func (w *response) event() events.APIGatewayV2HTTPResponse {
	reply := events.APIGatewayV2HTTPResponse{StatusCode: w.status, Headers: make(map[string]string), Body: w.body.String()}
	for name := range w.header {
		if name == "Set-Cookie" {
			reply.Cookies = w.header[name]
		} else {
			reply.Headers[strings.ToLower(name)] = w.header.Get(name)
		}
	}
	return reply
}
