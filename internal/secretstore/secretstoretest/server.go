// Package secretstoretest is a stand-in for AWS Secrets Manager: an HTTP server that speaks its protocol (AWS JSON 1.1)
// and keeps its rules, so that the real AWS SDK can be pointed at it. Tests use it, and so do the programs that run the
// connector without an AWS account.
//
// The rules are those of the API reference; where a comment says "observed", they are what AWS was seen to answer in
// recordings and issues, since the reference does not say. Not copied are signatures (an Authorization header is
// asked for, not verified), permissions beyond Options.Authorize, encryption, rotation, replication and the short while
// for which a forced deletion holds on to its name.
//
// Values are held in memory in the clear, and in Options.File if one is named.
package secretstoretest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// Options say how a Server departs from an immediate, unlimited, forgetful one. The zero value is such a server.
type Options struct {
	// Now is the server's clock: dates, recovery windows, lag and quotas go by it. If nil, time.Now.
	Now func() time.Time

	// Region is what the ARNs name. If empty, us-east-1.
	Region string

	// ListLag makes ListSecrets show the secrets as they were that long ago. The API reference warns of five minutes.
	// Whatever Options.File held at the start counts as old.
	ListLag time.Duration

	// Quotas throttle requests. If zero, nothing does; AWSQuotas are the documented ones.
	Quotas Quotas

	// Authorize, if set, decides who may do what: whether the caller with this access key ID may take an action, such as
	// "secretsmanager:UpdateSecret", on a resource: the secret's ARN with the six characters at its end, which a secret that
	// does not exist has too, or "*" for an action on no secret in particular. It is called with the Server locked. Not asked
	// for are the further permissions that AWS wants for tags in CreateSecret and for each secret of a BatchGetSecretValue.
	Authorize func(accessKeyID, action, resource string) bool

	// Latency is added to each reply, in real time.
	Latency time.Duration

	// File, if set, is where the state is loaded from and saved to after each change. It holds values in the clear and
	// is readable by its owner only. A missing file is an empty state.
	File string
}

// TB is what Start needs of a test: *testing.T and *testing.B have it.
type TB interface {
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// Server is the stand-in. It is an http.Handler, and safe for concurrent use.
type Server struct {
	now       func() time.Time
	authorize func(accessKeyID, action, resource string) bool
	latency   time.Duration
	file      string

	mu      sync.Mutex // guards everything below
	store   *store
	buckets map[group]*bucket
	calls   []*Call
	faults  []*Fault
	saveErr error
	http    *http.Server
	url     string
}

// New returns a server that does not listen yet. It fails if Options.File cannot be read.
func New(o Options) (*Server, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Region == "" {
		o.Region = "us-east-1"
	}
	s := &Server{
		now:       o.Now,
		authorize: o.Authorize,
		latency:   o.Latency,
		file:      o.File,
		store:     newStore(o.Region, o.ListLag),
		buckets:   o.Quotas.buckets(),
	}
	if o.File != "" {
		if err := s.store.load(o.File); err != nil {
			return nil, fmt.Errorf("loading secrets: %w", err)
		}
	}
	return s, nil
}

// Start returns a server that listens on a free loopback port until the test ends.
func Start(tb TB, o Options) *Server {
	s, err := New(o)
	if err == nil {
		err = s.Listen("127.0.0.1:0")
	}
	if err != nil {
		tb.Fatalf("starting the stand-in Secrets Manager: %v", err)
		return nil
	}
	tb.Cleanup(func() { _ = s.Close() })
	return s
}

// Listen starts answering on addr, in the background, until Close.
func (s *Server) Listen(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	s.mu.Lock()
	s.http, s.url = srv, "http://"+l.Addr().String()
	s.mu.Unlock()
	go func() { _ = srv.Serve(l) }()
	return nil
}

// URL is where the server listens, after Start or Listen: what BaseEndpoint or AWS_ENDPOINT_URL_SECRETS_MANAGER take.
func (s *Server) URL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.url
}

// Close stops listening and cuts every connection. Its error includes that of a failed save to Options.File.
func (s *Server) Close() error {
	s.mu.Lock()
	srv, err := s.http, s.saveErr
	s.http = nil
	s.mu.Unlock()
	if srv != nil {
		err = errors.Join(err, srv.Close())
	}
	return err
}

// ServeHTTP answers one request. To drop a reply it panics with http.ErrAbortHandler, which net/http takes as the wish to
// cut the connection.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	req, err := readRequest(w, r)
	call := s.record(req)
	var reply []byte
	if err == nil {
		reply, err = s.answer(r.Context(), req)
	}
	if wait(r.Context(), max(s.latency, minLatency(reply))) != nil {
		err = errDropped
	}
	s.settle(call, err)
	if errors.Is(err, errDropped) {
		panic(http.ErrAbortHandler)
	}
	writeReply(w, reply, err)
}

// answer carries req out, unless a fault says otherwise.
func (s *Server) answer(ctx context.Context, req request) ([]byte, error) {
	op, ok := operations[req.op]
	if !ok {
		return nil, fail("InvalidAction", "The stand-in Secrets Manager does not offer the operation %q.", req.op)
	}
	fault := s.fault(req)
	if fault == nil {
		return s.perform(op, req)
	}
	if fault.After {
		if _, err := s.perform(op, req); err != nil {
			return nil, err
		}
	}
	if wait(ctx, fault.Delay) != nil {
		return nil, errDropped
	}
	if err := fault.err(); err != nil {
		return nil, err
	}
	return s.perform(op, req)
}

// perform runs op under the lock and saves what it changed.
func (s *Server) perform(op operation, req request) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if !s.buckets[op.group].take(now) {
		return nil, fail("ThrottlingException", "Rate exceeded")
	}
	s.store.purge(now)
	if err := s.permitLocked(req); err != nil {
		return nil, err
	}
	reply, err := op.run(s.store, now, req.body)
	if saveErr := s.saveLocked(); saveErr != nil {
		return nil, fail("InternalServiceError", "The state could not be saved.")
	}
	return reply, err
}

// permitLocked refuses what Authorize does. AWS looks at that before it looks for the secret (observed), and repeats the
// SecretId as it was given.
func (s *Server) permitLocked(req request) error {
	if s.authorize == nil {
		return nil
	}
	action, resource, on := "secretsmanager:"+req.op, "*", ""
	if req.secret != "" {
		resource, on = s.store.arnOf(req.secret), " on resource: "+req.secretID
	}
	if s.authorize(req.accessKeyID, action, resource) {
		return nil
	}
	return fail("AccessDeniedException", "User: arn:aws:sts::%s:assumed-role/%s/session is not authorized to perform: %s%s because no identity-based policy allows the %[3]s action",
		account, req.accessKeyID, action, on)
}

// saveLocked writes the state to Options.File if it changed since the last time.
func (s *Server) saveLocked() error {
	if !s.store.dirty || s.file == "" {
		return nil
	}
	err := s.store.save(s.file)
	s.saveErr = err
	return err
}

// wait pauses for d, or until ctx ends, and then returns its error.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
