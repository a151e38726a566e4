package secretstoretest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sm "github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"entra-connector/internal/secretstore/secretstoretest"
)

// clock is a time that only the test moves.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 11, 23, 1, 30, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// check checks the outcome of a call.
func check(t *testing.T, when string, err error, want string) {
	t.Helper()
	if got := outcome(err); got != want {
		t.Errorf("%s: %v, want %s", when, err, want)
	}
}

// post sends a request without the SDK.
func post(ctx context.Context, s *secretstoretest.Server, op, body string, change func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", "secretsmanager."+op)
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261123/us-east-1/secretsmanager/aws4_request, SignedHeaders=host, Signature=00")
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// TestProtocol sends what the SDK never would.
func TestProtocol(t *testing.T) {
	s := secretstoretest.Start(t, secretstoretest.Options{})
	s.Put("a", "v1", "")
	const a = `{"SecretId":"a"}`
	for name, x := range map[string]struct {
		op     string
		body   string
		want   string
		says   string
		change func(*http.Request)
	}{
		"as it should be":  {"GetSecretValue", a, "", "v1", nil},
		"unsigned":         {"GetSecretValue", a, "MissingAuthenticationTokenException", "", func(r *http.Request) { r.Header.Del("Authorization") }},
		"other method":     {"GetSecretValue", a, "UnknownOperationException", "", func(r *http.Request) { r.Method = http.MethodPut }},
		"other path":       {"GetSecretValue", a, "UnknownOperationException", "", func(r *http.Request) { r.URL.Path = "/x" }},
		"other type":       {"GetSecretValue", a, "UnknownOperationException", "", func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }},
		"other service":    {"GetSecretValue", a, "UnknownOperationException", "", func(r *http.Request) { r.Header.Set("X-Amz-Target", "kms.Decrypt") }},
		"other operation":  {"RotateSecret", a, "InvalidAction", "RotateSecret", nil},
		"other parameter":  {"GetSecretValue", `{"SecretId":"a","VersionId":"x"}`, "InvalidParameterException", "VersionId", nil},
		"other order":      {"ListSecrets", `{"SortBy":"last-changed-date"}`, "ValidationException", "last-changed-date", nil},
		"other direction":  {"ListSecrets", `{"SortOrder":"desc"}`, "ValidationException", "desc", nil},
		"other filter":     {"ListSecrets", `{"Filters":[{"Key":"tag-key","Values":["k"]}]}`, "ValidationException", "tag-key", nil},
		"negated filter":   {"ListSecrets", `{"Filters":[{"Key":"name","Values":["!a"]}]}`, "ValidationException", "pattern", nil},
		"not JSON":         {"GetSecretValue", `{"SecretId":`, "SerializationException", "", nil},
		"wrong type":       {"UpdateSecret", `{"SecretId":"a","SecretString":5}`, "SerializationException", "", nil},
		"without a token":  {"UpdateSecret", `{"SecretId":"a","SecretString":"v2"}`, "InvalidRequestException", "ClientRequestToken", nil},
		"without a secret": {"GetSecretValue", `{}`, "ValidationException", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := post(t.Context(), s, x.op, x.body, x.change)
			var reply struct {
				Type string `json:"__type"`
			}
			err := json.Unmarshal(w.Body.Bytes(), &reply)
			if err != nil || reply.Type != x.want || !strings.Contains(w.Body.String(), x.says) {
				t.Errorf("got %s, want %s about %q", w.Body, x.want, x.says)
			}
			status := http.StatusOK
			if x.want != "" {
				status = http.StatusBadRequest
			}
			if w.Code != status || w.Header().Get("Content-Type") != "application/x-amz-json-1.1" || w.Header().Get("x-amzn-RequestId") == "" {
				t.Errorf("status %d, headers %v", w.Code, w.Header())
			}
		})
	}
	if got, _ := s.Value("a"); got != "v1" {
		t.Errorf("value is %q, want v1", got)
	}
}

func TestCalls(t *testing.T) {
	s := secretstoretest.Start(t, secretstoretest.Options{})
	client := newClient(s)
	s.Put("x/a", "c4nary", "")
	d, err := client.DescribeSecret(t.Context(), &sm.DescribeSecretInput{SecretId: new("x/a")})
	check(t, "DescribeSecret", err, success)
	check(t, "UpdateSecret", call(t.Context(), client, "UpdateSecret", *d.ARN), success)
	check(t, "CreateSecret", call(t.Context(), client, "CreateSecret", "x/a"), "ResourceExistsException")
	check(t, "ListSecrets", call(t.Context(), client, "ListSecrets", ""), success)
	want := []secretstoretest.Call{
		{Op: "DescribeSecret", Secret: "x/a"},
		{Op: "UpdateSecret", Secret: "x/a", Token: true},
		{Op: "CreateSecret", Secret: "x/a", Token: true, Error: "ResourceExistsException"},
		{Op: "ListSecrets"},
	}
	if got := s.Calls(); !slices.Equal(got, want) || s.Count("UpdateSecret") != 1 {
		t.Errorf("calls %+v, %d updates, want %+v, 1 update", got, s.Count("UpdateSecret"), want)
	}
	if s.ResetCalls(); len(s.Calls()) != 0 {
		t.Errorf("calls after ResetCalls: %+v", s.Calls())
	}
}

