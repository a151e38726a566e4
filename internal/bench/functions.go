package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"entra-connector/internal/lambdahost"
)

// starts are cold starts of one function.
type starts struct {
	name, binary string
	event        string

	ready, answered []float64 // milliseconds from the process's start until it asked for work, and until it had answered
	memory          int64     // bytes, at most
}

// coldStarts starts each function again and again, in turns so that whatever else the machine does falls on all alike.
// The stand-ins answer at once and hold no connections.
func (b *bench) coldStarts(ctx context.Context, p *page) error {
	r, err := b.rig(false, b.refresh)
	if err != nil {
		return err
	}
	defer r.Close()
	const list = `{"version":"2.0","rawPath":"/connections","requestContext":{"http":{"method":"GET","path":"/connections"}}}`
	all := []*starts{
		{name: "a bare function in Go", binary: b.bare, event: `{}`},
		{name: "refresh", binary: b.refresh, event: `{}`},
		{name: "provision", binary: b.provision, event: list},
	}
	if b.venv != "" {
		all = append(all, &starts{name: "the Python function", binary: b.peerBinary(), event: `{}`})
	}
	b.say("cold starts: %d of each function", b.starts)
	before := loadNow()
	for range b.starts {
		for _, s := range all {
			if err := s.once(ctx, r.env); err != nil {
				return err
			}
		}
	}
	p.starts, p.others = all, before.others()
	for _, s := range all[:3] {
		info, err := os.Stat(s.binary)
		if err != nil {
			return err
		}
		p.sizes = append(p.sizes, info.Size())
	}
	return nil
}

func (s *starts) once(ctx context.Context, env []string) error {
	f, err := lambdahost.Start(lambdahost.Config{Name: "Bench", Binary: s.binary, Env: env})
	if err != nil {
		return err
	}
	defer f.Close()
	result, err := f.Invoke(ctx, []byte(s.event))
	if err != nil {
		return err
	}
	if result.FunctionError != "" {
		return fmt.Errorf("%s: the first invocation fails: %s", s.name, result.Payload)
	}
	s.ready = append(s.ready, milliseconds(result.Report.Init))
	s.answered = append(s.answered, milliseconds(result.Report.Init+result.Report.Duration))
	s.memory = max(s.memory, result.Report.MaxMemoryUsed)
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// How long tokens have left: less than the window, though longer than any sweep takes, or more.
const (
	soon = 20 * time.Minute
	late = 55 * time.Minute
)

// everythingDue is the sweep that the ceiling on writes bounds.
func (b *bench) everythingDue(ctx context.Context, p *page) error {
	r, err := b.rig(true, b.refresh)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := r.seed(b.due, b.due, soon); err != nil {
		return err
	}
	p.asked, p.idle = b.due, b.idle
	p.due, err = b.sweep(ctx, r, "everything due")
	return err
}

// nothingDue is the sweep of most schedules. All connections are in one tenant, which makes no difference to it.
func (b *bench) nothingDue(ctx context.Context, p *page) error {
	r, err := b.rig(true, b.refresh)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := r.seed(b.idle, 1, late); err != nil {
		return err
	}
	p.nothing, err = b.sweep(ctx, r, "nothing due")
	return err
}

// provisioned are provisionings of one kind.
type provisioned struct {
	took     []float64 // milliseconds
	upstream []float64 // milliseconds that the stand-ins took for the round trips
	aws      int       // round trips of the last one
	entra    int
}

// ratios are those of the time taken to that which the round trips need, one after the other.
func (v provisioned) ratios() (all []float64) {
	for i := range v.took {
		all = append(all, v.took[i]/v.upstream[i])
	}
	return all
}

// provisioning measures the two kinds, one in turn with the other. The function is warm: what a start adds is measured
// by itself.
func (b *bench) provisioning(ctx context.Context, p *page) error {
	r, err := b.rig(true, b.refresh)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := r.seed(1, 1, late); err != nil {
		return err
	}
	b.say("provisioning: %d connections with a new app, and %d of an app that is there", b.provisionings, b.provisionings)
	for i := range b.provisionings {
		name, tenant := fmt.Sprintf("new-%03d", i), r.tenant(i+1)
		for kind, body := range each(
			&p.newApp, map[string]string{"tenant_id": tenant, "app": name, "connection": name, "client_id": clientID, "client_secret": clientSecret, "scope": scope},
			&p.knownApp, map[string]string{"tenant_id": tenant, "connection": name},
		) {
			r.Secrets.ResetCalls()
			r.entra.ResetRequests()
			start := time.Now()
			if err := r.post(body); err != nil {
				return err
			}
			kind.took = append(kind.took, milliseconds(time.Since(start)))
			kind.aws, kind.entra = len(r.Secrets.Calls()), len(r.entra.Requests())
			kind.upstream = append(kind.upstream, milliseconds(time.Duration(kind.aws)*awsLatency+time.Duration(kind.entra)*entraLatency))
		}
	}
	return ctx.Err()
}
