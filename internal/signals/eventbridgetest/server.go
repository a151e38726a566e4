// Package eventbridgetest is a stand-in for Amazon EventBridge's PutEvents: an HTTP server for the
// real AWS SDK (AWS JSON 1.1). It keeps the events, so that a test can look at them.
//
// The rules are those of the EventBridge API reference, PutEvents. The stand-in wants an
// Authorization header, but does not verify the signature. It does not look at what is in an entry,
// takes any bus, and has no rules and targets. It is an assumption that a policy's conditions apply
// to each entry. The messages are made up.
package eventbridgetest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"
)

const maxEntries = 10 // of a request

// Event is an entry that was taken.
type Event struct {
	Bus        string `json:"EventBusName"`
	Source     string
	DetailType string
	Resources  []string
	Detail     string // a JSON object
}

// Fault makes requests go wrong.
type Fault struct {
	Error   string        // the code to answer with, such as "ThrottlingException"
	Entries int           // how many of a request's entries fail with Error, the first ones; 0: the request as a whole
	Drop    bool          // cuts the connection instead of answering
	Delay   time.Duration // real time to wait before all this, or before a normal answer
	Times   int           // how many requests the fault hits, retries included; 0: all, until ClearFaults
}

// Server is the stand-in. It is safe for concurrent use.
type Server struct {
	http *httptest.Server
	url  string

	mu       sync.Mutex // guards everything below
	may      func(accessKeyID, bus, source, detailType string) bool
	faults   []*Fault
	requests []int
	events   []Event
}

// New returns a server that listens on a free loopback port until [Server.Close].
func New() *Server {
	s := new(Server)
	s.http = httptest.NewServer(http.HandlerFunc(s.serve))
	s.url = s.http.URL
	return s
}

// Start is [New] for the time of a test.
func Start(tb testing.TB) *Server {
	s := New()
	tb.Cleanup(s.Close)
	return s
}

// Close stops listening and cuts every connection.
func (s *Server) Close() {
	s.http.CloseClientConnections()
	s.http.Close()
}

// URL is the value for AWS_ENDPOINT_URL_EVENTBRIDGE.
func (s *Server) URL() string { return s.url }

// Fail adds a fault. If there are several, the one added first hits a request.
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

// Authorize makes may decide whether the caller with an access key ID may put an event of a source
// and type on a bus, which it gets by its ARN. One event that is not allowed fails the whole
// request. The Server is locked while it asks.
func (s *Server) Authorize(may func(accessKeyID, bus, source, detailType string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.may = may
}

// Events are all events so far, in the order in which they came.
func (s *Server) Events() []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

// Requests is the number of entries in each request so far, failed requests included.
func (s *Server) Requests() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

type result struct {
	EventId, ErrorCode, ErrorMessage string `json:",omitempty"`
}

type reply struct {
	FailedEntryCount int
	Entries          []result
}

// failure is the answer to a request that fails as a whole.
type failure struct {
	Code    string `json:"__type"`
	Message string `json:"message"`
}

// credential matches a Signature Version 4 header and finds the access key ID and the Region.
var credential = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=([^/, ]+)/\d{8}/([^/, ]+)/events/aws4_request, `)

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	var input struct{ Entries []Event }
	var answer any
	var fault Fault
	caller := credential.FindStringSubmatch(r.Header.Get("Authorization"))
	if caller == nil || r.Header.Get("X-Amz-Target") != "AWSEvents.PutEvents" || json.NewDecoder(r.Body).Decode(&input) != nil {
		answer = failure{"UnrecognizedClientException", "This is not a signed request for PutEvents."}
	} else {
		fault = s.hit(len(input.Entries))
		select {
		case <-time.After(fault.Delay):
			answer = s.put(caller[1], caller[2], input.Entries, fault)
		case <-r.Context().Done():
		}
	}
	if fault.Drop {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if _, failed := answer.(failure); failed {
		w.WriteHeader(http.StatusBadRequest)
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// hit counts a request and returns the fault that hits it, if any.
func (s *Server) hit(entries int) (f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, entries)
	if len(s.faults) > 0 {
		f = *s.faults[0]
		if s.faults[0].Times--; s.faults[0].Times == 0 {
			s.faults = s.faults[1:]
		}
	}
	return f
}

// put takes the events and returns a reply or a failure.
func (s *Server) put(accessKeyID, region string, entries []Event, fault Fault) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range entries {
		bus := fmt.Sprintf("arn:aws:events:%s:123456789012:event-bus/%s", region, cmp.Or(e.Bus, "default"))
		if s.may != nil && !s.may(accessKeyID, bus, e.Source, e.DetailType) {
			return failure{"AccessDeniedException", accessKeyID + " is not authorized to perform: events:PutEvents on resource: " + bus}
		}
	}
	switch {
	case len(entries) < 1 || len(entries) > maxEntries:
		return failure{"ValidationException", "A request must have 1 to 10 entries."}
	case fault.Drop || fault.Error != "" && fault.Entries == 0:
		return failure{fault.Error, "A fault that a test asked for, in arn:aws:events:" + region}
	}
	answer := reply{Entries: make([]result, len(entries))}
	for i, e := range entries {
		if i < fault.Entries {
			answer.Entries[i] = result{ErrorCode: fault.Error, ErrorMessage: "A fault that a test asked for."}
			answer.FailedEntryCount++
		} else {
			s.events = append(s.events, e)
			answer.Entries[i] = result{EventId: fmt.Sprint(len(s.events))}
		}
	}
	return answer
}
