// Package ststest is a stand-in for AWS STS's GetWebIdentityToken: an HTTP server for the real AWS
// SDK (AWS Query, answers in XML). It signs its tokens; whoever is to trust them takes
// [Server.Issuer], [Server.Subject] and [Server.Key].
//
// The rules are those of the STS API reference and of the IAM User Guide, "Understanding token
// claims". The stand-in wants an Authorization header, but does not verify the signature. It takes
// one audience and a duration, signs with RS256, and knows no tags. It has no limit by the caller's
// session, and no OpenID configuration for the issuer. That there is an nbf is an assumption, and
// the messages are made up.
package ststest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"
	"unicode/utf8"
)

const (
	issuer  = "https://00000000-0000-4000-8000-000000000000.tokens.sts.global.api.aws"
	account = "123456789012"
	subject = "arn:aws:iam::" + account + ":role/entra-connector"
)

// Options are the server's. The zero value will do.
type Options struct {
	Now func() time.Time // the server's clock; nil is time.Now

	// Authorize says whether the caller with an access key ID may get a token for an audience. The
	// Server is locked while it asks.
	Authorize func(accessKeyID, audience string) bool
}

// Server is the stand-in. It is safe for concurrent use.
type Server struct {
	options Options
	http    *httptest.Server
	url     string

	mu     sync.Mutex // guards everything below
	code   string     // what Fail refuses requests with
	status int
	asked  int
}

// New returns a server that listens on a free loopback port until [Server.Close].
func New(o Options) *Server {
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Server{options: o}
	s.http = httptest.NewServer(http.HandlerFunc(s.serve))
	s.url = s.http.URL
	return s
}

// Start is [New] for the time of a test.
func Start(tb testing.TB, o Options) *Server {
	s := New(o)
	tb.Cleanup(s.Close)
	return s
}

// Close stops listening and cuts every connection.
func (s *Server) Close() {
	s.http.CloseClientConnections()
	s.http.Close()
}

// URL is the value for AWS_ENDPOINT_URL_STS.
func (s *Server) URL() string { return s.url }

// Issuer is the tokens' iss.
func (s *Server) Issuer() string { return issuer }

// Subject is the tokens' sub, the ARN of the caller's role.
func (s *Server) Subject() string { return subject }

// Key verifies the tokens. All servers of a process have the same.
func (s *Server) Key() *rsa.PublicKey { return &key().PublicKey }

// Fail refuses every signed request with an error code and an HTTP status, until Fail("", 0). AWS
// answers OutboundWebIdentityFederationDisabledException, SessionDurationEscalationException and
// AccessDenied with 403, Throttling with 400, and ServiceUnavailable with 503.
func (s *Server) Fail(code string, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.code, s.status = code, status
}

// Count is the number of signed requests so far, refused ones and the SDK's retries included.
func (s *Server) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	status, body := s.answer(r)
	// An answer within microseconds, which AWS never gives, can make the SDK repeat the request:
	// see minLatency in secretstoretest.
	time.Sleep(2 * time.Millisecond)
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body))
}

// credential matches a Signature Version 4 header and finds the access key ID and the Region.
var credential = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=([^/, ]+)/\d{8}/([^/, ]+)/sts/aws4_request, `)

func (s *Server) answer(r *http.Request) (status int, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	refuse := func(code string, status int) (int, string) {
		return status, "<ErrorResponse><Error><Code>" + code + "</Code><Message>Refused to " + subject + "</Message></Error></ErrorResponse>"
	}
	caller := credential.FindStringSubmatch(r.Header.Get("Authorization"))
	if caller == nil {
		return refuse("MissingAuthenticationToken", http.StatusForbidden)
	}
	s.asked++
	audience, life, ok := parse(r)
	switch {
	case s.code != "":
		return refuse(s.code, s.status)
	case !ok:
		return refuse("ValidationError", http.StatusBadRequest)
	case s.options.Authorize != nil && !s.options.Authorize(caller[1], audience):
		return refuse("AccessDenied", http.StatusForbidden)
	}
	at := s.options.Now().UTC().Truncate(time.Second)
	expires := at.Add(life)
	token := sign(map[string]any{
		"iss": issuer, "sub": subject, "aud": audience,
		"iat": at.Unix(), "nbf": at.Unix(), "exp": expires.Unix(), "jti": rand.Text(),
		"https://sts.amazonaws.com/": map[string]string{"aws_account": account, "source_region": caller[2]},
	})
	return http.StatusOK, "<GetWebIdentityTokenResponse><GetWebIdentityTokenResult><WebIdentityToken>" + token + "</WebIdentityToken>" +
		"<Expiration>" + expires.Format(time.RFC3339) + "</Expiration></GetWebIdentityTokenResult></GetWebIdentityTokenResponse>"
}

// parse reads a request. It is not ok if it breaks a rule of the API reference, or asks for what
// the stand-in does not have.
func parse(r *http.Request) (audience string, life time.Duration, ok bool) {
	seconds, _ := strconv.Atoi(r.PostFormValue("DurationSeconds"))
	audience = r.PostFormValue("Audience.member.1")
	characters := utf8.RuneCountInString(audience)
	return audience, time.Duration(seconds) * time.Second, len(r.PostForm) == 5 &&
		r.PostFormValue("Action") == "GetWebIdentityToken" && r.PostFormValue("Version") == "2011-06-15" &&
		r.PostFormValue("SigningAlgorithm") == "RS256" &&
		characters >= 1 && characters <= 1000 && seconds >= 60 && seconds <= 3600
}

// key signs all tokens of all servers, since it takes long to make one.
var key = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// sign makes an RS256 JWT (RFC 7515, RFC 7518 section 3.3).
func sign(claims map[string]any) string {
	payload, _ := json.Marshal(claims) // strings and numbers
	enc := base64.RawURLEncoding.EncodeToString
	signed := enc([]byte(`{"alg":"RS256","typ":"JWT","kid":"ststest"}`)) + "." + enc(payload)
	sum := sha256.Sum256([]byte(signed))
	signature, _ := rsa.SignPKCS1v15(nil, key(), crypto.SHA256, sum[:]) // a good key and a digest of the right size
	return signed + "." + enc(signature)
}
