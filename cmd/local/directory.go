package main

import (
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
// The page for customers is at pageURL.
func fill(e *entratest.Server, aws *ststest.Server, pageURL string) {
	app := entratest.App{ClientID: clientID, Secrets: []entratest.Secret{{Value: clientSecret}, {Value: nextSecret}},
		RedirectURIs: []string{pageURL + "/connect/callback"}, Roles: []string{"User.Read.All"}}
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
