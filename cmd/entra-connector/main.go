// Command entra-connector calls the connector's API for an operator: it manages apps and
// connections, shows what needs a person, and runs programs with a connection's token.
package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"entra-connector/cmd/entra-connector/internal/api"
	"entra-connector/cmd/entra-connector/internal/screen"
)

// The Makefile sets them when it links the command.
var (
	version = "dev"
	commit  = "unknown"
)

// Exit codes.
const (
	exitFailed  = 1
	exitUsage   = 2
	exitRefused = 3 // the same will be refused again
	exitPasses  = 4 // the same may work later
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait for anything
	p := &program{out: screen.New(os.Stdout), err: screen.New(os.Stderr)}
	cmd, err := p.root().ExecuteContextC(ctx)
	os.Exit(p.report(cmd, err))
}

// program is what all commands share.
type program struct {
	out, err       screen.Pane
	apiURL, output string
	parallel       int  // calls under way at once
	started        bool // the command line is right, as far as cobra can tell
}

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "entra-connector",
		Short: "Keep Microsoft Entra tokens of your customers' tenants fresh in AWS Secrets Manager",
		Long: `Calls the API of entra-connector, signed with the AWS credentials that the AWS
SDK finds (AWS_PROFILE, AWS_REGION and so on). An API on this machine, as of
make local, needs none.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused, 4 try again later.`,
		Version:       version + " (" + commit + ")",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	flags := root.PersistentFlags()
	flags.StringVar(&p.apiURL, "api", "", "`URL` of the API, the stack's output ApiUrl (default $ENTRA_CONNECTOR_API)")
	flags.StringVarP(&p.output, "output", "o", "table", "`form` of the result: table, or json for programs")
	complete(root, "output", "table", "json")
	p.addApps(root)
	p.addConnections(root)
	p.addStatus(root)
	p.addImport(root)
	p.addExec(root)
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), "FlagUsages", "FlagUsagesWrapped 80"))
	return root
}

// call is what a command does with the API.
type call func(ctx context.Context, c *api.Client, args []string) error

// add adds a command that calls the API.
func (p *program) add(parent *cobra.Command, use, short string, args cobra.PositionalArgs, f call) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: args, RunE: func(cmd *cobra.Command, args []string) error {
		p.started = true
		p.apiURL = cmp.Or(p.apiURL, os.Getenv("ENTRA_CONNECTOR_API"))
		switch {
		case p.output != "table" && p.output != "json":
			return usage("--output is table or json")
		case p.apiURL == "":
			return usage("say where the API is: --api URL or ENTRA_CONNECTOR_API, the stack's output ApiUrl, or http://127.0.0.1:3000 with make local")
		}
		c, err := api.New(p.apiURL, "entra-connector/"+version, max(p.parallel, 1))
		if err != nil {
			return usage("%v", err)
		}
		return f(cmd.Context(), c, args)
	}}
	parent.AddCommand(cmd)
	return cmd
}

// complete offers values for a flag.
func complete(cmd *cobra.Command, flag string, values ...string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)) // fails for an unknown flag only
}

