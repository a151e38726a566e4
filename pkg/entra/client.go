package entra

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

const (
	requestTimeout = 10 * time.Second
	maxResponse    = 1 << 20 // bytes; the limit of x/oauth2
	maxRetryAfter  = 24 * time.Hour
	maxToken       = 60 << 10 // bytes; Secrets Manager holds 64 KiB, the other values included
)

// ClientConfig configures a [Client]. The zero value asks the clouds' own
// authorities.
type ClientConfig struct {
	Authority string            // replaces every cloud's own; see ParseAuthority
	Transport http.RoundTripper // nil: http.DefaultTransport's settings, with connections kept for a sweep
	Now       func() time.Time  // nil: time.Now

	// Assertions issues the assertions of federated apps. Without it they are
	// refused.
	Assertions AssertionSource
}

// Client asks Entra for tokens and tenants. It is safe for concurrent use and
// keeps its connections open.
type Client struct {
	authority string
	http      *http.Client
	now       func() time.Time

	assertions AssertionSource
}

// NewClient returns a Client.
func NewClient(cfg ClientConfig) *Client {
	c := &Client{authority: cfg.Authority, now: cfg.Now, assertions: cfg.Assertions}
	if c.now == nil {
		c.now = time.Now
	}
	if c.assertions == nil {
		c.assertions = noAssertions{}
	}
	transport := cfg.Transport
	if transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.MaxIdleConnsPerHost = t.MaxIdleConns
		transport = t
	}
	c.http = &http.Client{
		Transport: requestIDs{transport},
		// A redirect would carry the form, and so the credential, elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// requestIDs sends the identifiers by which Microsoft's support finds a request.
type requestIDs struct{ next http.RoundTripper }

func (r requestIDs) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("Accept", "application/json")
	req.Header.Set("client-request-id", requestID(req.Context()))
	return r.next.RoundTrip(req)
}

type requestIDKey struct{}

// newRequest returns the context of one request, with its time limit and the ID
// that it bears whether or not there is an answer.
func newRequest(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithValue(ctx, requestIDKey{}, newGUID()), requestTimeout)
}

func requestID(request context.Context) string {
	id, _ := request.Value(requestIDKey{}).(string)
	return id
}

func newGUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Token asks for an app-only token of one tenant: one request, not repeated.
// The error is an [*Error], or the context's where the context has ended.
//
// No client capability is declared. A token for "cp1" lives a day, but can be
// revoked before, which nobody who watches its expiry would see.
func (c *Client) Token(ctx context.Context, app App, tenantID string) (Token, error) {
	request, cancel := newRequest(ctx)
	defer cancel()
	tokenURL := c.url(app.Cloud, tenantID, "/oauth2/v2.0/token")
	assertion, err := c.assertionForm(request, app, tokenURL)
	if err != nil {
		if request.Err() != nil {
			err = transportError(ctx, request)
		}
		return Token{}, err
	}
	cfg := clientcredentials.Config{
		ClientID:       app.ClientID,
		ClientSecret:   app.Credential.ClientSecret.Reveal(),
		EndpointParams: assertion,
		TokenURL:       tokenURL,
		Scopes:         []string{app.Scope},
		// The zero style sends a refused request a second time.
		AuthStyle: oauth2.AuthStyleInParams,
	}
	sent := c.now()
	answer, err := cfg.Token(context.WithValue(request, oauth2.HTTPClient, c.http))
	if err != nil {
		err = c.tokenError(ctx, request, err)
		if refused := (*Error)(nil); errors.As(err, &refused) {
			refused.explain(c, app, tenantID)
		}
		return Token{}, err
	}
	token := Token{
		TenantID:    tenantID,
		Type:        "Bearer",
		AccessToken: NewSecret(answer.AccessToken),
		ExpiresIn:   seconds(answer.Extra("expires_in"), 0),
		RequestedAt: sent,
	}
	if !strings.EqualFold(answer.TokenType, token.Type) || token.ExpiresIn == 0 || len(answer.AccessToken) > maxToken {
		return Token{}, &Error{Class: Malformed, Code: CodeMalformed}
	}
	token.ExtExpiresIn = seconds(answer.Extra("ext_expires_in"), token.ExpiresIn)
	return token, nil
}

// seconds reads a JSON number, or a number in a string as the v1.0 endpoint
// sends them. Any other value is taken for none.
func seconds(v any, otherwise int64) int64 {
	var n float64
	switch v := v.(type) {
	case float64:
		n = v
	case string:
		n, _ = strconv.ParseFloat(v, 64)
	}
	if n >= 1 && n <= math.MaxInt32 && n == math.Trunc(n) {
		return int64(n)
	}
	return otherwise
}

// ResolveTenant returns the GUID of a tenant that is given by its GUID or by a
// domain. A domain is looked up in the tenant's OpenID configuration, without
// authentication. Errors are those of [Client.Token].
func (c *Client) ResolveTenant(ctx context.Context, cloud Cloud, tenant string) (string, error) {
	if guidPattern().MatchString(tenant) {
		return strings.ToLower(tenant), nil
	}
	return c.lookUp(ctx, cloud, tenant)
}

