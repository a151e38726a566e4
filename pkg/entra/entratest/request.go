package entratest

import (
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Request is what a [Server] remembers of a request and its answer: never the credential.
type Request struct {
	Method         string
	Path           string
	Endpoint       string // "token", "openid", "keys", or "" where Entra has nothing: a 404
	Tenant         string // as the path has it
	ClientID       string
	Scope          string
	CredentialKind string // "secret", "certificate", "federated" or "" for none
	SecretIndex    int    // which of the app's secrets was sent, expired or not; -1 for none of them
	RequestID      string // the client-request-id header
	Code           int    // the AADSTS code of the answer; 0 for none
	Status         int    // the HTTP status of the answer; 0 while there is none, and if there never was
	Token          string // the access token issued
}

// Requests returns every request since the start or [Server.ResetRequests], in order of arrival,
// those still under way included.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Request, len(s.requests))
	for i, r := range s.requests {
		all[i] = *r
	}
	return all
}

// ResetRequests forgets the requests so far, and the tokens issued.
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
	s       *Server
	http    *http.Request
	base    string // scheme and host as the client sees them
	body    string
	form    url.Values
	secret  string // from the form or the Basic header
	bad     string // why the request cannot be read; "" if it can
	request *Request
	trace   string // Entra's own ID of the request
	detail  string // what {detail} in an error text stands for

	// How a granted token is presented: see the Responses of the same names.
	lifetime                      *int
	noExpires, noExt, stringified bool
	padding                       int
}

// maxBody is far above what a token request can need.
const maxBody = 1 << 20

// receive reads the request and records it.
func (s *Server) receive(w http.ResponseWriter, r *http.Request) *call {
	c := &call{s: s, http: r, base: "http://" + r.Host, trace: newGUID(), request: &Request{
		Method: r.Method, Path: r.URL.Path, RequestID: r.Header.Get("client-request-id"), SecretIndex: -1,
	}}
	if r.TLS != nil {
		c.base = "https://" + r.Host
	}
	c.route()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		c.bad = "the body cannot be read"
	}
	c.body = string(body)
	// A form of another content type is not read at all: Entra then misses grant_type.
	if mt, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); mt == "application/x-www-form-urlencoded" {
		if c.form, err = url.ParseQuery(c.body); err != nil {
			c.bad = "the form cannot be decoded"
		}
	}
	c.request.ClientID, c.secret = c.form.Get("client_id"), c.form.Get("client_secret")
	c.request.Scope = c.form.Get("scope")
	c.readBasic()

	switch {
	case c.form.Has("client_assertion"):
		c.request.CredentialKind = "federated"
		if a, err := parseAssertion(c.form.Get("client_assertion")); err != nil || a.selfIssued(c.request.ClientID) {
			c.request.CredentialKind = "certificate"
		}
	case c.secret != "":
		c.request.CredentialKind = "secret"
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, c.request)
	return c
}

// route sets what the path says. Segments are split before they are unescaped, so that an escaped slash
// stays inside the tenant.
func (c *call) route() {
	tenant, rest, _ := strings.Cut(strings.TrimPrefix(c.http.URL.EscapedPath(), "/"), "/")
	endpoint := map[string]string{
		"oauth2/v2.0/token":                     "token",
		"v2.0/.well-known/openid-configuration": "openid",
		"discovery/v2.0/keys":                   "keys",
	}[rest]
	name, err := url.PathUnescape(tenant)
	if err != nil || name == "" {
		return
	}
	c.request.Tenant, c.request.Endpoint = name, endpoint
}

// readBasic takes the credentials of an Authorization header, each form-encoded (RFC 6749 section 2.3.1).
func (c *call) readBasic() {
	id, secret, ok := c.http.BasicAuth()
	if !ok {
		return
	}
	id, err1 := url.QueryUnescape(id)
	secret, err2 := url.QueryUnescape(secret)
	switch {
	case err1 != nil || err2 != nil:
		c.bad = "the Authorization header cannot be decoded"
	case c.form.Has("client_secret"):
		c.bad = "the client secret is sent twice"
	case c.form.Has("client_id") && c.request.ClientID != id:
		c.bad = "the Authorization header names another client"
	default:
		c.request.ClientID, c.secret = id, secret
	}
}

// pause waits for d, and reports false if the client went away meanwhile.
func (c *call) pause(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.http.Context().Done():
		return false
	}
}
