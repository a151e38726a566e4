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
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"entra-connector/internal/stack"
	"entra-connector/pkg/entra/entratest"
)

// demonstration is one run of the demo. Each of its methods shows what it does and checks what
// comes of it. After the first thing that goes wrong, nothing more is done or shown.
type demonstration struct {
	screen
	ctx     context.Context
	cancel  context.CancelFunc
	stack   *stack.Stack
	api     string
	secrets *secretsmanager.Client
	err     error // that first thing
}

// demo shows the connector at work, with the stand-ins whatever the environment says.
func demo(ctx context.Context, o options, stdout, stderr io.Writer) (err error) {
	var kept bytes.Buffer // what the functions log, for a failure
	log := io.Writer(&kept)
	if o.verbose {
		log = stderr
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
	fill(s.Entra, s.STS, "")
	api := httptest.NewServer(s.API())
	defer api.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d := &demonstration{screen: screen{out: stdout}, ctx: ctx, cancel: cancel, stack: s, api: api.URL,
		secrets: secretsmanager.New(secretsmanager.Options{
			Region:       "us-east-1",
			BaseEndpoint: aws.String(s.SecretsEndpoint),
			Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
				return aws.Credentials{AccessKeyID: "demo", SecretAccessKey: "demo"}, nil
			}),
		})}
	fmt.Fprint(stdout, "Entra connector: the demo\n\n")
	d.say(0, "Both functions run as on Lambda, from the binaries that would be deployed. Entra and Secrets Manager are "+
		"stand-ins on this machine, for development only; tenants, apps and secrets are made up.")
	fmt.Fprintln(stdout)
	d.pairs(2, pair{"API", d.api}, pair{"Entra", s.Authority}, pair{"Secrets Manager", s.SecretsEndpoint})
	d.run()
	fmt.Fprintln(d.out)
	d.say(0, "That was the demo; everything went as it should. `make local` keeps the same stack running for you to try.")
	return d.err
}

func (d *demonstration) run() {
	d.step("Provision a customer: prove the app's secret by getting a token with it, then store both")
	d.call(http.StatusCreated, "POST", "/connections",
		[]pair{{"tenant_id", contosoDomain}, {"connection", "contoso"},
			{"client_id", clientID}, {"client_secret", clientSecret}, {"service", "microsoft-graph"}},
		pair{"tenant_id", contosoID}, pair{"status", "ok"}, pair{"expires_at", ""}, pair{"secret.name", "entra/connections/default/contoso"})

	d.step("Read what an integration reads: six values in one secret, here with the AWS SDK")
	d.say(2, "GetSecretValue entra/connections/default/contoso")
	d.read(d.values("contoso"))

	d.step("Try an app whose secret has expired: nothing is stored, and the answer says what to do")
	before := d.stack.Secrets.Snapshot()
	d.call(http.StatusUnprocessableEntity, "POST", "/connections",
		[]pair{{"tenant_id", contosoDomain}, {"app", "legacy"},
			{"client_id", expiredClientID}, {"client_secret", expiredClientSecret}, {"service", "microsoft-graph"}},
		pair{"title", ""}, pair{"detail", ""}, pair{"code", "AADSTS7000222"}, pair{"action", ""})
	d.check("what Secrets Manager holds has not changed", d.stack.Secrets.Snapshot() == before)

	d.step("Provision a second customer of the same app, which is already known")
	d.call(http.StatusCreated, "POST", "/connections",
		[]pair{{"tenant_id", fabrikamID}, {"app", "default"}, {"connection", "fabrikam"}},
		pair{"status", "ok"}, pair{"secret.name", "entra/connections/default/fabrikam"})

	d.step("Rotate the app's client secret: one call, proved in a customer's tenant before it is stored")
	d.call(http.StatusOK, "PUT", "/apps/default",
		[]pair{{"client_id", clientID}, {"client_secret", nextSecret}, {"service", "microsoft-graph"}})
	d.stack.Entra.SetSecrets(clientID, entratest.Secret{Value: nextSecret})
	d.say(2, "From here on, Entra no longer takes the old secret.")

	d.step("Sweep, as the schedule does: every connection of the app gets a token with the new secret")
	contoso, fabrikam := d.values("contoso"), d.values("fabrikam")
	d.sweep(`{}`, "checked 2, due 2, refreshed 2, failed 0, waiting 0, deferred 0")
	d.check("Contoso has a new token", contoso[accessToken] != d.values("contoso")[accessToken])
	d.check("Fabrikam has a new token", fabrikam[accessToken] != d.values("fabrikam")[accessToken])

	d.step("Fabrikam's administrator disables the app there: its refresh fails, Contoso's does not")
	d.stack.Entra.Fail(entratest.Fault{Tenant: fabrikamID, Endpoint: "token", Response: entratest.Refused(7000112)})
	fabrikam = d.values("fabrikam")
	d.sweep(`{"force":true}`, "checked 2, due 2, refreshed 1, failed 1, waiting 0, deferred 0; default/fabrikam AADSTS7000112 refused")
	fmt.Fprintln(d.out)
	d.call(http.StatusOK, "GET", "/connections/default/fabrikam", nil, pair{"status", "refused"}, pair{"error.code", "AADSTS7000112"},
		pair{"error.title", ""}, pair{"error.action", ""}, pair{"next_attempt_at", ""})
	fmt.Fprintln(d.out)
	d.say(2, "Its secret still holds the token from before. Sweeps leave the connection alone until the next attempt:")
	d.check("Fabrikam's values have not changed", maps.Equal(fabrikam, d.values("fabrikam")))
	fmt.Fprintln(d.out)
	d.sweep(`{}`, "checked 2, due 0, refreshed 0, failed 0, waiting 1, deferred 0")

	d.step("The administrator enables it again, and the operator does not wait for the next attempt")
	d.stack.Entra.ClearFaults()
	d.call(http.StatusOK, "POST", "/connections/default/fabrikam/refresh", nil, pair{"status", "ok"}, pair{"expires_at", ""})
}

