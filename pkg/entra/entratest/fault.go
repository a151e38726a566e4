package entratest

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Fault is trouble on demand: the requests that it matches get its Response, after its Delay.
//
//	s.Fail(entratest.Fault{Times: 1, Tenant: id, Response: entratest.Throttled("60")})
type Fault struct {
	Tenant   string // GUID or domain; "" is any
	ClientID string // "" is any
	Endpoint string // "token", "openid" or "keys"; "" is any
	Times    int    // how many requests; 0 is until [Server.ClearFaults]

	Delay    time.Duration // real time before the answer
	Response Response      // the zero value is the ordinary answer
}

// Response is an answer that Entra, or something between it and its client, may give. Make one with
// [Refused], [Throttled] and the like.
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
func (s *Server) fault(c *call) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, f := range s.faults {
		if !f.matchesLocked(s, c.request) {
			continue
		}
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				s.faults = slices.Delete(s.faults, i, i+1)
			}
		}
		return *f
	}
	return Fault{}
}

func (f *Fault) matchesLocked(s *Server, r *Request) bool {
	if f.Endpoint != "" && f.Endpoint != r.Endpoint || f.ClientID != "" && !strings.EqualFold(f.ClientID, r.ClientID) {
		return false
	}
	if f.Tenant == "" || strings.EqualFold(f.Tenant, r.Tenant) {
		return true
	}
	want, ok1 := s.tenantLocked(f.Tenant)
	got, ok2 := s.tenantLocked(r.Tenant)
	return ok1 && ok2 && want.ID == got.ID
}

// Refused is an AADSTS code with its own status and error string. A code that is not in the table of
// problems is an invalid_request with a text of no meaning, as an unknown one would be to a client.
func Refused(code int) Response {
	return Response{func(c *call) answer { return c.refuse(code, "") }}
}

// OKWithError is the body of [Refused] under status 200.
func OKWithError(code int) Response {
	return Response{func(c *call) answer {
		a := c.refuse(code, "")
		a.status = http.StatusOK
		return a
	}}
}

// Throttled is a 429 as Entra sends it: not JSON, with this Retry-After, "60" where it is "".
func Throttled(retryAfter string) Response {
	return Response{func(*call) answer {
		a := raw(http.StatusTooManyRequests, "text/plain; charset=utf-8", "Too Many Requests")
		a.header.Set("Retry-After", cmp.Or(retryAfter, "60"))
		return a
	}}
}

// Unavailable is a 503, with this Retry-After, or none where it is "".
func Unavailable(retryAfter string) Response {
	return Response{func(*call) answer {
		a := page(http.StatusServiceUnavailable, "")
		if retryAfter != "" {
			a.header.Set("Retry-After", retryAfter)
		}
		return a
	}}
}

// HTML is a web page, as a proxy answers.
func HTML(status int) Response {
	return Response{func(*call) answer { return page(status, "") }}
}

// EchoForm is a web page that quotes the request, credential included, as a proxy's error page may:
// the form as it was sent, then its fields.
func EchoForm(status int) Response {
	return Response{func(c *call) answer {
		quote := c.http.Header.Get("Authorization") + "\n" + c.body
		for k, v := range c.form {
			quote += fmt.Sprintf("\n%s = %s", k, strings.Join(v, " "))
		}
		return page(status, quote)
	}}
}

// Raw is any answer.
func Raw(status int, contentType, body string) Response {
	return Response{func(*call) answer { return raw(status, contentType, body) }}
}

// Redirect is a 307 to url, which asks the client to send the same form there.
func Redirect(url string) Response {
	return Response{func(*call) answer {
		a := page(http.StatusTemporaryRedirect, "")
		a.header.Set("Location", url)
		return a
	}}
}

// Hang is no answer until the client goes away or the server is closed.
func Hang() Response {
	return Response{func(*call) answer { return answer{hang: true} }}
}

// Drop closes the connection without an answer.
func Drop() Response {
	return Response{func(*call) answer { return answer{drop: true} }}
}

// Truncated is half of the ordinary answer: Content-Length promises the whole.
func Truncated() Response {
	return Response{func(c *call) answer {
		a := c.ordinary()
		a.cut = true
		return a
	}}
}

// Lifetime is the ordinary answer with a token of this many seconds.
func Lifetime(seconds int) Response {
	return Response{func(c *call) answer { c.lifetime = &seconds; return c.ordinary() }}
}

// NoExpiresIn is the ordinary answer without expires_in.
func NoExpiresIn() Response {
	return Response{func(c *call) answer { c.noExpires = true; return c.ordinary() }}
}

// NoExt is the ordinary answer without ext_expires_in, as the Entra page shows it.
func NoExt() Response {
	return Response{func(c *call) answer { c.noExt = true; return c.ordinary() }}
}

// StringNumbers is the ordinary answer with its numbers as strings, as the v1.0 endpoint sends them.
func StringNumbers() Response {
	return Response{func(c *call) answer { c.stringified = true; return c.ordinary() }}
}

// HugeBody is the ordinary answer, a granted token made larger than 1 MiB by a field of no meaning.
func HugeBody() Response {
	return Response{func(c *call) answer { c.padding = 1<<20 + 1; return c.ordinary() }}
}

func page(status int, text string) answer {
	title := fmt.Sprintf("%d %s", status, http.StatusText(status))
	return raw(status, "text/html; charset=utf-8",
		"<html><head><title>"+title+"</title></head><body><h1>"+title+"</h1><pre>"+text+"</pre></body></html>\n")
}