func TestStartEndsWithTheTest(t *testing.T) {
	var s *secretstoretest.Server
	t.Run("test", func(t *testing.T) {
		s = secretstoretest.Start(t, secretstoretest.Options{})
		check(t, "before", call(t.Context(), newClient(s), "GetSecretValue", "none"), "ResourceNotFoundException")
	})
	check(t, "after the test", call(t.Context(), newClient(s), "GetSecretValue", "none"), "no answer")
	if err := s.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
}

// TestConcurrency is for the race detector.
func TestConcurrency(t *testing.T) {
	s := secretstoretest.Start(t, secretstoretest.Options{ListLag: time.Millisecond, File: t.TempDir() + "/state"})
	client := newClient(s)
	s.Put("a", "v0", "")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				for _, op := range []string{"UpdateSecret", "TagResource", "UntagResource", "GetSecretValue", "DescribeSecret", "ListSecrets"} {
					check(t, op, call(t.Context(), client, op, "a"), success)
				}
				s.Snapshot()
				s.Calls()
			}
		})
	}
	wg.Wait()
	if n := s.Count("UpdateSecret"); n != 40 {
		t.Errorf("counted %d updates, want 40", n)
	}
}

// Faults

func TestFaults(t *testing.T) {
	for name, x := range map[string]struct {
		fault  secretstoretest.Fault
		want   string
		value  string // afterwards
		status int    // by which the SDK tells what it may try again
	}{
		"error":               {secretstoretest.Fault{Error: "AccessDeniedException"}, "AccessDeniedException", "v1", 400},
		"server error":        {secretstoretest.Fault{Error: "InternalServiceError"}, "InternalServiceError", "v1", 500},
		"unavailable":         {secretstoretest.Fault{Error: "ServiceUnavailableException"}, "ServiceUnavailableException", "v1", 503},
		"drop":                {secretstoretest.Fault{Drop: true}, "no answer", "v1", 0},
		"drop after":          {secretstoretest.Fault{Drop: true, After: true}, "no answer", "v2", 0},
		"after":               {secretstoretest.Fault{After: true}, "no answer", "v2", 0},
		"error after":         {secretstoretest.Fault{Error: "InternalServiceError", After: true}, "InternalServiceError", "v2", 500},
		"broken off":          {secretstoretest.Fault{Break: true}, "HTTP 200", "v1", 200},
		"broken off after":    {secretstoretest.Fault{Break: true, After: true}, "HTTP 200", "v2", 200},
		"delay":               {secretstoretest.Fault{Delay: time.Millisecond}, success, "v2", 0},
		"delayed error":       {secretstoretest.Fault{Delay: time.Millisecond, Error: "ThrottlingException"}, "ThrottlingException", "v1", 400},
		"this operation":      {secretstoretest.Fault{Op: "UpdateSecret", Drop: true}, "no answer", "v1", 0},
		"another operation":   {secretstoretest.Fault{Op: "PutSecretValue", Drop: true}, success, "v2", 0},
		"beginning of a name": {secretstoretest.Fault{Secret: "x/", Drop: true}, "no answer", "v1", 0},
		"another name":        {secretstoretest.Fault{Secret: "a", Drop: true}, success, "v2", 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := secretstoretest.Start(t, secretstoretest.Options{})
			s.Put("x/a", "v1", "")
			s.Fail(x.fault)
			err := call(t.Context(), newClient(s), "UpdateSecret", "x/a")
			check(t, name, err, x.want)
			var response *smithyhttp.ResponseError
			if errors.As(err, &response) && response.HTTPStatusCode() != x.status {
				t.Errorf("status %d, want %d", response.HTTPStatusCode(), x.status)
			}
			if got, _ := s.Value("x/a"); got != x.value {
				t.Errorf("value %s, want %s", got, x.value)
			}
			c := s.Calls()[0]
			if c.Dropped != (x.want == "no answer" || x.want == "HTTP 200") || !c.Dropped && x.want != success && c.Error != x.want {
				t.Errorf("recorded as %+v", c)
			}
		})
	}
}

func TestFaultTimes(t *testing.T) {
	s := secretstoretest.Start(t, secretstoretest.Options{})
	s.Fail(secretstoretest.Fault{Error: "InternalServiceError", Times: 1})
	s.Fail(secretstoretest.Fault{Error: "ThrottlingException", Times: 2})
	s.Fail(secretstoretest.Fault{Error: "AccessDeniedException"})
	for _, want := range []string{"InternalServiceError", "ThrottlingException", "ThrottlingException", "AccessDeniedException", "AccessDeniedException"} {
		check(t, "list", call(t.Context(), newClient(s), "ListSecrets", ""), want)
	}
	s.ClearFaults()
	check(t, "list after ClearFaults", call(t.Context(), newClient(s), "ListSecrets", ""), success)
}

