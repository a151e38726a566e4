package signals

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"

	"entra-connector/internal/awserr"
	"entra-connector/internal/connector"
	"entra-connector/pkg/entra"
)

// The source of all events, and their detail-types.
const (
	Source    = "entra-connector"
	Refused   = "entra.connection.refused"
	Recovered = "entra.connection.recovered"
	Accepted  = "entra.connection.connected" // an invitation was
)

const (
	// batchSize is the most that PutEvents takes. Ten of these events are far below its limit in
	// bytes: each part of an entry is bounded, and an entry has a few KB.
	batchSize = 10
	// sendTime is the limit for publishing one batch, the SDK's retries included.
	sendTime = 5 * time.Second
	// maxFailures is after how many failed calls in a row EventBridge is left alone, so that it
	// cannot cost a sweep with many refusals all its time.
	maxFailures = 3
)

// Detail is what an event says about a connection. Code and the fields after it are only set for a
// refused one.
type Detail struct {
	App        string           `json:"app"`
	Connection string           `json:"connection"`
	TenantID   string           `json:"tenant_id"`
	Status     connector.Status `json:"status"`
	At         time.Time        `json:"at,omitzero"` // of the refusal, or of the refresh that ended it
	SecretName string           `json:"secret_name"`
	Code       string           `json:"code,omitempty"`
	entra.Advice
	ConsentURL    string `json:"consent_url,omitempty"`
	TraceID       string `json:"trace_id,omitempty"`
	CorrelationID string `json:"correlation_id,omitempty"`
}

// Events publishes changes of connections' status on an EventBridge bus. A nil *Events publishes
// nothing. It is safe for concurrent use.
//
// An event may come twice. If EventBridge fails, it does not come at all: the log says so, and the
// connection's status still says what the event would have said.
type Events struct {
	client *eventbridge.Client
	bus    string
	log    *slog.Logger

	mu       sync.Mutex
	batch    []types.PutEventsRequestEntry
	failures int    // failed calls in a row
	lost     int    // events since the last Flush
	code     string // AWS's, for the last event that was lost
}

// NewEvents returns an Events for a bus, given by name or ARN.
func NewEvents(client *eventbridge.Client, bus string, log *slog.Logger) *Events {
	return &Events{client: client, bus: bus, log: log}
}

// Changed queues the event of a connection whose status has changed. The caller that fills a batch
// sends it, so that the queue stays short. [Events.Flush] sends the rest.
func (e *Events) Changed(ctx context.Context, c connector.Connection) {
	kind := Recovered
	if c.Status() == connector.StatusRefused {
		kind = Refused
	}
	e.queue(ctx, kind, c)
}

// Connected queues the event of a connection whose invitation has been accepted.
func (e *Events) Connected(ctx context.Context, c connector.Connection) { e.queue(ctx, Accepted, c) }

func (e *Events) queue(ctx context.Context, kind string, c connector.Connection) {
	if e == nil {
		return
	}
	e.publish(ctx, e.take(batchSize, e.entry(kind, c)))
}

// Flush publishes the events that still wait, within half of the context's time. It logs how many
// events were lost since the last Flush. Call it at the end of each invocation, since nothing runs
// until the next one.
func (e *Events) Flush(ctx context.Context) {
	if e == nil {
		return
	}
	limited, cancel := context.WithCancel(ctx)
	if deadline, ok := ctx.Deadline(); ok {
		limited, cancel = context.WithTimeout(ctx, time.Until(deadline)/2)
	}
	defer cancel()
	e.publish(limited, e.take(1))

	e.mu.Lock()
	defer e.mu.Unlock()
	if e.lost > 0 {
		e.log.ErrorContext(ctx, "events not published", "events", e.lost, "code", e.code)
	}
	e.failures, e.lost, e.code = 0, 0, ""
}

func (e *Events) entry(kind string, c connector.Connection) types.PutEventsRequestEntry {
	at := c.RefreshedAt
	d := Detail{App: c.App, Connection: c.Name, TenantID: c.TenantID, Status: c.Status(), SecretName: c.SecretName}
	if kind == Refused {
		f := c.Failure
		at = f.At
		d.Code, d.Advice, d.ConsentURL, d.TraceID, d.CorrelationID = f.Code, f.Advice, f.ConsentURL, f.TraceID, f.CorrelationID
	}
	d.At = at.UTC().Truncate(time.Second)
	detail, err := json.Marshal(d)
	if err != nil {
		panic(err) // strings and times only
	}
	entry := types.PutEventsRequestEntry{
		EventBusName: &e.bus, Source: aws.String(Source), DetailType: aws.String(kind), Detail: aws.String(string(detail)),
	}
	if c.SecretARN != "" {
		entry.Resources = []string{c.SecretARN}
	}
	return entry
}

// take adds events to the batch, and empties it if it has at least so many. After maxFailures it
// drops them.
func (e *Events) take(atLeast int, more ...types.PutEventsRequestEntry) (batch []types.PutEventsRequestEntry) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.batch = append(e.batch, more...); len(e.batch) < atLeast {
		return nil
	}
	batch, e.batch = e.batch, nil
	if e.failures >= maxFailures {
		e.lost += len(batch)
		return nil
	}
	return batch
}

// publish sends a batch. It sends entries that EventBridge did not take once more. It does not
// repeat a call that failed as a whole, since the SDK has done that.
func (e *Events) publish(ctx context.Context, batch []types.PutEventsRequestEntry) {
	if len(batch) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	left, code, err := e.send(ctx, batch)
	if err == nil && len(left) > 0 {
		left, code, err = e.send(ctx, left)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.failures++
	if err == nil {
		e.failures = 0
	}
	if len(left) > 0 {
		e.lost, e.code = e.lost+len(left), code
	}
}

// send returns the entries that were not taken, with AWS's code for the last of them, or for all if
// the call failed. It drops an error's text, since that names accounts and ARNs.
func (e *Events) send(ctx context.Context, entries []types.PutEventsRequestEntry) (left []types.PutEventsRequestEntry, code string, err error) {
	out, err := e.client.PutEvents(ctx, &eventbridge.PutEventsInput{Entries: entries})
	if err != nil {
		return entries, awserr.Code(err), err
	}
	for i, result := range out.Entries[:min(len(out.Entries), len(entries))] {
		if result.ErrorCode != nil {
			left, code = append(left, entries[i]), *result.ErrorCode
		}
	}
	return left, code, nil
}
