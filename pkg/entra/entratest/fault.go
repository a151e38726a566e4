package entratest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Fault changes the answer to the requests that it matches.
//
//	s.Fail(entratest.Fault{Times: 1, Tenant: id, Response: entratest.Throttled("60")})
type Fault struct {
	Tenant   string // GUID or domain; "" is any
	ClientID string // "" is any
	Endpoint string // "token", "openid" or "keys"; "" is any
	Times    int    // how many requests; 0 is until [Server.ClearFaults]

	Delay    time.Duration // real time before the answer
	Response Response      // the zero value is the ordinary answer

	// BeforeAnswer is called when the answer is decided and on record, just before it is sent. It
	// may ask this server for something else: so a test lets another caller act in between.
	BeforeAnswer func()
}

// Response is an answer that Entra, or something between it and its client, may give.
type Response struct{ answer func(*call) answer }

// Fail adds a fault. Of several that match a request, the one added first applies.
func (s *Server) Fail(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &f)
}

// ClearFaults removes all faults.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// fault takes one turn of the first fault that matches; the zero Fault is none.
func (s *Server) fault(r *Request) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.faults, func(f *Fault) bool {
		return (f.Endpoint == "" || f.Endpoint == r.Endpoint) &&
			(f.ClientID == "" || strings.EqualFold(f.ClientID, r.ClientID)) &&
			(f.Tenant == "" || s.tenantIDLocked(f.Tenant) == s.tenantIDLocked(r.Tenant))
	})
	if i < 0 {
		return Fault{}
	}
	f := s.faults[i]
	if f.Times--; f.Times == 0 {
		s.faults = slices.Delete(s.faults, i, i+1)
	}
	return *f
}

// Refused is an AADSTS code with its own status and error string. A code that this server does not
// know is an invalid_request whose text says nothing, as a new one would be to a client.
func Refused(code int) Response {
	return Response{func(c *call) answer { return c.refuse(code) }}
}

// OKWithError is the body of [Refused] with status 200.
func OKWithError(code int) Response {
	return Response{func(c *call) answer {
		a := c.refuse(code)
		a.status = http.StatusOK
		return a
	}}
}

// fixed is an answer that does not depend on the request.
func fixed(a answer) Response { return Response{func(*call) answer { return a }} }

// Raw is any answer.
func Raw(status int, contentType, body string) Response {
	return fixed(raw(status, contentType, body))
}

// Throttled is a 429 as Entra sends it, which is not JSON.
func Throttled(retryAfter string) Response {
	return fixed(raw(http.StatusTooManyRequests, "text/plain; charset=utf-8", "Too Many Requests", "Retry-After", retryAfter))
}

// Unavailable is a 503 with this Retry-After.
func Unavailable(retryAfter string) Response {
	return fixed(page(http.StatusServiceUnavailable, "", "Retry-After", retryAfter))
}

// HTML is a web page, as a proxy answers.
func HTML(status int) Response { return fixed(page(status, "")) }

// Redirect is a 307 to url, which asks the client to send the same form there.
func Redirect(url string) Response {
	return fixed(page(http.StatusTemporaryRedirect, "", "Location", url))
}

// EchoForm is a web page that quotes the form, including the credential, both encoded and decoded.
// A proxy's error page may do that.
func EchoForm(status int) Response {
	return Response{func(c *call) answer {
		quote := c.form.Encode()
		for k, v := range c.form {
			quote += fmt.Sprintf("\n%s = %s", k, strings.Join(v, " "))
		}
		return page(status, quote)
	}}
}

// Hang is no answer until the client goes away or the server is closed.
func Hang() Response { return fixed(answer{hang: true}) }

// Drop closes the connection without an answer.
func Drop() Response { return fixed(answer{drop: true}) }

// Truncated breaks off the ordinary answer: the headers and half of the body arrive.
func Truncated() Response {
	return Response{func(c *call) answer {
		a := c.ordinary(c)
		a.cut = true
		return a
	}}
}

// Lifetime is the ordinary answer with a token that lives for this many seconds.
func Lifetime(seconds int) Response {
	return Response{func(c *call) answer {
		c.lifetime = seconds
		return c.ordinary(c)
	}}
}

// With is the ordinary answer, with changes to the body of a granted token's response. The names of
// fields and their values alternate; nil removes the field.
func With(changes ...any) Response {
	return Response{func(c *call) answer {
		c.changes = changes
		return c.ordinary(c)
	}}
}

func page(status int, text string, header ...string) answer {
	title := fmt.Sprintf("%d %s", status, http.StatusText(status))
	return raw(status, "text/html; charset=utf-8",
		"<html><head><title>"+title+"</title></head><body><h1>"+title+"</h1><pre>"+text+"</pre></body></html>\n", header...)
}
