package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
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

// metricsOf returns the metrics that a sweep leaves, by name and any dimensions besides the
// function. How long the sweep took is left out.
func metricsOf(t *testing.T, c *Connector, event string) map[string]float64 {
	t.Helper()
	metrics := cloudwatchtest.Metrics{}
	if err := metrics.Read(said(c, func() { sweep(t, c, event) }), time.Time{}); err != nil {
		t.Fatal(err)
	}
	short := make(map[string]float64)
	for key, points := range metrics {
		if len(points) != 1 {
			t.Errorf("%s has %d values", key, len(points))
		}
		short[strings.Replace(strings.TrimPrefix(key, "EntraConnector "), " FunctionName=RefreshFunction", "", 1)] = points[0].Value
	}
	delete(short, "SweepDuration")
	return short
}

func TestMetricsAfterSweeps(t *testing.T) {
	t.Parallel()
	// Alarms depend on the metrics, whatever the log level.
	c := Start(t, stack.Options{Env: []string{"LOG_LEVEL=ERROR"}})
	// check sweeps and compares the metrics. Those that are not named are 0, apart from
	// ShortestLife: it is at most a minute less than left, if left is not zero.
	check := func(step, event string, left time.Duration, changes map[string]float64) {
		t.Helper()
		want := map[string]float64{"SweepsSucceeded": 1, "Checked": 3, "Due": 0, "Refreshed": 0, "Failed": 0, "Waiting": 0, "Deferred": 0,
			"Refused": 0, "NewRefusals": 0, "Recovered": 0, "ExpiringCredentials": 1, "StaleEntries": 0}
		maps.Copy(want, changes)
		got := metricsOf(t, c, event)
		if life := got["ShortestLife"]; left != 0 && (life > left.Seconds() || life <= left.Seconds()-60) {
			t.Errorf("%s: the shortest life is %v, want %v", step, life, left.Seconds())
		}
		if delete(got, "ShortestLife"); !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %v\nwant %v", step, got, want)
		}
	}
	check("there is nothing", `{}`, 0, map[string]float64{"Checked": 0, "ExpiringCredentials": 0})
	provision(t, c)
	soon := time.Now().AddDate(0, 0, 20).UTC().Format(time.RFC3339)
	c.Call("POST", "/connections", Body("app", "other", "client_id", OtherID, "connection", "c", "client_secret_expires_at", soon)).Want(t, 201)
	age(t, c, "default/a", 40*time.Minute)
	check("nothing is due", `{}`, 40*time.Minute, nil)

	// One is refused, one fails for a reason that passes, one cannot be stored.
	c.Entra.Fail(entratest.Fault{Tenant: TenantA, ClientID: ClientID, Response: entratest.Refused(7000112)})
	c.Entra.Fail(entratest.Fault{Tenant: TenantB, ClientID: ClientID, Response: entratest.Throttled("600")})
	c.Secrets.Fail(secretstoretest.Fault{Op: "UpdateSecret", Secret: "entra/connections/other/c", Error: "ThrottlingException"})
	age(t, c, "default/a", 5*time.Minute) // which does not count, since it needs a person
	age(t, c, "default/b", 20*time.Minute)
	age(t, c, "other/c", 10*time.Minute)
	check("all fail", `{"force":true}`, 10*time.Minute, map[string]float64{"Due": 3, "Failed": 3, "Refused": 1, "NewRefusals": 1,
		"Failed Class=refused": 1, "Failed Class=throttled": 1, "Failed Class=store": 1,
		"Failed App=default": 2, "Refused App=default": 1, "Failed App=other": 1, "Refused App=other": 0})
	c.Secrets.ClearFaults()
	check("refused again, which is not new", `{"force":true}`, 0, map[string]float64{"Due": 3, "Refreshed": 1, "Failed": 2, "Refused": 1,
		"Failed Class=refused": 1, "Failed Class=throttled": 1, "Failed App=default": 2, "Refused App=default": 1})
	check("while they wait", `{}`, 0, map[string]float64{"Waiting": 2, "Refused": 1, "Failed App=default": 0, "Refused App=default": 1})
	c.Entra.ClearFaults()
	check("the trouble is over", `{"force":true}`, 0, map[string]float64{"Due": 3, "Refreshed": 3, "Recovered": 1})
}

