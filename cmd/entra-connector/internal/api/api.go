// Package api calls the connector's HTTP API and signs what it sends.
package api

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"
)

// timeout is longer than API Gateway's, which is 30 s.
const timeout = 40 * time.Second

// Client calls the API. Its methods may be called concurrently.
type Client struct {
	base      *url.URL
	userAgent string
	http      *http.Client
	aws       func() (aws.Config, error) // nil where nothing is signed
}

// New returns a client for the API at a URL, which may have a base path. What goes over https is
// signed with the credentials that the AWS SDK finds. Plain http is for loopback addresses, and
// never signed: there is nobody to check the signature, and credentials have no business there. At
// most parallel connections to the API stay open between calls.
func New(rawURL, userAgent string, parallel int) (*Client, error) {
	base, err := url.Parse(strings.TrimRight(rawURL, "/"))
	if err != nil || base.Host == "" || base.User != nil || base.RawQuery != "" || base.Fragment != "" {
		return nil, errors.New("the API's URL must look like https://abc123.execute-api.eu-west-1.amazonaws.com")
	}
	if base.Scheme != "https" && !Loopback(base) {
		return nil, errors.New("the API's URL must be https; plain http is for an API on this machine")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = parallel
	c := &Client{base: base, userAgent: userAgent, http: &http.Client{
		Timeout: timeout, Transport: transport,
		// A redirect would carry a client secret to somebody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if base.Scheme == "https" {
		c.aws = sync.OnceValues(func() (aws.Config, error) { return AWS(context.Background()) })
	}
	return c, nil
}

// Loopback reports whether a URL is plain http to this machine.
func Loopback(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())
}

// AWS is the configuration that the SDK finds, with credentials. Its error does not quote the SDK,
// which may quote what a program for credentials printed.
func AWS(ctx context.Context, options ...func(*config.LoadOptions) error) (aws.Config, error) {
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if profile := (config.SharedConfigProfileNotExistError{}); errors.As(err, &profile) {
		return cfg, fmt.Errorf("there is no AWS profile %q: check AWS_PROFILE", profile.Profile)
	}
	if err == nil {
		_, err = cfg.Credentials.Retrieve(ctx)
	}
	if err != nil {
		return cfg, errNoCredentials
	}
	return cfg, nil
}

var errNoCredentials = errors.New("there are no AWS credentials, or they have expired: set AWS_PROFILE or log in, as with " +
	"`aws sso login`; `aws sts get-caller-identity` shows whether that worked")

// ErrNoRegion says what to do about a Region that the SDK does not find.
var ErrNoRegion = errors.New("the AWS Region is not known: set AWS_REGION")

// Call sends a body as JSON, unless it is nil, and decodes the answer into what answer points to,
// unless that is nil. It returns the status. The error is an [*Error] where the API refused or did
// not answer. Another error, such as of credentials, is one of every call.
func (c *Client) Call(ctx context.Context, method, path string, query url.Values, body, answer any) (int, error) {
	var sent []byte
	if body != nil {
		var err error
		if sent, err = json.Marshal(body); err != nil {
			return 0, err
		}
	}
	target := c.base.JoinPath(path)
	target.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, target.String(), bytes.NewReader(sent))
	if err != nil {
		return 0, err
	}
	req.Header.Set("User-Agent", c.userAgent)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.aws != nil {
		if err := c.sign(ctx, req, sent); err != nil {
			return 0, err
		}
	}
	res, err := c.http.Do(req)
	var received []byte
	if err == nil {
		defer res.Body.Close()
		received, err = io.ReadAll(res.Body)
	}
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case err != nil:
		return 0, &Error{Title: "Unreachable", Detail: "The API did not answer: " + err.Error(), Action: "Check the URL and the network, and try again."}
	case res.StatusCode < 200 || res.StatusCode > 299:
		return res.StatusCode, refusal(res, received)
	case answer != nil && res.StatusCode != http.StatusNoContent && json.Unmarshal(received, answer) != nil:
		return res.StatusCode, errors.New("the answer is not the API's: check the URL")
	}
	return res.StatusCode, nil
}

var regionPattern = regexp.MustCompile(`\.execute-api\.([a-z0-9-]+)\.amazonaws\.com`)

