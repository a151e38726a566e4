package invariants

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/stack/stacktest"
)

const (
	appSecret        = "entra/apps/default"
	connectionSecret = "entra/connections/default/c"
)

// call is something that a caller asks of the connector, or that a person does in the console.
type call struct {
	name string
	do   func(w *world, c *stacktest.Connector) int // returns the answer's status; of a sweep that did its work 200

	connection string // that it creates or deletes, if it does
	leads      string // the tenant that the connection is for then; empty if it is deleted
	person     bool
}

var (
	sweep   = call{name: "sweep", do: func(w *world, c *stacktest.Connector) int { return w.sweep(c, `{"force":true}`) }}
	failing = call{name: "sweep that fails", do: func(w *world, c *stacktest.Connector) int {
		w.refuseOnce(stacktest.TenantA)
		return w.sweep(c, `{"force":true}`)
	}}
	named = call{name: "sweep by name", do: func(w *world, c *stacktest.Connector) int {
		return w.sweep(c, `{"force":true,"connections":["default/c"]}`)
	}}
	refresh = api("refresh", "POST", "/connections/default/c/refresh", "")
	provide = api("provision", "POST", "/connections", stacktest.Body("connection", "c")).to(stacktest.TenantA)
	other   = api("provision for another tenant", "POST", "/connections", stacktest.Body("connection", "c", "tenant_id", stacktest.TenantB)).to(stacktest.TenantB)
	again   = api("provision by name", "POST", "/connections", stacktest.Object("tenant_id", stacktest.TenantA, "connection", "c")).to(stacktest.TenantA)
	storage = api("provision for another scope", "POST", "/connections",
		stacktest.Object("tenant_id", stacktest.TenantA, "connection", "c", "scope", "https://storage.azure.com/.default")).to(stacktest.TenantA)
	remove = api("delete", "DELETE", "/connections/default/c", "").to("")
	put    = api("put app", "PUT", "/apps/default", stacktest.AppBody("client_secret", stacktest.NewSecret))
	putBad = api("put app that no tenant knows", "PUT", "/apps/default", stacktest.AppBody("client_id", disabledApp))
	drop   = api("delete app", "DELETE", "/apps/default", "")

	calls = []call{sweep, failing, named, refresh, provide, again, other, remove, put, putBad, drop}
)

// What people do to secrets.
var (
	erase      = person("a person deletes it", connectionSecret, func(x *secretstoretest.Secret) { x.Pending = true })
	restore    = person("a person restores it", connectionSecret, func(x *secretstoretest.Secret) { x.Pending = false })
	untag      = person("a person removes its tags", connectionSecret, func(x *secretstoretest.Secret) { clear(x.Tags) })
	untagState = person("a person removes a tag", connectionSecret, func(x *secretstoretest.Secret) { delete(x.Tags, "entra-connector:state") })
	write      = person("a person writes a value", connectionSecret, func(x *secretstoretest.Secret) { x.Value = `{"a":"b"}` })
	moveBack   = person("a person moves the label back", connectionSecret, func(x *secretstoretest.Secret) { x.Version = x.Versions[0] })
	rewrite    = person("a person rewrites its description", connectionSecret, func(x *secretstoretest.Secret) { x.Description = "mine" })
	interrupt  = person("its deletion is interrupted", connectionSecret, func(x *secretstoretest.Secret) { x.Tags["entra-connector:state"] = "deleting" })
	vacate     = vacant(connectionSecret)

	eraseApp     = person("a person deletes the app", appSecret, func(x *secretstoretest.Secret) { x.Pending = true })
	untagApp     = person("a person removes the app's tags", appSecret, func(x *secretstoretest.Secret) { clear(x.Tags) })
	rewriteApp   = person("a person rewrites the app's description", appSecret, func(x *secretstoretest.Secret) { x.Description = "mine" })
	interruptApp = person("the app's deletion is interrupted", appSecret, func(x *secretstoretest.Secret) { x.Tags["entra-connector:state"] = "deleting" })
	vacateApp    = vacant(appSecret)

	people = []call{erase, restore, untag, untagState, write, moveBack, rewrite}
)

func api(name, method, path, body string) call {
	return call{name: name, do: func(_ *world, c *stacktest.Connector) int { return c.Call(method, path, body).Status }}
}

