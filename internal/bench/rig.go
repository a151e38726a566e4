package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"gonum.org/v1/plot/plotter"

	"entra-connector/internal/lambdahost"
	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/stack"
	"entra-connector/pkg/entra/entratest"
)

// Assumed durations of a round trip. The page names them.
const (
	awsLatency   = 15 * time.Millisecond
	entraLatency = 150 * time.Millisecond
)

const (
	clientID     = "11111111-aaaa-4aaa-8aaa-111111111111"
	clientSecret = "not-a-real-secret"
	scope        = "https://graph.microsoft.com/.default"
)

// rig is a connector between stand-ins.
type rig struct {
	*stack.Stack
	entra *entratest.Server
	env   []string     // with it, another function finds the same stand-ins
	log   bytes.Buffer // what the functions logged; read it after an invocation
}

// with starts a connector with this refresh function, and stops it after use. If slow, every round
// trip takes its time and AWS's quotas hold; otherwise the stand-ins answer at once.
func (b *bench) with(slow bool, refresh string, use func(*rig) error) error {
	r := new(rig)
	options := stack.Options{Provision: b.provision, Refresh: refresh, Log: &r.log}
	if refresh != b.refresh {
		options.SweepTimeout = 15 * time.Minute // the most that Lambda allows; ours has the template's
	}
	var entra entratest.Options
	if slow {
		entra.Latency = entraLatency
		options.Secrets = secretstoretest.Options{Latency: awsLatency, Quotas: secretstoretest.AWSQuotas}
	}
	r.entra = entratest.New(entra)
	r.entra.AddApp(entratest.App{ClientID: clientID, Secrets: []entratest.Secret{{Value: clientSecret}}})
	server := httptest.NewUnstartedServer(r.entra)      // not the stack's own: msal insists on TLS
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // functions cut connections when they end
	server.StartTLS()
	defer server.Close()
	defer server.CloseClientConnections()
	ca := filepath.Join(b.dir, "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		return err
	}
	// SSL_CERT_FILE is for Go, the rest for Python. Lambda's file system is read-only for bytecode.
	r.env = []string{"SSL_CERT_FILE=" + ca, "REQUESTS_CA_BUNDLE=" + ca, "NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1",
		"PYTHON=" + b.python, "PYTHONDONTWRITEBYTECODE=1"}
	options.Authority, options.Env = server.URL, r.env
	var err error
	if r.Stack, err = stack.Start(options); err != nil {
		return err
	}
	defer r.Close()
	r.env = append(r.env, "AZURE_AUTHORITY_HOST="+r.Authority, "AWS_ENDPOINT_URL_SECRETS_MANAGER="+r.SecretsEndpoint,
		"AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local", "AWS_EC2_METADATA_DISABLED=true")
	return use(r)
}

// tenant adds the i-th tenant to the stand-in Entra.
func (r *rig) tenant(i int) string {
	id := fmt.Sprintf("c0000000-0000-4000-8000-%012x", i)
	r.entra.AddTenant(entratest.Tenant{ID: id})
	r.entra.Consent(id, clientID, "User.Read.All")
	return id
}

// post is one POST /connections.
func (r *rig) post(body map[string]string) error {
	encoded, _ := json.Marshal(body) // cannot fail: only strings
	request := httptest.NewRequest("POST", "/connections", bytes.NewReader(encoded))
	request.Header.Set("Content-Type", "application/json")
	answer := httptest.NewRecorder()
	r.API().ServeHTTP(answer, request)
	if answer.Code != http.StatusCreated {
		return fmt.Errorf("POST /connections answered %d: %s", answer.Code, answer.Body)
	}
	return nil
}

// What tokens have left: soon is inside the refresh window but longer than any sweep takes; late is
// outside the window.
const (
	soon = 20 * time.Minute
	late = 55 * time.Minute
)

