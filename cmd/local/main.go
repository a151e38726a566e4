// Command local runs the connector on this machine: the function binaries that are deployed, run as
// Lambda runs them, with stand-ins for Entra and Secrets Manager. "local demo" shows it at work and
// ends; "local serve" keeps it running. `make demo` and `make local` call it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) }

const usage = `usage: local demo [flags]    show the connector at work, with stand-ins; ends by itself
       local serve [flags]   keep it running until Ctrl-C
`

// options are the flags. Only serve uses connect and the last three.
type options struct {
	provision, refresh, connect string
	verbose                     bool

	addr  string
	every time.Duration
	data  string
}

// run is the program without its exit. It returns 0, 1 for a failure or 2 for wrong usage.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	commands := map[string]func(context.Context, options, io.Writer, io.Writer) error{"demo": demo, "serve": serve}
	if len(args) == 0 || commands[args[0]] == nil {
		fmt.Fprint(stderr, usage)
		return 2
	}
	var o options
	flags := flag.NewFlagSet("local "+args[0], flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.provision, "provision", "build/provision/bootstrap", "the provision function's `binary`")
	flags.StringVar(&o.refresh, "refresh", "build/refresh/bootstrap", "the refresh function's `binary`")
	flags.StringVar(&o.connect, "connect", "", "the `binary` of the page for customers; without it there is none")
	flags.BoolVar(&o.verbose, "v", false, "show everything that the functions log")
	flags.StringVar(&o.addr, "addr", "127.0.0.1:3000", "where the API listens; a loopback address")
	flags.DurationVar(&o.every, "every", 5*time.Minute, "time between sweeps")
	flags.StringVar(&o.data, "data", ".local/secrets.json", "where the stand-in Secrets Manager keeps its data; a `file`")
	if err := flags.Parse(args[1:]); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	} else if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "local %s takes flags only, not %q.\n", args[0], flags.Arg(0))
		return 2
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait for anything
	if err := commands[args[0]](ctx, o, stdout, stderr); err != nil {
		(&screen{out: stderr}).say(0, err.Error())
		return 1
	}
	return 0
}
