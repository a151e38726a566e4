//go:build !race

package connector_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"entra-connector/internal/connector"
	"entra-connector/internal/secretstore"
	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/pkg/entra"
)

var (
	simSeed        = flag.Uint64("sim.seed", 1, "what happens by chance in TestFreshness")
	simDays        = flag.Int("sim.days", 0, "how many days of everything TestFreshness lasts; 0: one shift of the most important")
	simConnections = flag.Int("sim.connections", 1000, "how many connections TestFreshness has")
	simVerbose     = flag.Bool("sim.verbose", false, "log every sweep of TestFreshness")
)

// Phases of a simulation. What goes wrong lasts until everything that can be fresh is fresh again.
const (
	phaseOrdinary = "ordinary"
	phaseRival    = "rival"         // other programs use up most of AWS's quota
	phaseCrowd    = "hanging crowd" // most of the tenants hang
	phaseKilled   = "killed sweep"
	phaseOutage   = "outage"      // of 15 minutes
	phaseLong     = "long outage" // longer than any token lives
)

// promised is the least life of a token that a reader may meet, of a connection whose tenant has nothing
// against it.
var promised = map[string]time.Duration{
	phaseOrdinary: 20 * time.Minute,
	phaseRival:    20 * time.Minute,
	phaseCrowd:    20 * time.Minute,
	phaseKilled:   15 * time.Minute,
	phaseOutage:   3 * time.Minute,
}

// The function's defaults, and what Lambda and AWS's answers take.
const (
	window          = 30 * time.Minute
	jitter          = 0.25
	writesPerSecond = 45
	sweepWorkers    = 64 // requests to Entra at a time
	every           = 5 * time.Minute
	lambdaTimeout   = 300 * time.Second
	awsTimeout      = 5 * time.Second
	awsAnswers      = 40 * time.Millisecond
)

// TestFreshness holds the freshness that the README promises against what goes wrong in production. A
// longer run takes longer:
//
//	go test ./internal/connector -run Freshness -v -timeout 0 -sim.days=1 -sim.connections=2000 -sim.seed=2
func TestFreshness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t, *simSeed, *simConnections)
		if *simDays == 0 {
			s.run(shift)
		}
		for range *simDays {
			s.run(day)
		}
		t.Log(s)
		for phase, promised := range promised {
			if l := s.least[phase]; l.seen == 0 || l.life < promised {
				t.Errorf("%s: of %d tokens read, one had %v left, promised are %v", phase, l.seen, l.life, promised)
			}
		}
		atQuota := time.Duration(float64(len(s.held)) / writesPerSecond * float64(time.Second))
		if most := atQuota*11/10 + 10*time.Second; s.recovery > most {
			t.Errorf("after a long outage everything was fresh %v into the next sweep, want %v at most", s.recovery, most)
		}
		// The listing is five minutes behind, so the tenants that have hung once or twice are not known
		// yet. They are fewer than half.
		if most := time.Duration(len(s.held)/2/sweepWorkers) * 10 * time.Second; s.delay > most {
			t.Errorf("while most tenants hang, another had its token %v into a sweep, want %v at most", s.delay, most)
		}
		if s.needless > 0 {
			t.Errorf("AWS throttled %d calls of sweeps that had the quota to themselves", s.needless)
		}
	})
}

// simulation is the refresh function between an Entra and a Secrets Manager that go wrong when they are
// told to, all of them on the clock of a bubble: the real sweeper, adapter and SDK, with the function's
// defaults, and the stand-in Secrets Manager with AWS's quotas and lists as far behind as AWS says.
//
// It sees each token stored, and so the least life that any reader can have seen: a token has the least
// of it when it is replaced. That is exact, where readers of its own would be samples.
type simulation struct {
	*testing.T
	seed    uint64
	begin   time.Time
	secrets *secretstoretest.Server
	mode    atomic.Pointer[string] // of Entra: "", "503", "slow", "hang", or "crowd": many tenants hang
	running sync.WaitGroup         // invocations
	awake   atomic.Int32           // how many there are
	rivals  atomic.Int32           // writes a second that other programs make meanwhile

	mu      sync.Mutex // guards everything below
	idle    []*instance
	held    []heldToken // by the connection's number
	asked   []int       // token requests of each
	phase   string
	ended   time.Time // when what the phase is named after was over; zero before
	mending time.Time // when the first sweep after that began
	least   map[string]least

	programs, sweeps, doubled, killed, refreshed, calls, throttled int

	together time.Time     // when two sweeps last ran at once
	needless int           // how many calls of a sweep on its own AWS throttled
	delay    time.Duration // the furthest into a sweep that a token was stored while most tenants hang
	recovery time.Duration // the same after a long outage
}

