package invariants

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/stack/stacktest"
)

// interruptions are what may go wrong with a call to AWS.
var interruptions = []struct {
	name string
	secretstoretest.Fault
	kills bool
}{
	{name: "fails", Fault: secretstoretest.Fault{Error: "InternalServiceError"}},
	{name: "is lost", Fault: secretstoretest.Fault{Drop: true}},
	{name: "takes effect and fails", Fault: secretstoretest.Fault{After: true, Error: "InternalServiceError"}},
	{name: "takes effect, and its answer is lost", Fault: secretstoretest.Fault{After: true}},
	{name: "takes effect, and its answer breaks off", Fault: secretstoretest.Fault{After: true, Break: true}},
	// As far as AWS can tell, a process that is refused everything from then on has been killed.
	{name: "is not made, nor any after it", Fault: secretstoretest.Fault{Error: "AccessDeniedException"}, kills: true},
}

// interrupted is a call that is interrupted, what it finds, and the call that comes next.
type interrupted struct {
	call
	setUp []call
	then  call
	holds string // the client secret that the app has in the end; empty where no call changes it
}

var (
	rotate  = api("provision, with a new secret", "POST", "/connections", stacktest.Body("connection", "c", "client_secret", stacktest.NewSecret)).to(stacktest.TenantA)
	refused = call{name: "refresh that is refused", do: func(w *world, c *stacktest.Connector) int {
		w.refuseOnce(stacktest.TenantA)
		return refresh.do(w, c)
	}}

	sweepAll  = sweeping("sweep", `{"force":true}`, false)
	sweepFail = sweeping("sweep that fails", `{"force":true}`, true)
	sweepName = sweeping("sweep by name", `{"force":true,"connections":["default/c"]}`, false)
)

var allInterrupted = []interrupted{
	{provide, nil, provide, stacktest.Secret},
	{provide, []call{put}, provide, stacktest.Secret},
	{provide, []call{provide}, provide, stacktest.Secret},
	{rotate, []call{provide}, rotate, stacktest.NewSecret},
	{again, []call{put}, again, ""},
	{again, []call{provide}, again, ""},
	{other, []call{provide, remove}, other, stacktest.Secret},
	{refresh, []call{provide}, refresh, ""},
	{refused, []call{provide}, refused, ""},
	{remove, []call{provide}, remove, ""},
	{put, nil, put, stacktest.NewSecret},
	{put, []call{provide}, put, stacktest.NewSecret},
	{put, []call{provide, remove}, put, stacktest.NewSecret},
	{put, []call{put, drop}, put, stacktest.NewSecret},
	{drop, []call{put}, drop, ""},
	{drop, []call{provide, remove}, drop, ""},
	{sweepAll, []call{provide}, sweepAll, ""},
	{sweepFail, []call{provide}, sweepFail, ""},
	{sweepName, []call{provide}, sweepName, ""},
	// The next caller may want something else.
	{remove, []call{provide}, provide, stacktest.Secret},
	{drop, []call{put}, put, stacktest.NewSecret},
	// A secret may be odd before that.
	{other, []call{provide, erase}, remove, ""}, // the former owner's may be back
	{other, []call{provide, interrupt}, other, ""},
	{remove, []call{provide, interrupt}, remove, ""},
	{remove, []call{provide, untag}, remove, ""},
	{other, []call{put, vacate}, other, ""},
	{other, []call{provide, remove, restore}, other, ""},
	{provide, []call{vacateApp}, provide, stacktest.Secret},
	{provide, []call{put, interruptApp}, provide, stacktest.Secret},
	{drop, []call{put, interruptApp}, drop, ""},
}

func init() {
	for _, scene := range oddConnections {
		allInterrupted = append(allInterrupted, interrupted{provide, scene.setUp, provide, ""})
	}
}

// sweeping is a sweep that may be interrupted. If the invocation fails, that counts as 503.
func sweeping(name, event string, fails bool) call {
	return call{name: name, do: func(w *world, c *stacktest.Connector) int {
		if fails {
			w.refuseOnce(stacktest.TenantA)
		}
		result, err := c.Sweep(w.t.Context(), []byte(event))
		if err != nil || result.FunctionError != "" {
			return 503
		}
		return 200
	}}
}

