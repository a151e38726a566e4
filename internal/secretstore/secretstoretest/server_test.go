package secretstoretest_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sm "github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"entra-connector/internal/secretstore/secretstoretest"
)

// standIn is a stand-in and the SDK's client of it. Only the test moves its time.
type standIn struct {
	contract
	*secretstoretest.Server
	passed atomic.Int64
}

func start(t *testing.T, o secretstoretest.Options) *standIn {
	s := new(standIn)
	o.Now = s.now
	s.Server = secretstoretest.Start(t, o)
	s.contract = contract{T: t, Client: clientOf(s.URL(), 1)}
	return s
}

func (s *standIn) now() time.Time {
	return time.Date(2026, 11, 23, 1, 30, 0, 500_000_000, time.UTC).Add(time.Duration(s.passed.Load()))
}

func (s *standIn) advance(d time.Duration) { s.passed.Add(int64(d)) }

// do makes a call whose outcome is to be as wanted.
func (s *standIn) do(op, id, want string) {
	s.Helper()
	s.expect(op+" "+id, want, call(s.Context(), s.Client, op, id))
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
	s := start(t, secretstoretest.Options{})
	s.Put("a", "v1", "")
	const a = `{"SecretId":"a"}`
	for name, x := range map[string]struct {
		op, body string
		want     string
		says     string
		change   func(*http.Request)
	}{
		"as it should be":  {"GetSecretValue", a, "", "v1", nil},
		"unsigned":         {"GetSecretValue", a, "MissingAuthenticationTokenException", "", func(r *http.Request) { r.Header.Del("Authorization") }},
		"other service":    {"GetSecretValue", a, "InvalidAction", "kms.Decrypt", func(r *http.Request) { r.Header.Set("X-Amz-Target", "kms.Decrypt") }},
		"other operation":  {"RotateSecret", a, "InvalidAction", "RotateSecret", nil},
		"other parameter":  {"GetSecretValue", `{"SecretId":"a","VersionId":"x"}`, "InvalidParameterException", "VersionId", nil},
		"other order":      {"ListSecrets", `{"SortBy":"last-changed-date"}`, "ValidationException", "last-changed-date", nil},
		"other direction":  {"ListSecrets", `{"SortOrder":"desc"}`, "ValidationException", "desc", nil},
		"other filter":     {"ListSecrets", `{"Filters":[{"Key":"tag-key","Values":["k"]}]}`, "ValidationException", "tag-key", nil},
		"negated filter":   {"ListSecrets", `{"Filters":[{"Key":"name","Values":["!a"]}]}`, "ValidationException", "pattern", nil},
		"not JSON":         {"GetSecretValue", `{"SecretId":`, "SerializationException", "", nil},
		"wrong type":       {"UpdateSecret", `{"SecretId":"a","SecretString":5}`, "SerializationException", "", nil},
		"without a value":  {"PutSecretValue", a, "InvalidRequestException", "SecretString", nil},
		"without a token":  {"UpdateSecret", `{"SecretId":"a","SecretString":"v2"}`, "InvalidRequestException", "ClientRequestToken", nil},
		"without a secret": {"GetSecretValue", `{}`, "ValidationException", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := post(t.Context(), s.Server, x.op, x.body, x.change)
			body := w.Body.String()
			if !strings.Contains(body, x.says) || x.want != "" && !strings.Contains(body, `"__type":"`+x.want+`"`) {
				t.Errorf("got %s, want %s about %q", body, x.want, x.says)
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
	if a, _ := s.Look("a"); a.Value != "v1" || len(a.Versions) != 1 {
		t.Errorf("a refused request changed the secret: %+v", a)
	}
}

func TestStartEndsWithTheTest(t *testing.T) {
	var s *secretstoretest.Server
	t.Run("test", func(t *testing.T) {
		s = secretstoretest.Start(t, secretstoretest.Options{})
		s.Fail(secretstoretest.Fault{Times: 1, Delay: time.Hour}) // which nobody waits for
		go func() { _ = call(context.Background(), clientOf(s.URL(), 1), "ListSecrets", "") }()
		for s.Count("ListSecrets") == 0 {
			time.Sleep(time.Millisecond)
		}
	})
	if err := call(t.Context(), clientOf(s.URL(), 1), "ListSecrets", ""); outcome(err) != "no answer" {
		t.Errorf("after the test: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("closed again: %v", err)
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
			s := start(t, secretstoretest.Options{})
			s.Put("x/a", "v1", "")
			arn := *s.describe("x/a").ARN
			s.ResetCalls()
			s.Fail(x.fault)
			err := call(t.Context(), s.Client, "UpdateSecret", arn)
			value, _ := s.Value("x/a")
			if outcome(err) != x.want || value != x.value {
				t.Errorf("%v, and value %s; want %s, %s", err, value, x.want, x.value)
			}
			var response *smithyhttp.ResponseError
			if errors.As(err, &response) && response.HTTPStatusCode() != x.status {
				t.Errorf("status %d, want %d", response.HTTPStatusCode(), x.status)
			}
			c, dropped := s.Calls()[0], x.want == "no answer" || x.want == "HTTP 200"
			if c.Op != "UpdateSecret" || c.Secret != "x/a" || c.Dropped != dropped || !dropped && x.want != success && c.Error != x.want {
				t.Errorf("recorded as %+v", c)
			}
		})
	}
}

func TestFaultTimes(t *testing.T) {
	s := start(t, secretstoretest.Options{})
	s.Fail(secretstoretest.Fault{Error: "InternalServiceError", Times: 1})
	s.Fail(secretstoretest.Fault{Error: "ThrottlingException", Times: 2})
	s.Fail(secretstoretest.Fault{Error: "AccessDeniedException"})
	for _, want := range []string{"InternalServiceError", "ThrottlingException", "ThrottlingException", "AccessDeniedException", "AccessDeniedException"} {
		s.do("ListSecrets", "", want)
	}
	s.ClearFaults()
	s.do("ListSecrets", "", success)
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

// TestDelayEnds has a client give up on a delayed request: the server stops waiting, and nothing
// takes effect.
func TestDelayEnds(t *testing.T) {
	s := start(t, secretstoretest.Options{})
	s.Put("a", "v1", "")
	s.Fail(secretstoretest.Fault{Delay: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_ = call(ctx, s.Client, "UpdateSecret", "a")
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
	s := start(t, secretstoretest.Options{Authorize: func(_, action, _ string) bool { return action != denied }})
	s.Put("a", "v1", "d1")
	var seen []string
	s.Before(func(op, secret string) {
		seen = append(seen, op+" "+secret)
		switch op {
		case "UpdateSecret":
			s.do("forced DeleteSecret", secret, success)
		case "ListSecrets":
			s.do("CreateSecret", "b", success)
		}
	})
	s.do("UpdateSecret", "a", "ResourceNotFoundException")
	if names, _ := list(t, s.Client, sm.ListSecretsInput{}); !slices.Equal(names, []string{"b"}) {
		t.Errorf("listed %v, want what was created before", names)
	}
	denied = "secretsmanager:UpdateSecret"
	s.do("UpdateSecret", "b", "AccessDeniedException")
	s.Before(nil)
	s.do("DescribeSecret", "b", success)
	if want := []string{"UpdateSecret a", "DeleteSecret a", "ListSecrets ", "CreateSecret b"}; !slices.Equal(seen, want) {
		t.Errorf("called before %q, want %q", seen, want)
	}
}

// Permissions and limits

func TestAuthorize(t *testing.T) {
	var asked []string
	denied, arn := "", "none"
	suffix := regexp.MustCompile(`-[A-Za-z0-9]{6}$`)
	s := start(t, secretstoretest.Options{Region: "eu-central-1", Authorize: func(accessKeyID, action, resource string) bool {
		asked = append(asked, accessKeyID+" "+action+" "+suffix.ReplaceAllString(strings.Replace(resource, arn, "ARN", 1), "-??????"))
		return action != denied
	}})
	s.Put("x/a", "v1", "")
	arn = *s.describe("x/a").ARN
	const stem = " arn:aws:secretsmanager:eu-central-1:123456789012:secret:"
	for _, x := range []struct{ op, id, denied, resource string }{
		{"GetSecretValue", "x/a", "GetSecretValue", " ARN"},
		{"UpdateSecret", arn, "UpdateSecret", " ARN"},
		{"ListSecrets", "", "ListSecrets", " *"},
		{"CreateSecret", "b", "TagResource", stem + "b-??????"},        // tags need a permission more
		{"DeleteSecret", "none", "DeleteSecret", stem + "none-??????"}, // nobody learns without one whether a secret exists
	} {
		before := s.Snapshot()
		asked, denied = nil, "secretsmanager:"+x.denied
		err := call(t.Context(), s.Client, x.op, x.id)
		want := "User: arn:aws:sts::123456789012:assumed-role/AKIDEXAMPLE/session is not authorized to perform: " + denied
		if x.id != "" {
			want += " on resource: " + x.id
		}
		want += " because no identity-based policy allows the " + denied + " action"
		if outcome(err) != "AccessDeniedException" || !strings.Contains(err.Error(), want) || s.Snapshot() != before {
			t.Errorf("got %v\nwant %s, and no change of\n%s", err, want, s.Snapshot())
		}
		wantAsked := []string{"AKIDEXAMPLE secretsmanager:" + x.op + x.resource}
		if x.op != x.denied {
			wantAsked = append(wantAsked, "AKIDEXAMPLE "+denied+x.resource)
		}
		if !slices.Equal(asked, wantAsked) {
			t.Errorf("asked %q, want %q", asked, wantAsked)
		}
		if denied = ""; x.id != "none" {
			s.do(x.op, x.id, success)
		}
	}
}

// TestQuotas spends a second's worth of each quota, and gets it back with time.
func TestQuotas(t *testing.T) {
	quotas := maps.Clone(secretstoretest.AWSQuotas)
	quotas["GetSecretValue"] = 5
	delete(quotas, "DescribeSecret")
	s := start(t, secretstoretest.Options{Quotas: quotas})
	passed := func(op string) (n int) {
		for n < 200 && outcome(call(t.Context(), s.Client, op, "none")) != "ThrottlingException" {
			n++
		}
		return n
	}
	for op, want := range map[string]int{
		"UpdateSecret": 50, "TagResource": 50, "CreateSecret": 50, "RestoreSecret": 50, "DeleteSecret": 50, "ListSecrets": 100,
		"GetSecretValue": 5, "DescribeSecret": 200,
	} {
		if n := passed(op); n != want {
			t.Errorf("%d of %s pass at once, want %d", n, op, want)
		}
	}
	if n := passed("PutSecretValue") + passed("UntagResource"); n != 0 {
		t.Errorf("%d calls pass although their quota is spent", n)
	}
	for wait, want := range map[time.Duration]int{time.Second / 50: 1, time.Hour: 50} {
		s.advance(wait)
		if n := passed("UpdateSecret"); n != want {
			t.Errorf("%v later %d writes pass, want %d", wait, n, want)
		}
	}
}

// TestVersionQuota fills a secret up within a day. Later the old versions make room.
func TestVersionQuota(t *testing.T) {
	s := start(t, secretstoretest.Options{})
	s.Put("a", "v0", "")
	for range 99 {
		s.do("UpdateSecret", "a", success)
	}
	before := s.Snapshot()
	s.advance(24*time.Hour - time.Nanosecond)
	s.do("UpdateSecret", "a", "LimitExceededException")
	s.do("PutSecretValue", "a", "LimitExceededException")
	if s.Snapshot() != before {
		t.Errorf("a refused version changed the secret:\n%s", s.Snapshot())
	}
	s.advance(time.Nanosecond)
	a, _ := s.Look("a")
	s.Edit("a", func(x *secretstoretest.Secret) { x.Version = a.Versions[0] })
	s.do("UpdateSecret", "a", success) // AWSPREVIOUS keeps the oldest version, and the next one goes
	if now, _ := s.Look("a"); !slices.Equal(now.Versions, slices.Concat(a.Versions[:1], a.Versions[2:], []string{now.Version})) {
		t.Errorf("versions %v became %v", a.Versions, now.Versions)
	}
}

func TestTagLimits(t *testing.T) {
	s := start(t, secretstoretest.Options{})
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
		_, err := s.Client.TagResource(t.Context(), &sm.TagResourceInput{SecretId: &x.id, Tags: tags})
		if outcome(err) != x.want || x.want != success && s.Snapshot() != before {
			t.Errorf("%s with tag %s=%s: %v, want %s; now\n%s", x.id, x.key, x.value, err, x.want, s.Snapshot())
		}
	}
	_, err := s.Client.CreateSecret(t.Context(), &sm.CreateSecretInput{Name: new("b"), Tags: []types.Tag{{Key: new("k"), Value: new("?")}}})
	if _, created := s.Look("b"); outcome(err) != "InvalidParameterException" || created {
		t.Errorf("created with a tag that is not allowed: %t, %v", created, err)
	}
}

func TestRefusedUpdateWritesDescription(t *testing.T) {
	for writes, want := range map[bool]string{false: "d1", true: "d3"} {
		s := start(t, secretstoretest.Options{RefusedUpdateWritesDescription: writes})
		s.Put("a", "v1", "d1")
		a, _ := s.Look("a")
		_, err := s.Client.UpdateSecret(t.Context(), &sm.UpdateSecretInput{
			SecretId: new("a"), ClientRequestToken: &a.Version, SecretString: new("v3"), Description: new("d3"),
		})
		if a, _ := s.Look("a"); outcome(err) != "ResourceExistsException" || a.Value != "v1" || a.Description != want {
			t.Errorf("%t: %v, and %+v, want v1, %s", writes, err, a, want)
		}
	}
}

// Time

func TestRecoveryWindowEnds(t *testing.T) {
	s := start(t, secretstoretest.Options{})
	for name, days := range map[string]int64{"long": 8, "short": 7, "restored": 7} {
		s.Put(name, "v", "")
		_, err := s.Client.DeleteSecret(t.Context(), &sm.DeleteSecretInput{SecretId: &name, RecoveryWindowInDays: &days})
		if err != nil {
			t.Error(err)
		}
	}
	s.do("RestoreSecret", "restored", success)
	for _, x := range []struct {
		after       time.Duration
		short, long string
	}{
		{7*24*time.Hour - time.Nanosecond, success, success},
		{time.Nanosecond, "ResourceNotFoundException", success},
		{24 * time.Hour, "ResourceNotFoundException", "ResourceNotFoundException"},
	} {
		s.advance(x.after)
		s.do("DescribeSecret", "short", x.short)
		s.do("DescribeSecret", "long", x.long)
		s.do("GetSecretValue", "restored", success)
	}
}

// TestListLag follows one secret through its life. Each stage is listed five minutes late, to the
// nanosecond. A reader by name sees it at once, with the time of the last edit.
func TestListLag(t *testing.T) {
	const lag = 5 * time.Minute
	s := start(t, secretstoretest.Options{ListLag: lag})
	show := func(description *string, deleted *time.Time) string {
		return fmt.Sprintf("%q pending %t", aws.ToString(description), deleted != nil)
	}
	expect := func(when, want string) {
		t.Helper()
		page, err := s.Client.ListSecrets(t.Context(), &sm.ListSecretsInput{IncludePlannedDeletion: new(true)})
		got := ""
		if err == nil && len(page.SecretList) > 0 {
			got = show(page.SecretList[0].Description, page.SecretList[0].DeletedDate)
		}
		if err != nil || got != want {
			t.Errorf("%s: listed %s, want %s; %v", when, got, want, err)
		}
	}
	before, written := "", time.Time{}
	for _, x := range []struct{ op, then string }{
		{"CreateSecret", `"" pending false`},
		{"UpdateSecret", `"d2" pending false`},
		{"TagResource", `"d2" pending false`},
		{"DeleteSecret", `"d2" pending true`},
		{"RestoreSecret", `"d2" pending false`},
		{"UntagResource", `"d2" pending false`},
		{"forced DeleteSecret", ""},
		{"CreateSecret", `"" pending false`},
		{"PutSecretValue", `"" pending false`},
	} {
		s.do(x.op, "a", success)
		if x.then != "" {
			if d := s.describe("a"); show(d.Description, d.DeletedDate) != x.then || !d.LastChangedDate.Equal(s.now()) {
				t.Errorf("%s: described as %+v, want %s, changed now", x.op, d, x.then)
			}
		}
		if x.op == "CreateSecret" || x.op == "UpdateSecret" || x.op == "PutSecretValue" {
			written = s.now()
		}
		if v, err := s.Client.GetSecretValue(t.Context(), &sm.GetSecretValueInput{SecretId: new("a")}); err == nil && !v.CreatedDate.Equal(written) {
			t.Errorf("%s: the version is of %v, want %v", x.op, v.CreatedDate, written)
		}
		expect("at once after "+x.op, before)
		s.advance(lag - time.Nanosecond)
		expect("too early after "+x.op, before)
		s.advance(time.Nanosecond)
		expect("late after "+x.op, x.then)
		before = x.then
	}
	// Several changes within the lag are shown in turn.
	for i := range 20 {
		if s.Put("a", "v", fmt.Sprint(i)); i >= 10 {
			expect(fmt.Sprint("change ", i), fmt.Sprintf(`"%d" pending false`, i-10))
		}
		s.advance(lag / 10)
	}
}

// Lists

func TestPages(t *testing.T) {
	s := start(t, secretstoretest.Options{})
	var created []string
	for i := range 250 {
		created = append(created, fmt.Sprintf("%03d", 999-i))
		s.Put(created[i], "v", "")
	}
	s.advance(-time.Hour) // a clock that is set back hides nothing
	if names, sizes := list(t, s.Client, sm.ListSecretsInput{}); !slices.Equal(names, created) || sizes != " 100 100 50" {
		t.Errorf("listed %v in pages of%s, want the order of creation", names, sizes)
	}
	if names, sizes := list(t, s.Client, sm.ListSecretsInput{SortBy: "name", MaxResults: new(int32(50))}); !slices.IsSorted(names) || sizes != " 50 50 50 50 50" {
		t.Errorf("listed %v in pages of%s, want the order of names, and no promise of a page more", names, sizes)
	}

	// Secrets come and go between two pages. Each of the others comes once.
	for _, by := range []types.SortByType{"", "name"} {
		s := start(t, secretstoretest.Options{})
		for i := range 10 {
			s.Put(fmt.Sprint("s", i), "v", "")
		}
		in := sm.ListSecretsInput{SortBy: by, MaxResults: new(int32(5))}
		first, err := s.Client.ListSecrets(t.Context(), &in)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"s0", "s4", "s5"} {
			s.do("forced DeleteSecret", name, success)
		}
		s.Put("z", "v", "")
		in.NextToken = first.NextToken
		if names, _ := list(t, s.Client, in); !slices.Equal(names, []string{"s6", "s7", "s8", "s9", "z"}) {
			t.Errorf("second page by %q: %v", by, names)
		}
		in.Filters = beginning("s")
		if _, err := s.Client.ListSecrets(t.Context(), &in); outcome(err) != "InvalidNextTokenException" {
			t.Errorf("NextToken of another list: %v", err)
		}
	}
}

// State

func TestSeedAndInspect(t *testing.T) {
	s := start(t, secretstoretest.Options{})
	for i := range 150 { // no quota applies
		s.Put("b", fmt.Sprint("v", i), fmt.Sprint("d", i))
	}
	s.Put("a", "v1", "")
	s.do("TagResource", "a", success)
	a, _ := s.Look("a")
	if want := (secretstoretest.Secret{Version: a.Version, Value: "v1", Versions: []string{a.Version}, Tags: map[string]string{"k": "v"}}); a.Version == "" || !reflect.DeepEqual(a, want) {
		t.Errorf("Look: %+v, want %+v", a, want)
	}
	for _, x := range []struct{ state, live string }{
		{"false", "[a b] v1 true true"},
		{"true", "[b]  false false"},
	} {
		dump := "a\n  description \"\", tags map[\"k\":\"v\"], deletion pending " + x.state + "\n  \"v1\" [AWSCURRENT]\nb\n  description \"d149\", "
		if got := s.Snapshot(); !strings.HasPrefix(got, dump) || !strings.HasSuffix(got, "  \"v148\" [AWSPREVIOUS]\n  \"v149\" [AWSCURRENT]\n") {
			t.Errorf("snapshot:\n%swant:\n%s...", got, dump)
		}
		value, valued := s.Value("a")
		_, described := s.Description("a")
		if got := fmt.Sprint(s.Names(), " ", value, " ", valued, " ", described); got != x.live {
			t.Errorf("got %s, want %s", got, x.live)
		}
		_ = call(t.Context(), s.Client, "DeleteSecret", "a")
	}
	if s.Put("a", "v2", ""); len(s.Names()) != 2 {
		t.Errorf("after seeding anew: %v", s.Names())
	}
}

// TestEdit does what people and other tools do to a secret.
func TestEdit(t *testing.T) {
	type secret = secretstoretest.Secret
	writes := []string{"UpdateSecret", "PutSecretValue", "TagResource", "UntagResource", "RestoreSecret", "DeleteSecret", "forced DeleteSecret"}
	for name, x := range map[string]struct {
		edit    func(*secret)
		shows   string // in what DescribeSecret and ListSecrets answer
		with    string // the exception of what is refused
		refused []string
	}{
		"replicated": {func(x *secret) { x.Replicas = []string{"us-west-2"} }, `"ReplicationStatus":[{"Region":"us-west-2","Status":"InSync"}]`,
			"InvalidParameterException", []string{"DeleteSecret", "forced DeleteSecret"}},
		"a replica": {func(x *secret) { x.PrimaryRegion = "us-west-2" }, `"PrimaryRegion":"us-west-2"`,
			"InvalidParameterException", writes},
		"managed": {func(x *secret) { x.OwningService = "rds" }, `"OwningService":"rds"`,
			"InvalidRequestException", []string{"UpdateSecret", "PutSecretValue", "forced DeleteSecret"}},
		"tagged": {func(x *secret) { x.Tags["k"] = "v" }, `"Tags":[{"Key":"k","Value":"v"}]`, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, secretstoretest.Options{})
			s.Put("a", "v1", "d1")
			s.Edit("a", x.edit)
			s.Edit("a", func(*secret) {}) // changes nothing
			for op, body := range map[string]string{"DescribeSecret": `{"SecretId":"a"}`, "ListSecrets": `{}`} {
				if got := post(t.Context(), s.Server, op, body, nil).Body.String(); !strings.Contains(got, x.shows) {
					t.Errorf("%s shows %s, want %s", op, got, x.shows)
				}
			}
			s.do("GetSecretValue", "a", success)
			for _, op := range writes {
				want := success
				if slices.Contains(x.refused, op) {
					want = x.with
				}
				s.do(op, "a", want)
			}
		})
	}

	s := start(t, secretstoretest.Options{})
	s.Edit("a", func(*secret) {})
	s.do("GetSecretValue", "a", "ResourceNotFoundException") // as Terraform makes it, without a version
	s.Edit("a", func(x *secret) { x.Value = "v1" })
	s.do("UpdateSecret", "a", success)
	s.Edit("a", func(x *secret) { x.Version = x.Versions[0] })
	if got := s.Snapshot(); !strings.HasSuffix(got, "\"v1\" [AWSCURRENT]\n  \"v2\" [AWSPREVIOUS]\n") {
		t.Errorf("AWSCURRENT was not moved back:\n%s", got)
	}
	s.Edit("a", func(x *secret) { x.Pending = true })
	s.do("GetSecretValue", "a", "InvalidRequestException")
	s.Edit("a", func(x *secret) { x.Pending = false })
	s.do("GetSecretValue", "a", success)

	// AWS may hold on to a name for a while after a forced deletion. A fault does the same.
	s.do("forced DeleteSecret", "a", success)
	s.Fail(secretstoretest.Fault{Op: "CreateSecret", Secret: "a", Error: "InvalidRequestException", Times: 1})
	s.do("DescribeSecret", "a", "ResourceNotFoundException")
	s.do("CreateSecret", "a", "InvalidRequestException")
	s.do("CreateSecret", "a", success)
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "new", "state.json")
	o := secretstoretest.Options{File: file, ListLag: 5 * time.Minute}
	start(t, o).Put("a", "v", "")
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	s := start(t, o)
	s.do("TagResource", "a", success)
	s.do("UpdateSecret", "a", success)
	for _, name := range []string{"deleted", "gone", "seeded"} {
		s.Put(name, "v", "")
	}
	s.do("DeleteSecret", "deleted", success)
	s.do("forced DeleteSecret", "gone", success)

	// Without a Close: what was answered is saved, however the program ends.
	again := start(t, o)
	if got, want := again.Snapshot(), s.Snapshot(); got != want {
		t.Errorf("loaded:\n%swant:\n%s", got, want)
	}
	want, got := s.describe("a"), again.describe(*s.describe("a").ARN)
	got.ResultMetadata = want.ResultMetadata
	if !reflect.DeepEqual(got, want) {
		t.Errorf("loaded %+v, want %+v", got, want)
	}
	if names, _ := list(t, again.Client, sm.ListSecretsInput{}); !slices.Equal(names, []string{"a", "seeded"}) {
		t.Errorf("listed %v of what was loaded", names)
	}
	again.advance(30 * 24 * time.Hour)
	again.do("DescribeSecret", "deleted", "ResourceNotFoundException")
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(filepath.Dir(file)); info.Mode().Perm() != 0o600 || len(left) != 1 {
		t.Errorf("mode %v, want 600; files %v, want one", info.Mode(), left)
	}

	if err := os.WriteFile(file, []byte(`[{"Created":"c4nary"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = secretstoretest.New(o)
	if err == nil || strings.Contains(err.Error(), "c4nary") || !strings.Contains(err.Error(), file) {
		t.Errorf("a file that is not one of the stand-in: %v", err)
	}

	o.File = filepath.Join(dir, "other")
	unwritable := start(t, o)
	if err := os.MkdirAll(filepath.Join(o.File, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	unwritable.do("CreateSecret", "a", "InternalServiceError")
	if left, _ := os.ReadDir(dir); unwritable.Close() == nil || len(left) != 2 {
		t.Errorf("Close does not tell of the failure, or files are left over: %v", left)
	}
}
