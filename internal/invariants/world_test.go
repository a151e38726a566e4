// Package invariants tests what never happens, whatever is called at once and in whatever order, on
// the built functions.
package invariants

import (
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/stack"
	"entra-connector/internal/stack/stacktest"
	"entra-connector/pkg/entra/entratest"
)

func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", "12") // they wait more than they work
	stacktest.Main(m)
}

var (
	share = flag.Int("share", 15, "run one in so many of the generated orders and interruptions")
	seed  = flag.Uint64("seed", 1, "which of them, and what is chosen at random")
	only  = flag.String("only", "", "run those whose name contains this")
)

// job is something that is run in a world.
type job struct {
	name   string
	writes bool // whether a refused UpdateSecret writes its Description
	run    func(w *world)
}

// runAll runs jobs in a few worlds, since it takes longer to start a world than to run most jobs.
func runAll(t *testing.T, jobs []job) {
	queues := map[bool]chan job{false: make(chan job, len(jobs)), true: make(chan job, len(jobs))}
	for _, j := range jobs {
		if strings.Contains(j.name, *only) {
			queues[j.writes] <- j
		}
	}
	t.Run("worlds", func(t *testing.T) {
		for writes, queue := range queues {
			close(queue)
			for range 4 {
				t.Run(fmt.Sprintf("a refused update writes its description: %t", writes), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t, writes)
					for j := range queue {
						w.name = j.name
						j.run(w)
					}
				})
			}
		}
	})
}

// sampled reports whether to run the nth of what a job generates. As many seeds as -share says run
// everything.
func sampled(n int) bool { return (uint64(n)+*seed)%uint64(*share) == 0 }

// refusal is a code that a person has to mend.
const refusal = "AADSTS7000112"

// disabledApp is refused in every tenant.
const disabledApp = "eeeeeeee-0000-4000-8000-000000000005"

// world is the built functions twice, between stand-ins that they share.
type world struct {
	*stacktest.Connector
	t       *testing.T
	name    string // of the job
	twin    *stacktest.Connector
	callers []*stacktest.Connector // who act by turns
	turns   *turns
	slack   time.Duration // by which a shown expiry may be wrong
	clock   *clock
}

// clock is that of the stand-in Secrets Manager.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func newWorld(t *testing.T, refusedWritesDescription bool) *world {
	return newWorldWith(t, stack.Options{Secrets: secretstoretest.Options{
		ListLag: 5 * time.Minute, RefusedUpdateWritesDescription: refusedWritesDescription,
	}})
}

func newWorldWith(t *testing.T, o stack.Options) *world {
	w := &world{t: t, clock: &clock{t: time.Now()}}
	o.Secrets.Now = w.clock.Now
	w.Connector = stacktest.Start(t, o)
	w.twin = w.Twin()
	w.Entra.AddApp(entratest.App{ClientID: disabledApp, Secrets: []entratest.Secret{{Value: stacktest.Secret}}, Disabled: true})
	for _, tenant := range []string{stacktest.TenantA, stacktest.TenantB} {
		w.Entra.Consent(tenant, disabledApp, "User.Read.All")
	}
	return w
}

// pass lets time pass for Secrets Manager.
func (w *world) pass(d time.Duration) {
	w.clock.mu.Lock()
	defer w.clock.mu.Unlock()
	w.clock.t = w.clock.t.Add(d)
}

// later is when the list has caught up, and whatever was under way has ended.
const later = 11 * time.Minute

// reset forgets everything, and sets the scene. AWS's clock may be wrong by some minutes, or ours.
func (w *world) reset(setUp []call, skew time.Duration) {
	w.t.Helper()
	w.Secrets.Reset()
	w.Entra.ClearFaults()
	w.pass(time.Until(w.clock.Now()) * -1)
	w.pass(skew - later)
	for _, c := range setUp {
		if status := c.do(w, w.twin); status/100 != 2 {
			w.t.Fatalf("%s: setting the scene: %s answers %d", w.name, c.name, status)
		}
	}
	w.pass(later)
}

// skews are what AWS's clock may be ahead of ours.
var skews = []time.Duration{0, -5 * time.Minute, 5 * time.Minute}

// refuseOnce makes Entra unavailable for the next request for a tenant.
func (w *world) refuseOnce(tenant string) {
	w.Entra.Fail(entratest.Fault{Tenant: tenant, Times: 1, Response: entratest.Refused(7000112)})
}