// TestLatencyAndDelay has each take its time, and together both.
func TestLatencyAndDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := secretstoretest.New(secretstoretest.Options{Latency: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		s.Fail(secretstoretest.Fault{Op: "DescribeSecret", Delay: time.Hour})
		for op, want := range map[string]time.Duration{"GetSecretValue": time.Minute, "DescribeSecret": time.Hour + time.Minute} {
			begin := time.Now()
			post(t.Context(), s, op, `{"SecretId":"a"}`, nil)
			if took := time.Since(begin); took != want {
				t.Errorf("%s took %v, want %v", op, took, want)
			}
		}
	})
}

// TestDelayEnds has a client give up on a delayed request: the server stops waiting, and nothing took effect.
func TestDelayEnds(t *testing.T) {
	s := secretstoretest.Start(t, secretstoretest.Options{})
	s.Put("a", "v1", "")
	s.Fail(secretstoretest.Fault{Delay: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	check(t, "update", call(ctx, newClient(s), "UpdateSecret", "a"), "no answer")
	for deadline := time.Now().Add(5 * time.Second); !s.Calls()[0].Dropped; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("still waiting after the client went")
		}
	}
	if got, _ := s.Value("a"); got != "v1" {
		t.Errorf("value %s, want v1", got)
	}
}

// TestBefore has another caller act to its end just before a request takes effect.
func TestBefore(t *testing.T) {
	denied := ""
	s := secretstoretest.Start(t, secretstoretest.Options{Authorize: func(_, action, _ string) bool { return action != denied }})
	client := newClient(s)
	s.Put("a", "v1", "d1")
	var seen []string
	s.Before(func(op, secret string) {
		seen = append(seen, op+" "+secret)
		switch op {
		case "UpdateSecret":
			check(t, "the other caller", call(t.Context(), client, "forced DeleteSecret", secret), success)
		case "ListSecrets":
			check(t, "the other caller", call(t.Context(), client, "CreateSecret", "b"), success)
		}
	})
	check(t, "update", call(t.Context(), client, "UpdateSecret", "a"), "ResourceNotFoundException")
	if names, _ := list(t, client, sm.ListSecretsInput{}); !slices.Equal(names, []string{"b"}) {
		t.Errorf("listed %v, want what was created before", names)
	}
	denied = "secretsmanager:UpdateSecret"
	check(t, "update without permission", call(t.Context(), client, "UpdateSecret", "b"), "AccessDeniedException")
	s.Before(nil)
	check(t, "describe", call(t.Context(), client, "DescribeSecret", "b"), success)
	if want := []string{"UpdateSecret a", "DeleteSecret a", "ListSecrets ", "CreateSecret b"}; !slices.Equal(seen, want) {
		t.Errorf("called before %q, want %q", seen, want)
	}
}

// Limits

func TestAuthorize(t *testing.T) {
	var asked []string
	allowed := true
	suffix := regexp.MustCompile(`-[A-Za-z0-9]{6}$`)
	s := secretstoretest.Start(t, secretstoretest.Options{Region: "eu-central-1", Authorize: func(accessKeyID, action, resource string) bool {
		asked = append(asked, accessKeyID+" "+action+" "+suffix.ReplaceAllString(resource, "-??????"))
		return allowed
	}})
	client := newClient(s)
	s.Put("x/a", "v1", "")
	d, err := client.DescribeSecret(t.Context(), &sm.DescribeSecretInput{SecretId: new("x/a")})
	check(t, "describe", err, success)
	const stem = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:"
	for _, x := range []struct{ op, id, resource string }{
		{"CreateSecret", "b", stem + "b-??????"},
		{"GetSecretValue", "x/a", stem + "x/a-??????"},
		{"UpdateSecret", *d.ARN, stem + "x/a-??????"},
		{"ListSecrets", "", "*"},
	} {
		asked, allowed = nil, true
		check(t, "allowed "+x.op, call(t.Context(), client, x.op, x.id), success)
		if want := []string{"AKIDEXAMPLE secretsmanager:" + x.op + " " + x.resource}; !slices.Equal(asked, want) {
			t.Errorf("asked %q, want %q", asked, want)
		}
		allowed = false
		before := s.Snapshot()
		err := call(t.Context(), client, x.op, x.id)
		want := "User: arn:aws:sts::123456789012:assumed-role/AKIDEXAMPLE/session is not authorized to perform: secretsmanager:" + x.op
		if x.id != "" {
			want += " on resource: " + x.id
		}
		want += " because no identity-based policy allows the secretsmanager:" + x.op + " action"
		if outcome(err) != "AccessDeniedException" || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v\nwant %s", err, want)
		}
		if s.Snapshot() != before {
			t.Errorf("%s took effect although it was refused:\n%s", x.op, s.Snapshot())
		}
	}
	// Tags in a CreateSecret need a permission more.
	asked, allowed = nil, true
	_, err = client.CreateSecret(t.Context(), &sm.CreateSecretInput{Name: new("tagged"), Tags: []types.Tag{{Key: new("k"), Value: new("v")}}})
	check(t, "create with tags", err, success)
	if want := []string{"AKIDEXAMPLE secretsmanager:CreateSecret " + stem + "tagged-??????", "AKIDEXAMPLE secretsmanager:TagResource " + stem + "tagged-??????"}; !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
	allowed = false
	// A caller without the permission does not learn whether a secret exists.
	check(t, "a secret that does not exist", call(t.Context(), client, "DescribeSecret", "none"), "AccessDeniedException")
}