// heldToken is what a reader of one connection gets.
type heldToken struct {
	value           string
	expires, stored time.Time
}

// least is the smallest life of a token that was seen in a phase.
type least struct {
	life       time.Duration
	connection int
	at         time.Duration // since the beginning
	seen       int           // tokens
}

// kind is how a tenant behaves, for good.
type kind int

const (
	steady    kind = iota
	crowd          // hangs together with many others, for hours
	refusing       // for good
	hanging        // for good
	throttled      // every other request, for 1 to 20 minutes
)

func kindOf(n int) kind {
	switch {
	case n%50 < 3:
		return refusing + kind(n%50)
	case n%4 == 3:
		return steady
	}
	return crowd
}

// numberOf returns the number at the end of a tenant's GUID, which is also the end of a secret's name.
func numberOf(name string) int {
	n, _ := strconv.Atoi(name[strings.LastIndexByte(name, '-')+1:])
	return n
}

// chance is a number that depends on nothing but the seed and what is given. So it does not matter in
// which order goroutines ask for it.
func (s *simulation) chance(of ...int) uint64 {
	h := fnv.New64a()
	fmt.Fprint(h, s.seed, of)
	return h.Sum64()
}

func pause(ctx context.Context, d time.Duration) error {
	ended, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-ended.Done()
	return ctx.Err()
}

// newSimulation has so many connections, provisioned one after the other as fast as AWS allows.
func newSimulation(t *testing.T, seed uint64, connections int) *simulation {
	s := &simulation{
		T: t, seed: seed, begin: time.Now(), held: make([]heldToken, connections), asked: make([]int, connections),
		least: make(map[string]least), phase: phaseOrdinary,
	}
	s.set("")
	var err error
	if s.secrets, err = secretstoretest.New(secretstoretest.Options{Quotas: secretstoretest.AWSQuotas, ListLag: 5 * time.Minute}); err != nil {
		t.Fatal(err)
	}
	i := s.newInstance()
	w := &world{t: t, bubble: true, store: i.store}
	_, err = w.store.CreateApp(t.Context(), w.app())
	w.must(err)
	for n := range connections {
		token := entra.Token{
			TenantID: tenant(n), Type: "Bearer", AccessToken: entra.NewSecret("first"),
			ExpiresIn: int64(3600 + s.chance(n)%1801), RequestedAt: time.Now(),
		}
		_, err := w.store.CreateConnection(t.Context(), seeded(n, token, nil), token)
		w.must(err)
		s.held[n] = heldToken{"", token.ExpiresAt(), time.Now()}
	}
	return s
}