// seed makes n connections, each in a tenant of its own, with tokens that expire in this time. It
// provisions one and copies it. Seeding again changes when the tokens expire.
func (r *rig) seed(n int, left time.Duration) error {
	const prefix, first = "entra/connections/default/", "customer-000000"
	if _, exists := r.Secrets.Value(prefix + first); !exists {
		if err := r.post(map[string]string{
			"tenant_id": r.tenant(0), "connection": first, "client_id": clientID, "client_secret": clientSecret, "scope": scope,
		}); err != nil {
			return err
		}
	}
	provisioned, _ := r.Secrets.Look(prefix + first)
	var values map[string]string
	var state map[string]any
	if err := cmp.Or(json.Unmarshal([]byte(provisioned.Value), &values), json.Unmarshal([]byte(provisioned.Description), &state)); err != nil {
		return fmt.Errorf("reading the connection that was provisioned: %w", err)
	}
	expires := time.Now().Add(left).Truncate(time.Second).UTC()
	lifetime, _ := state["lifetime"].(float64)
	values["PAN_SEC_MICROSOFT_ENTRA_EXPIRES_AT"], state["expires_at"] = strconv.FormatInt(expires.Unix(), 10), expires
	state["refreshed_at"] = expires.Add(-time.Duration(lifetime) * time.Second)
	for i := range n {
		id, name := r.tenant(i), fmt.Sprintf("customer-%06d", i)
		values["PAN_SEC_MICROSOFT_ENTRA_TENANT_ID"], state["tenant_id"] = id, id
		value, _ := json.Marshal(values)
		r.Secrets.Edit(prefix+name, func(x *secretstoretest.Secret) {
			x.Version, x.Value, x.Tags = "", string(value), maps.Clone(provisioned.Tags)
			x.Tags["entra-connector:connection"], x.Tags["entra-connector:tenant"] = name, id
		})
		r.Secrets.Edit(prefix+name, func(x *secretstoretest.Secret) {
			state["version"] = x.Version // which the description is of
			description, _ := json.Marshal(state)
			x.Description = string(description)
		})
	}
	return nil
}

// answer is what the page needs of a refresh function's answer, ours or Python's.
type answer struct{ Checked, Refreshed int }

// sweep is what one sweep did.
type sweep struct {
	Connections int
	answer
	lambdahost.Report
	Calls, Lists, Throttled int         // of AWS; Calls includes the other two
	Pace                    plotter.XYs // refreshes a second in the five seconds until then
}

// Rate is refreshes a second.
func (s sweep) Rate() float64 { return float64(s.Refreshed) / s.Duration.Seconds() }

// CallsEach is AWS calls for each refresh.
func (s sweep) CallsEach() float64 { return float64(s.Calls) / float64(s.Refreshed) }

// CPUEach is milliseconds of processor time for each refresh, the start of the process included.
func (s sweep) CPUEach() float64 { return milliseconds(s.CPU) / float64(s.Refreshed) }

// MiB is the most memory that the function's process has used.
func (s sweep) MiB() float64 { return float64(s.MaxMemoryUsed) / (1 << 20) }

// calls counts the AWS calls: those that failed by their error, the others by their operation.
func (r *rig) calls() map[string]int {
	counts := map[string]int{}
	for _, call := range r.Secrets.Calls() {
		counts[cmp.Or(call.Error, call.Op)]++
	}
	return counts
}

// sweep seeds n connections, and runs the refresh function with the schedule's event.
func (b *bench) sweep(ctx context.Context, r *rig, what string, n int, left time.Duration) (sweep, error) {
	s := sweep{Connections: n}
	if err := r.seed(n, left); err != nil {
		return s, err
	}
	r.Secrets.ResetCalls()
	ended := make(chan error)
	var result lambdahost.Result
	go func() {
		var err error
		result, err = r.Sweep(ctx, []byte(`{"source":"aws.scheduler","detail-type":"Scheduled Event","detail":{}}`))
		ended <- err
	}()
	ticker := time.NewTicker(5 * time.Second) // long enough to even out the bursts that quotas allow
	defer ticker.Stop()
	for start, before, refreshed := time.Now(), 0.0, 0; ; {
		select {
		case <-ticker.C:
			at, calls := time.Since(start).Seconds(), r.calls()
			writes := calls["UpdateSecret"] + calls["PutSecretValue"]
			s.Pace = append(s.Pace, plotter.XY{X: at, Y: float64(writes-refreshed) / (at - before)})
			before, refreshed = at, writes
			if len(s.Pace)%4 == 0 {
				b.say("%s: listed %d pages, refreshed %d", what, calls["ListSecrets"], refreshed)
			}
		case err := <-ended:
			if err != nil {
				return s, err
			}
			if result.FunctionError != "" || json.Unmarshal(result.Payload, &s.answer) != nil {
				return s, fmt.Errorf("%s: the function failed: %s\n%s", what, result.Payload, r.log.Bytes())
			}
			s.Report = result.Report
			s.Calls, s.Lists, s.Throttled = len(r.Secrets.Calls()), r.Secrets.Count("ListSecrets"), r.calls()["ThrottlingException"]
			b.say("%s: checked %d, refreshed %d in %.1f s", what, s.Checked, s.Refreshed, s.Duration.Seconds())
			return s, nil
		}
	}
}
