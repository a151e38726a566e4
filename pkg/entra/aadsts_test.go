package entra_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"entra-connector/pkg/entra"
	"entra-connector/pkg/entra/entratest"
)

// Every code that the grant can meet has a class, and tells a person what to do.
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
	for class, list := range codes {
		for _, code := range list {
			// With a status that tells nothing more, it is the code that decides.
			w.entra.ClearFaults()
			w.entra.Fail(entratest.Fault{Response: entratest.Raw(http.StatusBadRequest, "application/json", fmt.Sprintf(
				`{"error":"invalid_request","error_codes":[%d],"trace_id":"%s","correlation_id":"%s"}`, code, tenantA, tenantB))})
			_, err := ask(t.Context(), w.client)
			e := asEntraError(t, err)
			if e.Class != class || e.Code != "AADSTS"+strconv.Itoa(code) {
				t.Errorf("%d: class %s, code %s, want class %s", code, e.Class, e.Code, class)
			}
			if e.TraceID != tenantA || e.CorrelationID != tenantB {
				t.Errorf("%d: trace ID %s, correlation ID %s", code, e.TraceID, e.CorrelationID)
			}
			if e.Title == "" || !strings.HasSuffix(e.Action, ".") {
				t.Errorf("%d: title %q, action %q", code, e.Title, e.Action)
			}
			if code != 123456789 && strings.Contains(e.Action, "Look up") {
				t.Errorf("%d has no advice of its own", code)
			}
		}
	}
	if unknown := entra.Explain("AADSTS123456789"); !strings.Contains(unknown.Action, "123456789") {
		t.Errorf("advice for an unknown code does not name it: %q", unknown.Action)
	}
}
