// Package e2e holds the end-to-end test: one scenario, which TestSAM takes through the functions as SAM runs them in
// containers, with stand-ins around them, and TestLive through a stack on AWS, with real Entra and real Secrets Manager.
// Both need more than Go, and are skipped without it; `make e2e` has it.
package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"entra-connector/internal/connector"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
)

// deployment is a connector, and what is needed to put it to the test. It is the same on AWS as under `sam local`, which
// takes signed requests too, though it does not look at the signature.
type deployment struct {
	aws     aws.Config
	api     string // URL, as the template's output ApiUrl
	lambda  string // URL of Lambda's own API
	refresh string // name of the refresh function
	prefix  string // of the secrets' names

	tenant, tenantID, clientID, scope, cloud string
	secret                                   string

	// issued checks that Entra issued the token to the app in the tenant.
	issued func(token string) error

	said *output
}

// output is all that came out of the connector, and the secrets that must not have.
type output struct {
	mu      sync.Mutex
	text    bytes.Buffer
	secrets []string
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

// guard adds secrets that o must not have come to hold.
func (o *output) guard(secrets ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.secrets = append(o.secrets, secrets...)
}

// take returns what came out since it was last called, and fails the test if there is a secret in it, which it removes.
func (o *output) take(t *testing.T) string {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	text := o.text.String()
	o.text.Reset()
	for _, secret := range o.secrets {
		if strings.Contains(text, secret) {
			t.Error("a client secret or an access token came out")
			text = strings.ReplaceAll(text, secret, "[a secret]")
		}
	}
	return "\n" + strings.TrimSpace(text)
}

// scenario provisions a connection of an app of its own, refreshes it, reads it as an integration does, and deletes both.
// What it leaves nobody needs: it is removed for good at the end, however that comes.
func scenario(t *testing.T, d deployment) {
	id := make([]byte, 6)
	rand.Read(id)
	app, connection := "e2e-"+hex.EncodeToString(id), "contoso"
	appSecret, connectionSecret := d.prefix+"/apps/"+app, d.prefix+"/connections/"+app+"/"+connection
	wrong := "wrong-" + hex.EncodeToString(id)
	d.said.guard(d.secret, wrong)
	t.Cleanup(func() { d.remove(t, appSecret, connectionSecret) })
	body := func(clientSecret string) map[string]string {
		return map[string]string{"tenant_id": d.tenant, "app": app, "connection": connection,
			"client_id": d.clientID, "client_secret": clientSecret, "scope": d.scope, "cloud": d.cloud}
	}
	step := func(name string, f func(*testing.T)) {
		if !t.Run(name, f) {
			t.FailNow() // the ones that follow would only repeat it
		}
	}

	step("a wrong client secret is refused, and nothing is stored", func(t *testing.T) {
		var problem struct{ Code, Action string }
		d.call(t, http.StatusUnprocessableEntity, "POST", "/connections", body(wrong), &problem)
		if problem.Code != "AADSTS7000215" || problem.Action == "" {
			t.Errorf("the answer says %+v", problem)
		}
		for _, name := range []string{appSecret, connectionSecret} {
			d.missing(t, name, "ResourceNotFoundException")
		}
		d.call(t, http.StatusNotFound, "GET", "/connections/"+app+"/"+connection, nil, nil)
		d.call(t, http.StatusNotFound, "GET", "/apps/"+app, nil, nil)
	})

	var first map[string]string
	step("a connection is provisioned", func(t *testing.T) {
		var c view
		d.call(t, http.StatusCreated, "POST", "/connections", body(d.secret), &c)
		first = d.values(t, connectionSecret)
		d.check(t, c, connectionSecret, first)
	})
	step("once more changes nothing of what it is", func(t *testing.T) {
		var c view
		d.call(t, http.StatusOK, "POST", "/connections", body(d.secret), &c)
		d.check(t, c, connectionSecret, d.values(t, connectionSecret))
	})
	step("it is listed, shown, and refreshed by hand", func(t *testing.T) {
		if d.listed(t, app) != connection {
			t.Error("the list does not have it")
		}
		var c view
		d.call(t, http.StatusOK, "POST", "/connections/"+app+"/"+connection+"/refresh", nil, &c)
		first = d.values(t, connectionSecret)
		d.check(t, c, connectionSecret, first)
	})
	step("a sweep refreshes it", func(t *testing.T) {
		report := d.sweep(t, fmt.Sprintf(`{"connections":[%q],"force":true}`, app+"/"+connection))
		if report.Refreshed != 1 || report.Failed != 0 {
			t.Errorf("it reports %+v", report)
		}
		second := d.values(t, connectionSecret)
		if second[accessToken] == first[accessToken] || second[expiresAt] < first[expiresAt] {
			t.Error("the token is none that is newer than the one before")
		}
		var c view
		d.call(t, http.StatusOK, "GET", "/connections/"+app+"/"+connection, nil, &c)
		d.check(t, c, connectionSecret, second)
	})
	step("connection and app are deleted", func(t *testing.T) {
		d.call(t, http.StatusConflict, "DELETE", "/apps/"+app, nil, nil)
		d.call(t, http.StatusNoContent, "DELETE", "/connections/"+app+"/"+connection, nil, nil)
		d.call(t, http.StatusNotFound, "GET", "/connections/"+app+"/"+connection, nil, nil)
		d.call(t, http.StatusNoContent, "DELETE", "/apps/"+app, nil, nil)
		for _, name := range []string{appSecret, connectionSecret} {
			d.missing(t, name, "InvalidRequestException") // deletion is pending
		}
	})
}

// view is what the test looks at of a connection.
type view struct {
	TenantID  string    `json:"tenant_id"`
	Status    string    `json:"status"`
	Scope     string    `json:"scope"`
	ExpiresAt time.Time `json:"expires_at"`
	Secret    struct {
		Name string `json:"name"`
	} `json:"secret"`
}

const (
	accessToken = "PAN_SEC_MICROSOFT_ENTRA_ACCESS_TOKEN"
	expiresAt   = "PAN_SEC_MICROSOFT_ENTRA_EXPIRES_AT"
)

// check compares what the API says of a connection with the six values that an integration reads.
func (d deployment) check(t *testing.T, c view, secret string, six map[string]string) {
	t.Helper()
	const prefix = "PAN_SEC_MICROSOFT_ENTRA_"
	want := []string{"ACCESS_TOKEN", "EXPIRES_AT", "EXPIRES_IN", "EXT_EXPIRES_IN", "TENANT_ID", "TOKEN_TYPE"}
	for i := range want {
		want[i] = prefix + want[i]
	}
	if got := slices.Sorted(maps.Keys(six)); !slices.Equal(got, want) {
		t.Fatalf("the secret holds %v", got)
	}
	for _, same := range []struct{ what, got, want string }{
		{"status", c.Status, "ok"},
		{"scope", c.Scope, d.scope},
		{"tenant", c.TenantID, d.tenantID},
		{"name of the secret", c.Secret.Name, secret},
		{prefix + "TOKEN_TYPE", six[prefix+"TOKEN_TYPE"], "Bearer"},
		{prefix + "TENANT_ID", six[prefix+"TENANT_ID"], d.tenantID},
		{expiresAt, six[expiresAt], fmt.Sprint(c.ExpiresAt.Unix())},
	} {
		if same.got != same.want {
			t.Errorf("%s is %q, want %q", same.what, same.got, same.want)
		}
	}
	for _, name := range []string{prefix + "EXPIRES_IN", prefix + "EXT_EXPIRES_IN"} {
		if seconds, err := time.ParseDuration(six[name] + "s"); err != nil || seconds < time.Minute || seconds > 7*24*time.Hour {
			t.Errorf("%s is %q, which is no lifetime", name, six[name])
		}
	}
	if err := d.issued(six[accessToken]); err != nil {
		t.Error(err)
	}
}

// listed returns the names of the app's connections. AWS may list what is new up to five minutes late; it usually is there
// at once.
func (d deployment) listed(t *testing.T, app string) string {
	t.Helper()
	for end := time.Now().Add(6 * time.Minute); ; time.Sleep(10 * time.Second) {
		var list struct{ Connections []struct{ Connection string } }
		d.call(t, http.StatusOK, "GET", "/connections?app="+app, nil, &list)
		if len(list.Connections) > 0 || time.Now().After(end) {
			var names []string
			for _, c := range list.Connections {
				names = append(names, c.Connection)
			}
			return strings.Join(names, " ")
		}
	}
}

// reader is an integration in Python.
const reader = `
import boto3, botocore.exceptions, sys
try:
    print(boto3.client("secretsmanager").get_secret_value(SecretId=sys.argv[1])["SecretString"])
except botocore.exceptions.ClientError as error:
    sys.exit(error.response["Error"]["Code"])
`

// read runs reader.
func (d deployment) read(t *testing.T, name string) ([]byte, error) {
	cmd := exec.CommandContext(t.Context(), "python3", "-c", reader, name)
	cmd.Env = append(os.Environ(), "AWS_DEFAULT_REGION="+d.aws.Region)
	return cmd.Output()
}

// values reads a secret as an integration does.
func (d deployment) values(t *testing.T, name string) map[string]string {
	t.Helper()
	out, err := d.read(t, name)
	if err != nil {
		t.Fatalf("reading %s with boto3: %s", name, stderr(err))
	}
	var six map[string]string
	if json.Unmarshal(out, &six) != nil {
		t.Fatalf("%s is not a JSON object of strings", name)
	}
	d.said.guard(six[accessToken])
	return six
}

// missing checks that AWS refuses to read a secret, for this reason.
func (d deployment) missing(t *testing.T, name, code string) {
	t.Helper()
	if _, err := d.read(t, name); err == nil {
		t.Errorf("%s can be read", name)
	} else if got := stderr(err); got != code {
		t.Errorf("%s: %s, want %s", name, got, code)
	}
}

func stderr(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return strings.TrimSpace(string(exit.Stderr))
	}
	return fmt.Sprint(err)
}

