package main

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/signals/cloudwatchtest"
	"entra-connector/internal/signals/eventbridgetest"
	"entra-connector/internal/stack"
	. "entra-connector/internal/stack/stacktest"
	"entra-connector/pkg/entra/entratest"
)

// said is what the functions print while do runs.
func said(c *Connector, do func()) string {
	before := len(c.Output())
	do()
	return c.Output()[before:]
}

// lines are those of a log whose message it is.
func lines(log, message string) (found []map[string]any) {
	for line := range strings.Lines(log) {
		var fields map[string]any
		if json.Unmarshal([]byte(line), &fields) == nil && fields["message"] == message {
			found = append(found, fields)
		}
	}
	return found
}

// metricsOf are the metrics that a sweep leaves: the function's, and under their
// dimension those of classes and apps. How long it took is left out.
func metricsOf(t *testing.T, c *Connector, event string) map[string]float64 {
	t.Helper()
	var metrics cloudwatchtest.Metrics
	if err := metrics.Read(said(c, func() { sweep(t, c, event) }), time.Time{}); err != nil {
		t.Fatal(err)
	}
	short := make(map[string]float64)
	for name, values := range metrics.All() {
		name = strings.Replace(strings.TrimPrefix(name, "EntraConnector "), " FunctionName=RefreshFunction", "", 1)
		if len(values) != 1 {
			t.Errorf("%s has %d values", name, len(values))
		}
		short[name] = values[0]
	}
	if _, timed := short["SweepDuration"]; timed != (len(short) > 0) {
		t.Errorf("metrics %v", short)
	}
	delete(short, "SweepDuration")
	return short
}

// life takes out the metric that depends on the clock, and reports whether it is
// what is left of a token, but for what the test itself took.
func life(metrics map[string]float64, left time.Duration) bool {
	got, ok := metrics["ShortestLife"]
	delete(metrics, "ShortestLife")
	return ok && got <= left.Seconds() && got > left.Seconds()-60
}

func TestMetricsAfterSweeps(t *testing.T) {
	t.Parallel()
	// Alarms depend on them, whatever is logged.
	c := Start(t, stack.Options{Env: []string{"LOG_LEVEL=ERROR"}})
	counts := func(changes map[string]float64) map[string]float64 {
		all := map[string]float64{"SweepsSucceeded": 1, "Checked": 0, "Due": 0, "Refreshed": 0, "Failed": 0, "Waiting": 0, "Deferred": 0,
			"Refused": 0, "NewRefusals": 0, "Recovered": 0, "ExpiringCredentials": 0, "StaleEntries": 0}
		for name, n := range changes {
			all[name] = n
		}
		return all
	}
	if got, want := metricsOf(t, c, `{}`), counts(nil); !reflect.DeepEqual(got, want) {
		t.Errorf("of nothing:\n got %v\nwant %v", got, want)
	}
	provision(t, c)
	soon := time.Now().AddDate(0, 0, 20).UTC().Format(time.RFC3339)
	c.Call("POST", "/connections", Body("app", "other", "client_id", OtherID, "connection", "c", "client_secret_expires_at", soon)).Want(t, 201)
	age(t, c, "default/a", 40*time.Minute)
	got := metricsOf(t, c, `{}`)
	if !life(got, 40*time.Minute) {
		t.Error("the shortest life is not that of default/a")
	}
	if want := counts(map[string]float64{"Checked": 3, "ExpiringCredentials": 1}); !reflect.DeepEqual(got, want) {
		t.Errorf("nothing is due:\n got %v\nwant %v", got, want)
	}

	// One is refused, one fails for a reason that passes, one cannot be stored.
	c.Entra.Fail(entratest.Fault{Tenant: TenantA, ClientID: ClientID, Response: entratest.Refused(7000112)})
	c.Entra.Fail(entratest.Fault{Tenant: TenantB, ClientID: ClientID, Response: entratest.Throttled("600")})
	c.Secrets.Fail(secretstoretest.Fault{Op: "UpdateSecret", Secret: "entra/connections/other/c", Error: "ThrottlingException"})
	age(t, c, "default/b", 20*time.Minute)
	age(t, c, "other/c", 10*time.Minute)
	got = metricsOf(t, c, `{"force":true}`)
	if !life(got, 10*time.Minute) {
		t.Error("the shortest life is not that of other/c, which needs nobody")
	}
	if want := counts(map[string]float64{"Checked": 3, "Due": 3, "Failed": 3, "Refused": 1, "NewRefusals": 1, "ExpiringCredentials": 1,
		"Failed Class=refused": 1, "Failed Class=throttled": 1, "Failed Class=store": 1,
		"Failed App=default": 2, "Refused App=default": 1, "Failed App=other": 1, "Refused App=other": 0,
	}); !reflect.DeepEqual(got, want) {
		t.Errorf("all fail:\n got %v\nwant %v", got, want)
	}

	// Refused again is no new refusal; what waits is still refused.
	c.Secrets.ClearFaults()
	got = metricsOf(t, c, `{"force":true}`)
	life(got, 0)
	if want := counts(map[string]float64{"Checked": 3, "Due": 3, "Refreshed": 1, "Failed": 2, "Refused": 1, "ExpiringCredentials": 1,
		"Failed Class=refused": 1, "Failed Class=throttled": 1, "Failed App=default": 2, "Refused App=default": 1,
	}); !reflect.DeepEqual(got, want) {
		t.Errorf("again:\n got %v\nwant %v", got, want)
	}
	got = metricsOf(t, c, `{}`)
	life(got, 0)
	if want := counts(map[string]float64{"Checked": 3, "Waiting": 2, "Refused": 1, "ExpiringCredentials": 1,
		"Failed App=default": 0, "Refused App=default": 1}); !reflect.DeepEqual(got, want) {
		t.Errorf("they wait:\n got %v\nwant %v", got, want)
	}
	c.Entra.ClearFaults()
	got = metricsOf(t, c, `{"force":true}`)
	life(got, 0)
	if want := counts(map[string]float64{"Checked": 3, "Due": 3, "Refreshed": 3, "Recovered": 1, "ExpiringCredentials": 1}); !reflect.DeepEqual(got, want) {
		t.Errorf("mended:\n got %v\nwant %v", got, want)
	}
}

