package signals_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"entra-connector/internal/connector"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"

	"entra-connector/internal/signals"
	"entra-connector/internal/signals/eventbridgetest"
)

const account = "210987654321"

// start returns an Events on the stand-in, and what it logs.
func start(t *testing.T) (*signals.Events, *eventbridgetest.Server, *bytes.Buffer) {
	s := eventbridgetest.Start(t)
	var log bytes.Buffer
	client := eventbridge.New(eventbridge.Options{
		BaseEndpoint: aws.String(s.URL()),
		Region:       "eu-central-1",
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "c4nary"}, nil
		}),
		Retryer: aws.NopRetryer{},
	})
	t.Cleanup(func() {
		for _, secret := range []string{"c4nary", account, "127.0.0.1", "A fault"} {
			if strings.Contains(log.String(), secret) {
				t.Errorf("%s is in the log: %s", secret, &log)
			}
		}
	})
	return signals.NewEvents(client, "default", slog.New(slog.NewJSONHandler(&log, nil))), s, &log
}

func connection(i int) connector.Connection {
	name := fmt.Sprintf("c%05d", i)
	return connector.Connection{
		ConnectionRef: connector.ConnectionRef{App: "default", Name: name}, TenantID: "aaaaaaaa-0000-4000-8000-000000000001",
		RefreshedAt: now,
		SecretName:  "entra/connections/default/" + name,
		SecretARN:   "arn:aws:secretsmanager:eu-central-1:" + account + ":secret:entra/connections/default/" + name + "-AbCdEf",
	}
}

func refused(i int) connector.Connection {
	c := connection(i)
	c.Failure = &connector.Failure{Status: connector.StatusRefused, Code: "AADSTS7000222", Advice: connector.Explain("AADSTS7000222"), At: now.Add(time.Hour), TraceID: "t", CorrelationID: "c"}
	return c
}

func TestEvents(t *testing.T) {
	e, s, log := start(t)
	e.Changed(t.Context(), refused(1))
	unlisted := connection(2)
	unlisted.SecretARN = ""
	e.Changed(t.Context(), unlisted)
	if n := len(s.Requests()); n != 0 {
		t.Errorf("%d requests for two events, before they are flushed", n)
	}
	e.Flush(t.Context())
	e.Flush(t.Context())
	if got, want := s.Requests(), []int{2}; !reflect.DeepEqual(got, want) {
		t.Errorf("requests of %v entries, want %v", got, want)
	}
	explained := connector.Explain("AADSTS7000222")
	want := []eventbridgetest.Event{
		{Bus: "default", Source: "entra-connector", DetailType: "entra.connection.refused", Resources: []string{refused(1).SecretARN}},
		{Bus: "default", Source: "entra-connector", DetailType: "entra.connection.recovered"},
	}
	details := []map[string]any{
		{"app": "default", "connection": "c00001", "tenant_id": "aaaaaaaa-0000-4000-8000-000000000001", "status": "refused",
			"at": "2026-11-23T01:02:03Z", "secret_name": "entra/connections/default/c00001", "code": "AADSTS7000222",
			"title": explained.Title, "action": explained.Action, "trace_id": "t", "correlation_id": "c"},
		{"app": "default", "connection": "c00002", "tenant_id": "aaaaaaaa-0000-4000-8000-000000000001", "status": "ok",
			"at": "2026-11-23T00:02:03Z", "secret_name": "entra/connections/default/c00002"},
	}
	got := s.Events()
	if len(got) != len(want) {
		t.Fatalf("%d events, want %d", len(got), len(want))
	}
	for i := range got {
		var detail map[string]any
		if err := json.Unmarshal([]byte(got[i].Detail), &detail); err != nil || !reflect.DeepEqual(detail, details[i]) {
			t.Errorf("detail\n got %v\nwant %v", detail, details[i])
		}
		got[i].Detail = ""
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("event\n got %+v\nwant %+v", got[i], want[i])
		}
	}
	if log.Len() > 0 {
		t.Errorf("logged: %s", log)
	}
}

// Where no bus is named, nothing happens.
func TestNoEvents(t *testing.T) {
	var e *signals.Events
	e.Changed(t.Context(), refused(1))
	e.Flush(t.Context())
}

