package eventbridgetest_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/smithy-go"

	"entra-connector/internal/signals/eventbridgetest"
)

// The tests of internal/signals prove the rest.
func TestWhatPutEventsTakes(t *testing.T) {
	s := eventbridgetest.Start(t)
	options := eventbridge.Options{BaseEndpoint: aws.String(s.URL()), Region: "eu-central-1", Retryer: aws.NopRetryer{}}
	for n, want := range map[int]string{0: "ValidationException", 10: "", 11: "ValidationException", 1: "UnrecognizedClientException"} {
		options.Credentials = credentials.NewStaticCredentialsProvider("id", "key", "")
		if n == 1 {
			options.Credentials = aws.AnonymousCredentials{}
		}
		entries := slices.Repeat([]types.PutEventsRequestEntry{{Source: new("me"), DetailType: new("t"), Detail: new("{}")}}, n)
		_, err := eventbridge.New(options).PutEvents(t.Context(), &eventbridge.PutEventsInput{Entries: entries})
		var api smithy.APIError
		if want == "" && err != nil || want != "" && (!errors.As(err, &api) || api.ErrorCode() != want) {
			t.Errorf("%d entries: %v, want %q", n, err, want)
		}
	}
	if got := len(s.Events()); got != 10 || len(s.Requests()) != 3 {
		t.Errorf("%d events of requests with %v entries", got, s.Requests())
	}
}
