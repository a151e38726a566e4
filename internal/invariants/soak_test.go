package invariants

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/stack"
	"entra-connector/internal/stack/stacktest"
	"entra-connector/pkg/entra/entratest"
)

var steps = flag.Int("steps", 200, "how many steps the soak takes")

// Many callers at once, two sweeps among them, while Entra and Secrets Manager go out of order and
// processes are killed at any call. After each step, what may be read is what some order of the
// calls leads to that were answered, with or without those that were not.
//
//	go test ./internal/invariants -run Soak -v -timeout 0 -steps=100000 -seed=7
func TestSoak(t *testing.T) {
	t.Parallel()
	for _, writes := range []bool{false, true} {
		t.Run(fmt.Sprintf("a refused update writes its description: %t", writes), func(t *testing.T) {
			t.Parallel()
			newSoak(t, *seed, writes).run(*steps / 2)
		})
	}
}

type soak struct {
	*world
	random  *rand.Rand
	workers []*stacktest.Connector

	mu    sync.Mutex
	lives map[string]int // how many more calls to AWS the processes with an access key live to make
	state map[string]map[string]bool
	log   []string
}

const soakWorkers = 4

func newSoak(t *testing.T, seed uint64, refusedWritesDescription bool) *soak {
	s := &soak{random: rand.New(rand.NewPCG(seed, 1)), lives: make(map[string]int), state: make(map[string]map[string]bool)}
	s.world = newWorldWith(t, stack.Options{Secrets: secretstoretest.Options{
		ListLag: 5 * time.Minute, RefusedUpdateWritesDescription: refusedWritesDescription, Authorize: s.authorize,
	}})
	if refusedWritesDescription {
		// Of two who refresh at once, the slower may be killed before it withdraws its Description.
		s.slack = time.Minute
	}
	for i := range soakWorkers {
		s.workers = append(s.workers, s.Twin(fmt.Sprintf("AWS_ACCESS_KEY_ID=worker%d", i)))
	}
	for _, name := range soakConnections {
		s.state[name] = map[string]bool{"": true}
	}
	return s
}

// authorize lets no call through of a process that has been killed.
func (s *soak) authorize(key, _, _ string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	left, mortal := s.lives[key]
	if mortal {
		s.lives[key] = max(0, left-1)
	}
	return !mortal || left > 0
}

var soakConnections = []string{"one/a", "one/b", "two/a"}

// choose returns a call at random.
func (s *soak) choose() *act {
	connection := soakConnections[s.random.IntN(len(soakConnections))]
	app, name, _ := strings.Cut(connection, "/")
	tenant := []string{stacktest.TenantA, stacktest.TenantB}[s.random.IntN(2)]
	secret := []string{stacktest.Secret, stacktest.NewSecret}[s.random.IntN(2)]
	request := func(what, method, path, body string) *act {
		return &act{call: api(what+" "+connection, method, path, body)}
	}
	switch n := s.random.IntN(100); {
	case n < 25:
		a := request("provision for "+tenant[:4], "POST", "/connections", stacktest.Body("app", app, "connection", name, "tenant_id", tenant, "client_secret", secret))
		a.connection, a.leads = connection, tenant
		return a
	case n < 35:
		a := request("provision by name for "+tenant[:4], "POST", "/connections", stacktest.Object("app", app, "connection", name, "tenant_id", tenant))
		a.connection, a.leads = connection, tenant
		return a
	case n < 50:
		a := request("delete", "DELETE", "/connections/"+connection, "")
		a.connection = connection
		return a
	case n < 62:
		return request("refresh", "POST", "/connections/"+connection+"/refresh", "")
	case n < 72:
		return request("put", "PUT", "/apps/"+app, stacktest.AppBody("client_secret", secret))
	case n < 76:
		return request("put bad", "PUT", "/apps/"+app, stacktest.AppBody("client_id", disabledApp))
	case n < 84:
		return request("delete app", "DELETE", "/apps/"+app, "")
	case n < 92:
		return &act{call: sweeping("sweep", `{}`, false)}
	}
	return &act{call: sweepAll}
}