// answer is as much of Entra as a token request sees, with tokens that live 60 to 90 minutes.
func (s *simulation) answer(r *http.Request) (*http.Response, error) {
	n := numberOf(strings.Split(r.URL.Path, "/")[1])
	s.mu.Lock()
	s.asked[n]++
	nth := s.asked[n]
	s.mu.Unlock()
	chance, mode, of := s.chance(n, nth), *s.mode.Load(), kindOf(n)
	takes := 100*time.Millisecond + time.Duration(chance>>32%300)*time.Millisecond
	if mode == "hang" || of == hanging || mode == "crowd" && of == crowd {
		takes = time.Hour
	} else if mode == "slow" {
		takes = 8 * time.Second
	}
	if err := pause(r.Context(), takes); err != nil {
		return nil, err
	}
	status, body, retryAfter := 200, fmt.Sprintf(`{"token_type":"Bearer","expires_in":%d,"access_token":"opaque"}`, 3600+chance%1801), uint64(0)
	switch {
	case mode == "503":
		status, body, retryAfter = 503, `unavailable`, chance%2*(chance%120)
	case of == refusing:
		status, body = 401, `{"error":"invalid_client","error_codes":[7000222]}`
	case of == throttled && nth%2 == 0:
		status, body, retryAfter = 429, `throttled`, 60+chance%1140
	}
	header := http.Header{"Content-Type": {"application/json"}, "Retry-After": {fmt.Sprint(retryAfter)}}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

func (s *simulation) set(mode string) { s.mode.Store(&mode) }

// instance is one of Lambda's. It runs one sweep at a time, and what it has learned of AWS's throttling
// lasts as long as it does.
type instance struct {
	*simulation
	store   *secretstore.Store
	sweeper connector.Sweeper
	began   time.Time // its sweep
	kill    context.CancelFunc
	writes  atomic.Int32 // after how many more writes it is killed; negative: never
	dead    atomic.Bool
}

func (s *simulation) newInstance() *instance {
	i := &instance{simulation: s}
	i.writes.Store(-1)
	i.store = secretstore.New(secretsmanager.New(secretsmanager.Options{
		Region: "us-east-1", BaseEndpoint: aws.String("http://aws.invalid"),
		Credentials: credentials.NewStaticCredentialsProvider("id", "key", ""),
		HTTPClient:  &http.Client{Transport: i.alive(i.aws), Timeout: awsTimeout},
	}), secretstore.Config{Prefix: "entra", WritesPerSecond: writesPerSecond})
	i.sweeper = connector.Sweeper{
		Store: i.store, Window: window, Jitter: jitter, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Entra: entra.NewClient(entra.ClientConfig{Transport: i.alive(s.answer)}),
	}
	return i
}

// alive lets nothing through, in neither direction, once the process is gone.
func (i *instance) alive(next roundTripper) roundTripper {
	gone := errors.New("the process is gone")
	return func(r *http.Request) (*http.Response, error) {
		if i.dead.Load() {
			return nil, gone
		}
		response, err := next(r)
		if i.dead.Load() {
			return nil, gone
		}
		return response, err
	}
}

// aws is the way to Secrets Manager and back. The simulation sees a call at the moment at which it takes
// effect, whatever becomes of the answer.
func (i *instance) aws(r *http.Request) (*http.Response, error) {
	if err := pause(r.Context(), awsAnswers/2); err != nil {
		return nil, err
	}
	if strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".UpdateSecret") && i.writes.Load() >= 0 && i.writes.Add(-1) < 0 {
		i.dead.Store(true)
		i.kill()
		return nil, context.Canceled
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	response, err := inMemory(i.secrets)(r)
	i.saw(i.began, body, response)
	if err == nil {
		err = pause(r.Context(), awsAnswers/2)
	}
	return response, err
}

// saw takes note of a call to Secrets Manager, and of the token that it may have stored.
func (s *simulation) saw(began time.Time, request []byte, response *http.Response) {
	var in struct{ SecretId, SecretString string }
	json.Unmarshal(request, &in)
	_, name, _ := strings.Cut(in.SecretId, ":secret:")
	name = name[:max(0, len(name)-len("-AbCdEf"))]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if response != nil && response.StatusCode == 400 {
		answer, _ := io.ReadAll(response.Body)
		response.Body = io.NopCloser(bytes.NewReader(answer))
		if strings.Contains(string(answer), "ThrottlingException") {
			s.sawThrottling()
		}
	}
	if value, _ := s.secrets.Value(name); in.SecretString != "" && value == in.SecretString {
		n := numberOf(name)
		s.see(n)
		s.refreshed++
		var token map[string]string
		json.Unmarshal([]byte(value), &token)
		expires, _ := strconv.ParseInt(token[entra.KeyExpiresAt], 10, 64)
		s.held[n] = heldToken{value, time.Unix(expires, 0), time.Now()}
		if s.phase == phaseCrowd && kindOf(n) == steady {
			s.delay = max(s.delay, time.Since(began))
		}
	}
}

// sawThrottling counts what AWS throttles of a sweep that has the quota to itself.
func (s *simulation) sawThrottling() {
	s.throttled++
	if s.awake.Load() > 1 {
		s.together = time.Now()
	}
	if s.phase == phaseOrdinary && time.Since(s.together) > 2*time.Second {
		s.needless++
	}
}

// see takes into account what a reader of a connection sees now, if its tenant has nothing against it. The
// crowd has, until it is fresh again.
func (s *simulation) see(n int) {
	if of := kindOf(n); of != steady && (of != crowd || s.phase == phaseCrowd) {
		return
	}
	l, seen := s.least[s.phase]
	if life := time.Until(s.held[n].expires); !seen || life < l.life {
		l.life, l.connection, l.at = life, n, time.Since(s.begin)
	}
	l.seen++
	s.least[s.phase] = l
}

// enter begins a phase, which lasts until the effects of what it is named after are over: see settle.
func (s *simulation) enter(phase string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next(phase)
}

func (s *simulation) next(phase string) {
	for n := range s.held {
		s.see(n)
	}
	s.phase, s.ended, s.mending = phase, time.Time{}, time.Time{}
}

// over says that what the phase is named after is over. A sweep that begins afterwards ends the phase.
func (s *simulation) over() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = time.Now()
}

