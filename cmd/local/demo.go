package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"entra-connector/internal/connector"
	"entra-connector/internal/stack"
	"entra-connector/pkg/entra/entratest"
)

// demonstration is one run of the demo. Every step shows what it does and checks what came of it.
type demonstration struct {
	*screen
	stack   *stack.Stack
	api     string
	secrets *secretsmanager.Client
}

// demo shows the connector at work, against the stand-ins whatever the environment says.
func demo(ctx context.Context, o options, stdout, stderr io.Writer) (err error) {
	var kept bytes.Buffer // the functions' log, for a failure
	var log io.Writer = &shared{out: &kept}
	if o.verbose {
		log = &shared{out: stderr}
	}
	s, err := stack.Start(stack.Options{Provision: o.provision, Refresh: o.refresh, Log: log})
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, s.Close())
		if err != nil && kept.Len() > 0 {
			fmt.Fprintf(stderr, "\nWhat the functions logged:\n%s\n", &kept)
		}
	}()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: s.API(), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }()
	defer func() { _ = server.Close() }()

	fill(s.Entra, s.STS)
	d := &demonstration{
		screen: &screen{out: stdout},
		stack:  s,
		api:    "http://" + listener.Addr().String(),
		secrets: secretsmanager.New(secretsmanager.Options{
			Region:       "us-east-1",
			BaseEndpoint: aws.String(s.SecretsEndpoint),
			Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
				return aws.Credentials{AccessKeyID: "demo", SecretAccessKey: "demo"}, nil
			}),
		}),
	}
	d.say(0, "Entra connector: the demo")
	fmt.Fprintln(stdout)
	d.say(0, "Both functions run as on Lambda, from the binaries that would be deployed. Entra and Secrets Manager are "+
		"stand-ins on this machine, for development only; tenants, apps and secrets are made up.")
	fmt.Fprintln(stdout)
	d.pairs(2, pair{"API", d.api}, pair{"Entra", s.Authority}, pair{"Secrets Manager", s.SecretsEndpoint})

	for _, step := range []func(context.Context) error{
		d.provision, d.read, d.refused, d.share, d.rotate, d.sweep, d.withdrawn, d.restored,
	} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("step %d of the demo did not go as it should: %w", d.steps, err)
		}
	}
	fmt.Fprintln(stdout)
	d.say(0, "That was the demo; everything went as it should. `make local` keeps the same stack running for you to try.")
	return nil
}

// provisioning is the body of POST /connections and, without its first three fields, of PUT /apps/{app}.
type provisioning struct {
	TenantID     string `json:"tenant_id,omitempty"`
	App          string `json:"app,omitempty"`
	Connection   string `json:"connection,omitempty"`
	ClientID     string `json:"client_id,omitempty"`
	ClientSecret string `json:"client_secret,omitempty"`
	Service      string `json:"service,omitempty"`
}

// connection is what the demo looks at of a connection.
type connection struct {
	TenantID    string    `json:"tenant_id"`
	Status      string    `json:"status"`
	ExpiresAt   time.Time `json:"expires_at"`
	NextAttempt string    `json:"next_attempt_at"`
	Secret      struct {
		Name string `json:"name"`
	} `json:"secret"`
	Error struct {
		Code   string `json:"code"`
		Title  string `json:"title"`
		Action string `json:"action"`
	} `json:"error"`
}

func (d *demonstration) provision(ctx context.Context) error {
	d.step("Provision a customer: prove the app's secret by getting a token with it, then store both")
	var c connection
	if err := d.call(ctx, http.StatusCreated, "POST", "/connections", provisioning{
		TenantID: contosoDomain, Connection: "contoso",
		ClientID: clientID, ClientSecret: clientSecret, Service: "microsoft-graph",
	}, &c); err != nil {
		return err
	}
	d.pairs(5, pair{"tenant_id", c.TenantID}, pair{"status", c.Status}, pair{"expires_at", c.ExpiresAt.Format(time.RFC3339)},
		pair{"secret.name", c.Secret.Name})
	return expect(
		equal("tenant_id", c.TenantID, contosoID), equal("status", c.Status, "ok"),
		equal("secret.name", c.Secret.Name, "entra/connections/default/contoso"),
		holds("expires_at lies ahead", c.ExpiresAt.After(time.Now())))
}