// call asks the API, and stops the test unless it answers with this status.
func (d deployment) call(t *testing.T, want int, method, path string, body any, into any) {
	t.Helper()
	var sent []byte
	if body != nil {
		sent, _ = json.Marshal(body)
	}
	status, _, answer := d.send(t, "execute-api", method, d.api+path, sent)
	if status != want {
		t.Fatalf("%s %s answers %d, want %d", method, path, status, want)
	}
	if into != nil && json.Unmarshal(answer, into) != nil {
		t.Fatalf("%s %s does not answer JSON", method, path)
	}
}

// sweep invokes the refresh function.
func (d deployment) sweep(t *testing.T, event string) connector.SweepReport {
	t.Helper()
	status, header, answer := d.send(t, "lambda", "POST", d.lambda+"/2015-03-31/functions/"+d.refresh+"/invocations", []byte(event))
	var report connector.SweepReport
	if err := json.Unmarshal(answer, &report); err != nil || status != http.StatusOK || header.Get("X-Amz-Function-Error") != "" {
		t.Fatalf("the sweep answers %d %s", status, header.Get("X-Amz-Function-Error"))
	}
	return report
}

// send signs a request for the AWS service, sends it and notes the answer.
func (d deployment) send(t *testing.T, service, method, url string, body []byte) (int, http.Header, []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute) // above the refresh function's own
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	credentials, err := d.aws.Credentials.Retrieve(ctx)
	if err != nil {
		t.Fatal("no AWS credentials:", err)
	}
	hash := sha256.Sum256(body)
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
	fmt.Fprintf(d.said, "%s %s: %s %s\n", method, req.URL.Path, res.Status, answer)
	return res.StatusCode, res.Header, answer
}

// remove deletes secrets without a recovery window, if they are there.
func (d deployment) remove(t *testing.T, names ...string) {
	client := secretsmanager.NewFromConfig(d.aws)
	for _, name := range names {
		_, err := client.DeleteSecret(context.Background(), &secretsmanager.DeleteSecretInput{
			SecretId: &name, ForceDeleteWithoutRecovery: aws.Bool(true),
		})
		var missing *types.ResourceNotFoundException
		if err != nil && !errors.As(err, &missing) {
			t.Errorf("%s is left behind: %v", name, err)
		}
	}
}