// invoke runs a sweep as Lambda does: in an instance that is idle or else in a new one, and not for longer
// than its timeout. The process is killed when it has made so many writes, unless that is negative.
func (s *simulation) invoke(killAfter int) {
	s.mu.Lock()
	s.sweeps++
	var i *instance
	if last := len(s.idle) - 1; last >= 0 {
		i, s.idle = s.idle[last], s.idle[:last]
	} else {
		i = s.newInstance()
	}
	i.writes.Store(int32(killAfter))
	i.began = time.Now()
	if !s.ended.IsZero() && s.mending.IsZero() {
		s.mending = i.began
	}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(s.Context(), lambdaTimeout)
	i.kill = cancel
	s.secrets.ResetCalls() // or they would fill the memory
	s.awake.Add(1)
	s.running.Go(func() {
		defer s.awake.Add(-1)
		defer cancel()
		report, err := i.sweeper.Sweep(ctx, connector.SweepRequest{})
		s.mu.Lock()
		defer s.mu.Unlock()
		took := time.Since(i.began)
		switch {
		case i.dead.Load():
			s.killed++
			return
		case took >= lambdaTimeout:
			s.Errorf("a sweep took %v, and would have been cut off", took)
			return
		}
		s.idle = append(s.idle, i)
		report.Failures, report.Apps = nil, nil
		s.logf("sweep took %v: %+v, %v", took.Round(time.Millisecond), report, err)
		if !s.ended.IsZero() && i.began.After(s.ended) {
			s.settle(took)
		}
	})
	if n := s.rivals.Load(); n > 0 && s.awake.Load() == 1 {
		s.running.Go(func() { s.rival(time.Second / time.Duration(n)) })
	}
}

// rival writes for as long as a sweep is running, which is when it matters. All that this does is to use
// up the quota.
func (s *simulation) rival(every time.Duration) {
	for s.awake.Load() > 0 {
		r, _ := http.NewRequestWithContext(s.Context(), "POST", "http://aws.invalid/", strings.NewReader("{}"))
		r.Header.Set("X-Amz-Target", "secretsmanager.UpdateSecret")
		r.Header.Set("Content-Type", "application/x-amz-json-1.1")
		r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=rival/")
		inMemory(s.secrets)(r)
		time.Sleep(every)
	}
}

// settle ends the phase, unless the sweep that took so long has left something that could be fresher.
func (s *simulation) settle(took time.Duration) {
	var last time.Time
	stale := 0
	for n, h := range s.held {
		if of := kindOf(n); of != steady && of != crowd {
			continue
		}
		if time.Until(h.expires) < window-took-time.Second {
			stale++
		}
		if h.stored.After(last) {
			last = h.stored
		}
	}
	if stale > 0 {
		s.logf("that leaves %d connections stale", stale)
		return
	}
	if s.phase == phaseLong || s.phase == phaseCrowd {
		s.recovery = max(s.recovery, last.Sub(s.mending))
	}
	if s.next(phaseOrdinary); s.rivals.Load() > 0 {
		s.phase = phaseRival
	}
}

