package connector_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"entra-connector/internal/connector"

	"entra-connector/pkg/entra"
	"entra-connector/pkg/entra/entratest"
)

const devOps = "499b84ac-1321-427f-aa17-267ca6975798/.default"

// A token can be issued without any permission. That is said, and the token is
// stored all the same.
func TestWhatATokenIsWorth(t *testing.T) {
	opaque := entratest.Raw(200, "application/json", `{"token_type":"Bearer","expires_in":3599,"access_token":"opaque"}`)
	tests := []struct {
		name, scope string
		roles       []string
		response    entratest.Response
		want        string
	}{
		{"Graph with a role", graph, []string{"User.Read.All"}, entratest.Response{}, ""},
		{"Graph without", graph, nil, entratest.Response{}, "no_roles"},
		{"Graph without, trailing slash", "https://graph.microsoft.com//.default", nil, entratest.Response{}, "no_roles"},
		{"Graph by its application ID without", "00000003-0000-0000-C000-000000000000/.default", nil, entratest.Response{}, "no_roles"},
		{"Business Central without", "https://api.businesscentral.dynamics.com/.default", nil, entratest.Response{}, "no_roles"},
		{"Storage, which knows no roles", "https://storage.azure.com/.default", nil, entratest.Response{}, ""},
		{"SQL, which knows no roles", "https://database.windows.net/.default", nil, entratest.Response{}, ""},
		{"Azure DevOps", devOps, nil, entratest.Response{}, "azure_devops_user"},
		{"a token that cannot be read", graph, nil, opaque, ""},
	}
	for _, tt := range tests {
		w := newWorld(t)
		w.entra.Consent(tenantA, clientID, tt.roles...)
		w.entra.Fail(entratest.Fault{Response: tt.response})
		request := validRequest()
		request.AppFields.Scope = tt.scope
		c, _, err := w.provisionAs(t.Context(), request)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		stored := w.connection(t, c.ConnectionRef)
		if got := strings.Join(stored.Warnings, " "); got != tt.want || stored.Status() != connector.StatusOK {
			t.Errorf("%s: warnings %q, status %s, want %q", tt.name, got, stored.Status(), tt.want)
		}
		for _, code := range stored.Warnings {
			if e := connector.Explain(code); e.Title == "" || e.Action == "" || strings.Contains(e.Title, "refused") {
				t.Errorf("%s is explained as %+v", code, e)
			}
		}
	}

	w := newWorld(t)
	w.entra.Consent(tenantA, clientID)
	c := w.provision(t, tenantA)
	w.entra.Consent(tenantA, clientID, "User.Read.All")
	if got, err := w.refresher.Refresh(t.Context(), c.ConnectionRef); err != nil || len(got.Warnings) != 0 {
		t.Errorf("after the permission was granted: %v, %v", got.Warnings, err)
	}
}

// A tenant whose policy issues tokens too short to be kept fresh within the
// store's limit of versions is refused; one whose policy turns so later gets a
// warning, and writes slow down before the store refuses them.
func TestShortLivedTokens(t *testing.T) {
	w := newWorld(t)
	short := entratest.Fault{Response: entratest.Lifetime(600)}
	w.entra.Fail(short)
	before := w.secrets.Snapshot()
	_, _, err := w.provisionAs(t.Context(), validRequest())
	if e := asEntraError(t, err); e.Code != connector.CodeShortLived || e.Class != entra.Refused || w.secrets.Snapshot() != before {
		t.Errorf("provisioning: %v", err)
	}
	w.entra.ClearFaults()
	w.entra.Fail(entratest.Fault{Times: 1, Response: entratest.Lifetime(1728)})
	c := w.provision(t, tenantA)

	w.entra.Fail(short)
	w.force(t)
	if got := w.connection(t, c.ConnectionRef).Warnings; !slices.Equal(got, []string{connector.WarnShortLived}) {
		t.Errorf("warnings %v", got)
	}
	// A day of sweeps every five minutes. The stand-in refuses more versions than
	// Secrets Manager keeps.
	refreshed, first := 0, 0
	for i := range 24 * 12 {
		w.clock.advance(5*time.Minute + time.Second)
		report := w.sweep(t)
		if report.Failed > 0 {
			t.Fatalf("after %d sweeps the store refuses: %+v", i, report)
		}
		refreshed += report.Refreshed
		if i < 20 {
			first += report.Refreshed
		}
	}
	if first != 20 || refreshed < 80 || refreshed > 98 {
		t.Errorf("refreshed %d times at the first 20 sweeps and %d times in the day", first, refreshed)
	}
}

func TestPacingDoesNotTouchOrdinaryTokens(t *testing.T) {
	w := newWorld(t)
	w.provision(t, tenantA)
	for range 100 {
		w.clock.advance(due + time.Second)
		if report := w.sweep(t); report.Refreshed != 1 {
			t.Fatalf("a due connection is not refreshed: %+v", report)
		}
	}
}

func TestTenantOfAnotherCloud(t *testing.T) {
	w := newWorld(t)
	const gov = "eeeeeeee-0000-4000-8000-000000000005"
	w.entra.AddTenant(entratest.Tenant{ID: gov, Domains: []string{"agency.example"}, Cloud: "usgov"})
	for _, tenant := range []string{gov, "agency.example"} {
		request := validRequest()
		request.TenantID = tenant
		_, _, err := w.provisionAs(t.Context(), request)
		e := asEntraError(t, err)
		if e.Class != entra.Refused || !strings.Contains(e.Action, `"usgov"`) {
			t.Errorf("%s: %v: %s", tenant, err, e.Action)
		}
	}
}

// A consent refusal carries the page on which an administrator consents.
func TestConsentURL(t *testing.T) {
	w := newWorld(t)
	c := w.provision(t, tenantA)
	w.clock.advance(time.Hour)
	w.entra.Revoke(tenantA, clientID)
	brief, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := w.refresher.Refresh(brief, c.ConnectionRef)
	want := fmt.Sprintf("%s/%s/adminconsent?client_id=%s", w.entra.URL(), tenantA, clientID)
	if got := asEntraError(t, err).ConsentURL; got != want {
		t.Errorf("consent at %q, want %q", got, want)
	}
	if got := w.connection(t, c.ConnectionRef).Failure.ConsentURL; got != want {
		t.Errorf("the connection says %q", got)
	}
	w.entra.Consent(tenantA, clientID, "User.Read.All")
	w.entra.Fail(entratest.Fault{Times: 1, Response: entratest.Refused(7000222)})
	if _, err := w.refresher.Refresh(brief, c.ConnectionRef); asEntraError(t, err).ConsentURL != "" {
		t.Error("an expired secret asks for consent")
	}
}

// A connection that is due and has spent its budget is reported as waiting.
func TestSpentBudgetWaits(t *testing.T) {
	w := newWorld(t)
	w.provision(t, tenantA)
	for range 30 {
		w.clock.advance(time.Second)
		w.force(t)
	}
	w.entra.SetSecrets(clientID, entratest.Secret{Value: "n3w-secret"})
	rotated := w.app()
	rotated.Credential.ClientSecret = entra.NewSecret("n3w-secret")
	if _, _, err := w.put(t.Context(), rotated); err != nil {
		t.Fatal(err)
	}
	checkReport(t, "due, with the budget spent", w.sweep(t), connector.SweepReport{Checked: 1, Waiting: 1})
	w.clock.advance(time.Hour)
	checkReport(t, "an hour later", w.sweep(t), connector.SweepReport{Checked: 1, Due: 1, Refreshed: 1})
}