// connection is what the API shows of it.
type connection struct {
	TenantID  string    `json:"tenant_id"`
	Scope     string    `json:"scope"`
	Status    string    `json:"status"`
	ExpiresAt time.Time `json:"expires_at"`
	Error     struct {
		Code string `json:"code"`
	} `json:"error"`
}

func (w *world) get() connection { return w.shown("default/c") }

func (w *world) shown(name string) (c connection) {
	r := w.twin.Call("GET", "/connections/"+name, "")
	if r.Status == 200 {
		json.Unmarshal([]byte(r.Body), &c)
	}
	return c
}

// state is the tenant that the API shows for a connection, if there is one.
func (c connection) state() string {
	if c.Error.Code == "deletion_unfinished" || c.Error.Code == "unreadable_state" {
		return unfinished
	}
	return c.TenantID
}

const unfinished = "unfinished"

// failer reports what is wrong.
type failer func(format string, args ...any)

func (w *world) failer(what string) failer {
	return func(format string, args ...any) {
		w.t.Helper()
		w.t.Errorf("%s: %s: %s\n%s", w.name, what, fmt.Sprintf(format, args...), w.dump())
	}
}

// consistent holds what integrations read against what the API shows and against what Entra says
// about the token itself. It returns what the API shows.
func (w *world) consistent(fail failer) connection {
	w.t.Helper()
	return w.consistentAs("default/c", fail)
}

func (w *world) consistentAs(name string, fail failer) (shown connection) {
	w.t.Helper()
	shown = w.shown(name)
	value, ok := w.Secrets.Value("entra/connections/" + name)
	if shown.TenantID == "" || !ok {
		return shown
	}
	var six map[string]string
	if json.Unmarshal([]byte(value), &six) != nil || len(six) != 6 {
		fail("the secret of a connection holds %.100s", value)
		return shown
	}
	token, tenant := claims(six["PAN_SEC_MICROSOFT_ENTRA_ACCESS_TOKEN"]), six["PAN_SEC_MICROSOFT_ENTRA_TENANT_ID"]
	if tenant != shown.TenantID || token.Tenant != shown.TenantID {
		fail("a connection of %s holds %s, and a token of %s", shown.TenantID, tenant, token.Tenant)
	}
	if token.Audience+"/.default" != shown.Scope {
		fail("a connection for %s holds a token for %s", shown.Scope, token.Audience)
	}
	expires, _ := strconv.ParseInt(six["PAN_SEC_MICROSOFT_ENTRA_EXPIRES_AT"], 10, 64)
	if diff := shown.ExpiresAt.Sub(time.Unix(expires, 0)).Abs(); !shown.ExpiresAt.IsZero() && diff > w.slack {
		fail("shown to expire at %v, and expires at %v", shown.ExpiresAt, time.Unix(expires, 0).UTC())
	}
	if shown.Status == "ok" && shown.ExpiresAt.IsZero() {
		fail("ok, without an expiry")
	}
	return shown
}

// settled looks whether the next sweep sets everything right, however old its list was before that.
func (w *world) settled(fail failer) {
	w.t.Helper()
	w.sweep(w.twin, `{}`)
	w.consistent(fail)
	w.pass(later)
	w.sweep(w.twin, `{}`)
	got := w.consistent(fail)
	if got.TenantID == "" {
		return
	}
	// A refusal that was recorded waits for a person.
	if refused := got.Status == "refused" && got.Error.Code == refusal; got.ExpiresAt.IsZero() || got.Status != "ok" && !refused {
		fail("after a sweep the connection is %+v", got)
	}
	r := w.twin.Call("POST", "/connections/default/c/refresh", "")
	if got = w.consistent(fail); r.Status != http.StatusOK || got.Status != "ok" {
		fail("the app does not work: %s", r.Body)
	}
}

// answered looks for answers that nobody should get.
func answered(fail failer, statuses ...int) {
	for _, s := range statuses {
		if !slices.Contains([]int{0, 200, 201, 204, 404, 409, 422, 503}, s) {
			fail("status %d", s)
		}
	}
}

// dump is all secrets, without what they hold.
func (w *world) dump() string {
	var b strings.Builder
	for line := range strings.Lines(w.Secrets.Snapshot()) {
		if !strings.Contains(line, "ACCESS_TOKEN") {
			b.WriteString(line)
		}
	}
	return b.String()
}

type tokenClaims struct {
	Tenant   string `json:"tid"`
	Audience string `json:"aud"`
}

func claims(token string) (c tokenClaims) {
	parts := strings.Split(token, ".")
	if len(parts) == 3 {
		payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
		json.Unmarshal(payload, &c)
	}
	return c
}
