package connector_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"entra-connector/internal/connector"

	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/pkg/entra"
	"entra-connector/pkg/entra/entratest"
)

// moveToTenantB deletes the connection and provisions its name for TenantB.
func (w *world) moveToTenantB(t *testing.T, ref connector.ConnectionRef) {
	t.Helper()
	if err := w.store.DeleteConnection(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	request := validRequest()
	request.TenantID, request.Connection = tenantB, ref.Name
	if _, created, err := w.provisionAs(t.Context(), request); err != nil || !created {
		t.Fatalf("created %t, %v", created, err)
	}
}

func (w *world) wantTenantB(t *testing.T, when string, ref connector.ConnectionRef) {
	t.Helper()
	value, _ := w.secrets.Value("entra/connections/" + ref.String())
	if c := w.connection(t, ref); c.TenantID != tenantB || c.Status() != connector.StatusOK || !strings.Contains(value, tenantB) {
		t.Errorf("%s: the connection is of %s and %s, and holds %.400s", when, c.TenantID, c.Status(), value)
	}
}

// A name that went to another tenant never gets the former one's token, neither
// from a sweep with an old listing nor from a refresh that was under way.
func TestATokenNeverGoesToAnotherTenant(t *testing.T) {
	t.Run("old listing", func(t *testing.T) {
		w := newWorldWith(t, secretstoretest.Options{ListLag: 5 * time.Minute})
		c := w.provision(t, tenantA)
		w.clock.advance(2 * time.Hour)
		w.moveToTenantB(t, c.ConnectionRef)
		w.clock.advance(time.Minute)
		w.sweep(t)
		w.wantTenantB(t, "after a sweep", c.ConnectionRef)
		w.force(t)
		w.wantTenantB(t, "after a forced sweep", c.ConnectionRef)
		w.entra.Fail(entratest.Fault{Tenant: tenantA, Response: entratest.Refused(7000222)})
		w.force(t)
		w.wantTenantB(t, "after a sweep that was refused", c.ConnectionRef)
	})
	t.Run("refresh under way", func(t *testing.T) {
		w := newWorld(t)
		c := w.provision(t, tenantA)
		// The name changes hands between the token request and the write.
		var once sync.Once
		late := entra.NewClient(entra.ClientConfig{Authority: w.entra.URL(), Now: w.clock.Now, Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			response, err := http.DefaultTransport.RoundTrip(r)
			once.Do(func() { w.moveToTenantB(t, c.ConnectionRef) })
			return response, err
		})}) // w.provisioner itself keeps its client
		sweeper := *w.sweeper
		sweeper.Entra = late
		if _, err := sweeper.Sweep(t.Context(), connector.SweepRequest{Force: true}); err != nil {
			t.Fatal(err)
		}
		w.wantTenantB(t, "after the late write", c.ConnectionRef)
	})
}

// Of several callers who restore a deleted name for different tenants, one has
// it and the others learn that they have not.
func TestRestoringIsDecidedOnce(t *testing.T) {
	w := newWorld(t)
	c := w.provision(t, tenantA)
	if err := w.store.DeleteConnection(t.Context(), c.ConnectionRef); err != nil {
		t.Fatal(err)
	}
	if err := w.store.DeleteApp(t.Context(), "default"); err != nil {
		t.Fatal(err)
	}
	type outcome struct {
		tenant  string
		created bool
		err     error
	}
	outcomes := make(chan outcome, 6)
	var start sync.WaitGroup
	start.Add(6)
	for i := range 6 {
		go func() {
			request := validRequest()
			request.TenantID, request.Connection = []string{tenantA, tenantB}[i%2], c.Name
			start.Done()
			start.Wait()
			got, created, err := w.provisionAs(context.Background(), request)
			outcomes <- outcome{got.TenantID, created, err}
		}()
	}
	winner := ""
	var all []outcome
	for range 6 {
		o := <-outcomes
		all = append(all, o)
		if o.created {
			if winner != "" && winner != o.tenant {
				t.Errorf("created for both tenants")
			}
			winner = o.tenant
		}
	}
	stored := w.connection(t, c.ConnectionRef)
	if winner == "" || stored.TenantID != winner {
		t.Fatalf("stored for %s, won by %q: %+v", stored.TenantID, winner, all)
	}
	for _, o := range all {
		var conflict *connector.ConflictError
		if o.err != nil && !errors.As(o.err, &conflict) || o.err == nil && o.tenant != winner {
			t.Errorf("a caller was told %+v", o)
		}
	}
}

