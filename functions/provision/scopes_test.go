package main

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"entra-connector/internal/stack"
	. "entra-connector/internal/stack/stacktest"
	"entra-connector/pkg/entra/entratest"
)

const (
	storage  = "https://storage.azure.com/.default"
	devOps   = "499b84ac-1321-427f-aa17-267ca6975798/.default"
	exchange = "https://outlook.office365.com/.default"
)

// scopesOf returns the scopes that the API shows and those of the stored tokens, by connection.
func scopesOf(t *testing.T, c *Connector) (shown, held map[string]string) {
	t.Helper()
	shown, held = make(map[string]string), make(map[string]string)
	for _, x := range c.Call("GET", "/connections", "").Want(t, 200).JSON(t)["connections"].([]any) {
		name := Text(x, "app") + "/" + Text(x, "connection")
		shown[name], held[name] = Text(x, "scope"), audience(t, c.Token(name))+"/.default"
	}
	return shown, held
}

// A connection keeps the scope that it was provisioned with, whatever happens to the app.
func TestScopeOfEachConnection(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	want := make(map[string]string)
	check := func(step string) {
		t.Helper()
		if shown, held := scopesOf(t, c); fmt.Sprint(shown) != fmt.Sprint(want) || fmt.Sprint(held) != fmt.Sprint(want) {
			t.Errorf("%s:\n shown %v\n  held %v\n  want %v", step, shown, held, want)
		}
	}
	provision := func(status int, name, scope string, pairs ...string) Reply {
		t.Helper()
		if status == 201 {
			want["default/"+name] = scope
		}
		return c.Call("POST", "/connections", Object(append([]string{"tenant_id", TenantA, "connection", name}, pairs...)...)).Want(t, status)
	}
	whole := []string{"client_id", ClientID, "client_secret", Secret}

	provision(201, "graph", Graph, append(whole, "service", "microsoft-graph")...)
	provision(201, "storage", storage, "scope", storage)
	provision(201, "devops", devOps, "service", "azure-devops")
	provision(201, "whole", exchange, append(whole, "scope", exchange)...)
	check("provisioned")
	if app := c.Call("GET", "/apps/default", "").Want(t, 200).JSON(t); app["scope"] != Graph {
		t.Errorf("the app's scope is %v", app["scope"])
	}
	// The same again, with its scope or without, finds it.
	provision(200, "storage", "", "scope", storage)
	provision(200, "storage", "")
	provision(200, "storage", "", append(whole, "scope", storage)...)
	provision(409, "storage", "", "scope", Graph)
	provision(409, "storage", "", append(whole, "scope", Graph)...)
	check("provisioned again")

	// A rotation serves all of them.
	c.Call("POST", "/connections", Body("connection", "storage", "scope", storage, "client_secret", NewSecret)).Want(t, 200)
	if got := c.Invoke(c.Refresh, `{}`); !strings.Contains(string(got.Payload), `"checked":4,"due":3,"refreshed":3`) {
		t.Errorf("after the rotation the sweep answers %s", got.Payload)
	}
	requests := c.Entra.Requests()
	for _, r := range requests[len(requests)-4:] {
		if r.SecretIndex != 1 {
			t.Errorf("asked for %s with secret %d", r.Scope, r.SecretIndex)
		}
	}
	check("rotated")

	// What PUT leaves out stays. Another scope is for connections to come.
	if app := c.Call("PUT", "/apps/default", Object(whole...)).Want(t, 200).JSON(t); app["scope"] != Graph || app["cloud"] != "public" {
		t.Errorf("put without a scope, the app is %v", app)
	}
	if app := c.Call("PUT", "/apps/default", Object(append(whole, "scope", storage)...)).Want(t, 200).JSON(t); app["scope"] != storage {
		t.Errorf("put with another scope, the app is %v", app)
	}
	provision(200, "graph", "")
	provision(201, "new", storage)
	c.Invoke(c.Refresh, `{"force":true}`)
	check("put")

	// A name that was deleted is free for another scope.
	c.Call("DELETE", "/connections/default/new", "").Want(t, 204)
	provision(201, "new", devOps, "service", "azure-devops")
	check("named again")
}

