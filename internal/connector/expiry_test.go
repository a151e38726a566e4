package connector_test

import (
	"testing"
	"time"

	"entra-connector/internal/connector"
)

// What was said of a secret's expiry stays until something else is said, and
// saying it rotates nothing.
func TestExpiryIsKeptAndRotatesNothing(t *testing.T) {
	w := newWorld(t)
	w.provision(t, tenantA)
	provision := func(expires string) time.Time {
		t.Helper()
		w.clock.advance(time.Minute)
		request := validRequest()
		request.TenantID, request.AppFields.ClientSecretExpiresAt = tenantB, expires
		if _, _, err := w.provisionAs(t.Context(), request); err != nil {
			t.Fatal(err)
		}
		w.clock.advance(time.Second)
		checkReport(t, "saying "+expires, w.sweep(t), connector.SweepReport{Checked: 2})
		app, err := w.store.App(t.Context(), "default")
		if err != nil {
			t.Fatal(err)
		}
		return app.Credential.ExpiresAt()
	}
	date := time.Date(2027, 6, 30, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		said string
		want time.Time
	}{{"", time.Time{}}, {"2027-06-30", date}, {"", date}, {"2027-06-30", date}, {"2027-07-30", date.AddDate(0, 1, 0)}} {
		if got := provision(tt.said); !got.Equal(tt.want) {
			t.Errorf("after saying %q it expires at %v, want %v", tt.said, got, tt.want)
		}
	}
}
