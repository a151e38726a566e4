package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/stack"
	. "entra-connector/internal/stack/stacktest"
	"entra-connector/pkg/entra/entratest"
)

// Provisioning is safe to interrupt: with a failure before or after each of its
// steps, the same call again ends in exactly one healthy connection.
func TestProvisionIsSafeToInterrupt(t *testing.T) {
	situations := []struct {
		name    string
		prepare func(t *testing.T, c *Connector)
		body    string
		steps   []string // operation and secret, in the order in which they are made
	}{
		{
			name: "new app", prepare: func(*testing.T, *Connector) {},
			body: Body("connection", "acme", "tenant_id", "contoso.com"),
			steps: []string{"GetSecretValue entra/apps/default", "DescribeSecret entra/connections/default/acme",
				"CreateSecret entra/apps/default", "CreateSecret entra/connections/default/acme"},
		},
		{
			name: "known app, new credential",
			prepare: func(t *testing.T, c *Connector) {
				c.Call("PUT", "/apps/default", AppBody()).Want(t, 201)
			},
			body: Body("connection", "acme", "client_secret", NewSecret),
			steps: []string{"GetSecretValue entra/apps/default", "DescribeSecret entra/connections/default/acme",
				"UpdateSecret entra/apps/default", "CreateSecret entra/connections/default/acme"},
		},
		{
			name: "known connection",
			prepare: func(t *testing.T, c *Connector) {
				c.Call("POST", "/connections", Body("connection", "acme")).Want(t, 201)
			},
			body: Body("connection", "acme"),
			steps: []string{"GetSecretValue entra/apps/default", "DescribeSecret entra/connections/default/acme",
				"UpdateSecret entra/connections/default/acme"},
		},
		{
			name: "deleted app and connection of another tenant",
			prepare: func(t *testing.T, c *Connector) {
				c.Call("POST", "/connections", Body("connection", "acme", "tenant_id", TenantB, "client_id", OtherID)).Want(t, 201)
				c.Call("DELETE", "/connections/default/acme", "").Want(t, 204)
				c.Call("DELETE", "/apps/default", "").Want(t, 204)
			},
			body: Body("connection", "acme"),
			steps: []string{"GetSecretValue entra/apps/default", "DescribeSecret entra/connections/default/acme",
				"CreateSecret entra/apps/default", "DescribeSecret entra/apps/default", "RestoreSecret entra/apps/default", "UpdateSecret entra/apps/default",
				"CreateSecret entra/connections/default/acme", "DescribeSecret entra/connections/default/acme",
				"RestoreSecret entra/connections/default/acme", "UpdateSecret entra/connections/default/acme"},
		},
	}
	for _, s := range situations {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			// The steps below are the ones that the call makes.
			c := Start(t, stack.Options{})
			s.prepare(t, c)
			c.Secrets.ResetCalls()
			c.Call("POST", "/connections", s.body)
			var made []string
			for _, call := range c.Secrets.Calls() {
				made = append(made, call.Op+" "+call.Secret)
			}
			if !slices.Equal(made, s.steps) {
				t.Fatalf("steps\n got %q\nwant %q", made, s.steps)
			}
			for i := range s.steps {
				for _, after := range []bool{false, true} {
					interrupt(t, s.prepare, s.body, s.steps[:i+1], after)
				}
			}
			for _, endpoint := range []string{"openid", "token"} {
				c := Start(t, stack.Options{})
				s.prepare(t, c)
				c.Entra.Fail(entratest.Fault{Endpoint: endpoint, Times: 1, Response: entratest.Drop()})
				c.Call("POST", "/connections", s.body)
				endsHealthy(t, c, "Entra does not answer "+endpoint, s.body)
			}
		})
	}
}

// interrupt fails the last of the steps, before it takes effect or after it.
func interrupt(t *testing.T, prepare func(*testing.T, *Connector), body string, steps []string, after bool) {
	t.Helper()
	c := Start(t, stack.Options{})
	prepare(t, c)
	last := steps[len(steps)-1]
	op, secret, _ := strings.Cut(last, " ")
	for _, step := range steps[:len(steps)-1] {
		if step == last { // an earlier call of the same kind goes through
			c.Secrets.Fail(secretstoretest.Fault{Op: op, Secret: secret, Times: 1, Delay: 1})
		}
	}
	c.Secrets.Fail(secretstoretest.Fault{Op: op, Secret: secret, Times: 1, Error: "InternalServiceError", After: after})
	name := fmt.Sprintf("%s fails, after taking effect: %t", last, after)
	// A step that answers with an error of its own, such as a secret that is not
	// there, cannot fail after it.
	if r := c.Call("POST", "/connections", body); r.Status != 503 && !(after && r.Status == 201) {
		t.Errorf("%s: status %d", name, r.Status)
	}
	endsHealthy(t, c, name, body)
}

// endsHealthy makes the call again and looks for exactly one healthy connection.
func endsHealthy(t *testing.T, c *Connector, name, body string) {
	t.Helper()
	if r := c.Call("POST", "/connections", body); r.Status != 200 && r.Status != 201 {
		t.Errorf("%s: the same call again: %d %s", name, r.Status, r.Body)
		return
	}
	if got, want := c.Secrets.Names(), []string{"entra/apps/default", "entra/connections/default/acme"}; !slices.Equal(got, want) {
		t.Errorf("%s: secrets %v, want %v", name, got, want)
	}
	connection := c.Call("GET", "/connections/default/acme", "").JSON(t)
	if connection["status"] != "ok" || connection["tenant_id"] != TenantA {
		t.Errorf("%s: the connection is %v", name, connection)
	}
	if got := c.Token("default/acme"); got == "" || got != c.LastToken() {
		t.Errorf("%s: the stored token is not the newest", name)
	}
	// What is stored of the app gets tokens too.
	c.Call("POST", "/connections/default/acme/refresh", "").Want(t, 200)
}
