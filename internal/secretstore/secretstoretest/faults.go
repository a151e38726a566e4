package secretstoretest

import (
	"errors"
	"slices"
	"strings"
	"time"
)

// Call is one request as it was seen. It never holds a value.
type Call struct {
	Op      string // such as "UpdateSecret"
	Secret  string // the secret's name, also where the request gave its ARN; empty if it is not about one
	Error   string // exception type of the answer; empty if it succeeded, was dropped or is under way
	Dropped bool   // the connection was cut instead of an answer, or in the middle of it
}

// Calls are the requests since the start or ResetCalls, in order of arrival. They include those
// that were refused or hit by a fault.
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
	call := &Call{Op: req.op, Secret: req.secret}
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

// Fault makes requests go wrong, before permissions, quotas and rules apply. It hits only signed
// requests for an operation that the stand-in offers.
type Fault struct {
	// Op and Secret say which requests: of this operation, about a secret whose name begins like
	// this. Empty is any; ListSecrets is about no secret.
	Op, Secret string

	// After lets the request take effect before it goes wrong. A request that fails by itself is
	// answered as usual. With none of Error, Drop and Break, the reply is lost as if by Drop.
	After bool

	// Times is how many requests are hit. The SDK's retries count. Zero: all, until ClearFaults.
	Times int

	// Error is the exception type to answer with, such as "ThrottlingException".
	// InvalidRequestException to CreateSecret is how a name behaves that AWS has not let go of yet
	// after a forced deletion.
	Error string

	// Drop cuts the connection instead of answering.
	Drop bool

	// Break cuts the connection after the headers of a success and half of the body.
	Break bool

	// Delay is how long to wait, in real time, before the request goes wrong. A fault that is
	// nothing but a Delay answers as usual afterwards. If the client gives up meanwhile, the
	// request takes effect only with After.
	Delay time.Duration
}

// Fail adds a fault. If several fit a request, the one that was added first hits it.
func (s *Server) Fail(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &f)
}

// ClearFaults ends all faults.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// fault finds the fault that hits req and counts the hit.
func (s *Server) fault(req request) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.faults, func(f *Fault) bool {
		return (f.Op == "" || f.Op == req.op) && strings.HasPrefix(req.secret, f.Secret)
	})
	if i < 0 {
		return nil
	}
	f := s.faults[i]
	if f.Times > 0 {
		if f.Times--; f.Times == 0 {
			s.faults = slices.Delete(s.faults, i, i+1)
		}
	}
	return f
}
