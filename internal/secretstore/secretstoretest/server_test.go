package secretstoretest_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

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

// update sets the value of name and returns the outcome.
func update(ctx context.Context, client *secretsmanager.Client, name, value string) string {
	_, err := client.UpdateSecret(ctx, &secretsmanager.UpdateSecretInput{SecretId: &name, SecretString: &value})
	return outcome(err)
}

func read(ctx context.Context, client *secretsmanager.Client, name string) string {
	_, err := client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &name})
	return outcome(err)
}

const signature = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261123/us-east-1/secretsmanager/aws4_request, SignedHeaders=host, Signature=00"

// TestProtocol sends what the SDK never would.
func TestProtocol(t *testing.T) {
	s := secretstoretest.Start(t, secretstoretest.Options{})
	s.Put("a", "v1", "")
	get := func(r *http.Request) {}
	for name, x := range map[string]struct {
		change func(*http.Request)
		body   string
		want   string
	}{
		"as it should be":  {get, `{"SecretId":"a"}`, ""},
		"unknown member":   {get, `{"SecretId":"a","Colour":"red"}`, ""},
		"unsigned":         {func(r *http.Request) { r.Header.Del("Authorization") }, `{"SecretId":"a"}`, "MissingAuthenticationTokenException"},
		"other scheme":     {func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") }, `{"SecretId":"a"}`, "IncompleteSignatureException"},
		"other method":     {func(r *http.Request) { r.Method = http.MethodPut }, `{"SecretId":"a"}`, "UnknownOperationException"},
		"other path":       {func(r *http.Request) { r.URL.Path = "/x" }, `{"SecretId":"a"}`, "UnknownOperationException"},
		"other type":       {func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }, `{"SecretId":"a"}`, "UnknownOperationException"},
		"other service":    {func(r *http.Request) { r.Header.Set("X-Amz-Target", "kms.Decrypt") }, `{"SecretId":"a"}`, "UnknownOperationException"},
		"other operation":  {func(r *http.Request) { r.Header.Set("X-Amz-Target", "secretsmanager.RotateSecret") }, `{"SecretId":"a"}`, "InvalidAction"},
		"not JSON":         {get, `{"SecretId":`, "SerializationException"},
		"wrong type":       {get, `{"SecretId":"a","VersionId":5}`, "SerializationException"},
		"too long":         {get, `{"SecretId":"` + strings.Repeat("a", 5<<20) + `"}`, "SerializationException"},
		"without a token":  {func(r *http.Request) { r.Header.Set("X-Amz-Target", "secretsmanager.PutSecretValue") }, `{"SecretId":"a","SecretString":"v2"}`, "InvalidRequestException"},
		"without a secret": {get, `{}`, "ValidationException"},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(x.body))
			r.Header.Set("Content-Type", "application/x-amz-json-1.1")
			r.Header.Set("X-Amz-Target", "secretsmanager.GetSecretValue")
			r.Header.Set("Authorization", signature)
			x.change(r)
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)

			var reply map[string]any
			if err := json.Unmarshal(w.Body.Bytes(), &reply); err != nil {
				t.Fatal(err)
			}
			want := http.StatusOK
			if x.want != "" {
				want = http.StatusBadRequest
				if reply["__type"] != x.want || reply["Message"] == "" {
					t.Errorf("got %v, want %s", reply, x.want)
				}
			}
			if w.Code != want || w.Header().Get("Content-Type") != "application/x-amz-json-1.1" || w.Header().Get("x-amzn-RequestId") == "" {
				t.Errorf("status %d, headers %v", w.Code, w.Header())
			}
		})
	}
	if got, _ := s.Value("a"); got != "v1" {
		t.Errorf("value is %q, want v1", got)
	}
}

func TestUnknownOperationIsNamed(t *testing.T) {
	s := secretstoretest.Start(t, secretstoretest.Options{})
	_, err := newClient(s.URL(), 1).RotateSecret(t.Context(), &secretsmanager.RotateSecretInput{SecretId: new("a")})
	if outcome(err) != "InvalidAction" || !strings.Contains(err.Error(), "RotateSecret") {
		t.Errorf("got %v", err)
	}
}

func TestRegion(t *testing.T) {
	s := secretstoretest.Start(t, secretstoretest.Options{Region: "eu-central-1"})
	out, err := newClient(s.URL(), 1).CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: new("a")})
	if err != nil || !strings.HasPrefix(*out.ARN, "arn:aws:secretsmanager:eu-central-1:123456789012:secret:a-") {
		t.Errorf("created %+v, %v", out, err)
	}
}

func TestCalls(t *testing.T) {
	s := secretstoretest.Start(t, secretstoretest.Options{})
	client := newClient(s.URL(), 1)
	ctx := t.Context()
	s.Put("seeded", "v", "")
	created, err := client.CreateSecret(ctx, &secretsmanager.CreateSecretInput{Name: new("x/a"), SecretString: new("c4nary")})
	if err != nil {
		t.Fatal(err)
	}
	read(ctx, client, *created.ARN)
	read(ctx, client, "none")
	if _, err := client.ListSecrets(ctx, &secretsmanager.ListSecretsInput{}); err != nil {
		t.Fatal(err)
	}
	want := []secretstoretest.Call{
		{Op: "CreateSecret", Secret: "x/a", Token: true},
		{Op: "GetSecretValue", Secret: "x/a"},
		{Op: "GetSecretValue", Secret: "none", Error: "ResourceNotFoundException"},
		{Op: "ListSecrets"},
	}
	if got := s.Calls(); !slices.Equal(got, want) {
		t.Errorf("calls %+v, want %+v", got, want)
	}
	if n := s.Count("GetSecretValue"); n != 2 {
		t.Errorf("counted %d, want 2", n)
	}
	s.ResetCalls()
	if n := len(s.Calls()); n != 0 {
		t.Errorf("%d calls after ResetCalls", n)
	}
}

func TestLatency(t *testing.T) {
	s := secretstoretest.Start(t, secretstoretest.Options{Latency: 20 * time.Millisecond})
	start := time.Now()
	read(t.Context(), newClient(s.URL(), 1), "none")
	if took := time.Since(start); took < 20*time.Millisecond {
		t.Errorf("answered after %v", took)
	}
}

func TestClose(t *testing.T) {
	s, err := secretstoretest.New(secretstoretest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	client := newClient(s.URL(), 1)
	if got := read(t.Context(), client, "none"); got != "ResourceNotFoundException" {
		t.Errorf("before Close: %s", got)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t.Context(), client, "none"); got != "no answer" {
		t.Errorf("after Close: %s", got)
	}
}

func TestStartEndsWithTheTest(t *testing.T) {
	var s *secretstoretest.Server
	t.Run("test", func(t *testing.T) { s = secretstoretest.Start(t, secretstoretest.Options{}) })
	if got := read(t.Context(), newClient(s.URL(), 1), "none"); got != "no answer" {
		t.Errorf("after the test: %s", got)
	}
}

// TestConcurrency is for the race detector.
func TestConcurrency(t *testing.T) {
	s := secretstoretest.Start(t, secretstoretest.Options{ListLag: time.Millisecond, File: t.TempDir() + "/state"})
	client := newClient(s.URL(), 1)
	s.Put("a", "v0", "")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				update(t.Context(), client, "a", "v")
				read(t.Context(), client, "a")
				_, _ = client.ListSecrets(t.Context(), &secretsmanager.ListSecretsInput{})
				_, _ = client.TagResource(t.Context(), &secretsmanager.TagResourceInput{SecretId: new("a")})
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
