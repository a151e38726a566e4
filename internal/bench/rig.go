package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"entra-connector/internal/lambdahost"
	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/stack"
	"entra-connector/pkg/entra/entratest"
)

// What a round trip takes. Both are assumptions, which the page names.
const (
	awsLatency   = 15 * time.Millisecond
	entraLatency = 150 * time.Millisecond
)

const (
	clientID     = "11111111-aaaa-4aaa-8aaa-111111111111"
	clientSecret = "not-a-real-secret"
	scope        = "https://graph.microsoft.com/.default"
)

// rig is a connector between stand-ins. Its Entra speaks TLS, as Python's msal insists.
type rig struct {
	*stack.Stack
	entra *entratest.Server
	tls   *httptest.Server
	dir   string
	env   []string     // by which another function finds the same stand-ins
	log   bytes.Buffer // what the functions logged, for when they fail; read it after an invocation
}

// rig starts a connector with this refresh function. If it is slow, every round trip takes its time and AWS's quotas
// hold; otherwise the stand-ins answer at once.
func (b *bench) rig(slow bool, refresh string) (_ *rig, err error) {
	r := new(rig)
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	var entraOptions entratest.Options
	var secrets secretstoretest.Options
	if slow {
		entraOptions.Latency = entraLatency
		secrets = secretstoretest.Options{Latency: awsLatency, Quotas: secretstoretest.AWSQuotas}
	}
	r.entra = entratest.New(entraOptions)
	r.tls = httptest.NewUnstartedServer(r.entra)
	r.tls.Config.ErrorLog = log.New(io.Discard, "", 0) // of connections that a function cuts as it ends
	r.tls.StartTLS()
	if r.dir, err = os.MkdirTemp("", "bench"); err != nil {
		return nil, err
	}
	ca := filepath.Join(r.dir, "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.tls.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		return nil, err
	}
	// Where Go and where Python look for it; and which Python, on a file system that is read-only to it in Lambda.
	r.env = []string{"SSL_CERT_FILE=" + ca, "REQUESTS_CA_BUNDLE=" + ca, "NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1",
		"PYTHON=" + b.python(), "PYTHONDONTWRITEBYTECODE=1"}
	r.Stack, err = stack.Start(stack.Options{
		Provision: b.provision, Refresh: refresh, Authority: r.tls.URL, Secrets: secrets, Env: r.env, Log: &r.log,
		SweepTimeout: sweepTimeout(refresh == b.refresh),
	})
	if err != nil {
		return nil, err
	}
	r.env = append(r.env, "AZURE_AUTHORITY_HOST="+r.Authority, "AWS_ENDPOINT_URL_SECRETS_MANAGER="+r.SecretsEndpoint,
		"AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local", "AWS_EC2_METADATA_DISABLED=true")
	r.entra.AddApp(entratest.App{ClientID: clientID, Secrets: []entratest.Secret{{Value: clientSecret}}})
	return r, nil
}

// sweepTimeout is our template's for our function, and for another as much as Lambda allows.
func sweepTimeout(ours bool) time.Duration {
	if ours {
		return 5 * time.Minute
	}
	return 15 * time.Minute
}

// Close leaves nothing of the rig.
func (r *rig) Close() error {
	var errs []error
	if r.Stack != nil {
		errs = append(errs, r.Stack.Close())
	}
	if r.tls != nil {
		r.tls.CloseClientConnections()
		r.tls.Close()
	}
	if r.dir != "" {
		errs = append(errs, os.RemoveAll(r.dir))
	}
	return errors.Join(errs...)
}

// tenant makes the stand-in Entra know the i-th tenant.
func (r *rig) tenant(i int) string {
	id := fmt.Sprintf("c0000000-0000-4000-8000-%012x", i)
	r.entra.AddTenant(entratest.Tenant{ID: id})
	r.entra.Consent(id, clientID, "User.Read.All")
	return id
}

// post is one POST /connections.
func (r *rig) post(body map[string]string) error {
	encoded, _ := json.Marshal(body) // strings only
	request := httptest.NewRequest("POST", "/connections", bytes.NewReader(encoded))
	request.Header.Set("Content-Type", "application/json")
	answer := httptest.NewRecorder()
	r.API().ServeHTTP(answer, request)
	if answer.Code != http.StatusCreated {
		return fmt.Errorf("provisioning is answered with %d: %s", answer.Code, answer.Body)
	}
	return nil
}