// A sweep that is about some connections, or could not do its work, says nothing
// of the whole; one whose listing broke off is no success.
func TestMetricsOfNoFullSweep(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	provision(t, c)
	for _, event := range []string{`{"connections":["default/a"]}`, `{"connections":[],"force":true}`} {
		if got := metricsOf(t, c, event); len(got) > 0 {
			t.Errorf("%s leaves %v", event, got)
		}
	}
	c.Secrets.Fail(secretstoretest.Fault{Op: "ListSecrets", Times: 1, Error: "AccessDeniedException"})
	if log := said(c, func() { c.Invoke(c.Refresh, `{}`) }); strings.Contains(log, "_aws") {
		t.Errorf("a sweep that could not list leaves metrics: %s", log)
	}

	for i := range 150 {
		c.Clone("default/a", "default/n"+string(rune('a'+i/26))+string(rune('a'+i%26)))
	}
	// The first page comes, the second does not.
	c.Secrets.Fail(secretstoretest.Fault{Op: "ListSecrets", Times: 1, Delay: time.Millisecond})
	c.Secrets.Fail(secretstoretest.Fault{Op: "ListSecrets", Times: 1, Error: "InternalServiceError"})
	got := metricsOf(t, c, `{}`)
	if _, succeeded := got["SweepsSucceeded"]; succeeded || got["Checked"] != 100 {
		t.Errorf("a sweep whose listing broke off leaves %v", got)
	}
	if got := metricsOf(t, c, `{}`); got["SweepsSucceeded"] != 1 || got["Checked"] != 152 {
		t.Errorf("the next one leaves %v", got)
	}
}

// detail is what an event says, but for when it happened and how Entra names it.
func detail(t *testing.T, event eventbridgetest.Event) map[string]any {
	t.Helper()
	var d map[string]any
	if err := json.Unmarshal([]byte(event.Detail), &d); err != nil {
		t.Fatal(err)
	}
	for _, member := range []string{"at", "trace_id", "correlation_id"} {
		if Text(d, member) == "" && (member == "at" || d["status"] == "refused") {
			t.Errorf("%s is missing in %s", member, event.Detail)
		}
		delete(d, member)
	}
	return d
}

