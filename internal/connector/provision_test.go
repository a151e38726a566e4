package connector_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"entra-connector/internal/connector"

	"entra-connector/pkg/entra/entratest"
)

// acme asks for the connection default/acme.
func acme(tenant string) connector.ProvisionFields {
	r := validRequest()
	r.TenantID, r.Connection = tenant, "acme"
	return r
}

// A new credential is proved in up to three tenants, the healthiest first. Where
// none grants a token, the healthiest one's refusal is the one to act on.
func TestAnAppIsProvedWhereItIsHealthiest(t *testing.T) {
	const ok, retrying, refused = connector.StatusOK, connector.StatusRetrying, connector.StatusRefused
	unreadable := numbered(9, refused)
	unreadable.TenantID = ""
	one := func(pages int, status connector.Status) (all [][]connector.Connection) {
		for n := range pages {
			all = append(all, numberedFrom(n+1, 1, status))
		}
		return all
	}
	tests := []struct {
		name    string
		pages   [][]connector.Connection
		refuses []int // tenants
		asked   string
		listed  int
		refused int // the tenant whose refusal is told; 0: the app is put
	}{
		{"none", nil, nil, "", 1, 0},
		{"one is enough", [][]connector.Connection{numberedFrom(1, 3, ok)}, nil, "1", 1, 0},
		{"the second of them", [][]connector.Connection{numberedFrom(1, 3, ok)}, []int{1}, "1 2", 1, 0},
		{"healthiest first", [][]connector.Connection{{numbered(1, refused), numbered(2, retrying), numbered(3, ok)}}, []int{1, 2, 3}, "3 2 1", 1, 3},
		{"three at most", [][]connector.Connection{numberedFrom(1, 5, ok)}, []int{1, 2, 3}, "1 2 3", 1, 1},
		{"unreadable", [][]connector.Connection{{unreadable, numbered(1, refused)}}, nil, "1", 1, 0},
		{"only unreadable", [][]connector.Connection{{unreadable}}, nil, "", 1, 0},
		{"a healthy one after a page of refused", [][]connector.Connection{numberedFrom(1, 100, refused), numberedFrom(101, 1, ok)}, nil, "101", 2, 0},
		{"a healthy one after a page of unreadable", [][]connector.Connection{slices.Repeat([]connector.Connection{unreadable}, 100), numberedFrom(1, 1, ok)}, nil, "1", 2, 0},
		{"after an empty page", [][]connector.Connection{nil, numberedFrom(1, 1, retrying)}, nil, "1", 2, 0},
		{"three healthy ones on the first page", [][]connector.Connection{numberedFrom(1, 3, ok), numberedFrom(4, 3, ok)}, nil, "1", 1, 0},
		{"two healthy ones on the first page", [][]connector.Connection{numberedFrom(1, 2, ok), numberedFrom(3, 1, ok), numberedFrom(4, 1, ok)}, nil, "1", 2, 0},
		{"no end of refused", one(30, refused), nil, "1", 20, 0},
	}
	for _, tt := range tests {
		stand := entratest.New(entratest.Options{})
		stand.AddApp(entratest.App{ClientID: clientID, Secrets: []entratest.Secret{{Value: canary}}})
		for n := range 102 {
			stand.AddTenant(entratest.Tenant{ID: tenant(n)})
			stand.Consent(tenant(n), clientID)
		}
		for _, n := range tt.refuses {
			stand.Fail(entratest.Fault{Tenant: tenant(n), Response: entratest.Raw(400, "application/json", fmt.Sprintf(`{"error":"invalid_grant","error_codes":[530030%d]}`, n))})
		}
		store := &shelf{pages: tt.pages}
		w := &world{clock: &clock{t: start}}
		apps := &connector.Apps{Store: store, Prover: proverOn(store, stand), Now: w.clock.Now}
		_, _, err := put(t.Context(), apps, w.app())
		var asked []string
		for _, r := range stand.Requests() {
			asked = append(asked, strings.TrimLeft(r.Tenant[24:], "0"))
		}
		if got := strings.Join(asked, " "); got != tt.asked || store.listed != tt.listed {
			t.Errorf("%s: tenants %s were asked and %d pages listed, want %s and %d", tt.name, got, store.listed, tt.asked, tt.listed)
		}
		if tt.refused == 0 && err != nil || tt.refused != 0 && asEntraError(t, err).Code != fmt.Sprintf("AADSTS530030%d", tt.refused) {
			t.Errorf("%s: %v, want the refusal of tenant %d", tt.name, err, tt.refused)
		}
	}
}

