package awsidentity_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"entra-connector/internal/awsidentity"
	"entra-connector/internal/awsidentity/ststest"
	"entra-connector/pkg/entra"
)

const audience = "api://AzureADTokenExchange"

var start = time.Date(2026, 11, 23, 1, 0, 0, 0, time.UTC)

// open returns a Source on a stand-in. Both take the time from now.
func open(t *testing.T, now *time.Time, authorize func(_, audience string) bool) (*awsidentity.Source, *ststest.Server) {
	clock := func() time.Time { return *now }
	server := ststest.Start(t, ststest.Options{Now: clock, Authorize: authorize})
	return awsidentity.New(sts.New(sts.Options{
		Region: "us-east-1", BaseEndpoint: aws.String(server.URL()), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider("id", "key", ""),
	}), clock), server
}

// One assertion serves a whole sweep, for as long as it is good.
func TestAssertionIsKeptWhileItIsGood(t *testing.T) {
	now := start
	var asked []string
	source, _ := open(t, &now, func(_, audience string) bool {
		asked = append(asked, audience)
		return true
	})
	ask := func(audience string) string {
		a, err := source.Assertion(t.Context(), audience)
		if err != nil {
			t.Error(err)
		}
		return a.Reveal()
	}
	var sweep sync.WaitGroup
	for range 50 {
		sweep.Go(func() { ask(audience) })
	}
	sweep.Wait()
	first := ask(audience)
	now = start.Add(9*time.Minute - time.Second)
	if ask(audience) != first {
		t.Error("a good assertion was replaced")
	}
	if ask("api://other") == first {
		t.Error("another audience gets the same assertion")
	}
	now = start.Add(9 * time.Minute)
	if ask(audience) == first {
		t.Error("an assertion in its last minute is still handed out")
	}
	if want := []string{audience, "api://other", audience}; !slices.Equal(asked, want) {
		t.Errorf("STS was asked for %q, want %q", asked, want)
	}
}

func TestRefusalsAreExplained(t *testing.T) {
	now := start
	source, server := open(t, &now, nil)
	for code, tt := range map[string]struct {
		status int
		want   string
		class  entra.Class
	}{
		"OutboundWebIdentityFederationDisabledException": {403, "federation_disabled", entra.Refused},
		"AccessDenied":                       {403, "federation_denied", entra.Refused},
		"SessionDurationEscalationException": {403, "sts_unavailable", entra.Unavailable},
		"Throttling":                         {400, "sts_unavailable", entra.Unavailable},
	} {
		now = now.Add(time.Second) // after which the last failure no longer counts
		server.Fail(code, tt.status)
		asked := server.Count()
		_, err := source.Assertion(t.Context(), audience)
		var refused *entra.Error
		if !errors.As(err, &refused) || refused.Code != tt.want || refused.Class != tt.class ||
			refused.Action == "" || strings.Contains(err.Error(), "arn:") {
			t.Errorf("%s: %v", code, err)
		}
		if _, again := source.Assertion(t.Context(), audience); again != err || server.Count() != asked+1 {
			t.Errorf("%s: STS was asked %d times in a second, %v", code, server.Count()-asked, again)
		}
	}
	server.Fail("", 0)
	now = now.Add(time.Second)
	if _, err := source.Assertion(t.Context(), audience); err != nil {
		t.Errorf("a second after a failure: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := source.Assertion(ended, "api://another"); !errors.Is(err, context.Canceled) {
		t.Errorf("after the caller gave up: %v", err)
	}
}