// A connection that comes to need a person is told of once, and once when that
// is over, whoever finds out: the sweep or a person who refreshes by hand.
func TestEventsOnChanges(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	provision(t, c)
	if events := c.Events.Events(); len(events) > 0 {
		t.Fatalf("events of connections that are well: %v", events)
	}
	shown := c.Call("GET", "/connections/default/a", "").Want(t, 200).JSON(t)
	secret := shown["secret"].(map[string]any)
	var want []map[string]any
	check := func(step string) {
		t.Helper()
		events := c.Events.Events()
		if len(events) != len(want) {
			t.Fatalf("%s: %d events, want %d: %v", step, len(events), len(want), events)
		}
		if len(events) == 0 {
			return
		}
		last := events[len(events)-1]
		kind := "entra.connection.refused"
		if want[len(want)-1]["status"] == "ok" {
			kind = "entra.connection.recovered"
		}
		if got := detail(t, last); !reflect.DeepEqual(got, want[len(want)-1]) || last.DetailType != kind || last.Source != "entra-connector" ||
			last.Bus != "default" || !slices.Equal(last.Resources, []string{Text(secret, "arn")}) {
			t.Errorf("%s: event %+v\nwant %s %v", step, last, kind, want[len(want)-1])
		}
	}
	recovered := map[string]any{"app": "default", "connection": "a", "tenant_id": TenantA, "status": "ok", "secret_name": Text(secret, "name")}

	c.Entra.Fail(entratest.Fault{Tenant: TenantB, Response: entratest.Throttled("1")})
	c.Entra.Fail(entratest.Fault{Tenant: TenantA, Response: entratest.Refused(7000112)})
	sweep(t, c, `{"force":true}`)
	failure := c.Call("GET", "/connections/default/a", "").Want(t, 200).JSON(t)["error"]
	refused := map[string]any{"app": "default", "connection": "a", "tenant_id": TenantA, "status": "refused", "secret_name": Text(secret, "name"),
		"code": "AADSTS7000112", "title": Text(failure, "title"), "action": Text(failure, "action")}
	want = append(want, refused)
	check("refused")
	sweep(t, c, `{"force":true}`)
	sweep(t, c, `{}`)
	check("refused again")
	c.Call("POST", "/connections/default/a/refresh", "").Want(t, 422)
	check("refused by hand")
	c.Entra.ClearFaults()
	sweep(t, c, `{"force":true}`)
	want = append(want, recovered)
	check("mended")
	sweep(t, c, `{"force":true}`)
	check("well again")

	c.Entra.Fail(entratest.Fault{Tenant: TenantA, Response: entratest.Refused(7000112)})
	c.Call("POST", "/connections/default/a/refresh", "").Want(t, 422)
	want = append(want, refused)
	check("first refused by hand")
	c.Entra.ClearFaults()
	c.Call("POST", "/connections/default/a/refresh", "").Want(t, 200)
	want = append(want, recovered)
	check("mended by hand")
}

// An EventBridge that is out of order changes nothing but the log.
func TestEventBridgeIsDown(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]eventbridgetest.Fault{
		"fails":   {Error: "InternalException"},
		"refuses": {Error: "AccessDeniedException"},
		"cuts":    {Drop: true},
		"partial": {Error: "ThrottlingException", Entries: 10},
	} {
		var answers []string
		var events []string
		for _, fault := range []eventbridgetest.Fault{{Times: 1}, fault} {
			c := Start(t, stack.Options{})
			provision(t, c)
			c.Events.Fail(fault)
			c.Entra.Fail(entratest.Fault{Response: entratest.Refused(7000112)})
			log := said(c, func() { answers = append(answers, sorted(t, sweep(t, c, `{"force":true}`))) })
			var errors []string
			for _, line := range lines(log, "events not published") {
				errors = append(errors, Text(line, "level")+" "+Text(line, "code"))
			}
			events = append(events, strings.Join(errors, ", "))
			for _, word := range []string{"A fault", "arn:", "127.0.0.1"} {
				if strings.Contains(log, word) {
					t.Errorf("%s: %q is logged", name, word)
				}
			}
			reply := c.Call("POST", "/connections/default/a/refresh", "").Want(t, 422).JSON(t)
			if Text(reply, "code") != "AADSTS7000112" {
				t.Errorf("%s: the API answers %v", name, reply)
			}
		}
		code := map[string]string{"cuts": "unreachable"}[name]
		if code == "" {
			code = fault.Error
		}
		if want := []string{"", "ERROR " + code}; !slices.Equal(events, want) || answers[0] != answers[1] {
			t.Errorf("%s: logged %q, want %q; the sweep answers\n%s and\n%s", name, events, want, answers[0], answers[1])
		}
	}
}

// sorted is a sweep's answer with its failures in order.
func sorted(t *testing.T, answer string) string {
	t.Helper()
	var report struct {
		Checked, Due, Refreshed, Failed, Waiting, Deferred int
		Failures                                           []struct{ Connection, Code, Status string }
	}
	if err := json.Unmarshal([]byte(answer), &report); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(report.Failures, func(a, b struct{ Connection, Code, Status string }) int {
		return strings.Compare(a.Connection, b.Connection)
	})
	b, _ := json.Marshal(report)
	return string(b)
}

// Who does not ask for events pays nothing for them.
func TestNoEventsUnlessAskedFor(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{Env: []string{"EVENT_BUS="}})
	provision(t, c)
	c.Entra.Fail(entratest.Fault{Response: entratest.Refused(7000112)})
	sweep(t, c, `{"force":true}`)
	c.Call("POST", "/connections/default/a/refresh", "").Want(t, 422)
	if n := len(c.Events.Requests()); n > 0 {
		t.Errorf("EventBridge was asked %d times", n)
	}
}
