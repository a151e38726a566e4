package entratest

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Request is what a [Server] remembers of a request and its answer. It never holds the credential.
type Request struct {
	Endpoint       string // "token", "openid", "keys", or "" where Entra has nothing and answers 404
	Tenant         string // as the path names it
	ClientID       string
	CredentialKind string // "secret", "certificate", "federated" or "" for none
	SecretIndex    int    // which of the app's secrets was sent, expired or not; -1 for none of them
	Scope          string
	RequestID      string // the client-request-id header
	Code           int    // the AADSTS code of the answer; 0 for none
	Status         int    // the HTTP status of the answer; 0 while there is none, or if there never was
}

// Requests returns every request since the start or [Server.ResetRequests] in order of arrival,
// including those under way.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Request, len(s.requests))
	for i, r := range s.requests {
		all[i] = *r
	}
	return all
}

// ResetRequests forgets the requests so far and the tokens issued.
func (s *Server) ResetRequests() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests, s.tokens = nil, nil
}

// Tokens returns the access tokens issued since the start or [Server.ResetRequests], in order.
func (s *Server) Tokens() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.tokens)
}

// call is a request being answered.
type call struct {
	s           *Server
	request     *Request
	ordinary    func(*call) answer // what the endpoint answers without a fault
	base        string             // scheme and host as the client sees them
	form        url.Values
	malformed   bool       // the form cannot be decoded
	assertion   *assertion // nil if there is none, or it cannot be decoded
	trace       string     // Entra's own ID of the request
	correlation string     // the client's ID of the request, or a new one
	detail      string     // what {detail} in an error text stands for

	// What judge finds.
	tenant   Tenant
	app      App
	roles    []string
	audience string

	lifetime int   // of a granted token in seconds
	changes  []any // see [With]
}

// answer is decided and recorded before any of it is sent, so that a client that has its answer
// finds it in [Server.Requests].
type answer struct {
	status int
	header http.Header
	body   []byte
	code   int    // AADSTS
	token  string // issued
	cut    bool   // send half of what Content-Length promises
	drop   bool   // close the connection without an answer
	hang   bool   // wait until the client goes away, then drop
}

func (s *Server) serve(endpoint string, ordinary func(*call) answer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c := s.receive(r, endpoint, ordinary)
		f := s.fault(c.request)
		if wait := s.options.Latency + f.Delay; wait > 0 {
			select {
			case <-time.After(wait):
			case <-r.Context().Done():
				panic(http.ErrAbortHandler)
			}
		}
		answer := ordinary
		if f.Response.answer != nil {
			answer = f.Response.answer
		}
		a := answer(c)
		s.record(c.request, a)
		if f.BeforeAnswer != nil {
			f.BeforeAnswer()
		}
		if a.hang {
			<-r.Context().Done()
		}
		if a.hang || a.drop {
			panic(http.ErrAbortHandler)
		}
		maps.Copy(w.Header(), a.header)
		w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
		w.WriteHeader(a.status)
		if a.cut {
			a.body = a.body[:len(a.body)/2]
		}
		w.Write(a.body)
	}
}

// receive reads and records a request. Like Entra, it does not read a form of another content type.
func (s *Server) receive(r *http.Request, endpoint string, ordinary func(*call) answer) *call {
	c := &call{s: s, ordinary: ordinary, base: "http://" + r.Host, trace: newGUID(), lifetime: 3599}
	if r.TLS != nil {
		c.base = "https://" + r.Host
	}
	c.malformed = r.ParseForm() != nil
	c.form = r.PostForm
	c.request = &Request{
		Endpoint: endpoint, Tenant: r.PathValue("tenant"), ClientID: c.form.Get("client_id"),
		RequestID: r.Header.Get("client-request-id"),
	}
	c.correlation = cmp.Or(c.request.RequestID, newGUID())
	secret := c.form.Get("client_secret")
	switch {
	case c.form.Has("client_assertion"):
		c.assertion = parseAssertion(c.form.Get("client_assertion"))
		c.request.CredentialKind = "federated"
		if c.assertion != nil && c.assertion.selfIssued(c.request.ClientID) {
			c.request.CredentialKind = "certificate"
		}
	case secret != "":
		c.request.CredentialKind = "secret"
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	c.request.Scope = c.form.Get("scope")
	c.request.SecretIndex = slices.IndexFunc(s.apps[strings.ToLower(c.request.ClientID)].Secrets,
		func(x Secret) bool { return x.Value == secret })
	s.requests = append(s.requests, c.request)
	return c
}

func (s *Server) record(r *Request, a answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Status, r.Code = a.status, a.code
	if a.token != "" {
		s.tokens = append(s.tokens, a.token)
	}
}

// json is an answer with the headers of Entra's JSON answers.
func (c *call) json(status int, v any) answer {
	body, _ := json.Marshal(v) // our own types only
	return raw(status, "application/json; charset=utf-8", string(body), "Cache-Control", "no-store, no-cache",
		"Pragma", "no-cache", "x-ms-request-id", c.trace, "client-request-id", c.correlation)
}

// raw is any answer. The names and values of more headers alternate.
func raw(status int, contentType, body string, header ...string) answer {
	a := answer{status: status, header: http.Header{"Content-Type": {contentType}}, body: []byte(body)}
	for i := 0; i < len(header); i += 2 {
		a.header.Set(header[i], header[i+1])
	}
	return a
}
