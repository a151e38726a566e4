package main

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"entra-connector/internal/stack"
	. "entra-connector/internal/stack/stacktest"
	"entra-connector/pkg/entra/entratest"
)

// newCertificate returns a certificate that is good for some days, and the PEM
// file that holds it with its key.
func newCertificate(t *testing.T, days int) (*x509.Certificate, string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "c4nary-subject"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Duration(days) * 24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	pem.Encode(&file, &pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	pem.Encode(&file, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	return certificate, file.String()
}

// with returns a JSON object of pairs and one member that is JSON itself.
func with(object, name, value string) string {
	return strings.TrimSuffix(object, "}") + `,"` + name + `":` + value + `}`
}

func quoted(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

func lastKind(c *Connector) string {
	requests := c.Entra.Requests()
	return requests[len(requests)-1].CredentialKind
}

// Every way to authenticate works end to end, and an app with connections on it
// goes from one to the next without a gap.
func TestEveryWayToAuthenticate(t *testing.T) {
	t.Parallel()
	c := Start(t, brief)
	certificate, file := newCertificate(t, 365)
	_, unknown := newCertificate(t, 365)
	federated := entratest.Federated{Issuer: c.STS.Issuer(), Subject: c.STS.Subject(), Audience: "api://AzureADTokenExchange", Key: c.STS.Key()}
	c.Entra.AddApp(entratest.App{ClientID: ClientID, Secrets: []entratest.Secret{{Value: Secret}}, Certificates: []*x509.Certificate{certificate}, Federated: []entratest.Federated{federated}})
	app := Object("client_id", ClientID, "scope", Graph)
	kinds := []struct{ kind, seen, app string }{
		{"client_secret", "secret", with(app, "client_secret", quoted(Secret))},
		{"certificate", "certificate", with(app, "certificate", quoted(file))},
		{"federation", "federated", with(app, "federation", `{"audience":"api://AzureADTokenExchange"}`)},
	}
	// From each to each, with the wrong material of that kind before it.
	wrong := map[string]string{
		"client_secret": with(app, "client_secret", quoted(Wrong)),
		"certificate":   with(app, "certificate", quoted(unknown)),
		"federation":    with(app, "federation", `{"audience":"api://wrong"}`),
	}
	for _, from := range kinds {
		name := strings.ReplaceAll(from.kind, "_", "-")
		request := strings.Replace(from.app, "{", `{"tenant_id":"`+TenantA+`","connection":"one","app":"`+name+`",`, 1)
		c.Call("POST", "/connections", request).Want(t, 201)
		if got := lastKind(c); got != from.seen {
			t.Errorf("provisioned with a %s, want %s", got, from.seen)
		}
		for _, to := range kinds {
			before := c.Secrets.Snapshot()
			refused := c.Call("PUT", "/apps/"+name, wrong[to.kind]).Want(t, 422).JSON(t)
			if c.Secrets.Snapshot() != before || Text(refused, "action") == "" {
				t.Errorf("%s to wrong %s: %v", from.kind, to.kind, refused)
			}
			c.Call("PUT", "/apps/"+name, from.app).Want(t, 200)
			c.Invoke(c.Refresh, `{}`)
			c.Call("PUT", "/apps/"+name, to.app).Want(t, 200)
			result := c.Invoke(c.Refresh, `{"connections":["`+name+`/one"]}`)
			want := `"checked":1,"due":1,"refreshed":1`
			if from == to {
				want = `"checked":1,"due":0` // nothing to rotate to
			}
			if !strings.Contains(string(result.Payload), want) || lastKind(c) != to.seen {
				t.Errorf("%s to %s: the sweep answers %s with a %s", from.kind, to.kind, result.Payload, lastKind(c))
			}
		}
	}
	if n := c.STS.Count(); n > 4 { // two functions, two audiences, each kept while it is good
		t.Errorf("STS was asked %d times", n)
	}

	shown := c.Call("GET", "/apps/federation", "").Want(t, 200).JSON(t)
	f, _ := shown["federation"].(map[string]any)
	if shown["credential"] != "federation" || f["issuer"] != c.STS.Issuer() || f["subject"] != c.STS.Subject() || f["audience"] != "api://AzureADTokenExchange" {
		t.Errorf("the federated app is shown as %v", shown)
	}
	c.Call("PUT", "/apps/certificate", kinds[1].app).Want(t, 200)
	shown = c.Call("GET", "/apps/certificate", "").Want(t, 200).JSON(t)
	if got := shown["certificate"]; Text(got, "not_after") != certificate.NotAfter.UTC().Format(time.RFC3339) || Text(got, "thumbprint") == "" {
		t.Errorf("the app with a certificate is shown as %v", shown)
	}
	for _, private := range []string{"PRIVATE KEY", file[40:80], "c4nary-subject"} {
		if strings.Contains(c.Output(), private) {
			t.Errorf("%q is in a log line or a reply", private)
		}
	}
}

// Without a connection there is nothing to prove, so the app can be stored and
// tells what to enter in Entra before Entra knows of it.
func TestFederationFromNothing(t *testing.T) {
	t.Parallel()
	c := Start(t, brief)
	federation := with(Object("client_id", ClientID, "scope", Graph), "federation", "{}")
	refused := c.Call("POST", "/connections", strings.Replace(federation, "{", `{"tenant_id":"`+TenantA+`",`, 1)).Want(t, 422).JSON(t)
	if action := fmt.Sprint(refused["action"]); !strings.Contains(action, c.STS.Issuer()) || !strings.Contains(action, c.STS.Subject()) {
		t.Errorf("the refusal says %q", action)
	}
	c.STS.Fail("OutboundWebIdentityFederationDisabledException", 403)
	other := strings.Replace(federation, "{}", `{"audience":"api://other"}`, 1)
	if got := c.Call("PUT", "/apps/default", other).Want(t, 422).JSON(t); got["code"] != "federation_disabled" || !strings.Contains(fmt.Sprint(got["action"]), "IAM") {
		t.Errorf("with federation off for the account: %v", got)
	}
	c.STS.Fail("AccessDenied", 403)
	if got := c.Call("PUT", "/apps/default", strings.Replace(other, "other", "third", 1)).Want(t, 422).JSON(t); got["code"] != "federation_denied" {
		t.Errorf("without the permission: %v", got)
	}
	c.STS.Fail("", 0)
	c.Call("PUT", "/apps/default", federation).Want(t, 201)
	if got := c.Call("GET", "/apps/default", "").Want(t, 200); !strings.Contains(got.Body, c.STS.Subject()) {
		t.Errorf("the app is shown as %s", got.Body)
	}
}

func TestCredentialFieldsOfTheAPI(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	_, file := newCertificate(t, 365)
	_, old := newCertificate(t, -1)
	app := Object("client_id", ClientID, "scope", Graph)
	for name, tt := range map[string]struct{ body, fields string }{
		"secret and certificate":    {with(with(app, "client_secret", quoted(Secret)), "certificate", quoted(file)), "client_secret"},
		"expired certificate":       {with(app, "certificate", quoted(old)), "certificate"},
		"no PEM":                    {with(app, "certificate", `"x"`), "certificate"},
		"federation as text":        {with(app, "federation", `"x"`), "federation"},
		"federation as null":        {with(app, "federation", `null`), "federation"},
		"federation with a number":  {with(app, "federation", `{"audience":1}`), "federation.audience"},
		"federation with more":      {with(app, "federation", `{"issuer":"x"}`), "federation.issuer"},
		"audience twice":            {with(app, "federation", `{"audience":"a","audience":"b"}`), "federation.audience"},
		"expiry gone by":            {with(with(app, "client_secret", quoted(Secret)), "client_secret_expires_at", `"2020-01-01"`), "client_secret_expires_at"},
		"expiry of nothing":         {with(app, "client_secret_expires_at", quoted(time.Now().AddDate(0, 1, 0).Format(time.DateOnly))), "client_secret client_secret_expires_at"},
		"no credential":             {app, "client_secret"},
		"service that is not there": {Object("client_id", ClientID, "client_secret", Secret, "service", "azure-sql", "cloud", "bleu"), "service"},
	} {
		var got []string
		for _, e := range c.Call("PUT", "/apps/default", tt.body).Want(t, 400).JSON(t)["errors"].([]any) {
			got = append(got, fmt.Sprint(e.(map[string]any)["field"]))
		}
		if strings.Join(got, " ") != tt.fields {
			t.Errorf("%s: names %q, want %q", name, got, tt.fields)
		}
	}
}

// What is close to its end shows wherever somebody may look.
func TestExpiryShows(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	at := time.Now().Add(6 * 24 * time.Hour).UTC().Truncate(time.Second).Format(time.RFC3339)
	c.Call("POST", "/connections", with(Body(), "client_secret_expires_at", quoted(at))).Want(t, 201)
	certificate, file := newCertificate(t, 20)
	c.Entra.AddApp(entratest.App{ClientID: OtherID, Certificates: []*x509.Certificate{certificate}})
	c.Call("POST", "/connections", with(Object("tenant_id", TenantA, "app", "other", "client_id", OtherID, "scope", Graph), "certificate", quoted(file))).Want(t, 201)
	c.Call("PUT", "/apps/unknown", AppBody()).Want(t, 201)

	var shown []string
	for _, app := range c.Call("GET", "/apps", "").Want(t, 200).JSON(t)["apps"].([]any) {
		a := app.(map[string]any)
		shown = append(shown, fmt.Sprint(a["app"], " ", a["expires_at"], " ", a["expires_within_days"]))
	}
	want := fmt.Sprintf("[default %s 7 other %s 30 unknown <nil> <nil>]", at, certificate.NotAfter.UTC().Format(time.RFC3339))
	if fmt.Sprint(shown) != want {
		t.Errorf("apps\n got %v\nwant %s", shown, want)
	}
	var report struct {
		Expiring []struct{ App, Credential string }
	}
	result := c.Invoke(c.Refresh, `{}`)
	if err := json.Unmarshal(result.Payload, &report); err != nil || fmt.Sprint(report.Expiring) != "[{default client_secret} {other certificate}]" {
		t.Errorf("the sweep answers %s", result.Payload)
	}
	if !strings.Contains(c.Output(), `"level":"WARN","message":"credential expires","app":"default"`) {
		t.Error("no line at WARN")
	}
}

func TestWarningsAndConsentShow(t *testing.T) {
	t.Parallel()
	c := Start(t, brief)
	c.Entra.Consent(TenantB, ClientID)
	created := c.Call("POST", "/connections", Body("tenant_id", TenantB, "connection", "b")).Want(t, 201).JSON(t)
	warnings, _ := created["warnings"].([]any)
	if len(warnings) != 1 || warnings[0].(map[string]any)["code"] != "no_roles" || !strings.Contains(fmt.Sprint(warnings), "application permission") || created["status"] != "ok" {
		t.Errorf("a token without permissions: %v", created)
	}
	if list := c.Call("GET", "/connections", "").Want(t, 200); !strings.Contains(list.Body, "no_roles") {
		t.Errorf("the list says %s", list.Body)
	}
	c.Entra.Revoke(TenantA, ClientID)
	refused := c.Call("POST", "/connections", Body()).Want(t, 422).JSON(t)
	if want := c.Entra.URL() + "/" + TenantA + "/adminconsent?client_id=" + ClientID; refused["consent_url"] != want {
		t.Errorf("consent at %v, want %s", refused["consent_url"], want)
	}
}
