package secretstoretest

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// request is one call as it arrived.
type request struct {
	op          string
	accessKeyID string
	secret      string // the name of the secret that it is about, if it is about one
	input
}

// input is the body of a request: the parameters of all operations together.
type input struct {
	SecretId, Name             string
	ClientRequestToken         string
	SecretString, Description  *string
	KmsKeyId                   string // not looked at
	ResourcePolicy             string
	BlockPublicPolicy          bool // not looked at
	Tags                       []tag
	TagKeys                    []string
	RecoveryWindowInDays       *int
	ForceDeleteWithoutRecovery bool
	query
}

type tag struct{ Key, Value string }

// apiError is an answer that AWS would give as an error.
type apiError struct {
	Type    string `json:"__type"`
	Message string
}

func (e *apiError) Error() string { return e.Type + ": " + e.Message }

func fail(typ, format string, args ...any) error {
	return &apiError{Type: typ, Message: fmt.Sprintf(format, args...)}
}

// invalid is AWS's answer to a parameter that is too short, too long, too small or too large. It
// never quotes the value.
func invalid(member string, least, most int) error {
	return fail("ValidationException", "1 validation error detected: Value at '%s' failed to satisfy constraint: between %d and %d", member, least, most)
}

// errDropped asks for the connection to be cut instead of an answer.
var errDropped = errors.New("reply dropped")

// errBroken asks for the connection to be cut in the middle of the answer.
var errBroken = fmt.Errorf("half of the %w", errDropped)

// status is the HTTP status of an error type. AWS JSON services answer 400 to everything but their
// own failures, throttling and missing permissions included.
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

// readRequest reads a request. With an error, the request holds what could be read.
func readRequest(r *http.Request) (request, error) {
	req := request{op: strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "secretsmanager.")}
	// The whole body is read before anything else: only then does net/http notice that the client
	// has hung up.
	body, readErr := io.ReadAll(r.Body)
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	parseErr := cmp.Or(readErr, decoder.Decode(&req.input))
	req.secret = cmp.Or(nameOf(req.SecretId), req.Name)

	credential, signed := strings.CutPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=")
	req.accessKeyID, _, _ = strings.Cut(credential, "/")
	switch {
	case !signed:
		return req, fail("MissingAuthenticationTokenException", "Missing Authentication Token")
	case !slices.Contains(operations, req.op):
		return req, fail("InvalidAction", "The stand-in Secrets Manager does not offer the operation %q.", req.op)
	case parseErr != nil:
		// AWS ignores parameters that it does not know. Here, whoever sends one learns that it does
		// nothing.
		if field, unknown := strings.CutPrefix(parseErr.Error(), "json: unknown field "); unknown {
			return req, fail("InvalidParameterException", "The stand-in Secrets Manager does not offer the parameter %s.", field)
		}
		return req, fail("SerializationException", "The request body is not a JSON object of the right types.") // parseErr may quote a value
	}
	return req, nil
}

func writeReply(w http.ResponseWriter, body []byte, err error) {
	status := http.StatusOK
	var e *apiError
	broken := errors.Is(err, errBroken)
	switch {
	case errors.Is(err, errDropped) && !broken:
		panic(http.ErrAbortHandler)
	case errors.As(err, &e):
		status = e.status()
		body, _ = json.Marshal(e) // two strings
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.Header().Set("X-Amzn-Requestid", rand.Text())
	if broken {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		body = body[:len(body)/2]
	}
	w.WriteHeader(status)
	_, _ = w.Write(body)
	if broken {
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

// minLatency is how long a reply has to wait at least. AWS never answers within microseconds, and
// its SDK relies on that: while net/http still looks for the end of the request's body, smithy-go
// (1.28.8, safeReadCloser.WriteTo) turns an early answer into an error. Then net/http cuts the
// connection, and the SDK sends the request again, unless the whole reply came in one read.
func minLatency(reply []byte) time.Duration {
	if len(reply) < 2<<10 {
		return 0
	}
	return 2 * time.Millisecond
}

// stamp is a time as AWS JSON writes it: seconds since 1970, with milliseconds.
type stamp struct{ time.Time }

func (t stamp) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(t.UnixMilli())/1000, 'f', 3, 64), nil
}
