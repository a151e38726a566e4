// Package invariants tests what never happens, whatever is called at once and in whatever order, on the
// built functions.
package invariants

import (
	"encoding/base64"
	"encoding/json"
	"flag"
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
	flag.Set("test.parallel", "8") // they wait more than they work
	stacktest.Main(m)
}

// refusal is a code that a person has to mend.
const refusal = "AADSTS7000112"

// disabledApp is refused in every tenant.
const disabledApp = "eeeeeeee-0000-4000-8000-000000000005"

// world is the built functions twice, between stand-ins that they share.
type world struct {
	*stacktest.Connector
	t     *testing.T
	twin  *stacktest.Connector
	clock *clock
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

// later lets the list catch up, and whatever was under way end.
func (w *world) later() { w.pass(11 * time.Minute) }

// reset forgets everything, and sets the scene.
func (w *world) reset(setUp []call) {
	w.t.Helper()
	w.Secrets.Reset()
	w.Entra.ClearFaults()
	for _, c := range setUp {
		if status := c.do(w, w.twin); status/100 != 2 {
			w.t.Fatalf("setting the scene: %s answers %d", c.name, status)
		}
	}
	w.later()
}

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

// exists reports whether the API shows a connection of a tenant.
func (w *world) exists() bool { return w.get().TenantID != "" }

func (w *world) tenant() string { return w.get().TenantID }

// consistent holds what integrations read against what the API shows and against what Entra says about
// the token itself.
func (w *world) consistent(fail func(format string, args ...any)) {
	w.t.Helper()
	w.consistentAs("default/c", fail)
}

func (w *world) consistentAs(name string, fail func(format string, args ...any)) {
	w.t.Helper()
	shown := w.shown(name)
	value, ok := w.Secrets.Value("entra/connections/" + name)
	if shown.TenantID == "" || !ok {
		return
	}
	var six map[string]string
	if json.Unmarshal([]byte(value), &six) != nil || len(six) != 6 {
		fail("the secret of a connection holds %.100s", value)
		return
	}
	token, tenant := claims(six["PAN_SEC_MICROSOFT_ENTRA_ACCESS_TOKEN"]), six["PAN_SEC_MICROSOFT_ENTRA_TENANT_ID"]
	if tenant != shown.TenantID || token.Tenant != shown.TenantID {
		fail("a connection of %s holds %s, and a token of %s", shown.TenantID, tenant, token.Tenant)
	}
	if token.Audience+"/.default" != shown.Scope {
		fail("a connection for %s holds a token for %s", shown.Scope, token.Audience)
	}
	expires, _ := strconv.ParseInt(six["PAN_SEC_MICROSOFT_ENTRA_EXPIRES_AT"], 10, 64)
	if !shown.ExpiresAt.IsZero() && shown.ExpiresAt.Unix() != expires {
		fail("shown to expire at %v, and expires at %v", shown.ExpiresAt, time.Unix(expires, 0).UTC())
	}
	if shown.Status == "ok" && shown.ExpiresAt.IsZero() {
		fail("ok, without an expiry")
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
