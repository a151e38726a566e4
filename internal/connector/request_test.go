package connector_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"entra-connector/internal/connector"
	"entra-connector/pkg/entra"
)

// certified returns a PEM file of a certificate with its key.
func certified(t *testing.T, from, to time.Time) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: to}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})) +
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// Everything that is wrong with a request is said at once, by field, and no value is quoted. What the
// values themselves must be like, package entra tests.
func TestFieldRules(t *testing.T) {
	type request = connector.ProvisionFields
	app := func(change func(*connector.AppFields)) func(*request) {
		return func(r *request) { change(r.AppFields) }
	}
	scope := func(scope, service, cloud string) func(*request) {
		return app(func(f *connector.AppFields) { f.Scope, f.Service, f.Cloud = scope, service, cloud })
	}
	own := func(scope, service string) func(*request) {
		return func(r *request) { r.AppFields, r.Scope, r.Service = nil, scope, service }
	}
	credential := func(secret, expires, certificate string, audience ...string) func(*request) {
		return app(func(f *connector.AppFields) {
			if f.ClientSecret = (entra.Secret{}); secret != "" {
				f.ClientSecret = entra.NewSecret(secret)
			}
			if f.ClientSecretExpiresAt = expires; certificate != "" {
				f.Certificate = entra.NewSecret(certificate)
			}
			for _, a := range audience {
				f.Federation = &connector.FederationFields{Audience: a}
			}
		})
	}
	name := func(s string) func(*request) { return func(r *request) { r.App, r.Connection = s, s } }
	file := certified(t, start, start.AddDate(1, 0, 0))
	long := strings.Repeat("x", 64)
	for _, tt := range []struct {
		name   string
		change func(*request)
		wrong  string
	}{
		{"as it is", func(*request) {}, ""},
		{"names of all kinds", name("0a.b_c-d"), ""},
		{"names of 64", name(long), ""},
		{"names of 65", name(long + "x"), "app connection"},
		{"capital", name("Default"), "app connection"},
		{"dots", name("a..b"), "app connection"},
		{"leading dot", name(".a"), "app connection"},
		{"slash", name("a/b"), "app connection"},
		{"line break", name("a\n"), "app connection"},
		{"no name", name(""), "app"},
		{"no tenant", func(r *request) { r.TenantID = "" }, "tenant_id"},
		{"client ID", app(func(f *connector.AppFields) { f.ClientID = "my-app" }), "client_id"},

		{"cloud", scope(graph, "", "usgov"), ""},
		{"no such cloud", scope(graph, "", "germany"), "cloud"},
		{"service", scope("", "azure-devops", ""), ""},
		{"service in China", scope("", "microsoft-graph", "china"), ""},
		{"service of another cloud", scope("", "azure-devops", "usgov"), "service"},
		{"no such service", scope("", "sharepoint", ""), "service"},
		{"no such service nor cloud", scope("", "sharepoint", "mars"), "cloud service"},
		{"scope and service", scope(graph, "microsoft-graph", ""), "service"},
		{"neither scope nor service", scope("", "", ""), "scope"},
		{"no scope", scope("User.Read", "", ""), "scope"},
		{"scope that no tag can hold", scope("https://a/"+strings.Repeat("'", 83)+"/.default", "", ""), "scope"},
		{"scope that a tag can just hold", scope("https://a/"+strings.Repeat("'", 82)+"/.default", "", ""), ""},
		{"own scope", own(graph, ""), ""},
		{"own service, perhaps of another cloud", own("", "microsoft-graph"), ""},
		{"no scope of its own", own("", ""), ""},
		{"own scope and service", own(graph, "microsoft-graph"), "service"},
		{"own scope that is none", own("User.Read", ""), "scope"},
		{"own service that is none", own("", "sharepoint"), "service"},

		{"secret with a date", credential(canary, "2027-01-31", ""), ""},
		{"secret with a time", credential(canary, "2027-01-31T12:00:00+01:00", ""), ""},
		{"date gone by", credential(canary, "2026-11-23", ""), "client_secret_expires_at"},
		{"no date", credential(canary, "31.1.2027", ""), "client_secret_expires_at"},
		{"no such date", credential(canary, "2027-02-30", ""), "client_secret_expires_at"},
		{"date of a certificate", credential("", "2027-01-31", file), "client_secret_expires_at"},
		{"wrong secret", credential(canary+"\n", "", ""), "client_secret"},
		{"no credential", credential("", "", ""), "client_secret"},
		{"secret and certificate", credential(canary, "", file), "client_secret"},
		{"certificate and federation", credential("", "", file, ""), "client_secret"},
		{"certificate", credential("", "", file), ""},
		{"certificate that is none", credential("", "", canary), "certificate"},
		{"certificate that has expired", credential("", "", certified(t, start.AddDate(-1, 0, 0), start.Add(-1))), "certificate"},
		{"certificate with a chain that no secret can hold", credential("", "", file+strings.Repeat("# chain\n", 6600)), "certificate"},
		{"federation", credential("", "", "", ""), ""},
		{"federation for another audience", credential("", "", "", "api://AzureADTokenExchangeUSGov"), ""},
		{"federation for no audience", credential("", "", "", "a b"), "federation"},

		{"half an app", func(r *request) { r.AppFields = &connector.AppFields{Cloud: "public"} }, "client_id client_secret scope"},
		{"everything", func(r *request) {
			*r = request{TenantID: "x", App: "X", Connection: "/", AppFields: &connector.AppFields{ClientID: "x", ClientSecret: entra.NewSecret("\t"), Cloud: "x", ScopeFields: connector.ScopeFields{Scope: "x"}}}
		}, "app client_id client_secret cloud connection scope tenant_id"},
	} {
		r := asked(tenantA)
		tt.change(&r)
		_, err := connector.ParseProvisioning(r, start)
		var names []string
		if invalid := new(connector.InvalidError); errors.As(err, &invalid) {
			for _, f := range invalid.Fields {
				names = append(names, f.Field)
			}
		}
		slices.Sort(names)
		if got := strings.Join(names, " "); got != tt.wrong || (err == nil) != (got == "") || err != nil && strings.Contains(err.Error(), canary) {
			t.Errorf("%s: complains of %q, want %q: %v", tt.name, got, tt.wrong, err)
		}
	}
	for _, s := range []string{"", "a", "/a", "a/", "a/b/c", "A/b", "a/.."} {
		if ref, err := connector.ParseConnectionRef(s); err == nil {
			t.Errorf("%q is the connection %s", s, ref)
		}
	}
}
