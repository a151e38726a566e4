package connector_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"entra-connector/internal/connector"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"entra-connector/internal/secretstore"
	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/pkg/entra"
)

// simulation is the refresh function between an Entra and a Secrets Manager that
// go wrong when they are told to, all of them on the clock of a synctest bubble:
// the real sweeper, adapter and SDK, with the defaults that the function has, and
// the stand-in Secrets Manager with AWS's quotas and a listing that is as far
// behind as AWS says it may be.
//
// It sees each token stored, and so the least life that any reader can have seen:
// a token has the least of it when it is replaced. That is exact, where readers of
// its own would be samples.
type simulation struct {
	t       *testing.T
	seed    uint64
	begin   time.Time
	entra   *fitfulEntra
	secrets *secretstoretest.Server
	running sync.WaitGroup // invocations
	awake   atomic.Int32   // how many there are
	rivals  atomic.Int32   // writes a second that other programs make meanwhile

	mu      sync.Mutex // guards everything below
	idle    []*instance
	held    []heldToken // by the connection's number
	phase   string
	ended   time.Time // when what the phase is named after was over; zero before
	mending time.Time // when the first sweep after that began
	least   map[string]*least
	took    map[string]int // calls to Secrets Manager by operation and error

	programs, sweeps, doubled, killed, refreshed int

	together time.Time     // when two sweeps ran at once the last time
	needless int           // how many calls AWS throttled of a sweep on its own
	delay    time.Duration // the furthest into a sweep that a token was stored while most tenants hang
	recovery time.Duration // the same after a long outage
}

// heldToken is what a reader of one connection gets.
type heldToken struct {
	expires time.Time
	stored  time.Time
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
	switch n % 50 {
	case 0:
		return refusing
	case 1:
		return hanging
	case 2:
		return throttled
	}
	if n%4 == 3 {
		return steady
	}
	return crowd
}

// fitfulEntra is as much of Entra as a token request sees, with tokens that live
// 60 to 90 minutes.
type fitfulEntra struct {
	sim  *simulation
	mode atomic.Pointer[string] // "", "503", "slow", "hang", or "crowd": many tenants hang

	mu       sync.Mutex
	requests []int // of each tenant
}

func (e *fitfulEntra) set(mode string) { e.mode.Store(&mode) }

func (e *fitfulEntra) total() (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, of := range e.requests {
		n += of
	}
	return n
}