// print prints what a program reads, or draws what a person does.
func (p *program) print(v any, draw func()) error {
	if p.output != "json" {
		draw()
		return nil
	}
	e := json.NewEncoder(p.out.W)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// members are the names and the values in a JSON object or array, in their order.
func members(prefix string, raw json.RawMessage) (pairs []string) {
	d := json.NewDecoder(bytes.NewReader(raw))
	open, _ := d.Token() // this and the rest has been decoded before
	for i := 1; d.More(); i++ {
		name, value, text := any(i), json.RawMessage(nil), any(nil)
		if open == json.Delim('{') {
			name, _ = d.Token()
		}
		_ = d.Decode(&value)
		_ = json.Unmarshal(value, &text)
		if s, ok := text.(string); ok {
			if at, err := time.Parse(time.RFC3339, s); err == nil && at.After(time.Now()) {
				s += " (" + left(at) + ")"
			}
			text = commands(s, "")
		} else if value[0] == '{' || value[0] == '[' {
			pairs = append(pairs, members(fmt.Sprint(prefix, name, "."), value)...)
			continue
		}
		pairs = append(pairs, fmt.Sprint(prefix, name), fmt.Sprint(text))
	}
	return pairs
}

// confirm returns an error unless a person, or the flag for one, says yes.
func (p *program) confirm(ctx context.Context, yes bool, question string) error {
	if yes {
		return nil
	}
	answer, err := p.err.Ask(ctx, question+" [y/N] ", false)
	switch {
	case errors.Is(err, screen.ErrNoTerminal):
		return usage("there is no terminal to ask on: give --yes")
	case strings.EqualFold(answer, "y") || strings.EqualFold(answer, "yes"):
		return nil
	}
	return errors.New("nothing was deleted")
}

// What may stand in a path.
var (
	appName        = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	connectionName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}/[a-z0-9][a-z0-9._-]{0,63}$`)
)

// names takes from one to most arguments.
func names(pattern *regexp.Regexp, most int) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < 1 || len(args) > most {
			return errors.New("there are too few or too many names")
		}
		for _, arg := range args {
			if !pattern.MatchString(arg) {
				return fmt.Errorf("%q is not a name here: names have 1 to 64 of a-z, 0-9, '.', '_' and '-', and begin with a letter or digit", arg)
			}
		}
		return nil
	}
}

// exitError is an error with an exit code of its own. Without a text, its reasons have been
// printed.
type exitError struct {
	code int
	text string
}

func (e *exitError) Error() string { return e.text }

func usage(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Sprintf(format, args...)}
}

func exitCode(err error) int {
	var own *exitError
	var answer *api.Error
	switch {
	case err == nil:
		return 0
	case errors.As(err, &own):
		return own.code
	case !errors.As(err, &answer):
		return exitFailed
	case answer.Passes():
		return exitPasses
	}
	return exitRefused
}

// report prints why a command failed and what to do next, and returns the exit code.
func (p *program) report(cmd *cobra.Command, err error) int {
	if err != nil && !p.started {
		err = usage("%v", err) // cobra found it before the command began
	}
	code := exitCode(err)
	if err == nil || err.Error() == "" {
		return code
	}
	p.explain(cmd.CommandPath(), err)
	if code == exitUsage {
		p.err.Line("Usage: " + cmd.UseLine() + "\nHelp:  " + cmd.CommandPath() + " --help")
	} else if p.output == "json" {
		_ = p.print(outcome{Problem: problem(err)}, nil) // the exit code says it as well
	}
	return code
}

// explain prints an error for a person, of whatever it is about.
func (p *program) explain(about string, err error) {
	e := (*api.Error)(nil)
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	p.err.Say(about + ": " + commands(err.Error(), ""))
	if !errors.As(err, &e) {
		return
	}
	if e.Status == 404 && e.Action == "" {
		e.Action = "See what there is: entra-connector list, entra-connector app list"
	}
	var pairs []string
	for _, field := range e.Errors {
		pairs = append(pairs, field.Field, field.Detail)
	}
	again := ""
	if e.RetryAfter > 0 {
		again = "in " + e.RetryAfter.String() + " or later"
	}
	app, _, _ := strings.Cut(about, "/")
	if strings.Contains(app, " ") { // about a command, such as "entra-connector app put"
		app = ""
	}
	p.err.Pairs(append(pairs, "to do", commands(e.Action, app), "consent", e.ConsentURL, "again", again,
		"request", e.RequestID, "trace", e.TraceID, "correlation", e.CorrelationID)...)
}

// problem is an error as a program reads it.
func problem(err error) *api.Error {
	e := (*api.Error)(nil)
	if err != nil && !errors.As(err, &e) {
		e = &api.Error{Title: "Failed", Detail: err.Error()}
	}
	return e
}

// inCommands are this command's words for the calls that the API advises.
var inCommands = strings.NewReplacer("PUT /apps/", "entra-connector app put ", "POST /connections", "entra-connector connect")

// commands also puts in the name of the app that advice is about.
func commands(text, app string) string {
	return strings.ReplaceAll(inCommands.Replace(text), "{app}", cmp.Or(app, "NAME"))
}

// left is how long it is until then, as a person says it.
func left(then time.Time) string {
	d := time.Until(then)
	switch {
	case then.IsZero():
		return ""
	case d <= 0:
		return "expired"
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d days", d/(24*time.Hour))
}

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
