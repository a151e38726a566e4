package entratest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// Options configure a [Server]. The zero value is a public-cloud Entra on the real clock.
type Options struct {
	Now     func() time.Time // the server's clock; nil is time.Now
	Latency time.Duration    // real time every answer takes
	Cloud   string           // "public" (or ""), "usgov" or "china"
}

// Server is a stand-in Entra. It is an [http.Handler], so it can also be mounted under a TLS listener
// of the caller's; its issuer and token URLs then follow the host that the client asked.
// It is safe for concurrent use.
type Server struct {
	now     func() time.Time
	latency time.Duration
	cloud   string

	mu       sync.Mutex // guards everything below
	http     *http.Server
	addr     net.Addr
	tenants  map[string]Tenant      // :: tenant GUID → tenant
	domains  map[string]string      // :: domain → tenant GUID
	apps     map[string]App         // :: client ID → app
	consents map[principal][]string // :: service principal → its roles
	used     map[string]bool        // :: client ID and jti of every certificate assertion accepted
	faults   []*Fault
	requests []*Request
	tokens   []string
}

// TB is the part of [testing.TB] that [Start] needs.
type TB interface {
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// New returns a server with no tenants and no apps.
func New(o Options) *Server {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Cloud == "" {
		o.Cloud = "public"
	}
	if _, ok := clouds[o.Cloud]; !ok {
		panic(fmt.Sprintf("entratest: no cloud %q", o.Cloud))
	}
	return &Server{
		now:      o.Now,
		latency:  o.Latency,
		cloud:    o.Cloud,
		tenants:  map[string]Tenant{},
		domains:  map[string]string{},
		apps:     map[string]App{},
		consents: map[principal][]string{},
		used:     map[string]bool{},
	}
}

// Start returns a server that listens on a free loopback port until the test ends.
func Start(tb TB, o Options) *Server {
	s := New(o)
	if err := s.Listen("127.0.0.1:0"); err != nil {
		tb.Fatalf("entratest: %v", err)
	}
	tb.Cleanup(func() { s.Close() })
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
	s.addr = l.Addr()
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	go s.http.Serve(l)
	return nil
}

// Close stops listening and ends the requests under way, those that hang included.
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

// URL is the authority's base, without a trailing slash: what AZURE_AUTHORITY_HOST takes.
// It is empty before [Server.Listen].
func (s *Server) URL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.addr == nil {
		return ""
	}
	host, port, _ := net.SplitHostPort(s.addr.String())
	if net.ParseIP(host).IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// newGUID returns a random (version 4) GUID.
func newGUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