// A sweep over some connections, or one that could not do its work, leaves no metrics, since they
// would not be about everything. If a sweep could not list everything, it was not a success.
func TestMetricsOfIncompleteSweeps(t *testing.T) {
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
		c.Clone("default/a", fmt.Sprintf("default/n%03d", i))
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

// There is one event when a connection comes to need a person and one when it recovers, whether a
// sweep finds out or somebody who refreshes by hand.
func TestEventsOnChanges(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	provision(t, c)
	byHand := func(status int) { c.Call("POST", "/connections/default/a/refresh", "").Want(t, status) }
	sweeps := func(int) { sweep(t, c, `{"force":true}`) }
	for _, step := range []struct {
		name    string
		refused bool
		refresh func(status int)
		want    string // the detail-type of the new event, if there is one
	}{
		{name: "still well", refresh: sweeps},
		{name: "refused in a sweep", refused: true, refresh: sweeps, want: "entra.connection.refused"},
		{name: "refused again", refused: true, refresh: sweeps},
		{name: "refused again by hand", refused: true, refresh: byHand},
		{name: "well in a sweep", refresh: sweeps, want: "entra.connection.recovered"},
		{name: "well again", refresh: sweeps},
		{name: "refused by hand", refused: true, refresh: byHand, want: "entra.connection.refused"},
		{name: "well by hand", refresh: byHand, want: "entra.connection.recovered"},
	} {
		before, status := len(c.Events.Events()), 200
		c.Entra.ClearFaults()
		c.Entra.Fail(entratest.Fault{Tenant: TenantB, Response: entratest.Throttled("1")}) // nobody has to act
		if step.refused {
			status = 422
			c.Entra.Fail(entratest.Fault{Tenant: TenantA, Response: entratest.Refused(7000112)})
		}
		step.refresh(status)
		events := c.Events.Events()[before:]
		if step.want == "" && len(events) == 0 {
			continue
		}
		if len(events) != 1 {
			t.Fatalf("%s: events %+v", step.name, events)
		}
		shown := c.Call("GET", "/connections/default/a", "").Want(t, 200).JSON(t)
		secret := shown["secret"]
		want := map[string]any{"app": "default", "connection": "a", "tenant_id": TenantA, "status": shown["status"], "secret_name": Text(secret, "name")}
		if step.refused {
			maps.Copy(want, shown["error"].(map[string]any))
		} else {
			want["at"] = shown["refreshed_at"]
		}
		var detail map[string]any
		if err := json.Unmarshal([]byte(events[0].Detail), &detail); err != nil || !reflect.DeepEqual(detail, want) {
			t.Errorf("%s: the event says\n     %v\nwant %v", step.name, detail, want)
		}
		event := eventbridgetest.Event{Bus: "default", Source: "entra-connector", DetailType: step.want, Resources: []string{Text(secret, "arn")}}
		if events[0].Detail = ""; !reflect.DeepEqual(events[0], event) {
			t.Errorf("%s: got %+v, want %+v", step.name, events[0], event)
		}
	}
}

// An EventBridge that fails changes nothing but the log. Without EVENT_BUS it is not asked.
func TestEventBridgeIsDown(t *testing.T) {
	t.Parallel()
	for bus, requests := range map[string]int{"default": 2, "": 0} {
		c := Start(t, stack.Options{Env: []string{"EVENT_BUS=" + bus}})
		provision(t, c)
		c.Events.Fail(eventbridgetest.Fault{Error: "AccessDeniedException"})
		c.Entra.Fail(entratest.Fault{Tenant: TenantA, Response: entratest.Refused(7000112)})
		log := said(c, func() {
			const want = `{"checked":2,"due":2,"refreshed":1,"failed":1,"waiting":0,"deferred":0,` +
				`"failures":[{"connection":"default/a","code":"AADSTS7000112","status":"refused"}]}`
			if got := sweep(t, c, `{"force":true}`); got != want {
				t.Errorf("the sweep answers\n     %s\nwant %s", got, want)
			}
			c.Entra.ClearFaults()
			c.Call("POST", "/connections/default/a/refresh", "").Want(t, 200)
		})
		const line = `"level":"ERROR","message":"events not published","events":1,"code":"AccessDeniedException"`
		if n := len(c.Events.Requests()); n != requests || strings.Count(log, line) != requests || strings.Count(log, "not published") != requests {
			t.Errorf("%d requests with EVENT_BUS=%s, logged %s", n, bus, log)
		}
	}
}
