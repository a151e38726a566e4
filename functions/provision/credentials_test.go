package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
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

func newKey(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// certify returns a certificate of a key, which is good between two days counted from now. It has
// the subject alternative names, in DER, if there are any.
func certify(t *testing.T, key crypto.Signer, from, to int, names ...byte) *x509.Certificate {
	t.Helper()
	day := func(n int) time.Time { return time.Now().UTC().AddDate(0, 0, n).Truncate(time.Second) }
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "c4nary-subject"}, NotBefore: day(from), NotAfter: day(to)}
	if len(names) > 0 {
		template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: names}}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	// It is not parsed, since Go refuses some certificates that Entra takes.
	return &x509.Certificate{Raw: der, PublicKey: key.Public(), NotBefore: template.NotBefore, NotAfter: template.NotAfter}
}

// file returns a PEM file of keys, certificates, blocks and text.
func file(t *testing.T, parts ...any) string {
	t.Helper()
	var b bytes.Buffer
	for _, part := range parts {
		switch part := part.(type) {
		case *x509.Certificate:
			pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: part.Raw})
		case crypto.Signer:
			der, err := x509.MarshalPKCS8PrivateKey(part)
			if err != nil {
				t.Fatal(err)
			}
			pem.Encode(&b, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
		case *pem.Block:
			pem.Encode(&b, part)
		case string:
			b.WriteString(part)
		}
	}
	return b.String()
}

// newCertificate returns a certificate that is good for some days, and a file with it and its key.
func newCertificate(t *testing.T, days int) (*x509.Certificate, string) {
	t.Helper()
	key := newKey(t, 2048)
	certificate := certify(t, key, -2, days)
	return certificate, file(t, key, certificate)
}

// with adds a member to a JSON object. The value is JSON.
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

// Every kind of credential works end to end, and an app with connections can change from any kind
// to any other.
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

// Tools write certificate files in many ways. The certificate that belongs to the key is used,
// wherever it stands. The answer to a file that cannot be used says why, and quotes nothing of it.
func TestCertificateFiles(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	key, caKey := newKey(t, 2048), newKey(t, 2048)
	leaf, old, later := certify(t, key, -2, 365), certify(t, key, -400, -1), certify(t, key, 30, 700)
	ca, root := certify(t, caKey, -2, 3650), certify(t, caKey, -900, 3650)
	odd := certify(t, key, -2, 365, append([]byte{0x30, 22, 0x86, 20}, "http://bad host/\xc3\xbc.."...)...)
	negative := *leaf
	negative.Raw = bytes.Replace(leaf.Raw, []byte{2, 1, 1}, []byte{2, 1, 0xff}, 1)
	for _, certificate := range []*x509.Certificate{odd, &negative} {
		if _, err := x509.ParseCertificate(certificate.Raw); err == nil {
			t.Fatal("Go takes the certificate, so nothing is shown")
		}
	}
	block := func(kind string, der []byte) *pem.Block { return &pem.Block{Type: kind, Bytes: der} }
	pkcs1 := x509.MarshalPKCS1PrivateKey(key)
	pss, err := asn1.Marshal(struct {
		Version   int
		Algorithm struct{ ID asn1.ObjectIdentifier }
		Key       []byte
	}{0, struct{ ID asn1.ObjectIdentifier }{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}}, pkcs1})
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	whole := file(t, key, leaf)

	for name, tt := range map[string]struct {
		file string
		uses *x509.Certificate // nil where it is refused
		says string
	}{
		"key, certificate":                     {file: whole, uses: leaf},
		"key, intermediate, certificate":       {file: file(t, key, ca, leaf), uses: leaf},
		"key, root, intermediate, certificate": {file: file(t, key, root, ca, leaf), uses: leaf},
		"chain, certificate, key":              {file: file(t, ca, root, leaf, key), uses: leaf},
		"renewed, the old one first":           {file: file(t, key, old, leaf), uses: leaf},
		"renewed, the old one last":            {file: file(t, leaf, old, key), uses: leaf},
		"renewed for later":                    {file: file(t, key, later, leaf), uses: leaf},
		"negative serial number":               {file: file(t, key, &negative), uses: &negative},
		"odd alternative name":                 {file: file(t, key, odd), uses: odd},
		"chain that nobody can read":           {file: file(t, key, leaf, block("CERTIFICATE", []byte("x"))), uses: leaf},
		"PKCS #1 under the other label":        {file: file(t, block("PRIVATE KEY", pkcs1), leaf), uses: leaf},
		"comments":                             {file: "# ours\n" + whole + "# renewed 2026-03-12 by ops\n", uses: leaf},
		"bag attributes":                       {file: "Bag Attributes\n    localKeyID: 01\n" + file(t, key) + "Bag Attributes: <None>\n" + file(t, leaf), uses: leaf},
		"byte order mark":                      {file: "\ufeff" + whole, uses: leaf},
		"CR LF":                                {file: strings.ReplaceAll(whole, "\n", "\r\n"), uses: leaf},

		"one line":                     {file: strings.TrimSpace(strings.ReplaceAll(whole, "\n", " ")), says: "line breaks"},
		"line breaks as \\n":           {file: strings.ReplaceAll(whole, "\n", `\n`), says: "line breaks"},
		"indented":                     {file: strings.TrimSpace(strings.ReplaceAll(whole, "\n", "\n  ")), says: "indented"},
		"RSASSA-PSS":                   {file: file(t, block("PRIVATE KEY", pss), leaf), says: "RSASSA-PSS"},
		"elliptic curve":               {file: file(t, curve, certify(t, curve, -2, 365)), says: "RSA key"},
		"elliptic curve, its settings": {file: file(t, block("EC PARAMETERS", []byte("x")), curve, leaf), says: "RSA key"},
		"of another key":               {file: file(t, key, ca), says: "does not belong"},
		"expired":                      {file: file(t, key, old), says: "expired at"},
		"not yet":                      {file: file(t, key, later), says: "not valid before"},
		"more than AWS stores":         {file: whole + strings.Repeat(file(t, ca), 58), says: "too large to store"},
	} {
		body := with(Object("client_id", ClientID, "tenant_id", TenantA, "connection", "c", "scope", Graph), "certificate", quoted(tt.file))
		if tt.uses == nil {
			r := c.Call("POST", "/connections", body).Want(t, 400)
			if !strings.Contains(r.Body, `"field":"certificate"`) || !strings.Contains(r.Body, tt.says) || strings.Contains(r.Body, "MII") {
				t.Errorf("%s: %s", name, r.Body)
			}
			continue
		}
		c.Entra.AddApp(entratest.App{ClientID: ClientID, Certificates: []*x509.Certificate{tt.uses}})
		if r := c.Call("POST", "/connections", body); r.Status/100 != 2 {
			t.Errorf("%s: %d %s", name, r.Status, r.Body)
			continue
		}
		thumbprint := sha256.Sum256(tt.uses.Raw)
		app := c.Call("GET", "/apps/default", "").Want(t, 200).JSON(t)
		if got, want := Text(app["certificate"], "thumbprint"), base64.RawURLEncoding.EncodeToString(thumbprint[:]); got != want {
			t.Errorf("%s: thumbprint %s, want %s", name, got, want)
		}
		c.Call("POST", "/connections/default/c/refresh", "").Want(t, 200) // from what is stored
	}
}

