package entra

import (
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

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

const (
	// RequestTimeout is how long one request to Entra may take.
	RequestTimeout = 10 * time.Second

	// pingAfter is how long a connection may be silent, and then how long the answer to a ping may
	// take. Both together are shorter than RequestTimeout.
	pingAfter = 4 * time.Second

	maxResponse    = 1 << 20 // bytes; the limit of x/oauth2
	maxAccessToken = 60 << 10
)

// ClientConfig configures a [Client]. The zero value asks the clouds' own authorities.
type ClientConfig struct {
	Authority string            // replaces every cloud's own; see [ParseAuthority]
	Transport http.RoundTripper // nil: that of net/http, with its connections kept open
	Now       func() time.Time  // nil: time.Now
	UserAgent string            // how the client names itself; empty: as Go's HTTP client does

	// Assertions issues the assertions of federated apps. Without it such apps are refused.
	Assertions AssertionSource
}

// Client asks Entra for tokens and about tenants. It is safe for concurrent use, and keeps its
// connections open.
type Client struct {
	authority  string
	http       *http.Client
	now        func() time.Time
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
		// A ping finds a dead connection. Without it, every request on that connection would fail.
		t.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingAfter}
		transport = t
	}
	c.http = &http.Client{
		Transport: requestIDs{transport, cfg.UserAgent},
		// A redirect would carry the form, and with it the credential, elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// requestIDs sends the identifiers by which Microsoft's support finds a request.
type requestIDs struct {
	next      http.RoundTripper
	userAgent string
}

func (r requestIDs) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("Accept", "application/json")
	req.Header.Set("client-request-id", requestID(req.Context()))
	if r.userAgent != "" {
		req.Header.Set("User-Agent", r.userAgent)
	}
	return r.next.RoundTrip(req)
}

type requestIDKey struct{}

// newRequest returns the context of one request, with its time limit and its ID.
func newRequest(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithValue(ctx, requestIDKey{}, newGUID()), RequestTimeout)
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

