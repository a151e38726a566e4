package secretstoretest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"entra-connector/internal/secretstore/secretstoretest"
)

func TestFaults(t *testing.T) {
	for name, x := range map[string]struct {
		fault secretstoretest.Fault
		want  string
		value string // afterwards
	}{
		"error":               {secretstoretest.Fault{Error: "AccessDeniedException"}, "AccessDeniedException", "v1"},
		"server error":        {secretstoretest.Fault{Error: "InternalServiceError"}, "InternalServiceError", "v1"},
		"drop":                {secretstoretest.Fault{Drop: true}, "no answer", "v1"},
		"drop after":          {secretstoretest.Fault{Drop: true, After: true}, "no answer", "v2"},
		"after":               {secretstoretest.Fault{After: true}, "no answer", "v2"},
		"error after":         {secretstoretest.Fault{Error: "InternalServiceError", After: true}, "InternalServiceError", "v2"},
		"delay":               {secretstoretest.Fault{Delay: time.Millisecond}, success, "v2"},
		"delayed error":       {secretstoretest.Fault{Delay: time.Millisecond, Error: "ThrottlingException"}, "ThrottlingException", "v1"},
		"this operation":      {secretstoretest.Fault{Op: "UpdateSecret", Drop: true}, "no answer", "v1"},
		"another operation":   {secretstoretest.Fault{Op: "PutSecretValue", Drop: true}, success, "v2"},
		"this name":           {secretstoretest.Fault{Secret: "x/a", Drop: true}, "no answer", "v1"},
		"beginning of a name": {secretstoretest.Fault{Secret: "x/", Drop: true}, "no answer", "v1"},
		"another name":        {secretstoretest.Fault{Secret: "a", Drop: true}, success, "v2"},
	} {
		t.Run(name, func(t *testing.T) {
			s := secretstoretest.Start(t, secretstoretest.Options{})
			s.Put("x/a", "v1", "")
			s.Fail(x.fault)
			if got := update(t.Context(), newClient(s.URL(), 1), "x/a", "v2"); got != x.want {
				t.Errorf("outcome %s, want %s", got, x.want)
			}
			if got, _ := s.Value("x/a"); got != x.value {
				t.Errorf("value %s, want %s", got, x.value)
			}
			call := s.Calls()[0]
			if call.Dropped != (x.want == "no answer") || !call.Dropped && x.want != success && call.Error != x.want {
				t.Errorf("recorded as %+v", call)
			}
		})
	}
}

// TestFaultTimes counts requests, the SDK's retries among them.
func TestFaultTimes(t *testing.T) {
	s := secretstoretest.Start(t, secretstoretest.Options{})
	s.Put("a", "v", "")
	s.Fail(secretstoretest.Fault{Error: "InternalServiceError", Times: 1})
	s.Fail(secretstoretest.Fault{Error: "ThrottlingException", Times: 2})
	client := newClient(s.URL(), 1)
	for i, want := range []string{"InternalServiceError", "ThrottlingException", "ThrottlingException", success} {
		if got := read(t.Context(), client, "a"); got != want {
			t.Errorf("read %d: %s, want %s", i, got, want)
		}
	}

	s.Fail(secretstoretest.Fault{Error: "AccessDeniedException"})
	for range 5 {
		if got := read(t.Context(), client, "a"); got != "AccessDeniedException" {
			t.Errorf("with a lasting fault: %s", got)
		}
	}
	s.ClearFaults()
	if got := read(t.Context(), client, "a"); got != success {
		t.Errorf("after ClearFaults: %s", got)
	}
}

// TestFaultStatus has the SDK repeat what AWS marks as its own failure, which it tells by the status.
func TestFaultStatus(t *testing.T) {
	for exception, want := range map[string]int{
		"InternalServiceError": 500, "InternalFailure": 500, "ServiceUnavailableException": 503, "ThrottlingException": 400, "AccessDeniedException": 400,
	} {
		s := secretstoretest.Start(t, secretstoretest.Options{})
		s.Fail(secretstoretest.Fault{Error: exception})
		_, err := newClient(s.URL(), 1).DescribeSecret(t.Context(), &secretsmanager.DescribeSecretInput{SecretId: new("a")})
		var response *smithyhttp.ResponseError
		if !errors.As(err, &response) || response.HTTPStatusCode() != want {
			t.Errorf("%s: %v, want status %d", exception, err, want)
		}
	}
}

// TestRetriedUpdate is what a lost reply does to UpdateSecret: the SDK sends the same token again, and AWS refuses it.
func TestRetriedUpdate(t *testing.T) {
	s := secretstoretest.Start(t, secretstoretest.Options{})
	s.Put("a", "v1", "")
	s.Fail(secretstoretest.Fault{Op: "UpdateSecret", After: true, Times: 1})
	if got := update(t.Context(), newClient(s.URL(), 2), "a", "v2"); got != "ResourceExistsException" {
		t.Errorf("outcome %s, want ResourceExistsException", got)
	}
	if got, _ := s.Value("a"); got != "v2" || s.Count("UpdateSecret") != 2 {
		t.Errorf("value %s after %d requests, want v2 after 2", got, s.Count("UpdateSecret"))
	}
}

// TestDelayEnds has a client give up on a delayed request: the server stops waiting, and nothing took effect.
func TestDelayEnds(t *testing.T) {
	s := secretstoretest.Start(t, secretstoretest.Options{})
	s.Put("a", "v1", "")
	s.Fail(secretstoretest.Fault{Delay: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	update(ctx, newClient(s.URL(), 1), "a", "v2")
	for deadline := time.Now().Add(5 * time.Second); !s.Calls()[0].Dropped; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("still waiting after the client went")
		}
	}
	if got, _ := s.Value("a"); got != "v1" {
		t.Errorf("value %s, want v1", got)
	}
}
