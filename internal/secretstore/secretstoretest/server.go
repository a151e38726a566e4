// Package secretstoretest is a stand-in for AWS Secrets Manager: an HTTP server that speaks the
// service's protocol (AWS JSON 1.1) and keeps its rules, so that the real AWS SDK can be pointed at
// it. Tests use it, and so do the programs that run the connector without an AWS account.
//
// The rules come from the API reference. A comment says "observed" where the reference is silent
// and recordings or issues show what AWS answers. The stand-in wants an Authorization header but
// does not verify the signature. It knows no encryption and no rotation. It refuses every operation
// and every parameter that nothing here uses, and names it.
//
// Values are held in memory in the clear, and in Options.File if one is named.
package secretstoretest

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// Options say how a Server differs from one that is immediate, unlimited and forgetful. The zero
// value is such a server.
type Options struct {
	// Now is the server's clock, which rules dates, recovery windows, lag and quotas. If nil,
	// time.Now.
	Now func() time.Time

	// Addr is where to listen. If empty or taken, a free loopback port.
	Addr string

	// Region stands in the ARNs. If empty, us-east-1.
	Region string

	// ListLag makes ListSecrets show the secrets as they were that long ago. The API reference
	// warns of five minutes. What Options.File held at the start counts as old.
	ListLag time.Duration

	// Quotas throttle requests. If nil, nothing does.
	Quotas Quotas

	// Authorize, if set, decides whether the caller with this access key ID may take an action,
	// such as "secretsmanager:UpdateSecret", on a resource. The resource is the secret's ARN, which
	// a secret that does not exist has too, or "*" for ListSecrets. A CreateSecret with tags needs
	// "secretsmanager:TagResource" as well. The Server is locked during the call.
	Authorize func(accessKeyID, action, resource string) bool
	// AuthorizeTagged is used in place of Authorize. It also gets the tags of a secret that exists.
	AuthorizeTagged func(accessKeyID, action, resource string, tags map[string]string) bool

	// RefusedUpdateWritesDescription makes an UpdateSecret that is refused for its token write its
	// Description all the same. Nobody documents what AWS does; fakecloud 0.51 does this.
	RefusedUpdateWritesDescription bool

	// Latency is added to each reply, in real time.
	Latency time.Duration

	// File, if set, is loaded at the start and saved after each change. It holds values in the
	// clear and only its owner can read it. A missing file is an empty state.
	File string
}

// Quotas are requests per second by operation. A second's worth may come at once. An operation
// without a quota is never throttled. PutSecretValue counts as UpdateSecret, and UntagResource as
// TagResource.
type Quotas map[string]int

// AWSQuotas are those that AWS documents per account and Region (Secrets Manager User Guide,
// "Quotas", and the announcements of 2022-11-11 and 2025-03-04).
var AWSQuotas = Quotas{
	"UpdateSecret": 50, "CreateSecret": 50, "DeleteSecret": 50, "RestoreSecret": 50, "TagResource": 50, "PutResourcePolicy": 50,
	"GetSecretValue": 10000, "DescribeSecret": 40000, "ListSecrets": 100,
}

var countsAs = map[string]string{"PutSecretValue": "UpdateSecret", "UntagResource": "TagResource"}

// Server is the stand-in. It is an http.Handler, and safe for concurrent use.
type Server struct {
	options Options
	mu      sync.Mutex // guards everything below
	store   *store
	before  func(op, secret string)
	calls   []*Call
	faults  []*Fault
	saveErr error
	http    *httptest.Server

	left   map[string]float64 // of each quota
	filled time.Time          // when time last added to them
}

// New returns a server that does not listen yet. It fails if Options.File cannot be read.
func New(o Options) (*Server, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Region = cmp.Or(o.Region, "us-east-1")
	s := &Server{options: o, store: &store{Options: o, names: make(map[string]*secret)}, left: make(map[string]float64)}
	if o.File != "" {
		if err := s.store.load(o.File); err != nil {
			return nil, fmt.Errorf("loading secrets: %w", err)
		}
	}
	return s, nil
}

// Start returns a server that listens until the test ends.
func Start(tb testing.TB, o Options) *Server {
	tb.Helper()
	s, err := New(o)
	if err != nil {
		tb.Fatalf("starting the stand-in Secrets Manager: %v", err)
	}
	s.URL()
	tb.Cleanup(func() { _ = s.Close() })
	return s
}

// URL is what BaseEndpoint or AWS_ENDPOINT_URL_SECRETS_MANAGER take. The first call makes the
// server listen, on a free loopback port.
func (s *Server) URL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http == nil {
		s.http = httptest.NewUnstartedServer(s)
		if s.options.Addr != "" {
			if l, err := net.Listen("tcp", s.options.Addr); err == nil {
				s.http.Listener.Close()
				s.http.Listener = l
			}
		}
		s.http.Start()
	}
	return s.http.URL
}

