package connector_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"entra-connector/internal/connector"

	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/pkg/entra"
	"entra-connector/pkg/entra/entratest"
)

// asked counts the token requests since the last time, by tenant.
func (w *world) asked() map[string]int {
	n := make(map[string]int)
	for _, r := range w.entra.Requests() {
		n[r.Tenant]++
	}
	w.entra.ResetRequests()
	return n
}

// Connections of the same credential, tenant and scope need one token request,
// also across apps; what differs in one of these asks for itself.
func TestOneRequestForOneNeed(t *testing.T) {
	w := newWorld(t)
	w.entra.SetSecrets(clientID, entratest.Secret{Value: canary}, entratest.Secret{Value: "n3w-secret"})
	w.entra.AddApp(entratest.App{ClientID: otherClient, Secrets: []entratest.Secret{{Value: canary}}})
	for _, tenant := range []string{tenantA, tenantB} {
		w.entra.Consent(tenant, otherClient, "User.Read.All")
	}
	var refs []connector.ConnectionRef
	for name, change := range map[string]func(*connector.App){
		"default":    func(*connector.App) {},
		"second":     func(*connector.App) {},
		"credential": func(a *connector.App) { a.Credential.ClientSecret = entra.NewSecret("n3w-secret") },
		"client":     func(a *connector.App) { a.ClientID = otherClient },
		"scope":      func(a *connector.App) { a.Scope = devOps },
		"cloud":      func(a *connector.App) { a.Cloud = entra.USGov },
	} {
		app := w.app()
		app.Name = name
		change(&app)
		if _, _, err := w.put(t.Context(), app); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"one", "two"} {
			for _, tenant := range []string{tenantA, tenantB} {
				r := connector.ProvisionFields{App: app.Name, Connection: name + tenant[:1], TenantID: tenant}
				c, _, err := w.provisionAs(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				refs = append(refs, c.ConnectionRef)
			}
		}
	}
	w.asked()
	values := func() map[string]int {
		n := make(map[string]int)
		for _, ref := range refs {
			value, _ := w.secrets.Value("entra/connections/" + ref.String())
			n[value]++
		}
		return n
	}

	w.clock.advance(time.Hour)
	checkReport(t, "all due", w.sweep(t), connector.SweepReport{Checked: 24, Due: 24, Refreshed: 24})
	// Of default and second together one, of each other app another.
	if got := w.asked(); got[tenantA] != 5 || got[tenantB] != 5 {
		t.Errorf("asked %v, want five times for each tenant", got)
	}
	if n := len(values()); n != 10 {
		t.Errorf("%d different values are stored, want 10", n)
	}
	for _, ref := range refs {
		if c := w.connection(t, ref); !c.RefreshedAt.Equal(w.clock.Now()) {
			t.Errorf("%s was not refreshed", ref)
		}
	}

	w.clock.advance(time.Hour)
	w.sweep(t)
	if got := w.asked(); got[tenantA] != 5 || got[tenantB] != 5 {
		t.Errorf("the next time asked %v: nothing is kept between sweeps", got)
	}

	w.clock.advance(time.Hour)
	w.entra.Fail(entratest.Fault{Tenant: tenantA, Response: entratest.Throttled("60")})
	if report := w.sweep(t); report.Failed != 12 || report.Refreshed != 12 {
		t.Errorf("with one tenant throttled: %+v", report)
	}
	if got := w.asked(); got[tenantA] != 5 {
		t.Errorf("a tenant that throttles is asked %d times, want 5", got[tenantA])
	}
}

// A shared token is not stored over one that was asked for later, as when a
// person refreshes a connection while the sweep comes to it.
func TestSharedTokenIsNotTheOlder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := numbered(0, connector.StatusOK), numbered(0, connector.StatusOK)
		second.Name, second.RefreshedAt = "second", time.Now().Add(15*time.Second)
		slow := &slowEntra{takes: time.Second}
		report, _, err := slow.sweepOf(t, &shelf{pages: [][]connector.Connection{{first}, {second}}, pageTakes: 10 * time.Second}, 5*time.Minute)
		if err != nil || report.Refreshed != 2 {
			t.Fatalf("report %+v, %v", report, err)
		}
		if asked := slow.asked[tenant(0)]; asked < 20*time.Second {
			t.Errorf("what was refreshed after 15s gets a token that was asked for after %v", asked)
		}
	})
}

