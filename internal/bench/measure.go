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
	Name, binary, event string

	Ready, Answered []float64 // milliseconds since the process started
	Memory          float64   // the most, in MiB
	megabytes       float64   // of the binary
}

// coldStarts starts the functions in turns, so that other load on the machine hits all alike. The
// stand-ins answer at once and hold no connections.
func (b *bench) coldStarts(ctx context.Context, p *page) error {
	const list = `{"version":"2.0","rawPath":"/connections","requestContext":{"http":{"method":"GET","path":"/connections"}}}`
	p.Starts = []*starts{
		{Name: "a bare function in Go", binary: b.bare, event: `{}`},
		{Name: "refresh", binary: b.refresh, event: `{}`},
		{Name: "provision", binary: b.provision, event: list},
	}
	if b.python != "" {
		p.Starts = append(p.Starts, &starts{Name: "the Python function", binary: b.peer, event: `{}`})
	}
	b.say("cold starts: %d of each function", b.starts)
	return b.with(false, b.refresh, func(r *rig) error {
		for range b.starts {
			for _, s := range p.Starts {
				if err := s.once(ctx, r.env); err != nil {
					return err
				}
			}
		}
		return nil
	})
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
		return fmt.Errorf("%s: the first invocation failed: %s", s.Name, result.Payload)
	}
	s.Ready = append(s.Ready, milliseconds(result.Report.Init))
	s.Answered = append(s.Answered, milliseconds(result.Report.Init+result.Report.Duration))
	s.Memory = max(s.Memory, sweep{Report: result.Report}.MiB())
	if info, err := os.Stat(s.binary); err == nil {
		s.megabytes = float64(info.Size()) / 1e6
	}
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// provisioned are provisionings of one kind.
type provisioned struct {
	Name       string
	Took       []float64 // milliseconds
	Ratio      []float64 // of that to what the round trips take one after the other
	AWS, Entra int       // round trips
	Upstream   float64   // milliseconds that they take
}

// provisioning measures the two kinds in turns. The function is warm.
func (b *bench) provisioning(ctx context.Context, p *page) error {
	b.say("provisioning: %d connections with a new app, and %d with a known app", b.provisionings, b.provisionings)
	p.Provisioned = []*provisioned{{Name: "first connection of a new app"}, {Name: "another connection of the app"}}
	return b.with(true, b.refresh, func(r *rig) error {
		if err := r.seed(1, late); err != nil {
			return err
		}
		for i := range b.provisionings {
			name, tenant := fmt.Sprintf("new-%03d", i), r.tenant(i+1)
			for kind, body := range []map[string]string{
				{"tenant_id": tenant, "app": name, "connection": name, "client_id": clientID, "client_secret": clientSecret, "scope": scope},
				{"tenant_id": tenant, "connection": name},
			} {
				r.Secrets.ResetCalls()
				r.entra.ResetRequests()
				start := time.Now()
				if err := r.post(body); err != nil {
					return err
				}
				v, took := p.Provisioned[kind], milliseconds(time.Since(start))
				v.AWS, v.Entra = len(r.Secrets.Calls()), len(r.entra.Requests())
				v.Upstream = milliseconds(time.Duration(v.AWS)*awsLatency + time.Duration(v.Entra)*entraLatency)
				v.Took, v.Ratio = append(v.Took, took), append(v.Ratio, took/v.Upstream)
			}
		}
		return ctx.Err()
	})
}

// growing sweeps 100 connections, then ten times as many, and so on up to the most. Each sweep has
// a new process, as memory is measured since the start of the process.
func (b *bench) growing(ctx context.Context, what string, most int, left time.Duration) (all []sweep, err error) {
	for n := min(100, most); ; n = min(10*n, most) {
		err := b.with(true, b.refresh, func(r *rig) error {
			s, err := b.sweep(ctx, r, what, n, left)
			all = append(all, s)
			return err
		})
		if err != nil || n == most {
			return all, err
		}
	}
}

// rival is what is measured of our function and of the Python function alike.
type rival struct {
	First, Next sweep // everything due: the process's first sweep, and its next
	Nothing     sweep // nothing due
}

// besidePython has both functions sweep the same connections. For its next sweep a function has its
// network connections open and knows the tenants.
func (b *bench) besidePython(ctx context.Context, p *page) (err error) {
	if p.Ours, err = b.rival(ctx, "entra-connector", b.refresh); err != nil || b.python == "" {
		return err
	}
	p.Theirs, err = b.rival(ctx, "Python", b.peer)
	return err
}

func (b *bench) rival(ctx context.Context, name, binary string) (*rival, error) {
	v := new(rival)
	return v, b.with(true, binary, func(r *rig) (err error) {
		for _, step := range []struct {
			result *sweep
			what   string
			left   time.Duration
			due    int
		}{{&v.First, "first sweep", soon, b.beside}, {&v.Next, "next sweep", soon, b.beside}, {&v.Nothing, "nothing due", late, 0}} {
			if *step.result, err = b.sweep(ctx, r, name+", "+step.what, b.beside, step.left); err != nil {
				return err
			}
			if step.result.Refreshed != step.due {
				return fmt.Errorf("%s, %s: refreshed %d, not %d:\n%s", name, step.what, step.result.Refreshed, step.due, r.log.Bytes())
			}
		}
		return nil
	})
}