// lookUp returns the GUID of a tenant from its OpenID configuration. A tenant
// that lives in another cloud is refused with the name of that one.
func (c *Client) lookUp(ctx context.Context, cloud Cloud, tenant string) (string, error) {
	request, cancel := newRequest(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(request, http.MethodGet, c.url(cloud, tenant, "/v2.0/.well-known/openid-configuration"), nil)
	if err != nil {
		return "", &Error{Class: Malformed, Code: CodeMalformed}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return "", transportError(ctx, request)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse))
	if err != nil {
		return "", transportError(ctx, request)
	}
	if resp.StatusCode != http.StatusOK {
		return "", c.refusal(resp, body)
	}
	var config struct {
		Issuer        string `json:"issuer"`
		TokenEndpoint string `json:"token_endpoint"`
	}
	if json.Unmarshal(body, &config) != nil {
		return "", &Error{Class: Malformed, Code: CodeMalformed}
	}
	id := tenantOf(config.Issuer)
	if id == "" || id != tenantOf(config.TokenEndpoint) {
		return "", &Error{Class: Malformed, Code: CodeMalformed}
	}
	if home, known := cloudOf(config.TokenEndpoint); known && home != cloud {
		return "", &Error{Class: Refused, Code: codeOtherCloud, TenantCloud: home}
	}
	return id, nil
}

// explain adds what a person needs to act on the refusal.
func (e *Error) explain(c *Client, app App, tenantID string) {
	switch {
	case isOneOf(e.Code, consentCodes):
		e.ConsentURL = c.ConsentURL(app, tenantID)
	case isOneOf(e.Code, federationCodes):
		e.Federation = app.Credential.Federation
	}
}

// ConsentURL is where an administrator of the tenant consents to the app.
// Source: Microsoft Entra, "Grant tenant-wide admin consent to an application".
func (c *Client) ConsentURL(app App, tenantID string) string {
	return c.url(app.Cloud, tenantID, "/adminconsent?client_id="+url.QueryEscape(app.ClientID))
}

// tenantOf returns the GUID that the path of one of Entra's URLs begins with.
func tenantOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	if !guidPattern().MatchString(first) {
		return ""
	}
	return strings.ToLower(first)
}

func (c *Client) url(cloud Cloud, tenant, path string) string {
	authority := c.authority
	if authority == "" {
		authority = authorities[cloud]
	}
	return authority + "/" + url.PathEscape(tenant) + path
}

// tokenError reduces the library's error, whose text quotes the response body,
// to what is safe to keep.
func (c *Client) tokenError(ctx, request context.Context, err error) error {
	var answered *oauth2.RetrieveError
	var failed *url.Error
	switch {
	case errors.As(err, &answered):
		return c.refusal(answered.Response, answered.Body)
	case errors.As(err, &failed) || request.Err() != nil:
		return transportError(ctx, request)
	}
	return &Error{Class: Malformed, Code: CodeMalformed}
}

// transportError tells a caller that gave up from an Entra that did not answer.
func transportError(ctx, request context.Context) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case request.Err() != nil:
		return &Error{Class: Timeout, Code: CodeTimeout, CorrelationID: requestID(request)}
	}
	return &Error{Class: Unavailable, Code: CodeUnavailable, CorrelationID: requestID(request)}
}

var codeInText = pattern(`^AADSTS(\d{4,9})\b`)

// refusal classifies an answer that is not the one asked for: by HTTP status,
// then by the OAuth error, then by AADSTS code, in the order in which Microsoft
// wants them relied on.
func (c *Client) refusal(resp *http.Response, body []byte) error {
	var answer struct {
		Error         string        `json:"error"`
		Description   string        `json:"error_description"`
		Codes         []json.Number `json:"error_codes"`
		TraceID       string        `json:"trace_id"`
		CorrelationID string        `json:"correlation_id"`
	}
	// Not JSON is an answer too: a 429 is plain text, a proxy's page is HTML.
	json.NewDecoder(bytes.NewReader(body)).Decode(&answer)

	oauthError := safeWord(answer.Error)
	e := &Error{
		Code:          oauthError,
		TraceID:       guidOrNone(answer.TraceID),
		CorrelationID: guidOrNone(answer.CorrelationID),
	}
	if e.CorrelationID == "" && resp.Request != nil {
		e.CorrelationID = resp.Request.Header.Get("client-request-id")
	}
	if len(answer.Codes) > 0 && digits().MatchString(answer.Codes[0].String()) {
		e.Code = codePrefix + answer.Codes[0].String()
	} else if m := codeInText().FindStringSubmatch(answer.Description); m != nil {
		e.Code = codePrefix + m[1]
	}

	switch status := resp.StatusCode; {
	case status == http.StatusTooManyRequests:
		e.Class = Throttled
		if byCode()[e.Code].class != Throttled {
			e.Code = CodeThrottled
		}
	case status == http.StatusRequestTimeout, status >= 500:
		e.Class = Unavailable
		if byCode()[e.Code].class != Unavailable {
			e.Code = CodeUnavailable
		}
	case oauthError == "temporarily_unavailable", oauthError == "server_error":
		e.Class = Unavailable
	case oauthError == "":
		e.Class, e.Code = Malformed, CodeMalformed
	default:
		e.Class = byCode()[e.Code].class
	}
	if e.Class == Throttled || e.Class == Unavailable {
		e.RetryAfter = c.retryAfter(resp.Header.Get("Retry-After"))
	}
	return e
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

var (
	digits = pattern(`^\d{4,9}$`)
	word   = pattern(`^[a-z_]{1,40}$`)
)

// safeWord keeps what looks like an OAuth error and drops anything else that
// came in its place.
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