// TestQuotas spends a second's worth of each quota, and gets it back with time.
func TestQuotas(t *testing.T) {
	c := newClock()
	quotas := maps.Clone(secretstoretest.AWSQuotas)
	quotas["GetSecretValue"] = 5
	delete(quotas, "DescribeSecret")
	s := secretstoretest.Start(t, secretstoretest.Options{Now: c.now, Quotas: quotas})
	client := newClient(s)
	throttled := func(op string) bool { return outcome(call(t.Context(), client, op, "none")) == "ThrottlingException" }
	for _, x := range []struct {
		op, other string // counted together
		rate      int
	}{
		{"UpdateSecret", "PutSecretValue", 50},
		{"TagResource", "UntagResource", 50},
		{"CreateSecret", "CreateSecret", 50},
		{"RestoreSecret", "RestoreSecret", 50},
		{"ListSecrets", "ListSecrets", 100},
		{"GetSecretValue", "GetSecretValue", 5},
	} {
		for i := range x.rate {
			if throttled(x.op) {
				t.Fatalf("%s %d is throttled", x.op, i+1)
			}
		}
		if !throttled(x.other) {
			t.Errorf("%s %d is not throttled", x.other, x.rate+1)
		}
	}
	c.advance(time.Second / 50)
	if throttled("PutSecretValue") || !throttled("UpdateSecret") {
		t.Error("after a fiftieth of a second, want one write to pass and the next to be throttled")
	}
	c.advance(time.Hour)
	passed := 0
	for passed < 100 && !throttled("UpdateSecret") {
		passed++
	}
	if passed != 50 {
		t.Errorf("%d writes at once after an hour's rest, want 50", passed)
	}
	for range 200 {
		if throttled("DescribeSecret") {
			t.Fatal("throttled without a quota")
		}
	}
}

// TestVersionQuota fills a secret up within a day. Later the old versions make room.
func TestVersionQuota(t *testing.T) {
	c := newClock()
	s := secretstoretest.Start(t, secretstoretest.Options{Now: c.now})
	client := newClient(s)
	s.Put("a", "v0", "")
	for i := range 99 {
		check(t, fmt.Sprint("update ", i), call(t.Context(), client, "UpdateSecret", "a"), success)
	}
	before := s.Snapshot()
	c.advance(24*time.Hour - time.Nanosecond)
	for _, op := range []string{"UpdateSecret", "PutSecretValue"} {
		check(t, op+" 101 within a day", call(t.Context(), client, op, "a"), "LimitExceededException")
	}
	if s.Snapshot() != before {
		t.Errorf("a refused version changed the secret:\n%s", s.Snapshot())
	}
	c.advance(time.Nanosecond)
	check(t, "version 101 a day later", call(t.Context(), client, "UpdateSecret", "a"), success)
	after := s.Snapshot()
	if !strings.HasSuffix(after, "\"v2\" [AWSPREVIOUS]\n  \"v2\" [AWSCURRENT]\n") || strings.Contains(after, "v0") {
		t.Errorf("the labelled versions did not stay, or the others did:\n%s", after)
	}
}

func TestTagLimits(t *testing.T) {
	s := secretstoretest.Start(t, secretstoretest.Options{})
	client := newClient(s)
	s.Edit("full", func(x *secretstoretest.Secret) {
		for i := range 50 {
			x.Tags[fmt.Sprint(i)] = ""
		}
	})
	s.Put("a", "v", "")
	before := s.Snapshot()
	for _, x := range []struct{ id, key, value, want string }{
		{"a", "", "v", "ValidationException"},
		{"a", strings.Repeat("é", 129), "v", "ValidationException"},
		{"a", "k", strings.Repeat("é", 257), "ValidationException"},
		{"a", "aws:k", "v", "InvalidParameterException"},
		{"a", "k", "a;b", "InvalidParameterException"},
		{"a", "k?", "v", "InvalidParameterException"},
		{"full", "50", "v", "InvalidParameterException"},
		{"full", "49", "v", success},
		{"a", strings.Repeat("é", 128), strings.Repeat("é", 256), success},
		{"a", "aZ09 _.:/=+-@", "aZ09 _.:/=+-@", success},
	} {
		tags := []types.Tag{{Key: new("1"), Value: new("")}, {Key: &x.key, Value: &x.value}}
		_, err := client.TagResource(t.Context(), &sm.TagResourceInput{SecretId: &x.id, Tags: tags})
		if outcome(err) != x.want || x.want != success && s.Snapshot() != before {
			t.Errorf("%s with tag %s=%s: %v, want %s; now\n%s", x.id, x.key, x.value, err, x.want, s.Snapshot())
		}
	}
	_, err := client.CreateSecret(t.Context(), &sm.CreateSecretInput{Name: new("b"), Tags: []types.Tag{{Key: new("k"), Value: new("?")}}})
	if _, created := s.Look("b"); outcome(err) != "InvalidParameterException" || created {
		t.Errorf("created with a tag that is not allowed: %t, %v", created, err)
	}
}

