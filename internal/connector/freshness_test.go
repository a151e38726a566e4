//go:build !race

package connector_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"maps"
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
			s.run(s.shift)
		}
		for range *simDays {
			s.run(s.day)
		}
		s.sum()
		for phase, promised := range promised {
			if l := s.least[phase]; l.seen == 0 || l.life < promised {
				t.Errorf("%s: of %d tokens read, one had %v left, promised are %v", phase, l.seen, l.life, promised)
			}
		}
		atQuota := time.Duration(float64(len(s.readers)) / writesPerSecond * float64(time.Second))
		if most := atQuota*11/10 + 10*time.Second; s.recovery > most {
			t.Errorf("after a long outage everything was fresh %v into the next sweep, want %v at most", s.recovery, most)
		}
		// The listing is five minutes behind, so the tenants that have hung once or twice are not known
		// yet. They are fewer than half.
		if most := time.Duration(len(s.readers)/2/sweepWorkers) * 10 * time.Second; s.delay > most {
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
	rand    *rand.Rand
	begin   time.Time
	slots   int // of the schedule, so far
	secrets *secretstoretest.Server
	running sync.WaitGroup         // invocations
	awake   atomic.Int32           // how many there are
	rivals  atomic.Int32           // writes a second that other programs make meanwhile
	mode    atomic.Pointer[string] // of Entra: "", "503", "slow", "hang", or "crowd": many tenants hang

	mu      sync.Mutex // guards everything below
	idle    []*instance
	readers []reader // by the connection's number
	phase   string
	ended   time.Time // when what the phase is named after was over; zero before
	mending time.Time // when the first sweep after that began
	least   map[string]least

	sweeps, doubled, killed, refreshed, requests, calls, throttled int

	together time.Time     // when two sweeps last ran at once
	needless int           // how many calls of a sweep on its own AWS throttled
	delay    time.Duration // the furthest into a sweep that a token was stored while most tenants hang
	recovery time.Duration // the same after a long outage
}

