// Package eventbridgetest is a stand-in for Amazon EventBridge's PutEvents: an HTTP server that speaks its protocol (AWS
// JSON 1.1), so that the real AWS SDK can be pointed at it. It keeps the events for a test to look at.
//
//	s := eventbridgetest.Start(t)
//	client := eventbridge.New(eventbridge.Options{BaseEndpoint: aws.String(s.URL()), …})
//
// The rules are those of the EventBridge API reference, PutEvents, and of the EventBridge User Guide, "Sending events with
// PutEvents". It is stricter in size: all entries of a request together may have 256 KB, the limit that there was before
// 1 MB. Not copied are signatures (an Authorization header is asked for, not verified), permissions beyond
// [Server.Authorize], buses (any name is one), rules and targets. Assumed are the messages, which of several things that are
// wrong is named, and that each entry is held to the conditions of a policy by itself.
package eventbridgetest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	contentType = "application/x-amz-json-1.1"
	target      = "AWSEvents.PutEvents"
	maxEntries  = 10
	maxBytes    = 256 << 10
	maxType     = 128 // characters of a DetailType
)

// Event is an entry that was taken.
type Event struct {
	Bus, Source, DetailType string
	Resources               []string
	Detail                  string // a JSON object
}

// Fault makes requests go wrong.
type Fault struct {
	Error   string        // code to answer with, such as "ThrottlingException"
	Entries int           // how many of a request's entries, the first ones, fail with Error; 0: the request as a whole
	Drop    bool          // cuts the connection instead of answering
	Delay   time.Duration // how long to wait, in real time, before that, or before answering as ever
	Times   int           // how many requests are hit, the SDK's retries among them; 0: all, until ClearFaults
}

// Server is the stand-in. It is an [http.Handler], and safe for concurrent use.
type Server struct {
	mu       sync.Mutex // guards everything below
	http     *http.Server
	url      string
	may      func(accessKeyID, action, resource, source, detailType string) bool
	faults   []*Fault
	requests []int
	events   []Event
	ids      int
}

