package connector_test

import (
	"cmp"
	"flag"
	"math"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"entra-connector/internal/secretstore/secretstoretest"
)

var (
	simSeed        = flag.Uint64("sim.seed", 1, "what happens by chance in TestFreshness")
	simDays        = flag.Int("sim.days", 0, "how many days of everything TestFreshness lasts; 0: one shift of the most important")
	simConnections = flag.Int("sim.connections", 0, "how many connections TestFreshness has; 0: 1000, or half of that under the race detector")
	simVerbose     = flag.Bool("sim.verbose", false, "log every sweep of TestFreshness")
)

// Phases of a simulation. What goes wrong lasts until everything that can be
// fresh is fresh again.
const (
	phaseOrdinary = "ordinary"
	phaseRival    = "rival"         // other programs use up most of AWS's quota
	phaseCrowd    = "hanging crowd" // most of the tenants hang
	phaseKilled   = "killed sweep"
	phaseOutage   = "outage"      // of 15 minutes
	phaseLong     = "long outage" // longer than any token lives
)

// promised is the least life of a token that a reader may meet, of a connection
// whose tenant has nothing against it.
var promised = map[string]time.Duration{
	phaseOrdinary: 20 * time.Minute,
	phaseRival:    20 * time.Minute,
	phaseCrowd:    20 * time.Minute,
	phaseKilled:   15 * time.Minute,
	phaseOutage:   3 * time.Minute,
}

// TestFreshness holds the freshness promise of docs/architecture.md against what
// goes wrong in production. A longer run takes longer:
//
//	go test ./internal/connector -run Freshness -v -timeout 0 -sim.days=1 -sim.connections=2000 -sim.seed=2
func TestFreshness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		connections := *simConnections
		if connections == 0 {
			connections = 1000
			if raceDetector() { // takes five times as long
				connections = 500
			}
		}
		s := newSimulation(t, *simSeed, connections)
		if *simDays == 0 {
			s.run(shift)
		}
		for range *simDays {
			s.run(day)
		}
		t.Log(s)
		for phase, promised := range promised {
			if l := s.least[phase]; l == nil {
				t.Errorf("%s: nobody read anything", phase)
			} else if l.life < promised {
				t.Errorf("%s: somebody read a token with %v left, promised are %v", phase, l.life, promised)
			}
		}
		atQuota := time.Duration(float64(len(s.held)) / writesPerSecond * float64(time.Second))
		if most := atQuota*11/10 + 10*time.Second; s.recovery > most {
			t.Errorf("after a long outage everything was fresh %v into the next sweep, want %v at most", s.recovery, most)
		}
		// The listing is five minutes behind, so those that have hung once or twice
		// are not known yet. They are fewer than half.
		if most := time.Duration(len(s.held)/2/sweepWorkers) * 10 * time.Second; s.delay > most {
			t.Errorf("while most tenants hang, another had its token %v into a sweep, want %v at most", s.delay, most)
		}
		if s.needless > 0 {
			t.Errorf("AWS throttled %d writes of sweeps that had the quota to themselves", s.needless)
		}
	})
}

func raceDetector() bool {
	build, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(build.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// shift is the most important of what a day has, in nine hours.
func shift(p *program) {
	p.quiet(8)
	p.killedSweep(0)
	p.outage(entraFails)
	p.outage(awsThrottles)
	p.rivals(func() {
		p.quiet(4)
		p.killedSweep(20)
	})
	p.lasting(phaseCrowd, crowdHangs, 12)
	p.lasting(phaseLong, allFails, 20)
}

// day has everything, in whatever order.
func day(p *program) {
	p.quiet(8)
	acts := []func(){
		func() { p.killedSweep(0) },
		func() { p.killedSweep(p.rand.IntN(20)) },
		func() { p.killedSweep(p.rand.IntN(200)) },
		func() { p.outage(entraFails) },
		func() { p.outage(entraHangs) },
		func() { p.outage(awsFails) },
		func() { p.outage(awsThrottles) },
		func() { p.outage(awsHangs) },
		func() { p.outage(awsWritesDrop) },
		func() {
			p.rivals(func() {
				p.quiet(8)
				p.killedSweep(0)
				p.killedSweep(p.rand.IntN(20))
				p.outage(entraFails)
				p.quiet(8)
			})
		},
		func() { p.lasting(phaseCrowd, crowdHangs, 24) },
		func() {
			p.lasting(phaseLong, []trouble{entraHangs, awsFails, awsThrottles, awsHangs, allFails}[p.rand.IntN(5)], 24)
		},
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
	entraHangs    = entraIs("hang")
	crowdHangs    = entraIs("crowd")
	awsFails      = awsHas(secretstoretest.Fault{Error: "InternalServiceError"})
	awsThrottles  = awsHas(secretstoretest.Fault{Error: "ThrottlingException"})
	awsHangs      = awsHas(secretstoretest.Fault{Delay: time.Hour})
	awsWritesDrop = awsHas(secretstoretest.Fault{Op: "UpdateSecret", After: true})

	// entraFails has Entra slow for ten minutes more.
	entraFails = trouble{entraIs("503").begin, func(s *simulation) {
		s.entra.set("slow")
		time.AfterFunc(10*time.Minute, func() { s.entra.set("") })
	}}

	// allFails has Secrets Manager back after 95 minutes.
	allFails = trouble{func(s *simulation) {
		awsFails.begin(s)
		s.entra.set("503")
		time.AfterFunc(95*time.Minute, s.secrets.ClearFaults)
	}, func(s *simulation) { s.entra.set("") }}
)

func entraIs(mode string) trouble {
	return trouble{func(s *simulation) { s.entra.set(mode) }, func(s *simulation) { s.entra.set("") }}
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

const every = 5 * time.Minute // the schedule

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

const settles = 9 // slots between two troubles

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

// outage lasts 15 minutes, which four sweeps begin in.
func (p *program) outage(what trouble) {
	p.lasting(phaseOutage, what, 3)
}

// lasting lasts so many slots, with as many sweeps in it as can be: the one
// before was early, the first in it is late, the last in it is early, and the one
// after it is late.
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
		s.t.Errorf("the effects of the %s last to the end", s.phase)
	}
	s.enter(phaseOrdinary)
}