func (d *demonstration) read(ctx context.Context) error {
	d.step("Read what an integration reads: six values in one secret, here with the AWS SDK")
	d.say(3, "GetSecretValue entra/connections/default/contoso")
	values, err := d.values(ctx, "contoso")
	if err != nil {
		return err
	}
	const prefix = "PAN_SEC_MICROSOFT_ENTRA_"
	token := values[prefix+"ACCESS_TOKEN"]
	var pairs []pair
	for _, name := range slices.Sorted(maps.Keys(values)) {
		value := values[name]
		switch name {
		case prefix + "ACCESS_TOKEN":
			value = fmt.Sprintf("%.12s… (%d characters)", value, len(value))
		case prefix + "EXPIRES_AT":
			if at, err := strconv.ParseInt(value, 10, 64); err == nil {
				value += " (" + time.Unix(at, 0).UTC().Format(time.RFC3339) + ")"
			}
		}
		pairs = append(pairs, pair{name, value})
	}
	d.pairs(5, pairs...)
	return expect(
		equal("the number of values", len(values), 6),
		equal("the token type", values[prefix+"TOKEN_TYPE"], "Bearer"),
		equal("the tenant", values[prefix+"TENANT_ID"], contosoID),
		equal("the lifetime", values[prefix+"EXPIRES_IN"], "3599"),
		equal("the extended lifetime", values[prefix+"EXT_EXPIRES_IN"], "3599"),
		holds("the expiry is Unix time", len(values[prefix+"EXPIRES_AT"]) == 10),
		holds("the token is one that the stand-in Entra issued", slices.Contains(d.stack.Entra.Tokens(), token)))
}

func (d *demonstration) refused(ctx context.Context) error {
	d.step("Try an app whose secret has expired: nothing is stored, and the answer says what to do")
	before := d.stack.Secrets.Snapshot()
	var problem struct {
		Title, Detail, Code, Action string
	}
	if err := d.call(ctx, http.StatusUnprocessableEntity, "POST", "/connections", provisioning{
		TenantID: contosoDomain, App: "legacy",
		ClientID: expiredClientID, ClientSecret: expiredClientSecret, Service: "microsoft-graph",
	}, &problem); err != nil {
		return err
	}
	d.pairs(5, pair{"title", problem.Title}, pair{"detail", problem.Detail}, pair{"code", problem.Code}, pair{"action", problem.Action})
	return expect(
		equal("code", problem.Code, "AADSTS7000222"),
		holds("title, detail and action are there", problem.Title != "" && problem.Detail != "" && problem.Action != ""),
		holds("Secrets Manager holds what it held before", d.stack.Secrets.Snapshot() == before))
}

func (d *demonstration) share(ctx context.Context) error {
	d.step("Provision a second customer of the same app, which is already known")
	var c connection
	if err := d.call(ctx, http.StatusCreated, "POST", "/connections",
		provisioning{TenantID: fabrikamID, App: "default", Connection: "fabrikam"}, &c); err != nil {
		return err
	}
	d.pairs(5, pair{"status", c.Status}, pair{"secret.name", c.Secret.Name})
	return expect(equal("status", c.Status, "ok"), equal("secret.name", c.Secret.Name, "entra/connections/default/fabrikam"))
}

func (d *demonstration) rotate(ctx context.Context) error {
	d.step("Rotate the app's client secret: one call, proved in a customer's tenant before it is stored")
	if err := d.call(ctx, http.StatusOK, "PUT", "/apps/default",
		provisioning{ClientID: clientID, ClientSecret: nextSecret, Service: "microsoft-graph"}, nil); err != nil {
		return err
	}
	d.stack.Entra.SetSecrets(clientID, entratest.Secret{Value: nextSecret})
	d.say(3, "From here on, Entra no longer takes the old secret.")
	return nil
}

func (d *demonstration) sweep(ctx context.Context) error {
	d.step("Sweep, as the schedule does: every connection of the app gets a token with the new secret")
	before := map[string]string{}
	for _, name := range []string{"contoso", "fabrikam"} {
		values, err := d.values(ctx, name)
		if err != nil {
			return err
		}
		before[name] = values["PAN_SEC_MICROSOFT_ENTRA_ACCESS_TOKEN"]
	}
	report, err := d.invokeSweep(ctx, `{}`)
	if err != nil {
		return err
	}
	for name, old := range before {
		values, err := d.values(ctx, name)
		if err != nil {
			return err
		}
		if values["PAN_SEC_MICROSOFT_ENTRA_ACCESS_TOKEN"] == old {
			return fmt.Errorf("%s still has its old token", name)
		}
	}
	return expect(equal("checked", report.Checked, 2), equal("refreshed", report.Refreshed, 2), equal("failed", report.Failed, 0))
}