// A mass refusal goes out in batches as it comes.
func TestManyEvents(t *testing.T) {
	const workers, each = 32, 157
	e, s, log := start(t)
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			for i := range each {
				e.Changed(t.Context(), refused(w*each+i))
			}
		})
	}
	group.Wait()
	if waiting := workers*each - len(s.Events()); waiting != workers*each%10 {
		t.Errorf("%d events wait, want less than a batch", waiting)
	}
	e.Flush(t.Context())
	seen := make(map[string]bool)
	for _, event := range s.Events() {
		seen[event.Resources[0]] = true
	}
	if len(seen) != workers*each || len(s.Events()) != workers*each {
		t.Errorf("%d events of %d connections, want one of each of %d", len(s.Events()), len(seen), workers*each)
	}
	if n := len(s.Requests()); n != workers*each/10+1 {
		t.Errorf("%d requests", n)
	}
	if log.Len() > 0 {
		t.Errorf("logged: %s", log)
	}
}

// logged is the one line that there is in the log, but for when.
func logged(t *testing.T, log *bytes.Buffer) map[string]any {
	t.Helper()
	var line map[string]any
	if err := json.Unmarshal(log.Bytes(), &line); err != nil {
		t.Fatalf("the log is not one line: %q", log)
	}
	delete(line, "time")
	log.Reset()
	return line
}

func lost(events int, code string) map[string]any {
	return map[string]any{"level": "ERROR", "msg": "events not published", "events": float64(events), "code": code}
}

// What EventBridge does not take of a batch goes once more, and only that.
func TestEntriesThatAreNotTaken(t *testing.T) {
	e, s, log := start(t)
	s.Fail(eventbridgetest.Fault{Error: "ThrottlingException", Entries: 4, Times: 1})
	for i := range 10 {
		e.Changed(t.Context(), refused(i))
	}
	e.Flush(t.Context())
	if got, want := s.Requests(), []int{10, 4}; !reflect.DeepEqual(got, want) || len(s.Events()) != 10 || log.Len() > 0 {
		t.Errorf("requests of %v entries, %d events, log %q", got, len(s.Events()), log)
	}
	s.Fail(eventbridgetest.Fault{Error: "InternalFailure", Entries: 2, Times: 2})
	for i := range 5 {
		e.Changed(t.Context(), refused(10+i))
	}
	e.Flush(t.Context())
	if got, want := logged(t, log), lost(2, "InternalFailure"); !reflect.DeepEqual(got, want) || len(s.Events()) != 13 {
		t.Errorf("%d events, log %v, want %v", len(s.Events()), got, want)
	}
}

// When EventBridge is out of order it is soon left alone, the log has one line,
// and the next invocation tries again.
func TestEventBridgeThatFails(t *testing.T) {
	for code, fault := range map[string]eventbridgetest.Fault{
		"AccessDeniedException": {Error: "AccessDeniedException"},
		"ThrottlingException":   {Error: "ThrottlingException"},
		"InternalException":     {Error: "InternalException"},
		"unreachable":           {Drop: true},
	} {
		e, s, log := start(t)
		s.Fail(fault)
		for i := range 1000 {
			e.Changed(t.Context(), refused(i))
		}
		e.Flush(t.Context())
		if got, want := logged(t, log), lost(1000, code); !reflect.DeepEqual(got, want) || len(s.Requests()) != 3 {
			t.Errorf("%s: %d requests, log %v, want %v", code, len(s.Requests()), got, want)
		}
		s.ClearFaults()
		e.Changed(t.Context(), refused(1000))
		e.Flush(t.Context())
		if len(s.Events()) != 1 || log.Len() > 0 {
			t.Errorf("%s: afterwards %d events, log %q", code, len(s.Events()), log)
		}
	}
}

// Now and then a call fails: what comes after it is published all the same.
func TestAFailureAmongSuccesses(t *testing.T) {
	e, s, log := start(t)
	for i := range 100 {
		if i%20 == 0 {
			s.Fail(eventbridgetest.Fault{Error: "ThrottlingException", Times: 1})
		}
		e.Changed(t.Context(), refused(i))
	}
	e.Flush(t.Context())
	if got, want := logged(t, log), lost(50, "ThrottlingException"); !reflect.DeepEqual(got, want) || len(s.Events()) != 50 {
		t.Errorf("%d events, log %v, want %v", len(s.Events()), got, want)
	}
}

// An EventBridge that hangs costs part of the time left, not all of it.
func TestFlushLeavesTime(t *testing.T) {
	e, s, log := start(t)
	s.Fail(eventbridgetest.Fault{Delay: time.Minute})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	e.Changed(ctx, refused(1))
	e.Flush(ctx)
	if ctx.Err() != nil {
		t.Error("no time is left")
	}
	if got, want := logged(t, log), lost(1, "timeout"); !reflect.DeepEqual(got, want) {
		t.Errorf("log %v, want %v", got, want)
	}
}
