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
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"entra-connector/internal/connector"
	"entra-connector/internal/lambdahost"
	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/stack"
	"entra-connector/pkg/entra/entratest"
)

// passedOn are the functions' own variables that a caller may set.
var passedOn = []string{"SECRET_PREFIX", "REFRESH_WINDOW", "WRITES_PER_SECOND", "KMS_KEY_ID", "RECOVERY_WINDOW_DAYS",
	"ALLOW_INSECURE_AUTHORITY", "EVENT_BUS", "LOG_LEVEL"}

// serve runs the stack until ctx ends, and sweeps on a schedule.
func serve(ctx context.Context, o options, stdout, stderr io.Writer) (err error) {
	if o.every <= 0 {
		return errors.New("the time between sweeps must be above zero. Try: make local EVERY=5m")
	}
	listener, err := listen(o.addr)
	if err != nil {
		return err
	}
	defer listener.Close()
	settings := stack.Options{
		Provision: o.provision, Refresh: o.refresh, Connect: o.connect, Log: problems{stderr},
		Authority:       os.Getenv("AZURE_AUTHORITY_HOST"),
		SecretsEndpoint: cmp.Or(os.Getenv("AWS_ENDPOINT_URL_SECRETS_MANAGER"), os.Getenv("AWS_ENDPOINT_URL")),
		Entra:           entratest.Options{Addr: beside(listener, 100), Spread: 8 * time.Second, PersonalAccounts: true},
		Secrets:         secretstoretest.Options{Addr: beside(listener, 200), File: o.data},
		Env:             stack.Callers(func(name string) bool { return slices.Contains(passedOn, name) }),
	}
	if o.verbose {
		settings.Log = stderr
	}
	// Cookies do not tell ports apart, so the page has another host name than the stand-in Entra.
	pageURL := fmt.Sprintf("http://localhost:%d", listener.Addr().(*net.TCPAddr).Port)
	if o.connect != "" {
		settings.Env = append(settings.Env, "CONNECT_PAGE=true", "CONNECT_URL="+pageURL)
		settings.ConnectEnv = []string{"CONNECT_PRODUCT=Example Product", "CONNECT_CONTACT=help@example.com"}
	}
	if settings.SecretsEndpoint == "" {
		lock, err := lock(o.data)
		if err != nil {
			return err
		}
		defer lock.Close()
	}
	s, err := stack.Start(settings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	pem := filepath.Join(filepath.Dir(o.data), "certificate.pem")
	if s.Entra != nil {
		trusted, err := certificate(pem)
		if err != nil {
			return err
		}
		fill(s.Entra, s.STS, pageURL, trusted)
	}
	for _, f := range []*lambdahost.Function{s.Provision, s.Refresh} {
		if result, _ := f.Invoke(ctx, nil); result.FunctionError != "" {
			return errors.New("the functions cannot start; the message above says why")
		}
	}

	server := &http.Server{Handler: s.API(), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()
	link := ""
	if s.Entra != nil && s.Connect != nil {
		link = invite(s.API())
	}
	welcome(stdout, s, settings, "http://"+listener.Addr().String(), pem, link, o)
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	defer signal.Stop(asked)
	schedule := time.NewTicker(o.every)
	defer schedule.Stop()
	for event := `{}`; ; {
		outcome, err := sweep(ctx, s, event)
		if err != nil {
			outcome = "FAILED, " + err.Error()
		}
		if ctx.Err() == nil {
			fmt.Fprintf(stdout, "%s  sweep: %s\n", time.Now().Format(time.TimeOnly), outcome)
		}
		select {
		case <-schedule.C:
			event = `{}`
		case <-asked:
			event = `{"force":true}`
		case <-ctx.Done():
			fmt.Fprintln(stdout, "stopping")
			return nil
		}
	}
}

// invite returns a link to the page for customers, of an app of its own.
func invite(api http.Handler) string {
	call := func(method, path, body string) (int, []byte) {
		w := httptest.NewRecorder()
		api.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
		return w.Code, w.Body.Bytes()
	}
	call("PUT", "/apps/page", `{"client_id":"`+clientID+`","client_secret":"`+clientSecret+`","service":"microsoft-graph"}`)
	for n := 1; n < 100; n++ {
		status, answer := call("POST", fmt.Sprintf("/connections/page/customer-%d/invitation", n), "")
		var invitation struct{ URL string }
		switch _ = json.Unmarshal(answer, &invitation); status {
		case http.StatusOK, http.StatusCreated:
			return invitation.URL
		case http.StatusConflict: // connected in an earlier run
			continue
		}
		break
	}
	return ""
}

// listen accepts loopback addresses only, since the API asks for no authorisation here.
func listen(addr string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err != nil || host != "localhost" && !ip.IsLoopback() {
		return nil, fmt.Errorf("%s is not a loopback address with a port. Try: make local ADDR=127.0.0.1:3001", addr)
	}
	listener, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		number, _ := strconv.Atoi(port)
		return nil, fmt.Errorf("%s is in use. Stop what listens there, or choose another address: make local ADDR=%s",
			addr, net.JoinHostPort(host, strconv.Itoa(number+1)))
	}
	return listener, err
}

// beside is the address that many ports above the listener's. So a stand-in stays where it was at
// the last start, and the next API port leaves it alone.
func beside(listener net.Listener, ports int) string {
	addr := *listener.Addr().(*net.TCPAddr)
	addr.Port += ports
	return addr.String()
}

// lock keeps other processes from the data file until the result is closed. Each of two would keep
// its own copy of the data in memory, and overwrite what the other has saved.
func lock(data string) (io.Closer, error) {
	if err := os.MkdirAll(filepath.Dir(data), 0o700); err != nil { // for secrets in the clear
		return nil, err
	}
	// A file of its own, since the data file is replaced whenever it is saved.
	f, err := os.OpenFile(data+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another make local uses %s. Stop that one, or choose another file: "+
			"make local DATA=.local/other.json", data), f.Close())
	}
	return f, nil
}

