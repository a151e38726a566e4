package connector_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"entra-connector/internal/connector"

	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/pkg/entra/entratest"
)

// changes collects what Changed is told.
type changes struct {
	mu   sync.Mutex
	told []string
}

func (c *changes) add(_ context.Context, connection connector.Connection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told = append(c.told, fmt.Sprint(connection.TenantID[:8], " ", connection.Status()))
}

// take returns what was told since, in order.
func (c *changes) take() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	told := c.told
	c.told = nil
	return strings.Join(told, ", ")
}

// People are told once that a connection needs them, and once that it does no
// more, whoever finds out.
func TestChangesAreToldOnce(t *testing.T) {
	w := newWorld(t)
	var told changes
	w.sweeper.Changed, w.provisioner.Changed, w.refresher.Changed = told.add, told.add, told.add
	a := w.provision(t, tenantA)
	w.provision(t, tenantB)
	w.clock.advance(time.Hour)
	expect := func(what, want string, newly, recovered int, report connector.SweepReport) {
		t.Helper()
		if got := told.take(); got != want {
			t.Errorf("%s: told %q, want %q", what, got, want)
		}
		if h := report.Health; h.NewlyRefused != newly || h.Recovered != recovered {
			t.Errorf("%s: %d newly refused and %d recovered, want %d and %d", what, h.NewlyRefused, h.Recovered, newly, recovered)
		}
	}
	refused, recovered := tenantA[:8]+" refused", tenantA[:8]+" ok"
	expect("healthy", "", 0, 0, w.force(t))

	w.entra.Fail(entratest.Fault{Tenant: tenantA, Response: entratest.HTML(503)})
	expect("what passes", "", 0, 0, w.force(t))
	w.entra.ClearFaults()
	w.entra.Fail(entratest.Fault{Tenant: tenantA, Response: entratest.Refused(7000222)})
	expect("refused", refused, 1, 0, w.force(t))
	since := w.connection(t, a.ConnectionRef).Failure.RefusedSince
	w.clock.advance(time.Minute)
	expect("refused again", "", 0, 0, w.force(t))
	if _, err := w.refresher.Refresh(t.Context(), a.ConnectionRef); err == nil {
		t.Error("a refresh by hand is not refused")
	}
	w.entra.ClearFaults()
	w.entra.Fail(entratest.Fault{Tenant: tenantA, Response: entratest.HTML(503)})
	w.clock.advance(time.Minute)
	if _, _, err := w.put(t.Context(), w.app()); err != nil {
		t.Fatal(err)
	}
	expect("between the two", "", 0, 0, w.force(t))
	if f := w.connection(t, a.ConnectionRef).Failure; f.Status != connector.StatusRetrying || !f.RefusedSince.Equal(since) {
		t.Errorf("between the two: %s, refused since %v, want %v", f.Status, f.RefusedSince, since)
	}
	w.entra.ClearFaults()
	expect("mended", recovered, 0, 1, w.force(t))
	expect("healthy again", "", 0, 0, w.force(t))

	refuse := entratest.Fault{Tenant: tenantA, Response: entratest.Refused(7000222)}
	for what, mend := range map[string]func() error{
		"by hand":           func() error { _, err := w.refresher.Refresh(t.Context(), a.ConnectionRef); return err },
		"provisioned again": func() error { w.provision(t, tenantA); return nil },
	} {
		w.entra.Fail(refuse)
		if _, err := w.refresher.Refresh(t.Context(), a.ConnectionRef); err == nil {
			t.Errorf("%s: a refresh is not refused", what)
		}
		w.entra.ClearFaults()
		if err := mend(); err != nil {
			t.Fatal(err)
		}
		expect(what, refused+", "+recovered, 0, 0, connector.SweepReport{})
	}

	// What is not recorded is told by the sweep that records it.
	w.entra.Fail(refuse)
	w.secrets.Fail(secretstoretest.Fault{Op: "UpdateSecret", Secret: a.SecretName, Error: "InternalServiceError", Times: 1})
	w.force(t)
	expect("not recorded", "", 0, 0, connector.SweepReport{})
	w.force(t)
	expect("recorded", refused, 0, 0, connector.SweepReport{})
}