func (d *demonstration) fail(err error) {
	if d.err == nil {
		d.err = fmt.Errorf("step %d of the demo did not go as it should: %w", d.steps, err)
		d.out = io.Discard
		d.cancel()
	}
}

func (d *demonstration) check(what string, ok bool) {
	if !ok {
		d.fail(fmt.Errorf("it is not true that %s", what))
	}
}

// call sends a request to the API and shows fields of the answer, by their paths in it. Each has to
// be there, with its value if that is given.
func (d *demonstration) call(status int, method, path string, body []pair, want ...pair) {
	d.say(2, method+" "+path)
	sent := map[string]string{}
	for i, p := range body {
		sent[p.name] = p.value
		if p.name == "client_secret" {
			body[i].value = "(not shown)"
		}
	}
	d.pairs(4, body...)
	var encoded []byte
	if body != nil {
		encoded, _ = json.Marshal(sent)
	}
	req, _ := http.NewRequestWithContext(d.ctx, method, d.api+path, bytes.NewReader(encoded))
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		d.fail(err)
		return
	}
	defer res.Body.Close()
	var answer map[string]any
	_ = json.NewDecoder(res.Body).Decode(&answer) // if this fails, there is nothing in it
	d.say(2, "→ "+res.Status)
	if res.StatusCode != status {
		d.fail(fmt.Errorf("%s %s answered %s, not %d: %s", method, path, res.Status, status,
			cmp.Or(text(answer, "detail"), text(answer, "title"), text(answer, "message"), "no reason given")))
	}
	for i, p := range want {
		want[i].value = text(answer, p.name)
		d.check(p.name+" is "+cmp.Or(p.value, "there"), want[i].value == p.value || p.value == "" && want[i].value != "")
	}
	d.pairs(4, want...)
}

// text is the string at a path such as "secret.name", "" if there is none.
func text(v any, path string) string {
	for name := range strings.SplitSeq(path, ".") {
		object, _ := v.(map[string]any)
		v = object[name]
	}
	s, _ := v.(string)
	return s
}

// sweep runs the refresh function. Its summary has to be the one that is wanted.
func (d *demonstration) sweep(event, want string) {
	d.say(2, "invoke the refresh function with "+event)
	got, err := sweep(d.ctx, d.stack, event)
	if err != nil {
		d.fail(err)
	}
	d.say(2, "→ "+got)
	d.check("the sweep says "+want, got == want)
}

const (
	prefix      = "PAN_SEC_MICROSOFT_ENTRA_"
	accessToken = prefix + "ACCESS_TOKEN"
	expiresAt   = prefix + "EXPIRES_AT"
)

// values reads a connection's secret as an integration does.
func (d *demonstration) values(connection string) (values map[string]string) {
	secret, err := d.secrets.GetSecretValue(d.ctx, &secretsmanager.GetSecretValueInput{
		SecretId: aws.String("entra/connections/default/" + connection),
	})
	if err != nil {
		d.fail(err)
	} else if json.Unmarshal([]byte(*secret.SecretString), &values) != nil {
		d.fail(errors.New("the secret is not a JSON object of strings"))
	}
	return values
}

// read shows the six values.
func (d *demonstration) read(values map[string]string) {
	token := values[accessToken]
	at, err := strconv.ParseInt(values[expiresAt], 10, 64)
	expiry := time.Unix(at, 0).UTC()
	shown := maps.Collect(maps.All(values))
	shown[accessToken] = fmt.Sprintf("%.12s… (%d characters)", token, len(token))
	shown[expiresAt] += " (" + expiry.Format(time.RFC3339) + ")"
	var pairs []pair
	for _, name := range slices.Sorted(maps.Keys(shown)) {
		pairs = append(pairs, pair{name, shown[name]})
	}
	d.pairs(4, pairs...)
	d.check("there are six values", len(values) == 6)
	d.check("the token is one that the stand-in Entra issued", slices.Contains(d.stack.Entra.Tokens(), token))
	d.check("the expiry is Unix time that lies ahead", err == nil && len(values[expiresAt]) == 10 && expiry.After(time.Now()))
	for name, want := range map[string]string{"TOKEN_TYPE": "Bearer", "TENANT_ID": contosoID, "EXPIRES_IN": "3599", "EXT_EXPIRES_IN": "3599"} {
		d.check(name+" is "+want, values[prefix+name] == want)
	}
}