// reader is what a reader of one connection gets.
type reader struct {
	expires, stored time.Time
	requests        int // to Entra, for its tokens
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

// pause reports why it ended early, if it did.
func pause(ctx context.Context, d time.Duration) error {
	ended, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-ended.Done()
	return ctx.Err()
}

// newSimulation has so many connections, provisioned one after the other as fast as AWS allows.
func newSimulation(t *testing.T, seed uint64, connections int) *simulation {
	s := &simulation{T: t, seed: seed, readers: make([]reader, connections), least: make(map[string]least), phase: phaseOrdinary}
	s.set("")
	s.secrets, _ = secretstoretest.New(secretstoretest.Options{Quotas: secretstoretest.AWSQuotas, ListLag: 5 * time.Minute})
	store := s.newInstance().store
	if _, err := store.CreateApp(t.Context(), app); err != nil {
		t.Fatal(err)
	}
	for n := range connections {
		token := entra.Token{
			TenantID: tenant(n), Type: "Bearer", AccessToken: entra.NewSecret("first"),
			ExpiresIn: int64(3600 + s.chance(n)%1801), RequestedAt: time.Now(),
		}
		if _, err := store.CreateConnection(t.Context(), seeded(n, token, nil), token); err != nil {
			t.Fatal(err)
		}
		s.readers[n] = reader{expires: token.ExpiresAt(), stored: time.Now()}
	}
	s.begin = time.Now()
	return s
}

func (s *simulation) set(mode string) { s.mode.Store(&mode) }

// entra is as much of Entra as a token request sees, with tokens that live 60 to 90 minutes.
func (s *simulation) entra(r *http.Request) (*http.Response, error) {
	n := numberOf(strings.Split(r.URL.Path, "/")[1])
	s.mu.Lock()
	s.requests++
	s.readers[n].requests++
	nth := s.readers[n].requests
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

// instance is one of Lambda's. It runs one sweep at a time, and what it has learned of AWS's throttling
// lasts as long as it does.
type instance struct {
	*simulation
	store   *secretstore.Store
	sweeper connector.Sweeper
	began   time.Time // its sweep
	kill    context.CancelFunc
	writes  atomic.Int32 // after how many more it is killed; negative: never
}

func (s *simulation) newInstance() *instance {
	i := &instance{simulation: s}
	i.writes.Store(-1)
	i.store = secretstore.New(secretsmanager.New(secretsmanager.Options{
		Region: "us-east-1", BaseEndpoint: aws.String("http://aws.invalid"),
		Credentials: credentials.NewStaticCredentialsProvider("id", "key", ""),
		HTTPClient:  &http.Client{Transport: roundTripper(i.aws), Timeout: awsTimeout},
	}), secretstore.Config{Prefix: "entra", WritesPerSecond: writesPerSecond})
	i.sweeper = connector.Sweeper{
		Store: i.store, Window: window, Jitter: jitter, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Entra: entra.NewClient(entra.ClientConfig{Transport: roundTripper(s.entra)}),
	}
	return i
}

// aws is the way to Secrets Manager and back. The simulation sees a call at the moment at which it takes
// effect, whatever becomes of the answer.
func (i *instance) aws(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".UpdateSecret") && i.writes.Load() >= 0 && i.writes.Add(-1) < 0 {
		i.kill()
	}
	if err := pause(r.Context(), awsAnswers/2); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	response, err := inMemory(i.secrets)(r)
	i.saw(i.began, body, response)
	if ended := pause(r.Context(), awsAnswers/2); ended != nil {
		return nil, ended
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
		if bytes.Contains(answer, []byte("ThrottlingException")) {
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
		s.readers[n].expires, s.readers[n].stored = time.Unix(expires, 0), time.Now()
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
	if life := time.Until(s.readers[n].expires); !seen || life < l.life {
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
	for n := range s.readers {
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
		took := time.Since(i.began)
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case errors.Is(ctx.Err(), context.Canceled):
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
		r.Header = http.Header{"X-Amz-Target": {"secretsmanager.UpdateSecret"}, "Content-Type": {"application/x-amz-json-1.1"},
			"Authorization": {"AWS4-HMAC-SHA256 Credential=rival/"}}
		inMemory(s.secrets)(r)
		time.Sleep(every)
	}
}

// settle ends the phase, unless the sweep that took so long has left something that could be fresher.
func (s *simulation) settle(took time.Duration) {
	var last time.Time
	stale := 0
	for n, r := range s.readers {
		if of := kindOf(n); of != steady && of != crowd {
			continue
		}
		if time.Until(r.expires) < window-took-time.Second {
			stale++
		}
		if r.stored.After(last) {
			last = r.stored
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

// sum logs what happened.
func (s *simulation) sum() {
	s.Logf("seed %d: %.1f days, %d connections, %d sweeps (%d doubled, %d killed), %d refreshes, %d requests to Entra, %d calls to AWS (%d throttled)",
		s.seed, time.Since(s.begin).Hours()/24, len(s.readers), s.sweeps, s.doubled, s.killed, s.refreshed, s.requests, s.calls, s.throttled)
	for _, phase := range slices.Sorted(maps.Keys(s.least)) {
		l := s.least[phase]
		s.Logf("%-14s least life %v, of %d (connection %d, at %v)", phase, l.life.Round(time.Millisecond), l.seen, l.connection, l.at.Round(time.Second))
	}
	s.Logf("at most %v into a sweep for a token while most tenants hang, and %v until all are fresh after a long outage", s.delay, s.recovery)
}

// shift is the most important of what a day has, in nine hours.
func (s *simulation) shift() {
	s.quiet(8)
	s.killedSweep(0)
	s.lasting(phaseOutage, entraFails, outage)
	s.lasting(phaseOutage, awsThrottles, outage)
	s.withRivals(func() {
		s.quiet(4)
		s.killedSweep(20)
	})
	s.lasting(phaseCrowd, entraIs("crowd"), 12)
	s.lasting(phaseLong, allFails, 20)
}

// day has everything, in whatever order.
func (s *simulation) day() {
	first := s.slots
	s.quiet(8)
	long := []trouble{entraIs("hang"), awsFails, awsThrottles, awsHangs, allFails}[s.rand.IntN(5)]
	acts := []func(){
		func() { s.killedSweep(0) },
		func() { s.killedSweep(s.rand.IntN(20)) },
		func() { s.killedSweep(s.rand.IntN(200)) },
		func() {
			s.withRivals(func() {
				s.quiet(8)
				s.killedSweep(0)
				s.killedSweep(s.rand.IntN(20))
				s.lasting(phaseOutage, entraFails, outage)
				s.quiet(8)
			})
		},
		func() { s.lasting(phaseCrowd, entraIs("crowd"), 24) },
		func() { s.lasting(phaseLong, long, 24) },
	}
	for _, t := range []trouble{entraFails, entraIs("hang"), awsFails, awsThrottles, awsHangs, awsHas(secretstoretest.Fault{Op: "UpdateSecret", After: true})} {
		acts = append(acts, func() { s.lasting(phaseOutage, t, outage) })
	}
	s.rand.Shuffle(len(acts), func(i, j int) { acts[i], acts[j] = acts[j], acts[i] })
	for _, act := range acts {
		act()
	}
	s.quiet(24*60/5 - (s.slots - first))
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
	}, entraIs("").end}
)

func entraIs(mode string) trouble {
	return trouble{func(s *simulation) { s.set(mode) }, func(s *simulation) { s.set("") }}
}

func awsHas(f secretstoretest.Fault) trouble {
	return trouble{func(s *simulation) { s.secrets.Fail(f) }, func(s *simulation) { s.secrets.ClearFaults() }}
}

const (
	settles = 9 // slots of the schedule between two troubles
	outage  = 3 // slots: 15 minutes, which four sweeps begin in
)

// sleepTo sleeps until so long after the next slot of the schedule.
func (s *simulation) sleepTo(late time.Duration) {
	time.Sleep(time.Until(s.begin.Add(time.Duration(s.slots)*every + late)))
}

// tick is the next event of the schedule.
func (s *simulation) tick(late time.Duration, killAfter int) {
	s.sleepTo(late)
	s.slots++
	s.invoke(killAfter)
}

// quiet is so many events of the schedule. EventBridge Scheduler comes within a minute, and at least once.
func (s *simulation) quiet(slots int) {
	for range slots {
		s.tick(time.Duration(s.rand.IntN(60_000))*time.Millisecond, -1)
		if s.rand.IntN(10) == 0 {
			time.Sleep(time.Duration(s.rand.IntN(2000)) * time.Millisecond)
			s.doubled++
			s.invoke(-1)
		}
	}
}

// killedSweep loses a sweep: the one before was early, the one after is late.
func (s *simulation) killedSweep(writes int) {
	s.tick(0, -1)
	s.sleepTo(time.Minute - 1)
	s.enter(phaseKilled)
	s.tick(time.Minute, writes)
	time.Sleep(1)
	s.over()
	s.tick(time.Minute, -1)
	s.quiet(settles - 3)
}

// lasting lasts so many slots, with as many sweeps in it as can be: the one before was early, the first in
// it is late, the last in it is early, and the one after it is late.
func (s *simulation) lasting(phase string, what trouble, slots int) {
	s.tick(0, -1)
	s.sleepTo(time.Minute - time.Second)
	s.enter(phase)
	what.begin(s)
	s.tick(time.Minute, -1)
	s.quiet(slots - 1)
	s.tick(0, -1)
	s.sleepTo(time.Minute - time.Second - every)
	what.end(s)
	s.over()
	s.tick(time.Minute, -1)
	s.quiet(settles - 3)
}

// rivals lets other programs make 30 of the 50 writes a second meanwhile.
func (s *simulation) withRivals(meanwhile func()) {
	s.sleepTo(0)
	s.rivals.Store(30)
	s.enter(phaseRival)
	meanwhile()
	s.sleepTo(0)
	s.rivals.Store(0)
	s.enter(phaseOrdinary)
}

// run runs a program, and waits for its last sweep.
func (s *simulation) run(program func()) {
	s.rand = rand.New(rand.NewPCG(s.seed, uint64(s.slots)))
	program()
	s.sleepTo(0)
	s.running.Wait()
	if s.phase != phaseOrdinary {
		s.Errorf("the effects of the %s last to the end", s.phase)
	}
	s.enter(phaseOrdinary)
}