func TestRefusedUpdateWritesDescription(t *testing.T) {
	for writes, want := range map[bool]string{false: "d1", true: "d3"} {
		s := secretstoretest.Start(t, secretstoretest.Options{RefusedUpdateWritesDescription: writes})
		s.Put("a", "v1", "d1")
		a, _ := s.Look("a")
		_, err := newClient(s).UpdateSecret(t.Context(), &sm.UpdateSecretInput{
			SecretId: new("a"), ClientRequestToken: &a.Version, SecretString: new("v3"), Description: new("d3"),
		})
		check(t, "update", err, "ResourceExistsException")
		if a, _ := s.Look("a"); a.Value != "v1" || a.Description != want {
			t.Errorf("%t: %+v, want v1, %s", writes, a, want)
		}
	}
}

// Time

func TestRecoveryWindowEnds(t *testing.T) {
	c := newClock()
	s := secretstoretest.Start(t, secretstoretest.Options{Now: c.now})
	client := newClient(s)
	for name, days := range map[string]int64{"long": 8, "short": 7, "restored": 7} {
		s.Put(name, "v", "")
		_, err := client.DeleteSecret(t.Context(), &sm.DeleteSecretInput{SecretId: &name, RecoveryWindowInDays: &days})
		check(t, "delete "+name, err, success)
	}
	check(t, "restore", call(t.Context(), client, "RestoreSecret", "restored"), success)
	for _, x := range []struct {
		after       time.Duration
		short, long string
	}{
		{7*24*time.Hour - time.Nanosecond, success, success},
		{time.Nanosecond, "ResourceNotFoundException", success},
		{24 * time.Hour, "ResourceNotFoundException", "ResourceNotFoundException"},
	} {
		c.advance(x.after)
		check(t, "short", call(t.Context(), client, "DescribeSecret", "short"), x.short)
		check(t, "long", call(t.Context(), client, "DescribeSecret", "long"), x.long)
		check(t, "restored", call(t.Context(), client, "GetSecretValue", "restored"), success)
	}
}

// TestListLag follows one secret through its life. Each stage is listed five minutes late, to the nanosecond. A reader by
// name sees it at once, with the time of the last edit.
func TestListLag(t *testing.T) {
	const lag = 5 * time.Minute
	c := newClock()
	s := secretstoretest.Start(t, secretstoretest.Options{Now: c.now, ListLag: lag})
	client := newClient(s)
	show := func(name, description *string, deleted *time.Time) string {
		return fmt.Sprintf("%s=%s pending=%t", *name, aws.ToString(description), deleted != nil)
	}
	listed := func() (all string) {
		t.Helper()
		page, err := client.ListSecrets(t.Context(), &sm.ListSecretsInput{IncludePlannedDeletion: new(true)})
		check(t, "list", err, success)
		for _, e := range page.SecretList {
			all += show(e.Name, e.Description, e.DeletedDate)
		}
		return all
	}
	before, written := "", time.Time{}
	for _, x := range []struct{ op, then string }{
		{"CreateSecret", "a= pending=false"},
		{"UpdateSecret", "a=d2 pending=false"},
		{"TagResource", "a=d2 pending=false"},
		{"DeleteSecret", "a=d2 pending=true"},
		{"RestoreSecret", "a=d2 pending=false"},
		{"UntagResource", "a=d2 pending=false"},
		{"forced DeleteSecret", ""},
		{"CreateSecret", "a= pending=false"},
		{"PutSecretValue", "a= pending=false"},
	} {
		check(t, x.op, call(t.Context(), client, x.op, "a"), success)
		if x.then != "" {
			d, err := client.DescribeSecret(t.Context(), &sm.DescribeSecretInput{SecretId: new("a")})
			if err != nil || show(d.Name, d.Description, d.DeletedDate) != x.then || !d.LastChangedDate.Equal(c.now()) {
				t.Errorf("%s: described as %+v; %v", x.op, d, err)
			}
		}
		if strings.HasSuffix(x.op, "CreateSecret") || x.op == "UpdateSecret" || x.op == "PutSecretValue" {
			written = c.now()
		}
		if v, err := client.GetSecretValue(t.Context(), &sm.GetSecretValueInput{SecretId: new("a")}); err == nil && !v.CreatedDate.Equal(written) {
			t.Errorf("%s: the version is of %v, want %v", x.op, v.CreatedDate, written)
		}
		for _, wait := range []time.Duration{0, lag - time.Nanosecond} {
			if c.advance(wait); listed() != before {
				t.Errorf("%v after %s, listed %s, want %s", wait, x.op, listed(), before)
			}
		}
		if c.advance(time.Nanosecond); listed() != x.then {
			t.Errorf("%v after %s, listed %s, want %s", lag, x.op, listed(), x.then)
		}
		before = x.then
	}
	// Several changes within the lag are shown in turn.
	for i := range 20 {
		s.Put("a", "v", fmt.Sprint(i))
		if want := fmt.Sprintf("a=%d pending=false", i-10); i >= 10 && listed() != want {
			t.Errorf("change %d: listed %s, want %s", i, listed(), want)
		}
		c.advance(lag / 10)
	}
}

