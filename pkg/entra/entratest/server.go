package entratest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// Options configure a [Server]. The zero value runs on the real clock and answers at once.
type Options struct {
	Now     func() time.Time // the server's clock; nil is time.Now
	Addr    string           // where to listen; a free loopback port if empty or taken
	Latency time.Duration    // real time that every answer takes

	Spread           time.Duration // until a consent that somebody gives in a browser is known everywhere
	PersonalAccounts bool          // lets personal accounts sign in, as a registration for them does
}

// Server is a stand-in for the public cloud's Entra. It is an [http.Handler], so that a caller can
// also serve it with TLS: its issuer and its URLs follow the scheme and host that the client asked.
// It is safe for concurrent use.
type Server struct {
	options Options
	mux     *http.ServeMux
	http    *httptest.Server
	stop    context.CancelFunc // ends the requests under way

	mu       sync.Mutex          // guards everything below
	tenants  map[string]Tenant   // by GUID
	domains  map[string]string   // domain to tenant GUID
	apps     map[string]App      // by client ID
	consents map[string][]string // service principal to its roles
	used     map[string]bool     // client ID and jti of every certificate assertion accepted
	faults   []*Fault
	requests []*Request
	tokens   []string

	people    people
	spreading []spreading
}

// New returns a server with no tenants and no apps.
func New(o Options) *Server {
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Server{
		options:  o,
		mux:      http.NewServeMux(),
		tenants:  map[string]Tenant{},
		domains:  map[string]string{},
		apps:     map[string]App{},
		consents: map[string][]string{},
		used:     map[string]bool{},
	}
	s.mux.HandleFunc("POST /{tenant}/oauth2/v2.0/token", s.serve("token", (*call).token))
	s.mux.HandleFunc("GET /{tenant}/v2.0/.well-known/openid-configuration", s.serve("openid", (*call).openid))
	s.mux.HandleFunc("GET /{tenant}/discovery/v2.0/keys", s.serve("keys", (*call).keys))
	s.handlePeople()
	s.mux.HandleFunc("/", s.serve("", func(*call) answer {
		return raw(http.StatusNotFound, "text/plain", "entratest: Entra has no such endpoint\n")
	}))
	return s
}

// Start returns a server that listens until the test ends.
func Start(tb testing.TB, o Options) *Server {
	s := New(o)
	s.Listen()
	tb.Cleanup(s.Close)
	return s
}

// Listen serves plain HTTP until [Server.Close].
func (s *Server) Listen() {
	ctx, stop := context.WithCancel(context.Background())
	s.http, s.stop = httptest.NewUnstartedServer(s), stop
	if s.options.Addr != "" {
		if l, err := net.Listen("tcp", s.options.Addr); err == nil {
			s.http.Listener.Close()
			s.http.Listener = l
		}
	}
	s.http.Config.BaseContext = func(net.Listener) context.Context { return ctx }
	s.http.Start()
}

// Close stops listening and ends the requests under way, also those that hang.
func (s *Server) Close() {
	s.stop()
	s.http.Close()
}

// URL is the authority without a trailing slash, as AZURE_AUTHORITY_HOST takes it.
func (s *Server) URL() string { return s.http.URL }

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// newGUID returns a random (version 4) GUID.
func newGUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
