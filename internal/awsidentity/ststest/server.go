// Package ststest is a stand-in for AWS STS's GetWebIdentityToken: an HTTP server that speaks its protocol (AWS Query,
// XML answers), so that the real AWS SDK can be pointed at it. Its tokens are properly signed; whoever is to trust them
// takes [Server.Issuer], [Server.Subject] and [Server.Key].
//
//	s := ststest.Start(t, ststest.Options{})
//	client := sts.New(sts.Options{BaseEndpoint: aws.String(s.URL()), …})
//
// The rules are those of the STS API reference and of the IAM User Guide, "Understanding token claims". Not copied are
// signatures (an Authorization header is asked for, not verified), permissions beyond [Options].Authorize, the end of the
// caller's session, tags, ES384, and the issuer's OpenID configuration. Assumed, since no page says so: that there is an
// nbf; that several audiences are a list in aud and a single one is a string; the messages.
package ststest

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Options say who the caller is. The zero value is some role of some account, on the real clock.
type Options struct {
	Now     func() time.Time // the server's clock; nil is time.Now
	Issuer  string           // the account's issuer; "" is one of AWS's form
	Subject string           // ARN of the caller's role; "" is arn:aws:iam::123456789012:role/entra-connector

	// Authorize, if set, decides who may do what: whether the caller with this access key ID may take an action, which is
	// always "sts:GetWebIdentityToken", for the audiences that it asks for. It is called with the Server locked.
	Authorize func(accessKeyID, action string, audience []string) bool
}

// Server is the stand-in. It is an [http.Handler], and safe for concurrent use.
type Server struct {
	now             func() time.Time
	authorize       func(accessKeyID, action string, audience []string) bool
	issuer, subject string
	account         string

	mu    sync.Mutex // guards everything below
	http  *http.Server
	url   string
	fault *apiError
	asked int
}

// TB is the part of [testing.TB] that [Start] needs.
type TB interface {
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// New returns a server that does not listen yet. It panics if the subject is not an IAM ARN.
func New(o Options) *Server {
	s := &Server{now: o.Now, authorize: o.Authorize, issuer: o.Issuer, subject: o.Subject}
	if s.now == nil {
		s.now = time.Now
	}
	if s.issuer == "" {
		s.issuer = "https://00000000-0000-4000-8000-000000000000.tokens.sts.global.api.aws"
	}
	if s.subject == "" {
		s.subject = "arn:aws:iam::123456789012:role/entra-connector"
	}
	arn := strings.SplitN(s.subject, ":", 6)
	if len(arn) != 6 || arn[2] != "iam" || arn[4] == "" {
		panic(fmt.Sprintf("ststest: subject %q is not an IAM ARN", s.subject))
	}
	s.account = arn[4]
	return s
}

// Start returns a server that listens on a free loopback port until the test ends.
func Start(tb TB, o Options) *Server {
	s := New(o)
	if err := s.Listen("127.0.0.1:0"); err != nil {
		tb.Fatalf("starting the stand-in STS: %v", err)
	}
	tb.Cleanup(func() { _ = s.Close() })
	return s
}

// Listen serves plain HTTP on addr, in the background, until [Server.Close].
func (s *Server) Listen(addr string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http != nil {
		return errors.New("already listening")
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	host, port, _ := net.SplitHostPort(l.Addr().String())
	if net.ParseIP(host).IsUnspecified() {
		host = "127.0.0.1"
	}
	s.url = "http://" + net.JoinHostPort(host, port)
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	go s.http.Serve(l)
	return nil
}

// Close stops listening and cuts every connection.
func (s *Server) Close() error {
	s.mu.Lock()
	h := s.http
	s.http = nil
	s.mu.Unlock()
	if h == nil {
		return nil
	}
	return h.Close()
}

// URL is what AWS_ENDPOINT_URL_STS takes. It is empty before [Server.Listen].
func (s *Server) URL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.url
}

// Issuer is the tokens' iss.
func (s *Server) Issuer() string { return s.issuer }

// Subject is the tokens' sub.
func (s *Server) Subject() string { return s.subject }

// Key verifies the tokens. It is the same for all servers of a process.
func (s *Server) Key() *rsa.PublicKey { return &key().PublicKey }

// Fail refuses every signed request with this error code and HTTP status, until Fail("", 0). AWS's own pairs are:
// OutboundWebIdentityFederationDisabledException, SessionDurationEscalationException, AccessDenied and
// ExpiredToken 403; JWTPayloadSizeExceededException and Throttling 400; ServiceUnavailable 503.
func (s *Server) Fail(code string, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = nil
	if code != "" {
		s.fault = fail(status, code, "A fault that a test asked for.")
	}
}

// Count is how many signed requests asked for a token since the start, those refused and the SDK's retries among them.
func (s *Server) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}
