package entra_test

import (
	"cmp"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"entra-connector/pkg/entra"
)

// Values are taken as they are, or refused with a text that does not quote them.
func TestTextRules(t *testing.T) {
	long := strings.Repeat("x", 1024)
	for name, rule := range map[string]struct {
		check     func(string) error
		good, bad []string
	}{
		"tenant": {func(s string) error { _, err := entra.ParseTenant(s); return err },
			[]string{tenantA, strings.ToUpper(tenantA), "contoso.onmicrosoft.com", "Contoso.COM", "xn--mnchen-3ya.de"},
			[]string{"", "common", "Organizations", "consumers", "9188040D-6C67-4C5B-B112-36A304B66DAD", "contoso", "../common", "a.b%2f..%2fcommon", "contoso.com/oauth2",
				"contoso.com?x", "a@contoso.com", "contoso.com:443", "contoso..com", "contoso.com.", long[:64] + ".com", "-a.com", "münchen.de", tenantA + "\n",
				"contoso.com\x00", "{" + tenantA + "}", "127.0.0.1", "con\u200btoso.com", strings.Repeat("a.", 127) + "com"}},
		"client ID": {entra.CheckClientID, []string{clientID}, []string{"", "my-app", " " + clientID, clientID + "\u2060"}},
		"client secret": {func(s string) error { return entra.CheckClientSecret(entra.NewSecret(s)) },
			[]string{"x", long, strings.Repeat("ü", 1024), "a b", `~!@#$%^&*()_+{}|:"<>?=&%2B`},
			[]string{"", " " + canary, canary + "\n", canary + "\u00a0", "a\tb", "a\x7fb", long + "x", "a\xffb", "\ufeff" + canary}},
		"scope": {entra.CheckScope,
			[]string{graph, "499b84ac-1321-427f-aa17-267ca6975798/.default", "api://" + clientID + "/.default", "https://database.windows.net//.default", "https://" + long[:248] + "/.default"},
			[]string{"", "https://graph.microsoft.com/User.Read", "/.default", "graph.microsoft.com/.default", "http://graph.microsoft.com/.default", graph + " " + graph,
				"https://graph.microsoft.com/?a=b/.default", "https://graph.microsoft.com/#a/.default", "https://a:b@graph.microsoft.com/.default", "https:///.default",
				`https://a"b/.default`, "https://" + long[:249] + "/.default"}},
		"cloud": {func(s string) error { _, err := entra.ParseCloud(s); return err }, []string{"", "public", "usgov", "govsg"}, []string{"germany", "public ", "Public"}},
		"authority": {func(s string) error {
			got, err := entra.ParseAuthority(s, false)
			return cmp.Or(err, mismatch(got, strings.TrimSuffix(s, "/")))
		}, []string{"https://login.microsoftonline.us/", "http://127.0.0.1:8080", "http://[::1]:8080/", "http://localhost:1"},
			[]string{"", "http://entra.test", "http://127.0.0.1.example.com", "http://localhost.example.com", "ftp://localhost", "login.microsoftonline.us",
				"https://user@login.microsoftonline.com", "https://login.microsoftonline.com?x=y", "https://"}},
		"insecure authority": {func(s string) error { _, err := entra.ParseAuthority(s, true); return err }, []string{"http://entra.test"}, []string{"ftp://localhost"}},
		"audience":           {entra.CheckAudience, []string{entra.DefaultAudience, long[:600]}, []string{"", "a b", "ü", long[:601]}},
	} {
		for i, s := range append(rule.good, rule.bad...) {
			if err := rule.check(s); (err == nil) != (i < len(rule.good)) || err != nil && len(s) > 9 && strings.Contains(err.Error(), s) {
				t.Errorf("%s %q: %v", name, s, err)
			}
		}
	}
}

func mismatch(got, want string) error {
	if got == want {
		return nil
	}
	return fmt.Errorf("got %q", got)
}

