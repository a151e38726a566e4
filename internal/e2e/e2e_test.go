// Package e2e holds the end-to-end test: one scenario, which TestSAM takes through the functions as
// SAM runs them in containers, with stand-ins around them, and TestLive through real Entra and real
// AWS. Both need more than Go, and are skipped without it. `make e2e` has it.
package e2e

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/smithy-go"

	"entra-connector/internal/connector"
	"entra-connector/internal/lambdahost"
	"entra-connector/internal/stack"
	"entra-connector/internal/stack/stacktest"
)

// deployment is a connector, on AWS or under `sam local`, and what it takes to test it.
type deployment struct {
	aws     aws.Config
	api     string       // URL, as the template's output ApiUrl
	lambda  string       // URL of Lambda's own API
	refresh string       // name of the refresh function there
	local   *stack.Stack // runs the refresh function instead, if set
	prefix  string       // of the secrets' names

	tenant, tenantID, clientID, scope, cloud, secret string

	// issued checks that Entra issued the token to the app in the tenant.
	issued func(token string) error

	out *stacktest.Output
}

// scenario provisions a connection of an app of its own, refreshes it, reads it as an integration
// does, and deletes both. What it leaves is removed for good at the end, whichever way that comes.
func scenario(t *testing.T, d deployment) {
	id := strings.ToLower(rand.Text())[:12]
	app, wrong := "e2e-"+id, "wrong-"+id
	route := "/connections/" + app + "/contoso"
	appSecret, secret := d.prefix+"/apps/"+app, d.prefix+route
	d.out.Guard(d.secret, wrong)
	t.Cleanup(func() {
		for _, name := range []string{appSecret, secret} { // if there is none, AWS does not mind
			if _, err := secretsmanager.NewFromConfig(d.aws).DeleteSecret(context.Background(), &secretsmanager.DeleteSecretInput{
				SecretId: &name, ForceDeleteWithoutRecovery: aws.Bool(true)}); err != nil {
				t.Errorf("%s is left behind: %v", name, err)
			}
		}
	})
	body := func(clientSecret string) string {
		return stacktest.Object("tenant_id", d.tenant, "app", app, "connection", "contoso",
			"client_id", d.clientID, "client_secret", clientSecret, "scope", d.scope, "cloud", d.cloud)
	}
	step := func(name string, f func(*testing.T)) {
		if !t.Run(name, f) {
			t.FailNow() // the steps that follow would only repeat it
		}
	}

	step("a wrong client secret is refused, and nothing is stored", func(t *testing.T) {
		var problem struct{ Code, Action string }
		d.call(t, http.StatusUnprocessableEntity, "POST", "/connections", body(wrong), &problem)
		if problem.Code != "AADSTS7000215" || problem.Action == "" {
			t.Errorf("the answer says %+v", problem)
		}
		d.missing(t, "ResourceNotFoundException", appSecret, secret)
		d.call(t, http.StatusNotFound, "GET", route, "", nil)
		d.call(t, http.StatusNotFound, "GET", "/apps/"+app, "", nil)
	})
	step("a connection is provisioned, and provisioned again", func(t *testing.T) {
		d.shows(t, http.StatusCreated, "POST", "/connections", body(d.secret), secret)
		d.shows(t, http.StatusOK, "POST", "/connections", body(d.secret), secret)
	})
	var first map[string]string
	step("it is listed, shown, and refreshed by hand", func(t *testing.T) {
		// AWS may list what is new up to five minutes late, though usually it is there at once.
		var list struct{ Connections []struct{ Connection string } }
		for end := time.Now().Add(6 * time.Minute); ; time.Sleep(10 * time.Second) {
			d.call(t, http.StatusOK, "GET", "/connections?app="+app, "", &list)
			if len(list.Connections) > 0 || time.Now().After(end) {
				break
			}
		}
		if got := fmt.Sprint(list.Connections); got != "[{contoso}]" {
			t.Errorf("the list has %s", got)
		}
		first = d.shows(t, http.StatusOK, "POST", route+"/refresh", "", secret)
	})
	step("a sweep refreshes it", func(t *testing.T) {
		report := d.sweep(t, fmt.Sprintf(`{"connections":["%s/contoso"],"force":true}`, app))
		if report.Refreshed != 1 || report.Failed != 0 {
			t.Errorf("it reports %+v", report)
		}
		second := d.shows(t, http.StatusOK, "GET", route, "", secret)
		if second[accessToken] == first[accessToken] || second[expiresAt] < first[expiresAt] {
			t.Error("the token is not newer than the one before")
		}
	})
	step("connection and app are deleted", func(t *testing.T) {
		d.call(t, http.StatusConflict, "DELETE", "/apps/"+app, "", nil)
		d.call(t, http.StatusNoContent, "DELETE", route, "", nil)
		d.call(t, http.StatusNotFound, "GET", route, "", nil)
		d.call(t, http.StatusNoContent, "DELETE", "/apps/"+app, "", nil)
		d.missing(t, "InvalidRequestException", appSecret, secret) // deletion is pending
	})
}

