package awsidentity_test

import (
	"context"
	"errors"
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

var start = time.Date(2026, 11, 23, 1, 0, 0, 0, time.UTC)

func open(t *testing.T, now func() time.Time) (*awsidentity.Source, *ststest.Server) {
	server := ststest.Start(t, ststest.Options{Now: now})
	return awsidentity.New(sts.New(sts.Options{
		Region: "us-east-1", BaseEndpoint: aws.String(server.URL()), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider("id", "key", ""),
	}), now), server
}

// One assertion serves a whole sweep, for as long as it is good.
func TestAssertionIsKeptWhileItIsGood(t *testing.T) {
	now := start
	source, server := open(t, func() time.Time { return now })
	ask := func(audience string) string {
		t.Helper()
		a, err := source.Assertion(t.Context(), audience)
		if err != nil {
			t.Fatal(err)
		}
		return a.Reveal()
	}
	first := ask("api://AzureADTokenExchange")
	var sweep sync.WaitGroup
	for range 50 {
		sweep.Go(func() { ask("api://AzureADTokenExchange") })
	}
	sweep.Wait()
	now = start.Add(9*time.Minute - time.Second)
	if ask("api://AzureADTokenExchange") != first || server.Count() != 1 {
		t.Errorf("asked %d times in nine minutes", server.Count())
	}
	if ask("api://other") == first || server.Count() != 2 {
		t.Error("another audience has the same assertion")
	}
	now = start.Add(9 * time.Minute)
	if ask("api://AzureADTokenExchange") == first {
		t.Error("an assertion in its last minute is still handed out")
	}
}

func TestRefusalsAreExplained(t *testing.T) {
	now := start
	source, server := open(t, func() time.Time { return now })
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
		now = now.Add(time.Second) // for so long a failure stands
		server.Fail(code, tt.status)
		asked := server.Count()
		_, err := source.Assertion(t.Context(), "api://AzureADTokenExchange")
		var refused *entra.Error
		if !errors.As(err, &refused) || refused.Code != tt.want || refused.Class != tt.class {
			t.Errorf("%s: %v", code, err)
		}
		if _, again := source.Assertion(t.Context(), "api://AzureADTokenExchange"); again != err || server.Count() != asked+1 {
			t.Errorf("%s: asked %d times at once, %v", code, server.Count()-asked, again)
		}
		if refused != nil && (refused.Action == "" || strings.Contains(refused.Error(), "arn:")) {
			t.Errorf("%s: %v, %s", code, err, refused.Action)
		}
	}
	server.Fail("", 0)
	now = now.Add(time.Second)
	if _, err := source.Assertion(t.Context(), "api://AzureADTokenExchange"); err != nil {
		t.Errorf("a refusal is remembered: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := source.Assertion(ended, "api://another"); !errors.Is(err, context.Canceled) {
		t.Errorf("after the caller gave up: %v", err)
	}
}