// Each cloud has an authority of its own, where a token is asked for, and its own services.
func TestClouds(t *testing.T) {
	clouds := []entra.Cloud{entra.Public, entra.USGov, entra.China, entra.Bleu, entra.Delos, entra.GovSG}
	for i, want := range []string{"login.microsoftonline.com", "login.microsoftonline.us", "login.partner.microsoftonline.cn",
		"login.sovcloud-identity.fr", "login.sovcloud-identity.de", "login.sovcloud-identity.sg"} {
		client := entra.NewClient(entra.ClientConfig{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.URL.String() != "https://"+want+"/"+tenantA+"/oauth2/v2.0/token" {
				t.Errorf("%s asks %s", clouds[i], r.URL)
			}
			return nil, errors.New("not sent")
		})})
		client.Token(t.Context(), entra.Registration{ClientID: clientID, Cloud: clouds[i]}, graph, tenantA)
	}
	graphs := []string{"https://graph.microsoft.com", "https://graph.microsoft.us", "https://microsoftgraph.chinacloudapi.cn",
		"https://graph.svc.sovcloud.fr", "https://graph.svc.sovcloud.de", "https://graph.svc.sovcloud.sg"}
	for service, want := range map[string][]string{ // by cloud; empty: not offered
		"azure-devops":     {"499b84ac-1321-427f-aa17-267ca6975798", "", "", "", "", ""},
		"azure-storage":    {"https://storage.azure.com", "https://storage.azure.com", "https://storage.azure.com", "", "", ""},
		"azure-sql":        {"https://database.windows.net", "https://database.usgovcloudapi.net", "https://database.chinacloudapi.cn", "", "", ""},
		"business-central": {"https://api.businesscentral.dynamics.com", "", "", "", "", ""},
		"microsoft-graph":  graphs,
		"microsoft-teams":  graphs,
		"microsoft-365":    graphs,
	} {
		for i, cloud := range clouds {
			scope := want[i] + "/.default"
			if want[i] == "" {
				scope = ""
			}
			if got, err := entra.ServiceScope(service, cloud); got != scope || (err == nil) != (scope != "") {
				t.Errorf("%s in cloud %s is %q, %v, want %q", service, cloud, got, err, scope)
			}
		}
	}
	_, elsewhere := entra.ServiceScope("business-central", entra.China)
	_, nowhere := entra.ServiceScope("x", entra.Public)
	if elsewhere == nil || !strings.Contains(elsewhere.Error(), "public") || nowhere == nil || !strings.Contains(nowhere.Error(), "azure-devops, azure-sql") {
		t.Errorf("the errors do not name the clouds and the services: %v, %v", elsewhere, nowhere)
	}
}

// Whatever passes as a tenant or a scope stays one path segment, or one scope.
func FuzzText(f *testing.F) {
	for _, s := range []string{tenantA, graph, "contoso.com", "api://x/.default", "a/../b.c", "https://a/.default https://b/.default"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if tenant, err := entra.ParseTenant(s); err == nil && (strings.ContainsAny(tenant, "/\\?#%@: \t\r\n") || tenant != strings.ToLower(s)) {
			t.Errorf("tenant %q is %q", s, tenant)
		}
		if entra.CheckScope(s) == nil && (!strings.HasSuffix(s, "/.default") || strings.ContainsAny(s, " \t\r\n\"<>?#") || len(s) > 256+len("/.default")) {
			t.Errorf("scope %q", s)
		}
	})
}

// What passes as a certificate can be stored and read again, and what does not is not quoted. The
// file has some text in it, and a byte of its certificate may have changed.
func FuzzCertificate(f *testing.F) {
	key, good := pemOf(rsaKey()), certificate(rsaKey(), start, start.AddDate(1, 0, 0))
	f.Add("", "", uint(0), byte(0))
	f.Add("\ufeff", "-----BEGIN", uint(20), byte(1))
	f.Add("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "# text\n", uint(0), byte(0xff))
	f.Fuzz(func(t *testing.T, before, between string, at uint, flip byte) {
		der := slices.Clone(good.Raw)
		der[at%uint(len(der))] ^= flip
		c, err := entra.ParseCertificate(entra.NewSecret(before+pemOf(&pem.Block{Type: "CERTIFICATE", Bytes: der}, between, key)), start)
		if err != nil {
			if text := err.Error(); len(text) > 150 || strings.Contains(text, "BEGIN") || strings.Contains(text, "MII") {
				t.Errorf("the error quotes the file: %s", text)
			}
			return
		}
		again, err := entra.ParseCertificate(c.PEM, start)
		if err != nil || again.Thumbprint != c.Thumbprint || len(c.Thumbprint) != 43 || !again.NotAfter.Equal(c.NotAfter) {
			t.Errorf("read again it is %+v, %v, not %+v", again, err, c)
		}
	})
}

// answering is a client of an Entra that always gives this answer.
func answering(status int, contentType, retryAfter, body string) *entra.Client {
	return entra.NewClient(entra.ClientConfig{Now: func() time.Time { return start }, Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		header := http.Header{"Content-Type": {contentType}, "Retry-After": {retryAfter}}
		return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	})})
}