func (s *soak) run(steps int) {
	begin := time.Now()
	calls := 0
	for step := 1; step <= steps && !s.t.Failed(); step++ {
		s.step(step)
		calls += len(s.Secrets.Calls())
		s.Secrets.ResetCalls()
	}
	s.t.Logf("seed %d: %d steps, %d calls to AWS, %v", *seed, steps, calls, time.Since(begin).Round(time.Second))
}

func (s *soak) step(step int) {
	acts := make([]*act, 1+s.random.IntN(soakWorkers))
	for i := range acts {
		acts[i] = s.choose()
	}
	faulty := s.disturb()
	var group sync.WaitGroup
	for i, a := range acts {
		group.Go(func() { a.status = a.do(s.world, s.workers[i]) })
	}
	group.Wait()
	s.settle()

	s.log = append(s.log, fmt.Sprintf("%d %s", step, faulty))
	for _, a := range acts {
		s.log = append(s.log, fmt.Sprintf("    %v", a))
	}
	s.log = s.log[max(0, len(s.log)-40):]
	fail := func(format string, args ...any) {
		s.t.Helper()
		s.t.Errorf("seed %d, %s\n%s\n%s", *seed, fmt.Sprintf(format, args...), strings.Join(s.log, "\n"), s.dump())
	}
	for _, name := range soakConnections {
		s.state[name] = outcomes(s.state[name], slices.DeleteFunc(slices.Clone(acts), func(a *act) bool { return a.connection != name }))
		now := s.consistentAs(name, fail).state()
		if !s.state[name][now] {
			fail("%s is %q, which no order leads to: %v", name, now, s.state[name])
		}
		s.state[name] = map[string]bool{now: true}
		app, _, _ := strings.Cut(name, "/")
		if now != "" && now != unfinished && s.twin.Call("GET", "/apps/"+app, "").Status != 200 {
			fail("%s has no app", name)
		}
	}
	if s.random.IntN(4) > 0 {
		return
	}
	// In quiet times the next sweep sets everything right.
	s.pass(later)
	sweepAll.do(s.world, s.twin)
	for _, name := range soakConnections {
		if c := s.consistentAs(name, fail); c.TenantID != "" && c.Status != "ok" {
			fail("after a quiet sweep %s is %+v", name, c)
		}
	}
}

// disturb chooses what goes wrong during a step.
func (s *soak) disturb() string {
	var what []string
	for _, op := range []string{"UpdateSecret", "CreateSecret", "TagResource", "UntagResource", "DeleteSecret", "RestoreSecret", "DescribeSecret", "GetSecretValue", "ListSecrets"} {
		if s.random.IntN(25) > 0 {
			continue
		}
		f := secretstoretest.Fault{Op: op, Times: 1 + s.random.IntN(3), After: s.random.IntN(2) == 0}
		switch s.random.IntN(3) {
		case 0:
			f.Drop = true
		case 1:
			f.Break, f.After = true, true // AWS begins to answer only what took effect
		default:
			f.Error = []string{"InternalServiceError", "ThrottlingException"}[s.random.IntN(2)]
		}
		s.Secrets.Fail(f)
		what = append(what, fmt.Sprintf("%+v", f))
	}
	if s.random.IntN(8) == 0 {
		r := []entratest.Response{entratest.HTML(503), entratest.Drop(), entratest.Refused(7000112)}[s.random.IntN(3)]
		s.Entra.Fail(entratest.Fault{Times: 1 + s.random.IntN(3), Response: r})
		what = append(what, "Entra")
	}
	if s.random.IntN(5) == 0 {
		i, left := s.random.IntN(soakWorkers), s.random.IntN(12)
		s.mu.Lock()
		s.lives[fmt.Sprintf("worker%d", i)] = left
		s.mu.Unlock()
		what = append(what, fmt.Sprintf("caller %d is killed after %d calls", i, left))
	}
	return strings.Join(what, ", ")
}

// settle ends what went wrong, and lets time pass.
func (s *soak) settle() {
	s.Secrets.ClearFaults()
	s.Entra.ClearFaults()
	s.mu.Lock()
	clear(s.lives)
	s.mu.Unlock()
	// Often little time passes, but on the whole enough for AWS to let a secret have all its
	// versions.
	s.pass(time.Duration(s.random.IntN([]int{150, 7200}[s.random.IntN(2)])) * time.Second)
}
