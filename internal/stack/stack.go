// Package stack runs the whole connector on one machine: both function binaries as Lambda would run them, the HTTP API in
// front of one, and, unless the real services are named, stand-ins for Entra and for the services of AWS behind them.
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

	Authority       string // of Entra; empty: the stand-in's
	SecretsEndpoint string // of Secrets Manager, asked with the caller's own AWS_* variables; empty: the stand-in's
	SecretsFile     string // where the stand-in keeps its data; empty: in memory

	Env                      []string  // for both functions; wins over everything set here
	ProvisionEnv, RefreshEnv []string  // for one of them; wins over Env
	Log                      io.Writer // both functions' output, a line per Write; discarded if nil

	// How the stand-ins behave. Tests set their clocks, lag, quotas and permissions.
	Entra   entratest.Options
	Secrets secretstoretest.Options
	STS     ststest.Options // on the clock of Secrets, if it has none of its own

	APITimeout   time.Duration // of the provision function; 29 s if zero, as in the template
	SweepTimeout time.Duration // of the refresh function; 300 s if zero, as in the template
}

// Stack is a running connector.
type Stack struct {
	Entra              *entratest.Server       // nil where Options name another
	Secrets            *secretstoretest.Server // nil where Options name another
	STS                *ststest.Server         // nil where Options name another Secrets Manager: then AWS's own
	Events             *eventbridgetest.Server // likewise, and then only with EVENT_BUS in Options.Env
	Provision, Refresh *lambdahost.Function

	Authority, SecretsEndpoint string // what the functions talk to
}

// Start starts the stand-ins that are needed, on loopback ports of their own, and makes the functions ready.
func Start(o Options) (_ *Stack, err error) {
	s := &Stack{Authority: o.Authority, SecretsEndpoint: o.SecretsEndpoint}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()

	if s.Authority == "" {
		s.Entra = entratest.New(o.Entra)
		if err := s.Entra.Listen("127.0.0.1:0"); err != nil {
			return nil, fmt.Errorf("starting the stand-in Entra: %w", err)
		}
		s.Authority = s.Entra.URL()
	}
	if s.SecretsEndpoint == "" {
		if o.SecretsFile != "" {
			o.Secrets.File = o.SecretsFile
		}
		secrets, err := secretstoretest.New(o.Secrets)
		if err != nil {
			return nil, fmt.Errorf("starting the stand-in Secrets Manager: %w", err)
		}
		s.Secrets = secrets
		if err := s.Secrets.Listen("127.0.0.1:0"); err != nil {
			return nil, fmt.Errorf("starting the stand-in Secrets Manager: %w", err)
		}
		s.SecretsEndpoint = s.Secrets.URL()
		if o.STS.Now == nil {
			o.STS.Now = o.Secrets.Now
		}
		s.STS = ststest.New(o.STS)
		if err := s.STS.Listen("127.0.0.1:0"); err != nil {
			return nil, fmt.Errorf("starting the stand-in STS: %w", err)
		}
		s.Events = new(eventbridgetest.Server)
		if err := s.Events.Listen("127.0.0.1:0"); err != nil {
			return nil, fmt.Errorf("starting the stand-in EventBridge: %w", err)
		}
	}

	env := s.env(o)
	logger := log.New(cmp.Or(o.Log, io.Discard), "", 0) // for both, since a Logger writes a line at a time
	if s.Provision, err = lambdahost.Start(lambdahost.Config{
		Name: "ProvisionFunction", Binary: o.Provision, Env: slices.Concat(env, o.ProvisionEnv), Log: logger,
		Timeout: cmp.Or(o.APITimeout, 29*time.Second),
	}); err != nil {
		return nil, err
	}
	if s.Refresh, err = lambdahost.Start(lambdahost.Config{
		Name: "RefreshFunction", Binary: o.Refresh, Env: slices.Concat(env, o.RefreshEnv), Log: logger,
		Timeout: cmp.Or(o.SweepTimeout, 300*time.Second),
	}); err != nil {
		return nil, err
	}
	return s, nil
}

// env is what both functions get beside Lambda's own variables. lambdahost passes nothing else on, so that a test finds
// the same environment everywhere.
func (s *Stack) env(o Options) []string {
	env := []string{"AZURE_AUTHORITY_HOST=" + s.Authority, "AWS_ENDPOINT_URL_SECRETS_MANAGER=" + s.SecretsEndpoint}
	if s.Secrets != nil {
		// The stand-in takes any credentials. The developer's own have no business there.
		env = append(env, "AWS_ENDPOINT_URL_STS="+s.STS.URL(), "AWS_ENDPOINT_URL_EVENTBRIDGE="+s.Events.URL(), "EVENT_BUS=default",
			"AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local",
			"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true")
		if o.Secrets.Region != "" {
			env = append(env, "AWS_REGION="+o.Secrets.Region)
		}
	} else {
		// Region and credentials may be the caller's variables or come from the files of a profile, which Lambda's own
		// AWS_REGION would hide.
		env = slices.Concat([]string{"AWS_REGION=", "AWS_DEFAULT_REGION="}, callers(func(name string) bool {
			return strings.HasPrefix(name, "AWS_") && !strings.HasPrefix(name, "AWS_LAMBDA_") || name == "HOME" || name == "PATH"
		}), env)
	}
	if s.Entra == nil || s.Secrets == nil {
		env = append(env, callers(func(name string) bool { // the way out of the machine
			name = strings.ToUpper(name)
			return strings.HasSuffix(name, "_PROXY") || strings.HasPrefix(name, "SSL_CERT_")
		})...)
	}
	return append(env, o.Env...)
}

// callers returns the variables of this process whose name is wanted.
func callers(wanted func(name string) bool) (env []string) {
	for _, v := range os.Environ() {
		if name, value, _ := strings.Cut(v, "="); value != "" && wanted(name) {
			env = append(env, v)
		}
	}
	return env
}

// API is the connector's HTTP API. No request needs authorisation.
func (s *Stack) API() http.Handler { return lambdahost.HTTPAPI(s.Provision) }

// Sweep runs the refresh function once.
func (s *Stack) Sweep(ctx context.Context, event []byte) (lambdahost.Result, error) {
	return s.Refresh.Invoke(ctx, event)
}

// Close stops everything that Start started, the functions first.
func (s *Stack) Close() error {
	var errs []error
	for _, f := range []*lambdahost.Function{s.Provision, s.Refresh} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	if s.Entra != nil {
		errs = append(errs, s.Entra.Close())
	}
	if s.Secrets != nil {
		errs = append(errs, s.Secrets.Close())
	}
	if s.STS != nil {
		errs = append(errs, s.STS.Close())
	}
	if s.Events != nil {
		errs = append(errs, s.Events.Close())
	}
	return errors.Join(errs...)
}