// Every call that the connector can be asked for is interrupted at each of its own calls to AWS, in
// every way. What that leaves is consistent. The same call finishes it, at most a minute later, and
// nothing is in anybody's way longer than that.
func TestInterruptions(t *testing.T) {
	t.Parallel()
	var runs atomic.Int64
	var jobs []job
	for _, writes := range []bool{false, true} {
		for i, x := range allInterrupted {
			var found []string
			for _, c := range x.setUp {
				found = append(found, c.name)
			}
			jobs = append(jobs, job{fmt.Sprintf("%s after %q, then %s", x.name, found, x.then.name), writes, func(w *world) {
				for n, step := range w.steps(x.setUp, x.call) {
					for how := range interruptions {
						if sampled(i + n*len(interruptions) + how) {
							w.interrupt(x, n, step, how, writes)
							runs.Add(1)
						}
					}
				}
			}})
		}
	}
	runAll(t, jobs)
	t.Logf("%d interruptions", runs.Load())
}

func (w *world) interrupt(x interrupted, n int, step string, how int, sweepFirst bool) {
	w.t.Helper()
	w.reset(x.setUp, skews[n%len(skews)])
	before := w.get()
	status, calls := w.callInterrupted(x.call, n, how)
	fail := w.failer(fmt.Sprintf("%s (%d) %s: %d", step, n, interruptions[how].name, status))
	if !interruptions[how].kills && !slices.Contains([]int{200, 201, 204, 404, 422, 503}, status) {
		fail("it answers that")
	}
	if calls > 40 {
		fail("%d calls to AWS", calls)
	}
	if after := w.consistent(fail); before.TenantID != "" && x.name != remove.name {
		if after.TenantID != before.TenantID || after.Scope != before.Scope {
			fail("a connection of %s is now %+v", before.TenantID, after)
		}
		if after.Status == "refused" && after.Error.Code != refusal {
			fail("the connection needs a person: %+v", after)
		}
	}
	if status/100 == 2 {
		w.done(x.call, fail)
	}

	if sweepFirst {
		w.minute()
		w.sweep(w.twin, `{}`)
		w.consistent(fail)
	}
	switch status := w.patiently(x.then); {
	case status/100 == 2, status == 422, status == 404 && (x.then.name == remove.name || x.then.name == drop.name):
	default:
		fail("%s answers %d", x.then.name, status)
	}
	w.done(x.then, fail)
	if value, _ := w.Secrets.Value(appSecret); x.holds != "" && !strings.Contains(value, `"`+x.holds+`"`) {
		fail("the app holds another secret")
	}
	w.consistent(fail)
	w.sweep(w.twin, `{}`)
	w.consistent(fail)
	if w.get().TenantID != "" {
		if status := w.patiently(refresh); status != 200 || w.get().Status != "ok" {
			fail("the connection cannot be refreshed (%d): %+v", status, w.get())
		}
	}
	for _, c := range []call{remove, drop} {
		if status := w.patiently(c); status != 204 && status != 404 {
			fail("in the end, %s answers %d", c.name, status)
		}
	}
	if names := w.Secrets.Names(); len(names) != 0 {
		fail("left over: %q", names)
	}
}

// callInterrupted makes a call whose nth call to AWS is interrupted. It returns the answer's status
// and how many calls to AWS there were.
func (w *world) callInterrupted(c call, n, how int) (status, calls int) {
	if n > 0 {
		w.Secrets.Fail(secretstoretest.Fault{Times: n, Delay: 1}) // these are answered as usual
	}
	fault := interruptions[how].Fault
	if fault.Times = 1; interruptions[how].kills {
		fault.Times = 0
	}
	w.Secrets.Fail(fault)
	w.Secrets.ResetCalls()
	status, calls = c.do(w, w.Connector), len(w.Secrets.Calls())
	w.Secrets.ClearFaults()
	w.Entra.ClearFaults()
	return status, calls
}

// patiently makes a call, and once more a minute later if that answers 503.
func (w *world) patiently(c call) int {
	status := c.do(w, w.twin)
	if status == 503 {
		w.minute()
		status = c.do(w, w.twin)
	}
	return status
}

// minute lets a little more than a minute pass, since the Date of an answer is in whole seconds.
func (w *world) minute() { w.pass(61 * time.Second) }

// done looks whether a call has done what it was asked for.
func (w *world) done(c call, fail failer) {
	w.t.Helper()
	app := w.twin.Call("GET", "/apps/default", "").Status
	switch {
	case c.connection != "" && w.get().TenantID != c.leads:
		fail("the connection is for %q, want %q", w.get().TenantID, c.leads)
	case c.name == drop.name && app != 404, c.name == put.name && app != 200:
		fail("the app answers %d", app)
	}
}
