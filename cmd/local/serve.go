package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/stack"
	"entra-connector/pkg/entra"
)

// passedOn are the functions' own variables that a caller may set.
var passedOn = []string{"SECRET_PREFIX", "REFRESH_WINDOW", "WRITES_PER_SECOND", "LOG_LEVEL", "ALLOW_INSECURE_AUTHORITY"}

// serve runs the stack until ctx ends, and sweeps on a schedule.
func serve(ctx context.Context, o options, stdout, stderr io.Writer) (err error) {
	if o.every <= 0 {
		return errors.New("-every must be above zero")
	}
	listener, err := listen(o.addr)
	if err != nil {
		return err
	}
	defer listener.Close()

	terminal := &shared{out: stdout}
	var log io.Writer = &shared{out: stderr}
	if !o.verbose {
		log = problems{log}
	}
	settings := stack.Options{
		Provision: o.provision, Refresh: o.refresh, Log: log,
		Authority:       os.Getenv("AZURE_AUTHORITY_HOST"),
		SecretsEndpoint: cmp.Or(os.Getenv("AWS_ENDPOINT_URL_SECRETS_MANAGER"), os.Getenv("AWS_ENDPOINT_URL")),
		Secrets:         secretstoretest.Options{File: o.data},
	}
	for _, name := range passedOn {
		if value := os.Getenv(name); value != "" {
			settings.Env = append(settings.Env, name+"="+value)
		}
	}
	if settings.SecretsEndpoint == "" {
		if err := os.MkdirAll(filepath.Dir(o.data), 0o700); err != nil { // it is to hold secrets in the clear
			return err
		}
	}
	s, err := stack.Start(settings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if s.Entra != nil {
		fill(s.Entra, s.STS)
	}

	server := &http.Server{Handler: s.API(), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	defer func() {
		// Requests under way get a moment to end, then the functions are stopped under them.
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		_ = server.Shutdown(ctx)
	}()

	welcome(&screen{out: terminal}, s, "http://"+listener.Addr().String(), o)
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	defer signal.Stop(asked)
	schedule := time.NewTicker(o.every)
	defer schedule.Stop()
	for event := `{}`; ; {
		report, err := sweep(ctx, s, event)
		if ctx.Err() == nil {
			fmt.Fprintf(terminal, "%s  sweep: %s\n", time.Now().Format(time.TimeOnly), outcome(report, err))
		}
		select {
		case <-schedule.C:
			event = `{}`
		case <-asked:
			event = `{"force":true}`
		case err := <-failed:
			return err
		case <-ctx.Done():
			fmt.Fprintln(terminal, "stopping")
			return nil
		}
	}
}

// listen takes loopback addresses only: the API asks for no authorisation here.
func listen(addr string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err != nil || host != "localhost" && !ip.IsLoopback() {
		return nil, fmt.Errorf("-addr %s is not a loopback address with a port, such as 127.0.0.1:3000", addr)
	}
	listener, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s is in use: stop what listens there, or choose another address with -addr", addr)
	}
	return listener, err
}

// sweep runs the refresh function. Its error is one sentence, also where the function failed.
func sweep(ctx context.Context, s *stack.Stack, event string) (entra.SweepReport, error) {
	var report entra.SweepReport
	result, err := s.Sweep(ctx, []byte(event))
	if err != nil {
		return report, err
	}
	if result.FunctionError != "" {
		var failure struct{ ErrorType, ErrorMessage string }
		_ = json.Unmarshal(result.Payload, &failure)
		return report, fmt.Errorf("%s: %s", failure.ErrorType, failure.ErrorMessage)
	}
	if err := json.Unmarshal(result.Payload, &report); err != nil {
		return report, errors.New("the refresh function's answer is not a report")
	}
	return report, nil
}

func outcome(report entra.SweepReport, err error) string {
	if err != nil {
		return "FAILED, " + err.Error()
	}
	return summary(report)
}

const shownFailures = 5 // of one sweep; GET /connections has them all

// summary is a sweep's report in one line.
func summary(r entra.SweepReport) string {
	var b strings.Builder
	fmt.Fprintf(&b, "checked %d, due %d, refreshed %d, failed %d, waiting %d, deferred %d",
		r.Checked, r.Due, r.Refreshed, r.Failed, r.Waiting, r.Deferred)
	if r.Incomplete {
		b.WriteString(", incomplete")
	}
	for _, e := range r.Expiring {
		fmt.Fprintf(&b, "; %s of app %s expires within %d days", e.Credential, e.App, e.WithinDays)
	}
	for i, f := range r.Failures {
		if i == shownFailures {
			fmt.Fprintf(&b, "; and %d more", len(r.Failures)-i)
			break
		}
		fmt.Fprintf(&b, "; %s %s %s", f.Connection, f.Code, f.Status)
	}
	return b.String()
}

// welcome says what runs where and what to try.
func welcome(d *screen, s *stack.Stack, api string, o options) {
	fmt.Fprintln(d.out)
	d.say(0, "Entra connector, on this machine. For development only: the API asks for no authorisation.")
	fmt.Fprintln(d.out)
	entraAt, secretsAt := s.Authority+" (AZURE_AUTHORITY_HOST)", s.SecretsEndpoint+" (your AWS_ variables)"
	if s.Entra != nil {
		entraAt = s.Authority + " (stand-in)"
	}
	if s.Secrets != nil {
		secretsAt = s.SecretsEndpoint + " (stand-in)"
	}
	at := []pair{{"API", api}, {"Entra", entraAt}, {"Secrets Manager", secretsAt}}
	if s.Secrets != nil {
		at = append(at, pair{"Data", o.data + ", kept between runs; secrets in the clear, yours alone to read"})
	}
	d.pairs(2, append(at, pair{"Sweeps", fmt.Sprintf("now and every %v; all connections at once: kill -USR1 %d", o.every, os.Getpid())})...)

	tenant, app := "YOUR-CUSTOMER.onmicrosoft.com", `"client_id":"…","client_secret":"…",`
	if s.Entra != nil {
		tenant, app = contosoDomain, `"client_id":"`+clientID+`","client_secret":"`+clientSecret+`",`
		fmt.Fprintln(d.out)
		d.say(0, "The stand-in Entra knows this app in these tenants. NOT A REAL SECRET, made up for it:")
		fmt.Fprintln(d.out)
		secrets := []pair{{"client_secret", clientSecret + " or, to rotate to, " + nextSecret}}
		if s.STS != nil {
			secrets = append(secrets, pair{"federation", `{} in its place: the stand-in STS issues identity tokens`})
		}
		d.pairs(2, append(append([]pair{{"client_id", clientID}}, secrets...),
			pair{"tenant_id", contosoDomain + " (" + contosoID + ")"}, pair{"", fabrikamDomain + " (" + fabrikamID + ")"})...)
	}

	fmt.Fprint(d.out, "\nTry, in this order: provision, list, look at one, refresh it, read it as an integration does\n\n")
	fmt.Fprintf(d.out, `  curl -s %s/connections -H 'Content-Type: application/json' -d '{
    "tenant_id":"%s","connection":"first",
    %s
    "service":"microsoft-graph"}'
`, api, tenant, app)
	fmt.Fprintf(d.out, "  curl -s %s/connections\n", api)
	fmt.Fprintf(d.out, "  curl -s %s/connections/default/first\n", api)
	fmt.Fprintf(d.out, "  curl -s -X POST %s/connections/default/first/refresh\n", api)
	credentials, region := "", ""
	if s.Secrets != nil {
		credentials, region = "AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local \\\n  ", " --region us-east-1"
	}
	fmt.Fprintf(d.out, "  %saws --endpoint-url %s%s secretsmanager get-secret-value \\\n    --secret-id %s/connections/default/first --query SecretString --output text\n",
		credentials, s.SecretsEndpoint, region, cmp.Or(os.Getenv("SECRET_PREFIX"), "entra"))
	fmt.Fprint(d.out, "\nCtrl-C stops it. What the functions warn of appears here; -v shows all they log.\n\n")
}