// An app is deleted only when no page of the listing has a connection that is
// really there, nor is there one that is too young to be listed.
func TestAnAppInUseIsNotDeleted(t *testing.T) {
	listed := [][]connector.Connection{numberedFrom(1, 3, connector.StatusOK), nil, numberedFrom(4, 1, connector.StatusOK)}
	gone := func(many int) map[connector.ConnectionRef]bool {
		refs := make(map[connector.ConnectionRef]bool)
		for _, c := range numberedFrom(1, many, connector.StatusOK) {
			refs[c.ConnectionRef] = true
		}
		return refs
	}
	for name, tt := range map[string]struct {
		store   shelf
		deleted bool
	}{
		"in use on the first page":                        {shelf{pages: listed}, false},
		"in use on the last page":                         {shelf{pages: listed[1:]}, false},
		"in use behind a page of deleted ones":            {shelf{pages: listed, gone: gone(3)}, false},
		"in use by the youngest, unlisted":                {shelf{unlisted: numberedFrom(5, 1, connector.StatusOK)}, false},
		"in use by the youngest, unlisted, behind others": {shelf{pages: listed, gone: gone(4), unlisted: numberedFrom(5, 1, connector.StatusOK)}, false},
		"all deleted": {shelf{pages: listed, gone: gone(4)}, true},
		"none":        {shelf{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			store := tt.store
			store.app = connector.App{Name: "default"}
			err := (&connector.Apps{Store: &store}).Delete(t.Context(), "default")
			var conflict *connector.ConflictError
			if store.deleted != tt.deleted || errors.As(err, &conflict) == tt.deleted || err != nil && conflict == nil {
				t.Errorf("deleted %t, %v, want deleted %t", store.deleted, err, tt.deleted)
			}
		})
	}
}

// What no refresh can mend is said, with the way out, and Entra is not asked.
func TestRefreshOfWhatCannotBe(t *testing.T) {
	for name, tt := range map[string]struct {
		breaks func(*world, connector.Connection) error
		reason connector.Conflict
	}{
		"unreadable": {func(w *world, c connector.Connection) error {
			value, _ := w.secrets.Value(c.SecretName)
			w.secrets.Put(c.SecretName, value, "do not touch")
			return nil
		}, connector.Unreadable},
		"app gone": {func(w *world, c connector.Connection) error {
			return w.store.DeleteApp(context.Background(), c.App)
		}, connector.AppGone},
	} {
		w := newWorld(t)
		c := w.provision(t, tenantA)
		if err := tt.breaks(w, c); err != nil {
			t.Fatal(err)
		}
		w.entra.ResetRequests()
		_, err := w.refresher.Refresh(t.Context(), c.ConnectionRef)
		var conflict *connector.ConflictError
		if !errors.As(err, &conflict) || conflict.Reason != tt.reason || len(w.entra.Requests()) != 0 {
			t.Errorf("%s: %v after %d requests, want the conflict %q", name, err, len(w.entra.Requests()), tt.reason)
		}
	}
	w := newWorld(t)
	if _, err := w.refresher.Refresh(t.Context(), connector.ConnectionRef{App: "default", Name: "gone"}); !errors.Is(err, connector.ErrNotFound) {
		t.Errorf("no such connection: %v", err)
	}
}
