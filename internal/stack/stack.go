// Package stack runs the whole connector on one machine: both function binaries as Lambda would run
// them, the HTTP API in front of one, and behind them stand-ins for Entra and AWS, or the real
// services.
package stack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"entra-connector/internal/awsidentity/ststest"
	"entra-connector/internal/lambdahost"
	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/signals/eventbridgetest"
	"entra-connector/pkg/entra/entratest"
)

// Options say what to run against what.
type Options struct {
	Provision, Refresh string // paths of the built binaries
	Connect            string // likewise; empty: there is no customer's page

	Authority       string // of Entra; empty: the stand-in's
	SecretsEndpoint string // of Secrets Manager, called with this process's AWS_* variables; empty: the stand-in's

	// Routes are the HTTP API's route keys, as lambdahost.HTTPAPI takes them.
	Routes []string

	Env                                  []string  // for both functions; wins over everything set here
	ProvisionEnv, RefreshEnv, ConnectEnv []string  // for one of them; wins over Env
	Log                                  io.Writer // gets what both functions print, a line per Write; nil discards it

	// How the stand-ins behave. Tests set their clocks, lag, quotas and permissions.
	Entra   entratest.Options
	Secrets secretstoretest.Options
	STS     ststest.Options // goes by the clock of Secrets unless it has its own

	APITimeout   time.Duration // of the provision function; 29 s if zero, as in the template
	SweepTimeout time.Duration // of the refresh function; 300 s if zero, as in the template
}

// Stack is a running connector.
type Stack struct {
	Entra              *entratest.Server       // nil if Options name another
	Secrets            *secretstoretest.Server // nil if Options name another
	STS                *ststest.Server         // there if Secrets is; else the functions call AWS
	Events             *eventbridgetest.Server // likewise, and AWS only with EVENT_BUS in Options.Env
	Provision, Refresh *lambdahost.Function
	Connect            *lambdahost.Function // nil unless Options name it

	Authority, SecretsEndpoint string // what the functions talk to

	options Options
	started []func() error // to stop what was started
}

