package eventbridgetest_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/smithy-go"

	"entra-connector/internal/signals/eventbridgetest"
)

func client(s *eventbridgetest.Server) *eventbridge.Client {
	return eventbridge.New(eventbridge.Options{
		BaseEndpoint: aws.String(s.URL()),
		Region:       "eu-central-1",
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "c4nary"}, nil
		}),
		Retryer: aws.NopRetryer{},
	})
}

func entry(source, detailType, detail string) types.PutEventsRequestEntry {
	return types.PutEventsRequestEntry{Source: &source, DetailType: &detailType, Detail: &detail}
}

func many(n int, e types.PutEventsRequestEntry) (entries []types.PutEventsRequestEntry) {
	for range n {
		entries = append(entries, e)
	}
	return entries
}

// What is wrong with a request as a whole fails it; nothing of it is taken.
func TestRequests(t *testing.T) {
	good := entry("me", "thing.happened", "{}")
	for name, tt := range map[string]struct {
		entries []types.PutEventsRequestEntry
		want    string
	}{
		"one":             {many(1, good), ""},
		"ten":             {many(10, good), ""},
		"eleven":          {many(11, good), "ValidationException"},
		"none":            {[]types.PutEventsRequestEntry{}, "ValidationException"},
		"as large as can": {many(1, entry("me", "t", `{"a":"`+strings.Repeat("x", 256<<10-3-8-1)+`"}`)), ""},
		"too large":       {many(1, entry("me", "t", `{"a":"`+strings.Repeat("x", 256<<10-3-8)+`"}`)), "ValidationException"},
		"large together":  {many(10, entry("me", "t", `{"a":"`+strings.Repeat("x", 27<<10)+`"}`)), "ValidationException"},
		"nothing whole":   {many(2, entry("", "t", "{}")), "ValidationException"},
	} {
		s := eventbridgetest.Start(t)
		_, err := client(s).PutEvents(t.Context(), &eventbridge.PutEventsInput{Entries: tt.entries})
		var api smithy.APIError
		if tt.want == "" && (err != nil || len(s.Events()) != len(tt.entries)) ||
			tt.want != "" && (!errors.As(err, &api) || api.ErrorCode() != tt.want || len(s.Events()) != 0) {
			t.Errorf("%s: %v, %d events, want error %q", name, err, len(s.Events()), tt.want)
		}
	}
}

// What is wrong with one entry is that entry's trouble.
func TestEntries(t *testing.T) {
	for name, tt := range map[string]struct {
		entry types.PutEventsRequestEntry
		want  string
	}{
		"no source":      {entry("", "t", "{}"), "InvalidArgument"},
		"no detail type": {entry("me", "", "{}"), "InvalidArgument"},
		"no detail":      {entry("me", "t", ""), "InvalidArgument"},
		"long type":      {entry("me", strings.Repeat("t", 129), "{}"), "InvalidArgument"},
		"as AWS":         {entry("aws.events", "t", "{}"), "NotAuthorizedForSourceException"},
		"no JSON":        {entry("me", "t", "{"), "MalformedDetail"},
		"no object":      {entry("me", "t", "[]"), "MalformedDetail"},
	} {
		s := eventbridgetest.Start(t)
		out, err := client(s).PutEvents(t.Context(), &eventbridge.PutEventsInput{
			Entries: []types.PutEventsRequestEntry{tt.entry, entry("me", "good", "{}")}})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if out.FailedEntryCount != 1 || aws.ToString(out.Entries[0].ErrorCode) != tt.want || out.Entries[0].EventId != nil ||
			out.Entries[1].ErrorCode != nil || out.Entries[1].EventId == nil || len(s.Events()) != 1 || s.Events()[0].DetailType != "good" {
			t.Errorf("%s: %d failed, %+v, events %+v; want %s", name, out.FailedEntryCount, out.Entries, s.Events(), tt.want)
		}
	}
}

func TestFaults(t *testing.T) {
	s := eventbridgetest.Start(t)
	put := func() (string, int32) {
		out, err := client(s).PutEvents(t.Context(), &eventbridge.PutEventsInput{Entries: many(3, entry("me", "t", "{}"))})
		var api smithy.APIError
		switch {
		case errors.As(err, &api):
			return api.ErrorCode(), 0
		case err != nil:
			return "cut", 0
		}
		return "", out.FailedEntryCount
	}
	s.Fail(eventbridgetest.Fault{Error: "ThrottlingException", Times: 2})
	s.Fail(eventbridgetest.Fault{Error: "InternalFailure", Entries: 2, Times: 1})
	s.Fail(eventbridgetest.Fault{Drop: true})
	for i, want := range []struct {
		code   string
		failed int32
	}{{"ThrottlingException", 0}, {"ThrottlingException", 0}, {"", 2}, {"cut", 0}, {"cut", 0}} {
		if code, failed := put(); code != want.code || failed != want.failed {
			t.Errorf("request %d: %q, %d failed, want %+v", i, code, failed, want)
		}
	}
	s.ClearFaults()
	if code, failed := put(); code != "" || failed != 0 || len(s.Events()) != 1+3 || len(s.Requests()) != 6 {
		t.Errorf("afterwards: %q, %d failed, %d events of %d requests", code, failed, len(s.Events()), len(s.Requests()))
	}
}

// One event that may not go refuses all of the request.
func TestAuthorize(t *testing.T) {
	s := eventbridgetest.Start(t)
	var asked []string
	s.Authorize(func(accessKeyID, action, resource, source, detailType string) bool {
		asked = []string{accessKeyID, action, resource, source, detailType}
		return detailType == "thing.happened"
	})
	good, bad := entry("me", "thing.happened", "{}"), entry("me", "thing.else", "{}")
	bad.EventBusName = aws.String("mine")
	if _, err := client(s).PutEvents(t.Context(), &eventbridge.PutEventsInput{Entries: many(2, good)}); err != nil || len(s.Events()) != 2 {
		t.Errorf("allowed: %v, %d events", err, len(s.Events()))
	}
	_, err := client(s).PutEvents(t.Context(), &eventbridge.PutEventsInput{Entries: append(many(2, good), bad)})
	var api smithy.APIError
	const bus = "arn:aws:events:eu-central-1:123456789012:event-bus/mine"
	if !errors.As(err, &api) || api.ErrorCode() != "AccessDeniedException" || !strings.Contains(api.ErrorMessage(), "events:PutEvents on resource: "+bus) || len(s.Events()) != 2 {
		t.Errorf("refused: %v, %d events", err, len(s.Events()))
	}
	if want := []string{"AKIDEXAMPLE", "events:PutEvents", bus, "me", "thing.else"}; !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
}

func TestWhatIsNoRequest(t *testing.T) {
	s := eventbridgetest.Start(t)
	res, err := http.Post(s.URL(), "application/x-amz-json-1.1", strings.NewReader(`{"Entries":[]}`))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusBadRequest || len(s.Requests()) != 0 {
		t.Errorf("an unsigned request gets %s, %v", res.Status, s.Requests())
	}
}
