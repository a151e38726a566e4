// Package msal holds entratest to what Microsoft's own library expects of Entra: MSAL for Go gets its tokens
// there, and is refused there where Entra would refuse it. Both sides could share a mistake of ours if only
// our own client were tested against our own stand-in.
//
// It is a module of its own so that MSAL and what MSAL needs never appear in the product's go.mod: nothing
// that is built or deployed depends on them. Hence go test ./... in the root does not come here; run it in
// this directory.
//
// azidentity is not used: its client credentials are MSAL's, so that Entra sees the same requests.
package msal_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"

	"entra-connector/pkg/entra/entratest"
)

const (
	tenant  = "11111111-aaaa-4bbb-8ccc-000000000001" // contoso.com
	second  = "11111111-aaaa-4bbb-8ccc-000000000002" // a tenant that has the app too
	bare    = "11111111-aaaa-4bbb-8ccc-000000000003" // one that does not
	gov     = "11111111-aaaa-4bbb-8ccc-000000000004" // one in another cloud
	nowhere = "11111111-aaaa-4bbb-8ccc-000000000009"
	client  = "22222222-aaaa-4bbb-8ccc-000000000001"
	secret  = "c4nary~secret+with/odd=chars&more"
	expired = "c4nary-expired"
	graph   = "https://graph.microsoft.com/.default"
)

// world is an Entra under TLS, since MSAL takes no other authority, with one app that may authenticate in
// every way.
type world struct {
	*entratest.Server
	url  string
	http *http.Client
}

// start returns a world on the real clock, because MSAL has no other.
func start(t *testing.T) *world {
	t.Helper()
	s := entratest.New(entratest.Options{})
	s.AddTenant(entratest.Tenant{ID: tenant, Domains: []string{"contoso.com"}})
	s.AddTenant(entratest.Tenant{ID: second})
	s.AddTenant(entratest.Tenant{ID: bare})
	s.AddTenant(entratest.Tenant{ID: gov, Cloud: "usgov"})
	s.AddApp(entratest.App{
		ClientID:     client,
		Secrets:      []entratest.Secret{{Value: expired, Expires: time.Now().Add(-time.Hour)}, {Value: secret}},
		Certificates: certificates(),
		Federated:    []entratest.Federated{{Issuer: issuer, Subject: subject, Audience: exchange, Key: &issuerKey().PublicKey}},
	})
	s.Consent(tenant, client, "User.Read.All")
	s.Consent(second, client)

	ts := httptest.NewTLSServer(s)
	t.Cleanup(ts.Close)
	c := ts.Client()
	c.Transport = &only{host: ts.Listener.Addr().String(), RoundTripper: c.Transport}
	return &world{Server: s, url: ts.URL, http: c}
}

// only keeps requests, and the credentials in them, from leaving for the real Entra.
type only struct {
	host string
	http.RoundTripper
}

// errLeft is the end of a request to any other host.
var errLeft = errors.New("the request would have left the test")

func (o *only) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != o.host {
		return nil, fmt.Errorf("%w for %s", errLeft, r.URL)
	}
	return o.RoundTripper.RoundTrip(r)
}

// app is MSAL's client in a tenant, which may be named by its GUID or a domain.
func (w *world) app(t *testing.T, tenant string, cred confidential.Credential, o ...confidential.Option) confidential.Client {
	t.Helper()
	// Instance discovery would ask login.microsoftonline.com whether it knows this authority.
	o = append(o, confidential.WithHTTPClient(w.http), confidential.WithInstanceDiscovery(false))
	c, err := confidential.New(w.url+"/"+tenant, client, cred, o...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// asked are the requests to an endpoint, in order.
func (w *world) asked(endpoint string) []entratest.Request {
	var found []entratest.Request
	for _, r := range w.Requests() {
		if r.Endpoint == endpoint {
			found = append(found, r)
		}
	}
	return found
}