func (d *demonstration) withdrawn(ctx context.Context) error {
	d.step("Fabrikam's administrator disables the app there: its refresh fails, Contoso's does not")
	d.stack.Entra.Fail(entratest.Fault{Tenant: fabrikamID, Endpoint: "token", Response: entratest.Refused(7000112)})
	before, err := d.values(ctx, "fabrikam")
	if err != nil {
		return err
	}
	report, err := d.invokeSweep(ctx, `{"force":true}`)
	if err != nil {
		return err
	}
	fmt.Fprintln(d.out)
	var c connection
	if err := d.call(ctx, http.StatusOK, "GET", "/connections/default/fabrikam", nil, &c); err != nil {
		return err
	}
	d.pairs(5, pair{"status", c.Status}, pair{"error.code", c.Error.Code}, pair{"error.title", c.Error.Title},
		pair{"error.action", c.Error.Action}, pair{"next_attempt_at", c.NextAttempt})
	fmt.Fprintln(d.out)
	d.say(3, "Its secret still holds the token from before. Sweeps leave the connection alone until the next attempt:")
	fmt.Fprintln(d.out)
	after, err := d.values(ctx, "fabrikam")
	if err != nil {
		return err
	}
	scheduled, err := d.invokeSweep(ctx, `{}`)
	if err != nil {
		return err
	}
	failure := connector.SweepFailure{Connection: "default/fabrikam", Code: "AADSTS7000112", Status: connector.StatusRefused}
	return expect(
		equal("refreshed", report.Refreshed, 1), equal("failed", report.Failed, 1),
		holds("the failure is Fabrikam's", slices.Equal(report.Failures, []connector.SweepFailure{failure})),
		equal("status", c.Status, "refused"), equal("error.code", c.Error.Code, "AADSTS7000112"),
		holds("the error says what to do", c.Error.Action != ""),
		holds("the stored values are as they were", maps.Equal(before, after)),
		equal("waiting", scheduled.Waiting, 1), equal("due", scheduled.Due, 0))
}

func (d *demonstration) restored(ctx context.Context) error {
	d.step("The administrator enables it again, and the operator does not wait for the next attempt")
	d.stack.Entra.ClearFaults()
	var c connection
	if err := d.call(ctx, http.StatusOK, "POST", "/connections/default/fabrikam/refresh", nil, &c); err != nil {
		return err
	}
	d.pairs(5, pair{"status", c.Status}, pair{"expires_at", c.ExpiresAt.Format(time.RFC3339)})
	return expect(equal("status", c.Status, "ok"), equal("error.code", c.Error.Code, ""))
}

// call sends a request to the API, shows it, and decodes the answer if it has the status that is expected.
func (d *demonstration) call(ctx context.Context, want int, method, path string, body any, into any) error {
	d.say(3, method+" "+path)
	var sent io.Reader
	if p, ok := body.(provisioning); ok {
		encoded, err := json.Marshal(p)
		if err != nil {
			return err
		}
		sent = bytes.NewReader(encoded)
		hidden := ""
		if p.ClientSecret != "" {
			hidden = "(not shown)"
		}
		d.pairs(5, pair{"tenant_id", p.TenantID}, pair{"app", p.App}, pair{"connection", p.Connection},
			pair{"client_id", p.ClientID}, pair{"client_secret", hidden}, pair{"service", p.Service})
	}
	req, err := http.NewRequestWithContext(ctx, method, d.api+path, sent)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	d.say(3, "→ "+res.Status)
	if res.StatusCode != want {
		var problem struct{ Title, Detail, Message string }
		_ = json.Unmarshal(answer, &problem)
		return fmt.Errorf("%s %s answered %s, not %d: %s", method, path, res.Status, want,
			cmp.Or(problem.Detail, problem.Title, problem.Message, "no reason given"))
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return fmt.Errorf("%s %s answered something that is not the JSON it should be", method, path)
	}
	return nil
}

// invokeSweep runs the refresh function and shows its report.
func (d *demonstration) invokeSweep(ctx context.Context, event string) (connector.SweepReport, error) {
	d.say(3, "invoke the refresh function with "+event)
	report, err := sweep(ctx, d.stack, event)
	if err != nil {
		return report, err
	}
	d.say(3, "→ "+summary(report))
	return report, nil
}

// values reads a connection's secret as an integration would.
func (d *demonstration) values(ctx context.Context, connection string) (map[string]string, error) {
	secret, err := d.secrets.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{
		SecretId: aws.String("entra/connections/default/" + connection),
	})
	if err != nil {
		return nil, err
	}
	var values map[string]string
	if json.Unmarshal([]byte(aws.ToString(secret.SecretString)), &values) != nil {
		return nil, errors.New("the secret is not a JSON object of strings")
	}
	return values, nil
}

// expect returns what is not as it should be.
func expect(errs ...error) error { return errors.Join(errs...) }

func equal[T comparable](what string, got, want T) error {
	if got != want {
		return fmt.Errorf("%s is %v, not %v", what, got, want)
	}
	return nil
}

func holds(what string, ok bool) error {
	if !ok {
		return fmt.Errorf("it does not hold that %s", what)
	}
	return nil
}