// Connections that were provisioned together do not fall due together for ever,
// be the schedule as punctual as it may.
func TestJitter(t *testing.T) {
	for _, late := range []time.Duration{0, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			const many, slots = 120, 24 * 12
			store := &shelf{pages: [][]connector.Connection{numberedFrom(0, many, connector.StatusOK)}, keeps: new(sync.Mutex)}
			slow := new(slowEntra)
			random := rand.New(rand.NewPCG(1, 0))
			refreshed := make([]int, 2*slots) // two days
			begin := time.Now()
			for n := range refreshed {
				time.Sleep(time.Until(begin.Add(time.Duration(n)*every + time.Duration(random.Int64N(int64(late)+1)))))
				report, _, err := slow.sweepOf(t, store, every)
				if err != nil {
					t.Fatal(err)
				}
				refreshed[n] = report.Refreshed
			}
			if first, most := refreshed[0], slices.Max(refreshed[slots/4:]); first != many || most > many/3 {
				t.Errorf("late by at most %v: %d due together at first, %d after a quarter of a day", late, first, most)
			}
		})
	}
}

// Two sweeps at once, as when the schedule fires twice, do no more than ask
// Entra twice.
func TestTwoSweepsAtOnce(t *testing.T) {
	w := newWorld(t)
	a := w.provision(t, tenantA)
	value, _ := w.secrets.Value(a.SecretName)
	description, _ := w.secrets.Description(a.SecretName)
	names := []string{a.SecretName}
	for i := range 150 {
		name := fmt.Sprintf("entra/connections/default/z%03d", i)
		w.secrets.Put(name, value, description)
		names = append(names, name)
	}
	w.clock.advance(time.Hour)
	w.secrets.ResetCalls()
	reports := make([]connector.SweepReport, 2)
	var sweeps sync.WaitGroup
	for i := range reports {
		sweeps.Go(func() { reports[i], _ = w.sweeper.Sweep(t.Context(), connector.SweepRequest{}) })
	}
	sweeps.Wait()
	for _, report := range reports {
		// One may come so late that the other has done some of its work.
		if report.Checked != len(names) || report.Refreshed != report.Due || report.Failed > 0 {
			t.Errorf("report %+v", report)
		}
	}
	if reports[0].Refreshed+reports[1].Refreshed < len(names) {
		t.Errorf("refreshed %d and %d of %d", reports[0].Refreshed, reports[1].Refreshed, len(names))
	}
	stored := make(map[string]int)
	for _, call := range w.secrets.Calls() {
		if call.Op == "UpdateSecret" && call.Error == "" {
			stored[call.Secret]++
		}
	}
	for _, name := range names {
		if stored[name] != 1 {
			t.Errorf("%s was written %d times", name, stored[name])
		}
	}
	checkReport(t, "afterwards", w.sweep(t), connector.SweepReport{Checked: len(names)})
}

// A thousand connections that are refused all at once keep nobody else from a
// token, and each remembers why.
func TestAThousandFailures(t *testing.T) {
	w := newWorldWith(t, secretstoretest.Options{})
	a, b := w.provision(t, tenantA), w.provision(t, tenantB)
	value, _ := w.secrets.Value(a.SecretName)
	description, _ := w.secrets.Description(a.SecretName)
	for i := range 999 {
		w.secrets.Put(fmt.Sprintf("entra/connections/default/a%03d", i), value, description)
	}
	w.clock.advance(time.Hour)
	w.entra.Fail(entratest.Fault{Tenant: tenantA, Response: entratest.Refused(7000222)})
	report := w.sweep(t)
	if report.Checked != 1001 || report.Failed != 1000 || report.Refreshed != 1 || len(report.Failures) != 1000 || report.Health.NewlyRefused != 1000 {
		t.Errorf("checked %d, failed %d, refreshed %d, newly refused %d", report.Checked, report.Failed, report.Refreshed, report.Health.NewlyRefused)
	}
	if c := w.connection(t, b.ConnectionRef); !c.RefreshedAt.Equal(w.clock.Now()) {
		t.Error("the healthy one was not refreshed")
	}
	checkReport(t, "the next sweep leaves them alone", w.sweep(t), connector.SweepReport{Checked: 1001, Waiting: 1000})
	if after, _ := w.secrets.Value(a.SecretName); after != value {
		t.Error("the stored token did not stand")
	}
}