// Start starts the stand-ins that are needed and makes the functions ready.
func Start(o Options) (_ *Stack, err error) {
	s := &Stack{Authority: o.Authority, SecretsEndpoint: o.SecretsEndpoint, options: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.Authority == "" {
		s.Entra = entratest.New(o.Entra)
		s.Entra.Listen()
		s.onClose(s.Entra.Close)
		s.Authority = s.Entra.URL()
	}
	if s.SecretsEndpoint == "" {
		if s.Secrets, err = secretstoretest.New(o.Secrets); err != nil {
			return nil, fmt.Errorf("starting the stand-in Secrets Manager: %w", err)
		}
		if o.STS.Now == nil {
			o.STS.Now = o.Secrets.Now
		}
		s.STS, s.Events = ststest.New(o.STS), eventbridgetest.New()
		s.started = append(s.started, s.Secrets.Close)
		s.onClose(s.STS.Close)
		s.onClose(s.Events.Close)
		s.SecretsEndpoint = s.Secrets.URL()
	}
	if err := s.startFunctions(); err != nil {
		return nil, err
	}
	return s, nil
}

// Twin starts two more functions on what this Stack's functions talk to, as Lambda does for
// requests at the same time. They have this Stack's options but for ProvisionEnv and RefreshEnv,
// and these variables.
func (s *Stack) Twin(env ...string) (*Stack, error) {
	twin := *s
	twin.options.Env = slices.Concat(s.options.Env, env)
	twin.options.ProvisionEnv, twin.options.RefreshEnv, twin.options.ConnectEnv, twin.started = nil, nil, nil, nil
	if err := twin.startFunctions(); err != nil {
		return nil, errors.Join(err, twin.Close())
	}
	return &twin, nil
}

func (s *Stack) onClose(stop func()) {
	s.started = append(s.started, func() error { stop(); return nil })
}

func (s *Stack) startFunctions() (err error) {
	o, env := s.options, s.env()
	logger := log.New(cmp.Or(o.Log, io.Discard), "", 0) // for both, since a Logger writes a line at a time
	start := func(name, binary string, own []string, timeout time.Duration) (*lambdahost.Function, error) {
		f, err := lambdahost.Start(lambdahost.Config{
			Name: name, Binary: binary, Env: slices.Concat(env, own), Timeout: timeout, Log: logger})
		if err == nil {
			s.started = append(s.started, f.Close)
		}
		return f, err
	}
	if s.Provision, err = start("ProvisionFunction", o.Provision, o.ProvisionEnv, cmp.Or(o.APITimeout, 29*time.Second)); err != nil {
		return err
	}
	if o.Connect != "" {
		if s.Connect, err = start("ConnectFunction", o.Connect, o.ConnectEnv, cmp.Or(o.APITimeout, 29*time.Second)); err != nil {
			return err
		}
	}
	s.Refresh, err = start("RefreshFunction", o.Refresh, o.RefreshEnv, cmp.Or(o.SweepTimeout, 300*time.Second))
	return err
}

// env is what both functions get beside Lambda's own variables. They get nothing else of this
// process's environment, so that a test finds the same everywhere.
func (s *Stack) env() []string {
	env := []string{"AZURE_AUTHORITY_HOST=" + s.Authority, "AWS_ENDPOINT_URL_SECRETS_MANAGER=" + s.SecretsEndpoint}
	if s.Secrets != nil {
		// The stand-ins take any credentials. The developer's own do not belong there.
		env = append(env, "AWS_ENDPOINT_URL_STS="+s.STS.URL(), "AWS_ENDPOINT_URL_EVENTBRIDGE="+s.Events.URL(), "EVENT_BUS=default",
			"AWS_REGION="+cmp.Or(s.options.Secrets.Region, "us-east-1"), "AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local",
			"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true")
	} else {
		// The Region may be in a profile's file, which Lambda's own AWS_REGION would hide.
		env = slices.Concat([]string{"AWS_REGION=", "AWS_DEFAULT_REGION="}, Callers(func(name string) bool {
			return strings.HasPrefix(name, "AWS_") && !strings.HasPrefix(name, "AWS_LAMBDA_") || name == "HOME" || name == "PATH"
		}), env)
	}
	if s.Entra == nil || s.Secrets == nil {
		env = append(env, Callers(func(name string) bool { // the way out of the machine
			name = strings.ToUpper(name)
			return strings.HasSuffix(name, "_PROXY") || strings.HasPrefix(name, "SSL_CERT_")
		})...)
	}
	return append(env, s.options.Env...)
}

// Callers returns those variables of this process whose name is wanted.
func Callers(wanted func(name string) bool) (env []string) {
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); wanted(name) {
			env = append(env, v)
		}
	}
	return env
}

// API is the connector's HTTP API. It asks for no authorisation.
func (s *Stack) API() http.Handler {
	api := lambdahost.HTTPAPI(s.Provision, s.options.Routes...)
	if s.Connect == nil {
		return api
	}
	page := lambdahost.HTTPAPI(s.Connect, ConnectRoutes...)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/connect/") {
			page.ServeHTTP(w, r)
		} else {
			api.ServeHTTP(w, r)
		}
	})
}

// ConnectRoutes are the route keys of the customer's page.
var ConnectRoutes = []string{"GET /connect/{invitation}", "POST /connect/{invitation}", "GET /connect/callback", "ANY /connect/{proxy+}"}

// Sweep runs the refresh function once.
func (s *Stack) Sweep(ctx context.Context, event []byte) (lambdahost.Result, error) {
	return s.Refresh.Invoke(ctx, event)
}

// Close stops everything that Start started, the functions first.
func (s *Stack) Close() error {
	var errs []error
	for _, started := range slices.Backward(s.started) {
		errs = append(errs, started())
	}
	return errors.Join(errs...)
}