func (s *simulation) logf(format string, args ...any) {
	if *simVerbose {
		s.Logf("%10v %-13s "+format, append([]any{time.Since(s.begin).Round(time.Second), s.phase}, args...)...)
	}
}

// String sums up.
func (s *simulation) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	requests := 0
	for _, n := range s.asked {
		requests += n
	}
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %.1f days, %d connections, %d sweeps (%d doubled, %d killed), %d refreshes, %d requests to Entra, %d calls to AWS (%d throttled)",
		s.seed, time.Since(s.begin).Hours()/24, len(s.held), s.sweeps, s.doubled, s.killed, s.refreshed, requests, s.calls, s.throttled)
	for _, phase := range slices.Sorted(maps.Keys(s.least)) {
		l := s.least[phase]
		fmt.Fprintf(&b, "\n  %-14s least life %v, of %d (connection %d, at %v)", phase, l.life.Round(time.Millisecond), l.seen, l.connection, l.at.Round(time.Second))
	}
	fmt.Fprintf(&b, "\n  at most %v into a sweep for a token while most tenants hang, and %v until all are fresh after a long outage",
		s.delay.Round(time.Millisecond), s.recovery.Round(time.Millisecond))
	return b.String()
}

// shift is the most important of what a day has, in nine hours.
func shift(p *program) {
	p.quiet(8)
	p.killedSweep(0)
	p.lasting(phaseOutage, entraFails, outage)
	p.lasting(phaseOutage, awsThrottles, outage)
	p.rivals(func() {
		p.quiet(4)
		p.killedSweep(20)
	})
	p.lasting(phaseCrowd, entraIs("crowd"), 12)
	p.lasting(phaseLong, allFails, 20)
}

// day has everything, in whatever order.
func day(p *program) {
	p.quiet(8)
	long := []trouble{entraIs("hang"), awsFails, awsThrottles, awsHangs, allFails}[p.rand.IntN(5)]
	acts := []func(){
		func() { p.killedSweep(0) },
		func() { p.killedSweep(p.rand.IntN(20)) },
		func() { p.killedSweep(p.rand.IntN(200)) },
		func() {
			p.rivals(func() {
				p.quiet(8)
				p.killedSweep(0)
				p.killedSweep(p.rand.IntN(20))
				p.lasting(phaseOutage, entraFails, outage)
				p.quiet(8)
			})
		},
		func() { p.lasting(phaseCrowd, entraIs("crowd"), 24) },
		func() { p.lasting(phaseLong, long, 24) },
	}
	for _, t := range []trouble{entraFails, entraIs("hang"), awsFails, awsThrottles, awsHangs, awsHas(secretstoretest.Fault{Op: "UpdateSecret", After: true})} {
		acts = append(acts, func() { p.lasting(phaseOutage, t, outage) })
	}
	p.rand.Shuffle(len(acts), func(i, j int) { acts[i], acts[j] = acts[j], acts[i] })
	for _, act := range acts {
		act()
	}
	p.quiet(24*60/5 - len(p.slots))
}

// trouble begins, and ends what it began.
type trouble struct{ begin, end func(*simulation) }

var (
	awsFails     = awsHas(secretstoretest.Fault{Error: "InternalServiceError"})
	awsThrottles = awsHas(secretstoretest.Fault{Error: "ThrottlingException"})
	awsHangs     = awsHas(secretstoretest.Fault{Delay: time.Hour})

	// entraFails has Entra slow for ten minutes more.
	entraFails = trouble{entraIs("503").begin, func(s *simulation) {
		s.set("slow")
		time.AfterFunc(10*time.Minute, func() { s.set("") })
	}}

	// allFails has Secrets Manager back after 95 minutes.
	allFails = trouble{func(s *simulation) {
		awsFails.begin(s)
		s.set("503")
		time.AfterFunc(95*time.Minute, s.secrets.ClearFaults)
	}, func(s *simulation) { s.set("") }}
)

