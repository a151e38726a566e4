package ststest_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"entra-connector/internal/awsidentity/ststest"
)

// The limits are those of the API reference. Other tests present the tokens to the stand-in Entra.
func TestWhatGetWebIdentityTokenTakes(t *testing.T) {
	s := ststest.Start(t, ststest.Options{})
	options := sts.Options{BaseEndpoint: aws.String(s.URL()), Region: "eu-central-1", RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider("id", "key", "")}
	ask := func(algorithm string, seconds int32, audience ...string) string {
		in := &sts.GetWebIdentityTokenInput{Audience: audience, SigningAlgorithm: &algorithm, DurationSeconds: &seconds}
		_, err := sts.New(options).GetWebIdentityToken(t.Context(), in)
		var api smithy.APIError
		if errors.As(err, &api) {
			return api.ErrorCode()
		} else if err != nil {
			t.Fatal(err)
		}
		return ""
	}
	long := strings.Repeat("ü", 1000)
	for i, got := range []string{ask("RS256", 60, "a"), ask("RS256", 3600, long)} {
		if got != "" {
			t.Errorf("good request %d is refused: %s", i, got)
		}
	}
	for i, got := range []string{ask("RS256", 59, "a"), ask("RS256", 3601, "a"), ask("RS256", 60, long+"a"), ask("RS256", 60, ""),
		ask("RS256", 60, "a", "b"), ask("ES384", 60, "a")} {
		if got != "ValidationError" {
			t.Errorf("bad request %d: %q", i, got)
		}
	}
	options.Credentials = aws.AnonymousCredentials{}
	if got := ask("RS256", 60, "a"); got != "MissingAuthenticationToken" || s.Count() != 8 {
		t.Errorf("an unsigned request: %q, after %d signed ones", got, s.Count())
	}
}