// Lists

// list lists page by page and returns the names in order, and how many each page had.
func list(t *testing.T, client *sm.Client, in sm.ListSecretsInput) (names []string, sizes string) {
	t.Helper()
	for {
		page, err := client.ListSecrets(t.Context(), &in)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.SecretList {
			names = append(names, *e.Name)
		}
		sizes = strings.TrimSpace(fmt.Sprint(sizes, " ", len(page.SecretList)))
		if in.NextToken = page.NextToken; in.NextToken == nil {
			return names, sizes
		}
	}
}

func TestPages(t *testing.T) {
	s := secretstoretest.Start(t, secretstoretest.Options{})
	client := newClient(s)
	var created []string
	for i := range 250 {
		created = append(created, fmt.Sprintf("%03d", 999-i))
		s.Put(created[i], "v", "")
	}
	if names, sizes := list(t, client, sm.ListSecretsInput{}); !slices.Equal(names, created) || sizes != "100 100 50" {
		t.Errorf("listed %v in pages of %s, want the order of creation", names, sizes)
	}
	if names, sizes := list(t, client, sm.ListSecretsInput{SortBy: "name", MaxResults: new(int32(50))}); !slices.IsSorted(names) || sizes != "50 50 50 50 50" {
		t.Errorf("listed %v in pages of %s, want the order of names, and no promise of a page more", names, sizes)
	}
	first, err := client.ListSecrets(t.Context(), &sm.ListSecretsInput{MaxResults: new(int32(1))})
	check(t, "list", err, success)
	_, err = client.ListSecrets(t.Context(), &sm.ListSecretsInput{NextToken: first.NextToken, Filters: beginning("9")})
	check(t, "NextToken of another list", err, "InvalidNextTokenException")
}

// TestPagesWhileChanging removes and adds secrets between two pages. Each of the others comes once.
func TestPagesWhileChanging(t *testing.T) {
	for _, by := range []types.SortByType{"", "name"} {
		s := secretstoretest.Start(t, secretstoretest.Options{})
		client := newClient(s)
		for i := range 10 {
			s.Put(fmt.Sprint("s", i), "v", "")
		}
		in := sm.ListSecretsInput{SortBy: by, MaxResults: new(int32(5))}
		first, err := client.ListSecrets(t.Context(), &in)
		check(t, "list", err, success)
		for _, name := range []string{"s0", "s4", "s5"} {
			check(t, "delete", call(t.Context(), client, "forced DeleteSecret", name), success)
		}
		s.Put("z", "v", "")
		in.NextToken = first.NextToken
		names, _ := list(t, client, in)
		if want := []string{"s6", "s7", "s8", "s9", "z"}; !slices.Equal(names, want) {
			t.Errorf("second page by %q: %v, want %v", by, names, want)
		}
	}
}

// TestSparsePages has a filter that leaves out thousands: AWS may then send short and even empty pages.
func TestSparsePages(t *testing.T) {
	s := secretstoretest.Start(t, secretstoretest.Options{})
	s.Put("wanted-0", "v", "")
	for i := range 11000 {
		s.Put(fmt.Sprint("other-", i), "v", "")
	}
	s.Put("wanted-1", "v", "")
	names, sizes := list(t, newClient(s), sm.ListSecretsInput{Filters: beginning("wanted")})
	if got := fmt.Sprint(names, sizes); got != "[wanted-0 wanted-1]1 0 1" {
		t.Errorf("got %s", got)
	}
}

// State