const seedName = "customer-000000"

// seed provisions a connection and makes n of it by copying what is then stored.
func (r *rig) seed(n, tenants int, left time.Duration) error {
	if err := r.post(map[string]string{
		"tenant_id": r.tenant(0), "connection": seedName, "client_id": clientID, "client_secret": clientSecret, "scope": scope,
	}); err != nil {
		return err
	}
	for t := range tenants {
		r.tenant(t)
	}
	return r.age(n, tenants, left)
}

// age makes the n connections' tokens expire that long from now. They are spread evenly over the tenants.
func (r *rig) age(n, tenants int, left time.Duration) error {
	name := "entra/connections/default/" + seedName
	value, _ := r.Secrets.Value(name)
	description, _ := r.Secrets.Description(name)
	var values map[string]string
	var state map[string]any
	if err := cmp.Or(json.Unmarshal([]byte(value), &values), json.Unmarshal([]byte(description), &state)); err != nil {
		return fmt.Errorf("reading the connection that was provisioned: %w", err)
	}
	expires := time.Now().Add(left).Truncate(time.Second).UTC()
	for t := range tenants {
		id := fmt.Sprintf("c0000000-0000-4000-8000-%012x", t)
		values["PAN_SEC_MICROSOFT_ENTRA_TENANT_ID"], state["tenant_id"] = id, id
		values["PAN_SEC_MICROSOFT_ENTRA_EXPIRES_AT"], state["expires_at"] = strconv.FormatInt(expires.Unix(), 10), expires
		value, _ := json.Marshal(values)
		description, _ := json.Marshal(state)
		for i := t; i < n; i += tenants {
			r.Secrets.Put(fmt.Sprintf("entra/connections/default/customer-%06d", i), string(value), string(description))
		}
	}
	return nil
}

// sweep is what came of one.
type sweep struct {
	Checked, Refreshed int
	lambdahost.Report
	calls, throttled int
	lists            int
	rates            []float64 // refreshes a second, in each ten seconds
}

// rate is refreshes a second.
func (s sweep) rate() float64 { return float64(s.Refreshed) / s.Duration.Seconds() }

// callsEach is AWS calls per connection refreshed.
func (s sweep) callsEach() float64 { return float64(s.calls) / float64(s.Refreshed) }

// sweep runs the refresh function on the schedule's event.
func (b *bench) sweep(ctx context.Context, r *rig, what string) (s sweep, err error) {
	r.Secrets.ResetCalls()
	watching, stop := context.WithCancel(ctx)
	rates := make(chan []float64)
	go func() { rates <- b.watch(watching, r, what) }()
	result, err := r.Sweep(ctx, []byte(`{"source":"aws.scheduler","detail-type":"Scheduled Event","detail":{}}`))
	stop()
	s.rates = <-rates
	if err != nil {
		return s, err
	}
	if result.FunctionError != "" || json.Unmarshal(result.Payload, &s) != nil {
		return s, fmt.Errorf("%s: the function fails: %s\n%s", what, result.Payload, r.log.Bytes())
	}
	s.Report = result.Report
	for _, call := range r.Secrets.Calls() {
		s.calls++
		if call.Error == "ThrottlingException" {
			s.throttled++
		}
		if call.Op == "ListSecrets" {
			s.lists++
		}
	}
	b.say("%s: %s checked, %s refreshed in %.1f s", what, thousands(s.Checked), thousands(s.Refreshed), s.Duration.Seconds())
	return s, nil
}

const tick = 10 * time.Second

// watch reports progress until ctx ends, and returns the rate of writes in each tick.
func (b *bench) watch(ctx context.Context, r *rig, what string) (rates []float64) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for before := 0; ; {
		select {
		case <-ctx.Done():
			return rates
		case <-ticker.C:
		}
		written, listed := 0, 0
		for _, call := range r.Secrets.Calls() {
			switch {
			case call.Op == "ListSecrets":
				listed++
			case call.Error == "" && (call.Op == "UpdateSecret" || call.Op == "PutSecretValue"):
				written++
			}
		}
		rates = append(rates, float64(written-before)/tick.Seconds())
		before = written
		b.say("%s: %s pages listed, %s refreshed, %.1f/s", what, thousands(listed), thousands(written), rates[len(rates)-1])
	}
}
