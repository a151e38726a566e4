package secretstoretest

import (
	"errors"
	"slices"
)

// Call is one request as it was seen. It never holds a value.
type Call struct {
	Op      string // such as "UpdateSecret"
	Secret  string // the secret's name, also where the request gave its ARN; empty if it is not about one
	Token   bool   // the request had a ClientRequestToken
	Error   string // exception type of the answer; empty if it succeeded, was dropped or is under way
	Dropped bool   // the connection was cut instead of an answer
}

// Calls are the requests since the start or ResetCalls, in order of arrival, those refused or hit by a fault included.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := make([]Call, len(s.calls))
	for i, c := range s.calls {
		calls[i] = *c
	}
	return calls
}

// ResetCalls forgets the requests so far.
func (s *Server) ResetCalls() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = nil
}

// Count is how many requests for op there were since the start or ResetCalls.
func (s *Server) Count(op string) int {
	return len(slices.DeleteFunc(s.Calls(), func(c Call) bool { return c.Op != op }))
}

func (s *Server) record(req request) *Call {
	call := &Call{Op: req.op, Secret: req.secret, Token: req.token}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, call)
	return call
}

func (s *Server) settle(call *Call, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var e *apiError
	if errors.As(err, &e) {
		call.Error = e.Type
	}
	call.Dropped = errors.Is(err, errDropped)
}