func (e *fitfulEntra) RoundTrip(r *http.Request) (*http.Response, error) {
	id := strings.Split(r.URL.Path, "/")[1]
	n := numberOf(id)
	e.mu.Lock()
	e.requests[n]++
	nth := e.requests[n]
	e.mu.Unlock()
	chance := e.sim.chance(n, nth)
	answers := 100*time.Millisecond + time.Duration(chance>>32%300)*time.Millisecond
	mode := *e.mode.Load()
	of := kindOf(n)
	if mode == "hang" || of == hanging || mode == "crowd" && of == crowd {
		answers = time.Hour
	} else if mode == "slow" {
		answers = 8 * time.Second
	}
	if pause(r.Context(), answers) != nil {
		return nil, r.Context().Err()
	}
	status, body, header := 200, fmt.Sprintf(`{"token_type":"Bearer","expires_in":%d,"access_token":"opaque"}`, 3600+chance%1801), http.Header{}
	switch {
	case mode == "503":
		status, body = 503, `unavailable`
		if chance%2 == 0 {
			header.Set("Retry-After", strconv.Itoa(int(chance%120)))
		}
	case of == refusing:
		status, body = 401, `{"error":"invalid_client","error_codes":[7000222]}`
	case of == throttled && nth%2 == 0:
		status, body = 429, `throttled`
		header.Set("Retry-After", strconv.Itoa(int(60+chance%1140)))
	}
	header.Set("Content-Type", "application/json")
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

// chance is a number that depends on nothing but the seed and what is given, so
// that it does not matter in which order goroutines come to ask.
func (s *simulation) chance(of ...int) uint64 {
	h := fnv.New64a()
	fmt.Fprint(h, s.seed, of)
	return h.Sum64()
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// numberOf is the number that is at the end of a tenant's GUID.
func numberOf(tenant string) int {
	n, _ := strconv.Atoi(tenant[strings.LastIndexByte(tenant, '-')+1:])
	return n
}

// newSimulation has so many connections, provisioned one after the other as fast
// as AWS allows.
func newSimulation(t *testing.T, seed uint64, connections int) *simulation {
	s := &simulation{
		t: t, seed: seed, begin: time.Now(), held: make([]heldToken, connections),
		least: make(map[string]*least), took: make(map[string]int), phase: phaseOrdinary,
	}
	s.entra = &fitfulEntra{sim: s, requests: make([]int, connections)}
	s.entra.set("")
	var err error
	s.secrets, err = secretstoretest.New(secretstoretest.Options{Quotas: secretstoretest.AWSQuotas, ListLag: 5 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	store := s.newInstance().store
	app := (&world{}).app()
	if err := store.CreateApp(t.Context(), app); err != nil {
		t.Fatal(err)
	}
	for n := range connections {
		token := entra.Token{
			TenantID: tenant(n), Type: "Bearer", AccessToken: entra.NewSecret("first"),
			ExpiresIn: int64(3600 + s.chance(n)%1801), RequestedAt: time.Now(),
		}
		c := connector.Connection{
			ConnectionRef: connector.ConnectionRef{App: app.Name, Name: tenant(n)}, TenantID: tenant(n), Cloud: app.Cloud, Scope: app.Scope,
			TokenType: token.Type, ExpiresAt: token.ExpiresAt(), Lifetime: token.Lifetime(), RefreshedAt: token.RequestedAt,
		}
		if _, err := store.CreateConnection(t.Context(), c, token); err != nil {
			t.Fatal(err)
		}
		s.held[n] = heldToken{c.ExpiresAt, time.Now()}
	}
	return s
}

// instance is one of Lambda's: it runs one sweep at a time, and what it has
// learned of AWS's throttling lasts as long as it does.
type instance struct {
	sim     *simulation
	store   *secretstore.Store
	sweeper *connector.Sweeper
	began   time.Time // its sweep
	kill    context.CancelFunc
	writes  atomic.Int32 // after how many more writes it is killed; negative: never
	dead    atomic.Bool
}

// The function's defaults, and what Lambda and AWS's answers take.
const (
	window          = 30 * time.Minute
	jitter          = 0.25
	writesPerSecond = 45
	sweepWorkers    = 64 // requests to Entra at a time
	lambdaTimeout   = 300 * time.Second
	awsTimeout      = 5 * time.Second // as the functions have it
	awsAnswers      = 40 * time.Millisecond
)

func (s *simulation) newInstance() *instance {
	i := &instance{sim: s}
	i.writes.Store(-1)
	i.store = secretstore.New(secretsmanager.New(secretsmanager.Options{
		Region: "us-east-1", BaseEndpoint: aws.String("http://stand-in.invalid"),
		Credentials: credentials.NewStaticCredentialsProvider("id", "key", ""),
		HTTPClient:  &http.Client{Transport: i, Timeout: awsTimeout},
	}), secretstore.Config{Prefix: "entra", WritesPerSecond: writesPerSecond})
	i.sweeper = &connector.Sweeper{
		Store: i.store, Window: window, Jitter: jitter, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Entra: entra.NewClient(entra.ClientConfig{Transport: alive{i, s.entra}}),
	}
	return i
}

var errKilled = errors.New("the process is gone")

// alive lets nothing through once the process is gone.
type alive struct {
	*instance
	next http.RoundTripper
}

func (a alive) RoundTrip(r *http.Request) (*http.Response, error) {
	if a.dead.Load() {
		return nil, errKilled
	}
	return a.next.RoundTrip(r)
}

// RoundTrip is the way to Secrets Manager and back.
func (i *instance) RoundTrip(r *http.Request) (*http.Response, error) {
	op := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "secretsmanager.")
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if err := pause(r.Context(), awsAnswers/2); err != nil {
		return nil, err
	}
	if op == "UpdateSecret" && i.writes.Load() >= 0 && i.writes.Add(-1) < 0 {
		i.die()
	}
	if i.dead.Load() {
		return nil, errKilled
	}
	answer, err := i.sim.ask(r, body)
	i.sim.saw(i.began, op, body, answer, err)
	if err != nil {
		return nil, err
	}
	if err := pause(r.Context(), awsAnswers/2); err != nil {
		return nil, err
	}
	if i.dead.Load() {
		return nil, errKilled
	}
	return answer.Result(), nil
}

func (i *instance) die() {
	i.dead.Store(true)
	i.kill()
}

func (s *simulation) ask(r *http.Request, body []byte) (answer *httptest.ResponseRecorder, err error) {
	defer func() {
		if recover() != nil { // the stand-in drops the answer
			err = io.ErrUnexpectedEOF
		}
	}()
	answer = httptest.NewRecorder()
	in := httptest.NewRequestWithContext(r.Context(), r.Method, "/", bytes.NewReader(body))
	in.Header = r.Header
	s.secrets.ServeHTTP(answer, in)
	return answer, nil
}

// saw takes note of a call to Secrets Manager, at the moment at which it takes
// effect: what it does, whatever becomes of the answer.
func (s *simulation) saw(began time.Time, op string, request []byte, answer *httptest.ResponseRecorder, err error) {
	var in struct{ SecretId, SecretString string }
	var problem struct {
		Type string `json:"__type"`
	}
	value := ""
	if op == "UpdateSecret" {
		json.Unmarshal(request, &in)
		in.SecretId = nameOf(in.SecretId)
		if in.SecretString != "" {
			value, _ = s.secrets.Value(in.SecretId)
		}
	}
	switch {
	case err != nil:
		op += " dropped"
	case answer.Code != 200:
		json.Unmarshal(answer.Body.Bytes(), &problem)
		op += " " + problem.Type
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.took[op]++
	if problem.Type == "ThrottlingException" {
		s.throttled()
	}
	if value == in.SecretString && value != "" {
		n := numberOf(in.SecretId)
		s.stored(n, value)
		if s.phase == phaseCrowd && kindOf(n) == steady {
			s.delay = max(s.delay, time.Since(began))
		}
	}
}

// nameOf is the name of a secret with this ARN.
func nameOf(arn string) string {
	_, name, _ := strings.Cut(arn, ":secret:")
	return name[:max(0, len(name)-len("-AbCdEf"))]
}

// stored takes note of the token that a connection has now.
func (s *simulation) stored(n int, value string) {
	var token map[string]string
	json.Unmarshal([]byte(value), &token)
	expires, _ := strconv.ParseInt(token[entra.KeyExpiresAt], 10, 64)
	s.see(n)
	s.refreshed++
	s.held[n] = heldToken{time.Unix(expires, 0), time.Now()}
}

// throttled counts what AWS throttles of a sweep that has the quota to itself.
func (s *simulation) throttled() {
	if s.awake.Load() > 1 {
		s.together = time.Now()
	}
	if s.phase == phaseOrdinary && time.Since(s.together) > 2*time.Second {
		s.needless++
	}
}

// see takes into account what a reader of a connection sees now, if its tenant
// has nothing against it. The crowd has, until it is fresh again.
func (s *simulation) see(n int) {
	if of := kindOf(n); of != steady && (of != crowd || s.phase == phaseCrowd) {
		return
	}
	life := time.Until(s.held[n].expires)
	l := s.least[s.phase]
	if l == nil {
		l = &least{life: math.MaxInt64}
		s.least[s.phase] = l
	}
	l.seen++
	if life < l.life {
		l.life, l.connection, l.at = life, n, time.Since(s.begin)
	}
}

// enter begins a phase, which lasts until the effects of what it is named after
// are over: see settle.
func (s *simulation) enter(phase string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seeAll()
	s.phase, s.ended, s.mending = phase, time.Time{}, time.Time{}
}

// over says that what the phase is named after is over. A sweep that begins
// afterwards ends the phase.
func (s *simulation) over() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = time.Now()
}

func (s *simulation) seeAll() {
	for n := range s.held {
		s.see(n)
	}
}

// invoke runs a sweep as Lambda does: in an instance that is idle or else in a
// new one, and not for longer than its timeout. The process is killed when it
// has made so many writes, unless that is negative.
func (s *simulation) invoke(killAfter int) {
	s.mu.Lock()
	s.sweeps++
	var i *instance
	if last := len(s.idle) - 1; last >= 0 {
		i, s.idle = s.idle[last], s.idle[:last]
	}
	if i == nil {
		i = s.newInstance()
	}
	i.writes.Store(int32(killAfter))
	i.began = time.Now()
	if !s.ended.IsZero() && s.mending.IsZero() {
		s.mending = i.began
	}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(s.t.Context(), lambdaTimeout)
	i.kill = cancel
	s.secrets.ResetCalls() // or they would fill the memory
	s.awake.Add(1)
	s.running.Go(func() {
		defer s.awake.Add(-1)
		defer cancel()
		report, err := i.sweeper.Sweep(ctx, connector.SweepRequest{})
		s.mu.Lock()
		defer s.mu.Unlock()
		if i.dead.Load() {
			s.killed++
			return
		}
		took := time.Since(i.began)
		if took >= lambdaTimeout {
			s.t.Errorf("a sweep took %v, and would have been cut off", took)
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

// rival writes for as long as a sweep is running, which is when it matters, and
// to no effect but that the quota is used up.
func (s *simulation) rival(every time.Duration) {
	r := httptest.NewRequestWithContext(s.t.Context(), "POST", "/", nil)
	r.Header.Set("X-Amz-Target", "secretsmanager.UpdateSecret")
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 ")
	for s.awake.Load() > 0 {
		s.ask(r, []byte("{}"))
		time.Sleep(every)
	}
}

// settle ends the phase, unless the sweep that took so long has left something
// that could be fresher.
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
	s.seeAll()
	s.phase, s.ended, s.mending = phaseOrdinary, time.Time{}, time.Time{}
	if s.rivals.Load() > 0 {
		s.phase = phaseRival
	}
}

func (s *simulation) logf(format string, args ...any) {
	if *simVerbose {
		s.t.Logf("%10v %-13s "+format, append([]any{time.Since(s.begin).Round(time.Second), s.phase}, args...)...)
	}
}

// String sums up.
func (s *simulation) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	calls, throttled := 0, 0
	for what, n := range s.took {
		calls += n
		if strings.Contains(what, "Throttling") {
			throttled += n
		}
	}
	fmt.Fprintf(&b, "seed %d: %.1f days, %d connections, %d sweeps (%d doubled, %d killed), %d refreshes, %d requests to Entra, %d calls to AWS (%d throttled)",
		s.seed, time.Since(s.begin).Hours()/24, len(s.held), s.sweeps, s.doubled, s.killed, s.refreshed, s.entra.total(), calls, throttled)
	for _, phase := range []string{phaseOrdinary, phaseRival, phaseCrowd, phaseKilled, phaseOutage, phaseLong} {
		if l := s.least[phase]; l != nil {
			fmt.Fprintf(&b, "\n  %-14s least life %v, of %d (connection %d, at %v)", phase, l.life.Round(time.Millisecond), l.seen, l.connection, l.at.Round(time.Second))
		}
	}
	fmt.Fprintf(&b, "\n  at most %v into a sweep for a token while most tenants hang, and %v until all are fresh after a long outage",
		s.delay.Round(time.Millisecond), s.recovery.Round(time.Millisecond))
	fmt.Fprintf(&b, "\n  calls to AWS: %v", s.took)
	return b.String()
}