func TestSeedAndInspect(t *testing.T) {
	s := secretstoretest.Start(t, secretstoretest.Options{})
	for i := range 150 { // no quota applies
		s.Put("b", fmt.Sprint("v", i), fmt.Sprint("d", i))
	}
	s.Put("a", "v1", "")
	check(t, "tag", call(t.Context(), newClient(s), "TagResource", "a"), success)
	value, _ := s.Value("b")
	description, _ := s.Description("b")
	if got := fmt.Sprint(value, description, s.Names()); got != "v149d149[a b]" {
		t.Errorf("got %s", got)
	}
	a, _ := s.Look("a")
	if want := (secretstoretest.Secret{Version: a.Version, Value: "v1", Versions: []string{a.Version}, Tags: map[string]string{"k": "v"}}); a.Version == "" || !reflect.DeepEqual(a, want) {
		t.Errorf("Look: %+v, want %+v", a, want)
	}
	want := `a
  description ""
  tags map["k":"v"]
  deletion pending false
  "v1" [AWSCURRENT]
b
  description "d149"
  tags map[]
  deletion pending false
`
	got := s.Snapshot()
	if !strings.HasPrefix(got, want) || !strings.HasSuffix(got, "  \"v148\" [AWSPREVIOUS]\n  \"v149\" [AWSCURRENT]\n") {
		t.Errorf("snapshot:\n%swant:\n%s...", got, want)
	}
	check(t, "delete", call(t.Context(), newClient(s), "DeleteSecret", "a"), success)
	_, valued := s.Value("a")
	_, described := s.Description("a")
	if a, _ := s.Look("a"); !a.Pending || valued || described || len(s.Names()) != 1 || !strings.Contains(s.Snapshot(), "deletion pending true") {
		t.Errorf("a secret whose deletion is pending looks like a live one:\n%s", s.Snapshot())
	}
	if s.Put("a", "v2", ""); len(s.Names()) != 2 || len(s.Calls()) != 2 {
		t.Errorf("after seeding anew: %v; recorded %v", s.Names(), s.Calls())
	}
}

