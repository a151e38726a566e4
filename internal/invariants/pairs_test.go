package invariants

import (
	"encoding/json"
	"flag"
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

var only = flag.String("only", "", "run the pairs whose name contains this")

// call is something that a caller asks of the connector. It returns the answer's status. Of a sweep
// that is 200 where it did its work.
type call struct {
	name string
	do   func(w *world, c *stacktest.Connector) int
}

var (
	sweep   = call{"sweep", func(w *world, c *stacktest.Connector) int { return w.sweep(c, `{"force":true}`) }}
	failing = call{"sweep that fails", func(w *world, c *stacktest.Connector) int {
		w.refuseOnce(stacktest.TenantA)
		return w.sweep(c, `{"force":true}`)
	}}
	named = call{"sweep by name", func(w *world, c *stacktest.Connector) int {
		return w.sweep(c, `{"force":true,"connections":["default/c"]}`)
	}}
	refresh = api("refresh", "POST", "/connections/default/c/refresh", "")
	provide = api("provision", "POST", "/connections", stacktest.Body("connection", "c"))
	other   = api("provision for another tenant", "POST", "/connections", stacktest.Body("connection", "c", "tenant_id", stacktest.TenantB))
	again   = api("provision by name", "POST", "/connections", stacktest.Object("tenant_id", stacktest.TenantA, "connection", "c"))
	remove  = api("delete", "DELETE", "/connections/default/c", "")
	put     = api("put app", "PUT", "/apps/default", stacktest.AppBody("client_secret", stacktest.NewSecret))
	putBad  = api("put app that no tenant knows", "PUT", "/apps/default", stacktest.AppBody("client_id", disabledApp))
	drop    = api("delete app", "DELETE", "/apps/default", "")

	calls = []call{sweep, failing, named, refresh, provide, again, other, remove, put, putBad, drop}
)

// erase deletes a secret as people do, without the connector.
func erase(secret string) call {
	return call{"erase", func(w *world, _ *stacktest.Connector) int {
		w.Secrets.Edit(secret, func(x *secretstoretest.Secret) { x.Pending = true })
		return http.StatusNoContent
	}}
}

func api(name, method, path, body string) call {
	return call{name, func(_ *world, c *stacktest.Connector) int { return c.Call(method, path, body).Status }}
}

func (c call) provisions() bool { return strings.HasPrefix(c.name, provide.name) }

// tenant is the one that a provisioning is for.
func (c call) tenant() string {
	if c.name == other.name {
		return stacktest.TenantB
	}
	return stacktest.TenantA
}

// scenes are what two callers find.
var scenes = []struct {
	name  string
	setUp []call
}{
	{"a connection", []call{provide}},
	{"a deleted connection", []call{provide, remove}},
	{"an app", []call{put}},
	{"nothing", nil},
	{"a deleted app", []call{put, drop}},
	{"a connection deleted in the console", []call{provide, erase("entra/connections/default/c")}},
	{"an app deleted in the console", []call{provide, remove, erase("entra/apps/default")}},
}

// Of two callers, one acts to its end just before a call of the other to AWS takes effect: every pair of
// what the connector can be asked, at every call, whatever there is, under both readings of what AWS does
// with the Description of an UpdateSecret that it refuses, and with lists five minutes behind.
func TestPairs(t *testing.T) {
	var orders atomic.Int64
	t.Run("all", func(t *testing.T) {
		for _, writes := range []bool{false, true} {
			for _, scene := range scenes {
				for _, first := range calls {
					name := fmt.Sprintf("%s, %s, a refused update writes its description: %t", scene.name, first.name, writes)
					if !strings.Contains(name, *only) {
						continue
					}
					t.Run(name, func(t *testing.T) {
						t.Parallel()
						w := newWorld(t, writes)
						steps := w.steps(scene.setUp, first)
						for _, second := range calls {
							for n := range steps {
								w.pair(scene.setUp, first, second, n)
								orders.Add(1)
							}
						}
					})
				}
			}
		}
	})
	t.Logf("%d orders", orders.Load())
}

// steps are the calls to AWS that a caller makes on its own.
func (w *world) steps(setUp []call, first call) []string {
	w.reset(setUp)
	w.Secrets.ResetCalls()
	first.do(w, w.Connector)
	var steps []string
	for _, c := range w.Secrets.Calls() {
		steps = append(steps, c.Op)
	}
	return steps
}

// pair lets the second caller act before the nth call of the first, and looks what came of it.
func (w *world) pair(setUp []call, first, second call, n int) {
	w.t.Helper()
	w.reset(setUp)
	before, beforeTenant := w.exists(), w.tenant()
	var mu sync.Mutex
	seen, acting, status, at := 0, false, 0, ""
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
			status = second.do(w, w.twin)
			mu.Lock()
			acting = false
			mu.Unlock()
		}
	})
	w.Secrets.ResetCalls()
	answer := first.do(w, w.Connector)
	w.Secrets.Before(nil)
	w.Entra.ClearFaults()
	what := fmt.Sprintf("%s (%d), with %s (%d) before %s (%d)", first.name, answer, second.name, status, at, n)
	fail := func(format string, args ...any) {
		w.t.Helper()
		w.t.Errorf("%s: %s\n%s", what, fmt.Sprintf(format, args...), w.dump())
	}

	for _, s := range []int{answer, status} {
		if !slices.Contains([]int{0, 200, 201, 204, 404, 409, 422, 503}, s) {
			fail("status %d", s)
		}
	}
	if calls := len(w.Secrets.Calls()); calls > 2*40 {
		fail("%d calls to AWS", calls)
	}
	w.consistent(fail)

	// What each was told is so, unless the other has changed it since.
	done := func(c call, status int) bool { return status/100 == 2 && (c.provisions() || c.name == remove.name) }
	want, wantTenant := before, beforeTenant
	apply := func(c call) {
		want, wantTenant = c.provisions(), ""
		if want {
			wantTenant = c.tenant()
		}
	}
	if done(second, status) {
		apply(second)
	}
	if done(first, answer) {
		apply(first)
	}
	if done(first, answer) && first.name == remove.name && second.provisions() && done(second, status) && at == "DeleteSecret" {
		fail("what was provisioned while the deletion was under way is gone")
	}
	// A claim restores what was deleted in the console, and gives way to whoever uses it at once.
	gaveWay := answer == http.StatusConflict && !before && status == http.StatusOK
	if exists := w.exists(); exists != want && !gaveWay {
		fail("the connection exists: %t, want %t", exists, want)
	} else if exists && w.tenant() != wantTenant && !gaveWay {
		fail("the connection is for %s, want %s", w.tenant(), wantTenant)
	}
	if first.provisions() && second.provisions() && done(first, answer) && done(second, status) && first.tenant() != second.tenant() {
		fail("both were provisioned")
	}
	if w.exists() {
		if r := w.twin.Call("GET", "/apps/default", ""); r.Status != http.StatusOK {
			fail("a connection without its app: %d", r.Status)
		}
	}

	// The next sweep sets everything right, however old its list was before that.
	w.sweep(w.twin, `{}`)
	w.consistent(fail)
	w.later()
	w.sweep(w.twin, `{}`)
	w.consistent(fail)
	if w.exists() {
		// A refusal that was recorded waits for a person.
		got := w.get()
		if refused := got.Status == "refused" && got.Error.Code == refusal; got.ExpiresAt.IsZero() || got.Status != "ok" && !refused {
			fail("after a sweep the connection is %+v", got)
		}
		if r := w.twin.Call("POST", "/connections/default/c/refresh", ""); r.Status != http.StatusOK || w.get().Status != "ok" {
			fail("the app does not work: %s", r.Body)
		}
		w.consistent(fail)
	}
}

func (w *world) sweep(c *stacktest.Connector, event string) int {
	result := c.Invoke(c.Refresh, event)
	var report struct{ Checked *int }
	if result.FunctionError != "" || json.Unmarshal(result.Payload, &report) != nil || report.Checked == nil {
		w.t.Errorf("a sweep answers %s %s", result.FunctionError, result.Payload)
		return 500
	}
	return 200
}