const (
	prefix      = "PAN_SEC_MICROSOFT_ENTRA_"
	accessToken = prefix + "ACCESS_TOKEN"
	expiresAt   = prefix + "EXPIRES_AT"
)

// shows expects the API to answer with a connection that is fine, and compares that with the six
// values that an integration reads, which it returns.
func (d deployment) shows(t *testing.T, status int, method, path, body, secret string) map[string]string {
	t.Helper()
	var c struct {
		TenantID      string `json:"tenant_id"`
		Status, Scope string
		ExpiresAt     time.Time `json:"expires_at"`
		Secret        struct{ Name string }
	}
	d.call(t, status, method, path, body, &c)
	if c.TenantID != d.tenantID || c.Status != "ok" || c.Scope != d.scope || c.Secret.Name != secret {
		t.Errorf("the API shows %+v", c)
	}
	six, refusal := d.read(t, secret)
	for name, want := range map[string]string{
		prefix + "TOKEN_TYPE": "Bearer", prefix + "TENANT_ID": d.tenantID, expiresAt: fmt.Sprint(c.ExpiresAt.Unix()),
	} {
		if six[name] != want {
			t.Errorf("%s is %q, want %q", name, six[name], want)
		}
	}
	for _, name := range []string{prefix + "EXPIRES_IN", prefix + "EXT_EXPIRES_IN"} {
		if seconds, err := time.ParseDuration(six[name] + "s"); err != nil || seconds < time.Minute || seconds > 7*24*time.Hour {
			t.Errorf("%s is %q, which is no lifetime", name, six[name])
		}
	}
	if err := d.issued(six[accessToken]); err != nil || len(six) != 6 {
		t.Errorf("the secret holds %d values; %s %v", len(six), refusal, err)
	}
	return six
}

// read reads a secret as an integration does. If AWS refuses that, it returns the error's code.
func (d deployment) read(t *testing.T, name string) (six map[string]string, refusal string) {
	t.Helper()
	secret, err := secretsmanager.NewFromConfig(d.aws).GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: &name})
	if refused, ok := errors.AsType[smithy.APIError](err); ok {
		return nil, refused.ErrorCode()
	}
	if err != nil || json.Unmarshal([]byte(*secret.SecretString), &six) != nil {
		t.Fatalf("reading %s: no JSON object of strings; %v", name, err)
	}
	d.out.Guard(six[accessToken])
	return six, ""
}

// missing checks that AWS refuses to read the secrets, for this reason.
func (d deployment) missing(t *testing.T, code string, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, refusal := d.read(t, name); refusal != code {
			t.Errorf("reading %s: %q, want %s", name, refusal, code)
		}
	}
}

// call asks the API, and stops the test unless it answers with this status.
func (d deployment) call(t *testing.T, want int, method, path, body string, into any) {
	t.Helper()
	status, _, answer := d.send(t, "execute-api", method, d.api+path, body)
	if status != want {
		t.Fatalf("%s %s answers %d, want %d", method, path, status, want)
	}
	if into != nil && json.Unmarshal(answer, into) != nil {
		t.Fatalf("%s %s does not answer JSON", method, path)
	}
}

// sweep invokes the refresh function.
func (d deployment) sweep(t *testing.T, event string) (report connector.SweepReport) {
	t.Helper()
	var result lambdahost.Result
	if d.local != nil {
		result, _ = d.local.Sweep(t.Context(), []byte(event))
		fmt.Fprintf(d.out, "sweep: %s\n", result.Payload)
	} else {
		_, header, answer := d.send(t, "lambda", "POST", d.lambda+"/2015-03-31/functions/"+d.refresh+"/invocations", event)
		result = lambdahost.Result{Payload: answer, FunctionError: header.Get("X-Amz-Function-Error")}
	}
	if err := json.Unmarshal(result.Payload, &report); err != nil || result.FunctionError != "" {
		t.Fatalf("the sweep fails: %s %v", result.FunctionError, err)
	}
	return report
}

// send signs a request for the AWS service, sends it and notes the answer.
func (d deployment) send(t *testing.T, service, method, url, body string) (int, http.Header, []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute) // above the refresh function's own
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	credentials, err := d.aws.Credentials.Retrieve(ctx)
	if err != nil {
		t.Fatal("no AWS credentials:", err)
	}
	hash := sha256.Sum256([]byte(body))
	if err := v4.NewSigner().SignHTTP(ctx, credentials, req, hex.EncodeToString(hash[:]), service, d.aws.Region, time.Now()); err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(d.out, "%s %s: %s %s\n", method, req.URL.Path, res.Status, answer)
	return res.StatusCode, res.Header, answer
}
