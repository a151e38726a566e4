package secretstoretest

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	contentType  = "application/x-amz-json-1.1"
	targetPrefix = "secretsmanager."
	maxBody      = 4 << 20 // twenty times the largest secret, base64 and escapes included
)

// request is one call as it arrived.
type request struct {
	op          string
	accessKeyID string
	secretID    string // as it was given, where the request is about one secret
	secret      string // the name that stands for
	token       bool   // came with a ClientRequestToken
	body        []byte
}

// apiError is an answer that AWS would give as an error.
type apiError struct {
	Type    string `json:"__type"`
	Message string
}

func (e *apiError) Error() string { return e.Type + ": " + e.Message }

func fail(typ, format string, args ...any) error {
	return &apiError{Type: typ, Message: fmt.Sprintf(format, args...)}
}

// errDropped asks for the connection to be cut instead of an answer.
var errDropped = errors.New("reply dropped")

// status is the HTTP status that goes with an error type. AWS JSON services answer 400 to everything that is not the
// server's own failure, throttling and missing permissions included.
func (e *apiError) status() int {
	switch {
	case strings.HasPrefix(e.Type, "Internal"):
		return http.StatusInternalServerError
	case strings.HasPrefix(e.Type, "ServiceUnavailable"):
		return http.StatusServiceUnavailable
	default:
		return http.StatusBadRequest
	}
}

// readRequest takes what the protocol says about a request from r. The request it returns is as complete as an error
// let it become.
func readRequest(w http.ResponseWriter, r *http.Request) (request, error) {
	var req request
	target := r.Header.Get("X-Amz-Target")
	req.op = strings.TrimPrefix(target, targetPrefix)
	// The whole body is read before anything else: only then does net/http notice that the client has hung up.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return req, fail("SerializationException", "The request body could not be read.")
	}
	req.body = body
	var about struct {
		SecretId, Name     string
		ClientRequestToken string
	}
	parseErr := json.Unmarshal(body, &about)
	req.secretID, req.secret = about.SecretId, nameOf(about.SecretId)
	if about.SecretId == "" {
		req.secretID, req.secret = about.Name, about.Name
	}
	req.token = about.ClientRequestToken != ""

	authorization := r.Header.Get("Authorization")
	_, credential, _ := strings.Cut(authorization, "Credential=")
	req.accessKeyID, _, _ = strings.Cut(credential, "/")
	switch {
	case authorization == "":
		return req, fail("MissingAuthenticationTokenException", "Missing Authentication Token")
	case !strings.HasPrefix(authorization, "AWS4-HMAC-SHA256 "):
		return req, fail("IncompleteSignatureException", "Authorization header is not an AWS Signature Version 4 one.")
	case r.Method != http.MethodPost || r.URL.Path != "/" || r.Header.Get("Content-Type") != contentType || req.op == target:
		return req, fail("UnknownOperationException", "Not a Secrets Manager request: want POST /, %s, X-Amz-Target: %s<Operation>.", contentType, targetPrefix)
	case parseErr != nil:
		return req, fail("SerializationException", "The request body is not a JSON object of the right types.")
	}
	return req, nil
}

func writeReply(w http.ResponseWriter, body []byte, err error) {
	status := http.StatusOK
	if err != nil {
		var e *apiError
		if !errors.As(err, &e) {
			e = &apiError{Type: "InternalServiceError", Message: "An error occurred on the server side."}
		}
		status = e.status()
		body, _ = json.Marshal(e) // two strings
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("X-Amzn-Requestid", newUUID())
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// minLatency is how long a reply has to wait at least. AWS never answers within microseconds, and its SDK relies on
// it: smithy-go (1.28.8, safeReadCloser.WriteTo) turns an answer that comes while net/http still looks for the end of the
// request's body into an error, on which net/http cuts the connection. The SDK then repeats the request, unless the
// whole reply came in one read.
func minLatency(reply []byte) time.Duration {
	if len(reply) < 2<<10 {
		return 0
	}
	return 2 * time.Millisecond
}

// operation is one API operation: the quota it draws on, and what it does.
type operation struct {
	group group
	run   func(st *store, now time.Time, body []byte) (reply []byte, err error)
}

// typed makes an operation of a function that knows nothing of JSON. Unknown members are ignored, as AWS does. The reply
// is encoded at once, under the Server's lock, since it shares memory with the store.
func typed[In, Out any](g group, run func(*store, time.Time, In) (Out, error)) operation {
	return operation{group: g, run: func(st *store, now time.Time, body []byte) ([]byte, error) {
		var in In
		if err := json.Unmarshal(body, &in); err != nil {
			return nil, fail("SerializationException", "The request body is not a JSON object of the right types.")
		}
		out, err := run(st, now, in)
		if err != nil {
			return nil, err
		}
		return json.Marshal(out)
	}}
}

// stamp is a time as AWS JSON writes it: seconds since 1970, with milliseconds.
type stamp struct{ time.Time }

func (t stamp) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(t.UnixMilli())/1000, 'f', 3, 64), nil
}

// newUUID returns a random UUID, such as AWS and its SDKs use for requests and versions.
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
