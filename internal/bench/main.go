// Command bench measures the built functions against their targets, between stand-ins that are as slow and as strict as
// Entra and AWS, and writes what it found to docs/performance.md. It fails if a target is missed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait for anything
	if err := run(ctx, os.Args[1:], os.Stdout); errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	} else if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// bench is what to measure, and how much of it.
type bench struct {
	provision, refresh, bare string // the binaries; bare is a function that does nothing
	peer                     string // the directory of the Python function
	venv                     string // where its packages are installed; empty: it is left out

	due, idle     int    // connections
	starts        int    // of each function
	provisionings int    // of each kind
	beside        [2]int // connections of the sweeps beside the Python function's

	progress io.Writer
	begun    time.Time
}

// run is the program but for its exit.
func run(ctx context.Context, args []string, out io.Writer) error {
	b := bench{peer: "internal/bench/peer", progress: out}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&b.provision, "provision", "build/provision/bootstrap", "the provision function's `binary`")
	flags.StringVar(&b.refresh, "refresh", "build/refresh/bootstrap", "the refresh function's `binary`")
	flags.StringVar(&b.bare, "bare", "build/bench/bare", "the `binary` of a function that does nothing")
	flags.StringVar(&b.venv, "venv", "build/bench/venv", "where Python's packages are installed; empty to leave Python out")
	flags.IntVar(&b.due, "connections", 10_000, "connections that are due")
	flags.IntVar(&b.idle, "idle", 100_000, "connections of the sweep with nothing due")
	quick := flags.Bool("quick", false, "a small run that judges nothing and writes no file")
	file := flags.String("o", "docs/performance.md", "the `file` to write")
	if err := flags.Parse(args); err != nil {
		return flag.ErrHelp // what is wrong has been said
	}
	b.starts, b.provisionings, b.beside = 50, 25, [2]int{100, 300}
	if *quick {
		b.due, b.idle, b.starts, b.provisionings, b.beside = min(b.due, 200), min(b.idle, 2000), 5, 3, [2]int{5, 10}
	}

	p, err := b.measure(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%s", p.tables())
	if *quick {
		return nil
	}
	if err := os.WriteFile(*file, []byte(p.String()), 0o644); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%s is written.\n", *file)
	if missed := p.missed(); len(missed) > 0 {
		return errors.New("missed: " + strings.Join(missed, "; "))
	}
	return nil
}

// measure takes the short measurements first, while little is in this process's memory.
func (b *bench) measure(ctx context.Context) (*page, error) {
	b.begun = time.Now()
	p := &page{machine: thisMachine(), python: b.installPeer(ctx)}
	for _, part := range []func(context.Context, *page) error{
		b.coldStarts, b.provisioning, b.sideBySide, b.everythingDue, b.nothingDue,
	} {
		if err := part(ctx, p); err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	p.took = time.Since(b.begun)
	return p, nil
}

// say reports progress.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.progress, "%5s  %s\n", clock(time.Since(b.begun)), fmt.Sprintf(format, args...))
}
