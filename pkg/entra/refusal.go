package entra

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"golang.org/x/oauth2"
)

const maxRetryAfter = 24 * time.Hour

// tokenError reduces the library's error, whose text quotes the response body, to what is safe to
// keep.
func (c *Client) tokenError(ctx, request context.Context, err error) error {
	var answered *oauth2.RetrieveError
	var failed *url.Error
	switch {
	case errors.As(err, &answered):
		return c.refusal(answered.Response, answered.Body)
	case errors.As(err, &failed) || request.Err() != nil:
		return transportError(ctx, request)
	}
	return newError(Malformed, CodeMalformed)
}

// transportError distinguishes a caller that gave up from an Entra that did not answer.
func transportError(ctx, request context.Context) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	e := newError(Unavailable, CodeUnavailable)
	if request.Err() != nil {
		e = newError(Timeout, CodeTimeout)
	}
	e.CorrelationID = requestID(request)
	return e
}

var (
	codeInText = pattern(`^AADSTS(\d{4,9})\b`)
	digits     = pattern(`^\d{4,9}$`)
	word       = pattern(`^[a-z_]{1,40}$`)
)

// refusal classifies an error response. It looks at the HTTP status first, then at the
// OAuth error, then at the AADSTS code. Microsoft asks programs to trust them in this order.
func (c *Client) refusal(resp *http.Response, body []byte) error {
	var answer struct {
		Error         string        `json:"error"`
		Description   string        `json:"error_description"`
		Codes         []json.Number `json:"error_codes"`
		TraceID       string        `json:"trace_id"`
		CorrelationID string        `json:"correlation_id"`
	}
	// The body need not be JSON: a 429 is plain text, and a proxy's page is HTML.
	_ = json.NewDecoder(bytes.NewReader(body)).Decode(&answer)

	oauthError := safeWord(answer.Error)
	code := mostSpecific(answer.Codes)
	if m := codeInText().FindStringSubmatch(answer.Description); code == "" && m != nil {
		code = codePrefix + m[1]
	}
	code = cmp.Or(code, oauthError)

	class := rowOf(code).class
	switch status := resp.StatusCode; {
	case status == http.StatusTooManyRequests:
		if class != Throttled {
			class, code = Throttled, CodeThrottled
		}
	case status == http.StatusRequestTimeout, status >= 500:
		if class != Unavailable {
			class, code = Unavailable, CodeUnavailable
		}
	case oauthError == "temporarily_unavailable", oauthError == "server_error":
		class = Unavailable
	case oauthError == "":
		class, code = Malformed, CodeMalformed
	}
	e := &Error{Class: class, Code: code, Advice: explain(code, oauthError)}
	e.TraceID, e.CorrelationID = guidOrNone(answer.TraceID), guidOrNone(answer.CorrelationID)
	if e.CorrelationID == "" && resp.Request != nil {
		e.CorrelationID = resp.Request.Header.Get("client-request-id")
	}
	if class == Throttled || class == Unavailable {
		e.RetryAfter = c.retryAfter(resp.Header.Get("Retry-After"))
	}
	return e
}

// mostSpecific returns the most specific AADSTS code: one in the table that is not a general one,
// or else the first.
func mostSpecific(numbers []json.Number) (code string) {
	known := func(code string) int {
		r, ok := byCode()[code]
		switch {
		case !ok:
			return 0
		case r.has(general):
			return 1
		}
		return 2
	}
	for _, n := range numbers {
		if !digits().MatchString(n.String()) {
			continue
		}
		if next := codePrefix + n.String(); code == "" || known(next) > known(code) {
			code = next
		}
	}
	return code
}

// retryAfter reads the header's seconds or HTTP date (RFC 9110 section 10.2.3).
func (c *Client) retryAfter(header string) time.Duration {
	if n, err := strconv.ParseInt(header, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(max(n, 0), int64(maxRetryAfter/time.Second))) * time.Second
	}
	at, err := http.ParseTime(header)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(c.now()), 0), maxRetryAfter)
}

// safeWord returns s if it looks like an OAuth error, and nothing otherwise.
func safeWord(s string) string {
	if word().MatchString(s) {
		return s
	}
	return ""
}

func guidOrNone(s string) string {
	if guidPattern().MatchString(s) {
		return s
	}
	return ""
}
