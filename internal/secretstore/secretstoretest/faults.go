package secretstoretest

import (
	"slices"
	"strings"
	"time"
)

// Fault makes requests go wrong. Only signed requests for an operation that the stand-in offers are hit, before quotas and
// rules apply.
type Fault struct {
	// Op and Secret say which requests: of this operation, about a secret whose name begins so. Empty is any; ListSecrets
	// and BatchGetSecretValue are about no secret.
	Op, Secret string

	// After lets the request take effect before it goes wrong. One that fails by itself is answered as ever. With neither
	// Error nor Drop, the reply is lost as if by Drop.
	After bool

	// Times is how many requests are hit, the SDK's retries among them. Zero: all, until ClearFaults.
	Times int

	// Error is the exception type to answer with, such as "ThrottlingException".
	Error string

	// Drop cuts the connection instead of answering.
	Drop bool

	// Delay is how long to wait, in real time, before going wrong, or answering as ever if that is all there is to the
	// fault. A request whose client gives up meanwhile takes effect only with After.
	Delay time.Duration
}

// err is what the fault answers with, nil if it merely delays.
func (f *Fault) err() error {
	switch {
	case f.Drop, f.After && f.Error == "":
		return errDropped
	case f.Error != "":
		return fail(f.Error, "A fault that a test asked for.")
	default:
		return nil
	}
}

// Fail adds a fault. Of several that fit a request, the one added first hits it.
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
	for i, f := range s.faults {
		if f.Op != "" && f.Op != req.op || !strings.HasPrefix(req.secret, f.Secret) {
			continue
		}
		if f.Times == 1 {
			s.faults = slices.Delete(s.faults, i, i+1)
		} else if f.Times > 1 {
			f.Times--
		}
		return f
	}
	return nil
}