// Two sweeps at once, or one with an old listing, store no older token over a
// newer one.
func TestOlderTokensDoNotReplaceNewer(t *testing.T) {
	w := newWorld(t)
	c := w.provision(t, tenantA)
	w.clock.advance(due + time.Second)
	second := *w.sweeper
	var once sync.Once
	first := *w.sweeper
	first.Entra = entra.NewClient(entra.ClientConfig{Authority: w.entra.URL(), Now: w.clock.Now, Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		response, err := http.DefaultTransport.RoundTrip(r)
		once.Do(func() {
			w.clock.advance(time.Minute)
			if _, err := second.Sweep(t.Context(), connector.SweepRequest{}); err != nil {
				t.Error(err)
			}
		})
		return response, err
	})})
	report, err := first.Sweep(t.Context(), connector.SweepRequest{})
	if err != nil {
		t.Fatal(err)
	}
	checkReport(t, "the slower sweep", report, connector.SweepReport{Checked: 1, Due: 1, Refreshed: 1})
	if got := w.connection(t, c.ConnectionRef); !got.RefreshedAt.Equal(w.clock.Now()) {
		t.Errorf("the token is of %v, the newer one of %v", got.RefreshedAt, w.clock.Now())
	}
}

// The rules of an app hold although the listing is five minutes behind.
func TestAppRulesUnderLag(t *testing.T) {
	for name, byName := range map[string]bool{"connection with its app": false, "connection on a known app": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorldWith(t, secretstoretest.Options{ListLag: 5 * time.Minute})
			request := validRequest()
			if byName {
				if _, _, err := w.put(t.Context(), w.app()); err != nil {
					t.Fatal(err)
				}
				request.AppFields = nil
			}
			c, _, err := w.provisionAs(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			w.clock.advance(time.Minute)
			wrong := w.app()
			wrong.Credential.ClientSecret = entra.NewSecret("wrong")
			brief, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			if _, _, err := w.put(brief, wrong); err == nil || asEntraError(t, err).Code != "AADSTS7000215" {
				t.Errorf("a wrong secret, with a connection that is not listed yet: %v", err)
			}
			var conflict *connector.ConflictError
			if err := w.apps.Delete(t.Context(), "default"); !errors.As(err, &conflict) {
				t.Errorf("deleting the app, with a connection that is not listed yet: %v", err)
			}
			w.clock.advance(10 * time.Minute)
			if err := w.store.DeleteConnection(t.Context(), c.ConnectionRef); err != nil {
				t.Fatal(err)
			}
			if err := w.apps.Delete(t.Context(), "default"); err != nil {
				t.Errorf("deleting the app, with a connection that is still listed: %v", err)
			}
		})
	}
}

// A failure that an old listing leads to does not turn back what is known.
func TestOldListingsDoNotTurnBackTheState(t *testing.T) {
	w := newWorldWith(t, secretstoretest.Options{ListLag: 5 * time.Minute})
	c := w.provision(t, tenantA)
	w.clock.advance(2 * time.Hour)
	refreshed, err := w.refresher.Refresh(t.Context(), c.ConnectionRef)
	if err != nil {
		t.Fatal(err)
	}
	w.clock.advance(time.Minute)
	w.entra.Fail(entratest.Fault{Response: entratest.HTML(503)})
	w.sweep(t)
	if got := w.connection(t, c.ConnectionRef); got.Status() != connector.StatusOK || !got.ExpiresAt.Equal(refreshed.ExpiresAt) {
		t.Errorf("the connection is %s until %v, after a refresh until %v", got.Status(), got.ExpiresAt, refreshed.ExpiresAt)
	}
}

// An app that is put while a sweep is under way with the old credential is known
// to be changed: what got the old one's token is due, what was refused is tried.
func TestRotationDuringASweep(t *testing.T) {
	w := newWorld(t)
	a, b := w.provision(t, tenantA), w.provision(t, tenantB)
	rotated := w.app()
	rotated.Credential.ClientSecret = entra.NewSecret("n3w-secret")
	w.entra.SetSecrets(clientID, entratest.Secret{Value: canary}, entratest.Secret{Value: "n3w-secret"})
	w.clock.advance(due + time.Second)
	var once sync.Once
	sweeper := *w.sweeper
	sweeper.Entra = entra.NewClient(entra.ClientConfig{Authority: w.entra.URL(), Now: w.clock.Now, Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		once.Do(func() {
			if _, _, err := w.put(t.Context(), rotated); err != nil {
				t.Error(err)
			}
			w.entra.Fail(entratest.Fault{Tenant: tenantB, Response: entratest.Refused(7000222)})
			w.clock.advance(time.Second)
		})
		return http.DefaultTransport.RoundTrip(r)
	})})
	if _, err := sweeper.Sweep(t.Context(), connector.SweepRequest{}); err != nil {
		t.Fatal(err)
	}
	w.entra.ClearFaults()
	w.entra.ResetRequests()
	w.clock.advance(time.Second)
	checkReport(t, "the next sweep", w.sweep(t), connector.SweepReport{Checked: 2, Due: 2, Refreshed: 2})
	for _, r := range w.entra.Requests() {
		if r.SecretIndex != 1 {
			t.Errorf("%s was asked with secret %d", r.Tenant, r.SecretIndex)
		}
	}
	_, _ = a, b
}

