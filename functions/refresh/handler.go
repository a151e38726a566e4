package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"entra-connector/internal/connector"
	"entra-connector/internal/signals"
)

type handler struct {
	sweeper *connector.Sweeper
	metrics signals.Metrics
	events  *signals.Events
	log     *slog.Logger
}

// EventError reports an event that asks for something in the wrong form. Lambda publishes the
// type's name.
type EventError struct{ detail string }

func (e *EventError) Error() string { return e.detail }

// SweepError reports a sweep that could not do its work at all.
type SweepError struct{ cause error }

func (e *SweepError) Error() string { return "sweep failed: " + e.cause.Error() }

func (h handler) handle(ctx context.Context, event json.RawMessage) (connector.SweepReport, error) {
	request, err := parse(event)
	if err != nil {
		return connector.SweepReport{}, err
	}
	start := time.Now()
	report, err := h.sweeper.Sweep(ctx, request)
	defer h.events.Flush(ctx)
	if err != nil {
		h.log.ErrorContext(ctx, "sweep failed", "error", err.Error())
		return connector.SweepReport{}, &SweepError{err}
	}
	took := time.Since(start)
	if request.Only == nil { // of a few connections, metrics would say nothing
		h.metrics.Sweep(ctx, report, took)
	}
	h.log.InfoContext(ctx, "sweep done",
		"checked", report.Checked, "due", report.Due, "refreshed", report.Refreshed, "failed", report.Failed,
		"waiting", report.Waiting, "deferred", report.Deferred, "incomplete", report.Incomplete,
		"duration_ms", took.Milliseconds())
	return report, nil
}

// parse reads what an event asks for. Any event without the two fields, such as the scheduler's, is
// a scheduled sweep.
func parse(event json.RawMessage) (connector.SweepRequest, error) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(event, &fields) != nil {
		return connector.SweepRequest{}, nil
	}
	var request connector.SweepRequest
	if raw, ok := fields["force"]; ok && json.Unmarshal(raw, &request.Force) != nil {
		return connector.SweepRequest{}, &EventError{"force must be true or false"}
	}
	raw, ok := fields["connections"]
	if !ok {
		return request, nil
	}
	var names []string
	if json.Unmarshal(raw, &names) != nil || names == nil {
		// Null is not a list. A program that sends an empty one by mistake must not refresh
		// everything.
		return connector.SweepRequest{}, &EventError{`connections must be a list of "app/connection"`}
	}
	request.Only = []connector.ConnectionRef{}
	for i, name := range names {
		ref, err := connector.ParseConnectionRef(name)
		if err != nil {
			return connector.SweepRequest{}, &EventError{fmt.Sprintf("connections[%d] %v", i, err)}
		}
		request.Only = append(request.Only, ref)
	}
	return request, nil
}