// TB is the part of [testing.TB] that [Start] needs.
type TB interface {
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// Start returns a server that listens on a free loopback port until the test ends.
func Start(tb TB) *Server {
	s := new(Server)
	if err := s.Listen("127.0.0.1:0"); err != nil {
		tb.Fatalf("starting the stand-in EventBridge: %v", err)
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
	s.url = "http://" + l.Addr().String()
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

// URL is what AWS_ENDPOINT_URL_EVENTBRIDGE takes. It is empty before [Server.Listen].
func (s *Server) URL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.url
}

// Fail adds a fault. Of several, the one added first hits a request.
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

// Authorize lets may decide who may do what: whether the caller with this access key ID may take an action, which is always
// "events:PutEvents", on a bus, by its ARN, with an event of that source and type. One that may not go refuses the request.
// It is called with the Server locked.
func (s *Server) Authorize(may func(accessKeyID, action, resource, source, detailType string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.may = may
}

// Events are all that were taken, in the order in which they came.
func (s *Server) Events() []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

// Requests is the number of entries in each request for PutEvents so far, those that failed among them.
func (s *Server) Requests() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

type entry struct {
	EventBusName, Source, DetailType, Detail string
	Resources                                []string
	Time                                     *float64
}

// size is what an entry counts for.
// https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html#eb-putevent-size
func (e entry) size() int {
	n := len(e.Source) + len(e.DetailType) + len(e.Detail)
	for _, r := range e.Resources {
		n += len(r)
	}
	if e.Time != nil {
		n += 14
	}
	return n
}

type result struct {
	EventId, ErrorCode, ErrorMessage string `json:",omitempty"`
}

type reply struct {
	FailedEntryCount int
	Entries          []result
}

type apiError struct {
	Type    string `json:"__type"`
	Message string `json:"message"`
}

func fail(code, format string, args ...any) *apiError {
	return &apiError{code, fmt.Sprintf(format, args...)}
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 4*maxBytes))
	entries, problem := read(r, body, err)
	var fault Fault
	if problem == nil {
		fault = s.hit(len(entries))
		problem = s.permit(r.Header.Get("Authorization"), entries)
	}
	select {
	case <-time.After(fault.Delay):
	case <-r.Context().Done():
		return
	}
	if fault.Drop {
		panic(http.ErrAbortHandler)
	}
	if problem == nil && fault.Error != "" && fault.Entries == 0 {
		problem = fail(fault.Error, "A fault that a test asked for.")
	}
	var answer any
	status := http.StatusOK
	if problem == nil {
		answer = s.take(entries, fault)
	} else {
		answer, status = problem, http.StatusBadRequest
		if strings.HasPrefix(problem.Type, "Internal") {
			status = http.StatusInternalServerError
		}
	}
	text, _ := json.Marshal(answer) // strings and numbers
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("X-Amzn-Requestid", "00000000-0000-4000-8000-000000000000")
	w.WriteHeader(status)
	_, _ = w.Write(text)
}

// credential is the scope in a Signature Version 4 header, of which only the access key ID, Region and service
// matter here.
var credential = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=([^/, ]+)/\d{8}/([^/, ]+)/events/aws4_request, ?SignedHeaders=[^, ]+, ?Signature=[0-9a-f]+$`)

// read takes what the protocol says about a request.
func read(r *http.Request, body []byte, err error) ([]entry, *apiError) {
	var input struct{ Entries []entry }
	authorization := r.Header.Get("Authorization")
	switch {
	case err != nil:
		return nil, fail("SerializationException", "The request body could not be read.")
	case authorization == "":
		return nil, fail("MissingAuthenticationTokenException", "Missing Authentication Token")
	case !credential.MatchString(authorization):
		return nil, fail("IncompleteSignatureException", "Authorization header is not a Signature Version 4 one for the service 'events'.")
	case r.Method != http.MethodPost || r.URL.Path != "/" || r.Header.Get("Content-Type") != contentType || r.Header.Get("X-Amz-Target") != target:
		return nil, fail("UnknownOperationException", "Not a PutEvents request: want POST /, %s, X-Amz-Target: %s.", contentType, target)
	case json.Unmarshal(body, &input) != nil:
		return nil, fail("SerializationException", "The request body is not a JSON object of the right types.")
	case len(input.Entries) < 1 || len(input.Entries) > maxEntries:
		return nil, fail("ValidationException", "Value at 'entries' failed to satisfy constraint: Member must have length between 1 and %d.", maxEntries)
	}
	size, whole := 0, false
	for _, e := range input.Entries {
		size += e.size()
		whole = whole || e.Source != "" && e.DetailType != "" && e.Detail != ""
	}
	if size >= maxBytes {
		return nil, fail("ValidationException", "Total size of the entries in the request is over the limit.")
	}
	if !whole {
		return nil, fail("ValidationException", "No entry has each of Source, DetailType and Detail.")
	}
	return input.Entries, nil
}

// hit takes note of a request and returns the fault that hits it, if any.
func (s *Server) hit(entries int) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, entries)
	if len(s.faults) == 0 {
		return Fault{}
	}
	f := *s.faults[0]
	if s.faults[0].Times--; s.faults[0].Times == 0 {
		s.faults = s.faults[1:]
	}
	return f
}

// permit refuses what Authorize does, in the words of AWS.
func (s *Server) permit(authorization string, entries []entry) *apiError {
	const account, action = "123456789012", "events:PutEvents"
	scope := credential.FindStringSubmatch(authorization)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range entries {
		bus := e.EventBusName
		if !strings.HasPrefix(bus, "arn:") {
			bus = fmt.Sprintf("arn:aws:events:%s:%s:event-bus/%s", scope[2], account, cmp.Or(bus, "default"))
		}
		if s.may != nil && !s.may(scope[1], action, bus, e.Source, e.DetailType) {
			return fail("AccessDeniedException", "User: arn:aws:sts::%s:assumed-role/%s/session is not authorized to perform: %s on resource: %s because no identity-based policy allows the %[3]s action",
				account, scope[1], action, bus)
		}
	}
	return nil
}

// take keeps the events that are as they must be, and says of each entry what became of it.
func (s *Server) take(entries []entry, fault Fault) reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := reply{Entries: []result{}}
	for i, e := range entries {
		r := check(e)
		if i < fault.Entries {
			r = result{ErrorCode: fault.Error, ErrorMessage: "A fault that a test asked for."}
		}
		if r.ErrorCode == "" {
			s.ids++
			r.EventId = fmt.Sprintf("%08d-0000-4000-8000-000000000000", s.ids)
			s.events = append(s.events, Event{e.EventBusName, e.Source, e.DetailType, e.Resources, e.Detail})
		} else {
			answer.FailedEntryCount++
		}
		answer.Entries = append(answer.Entries, r)
	}
	return answer
}

func check(e entry) result {
	switch {
	case e.Source == "" || e.DetailType == "" || e.Detail == "":
		return result{ErrorCode: "InvalidArgument", ErrorMessage: "Source, DetailType and Detail are required."}
	case len([]rune(e.DetailType)) > maxType:
		return result{ErrorCode: "InvalidArgument", ErrorMessage: "DetailType is too long."}
	case strings.HasPrefix(e.Source, "aws."):
		return result{ErrorCode: "NotAuthorizedForSourceException", ErrorMessage: "Not authorized for the source."}
	case !json.Valid([]byte(e.Detail)) || !bytes.HasPrefix(bytes.TrimSpace([]byte(e.Detail)), []byte("{")):
		return result{ErrorCode: "MalformedDetail", ErrorMessage: "Detail is malformed."}
	}
	return result{}
}