// A refusal that the listing does not show yet is no news, and counts.
func TestRefusalsUnderLag(t *testing.T) {
	w := newWorldWith(t, secretstoretest.Options{ListLag: 5 * time.Minute})
	var told changes
	w.sweeper.Changed = told.add
	c := w.provision(t, tenantA)
	w.clock.advance(time.Hour)
	w.entra.Fail(entratest.Fault{Tenant: tenantA, Response: entratest.Refused(7000222)})
	w.sweep(t)
	since := w.clock.Now()
	w.clock.advance(time.Minute)
	if report := w.sweep(t); report.Failed != 1 || report.Health.NewlyRefused != 0 {
		t.Errorf("report %+v", report)
	}
	if got, want := told.take(), tenantA[:8]+" refused"; got != want {
		t.Errorf("told %q, want %q", got, want)
	}
	if f := w.connection(t, c.ConnectionRef).Failure; f.Refusals != 2 || !f.RefusedSince.Equal(since) {
		t.Errorf("%d refusals since %v, want 2 since %v", f.Refusals, f.RefusedSince, since)
	}
}

// What the metrics are made of.
func TestHealthAfterASweep(t *testing.T) {
	w := newWorld(t)
	a, b := w.provision(t, tenantA), w.provision(t, tenantB)
	value, _ := w.secrets.Value(a.SecretName)
	description, _ := w.secrets.Description(a.SecretName)
	w.secrets.Put("entra/connections/other/a", value, description) // of an app that is missing
	w.secrets.Put("entra/connections/default/unreadable", value, "by hand")
	check := func(what string, got connector.Health, want connector.Health) {
		t.Helper()
		if !maps.Equal(got.FailedBy, want.FailedBy) {
			t.Errorf("%s: failed by %v, want %v", what, got.FailedBy, want.FailedBy)
		}
		got.FailedBy, want.FailedBy = nil, nil
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}

	w.clock.advance(10 * time.Minute)
	report := w.sweep(t)
	left := 3599*time.Second - 10*time.Minute
	check("nothing due", report.Health, connector.Health{Refused: 1, NewlyRefused: 1, FailedBy: map[string]int{"refused": 1}, Healthy: 3, ShortestLife: left})
	check("nothing due, of one app", report.Apps["other"], connector.Health{Healthy: 1, ShortestLife: left})

	w.clock.advance(25 * time.Minute)
	left -= 25 * time.Minute
	w.entra.Fail(entratest.Fault{Tenant: tenantB, Response: entratest.Throttled("60")})
	report = w.sweep(t)
	check("one throttled, one without its app", report.Health, connector.Health{Refused: 2, NewlyRefused: 2, Healthy: 2, ShortestLife: left,
		FailedBy: map[string]int{"refused": 2, "throttled": 1}})
	check("without its app", report.Apps["other"], connector.Health{Refused: 1, NewlyRefused: 1, FailedBy: map[string]int{"refused": 1}})

	w.entra.ClearFaults()
	w.clock.advance(time.Minute)
	w.secrets.Fail(secretstoretest.Fault{Op: "UpdateSecret", Secret: b.SecretName, Error: "InternalServiceError"})
	report = w.sweep(t)
	check("one not stored", report.Apps["default"], connector.Health{Refused: 1, NewlyRefused: 1, Healthy: 2, ShortestLife: left - time.Minute,
		FailedBy: map[string]int{"refused": 1, "store": 1}})
	if names := slices.Sorted(maps.Keys(report.Apps)); !slices.Equal(names, []string{"default", "other"}) {
		t.Errorf("apps %v", names)
	}
	check("nothing at all", newWorld(t).sweep(t).Health, connector.Health{})
}
