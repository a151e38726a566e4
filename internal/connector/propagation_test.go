package connector_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"entra-connector/internal/connector"

	"entra-connector/pkg/entra"
	"entra-connector/pkg/entra/entratest"
)

// inMemory reaches a stand-in without a network, so that time can be the
// bubble's.
func inMemory(h http.Handler) roundTripper {
	return func(r *http.Request) (*http.Response, error) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		response := w.Result()
		response.Request = r
		return response, nil
	}
}

// A secret that was just made is waited for within the request, as long as its
// 24 seconds allow, and one that stays wrong is refused in time.
func TestPropagationWithinTheRequest(t *testing.T) {
	for name, tt := range map[string]struct {
		code, times int // how often Entra refuses
		budget      time.Duration
		refused     bool
		took        time.Duration
		asked       int
	}{
		"known at once":            {7000215, 0, 24 * time.Second, false, 0, 1},
		"known after a refusal":    {7000215, 1, 24 * time.Second, false, 2 * time.Second, 2},
		"known after three":        {7000215, 3, 24 * time.Second, false, 14 * time.Second, 4},
		"consent known after two":  {7000229, 2, 24 * time.Second, false, 6 * time.Second, 3},
		"stays wrong":              {7000215, 9, 24 * time.Second, true, 14 * time.Second, 4},
		"no time":                  {7000215, 1, 4 * time.Second, true, 0, 1},
		"a refusal that stays one": {7000112, 1, 24 * time.Second, true, 0, 1},
		"passes once":              {90033, 1, 24 * time.Second, false, 5 * time.Second, 2},
		"does not pass":            {90033, 9, 24 * time.Second, true, 5 * time.Second, 2},
		"throttled":                {50196, 1, 24 * time.Second, false, 5 * time.Second, 2},
	} {
		t.Run(name, func(t *testing.T) {
			app := (&world{}).app()
			synctest.Test(t, func(t *testing.T) {
				stand := entratest.New(entratest.Options{})
				stand.AddTenant(entratest.Tenant{ID: tenantA})
				stand.AddApp(entratest.App{ClientID: clientID, Secrets: []entratest.Secret{{Value: canary}}})
				stand.Consent(tenantA, clientID)
				if tt.times > 0 {
					stand.Fail(entratest.Fault{Times: tt.times, Response: entratest.Refused(tt.code)})
				}
				store := &shelf{pages: [][]connector.Connection{{acmeConnection}}}
				apps := &connector.Apps{Store: store, Prover: proverOn(store, stand), Now: time.Now}
				ctx, cancel := context.WithTimeout(t.Context(), tt.budget)
				defer cancel()
				begin := time.Now()
				_, _, err := put(ctx, apps, app)
				if (err != nil) != tt.refused {
					t.Errorf("error %v, want one: %t", err, tt.refused)
				}
				if took := time.Since(begin); took != tt.took || len(stand.Requests()) != tt.asked {
					t.Errorf("took %v and %d requests, want %v and %d", took, len(stand.Requests()), tt.took, tt.asked)
				}
			})
		})
	}
}

// A refresh by hand, right after consent, waits for it to be known as well.
func TestRefreshByHandWaitsForPropagation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stand := entratest.New(entratest.Options{})
		stand.AddTenant(entratest.Tenant{ID: tenantA})
		stand.AddApp(entratest.App{ClientID: clientID, Secrets: []entratest.Secret{{Value: canary}}})
		stand.Consent(tenantA, clientID)
		stand.Fail(entratest.Fault{Times: 1, Response: entratest.Refused(7000229)})
		store := &shelf{app: (&world{}).app(), pages: [][]connector.Connection{{acmeConnection}}}
		r := &connector.Refresher{Store: store, Prover: proverOn(store, stand), Now: time.Now, Log: slog.New(slog.DiscardHandler)}
		begin := time.Now()
		c, err := r.Refresh(t.Context(), connector.ConnectionRef{App: "default", Name: "acme"})
		if took := time.Since(begin); err != nil || c.Status() != connector.StatusOK || took != 2*time.Second {
			t.Errorf("the connection is %s after %v: %v", c.Status(), took, err)
		}
	})
}

// proverOn asks the stand-in without a network.
func proverOn(store connector.Store, stand *entratest.Server) connector.Prover {
	return connector.Prover{Store: store, Entra: entra.NewClient(entra.ClientConfig{Authority: "https://stand-in.invalid", Transport: inMemory(stand)})}
}

var acmeConnection = connector.Connection{ConnectionRef: connector.ConnectionRef{App: "default", Name: "acme"}, TenantID: tenantA, Scope: graph, ExpiresAt: start}
