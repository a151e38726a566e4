package signals_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"

	"entra-connector/internal/connector"
	"entra-connector/internal/signals"
	"entra-connector/internal/signals/eventbridgetest"
)

// bus is an Events on a stand-in, with what it logs.
type bus struct {
	*testing.T
	*signals.Events
	server *eventbridgetest.Server
	log    *bytes.Buffer
}

func start(t *testing.T) bus {
	b := bus{T: t, server: eventbridgetest.Start(t), log: new(bytes.Buffer)}
	client := eventbridge.New(eventbridge.Options{BaseEndpoint: aws.String(b.server.URL()), Region: "eu-central-1",
		Credentials: credentials.NewStaticCredentialsProvider("id", "c4nary", ""), Retryer: aws.NopRetryer{}})
	b.Events = signals.NewEvents(client, "default", slog.New(slog.NewJSONHandler(b.log, nil)))
	return b
}

// refuse reports that connections are refused, by number.
func (b bus) refuse(from, to int) {
	for i := from; i < to; i++ {
		b.Changed(b.Context(), refused(i))
	}
}

// want compares the entries of the requests, the number of events and the log, which is emptied.
func (b bus) want(requests []int, events int, log string) {
	b.Helper()
	if got := b.server.Requests(); !slices.Equal(got, requests) || len(b.server.Events()) != events {
		b.Errorf("requests of %v entries and %d events, want %v and %d", got, len(b.server.Events()), requests, events)
	}
	got := b.log.String()
	if _, line, found := strings.Cut(got, `,"level"`); found { // after the time
		got = `"level"` + strings.TrimSpace(line)
	}
	if got != log {
		b.Errorf("logged %s\nwant %s", got, log)
	}
	b.log.Reset()
}

func lost(events int, code string) string {
	return fmt.Sprintf(`"level":"ERROR","msg":"events not published","events":%d,"code":"%s"}`, events, code)
}

func refused(i int) connector.Connection {
	name := fmt.Sprintf("c%05d", i)
	return connector.Connection{
		ConnectionRef: connector.ConnectionRef{App: "default", Name: name}, TenantID: "aaaaaaaa-0000-4000-8000-000000000001",
		RefreshedAt: now, SecretName: "entra/connections/default/" + name,
		SecretARN: "arn:aws:secretsmanager:eu-central-1:210987654321:secret:entra/connections/default/" + name + "-AbCdEf",
		Failure: &connector.Failure{Status: connector.StatusRefused, Code: "AADSTS7000222",
			Advice: connector.Explain("AADSTS7000222"), At: now.Add(time.Hour),
			TraceID: "t", CorrelationID: "c", ConsentURL: "u"},
	}
}

func TestEvents(t *testing.T) {
	b := start(t)
	b.Changed(t.Context(), refused(1))
	recovered := refused(2)
	recovered.Failure, recovered.SecretARN = nil, ""
	b.Changed(t.Context(), recovered)
	b.want(nil, 0, "")
	b.Flush(t.Context())
	b.Flush(t.Context())
	b.want([]int{2}, 2, "")
	explained := connector.Explain("AADSTS7000222")
	title, _ := json.Marshal(explained.Title)
	action, _ := json.Marshal(explained.Action)
	if got, want := b.server.Events(), []eventbridgetest.Event{
		{Bus: "default", Source: "entra-connector", DetailType: "entra.connection.refused", Resources: []string{refused(1).SecretARN},
			Detail: `{"app":"default","connection":"c00001","tenant_id":"aaaaaaaa-0000-4000-8000-000000000001","status":"refused",` +
				`"at":"2026-11-23T01:02:03Z","secret_name":"entra/connections/default/c00001","code":"AADSTS7000222",` +
				`"title":` + string(title) + `,"action":` + string(action) + `,"consent_url":"u","trace_id":"t","correlation_id":"c"}`},
		{Bus: "default", Source: "entra-connector", DetailType: "entra.connection.recovered",
			Detail: `{"app":"default","connection":"c00002","tenant_id":"aaaaaaaa-0000-4000-8000-000000000001","status":"ok",` +
				`"at":"2026-11-23T00:02:03Z","secret_name":"entra/connections/default/c00002"}`},
	}; !reflect.DeepEqual(got, want) {
		t.Errorf("events\n got %+v\nwant %+v", got, want)
	}
}

// A mass refusal goes out in batches while it happens.
func TestManyEvents(t *testing.T) {
	const workers, each = 32, 157
	b := start(t)
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() { b.refuse(w*each, (w+1)*each) })
	}
	group.Wait()
	batches := slices.Repeat([]int{10}, workers*each/10)
	b.want(batches, workers*each/10*10, "")
	b.Flush(t.Context())
	b.want(append(batches, workers*each%10), workers*each, "")
	seen := make(map[string]bool)
	for _, event := range b.server.Events() {
		seen[event.Resources[0]] = true
	}
	if len(seen) != workers*each {
		t.Errorf("there are events of %d connections, want %d", len(seen), workers*each)
	}
}

// Entries that EventBridge does not take are sent once more, and only those.
func TestEntriesThatAreNotTaken(t *testing.T) {
	b := start(t)
	b.server.Fail(eventbridgetest.Fault{Error: "ThrottlingException", Entries: 4, Times: 1})
	b.refuse(0, 10)
	b.Flush(t.Context())
	b.want([]int{10, 4}, 10, "")
	b.server.Fail(eventbridgetest.Fault{Error: "InternalFailure", Entries: 2, Times: 2})
	b.refuse(10, 15)
	b.Flush(t.Context())
	b.want([]int{10, 4, 5, 2}, 13, lost(2, "InternalFailure"))
}

// When EventBridge fails three times in a row, it is left alone until the next invocation. The log
// has one line, which quotes nothing of an error's text.
func TestEventBridgeThatFails(t *testing.T) {
	for code, fault := range map[string]eventbridgetest.Fault{
		"AccessDeniedException": {Error: "AccessDeniedException"},
		"ThrottlingException":   {Error: "ThrottlingException"},
		"unreachable":           {Drop: true},
	} {
		b := start(t)
		b.server.Fail(fault)
		b.refuse(0, 1000)
		b.Flush(t.Context())
		b.want([]int{10, 10, 10}, 0, lost(1000, code))
		b.server.ClearFaults()
		b.refuse(1000, 1001)
		b.Flush(t.Context())
		b.want([]int{10, 10, 10, 1}, 1, "")
	}
}

// A call that fails now and then does not stop the events after it.
func TestAFailureAmongSuccesses(t *testing.T) {
	b := start(t)
	for i := range 5 {
		b.server.Fail(eventbridgetest.Fault{Error: "ThrottlingException", Times: 1})
		b.refuse(20*i, 20*i+20)
	}
	b.Flush(t.Context())
	b.want(slices.Repeat([]int{10}, 10), 50, lost(50, "ThrottlingException"))
}

// An EventBridge that hangs costs half of the time left, not all of it.
func TestFlushLeavesTime(t *testing.T) {
	b := start(t)
	b.server.Fail(eventbridgetest.Fault{Delay: time.Minute})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	b.Changed(ctx, refused(1))
	b.Flush(ctx)
	if ctx.Err() != nil {
		t.Error("no time is left")
	}
	b.want([]int{1}, 0, lost(1, "timeout"))
}