// TestEdit has people and other tools do their things to a secret.
func TestEdit(t *testing.T) {
	writes := []string{"UpdateSecret", "PutSecretValue", "TagResource", "UntagResource", "RestoreSecret", "DeleteSecret", "forced DeleteSecret"}
	for name, x := range map[string]struct {
		edit    func(*secretstoretest.Secret)
		shows   string
		refused []string
		with    string
	}{
		"replicated": {func(x *secretstoretest.Secret) { x.Replicas = []string{"us-west-2", "eu-west-1"} },
			"[us-west-2 eu-west-1]", []string{"DeleteSecret", "forced DeleteSecret"}, "InvalidParameterException"},
		"replica": {func(x *secretstoretest.Secret) { x.PrimaryRegion = "us-west-2" },
			"[]us-west-2", writes, "InvalidParameterException"},
		"managed": {func(x *secretstoretest.Secret) { x.OwningService = "rds" },
			"[]rds", []string{"UpdateSecret", "PutSecretValue", "forced DeleteSecret"}, "InvalidRequestException"},
		"tagged": {func(x *secretstoretest.Secret) { x.Tags["k"] = "v" }, "[]k=v", nil, ""},
	} {
		s := secretstoretest.Start(t, secretstoretest.Options{})
		client := newClient(s)
		s.Put("a", "v1", "d1")
		s.Edit("a", x.edit)
		d, err := client.DescribeSecret(t.Context(), &sm.DescribeSecretInput{SecretId: new("a")})
		check(t, "describe", err, success)
		page, err := client.ListSecrets(t.Context(), &sm.ListSecretsInput{})
		check(t, "list", err, success)
		var regions []string
		for _, r := range d.ReplicationStatus {
			regions = append(regions, *r.Region)
		}
		show := func(primary, owner *string, tags []types.Tag) (s string) {
			for _, tag := range tags {
				s += *tag.Key + "=" + *tag.Value
			}
			return fmt.Sprint(regions, aws.ToString(primary), aws.ToString(owner), s)
		}
		listed := page.SecretList[0]
		for _, got := range []string{show(d.PrimaryRegion, d.OwningService, d.Tags), show(listed.PrimaryRegion, listed.OwningService, listed.Tags)} {
			if got != x.shows {
				t.Errorf("%s shows as %s, want %s", name, got, x.shows)
			}
		}
		check(t, name+": GetSecretValue", call(t.Context(), client, "GetSecretValue", "a"), success)
		for _, op := range writes {
			want := success
			if slices.Contains(x.refused, op) {
				want = x.with
			}
			check(t, name+": "+op, call(t.Context(), client, op, "a"), want)
		}
	}

	s := secretstoretest.Start(t, secretstoretest.Options{})
	client := newClient(s)
	s.Edit("a", func(*secretstoretest.Secret) {})
	check(t, "a secret without a version", call(t.Context(), client, "GetSecretValue", "a"), "ResourceNotFoundException")
	s.Edit("a", func(x *secretstoretest.Secret) { x.Value = "v1" })
	check(t, "write", call(t.Context(), client, "UpdateSecret", "a"), success)
	s.Edit("a", func(x *secretstoretest.Secret) { x.Version = x.Versions[0] })
	if got := s.Snapshot(); !strings.HasSuffix(got, "\"v1\" [AWSCURRENT]\n  \"v2\" [AWSPREVIOUS]\n") {
		t.Errorf("AWSCURRENT was not moved back:\n%s", got)
	}
	s.Edit("a", func(x *secretstoretest.Secret) { x.Pending = true })
	check(t, "a secret that is being deleted", call(t.Context(), client, "GetSecretValue", "a"), "InvalidRequestException")
	s.Edit("a", func(x *secretstoretest.Secret) { x.Pending = false })
	check(t, "a secret that was restored", call(t.Context(), client, "GetSecretValue", "a"), success)

	// AWS may hold on to a name for a while after a forced deletion. A fault does the same.
	check(t, "delete", call(t.Context(), client, "forced DeleteSecret", "a"), success)
	s.Fail(secretstoretest.Fault{Op: "CreateSecret", Secret: "a", Error: "InvalidRequestException", Times: 1})
	check(t, "describe", call(t.Context(), client, "DescribeSecret", "a"), "ResourceNotFoundException")
	check(t, "create", call(t.Context(), client, "CreateSecret", "a"), "InvalidRequestException")
	check(t, "create later", call(t.Context(), client, "CreateSecret", "a"), success)
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "new", "state.json")
	c := newClock()
	o := secretstoretest.Options{File: file, Now: c.now, ListLag: 5 * time.Minute}
	s := secretstoretest.Start(t, o)
	client := newClient(s)
	if _, err := os.Stat(file); err == nil {
		t.Error("saved before there was anything to save")
	}
	for _, op := range []string{"CreateSecret", "TagResource", "UpdateSecret"} {
		check(t, op, call(t.Context(), client, op, "a"), success)
	}
	created, err := client.DescribeSecret(t.Context(), &sm.DescribeSecretInput{SecretId: new("a")})
	check(t, "describe", err, success)
	s.Put("seeded", "v", "")
	s.Put("deleted", "v", "")
	check(t, "delete", call(t.Context(), client, "DeleteSecret", "deleted"), success)
	s.Put("gone", "v", "")
	check(t, "delete", call(t.Context(), client, "forced DeleteSecret", "gone"), success)

	mode := func() fs.FileMode {
		info, err := os.Stat(file)
		check(t, "stat", err, success)
		return info.Mode().Perm()
	}
	if left, _ := os.ReadDir(filepath.Dir(file)); mode() != 0o600 || len(left) != 1 {
		t.Errorf("mode %o, want 600; files %v, want one", mode(), left)
	}

	// Without a Close: what was answered is saved, however the program ends.
	again := secretstoretest.Start(t, o)
	if got, want := again.Snapshot(), s.Snapshot(); got != want {
		t.Errorf("loaded:\n%swant:\n%s", got, want)
	}
	loaded, err := newClient(again).DescribeSecret(t.Context(), &sm.DescribeSecretInput{SecretId: created.ARN})
	if err != nil || *loaded.ARN != *created.ARN || !loaded.CreatedDate.Equal(c.now()) || fmt.Sprint(loaded.VersionIdsToStages) != fmt.Sprint(created.VersionIdsToStages) {
		t.Errorf("loaded %+v, want %+v; %v", loaded, created, err)
	}
	if names, _ := list(t, newClient(again), sm.ListSecretsInput{}); !slices.Equal(names, []string{"a", "seeded"}) {
		t.Errorf("listed %v of what was loaded", names)
	}
	c.advance(30 * 24 * time.Hour)
	if strings.Contains(again.Snapshot(), "deleted\n") {
		t.Error("a recovery window does not outlast the program")
	}

	// A file that others may read, and one that is none.
	for content, want := range map[string]string{"[]": success, `[{"Name":"c4nary"`: file + " is not a file of the stand-in"} {
		check(t, "write", errors.Join(os.WriteFile(file, []byte(content), 0o600), os.Chmod(file, 0o644)), success)
		s, err := secretstoretest.New(secretstoretest.Options{File: file})
		switch {
		case want != success && (err == nil || strings.Contains(err.Error(), "c4nary") || !strings.Contains(err.Error(), want)):
			t.Errorf("loading a file that holds %s: %v", content, err)
		case want == success && err != nil:
			t.Error(err)
		case want == success:
			if s.Put("a", "v", ""); mode() != 0o600 {
				t.Errorf("mode %o, want 600", mode())
			}
		}
	}

	// A file that cannot be written, since a directory is in the way.
	unwritable := secretstoretest.Start(t, secretstoretest.Options{File: filepath.Join(dir, "other")})
	if err := os.MkdirAll(filepath.Join(dir, "other", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	check(t, "creation that could not be saved", call(t.Context(), newClient(unwritable), "CreateSecret", "a"), "InternalServiceError")
	if left, _ := os.ReadDir(dir); unwritable.Close() == nil || len(left) != 2 {
		t.Errorf("Close does not tell, or files are left over: %v", left)
	}
}