// An app without connections needs no proof. So a federated app can be stored, and shows what to
// enter in Entra, before Entra knows of it.
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
	app := Object("client_id", ClientID, "scope", Graph)
	for name, tt := range map[string]struct{ body, fields string }{
		"secret and certificate":    {with(with(app, "client_secret", quoted(Secret)), "certificate", quoted(file)), "client_secret"},
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

// A credential that is close to its end shows wherever somebody may look.
func TestExpiryShows(t *testing.T) {
	t.Parallel()
	c := Start(t, stack.Options{})
	at := time.Now().Add(6 * 24 * time.Hour).UTC().Truncate(time.Second).Format(time.RFC3339)
	c.Call("POST", "/connections", with(Body(), "client_secret_expires_at", quoted(at))).Want(t, 201)
	certificate, file := newCertificate(t, 20)
	c.Entra.AddApp(entratest.App{ClientID: OtherID, Certificates: []*x509.Certificate{certificate}})
	c.Call("POST", "/connections", with(Object("tenant_id", TenantA, "app", "other", "client_id", OtherID, "scope", Graph), "certificate", quoted(file))).Want(t, 201)
	c.Call("PUT", "/apps/unknown", AppBody()).Want(t, 201)
	// Longer than the portal's 24 months: other tools set what they like.
	c.Call("PUT", "/apps/far", AppBody("client_secret_expires_at", "2299-12-31")).Want(t, 201)

	var shown []string
	for _, app := range c.Call("GET", "/apps", "").Want(t, 200).JSON(t)["apps"].([]any) {
		a := app.(map[string]any)
		shown = append(shown, fmt.Sprint(a["app"], " ", a["expires_at"], " ", a["expires_within_days"]))
	}
	want := fmt.Sprintf("[default %s 7 far 2299-12-31T00:00:00Z <nil> other %s 30 unknown <nil> <nil>]", at, certificate.NotAfter.UTC().Format(time.RFC3339))
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
