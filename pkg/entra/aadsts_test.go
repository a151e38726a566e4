package entra_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"entra-connector/pkg/entra"
	"entra-connector/pkg/entra/entratest"
)

// Every code that the grant can meet lands in the class that says what the next
// sweeps do, and tells a person what to do.
func TestEveryCodeIsClassedAndExplained(t *testing.T) {
	codes := map[entra.Class][]int{
		entra.Unsettled: {7000215, 70002, 700027, 70021, 700211, 700212, 700213, 7002131, 700016, 7000229, 700011, 500011, 65001, 650056, 90094},
		entra.Refused: {7000222, 7000216, 7000218, 700025, 50012, 700030, 50048, 50027, 50013, 500133, 700024, 700229,
			7000112, 70001, 1000031, 90002, 900023, 90019, 50059, 50128, 9001023, 90124, 90130, 50194, 90038, 900382, 900432, 500021, 500022,
			70011, 1002012, 28002, 28003, 700022, 700023, 901002, 500014, 650052, 650054, 650057, 50001, 501051,
			53003, 530032, 90036, 90092, 50000, 123456789},
		entra.Throttled:   {50196, 90055},
		entra.Unavailable: {90033, 90006, 90012, 90024, 50033, 90090, 90091, 40010, 50087},
	}
	w := newWorld(t)
	c := w.provision(t, tenantA)
	w.clock.advance(2 * time.Hour) // due, and long after the app changed
	for class, list := range codes {
		for _, code := range list {
			// With a status that tells nothing more, it is the code that decides.
			w.entra.ClearFaults()
			w.entra.Fail(entratest.Fault{Response: entratest.Raw(http.StatusBadRequest, "application/json", fmt.Sprintf(
				`{"error":"invalid_request","error_codes":[%d],"trace_id":"%s","correlation_id":"%s"}`, code, tenantA, tenantB))})
			_, err := w.client.Token(t.Context(), w.app(), tenantA)
			refused := asEntraError(t, err)
			if refused.Class != class || refused.Code != "AADSTS"+strconv.Itoa(code) {
				t.Errorf("%d: class %d, code %s, want class %d", code, refused.Class, refused.Code, class)
			}
			if refused.TraceID != tenantA || refused.CorrelationID != tenantB {
				t.Errorf("%d: trace ID %s, correlation ID %s", code, refused.TraceID, refused.CorrelationID)
			}
			if refused.Title() == "" || !strings.HasSuffix(refused.Action(), ".") {
				t.Errorf("%d: title %q, action %q", code, refused.Title(), refused.Action())
			}
			if code != 123456789 && strings.Contains(refused.Action(), "Look up") {
				t.Errorf("%d has no advice of its own", code)
			}
			// What sweeps do: what passes is tried again by the next, what does not waits.
			status, next := entra.NeedsPerson, entra.SweepReport{Checked: 1, Waiting: 1, Failures: []entra.SweepFailure{}}
			if class == entra.Throttled || class == entra.Unavailable {
				status = entra.Retrying
				next = entra.SweepReport{Checked: 1, Due: 1, Failed: 1, Failures: []entra.SweepFailure{{Connection: c.String(), Code: refused.Code, Status: status}}}
			}
			w.force(t)
			if got := w.connection(t, c.ConnectionRef).Status(); got != status {
				t.Errorf("%d: the connection is %s, want %s", code, got, status)
			}
			checkReport(t, strconv.Itoa(code), w.sweep(t), next)
		}
	}
	if unknown := entra.Explain("AADSTS123456789"); !strings.Contains(unknown.Action, "123456789") {
		t.Errorf("advice for an unknown code does not name it: %q", unknown.Action)
	}
}

func TestUnsettledRefusalsPassForFifteenMinutes(t *testing.T) {
	changed := time.Date(2026, 11, 23, 1, 0, 0, 0, time.UTC)
	tests := []struct {
		class entra.Class
		after time.Duration
		want  bool
	}{
		{entra.Refused, 0, false},
		{entra.Unsettled, 0, true},
		{entra.Unsettled, 15*time.Minute - 1, true},
		{entra.Unsettled, 15 * time.Minute, false},
		{entra.Throttled, 24 * time.Hour, true},
		{entra.Unavailable, 24 * time.Hour, true},
		{entra.Timeout, 24 * time.Hour, true},
		{entra.Malformed, 24 * time.Hour, true},
	}
	for _, tt := range tests {
		e := &entra.Error{Class: tt.class}
		if got := e.Passes(changed.Add(tt.after), changed); got != tt.want {
			t.Errorf("class %d passes %v after the change: %t, want %t", tt.class, tt.after, got, tt.want)
		}
	}
}