// Token asks for an app-only token for the scope in one tenant, which is named by its GUID. It
// sends one request and does not repeat it. The error is an [*Error], or the context's if the
// context has ended.
//
// The request declares no client capability. A token for the capability "cp1" lives for a day but
// can be revoked before that, and nobody who watches its expiry would notice.
func (c *Client) Token(ctx context.Context, app Registration, scope, tenantID string) (Token, error) {
	request, cancel := newRequest(ctx)
	defer cancel()
	tokenURL := c.url(app.Cloud, tenantID, "/oauth2/v2.0/token")
	assertion, err := c.assertion(request, app, tokenURL)
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
		Scopes:         []string{scope},
		// The zero style sends a refused request a second time.
		AuthStyle: oauth2.AuthStyleInParams,
	}
	sent := c.now()
	answer, err := cfg.Token(context.WithValue(request, oauth2.HTTPClient, c.http))
	if err != nil {
		err = c.tokenError(ctx, request, err)
		if failed := (*Error)(nil); errors.As(err, &failed) {
			c.refine(failed, app, tenantID)
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
	odd := strings.ContainsFunc(answer.AccessToken, func(r rune) bool { return r <= ' ' || r > '~' })
	if !strings.EqualFold(answer.TokenType, token.Type) || token.ExpiresIn == 0 || len(answer.AccessToken) > maxAccessToken || odd {
		return Token{}, newError(Malformed, CodeMalformed)
	}
	token.ExtExpiresIn = seconds(answer.Extra("ext_expires_in"), token.ExpiresIn)
	return token, nil
}

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// assertion returns the fields of a token request that prove an app without a client secret.
func (c *Client) assertion(ctx context.Context, app Registration, tokenURL string) (url.Values, error) {
	var assertion Secret
	var err error
	switch app.Credential.Kind() {
	case KindClientSecret:
		return nil, nil
	case KindCertificate:
		assertion, err = app.Credential.Certificate.assertion(app.ClientID, tokenURL, c.now())
	case KindFederation:
		assertion, err = c.assertions.Assertion(ctx, app.Credential.Federation.Audience)
	}
	if err != nil {
		return nil, err
	}
	return url.Values{"client_assertion_type": {assertionType}, "client_assertion": {assertion.Reveal()}}, nil
}

// refine adds to a failure what only the request knows.
func (c *Client) refine(e *Error, app Registration, tenantID string) {
	r := rowOf(e.Code)
	if r.has(wrongSecret) && guidPattern().MatchString(app.Credential.ClientSecret.Reveal()) {
		e.Class = Refused // a new secret that is not known yet does not look like this
		e.Title, e.Action = "The client secret is wrong: it looks like the secret's ID", "Use the secret's Value, which Entra shows once, when it is created under App registrations > Certificates & secrets."
	}
	if r.has(consent) {
		e.ConsentURL = c.ConsentURL(app, tenantID)
	}
	if f := app.Credential.Federation; f != nil && r.has(federated) {
		e.Action = fmt.Sprintf("Under App registrations > Certificates & secrets > Federated credentials, enter issuer %s, subject %s and audience %s to the letter.",
			f.Issuer, f.Subject, f.Audience)
	}
}

// seconds reads a JSON number, or a number in a string as the v1.0 endpoint sends it. Any other
// value counts as absent.
func seconds(v any, otherwise int64) int64 {
	n := -1.0
	switch v := v.(type) {
	case float64:
		n = v
	case string:
		if parsed, err := strconv.ParseFloat(v, 64); err == nil {
			n = parsed
		}
	}
	if n >= 0 && n <= math.MaxInt32 && n == math.Trunc(n) {
		return int64(n)
	}
	return otherwise
}

// ResolveTenant returns the GUID of a tenant that is named by its GUID or by a domain. It looks a
// domain up in the tenant's OpenID configuration, which needs no authentication. Errors are those
// of [Client.Token].
func (c *Client) ResolveTenant(ctx context.Context, cloud Cloud, tenant string) (string, error) {
	if guidPattern().MatchString(tenant) {
		return strings.ToLower(tenant), nil
	}
	id, home, err := c.lookUp(ctx, cloud, tenant)
	if err == nil && home != cloud {
		e := newError(Refused, codeOtherCloud)
		e.LivesIn(home)
		return "", e
	}
	return id, err
}

// TenantCloud returns the cloud in which a tenant lives, by its OpenID configuration in the given
// one. Errors are those of [Client.Token].
func (c *Client) TenantCloud(ctx context.Context, cloud Cloud, tenant string) (Cloud, error) {
	_, home, err := c.lookUp(ctx, cloud, tenant)
	return home, err
}

// lookUp returns a tenant's GUID and its cloud from its OpenID configuration. It assumes that an
// authority that it does not know belongs to the given cloud.
func (c *Client) lookUp(ctx context.Context, cloud Cloud, tenant string) (id string, home Cloud, err error) {
	request, cancel := newRequest(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(request, http.MethodGet, c.url(cloud, tenant, "/v2.0/.well-known/openid-configuration"), nil)
	if err != nil {
		return "", "", newError(Malformed, CodeMalformed)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return "", "", transportError(ctx, request)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse))
	if err != nil {
		return "", "", transportError(ctx, request)
	}
	if resp.StatusCode != http.StatusOK {
		return "", "", c.refusal(resp, body)
	}
	var config struct {
		Issuer        string `json:"issuer"`
		TokenEndpoint string `json:"token_endpoint"`
	}
	if json.Unmarshal(body, &config) != nil {
		return "", "", newError(Malformed, CodeMalformed)
	}
	id = tenantOf(config.Issuer)
	if id == "" || id != tenantOf(config.TokenEndpoint) {
		return "", "", newError(Malformed, CodeMalformed)
	}
	if named, known := cloudOf(config.TokenEndpoint); known {
		return id, named, nil
	}
	return id, cloud, nil
}

// ConsentURL is where an administrator of the tenant consents to the app.
// Source: Microsoft Entra, "Grant tenant-wide admin consent to an application".
func (c *Client) ConsentURL(app Registration, tenantID string) string {
	return c.url(app.Cloud, tenantID, "/adminconsent?client_id="+url.QueryEscape(app.ClientID))
}

// Identify returns the federation with the issuer and the subject that its assertions carry. Errors
// are those of the [AssertionSource].
func (c *Client) Identify(ctx context.Context, f Federation) (Federation, error) {
	assertion, err := c.assertions.Assertion(ctx, f.Audience)
	if err != nil {
		return f, err
	}
	var claims jwt.RegisteredClaims
	// There is no need to verify it: it has just been issued, and Entra verifies it.
	if _, _, err := jwt.NewParser().ParseUnverified(assertion.Reveal(), &claims); err != nil {
		return f, newError(Malformed, CodeMalformed)
	}
	f.Issuer, f.Subject = claims.Issuer, claims.Subject
	return f, nil
}

func (c *Client) url(cloud Cloud, tenant, path string) string {
	authority := c.authority
	if authority == "" {
		authority = authorities[cloud]
	}
	return authority + "/" + url.PathEscape(tenant) + path
}
