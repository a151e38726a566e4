package ststest

import (
	"encoding/xml"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"time"
)

const (
	action    = "GetWebIdentityToken"
	version   = "2011-06-15"
	namespace = "https://sts.amazonaws.com/doc/" + version + "/"
	maxBody   = 1 << 20 // far above ten audiences of 1,000 characters
)

// apiError is an answer that AWS would give as an error.
type apiError struct {
	status  int
	Type    string // whose fault it is
	Code    string
	Message string
}

// fail makes an error of the caller's or, from 500 on, of the server's.
func fail(status int, code, format string, args ...any) *apiError {
	e := &apiError{status: status, Type: "Sender", Code: code, Message: fmt.Sprintf(format, args...)}
	if status >= http.StatusInternalServerError {
		e.Type = "Receiver"
	}
	return e
}

// errorResponse and tokenResponse are the roots of the two documents there are.
type errorResponse struct {
	XMLName   xml.Name `xml:"ErrorResponse"`
	XMLNS     string   `xml:"xmlns,attr"`
	Error     *apiError
	RequestID string `xml:"RequestId"`
}

type tokenResponse struct {
	XMLName   xml.Name `xml:"GetWebIdentityTokenResponse"`
	XMLNS     string   `xml:"xmlns,attr"`
	Result    result   `xml:"GetWebIdentityTokenResult"`
	RequestID string   `xml:"ResponseMetadata>RequestId"`
}

type result struct {
	WebIdentityToken string
	Expiration       time.Time // whole seconds, in UTC: what AWS writes, and the SDK reads, is RFC 3339
}

// credential is the scope in a Signature Version 4 header, of which only the access key ID, Region and service matter here.
var credential = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=([^/, ]+)/\d{8}/([^/, ]+)/([^/, ]+)/aws4_request, ?SignedHeaders=[^, ]+, ?Signature=[0-9a-f]+$`)

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	form := url.Values{} // of another method or type, as good as empty: it has no Action
	if mt, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil && r.Method == http.MethodPost && mt == "application/x-www-form-urlencoded" {
		form, err = url.ParseQuery(string(body))
	}
	id := newUUID()
	var reply any
	status := http.StatusOK
	token, problem := s.answer(r.Header.Get("Authorization"), form, err)
	if problem != nil {
		status, reply = problem.status, errorResponse{XMLNS: namespace, Error: problem, RequestID: id}
	} else {
		reply = tokenResponse{XMLNS: namespace, Result: token, RequestID: id}
	}
	text, err := xml.Marshal(reply)
	if err != nil {
		panic(err) // our own types only
	}
	// AWS never answers within microseconds, and its SDK relies on it: see minLatency in secretstoretest. A connection
	// that is cut for it would count as another request.
	time.Sleep(2 * time.Millisecond)
	w.Header().Set("Content-Type", "text/xml")
	w.Header().Set("X-Amzn-Requestid", id)
	w.WriteHeader(status)
	_, _ = w.Write(text)
}

// answer decides, in the order in which AWS looks: who asks, for what, and with which parameters.
func (s *Server) answer(authorization string, form url.Values, formErr error) (result, *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if authorization == "" {
		return result{}, fail(http.StatusForbidden, "MissingAuthenticationToken", "Request is missing Authentication Token")
	}
	scope := credential.FindStringSubmatch(authorization)
	if scope == nil {
		return result{}, fail(http.StatusBadRequest, "IncompleteSignature", "Authorization header is not an AWS Signature Version 4 one.")
	}
	accessKeyID, region, service := scope[1], scope[2], scope[3]
	if service != "sts" {
		return result{}, fail(http.StatusForbidden, "SignatureDoesNotMatch", "Credential should be scoped to correct service: 'sts'.")
	}
	if form.Get("Action") == action {
		s.asked++
	}
	if s.fault != nil {
		return result{}, s.fault
	}
	switch {
	case formErr != nil:
		return result{}, fail(http.StatusNotFound, "MalformedQueryString", "The body is not a form, or too long.")
	case form.Get("Action") == "":
		return result{}, fail(http.StatusBadRequest, "MissingAction", "The request is missing an action.")
	case form.Get("Version") != version:
		return result{}, fail(http.StatusBadRequest, "NoSuchVersion", "The requested version ( %s ) is not valid.", form.Get("Version"))
	case form.Get("Action") != action:
		return result{}, fail(http.StatusBadRequest, "InvalidAction", "Could not find operation %s for version %s", form.Get("Action"), version)
	}
	req, err := parse(form)
	if err != nil {
		return result{}, err
	}
	if action := "sts:" + action; s.authorize != nil && !s.authorize(accessKeyID, action, req.audience) {
		return result{}, fail(http.StatusForbidden, "AccessDenied", "User: arn:aws:sts::%s:assumed-role/%s/session is not authorized to perform: %s on resource: * because no identity-based policy allows the %[3]s action",
			s.account, accessKeyID, action)
	}
	return s.issueLocked(req, region), nil
}