// Close stops listening and cuts every connection. It returns the error of the last save to
// Options.File.
func (s *Server) Close() error {
	s.mu.Lock()
	srv, err := s.http, s.saveErr
	s.mu.Unlock()
	if srv != nil {
		srv.CloseClientConnections()
		srv.Close()
	}
	return err
}

// ServeHTTP answers one request. To cut the connection it panics with http.ErrAbortHandler, as
// net/http wants it.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	req, err := readRequest(r)
	call := s.record(req)
	var reply []byte
	if err == nil {
		reply, err = s.answer(r.Context(), req)
	}
	if wait(r.Context(), max(s.options.Latency, minLatency(reply))) != nil {
		err = errDropped
	}
	s.settle(call, err)
	w.Header().Set("Date", s.options.Now().UTC().Format(http.TimeFormat)) // by the clock of all other dates
	writeReply(w, reply, err)
}

// answer performs req, unless a fault says otherwise.
func (s *Server) answer(ctx context.Context, req request) ([]byte, error) {
	fault := s.fault(req)
	if fault == nil {
		return s.perform(req)
	}
	reply := []byte(`{"ARN":"arn:aws:secretsmanager:","Name":""}`) // of a request that took no effect, if it breaks off
	if fault.After {
		var err error
		if reply, err = s.perform(req); err != nil {
			return nil, err
		}
	}
	if wait(ctx, fault.Delay) != nil {
		return nil, errDropped
	}
	switch {
	case fault.Break:
		return reply, errBroken
	case fault.Drop, fault.After && fault.Error == "":
		return nil, errDropped
	case fault.Error != "":
		return nil, fail(fault.Error, "A fault that a test asked for.")
	}
	return s.perform(req)
}

// Before has every permitted request wait for f just before it takes effect, whatever it does then.
// So f can let another caller act first, and to the end. The requests of that caller call f too; it
// has to tell them apart, say by a flag that it sets (sync.Once would wait for itself). The secret
// is that of Call. The Server is not locked during f. A nil f ends it.
func (s *Server) Before(f func(op, secret string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = f
}

// perform carries req out and saves what it changed. The reply shares memory with the store, so it
// is encoded under the lock.
func (s *Server) perform(req request) ([]byte, error) {
	before, err := s.permit(req)
	if err != nil {
		return nil, err
	}
	if before != nil {
		before(req.op, req.secret)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.options.Now()
	s.store.purge(now)
	if s.throttledLocked(now, cmp.Or(countsAs[req.op], req.op)) {
		return nil, fail("ThrottlingException", "Rate exceeded")
	}
	out, err := s.store.perform(now, req.op, req.input)
	if s.saveLocked() != nil {
		return nil, fail("InternalServiceError", "The state could not be saved.")
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(out)
}

// permit refuses what Authorize refuses. AWS checks permissions before it looks for the secret, and
// its message repeats the SecretId as the caller gave it (observed). It returns what to call before
// req takes effect.
func (s *Server) permit(req request) (before func(op, secret string), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	authorize := s.options.Authorize
	if tagged := s.options.AuthorizeTagged; tagged != nil {
		authorize = func(accessKeyID, action, resource string) bool {
			var tags map[string]string
			if sec := s.store.names[req.secret]; sec != nil {
				tags = sec.Tags
			}
			return tagged(accessKeyID, action, resource, tags)
		}
	}
	if authorize == nil {
		return s.before, nil
	}
	actions, resource, on := []string{req.op}, "*", ""
	if req.op == "CreateSecret" && len(req.Tags) > 0 {
		actions = append(actions, "TagResource")
	}
	if req.secret != "" {
		resource, on = s.store.arnOf(req.secret), " on resource: "+cmp.Or(req.SecretId, req.Name)
	}
	for _, action := range actions {
		if action = "secretsmanager:" + action; !authorize(req.accessKeyID, action, resource) {
			return nil, fail("AccessDeniedException", "User: arn:aws:sts::%s:assumed-role/%s/session is not authorized to perform: %s%s because no identity-based policy allows the %[3]s action",
				account, req.accessKeyID, action, on)
		}
	}
	return s.before, nil
}

// saveLocked writes the state to Options.File if it has changed since the last time.
func (s *Server) saveLocked() error {
	if s.store.dirty && s.options.File != "" {
		s.saveErr = s.store.save(s.options.File)
		return s.saveErr
	}
	return nil
}

// throttledLocked takes one request from the quota of op, unless it is used up. Each quota is a
// token bucket that holds one second's worth and starts full.
func (s *Server) throttledLocked(now time.Time, op string) bool {
	if elapsed := now.Sub(s.filled).Seconds(); elapsed > 0 {
		s.filled = now
		for op, rate := range s.options.Quotas {
			s.left[op] = min(float64(rate), s.left[op]+elapsed*float64(rate))
		}
	}
	if _, limited := s.options.Quotas[op]; !limited {
		return false
	}
	if s.left[op] < 1 {
		return true
	}
	s.left[op]--
	return false
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
