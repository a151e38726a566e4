package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/aws/aws-lambda-go/events"
)

const maxBody = 64 << 10 // bytes

// request turns an event of API Gateway's payload format 2.0 into a request.
func request(ctx context.Context, event events.APIGatewayV2HTTPRequest) (*http.Request, error) {
	method, target, err := routeOf(event)
	if err != nil {
		return nil, err
	}
	body, err := bodyOf(event)
	if err != nil {
		return nil, err
	}
	r := &http.Request{
		Method: method,
		URL:    target,
		Header: make(http.Header),
		Body:   io.NopCloser(bytes.NewReader(body)),
	}
	for name, value := range event.Headers {
		r.Header.Set(name, value)
	}
	return r.WithContext(ctx), nil
}

// routeOf returns the method and the URL by which a request is routed. They are those of the route
// that API Gateway authorised, if the event has one: the path may begin with a base path of a
// custom domain. Only the route $default matches any path.
func routeOf(event events.APIGatewayV2HTTPRequest) (method string, target *url.URL, err error) {
	target = &url.URL{RawQuery: rawQuery(event)}
	method, pattern, isRoute := strings.Cut(event.RouteKey, " ")
	if isRoute {
		for name, value := range event.PathParameters {
			pattern = strings.ReplaceAll(pattern, "{"+name+"}", url.PathEscape(value))
		}
		target.RawPath = pattern
		target.Path, err = url.PathUnescape(pattern)
	} else {
		method = event.RequestContext.HTTP.Method
		target.Path = cmp.Or(event.RawPath, event.RequestContext.HTTP.Path)
		// A stage other than $default is part of the path.
		if stage := event.RequestContext.Stage; stage != "" && strings.HasPrefix(target.Path, "/"+stage+"/") {
			target.Path = target.Path[1+len(stage):]
		}
	}
	// Answer 404 where net/http would redirect to the clean path.
	if err != nil || !strings.HasPrefix(target.Path, "/") || path.Clean(target.Path) != target.Path {
		return "", nil, errNoRoute
	}
	return method, target, nil
}

// rawQuery falls back on the parsed query. Events that people write by hand often have no other.
func rawQuery(event events.APIGatewayV2HTTPRequest) string {
	if event.RawQueryString != "" {
		return event.RawQueryString
	}
	query := make(url.Values)
	for name, value := range event.QueryStringParameters {
		query.Set(name, value)
	}
	return query.Encode()
}

func bodyOf(event events.APIGatewayV2HTTPRequest) ([]byte, error) {
	body := []byte(event.Body)
	if event.IsBase64Encoded && len(body) <= base64.StdEncoding.EncodedLen(maxBody) {
		var err error
		if body, err = base64.StdEncoding.DecodeString(event.Body); err != nil {
			return nil, &problem{Status: http.StatusBadRequest, Type: typeInvalid, Detail: "The body is not valid base64."}
		}
	}
	if len(body) > maxBody {
		return nil, errTooLarge
	}
	return body, nil
}

// response gathers an answer, and the error behind it.
type response struct {
	header http.Header
	status int
	body   bytes.Buffer
	cause  error
}

func (w *response) Header() http.Header { return w.header }

func (w *response) Write(b []byte) (int, error) {
	w.status = cmp.Or(w.status, http.StatusOK)
	return w.body.Write(b)
}

func (w *response) WriteHeader(status int) { w.status = cmp.Or(w.status, status) }

func (w *response) event() events.APIGatewayV2HTTPResponse {
	headers := map[string]string{"cache-control": "no-store"}
	for name := range w.header {
		headers[strings.ToLower(name)] = w.header.Get(name)
	}
	return events.APIGatewayV2HTTPResponse{StatusCode: w.status, Headers: headers, Body: w.body.String()}
}

// caller is who signed the request, for the log.
func caller(event events.APIGatewayV2HTTPRequest) string {
	if a := event.RequestContext.Authorizer; a != nil && a.IAM != nil {
		return a.IAM.UserARN
	}
	return ""
}
