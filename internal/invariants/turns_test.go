package invariants

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"entra-connector/internal/stack/stacktest"
)

// turns lets callers act by turns. The one whose turn it is makes some calls to AWS. When it is
// about to make the next, or ends, it is somebody else's turn, or its own again.
type turns struct {
	mu      sync.Mutex
	changed *sync.Cond
	random  *rand.Rand
	acting  []int // the callers who have not ended
	whose   int
	left    int // how many calls to AWS it may still make
	events  int
	log     []string
}

func newTurns(random *rand.Rand, callers int) *turns {
	t := &turns{random: random}
	t.changed = sync.NewCond(&t.mu)
	for i := range callers {
		t.acting = append(t.acting, i)
	}
	t.nextLocked()
	return t
}

func (t *turns) nextLocked() {
	if len(t.acting) > 0 {
		t.whose, t.left = t.acting[t.random.IntN(len(t.acting))], 1+t.random.IntN(8)
	}
	t.changed.Broadcast()
}

// begin waits until it is the caller's turn for the first time.
func (t *turns) begin(caller int) (event int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.whose != caller {
		t.changed.Wait()
	}
	t.events++
	return t.events
}

// call waits until the caller may make a call to AWS.
func (t *turns) call(caller int, op string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for slices.Contains(t.acting, caller) && (t.whose != caller || t.left == 0) {
		if t.whose == caller {
			t.nextLocked()
		} else {
			t.changed.Wait()
		}
	}
	t.left--
	t.log = append(t.log, fmt.Sprint(caller, " ", op))
}

func (t *turns) end(caller int) (event int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.acting = slices.DeleteFunc(t.acting, func(c int) bool { return c == caller })
	t.nextLocked()
	t.events++
	return t.events
}

// byTurns has everybody act at once, by turns.
func (w *world) byTurns(random *rand.Rand, acts []*act) {
	for i := len(w.callers); i < len(acts); i++ {
		front := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			_, op, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
			w.turns.call(i, op)
			w.Secrets.ServeHTTP(rw, r)
		}))
		w.t.Cleanup(front.Close)
		w.callers = append(w.callers, w.Twin("AWS_ENDPOINT_URL_SECRETS_MANAGER="+front.URL))
	}
	w.turns = newTurns(random, len(acts))
	var group sync.WaitGroup
	for i, a := range acts {
		group.Go(func() {
			a.begin = w.turns.begin(i)
			a.status = a.do(w, w.callers[i])
			a.end = w.turns.end(i)
		})
	}
	group.Wait()
}

// Three callers act by turns, at random: some make some calls to AWS, while the others wait between
// two of theirs.
func TestThreeCallers(t *testing.T) {
	t.Parallel()
	found := slices.Concat(scenes, oddConnections, oddApps)
	asked := []call{provide, provide, other, other, again, remove, remove, remove, refresh, sweep, failing, put, drop}
	var jobs []job
	for n := range 5000 / *share {
		random := rand.New(rand.NewPCG(*seed, uint64(n)))
		scene := found[random.IntN(len(found))]
		var acts []*act
		for range 3 {
			acts = append(acts, &act{call: asked[random.IntN(len(asked))]})
		}
		jobs = append(jobs, job{fmt.Sprintf("%d: %s", n, scene.name), random.IntN(2) == 0, func(w *world) {
			skew := skews[random.IntN(len(skews))]
			w.reset(scene.setUp, skew)
			from := map[string]bool{w.get().state(): true}
			if scene.odd() { // who restores it need not use it
				from[stacktest.TenantA], from[unfinished] = true, true
			}
			w.byTurns(random, acts)
			w.Entra.ClearFaults()
			fail := w.failer(fmt.Sprintf("%v, AWS's clock ahead by %v\n%s", acts, skew, strings.Join(w.turns.log, ", ")))
			for _, a := range acts {
				answered(fail, a.status)
			}
			shown := w.consistent(fail)
			possible := outcomes(from, slices.DeleteFunc(slices.Clone(acts), func(a *act) bool { return a.connection == "" }))
			if !possible[shown.state()] {
				fail("the connection is for %q, which no order leads to: %v", shown.state(), possible)
			}
			w.hasApp(shown, fail)
			w.settled(fail)
		}})
	}
	runAll(t, jobs)
	t.Logf("seed %d: %d orders of three callers", *seed, len(jobs))
}

// outcomes are the states that a connection may be in after some calls, of which nobody knows the
// order, unless one ended before another began. A call that was not answered may have taken effect,
// wholly or half.
func outcomes(from map[string]bool, acts []*act) map[string]bool {
	if len(acts) == 0 {
		return from
	}
	after := make(map[string]bool)
	for i, a := range acts {
		rest := slices.Delete(slices.Clone(acts), i, i+1)
		if slices.ContainsFunc(rest, func(b *act) bool { return b.end < a.begin }) {
			continue
		}
		next := make(map[string]bool)
		for state := range from {
			switch {
			case !a.done():
				next[state] = true
			case a.leads == "" || state == "" || state == unfinished || state == a.leads:
				next[a.leads] = true
			}
			if a.status >= 500 {
				next[a.leads], next[unfinished] = true, true
			}
		}
		for state := range outcomes(next, rest) {
			after[state] = true
		}
	}
	return after
}
