package main_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/stack"
	. "entra-connector/internal/stack/stacktest"
	"entra-connector/pkg/entra/entratest"
)

// Somebody else acts just before each call that accepting an invitation makes to Secrets Manager.
func TestRaces(t *testing.T) {
	w := start(t, stack.Options{Secrets: secretstoretest.Options{RefusedUpdateWritesDescription: true}})
	const unknownApp = "99999999-0000-4000-8000-000000000009" // whose credential works in no tenant
	w.Entra.AddApp(entratest.App{ClientID: unknownApp, Secrets: []entratest.Secret{{Value: Secret}}, Disabled: true})
	twin := w.Twin()
	runs := 0
	for name, act := range map[string]func(app, link string) (answer int){
		"revoke": func(app, _ string) int { return twin.Call("DELETE", "/connections/"+app+"/c", "").Status },
		"replace": func(app, _ string) int {
			return twin.Call("POST", "/connections/"+app+"/c/invitation", "").Status
		},
		"provision": func(app, _ string) int {
			return twin.Call("POST", "/connections", Object("tenant_id", TenantB, "app", app, "connection", "c")).Status
		},
		"put app": func(app, _ string) int {
			return twin.Call("PUT", "/apps/"+app, AppBody("client_id", unknownApp)).Status
		},
		"delete app": func(app, _ string) int { return twin.Call("DELETE", "/apps/"+app, "").Status },
		"sweep": func(string, string) int {
			if _, err := twin.Sweep(t.Context(), []byte(`{"force":true}`)); err != nil {
				return 500
			}
			return 200
		},
		"another administrator": func(_, link string) int {
			b := twin.Browser().Open(link)
			if !b.Has("step", "start") {
				return b.Status
			}
			if b.SignIn(otherOne); !b.Has("step", "connect") {
				return b.Status
			}
			return b.Press("step", "connect").Status
		},
	} {
		for n := 1; ; n++ {
			runs++
			app := fmt.Sprintf("r%d", runs)
			w.Call("PUT", "/apps/"+app, AppBody()).Want(t, 201)
			link, err := url.Parse(Text(w.Call("POST", "/connections/"+app+"/c/invitation", "").JSON(t), "url"))
			if err != nil {
				t.Fatal(err)
			}
			b := w.browser().Open(link.Path).SignIn(admin).Want(200, confirmTitle)
			var count atomic.Int32
			answer := 0
			w.Secrets.Before(func(string, string) {
				if int(count.Add(1)) == n {
					answer = act(app, link.Path)
				}
			})
			b.Press("step", "connect")
			w.Secrets.Before(nil)
			if b.Status == 503 { // the other took so long that a call broke off
				b.Open(link.Path)
			}
			if int(count.Load()) < n {
				break
			}
			at := fmt.Sprintf("%s before call %d, answered %d, while the page says %q", name, n, answer, b.Title())
			seen, _ := w.Secrets.Look("entra/connections/" + app + "/c")
			reply := w.Call("GET", "/connections/"+app+"/c", "")
			var c map[string]any
			_ = json.Unmarshal([]byte(reply.Body), &c)
			tenant, connected := Text(c, "tenant_id"), b.Title() == "Connected"
			if tenant != "" && !strings.Contains(seen.Value, tenant) {
				t.Errorf("%s: it shows tenant %s, and holds another's token", at, tenant)
			}
			switch {
			case connected && tenant != TenantA && !(name == "revoke" && reply.Status == 404):
				t.Errorf("%s: the connection is %s", at, reply.Body)
			case !connected && tenant == TenantA:
				t.Errorf("%s: it is connected all the same", at)
			case name == "revoke" && answer == 204 && reply.Status != 404,
				name == "replace" && answer == 200 && Text(c, "status") != "invited",
				name == "provision" && answer == 201 && tenant != TenantB,
				name == "put app" && answer == 200 && connected,
				name == "delete app" && answer == 204,
				name == "another administrator" && answer == 200 && tenant != TenantB:
				t.Errorf("%s: the connection is %d %s", at, reply.Status, reply.Body)
			case tenant == "" && reply.Status == 200 && strings.Contains(seen.Value, "ACCESS_TOKEN"):
				t.Errorf("%s: it has no tenant, but a token", at)
			}
			if n > 30 {
				t.Fatalf("%s: it makes more than 30 calls", name)
			}
		}
	}
}