// sweep runs the refresh function. It returns the report in one line, or an error in one sentence.
func sweep(ctx context.Context, s *stack.Stack, event string) (string, error) {
	result, err := s.Sweep(ctx, []byte(event))
	if err != nil {
		return "", err
	}
	var report struct {
		connector.SweepReport
		ErrorType, ErrorMessage string
	}
	if json.Unmarshal(result.Payload, &report) != nil {
		return "", errors.New("the refresh function's answer is not a report")
	}
	if result.FunctionError != "" {
		return "", fmt.Errorf("%s: %s", report.ErrorType, report.ErrorMessage)
	}
	return summary(report.SweepReport), nil
}

func summary(r connector.SweepReport) string {
	s := fmt.Sprintf("checked %d, due %d, refreshed %d, failed %d, waiting %d, deferred %d",
		r.Checked, r.Due, r.Refreshed, r.Failed, r.Waiting, r.Deferred)
	if r.Incomplete {
		s += ", incomplete"
	}
	for _, e := range r.Expiring {
		s += fmt.Sprintf("; %s of app %s expires within %d days", e.Credential, e.App, e.WithinDays)
	}
	shown := min(len(r.Failures), 5) // GET /connections has them all
	for _, f := range r.Failures[:shown] {
		s += fmt.Sprintf("; %s %s %s", f.Connection, f.Code, f.Status)
	}
	if more := len(r.Failures) - shown; more > 0 {
		s += fmt.Sprintf("; and %d more", more)
	}
	return s
}

// welcome says what runs where and what to try.
func welcome(out io.Writer, s *stack.Stack, settings stack.Options, api, pem, link string, o options) {
	standIn := func(url, wanted string) string {
		if url != "http://"+wanted {
			return url + " (stand-in; " + wanted + " is taken)"
		}
		return url + " (stand-in)"
	}
	entraAt, tenant, id, secret := s.Authority+" (AZURE_AUTHORITY_HOST)", "YOUR-CUSTOMER.onmicrosoft.com", "…", "…"
	if s.Entra != nil {
		entraAt, tenant, id, secret = standIn(s.Authority, settings.Entra.Addr), contosoDomain, clientID, clientSecret
	}
	secretsAt, data, federation, credentials := s.SecretsEndpoint+" (your AWS_ variables)", "", "", ""
	if s.Secrets != nil {
		secretsAt = standIn(s.SecretsEndpoint, settings.Secrets.Addr)
		data = o.data + ", kept between runs (secrets in the clear)"
		federation = "{} instead of client_secret, with tokens of the stand-in STS"
		credentials = "AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local AWS_REGION=us-east-1 \\\n  "
	}
	withCertificate := ""
	if s.Entra != nil {
		withCertificate = fmt.Sprintf(`The same app with its certificate, under another name:

  jq -n --rawfile pem %s '{"certificate":$pem,
    "app":"signed","tenant_id":"%s","service":"microsoft-graph",
    "client_id":"%s"}' |
  curl -s %s/connections \
    -H 'Content-Type: application/json' -d @-

`, pem, tenant, id, api)
	}
	d := &screen{out: out}
	fmt.Fprint(out, "\nEntra connector, on this machine. For development only: calls need no signature.\n\n")
	d.pairs(2, pair{"API", api}, pair{"Entra", entraAt}, pair{"Secrets Manager", secretsAt}, pair{"Data", data},
		pair{"Sweeps", fmt.Sprintf("now, then every %v; kill -USR1 %d refreshes everything", o.every, os.Getpid())})
	if s.Entra != nil {
		fmt.Fprint(out, "\nThe stand-in Entra knows one app in two tenants. NOT A REAL SECRET, made up:\n\n")
		d.pairs(2, pair{"client_id", clientID}, pair{"client_secret", clientSecret + ", or to rotate to: " + nextSecret},
			pair{"certificate", pem}, pair{"federation", federation},
			pair{"tenant_id", contosoDomain + " (" + contosoID + ")"}, pair{"", fabrikamDomain + " (" + fabrikamID + ")"})
	}
	if link != "" {
		fmt.Fprintf(out, "\nA customer's administrator connects a tenant with this link, in a browser:\n\n  %s\n", link)
	}
	fmt.Fprintf(out, `
Try, in this order: provision, list, show, refresh, read as an integration does

  curl -s %[1]s/connections \
    -H 'Content-Type: application/json' -d '{
    "tenant_id":"%[2]s","connection":"first",
    "client_id":"%[3]s",
    "client_secret":"%[4]s","service":"microsoft-graph"}'
  curl -s %[1]s/connections
  curl -s %[1]s/connections/default/first
  curl -s -X POST %[1]s/connections/default/first/refresh
  %[5]saws --endpoint-url %[6]s secretsmanager get-secret-value \
    --secret-id %[7]s/connections/default/first \
    --query SecretString --output text

%[8]sCtrl-C stops it. Warnings of the functions appear here; V=1 shows all they log.

`, api, tenant, id, secret, credentials, s.SecretsEndpoint, cmp.Or(os.Getenv("SECRET_PREFIX"), "entra"), withCertificate)
}