func entraIs(mode string) trouble {
	return trouble{func(s *simulation) { s.set(mode) }, func(s *simulation) { s.set("") }}
}

func awsHas(f secretstoretest.Fault) trouble {
	return trouble{func(s *simulation) { s.secrets.Fail(f) }, func(s *simulation) { s.secrets.ClearFaults() }}
}

// program is what happens in a simulation, and when.
type program struct {
	rand   *rand.Rand
	slots  []slot
	events []event
}

// slot is one event of the schedule.
type slot struct {
	late      time.Duration // EventBridge Scheduler comes within a minute
	doubled   bool          // and at least once
	killAfter int           // so many writes; never where it is negative
}

type event struct {
	at time.Duration
	do func(*simulation)
}

func (p *program) plan(at time.Duration, do func(*simulation)) {
	p.events = append(p.events, event{at, do})
}

func (p *program) quiet(slots int) {
	for range slots {
		p.slots = append(p.slots, slot{time.Duration(p.rand.IntN(60_000)) * time.Millisecond, p.rand.IntN(10) == 0, -1})
	}
}

const (
	settles = 9 // slots between two troubles
	outage  = 3 // slots: 15 minutes, which four sweeps begin in
)

// killedSweep loses a sweep: the one before was early, the one after is late.
func (p *program) killedSweep(writes int) {
	n := len(p.slots) + 1
	p.quiet(settles)
	p.slots[n-1].late = 0
	p.slots[n] = slot{time.Minute, false, writes}
	p.slots[n+1].late = time.Minute
	at := time.Duration(n)*every + p.slots[n].late
	p.plan(at-1, func(s *simulation) { s.enter(phaseKilled) })
	p.plan(at+1, (*simulation).over)
}

// lasting lasts so many slots, with as many sweeps in it as can be: the one before was early, the first in
// it is late, the last in it is early, and the one after it is late.
func (p *program) lasting(phase string, what trouble, slots int) {
	first := len(p.slots) + 1
	last := first + slots
	p.quiet(slots + settles)
	p.slots[first-1].late, p.slots[first].late = 0, time.Minute
	p.slots[last].late, p.slots[last+1].late = 0, time.Minute
	at := time.Duration(first)*every + p.slots[first].late - time.Second
	p.plan(at, func(s *simulation) { s.enter(phase); what.begin(s) })
	p.plan(at+time.Duration(slots)*every, func(s *simulation) { what.end(s); s.over() })
}

// rivals lets other programs make 30 of the 50 writes a second meanwhile.
func (p *program) rivals(meanwhile func()) {
	p.plan(time.Duration(len(p.slots))*every, func(s *simulation) { s.rivals.Store(30); s.enter(phaseRival) })
	meanwhile()
	p.plan(time.Duration(len(p.slots))*every, func(s *simulation) { s.rivals.Store(0); s.enter(phaseOrdinary) })
}

// run runs a program, and waits for its last sweep.
func (s *simulation) run(plan func(*program)) {
	s.programs++
	p := &program{rand: rand.New(rand.NewPCG(s.seed, uint64(s.programs)))}
	plan(p)
	for n, slot := range p.slots {
		at := time.Duration(n)*every + slot.late
		p.plan(at, func(s *simulation) { s.invoke(slot.killAfter) })
		if slot.doubled {
			at += time.Duration(p.rand.IntN(2000)) * time.Millisecond
			p.plan(at, func(s *simulation) { s.doubled++; s.invoke(math.MinInt32) })
		}
	}
	slices.SortStableFunc(p.events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	begin := time.Now()
	for _, e := range p.events {
		time.Sleep(time.Until(begin.Add(e.at)))
		e.do(s)
	}
	time.Sleep(time.Until(begin.Add(time.Duration(len(p.slots)) * every)))
	s.running.Wait()
	if s.phase != phaseOrdinary {
		s.Errorf("the effects of the %s last to the end", s.phase)
	}
	s.enter(phaseOrdinary)
}
