// Command bench measures the built functions against their targets, between stand-ins that are as
// slow and as strict as Entra and AWS. It writes docs/performance.md with its plots, and fails if a
// target is missed.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// english writes 10000 as 10,000.
var english = message.NewPrinter(language.English)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	quick := flag.Bool("quick", false, "use small numbers, do not judge, and write no page")
	only := flag.String("only", "", "measure one `part`, and write no page: "+strings.Join(parts, ", "))
	flag.Parse()
	if err := run(ctx, *quick, *only); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, quick bool, only string) error {
	python, _ := filepath.Abs("build/bench/venv/bin/python")
	b := bench{
		provision: "build/provision/bootstrap", refresh: "build/refresh/bootstrap", bare: "build/bench/bare",
		peer: "internal/bench/peer/bootstrap", python: python,
		due: 10_000, idle: 100_000, starts: 50, provisionings: 25, beside: 300, progress: os.Stdout,
	}
	if quick {
		b.due, b.idle, b.starts, b.provisionings, b.beside = 1000, 10_000, 10, 5, 30
	}
	p, err := b.measure(ctx, only)
	if err != nil {
		return err
	}
	fmt.Printf("\n%s", p)
	if quick {
		return nil
	}
	if only == "" {
		if err := p.write("docs"); err != nil {
			return err
		}
		fmt.Println("\nWrote docs/performance.md and docs/performance/*.svg.")
	}
	if missed := p.missed(); len(missed) > 0 {
		return errors.New("missed: " + strings.Join(missed, "; "))
	}
	return nil
}

// bench says what to measure, and how much of it.
type bench struct {
	provision, refresh, bare string // binaries; bare is a function that does nothing
	peer, python             string // the Python function, and its interpreter; left out if that does not work

	due, idle     int // connections of the largest sweeps
	starts        int // of each function
	provisionings int // of each kind
	beside        int // connections of the sweeps beside Python

	progress io.Writer
	begun    time.Time
	dir      string // for temporary files
}

// parts begin with the short ones, while this process uses little memory.
var parts = []string{"cold", "provisioning", "python", "due", "idle"}

// measure measures all parts, or only this one.
func (b *bench) measure(ctx context.Context, only string) (_ *page, err error) {
	if only != "" && !slices.Contains(parts, only) {
		return nil, fmt.Errorf("there is no part named %q", only)
	}
	if b.dir, err = os.MkdirTemp("", "bench"); err != nil {
		return nil, err
	}
	defer os.RemoveAll(b.dir)
	b.begun = time.Now()
	version, err := exec.Command(b.python, "-c", "import awslambdaric, boto3, msal, platform; print(platform.python_version())").Output()
	if err != nil {
		b.say("leaving Python out: %v", err)
		b.python = ""
	}
	p := &page{Python: strings.TrimSpace(string(version))}
	p.Machine, p.Load = machine()
	for _, part := range parts {
		if only != "" && only != part {
			continue
		}
		switch part {
		case "cold":
			err = b.coldStarts(ctx, p)
		case "provisioning":
			err = b.provisioning(ctx, p)
		case "python":
			err = b.besidePython(ctx, p)
		case "due":
			p.Due, err = b.growing(ctx, "everything due", b.due, soon)
		case "idle":
			p.Idle, err = b.growing(ctx, "nothing due", b.idle, late)
		}
		if err := cmp.Or(err, ctx.Err()); err != nil {
			return nil, err
		}
	}
	p.Took = time.Since(b.begun).Round(time.Second)
	return p, nil
}

// say reports progress.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.progress, "%6s  %s\n", time.Since(b.begun).Round(time.Second), english.Sprintf(format, args...))
}