// to says what a call does to the connection.
func (c call) to(tenant string) call {
	c.connection, c.leads = "default/c", tenant
	return c
}

// person edits a secret, if it is there.
func person(name, secret string, edit func(x *secretstoretest.Secret)) call {
	return call{name: name, person: true, do: func(w *world, _ *stacktest.Connector) int {
		if _, ok := w.Secrets.Look(secret); ok {
			w.Secrets.Edit(secret, edit)
		}
		return http.StatusNoContent
	}}
}

// vacant makes a secret without a value, as infrastructure code does.
func vacant(secret string) call {
	return call{name: "infrastructure code makes its secret", person: true, do: func(w *world, _ *stacktest.Connector) int {
		w.Secrets.Edit(secret, func(x *secretstoretest.Secret) { x.Description = "Managed by Terraform" })
		return http.StatusNoContent
	}}
}

// scene is what callers find.
type scene struct {
	name  string
	setUp []call
}

var (
	aConnection = scene{"a connection", []call{provide}}
	deleted     = scene{"a deleted connection", []call{provide, remove}}
	anApp       = scene{"an app", []call{put}}
	nothing     = scene{"nothing", nil}

	scenes = []scene{
		aConnection, deleted, anApp, nothing,
		{"a deleted app", []call{put, drop}},
		{"a connection deleted in the console", []call{provide, erase}},
		{"an app deleted in the console", []call{provide, remove, eraseApp}},
	}
	oddConnections = []scene{
		{"a connection whose deletion was interrupted", []call{provide, interrupt}},
		{"a connection without tags", []call{provide, untag}},
		{"a connection's secret without a value", []call{put, vacate}},
		{"a connection restored in the console", []call{provide, remove, restore}},
		{"a connection with the label moved back", []call{provide, refresh, moveBack}},
	}
	oddApps = []scene{
		{"an app whose deletion was interrupted", []call{put, interruptApp}},
		{"an app's secret without a value", []call{vacateApp}},
		{"an app without tags", []call{put, untagApp}},
		{"an app with another description", []call{put, rewriteApp}},
	}
)

// found reports whether people made what the callers find.
func (s scene) odd() bool { return slices.ContainsFunc(s.setUp, func(c call) bool { return c.person }) }

// Of several callers, one or more act to their end just before a call of the first to AWS takes
// effect: every pair of what the connector can be asked, at every call, whatever there is, under
// both readings of what AWS does with the Description of an UpdateSecret that it refuses, with
// lists five minutes behind, and with clocks apart. Then what people do, and some that act one
// after the other.
func TestPairs(t *testing.T) {
	t.Parallel()
	each := func(calls ...call) (lists [][]call) {
		for _, c := range calls {
			lists = append(lists, []call{c})
		}
		return lists
	}
	moved := []call{remove, other}
	var orders atomic.Int64
	var jobs []job
	for _, group := range []struct {
		scenes  []scene
		firsts  []call
		seconds [][]call
	}{
		{scenes, calls, append(each(calls...), moved, []call{put, again})},
		{[]scene{aConnection}, []call{sweep, refresh, provide, again}, [][]call{{remove, storage}, {remove, other, moveBack}}},
		{oddConnections, []call{sweep, refresh, provide, other, remove}, append(each(sweep, refresh, provide, other, remove), moved)},
		{oddApps, []call{provide, other, put, drop}, append(each(provide, put, drop), []call{put, again})},
		{[]scene{aConnection, deleted, nothing}, []call{sweep, failing, refresh, provide, other, remove}, each(people...)},
	} {
		for _, scene := range group.scenes {
			for _, first := range group.firsts {
				for _, writes := range []bool{false, true} {
					salt := len(jobs)
					jobs = append(jobs, job{scene.name + ", " + first.name, writes, func(w *world) {
						steps := w.steps(scene.setUp, first)
						for i, others := range group.seconds {
							for n := range steps {
								if sampled(salt + i*len(steps) + n) {
									w.pair(scene, first, others, n)
									orders.Add(1)
								}
							}
						}
					}})
				}
			}
		}
	}
	runAll(t, jobs)
	t.Logf("%d orders", orders.Load())
}

