package entratest

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// answer is what goes back to the client, decided in full before any of it is sent, so that a client
// that has its answer also finds it in [Server.Requests].
type answer struct {
	status int
	header http.Header
	body   []byte
	code   int    // AADSTS
	token  string // issued
	cut    bool   // send half of what Content-Length promises
	drop   bool   // close the connection without an answer
	hang   bool   // no answer until the client goes away
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := s.receive(w, r)
	f := s.fault(c)
	if !c.pause(s.latency + f.Delay) {
		return
	}
	a := s.answer(c, f.Response)
	switch {
	case a.hang:
		<-r.Context().Done()
		return
	case a.drop:
		panic(http.ErrAbortHandler)
	}
	for k, v := range a.header {
		w.Header()[k] = v
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	w.WriteHeader(a.status)
	if a.cut {
		a.body = a.body[:len(a.body)/2]
	}
	w.Write(a.body)
}

// answer decides and records the answer.
func (s *Server) answer(c *call, r Response) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.secret != "" {
		c.request.SecretIndex = slices.IndexFunc(s.apps[strings.ToLower(c.request.ClientID)].Secrets,
			func(x Secret) bool { return x.Value == c.secret })
	}
	if r.answer == nil {
		r.answer = (*call).ordinary
	}
	a := r.answer(c)
	c.request.Status, c.request.Code, c.request.Token = a.status, a.code, a.token
	if a.token != "" {
		s.tokens = append(s.tokens, a.token)
	}
	return a
}

// ordinary is the answer without a fault.
func (c *call) ordinary() answer {
	switch c.request.Endpoint {
	case "token":
		return c.token()
	case "openid":
		return c.openid()
	case "keys":
		return c.json(http.StatusOK, map[string]any{"keys": []any{}})
	}
	return raw(http.StatusNotFound, "text/plain; charset=utf-8", "entratest: Entra has no such endpoint\n")
}

// json is an answer with the headers that Entra's JSON answers have.
func (c *call) json(status int, v any) answer {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err) // our own types only
	}
	a := raw(status, "application/json; charset=utf-8", string(body))
	a.header.Set("Cache-Control", "no-store, no-cache")
	a.header.Set("Pragma", "no-cache")
	a.header.Set("x-ms-request-id", c.trace)
	if id := c.request.RequestID; guid.MatchString(id) {
		a.header.Set("client-request-id", id)
	}
	return a
}

func raw(status int, contentType, body string) answer {
	return answer{status: status, header: http.Header{"Content-Type": {contentType}}, body: []byte(body)}
}