var code = regexp.MustCompile(`^(AADSTS\d{4,9}|[a-z_]{1,40})$`)

// checkError holds an error to its form: nothing of an answer is in it but what has that form too.
func checkError(t *testing.T, err error) {
	t.Helper()
	e := asEntraError(t, err)
	odd := func(id string) bool {
		return id != "" && (len(id) != 36 || strings.Trim(id, "-0123456789abcdefABCDEF") != "")
	}
	if e.Class < entra.Refused || e.Class > entra.Malformed || !code.MatchString(e.Code) || e.Title == "" || e.Action == "" ||
		e.RetryAfter < 0 || e.RetryAfter > 24*time.Hour || odd(e.TraceID) || odd(e.CorrelationID) {
		t.Errorf("%#v", e)
	}
}

// Any refusal is an error in its form, and so is any refusal to tell a domain's tenant.
func FuzzRefusal(f *testing.F) {
	f.Add(401, "60", `{"error":"invalid_client","error_codes":[7000215],"trace_id":"`+tenantA+`","correlation_id":"`+tenantB+`"}`)
	f.Add(503, start.Add(time.Hour).Format(http.TimeFormat), `{"error":"temporarily_unavailable","error_description":"AADSTS90033: x"}`)
	f.Add(429, "-99999999999999999999", `Too many requests`)
	f.Add(400, "", `{"error":"<script>","error_codes":[1e999,-1,700.5,"x"],"trace_id":7}`)
	f.Fuzz(func(t *testing.T, status int, retryAfter, body string) {
		if status < 300 || status > 599 {
			return
		}
		client := answering(status, "application/json", retryAfter, body)
		_, err := ask(t.Context(), client)
		checkError(t, err)
		_, err = client.ResolveTenant(t.Context(), entra.Public, "contoso.com")
		checkError(t, err)
	})
}

// Any answer with status 200 is a token that can be stored, or an error in its form.
func FuzzTokenResponse(f *testing.F) {
	f.Add("application/json", `{"token_type":"Bearer","expires_in":3599,"ext_expires_in":"7200","access_token":"t"}`)
	f.Add("application/json", `{"token_type":"Bearer","expires_in":1e99,"ext_expires_in":-0.5,"access_token":"a\u0000b"}`)
	f.Add("text/plain", `token_type=Bearer&expires_in=3599&access_token=t`)
	f.Add("application/json", `{"issuer":"https://login.microsoftonline.com/`+tenantA+`/v2.0","token_endpoint":"https://login.microsoftonline.us/`+tenantA+`/x"}`)
	f.Fuzz(func(t *testing.T, contentType, body string) {
		client := answering(200, contentType, "", body)
		token, err := ask(t.Context(), client)
		if err != nil {
			checkError(t, err)
		} else if v := token.Values(); token.Lifetime() < time.Second || token.ExtExpiresIn < 1 || v[entra.KeyTokenType] != "Bearer" || v[entra.KeyTenantID] != tenantA ||
			v[entra.KeyAccessToken] == "" || strings.Trim(v[entra.KeyAccessToken], "!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~") != "" {
			t.Errorf("%s is a token with the values %v", body, v)
		}
		if id, err := client.ResolveTenant(t.Context(), entra.Public, "contoso.com"); err != nil {
			checkError(t, err)
		} else if parsed, err := entra.ParseTenant(id); len(id) != 36 || err != nil && !strings.Contains(err.Error(), "own tenant") || err == nil && parsed != id {
			t.Errorf("%s is the tenant %q", body, id)
		}
	})
}