// sign signs a request with Signature Version 4, which also sorts the query.
func (c *Client) sign(ctx context.Context, req *http.Request, body []byte) error {
	cfg, err := c.aws()
	if err != nil {
		return err
	}
	credentials, err := cfg.Credentials.Retrieve(ctx) // again, as they expire
	if err != nil {
		return cmp.Or(ctx.Err(), errNoCredentials)
	}
	region := cfg.Region
	if m := regionPattern.FindStringSubmatch(c.base.Host); m != nil {
		region = m[1]
	}
	if region == "" {
		return ErrNoRegion
	}
	hash := sha256.Sum256(body)
	return v4.NewSigner().SignHTTP(ctx, credentials, req, hex.EncodeToString(hash[:]), "execute-api", region, time.Now())
}

// Connections lists the connections of an app, or of all apps where it is empty. It tells progress
// how many there are so far.
func (c *Client) Connections(ctx context.Context, app string, progress func(int)) ([]Connection, error) {
	all, query := []Connection{}, url.Values{}
	if app != "" {
		query.Set("app", app)
	}
	for {
		var page struct {
			Connections []Connection `json:"connections"`
			Next        string       `json:"next"`
		}
		if _, err := c.Call(ctx, "GET", "/connections", query, nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Connections...)
		if page.Next == "" {
			return all, nil
		}
		progress(len(all))
		query.Set("cursor", page.Next)
	}
}

// Apps lists the apps.
func (c *Client) Apps(ctx context.Context) ([]App, error) {
	var answer struct {
		Apps []App `json:"apps"`
	}
	_, err := c.Call(ctx, "GET", "/apps", nil, nil, &answer)
	return append([]App{}, answer.Apps...), err
}

// Error is an answer that is no success, of the API or of API Gateway in front of it, or none at
// all. As JSON it is a problem document (RFC 9457), which names the request as well.
type Error struct {
	Type   string `json:"type,omitempty"` // of the API's own answers
	Title  string `json:"title"`
	Status int    `json:"status,omitempty"` // 0 where nobody answered
	Detail string `json:"detail"`
	Errors []struct {
		Field  string `json:"field"`
		Detail string `json:"detail"`
	} `json:"errors,omitempty"`
	Code          string        `json:"code,omitempty"`
	Action        string        `json:"action,omitempty"`
	ConsentURL    string        `json:"consent_url,omitempty"`
	TraceID       string        `json:"trace_id,omitempty"`
	CorrelationID string        `json:"correlation_id,omitempty"`
	RequestID     string        `json:"request_id,omitempty"` // as API Gateway logs it
	RetryAfter    time.Duration `json:"-"`
}

func (e *Error) Error() string {
	if len(e.Errors) > 0 { // the detail only points to them
		return e.Title
	}
	return cmp.Or(e.Detail, e.Title)
}

// Passes reports whether the same call may work later.
func (e *Error) Passes() bool { return e.Status == 0 || e.Status == 429 || e.Status >= 500 }

func refusal(res *http.Response, body []byte) *Error {
	e := new(Error)
	seconds, _ := strconv.Atoi(res.Header.Get("Retry-After")) // 0 where there is none
	if json.Unmarshal(body, e) != nil || e.Type == "" {
		e = ofGateway(res.StatusCode, body)
	}
	e.Status, e.RetryAfter, e.RequestID = res.StatusCode, time.Duration(max(seconds, 0))*time.Second, res.Header.Get("Apigw-Requestid")
	return e
}

// ofGateway explains an answer that is not the API's.
func ofGateway(status int, body []byte) *Error {
	var gateway struct{ Message string }
	_ = json.Unmarshal(body, &gateway) // anything else is a page of somebody else's, which says nothing here
	e := &Error{Title: http.StatusText(status), Status: status, Action: "Check the URL: it is the stack's output ApiUrl."}
	e.Detail = fmt.Sprintf("The API answered %d %s.", status, cmp.Or(gateway.Message, e.Title))
	if status == 401 || status == 403 {
		e.Action = "Attach the policy of the stack's output OperatorPolicyArn to who `aws sts get-caller-identity` says you are, " +
			"and check the URL, the Region and this machine's clock."
	} else if e.Passes() {
		e.Action = "Try again. If it lasts, look for the request in the log of the API's function."
	}
	return e
}