// steps are the calls to AWS that a caller makes on its own.
func (w *world) steps(setUp []call, first call) []string {
	w.reset(setUp, 0)
	w.Secrets.ResetCalls()
	first.do(w, w.Connector)
	var steps []string
	for _, c := range w.Secrets.Calls() {
		steps = append(steps, c.Op)
	}
	return steps
}

// pair lets others act before the nth call of the first, and looks what came of it.
func (w *world) pair(scene scene, first call, others []call, n int) {
	w.t.Helper()
	skew := skews[n%len(skews)]
	w.reset(scene.setUp, skew)
	before := w.get().TenantID
	var mu sync.Mutex
	seen, acting, at := 0, false, ""
	second := make([]*act, len(others))
	for i, c := range others {
		second[i] = &act{call: c}
	}
	w.Secrets.Before(func(op, _ string) {
		mu.Lock()
		turn := !acting && seen == n
		if !acting {
			seen++
		}
		acting = acting || turn
		mu.Unlock()
		if turn {
			at = op
			for _, a := range second {
				a.status = a.do(w, w.twin)
			}
			mu.Lock()
			acting = false
			mu.Unlock()
		}
	})
	w.Secrets.ResetCalls()
	one := &act{call: first}
	one.status = one.do(w, w.Connector)
	w.Secrets.Before(nil)
	w.Entra.ClearFaults()
	fail := w.failer(fmt.Sprintf("%v, with %v before %s (%d), AWS's clock ahead by %v", one, second, at, n, skew))

	answered(fail, one.status)
	for _, a := range second {
		answered(fail, a.status)
	}
	if calls := len(w.Secrets.Calls()); calls > (1+len(others))*40 {
		fail("%d calls to AWS", calls)
	}
	if last := others[len(others)-1]; last.person {
		// Until a sweep has set it right, a person may have brought back a former owner's token.
		w.pass(later)
		w.sweep(w.twin, `{}`)
		got := w.get()
		if got.Status == "ok" {
			w.consistent(fail)
		}
		if n := len(others) - 2; n >= 0 && (got.TenantID != others[n].leads || got.Status != "ok") {
			fail("the connection is %+v", got)
		}
		return
	}
	shown := w.consistent(fail)

	// What each was told is so, unless another has changed it since.
	want := before
	for _, a := range append(slices.Clone(second), one) {
		if a.done() {
			want = a.leads
		} else if one.status == http.StatusConflict && before == "" && a.status == http.StatusOK && (a.name == refresh.name || shown.TenantID != "") {
			// A claim restored what was deleted in the console, and gave way to whoever used it at
			// once.
			want = stacktest.TenantA
		}
	}
	if a := second[0]; one.done() && a.done() && a.leads != "" && (one.leads == "" && at == "DeleteSecret" || one.leads != "" && one.leads != a.leads) {
		fail("both were told that they succeeded")
	}
	if shown.TenantID != want {
		fail("the connection is for %q, want %q", shown.TenantID, want)
	}
	w.hasApp(shown, fail)
	w.settled(fail)
}

// hasApp looks whether a connection has its app.
func (w *world) hasApp(shown connection, fail failer) {
	w.t.Helper()
	if shown.TenantID != "" {
		if r := w.twin.Call("GET", "/apps/default", ""); r.Status != http.StatusOK {
			fail("a connection without its app: %d", r.Status)
		}
	}
}

func (w *world) sweep(c *stacktest.Connector, event string) int {
	result := c.Invoke(c.Refresh, event)
	var report struct{ Checked *int }
	if result.FunctionError != "" || json.Unmarshal(result.Payload, &report) != nil || report.Checked == nil {
		w.t.Errorf("%s: a sweep answers %s %s", w.name, result.FunctionError, result.Payload)
		return 500
	}
	return 200
}

// act is a call that was made, and its answer.
type act struct {
	call
	status     int
	begin, end int // in the order of all that began and ended; 0 if others may have acted meanwhile
}

// done reports whether it created or deleted the connection.
func (a *act) done() bool { return a.connection != "" && a.status/100 == 2 }

func (a *act) String() string { return strings.TrimSpace(fmt.Sprintf("%s (%d)", a.name, a.status)) }
