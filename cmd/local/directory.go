package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"time"

	"entra-connector/internal/awsidentity/ststest"
	"entra-connector/pkg/entra/entratest"
)

// What the stand-in Entra knows: two customers, one app that has two secrets, as during a rotation,
// and one app whose only secret has expired. All of it is made up. It is the same in every run, so
// what an earlier `make local` stored goes on working.
const (
	clientID     = "11111111-aaaa-4aaa-8aaa-111111111111"
	clientSecret = "not-a-real-secret-1"
	nextSecret   = "not-a-real-secret-2"

	expiredClientID     = "22222222-bbbb-4bbb-8bbb-222222222222"
	expiredClientSecret = "not-a-real-secret-3"

	contosoID, contosoDomain   = "c0000000-0000-4000-8000-000000000001", "contoso.example"
	fabrikamID, fabrikamDomain = "f0000000-0000-4000-8000-000000000002", "fabrikam.example"

	// Customers who have not consented. Policies of the second stop the consent page.
	northwindID, northwindDomain = "d0000000-0000-4000-8000-000000000003", "northwind.example"
	litwareID, litwareDomain     = "b0000000-0000-4000-8000-000000000004", "litware.example"
)

// people can sign in on the page for customers.
var people = []entratest.User{
	{Account: "ada@" + northwindDomain, Name: "Ada, administrator", TenantID: northwindID, Roles: []string{entratest.GlobalAdministrator}},
	{Account: "bob@" + northwindDomain, Name: "Bob, no administrator", TenantID: northwindID},
	{Account: "gus@" + fabrikamDomain, Name: "Gus, a guest", TenantID: northwindID, Guest: true},
	{Account: "cay@" + contosoDomain, Name: "Cay, administrator, has consented already", TenantID: contosoID, Roles: []string{entratest.GlobalAdministrator}},
	{Account: "lee@" + litwareDomain, Name: "Lee, administrator, stopped by Conditional Access", TenantID: litwareID, Roles: []string{entratest.GlobalAdministrator}},
	{Account: "pat@outlook.example", Name: "Pat, a personal account", TenantID: entratest.Consumers},
}

// fill makes the stand-in Entra know that. With a stand-in STS the app also trusts the functions.
// The app has these certificates too. The page for customers is at pageURL.
func fill(e *entratest.Server, aws *ststest.Server, pageURL string, certificates ...*x509.Certificate) {
	app := entratest.App{
		ClientID:     clientID,
		Secrets:      []entratest.Secret{{Value: clientSecret}, {Value: nextSecret}},
		Certificates: certificates,
		RedirectURIs: []string{pageURL + "/connect/callback"},
		Roles:        []string{"User.Read.All"},
	}
	for _, person := range people {
		e.AddUser(person)
	}
	e.AddTenant(entratest.Tenant{ID: northwindID, Domains: []string{northwindDomain}})
	e.AddTenant(entratest.Tenant{ID: litwareID, Domains: []string{litwareDomain}, DeviceFilter: true})
	if aws != nil {
		app.Federated = []entratest.Federated{{Issuer: aws.Issuer(), Subject: aws.Subject(), Audience: "api://AzureADTokenExchange", Key: aws.Key()}}
	}
	e.AddApp(app)
	e.AddApp(entratest.App{ClientID: expiredClientID, Secrets: []entratest.Secret{
		{Value: expiredClientSecret, Expires: time.Now().AddDate(0, 0, -1)},
	}})
	for id, domain := range map[string]string{contosoID: contosoDomain, fabrikamID: fabrikamDomain} {
		e.AddTenant(entratest.Tenant{ID: id, Domains: []string{domain}})
		e.Consent(id, clientID, "User.Read.All")
		e.Consent(id, expiredClientID, "User.Read.All")
	}
}

// certificate reads the app's certificate from a PEM file, which also holds its key. It makes the
// file if there is none. Like the data, the file is kept between runs, so that what was stored goes
// on working.
func certificate(file string) (*x509.Certificate, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		if text, err = newCertificate(); err == nil {
			err = errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, text, 0o600))
		}
	}
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			return x509.ParseCertificate(block.Bytes)
		}
	}
	return nil, fmt.Errorf("%s holds no certificate. Delete it, and the next start makes another", file)
}

func newCertificate() ([]byte, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return slices.Concat(
		pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
	), nil
}