// An app need not have a scope. Then each connection has to name its own.
func TestAppWithoutAScope(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	app := c.Call("PUT", "/apps/default", Object("client_id", ClientID, "client_secret", Secret)).Want(t, 201).JSON(t)
	if _, has := app["scope"]; has || app["cloud"] != "public" {
		t.Errorf("the app is %v", app)
	}
	if r := c.Call("POST", "/connections", Object("tenant_id", TenantA)).Want(t, 400); !strings.Contains(r.Body, `"field":"scope"`) {
		t.Errorf("%s", r.Body)
	}
	c.Call("POST", "/connections", Object("tenant_id", TenantA, "service", "azure-storage")).Want(t, 201)
	c.Call("PUT", "/apps/sovereign", Object("client_id", ClientID, "client_secret", Secret, "cloud", "bleu")).Want(t, 201)
	if r := c.Call("POST", "/connections", Object("tenant_id", TenantA, "app", "sovereign", "service", "azure-devops")).Want(t, 400); !strings.Contains(r.Body, `"field":"service"`) || !strings.Contains(r.Body, "bleu") {
		t.Errorf("%s", r.Body)
	}
}

// Entra may grant a token that is of no use to the service.
func TestWarnings(t *testing.T) {
	t.Parallel()
	c := Start(t, brief)
	certificate, file := newCertificate(t, 365)
	c.Entra.AddApp(entratest.App{ClientID: OtherID, Certificates: []*x509.Certificate{certificate}})
	secret := Object("tenant_id", TenantB, "connection", "c", "client_id", ClientID, "client_secret", Secret)
	withKey := with(Object("tenant_id", TenantB, "connection", "c", "client_id", OtherID), "certificate", quoted(file))
	for _, tt := range []struct {
		resource, app string
		roles         []string
		want          string
	}{
		{"https://graph.microsoft.com", secret, nil, "no_roles"},
		{"https://graph.microsoft.com", secret, []string{"User.Read.All"}, ""},
		{"https://outlook.office365.com", secret, nil, "no_roles"},
		{"https://outlook.office365.com", secret, []string{"Exchange.ManageAsApp"}, ""},
		{"https://ps.outlook.com", secret, nil, "no_roles"},
		{"https://storage.azure.com", secret, nil, ""},
		{"499b84ac-1321-427f-aa17-267ca6975798", secret, nil, "azure_devops_user"},
		{"https://app.vssps.visualstudio.com", secret, nil, "azure_devops_user"},
		{"https://contoso.sharepoint.com", secret, nil, "sharepoint_client_secret"},
		{"https://contoso-admin.sharepoint.us", secret, nil, "sharepoint_client_secret"},
		{"https://contoso.sharepoint.com", withKey, nil, ""},
		{"api://x.example/a~b(c)*'!,;=%41&$[d]", secret, nil, ""},
	} {
		c.Entra.AddTenant(entratest.Tenant{ID: TenantB, Resources: []string{tt.resource}})
		c.Entra.Consent(TenantB, ClientID, tt.roles...)
		c.Entra.Consent(TenantB, OtherID, tt.roles...)
		created := c.Call("POST", "/connections", with(tt.app, "scope", quoted(tt.resource+"/.default"))).Want(t, 201)
		var x struct {
			Status   string
			Warnings []struct{ Code, Title, Action string }
		}
		if err := json.Unmarshal([]byte(created.Body), &x); err != nil || x.Status != "ok" {
			t.Fatalf("%s: %s", tt.resource, created.Body)
		}
		codes := ""
		for _, w := range x.Warnings {
			if codes += w.Code; w.Title == "" || w.Action == "" {
				t.Errorf("%s: %s says nothing", tt.resource, w.Code)
			}
		}
		if codes != tt.want {
			t.Errorf("%s with %v: warnings %q, want %q", tt.resource, tt.roles, codes, tt.want)
		}
		if list := c.Call("GET", "/connections", "").Want(t, 200).JSON(t)["connections"].([]any); Text(list[0], "scope") != tt.resource+"/.default" || !strings.Contains(fmt.Sprint(list), tt.want) {
			t.Errorf("%s: the list says %s", tt.resource, list)
		}
		c.Call("DELETE", "/connections/default/c", "").Want(t, 204)
		c.Call("DELETE", "/apps/default", "").Want(t, 204)
	}
}

// audience returns the audience of a token.
func audience(t *testing.T, token string) string {
	t.Helper()
	claims := make(jwt.MapClaims)
	if _, _, err := jwt.NewParser().ParseUnverified(token, claims); err != nil {
		t.Fatal("the token cannot be parsed")
	}
	return fmt.Sprint(claims["aud"])
}
