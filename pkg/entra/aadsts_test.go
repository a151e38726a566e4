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
		entra.Unsettled: {7000215, 70002, 7000222, 700027, 70021, 700211, 700212, 700213, 7002131, 700016, 7000229, 700011, 500011, 65001, 650056, 90094},
		entra.Refused: {1000502, 7000214, 7000213, 7000216, 7000218, 700025, 50012, 700030, 50048, 50027, 50013, 500133, 700024, 700229,
			7000112, 70001, 1000031, 90002, 900023, 90019, 50059, 50128, 9001023, 90124, 90130, 50194, 90038, 900382, 900432, 500021, 500022,
			70011, 1002012, 28002, 28003, 700022, 700023, 901002, 500014, 650052, 650054, 650057, 50001, 501051,
			53003, 53000, 53001, 530032, 90036, 90092, 50000, 123456789},
		entra.Throttled:   {50196, 90055},
		entra.Unavailable: {50166, 90061, 501661, 7002381, 90085, 90033, 90006, 90012, 90024, 50033, 90090, 90091, 40010, 50087},
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
			if own := !strings.Contains(e.Title, "(error "); own != (code != 123456789) {
				t.Errorf("%d has advice of its own: %t: %s", code, own, e.Title)
			}
		}
	}
}

// What an answer says beside a code that nobody knows is not lost, and of several codes the one that says
// most counts.
func TestAnswersWithOddCodes(t *testing.T) {
	w := newWorld(t)
	for name, tt := range map[string]struct{ body, code, title string }{
		"unknown code":         {`{"error":"invalid_client","error_codes":[7999999]}`, "AADSTS7999999", "Entra does not accept the app's credential (error 7999999)"},
		"unknown, unknown":     {`{"error":"new_error","error_codes":[7999999]}`, "AADSTS7999999", "Entra refused the request (error 7999999)"},
		"general before":       {`{"error":"invalid_client","error_codes":[70002,50012]}`, "AADSTS50012", "Entra does not accept the client assertion"},
		"general behind":       {`{"error":"invalid_client","error_codes":[50012,70002]}`, "AADSTS50012", "Entra does not accept the client assertion"},
		"unknown before":       {`{"error":"invalid_client","error_codes":[7999999,7000215]}`, "AADSTS7000215", "The client secret is wrong"},
		"two that say as much": {`{"error":"invalid_client","error_codes":[7000222,7000215]}`, "AADSTS7000222", "The client secret has expired"},
		"passing, in words":    {`{"error":"temporarily_unavailable"}`, "temporarily_unavailable", "Entra is not available"},
	} {
		w.entra.Fail(entratest.Fault{Times: 1, Response: entratest.Raw(400, "application/json", tt.body)})
		_, err := ask(t.Context(), w.client)
		if e := asEntraError(t, err); e.Code != tt.code || e.Title != tt.title {
			t.Errorf("%s: code %s, title %q, want %s, %q", name, e.Code, e.Title, tt.code, tt.title)
		}
	}
}

// A secret's ID in place of the secret is told at once.
func TestSecretID(t *testing.T) {
	w := newWorld(t)
	app := registration
	app.Credential.ClientSecret = entra.NewSecret(tenantB)
	_, err := w.client.Token(t.Context(), app, graph, tenantA)
	if e := asEntraError(t, err); e.Class != entra.Refused || !strings.Contains(e.Title, "secret's ID") {
		t.Errorf("class %s, %s", e.Class, e.Title)
	}
}