// Putting the same app again tries what was refused, and refreshes no more.
func TestPuttingTheSameAppAgain(t *testing.T) {
	w := newWorld(t)
	a := w.provision(t, tenantA)
	w.provision(t, tenantB)
	w.clock.advance(20 * time.Minute)
	w.entra.Fail(entratest.Fault{Tenant: tenantA, Times: 1, Response: entratest.Refused(7000222)})
	if _, err := w.sweeper.Sweep(t.Context(), connector.SweepRequest{Only: []connector.ConnectionRef{a.ConnectionRef}, Force: true}); err != nil {
		t.Fatal(err)
	}
	w.clock.advance(11 * time.Minute) // due now
	if got := w.sweep(t); got.Waiting != 1 {
		t.Fatalf("before: %+v", got)
	}
	if _, created, err := w.put(t.Context(), w.app()); created || err != nil {
		t.Fatalf("created %t, %v", created, err)
	}
	w.entra.ResetRequests()
	w.clock.advance(time.Second)
	w.sweep(t)
	tenants := make([]string, 0, 2)
	for _, r := range w.entra.Requests() {
		tenants = append(tenants, r.Tenant)
	}
	if !slices.Equal(tenants, []string{tenantA}) {
		t.Errorf("asked for %v, want the refused one", tenants)
	}
}

// A token that was got before the rotation, and is newer than the listing, does
// not pass for the rotated one's.
func TestRotationOverAnOldListing(t *testing.T) {
	w := newWorldWith(t, secretstoretest.Options{ListLag: 5 * time.Minute})
	c := w.provision(t, tenantA)
	w.clock.advance(10 * time.Minute)
	if _, err := w.refresher.Refresh(t.Context(), c.ConnectionRef); err != nil {
		t.Fatal(err)
	}
	w.entra.SetSecrets(clientID, entratest.Secret{Value: canary}, entratest.Secret{Value: "n3w-secret"})
	rotated := w.app()
	rotated.Credential.ClientSecret = entra.NewSecret("n3w-secret")
	w.clock.advance(time.Second)
	if _, _, err := w.put(t.Context(), rotated); err != nil {
		t.Fatal(err)
	}
	w.clock.advance(time.Second)
	checkReport(t, "over the old listing", w.sweep(t), connector.SweepReport{Checked: 1, Due: 1, Refreshed: 1})
	tokens := w.entra.Tokens()
	if value, _ := w.secrets.Value(c.SecretName); !strings.Contains(value, tokens[len(tokens)-1]) {
		t.Error("the secret does not hold the token that the new secret got")
	}
}

// A deletion that was cut off is finished by the same call, and a connection
// that is noted on an app writes nothing else of it.
func TestAppsUnderInterruption(t *testing.T) {
	w := newWorld(t)
	if _, _, err := w.put(t.Context(), w.app()); err != nil {
		t.Fatal(err)
	}
	w.secrets.Fail(secretstoretest.Fault{Op: "DeleteSecret", Times: 1, Error: "InternalServiceError"})
	if err := w.apps.Delete(t.Context(), "default"); err == nil {
		t.Fatal("the deletion does not fail")
	}
	if err := w.apps.Delete(t.Context(), "default"); err != nil || len(w.secrets.Names()) != 0 {
		t.Errorf("the same call again: %v, left %v", err, w.secrets.Names())
	}
	if err := w.apps.Delete(t.Context(), "default"); !errors.Is(err, connector.ErrNotFound) {
		t.Errorf("and again: %v", err)
	}

	if _, _, err := w.put(t.Context(), w.app()); err != nil {
		t.Fatal(err)
	}
	// The app is put anew, with an expiry, while a connection is provisioned on it.
	expiring := w.app()
	expiring.Credential.SecretExpiresAt = start.AddDate(0, 1, 0)
	var once sync.Once
	w.provisioner.Prover.Entra = entra.NewClient(entra.ClientConfig{Authority: w.entra.URL(), Now: w.clock.Now, Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		once.Do(func() {
			if _, _, err := w.put(context.Background(), expiring); err != nil {
				t.Error(err)
			}
		})
		return http.DefaultTransport.RoundTrip(r)
	})})
	request := validRequest()
	request.AppFields = nil
	if _, _, err := w.provisionAs(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	if app, err := w.store.LookAtApp(t.Context(), "default"); err != nil || !app.Credential.ExpiresAt().Equal(start.AddDate(0, 1, 0)) {
		t.Errorf("the app is described as %+v, %v", app, err)
	}
}
