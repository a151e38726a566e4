package connector_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"entra-connector/internal/connector"

	"entra-connector/pkg/entra"
)

const (
	tenantA  = "aaaaaaaa-0000-4000-8000-000000000001"
	tenantB  = "bbbbbbbb-0000-4000-8000-000000000002"
	clientID = "cccccccc-0000-4000-8000-000000000003"
	graph    = "https://graph.microsoft.com/.default"
)

func validRequest() connector.ProvisionFields {
	return connector.ProvisionFields{
		TenantID: tenantA, App: "default",
		AppFields: &connector.AppFields{ClientID: clientID, ClientSecret: entra.NewSecret(canary), ScopeFields: connector.ScopeFields{Scope: graph}},
	}
}

// fieldsOf returns the names of the fields that err complains of.
func fieldsOf(t *testing.T, err error) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	var invalid *connector.InvalidError
	if !errors.As(err, &invalid) {
		t.Fatalf("error is %T: %v", err, err)
	}
	var names []string
	for _, f := range invalid.Fields {
		names = append(names, f.Field)
	}
	slices.Sort(names)
	return names
}

func TestFieldRules(t *testing.T) {
	long := strings.Repeat("x", 1024)
	type request = connector.ProvisionFields
	tenant := func(s string) func(*request) { return func(r *request) { r.TenantID = s } }
	app := func(s string) func(*request) { return func(r *request) { r.App = s } }
	connection := func(s string) func(*request) { return func(r *request) { r.Connection = s } }
	client := func(s string) func(*request) { return func(r *request) { r.AppFields.ClientID = s } }
	secret := func(s string) func(*request) {
		return func(r *request) { r.AppFields.ClientSecret = entra.NewSecret(s) }
	}
	scope := func(s string) func(*request) { return func(r *request) { r.AppFields.Scope = s } }
	cloud := func(s string) func(*request) { return func(r *request) { r.AppFields.Cloud = s } }
	service := func(s, cloud string) func(*request) {
		return func(r *request) { r.AppFields.Scope, r.AppFields.Service, r.AppFields.Cloud = "", s, cloud }
	}

	good := map[string]func(*request){
		"as it is":                func(*request) {},
		"upper-case GUID":         tenant(strings.ToUpper(tenantA)),
		"domain":                  tenant("contoso.onmicrosoft.com"),
		"domain in mixed case":    tenant("Contoso.COM"),
		"punycode domain":         tenant("xn--mnchen-3ya.de"),
		"name with all kinds":     app("0a.b_c-d"),
		"name of 64":              connection(long[:64]),
		"secret of 1024":          secret(long),
		"secret of wide runes":    secret(strings.Repeat("ü", 1024)),
		"secret with inner space": secret("a b"),
		"secret with odd signs":   secret(`~!@#$%^&*()_+{}|:"<>?=&%2B`),
		"scope by GUID":           scope("499b84ac-1321-427f-aa17-267ca6975798/.default"),
		"scope by api URI":        scope("api://" + clientID + "/.default"),
		"scope of trailing slash": scope("https://database.windows.net//.default"),
		"cloud":                   cloud("usgov"),
		"service":                 service("azure-devops", ""),
		"service in China":        service("microsoft-graph", "china"),
	}
	for name, change := range good {
		r := validRequest()
		change(&r)
		if _, err := connector.ParseProvisioning(r, start); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}

	bad := []struct {
		name   string
		change func(*request)
		fields string
	}{
		{"no tenant", tenant(""), "tenant_id"},
		{"common", tenant("common"), "tenant_id"},
		{"organizations in capitals", tenant("Organizations"), "tenant_id"},
		{"consumers", tenant("consumers"), "tenant_id"},
		{"consumers by GUID", tenant("9188040D-6C67-4C5B-B112-36A304B66DAD"), "tenant_id"},
		{"one label", tenant("contoso"), "tenant_id"},
		{"path trick", tenant("../common"), "tenant_id"},
		{"encoded path trick", tenant("a.b%2f..%2fcommon"), "tenant_id"},
		{"slash", tenant("contoso.com/oauth2"), "tenant_id"},
		{"query", tenant("contoso.com?x"), "tenant_id"},
		{"user info", tenant("a@contoso.com"), "tenant_id"},
		{"port", tenant("contoso.com:443"), "tenant_id"},
		{"empty label", tenant("contoso..com"), "tenant_id"},
		{"trailing dot", tenant("contoso.com."), "tenant_id"},
		{"label of 64", tenant(long[:64] + ".com"), "tenant_id"},
		{"leading hyphen", tenant("-a.com"), "tenant_id"},
		{"not ASCII", tenant("münchen.de"), "tenant_id"},
		{"trailing line break", tenant(tenantA + "\n"), "tenant_id"},
		{"NUL", tenant("contoso.com\x00"), "tenant_id"},
		{"braces", tenant("{" + tenantA + "}"), "tenant_id"},

		{"capital in name", app("Default"), "app"},
		{"no name", app(""), "app"},
		{"name of 65", app(long[:65]), "app"},
		{"dots", app("a..b"), "app"},
		{"leading dot", connection(".a"), "connection"},
		{"slash in name", connection("a/b"), "connection"},
		{"line break in name", connection("a\n"), "connection"},

		{"client ID that is no GUID", client("my-app"), "client_id"},
		{"spaced client ID", client(" " + clientID), "client_id"},

		{"leading space", secret(" " + canary), "client_secret"},
		{"trailing line break in secret", secret(canary + "\n"), "client_secret"},
		{"no-break space", secret(canary + "\u00a0"), "client_secret"},
		{"tab inside", secret("a\tb"), "client_secret"},
		{"delete character", secret("a\x7fb"), "client_secret"},
		{"secret of 1025", secret(long + "x"), "client_secret"},
		{"not Unicode", secret("a\xffb"), "client_secret"},

		{"permission", scope("https://graph.microsoft.com/User.Read"), "scope"},
		{"bare .default", scope("/.default"), "scope"},
		{"relative", scope("graph.microsoft.com/.default"), "scope"},
		{"http", scope("http://graph.microsoft.com/.default"), "scope"},
		{"two scopes", scope(graph + " " + graph), "scope"},
		{"query in resource", scope("https://graph.microsoft.com/?a=b/.default"), "scope"},
		{"fragment in resource", scope("https://graph.microsoft.com/#a/.default"), "scope"},
		{"user info in resource", scope("https://a:b@graph.microsoft.com/.default"), "scope"},
		{"no host", scope("https:///.default"), "scope"},
		{"quote", scope(`https://a"b/.default`), "scope"},
		{"long scope", scope("https://" + long + "/.default"), "scope"},

		{"no such cloud", cloud("germany"), "cloud"},
		{"spaced cloud", cloud("public "), "cloud"},
		{"no such service", service("sharepoint", ""), "service"},
		{"service of another cloud", service("azure-devops", "usgov"), "service"},
		{"no such service nor cloud", service("sharepoint", "mars"), "cloud service"},
		{"scope and service", func(r *request) { r.AppFields.Service = "microsoft-graph" }, "service"},
		{"neither scope nor service", scope(""), "scope"},
		{"half an app", func(r *request) { r.AppFields = &connector.AppFields{Cloud: "public"} }, "client_id client_secret scope"},
		{"everything", func(r *request) {
			*r = request{TenantID: "x", App: "X", Connection: "/", AppFields: &connector.AppFields{ClientID: "x", ClientSecret: entra.NewSecret("\t"), ScopeFields: connector.ScopeFields{Scope: "x"}, Cloud: "x"}}
		}, "app client_id client_secret cloud connection scope tenant_id"},
	}
	for _, tt := range bad {
		r := validRequest()
		tt.change(&r)
		_, err := connector.ParseProvisioning(r, start)
		if got := strings.Join(fieldsOf(t, err), " "); got != tt.fields {
			t.Errorf("%s: complains of %q, want %q", tt.name, got, tt.fields)
		}
		if err != nil && strings.Contains(err.Error(), canary) {
			t.Errorf("%s: quotes the secret: %v", tt.name, err)
		}
	}
}

// Whatever passes as a tenant or a scope stays one path segment or one scope.
func FuzzFields(f *testing.F) {
	f.Add(tenantA, graph)
	f.Add("contoso.com", "api://x/.default")
	f.Add("a/../b.c", "https://a/.default https://b/.default")
	f.Fuzz(func(t *testing.T, tenant, scope string) {
		r := validRequest()
		r.TenantID, r.AppFields.Scope = tenant, scope
		if _, err := connector.ParseProvisioning(r, start); err != nil {
			return
		}
		if strings.ContainsAny(tenant, "/\\?#%@: \t\r\n") || !strings.HasSuffix(scope, "/.default") || strings.ContainsAny(scope, " \t\r\n\"<>?#") {
			t.Errorf("accepted tenant %q, scope %q", tenant, scope)
		}
	})
}
