package connector_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"entra-connector/internal/connector"
	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/pkg/entra/entratest"
)

// People are told once that a connection needs them, and once that it no longer does, whoever finds out.
func TestChangesAreToldOnce(t *testing.T) {
	w := newWorld(t, setup{})
	a := w.provision(tenantA)
	w.provision(tenantB)
	w.advance(time.Hour)
	sweep := func() connector.Health { return w.sweep(force).Health }
	refresh := func() (none connector.Health) {
		w.refresher.Refresh(t.Context(), a.ConnectionRef)
		return none
	}
	healthy, unavailable, refuses := entratest.Response{}, entratest.HTML(503), entratest.Refused(refusedAtOnce)
	var since time.Time
	for _, step := range []struct {
		name             string
		response         entratest.Response
		do               func() connector.Health
		told             string
		newly, recovered int
	}{
		{"healthy", healthy, sweep, "", 0, 0},
		{"what passes", unavailable, sweep, "", 0, 0},
		{"refused", refuses, sweep, "a refused", 1, 0},
		{"refused again", refuses, sweep, "", 0, 0},
		{"refused by hand", refuses, refresh, "", 0, 0},
		{"between the two", unavailable, sweep, "", 0, 0},
		{"mended", healthy, sweep, "a ok", 0, 1},
		{"healthy again", healthy, sweep, "", 0, 0},
		{"newly refused by hand", refuses, refresh, "a refused", 0, 0},
		{"mended by hand", healthy, refresh, "a ok", 0, 0},
		{"and refused", refuses, refresh, "a refused", 0, 0},
		{"provisioned again", healthy, func() (none connector.Health) { w.provision(tenantA); return none }, "a ok", 0, 0},
		{"refused, and not recorded", refuses, func() connector.Health {
			w.secrets.Fail(secretstoretest.Fault{Op: "UpdateSecret", Secret: a.SecretName, Error: "InternalServiceError", Times: 1})
			return sweep()
		}, "", 1, 0},
		{"recorded", refuses, sweep, "a refused", 1, 0},
	} {
		w.advance(time.Minute)
		w.entra.ClearFaults()
		w.entra.Fail(entratest.Fault{Tenant: tenantA, Response: step.response})
		h := step.do()
		if told := w.news(); told != step.told || h.NewlyRefused != step.newly || h.Recovered != step.recovered {
			t.Errorf("%s: told %q, %d newly refused, %d recovered", step.name, told, h.NewlyRefused, h.Recovered)
		}
		if f := w.connection(a.ConnectionRef).Failure; step.name == "refused" {
			since = f.RefusedSince
		} else if step.name == "between the two" && (f.Status != retrying || !f.RefusedSince.Equal(since)) {
			t.Errorf("%s: %s, refused since %v, want %v", step.name, f.Status, f.RefusedSince, since)
		}
	}
}

// What the metrics are made of.
func TestHealthAfterASweep(t *testing.T) {
	w := newWorld(t, setup{})
	w.provision(tenantA)
	b := w.provision(tenantB)
	f := asked(tenantA)
	f.App = "other"
	_, _, err := w.provisionAs(t.Context(), f)
	w.must(err)
	w.must(w.store.DeleteApp(t.Context(), connector.AppUse{App: connector.App{Name: "other"}}))
	w.spoil(w.seed(1, time.Hour, nil))
	check := func(what string, got, want connector.Health) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}
	w.advance(10 * time.Minute)
	r := w.sweep(connector.SweepRequest{})
	left := 3599*time.Second - 10*time.Minute
	check("nothing due", r.Health, connector.Health{Refused: 1, NewlyRefused: 1, FailedBy: map[string]int{"refused": 1}, Healthy: 3, ShortestLife: left})
	check("nothing due, of one app", r.Apps["other"], connector.Health{Healthy: 1, ShortestLife: left})

	w.advance(25 * time.Minute)
	left -= 25 * time.Minute
	w.entra.Fail(entratest.Fault{Tenant: tenantB, Response: entratest.Throttled("60"), Times: 1})
	r = w.sweep(connector.SweepRequest{})
	check("one throttled, one without its app", r.Health, connector.Health{Refused: 2, NewlyRefused: 2, Healthy: 2, ShortestLife: left,
		FailedBy: map[string]int{"refused": 2, "throttled": 1}})
	check("without its app", r.Apps["other"], connector.Health{Refused: 1, NewlyRefused: 1, FailedBy: map[string]int{"refused": 1}})

	w.advance(time.Minute)
	w.secrets.Fail(secretstoretest.Fault{Op: "UpdateSecret", Secret: b.SecretName, Error: "InternalServiceError"})
	r = w.sweep(connector.SweepRequest{})
	check("one not stored", r.Apps["default"], connector.Health{Refused: 1, NewlyRefused: 1, Healthy: 2, ShortestLife: left - time.Minute,
		FailedBy: map[string]int{"refused": 1, "store": 1}})
	w.secrets.ClearFaults()
	w.must(w.putSecret(t.Context(), canary)) // "other" is another app
	other := w.app()
	other.Name = "other"
	_, _, err = w.put(t.Context(), other)
	w.must(err)
	w.advance(time.Second)
	r = w.sweep(connector.SweepRequest{})
	check("with its app", r.Apps["other"], connector.Health{Recovered: 1, Healthy: 1, ShortestLife: 3599 * time.Second})
	if names := slices.Sorted(maps.Keys(r.Apps)); !slices.Equal(names, []string{"default", "other"}) {
		t.Errorf("apps %v", names)
	}
	check("nothing at all", newWorld(t, setup{}).sweep(connector.SweepRequest{}).Health, connector.Health{})
}
