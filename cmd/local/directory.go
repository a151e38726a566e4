package main

import (
	"time"

	"entra-connector/internal/awsidentity/ststest"
	"entra-connector/pkg/entra/entratest"
)

// What the stand-in Entra knows: one app that two customers have consented to, and one whose only secret has expired. The
// values are made up. They are the same in every run, so that what a former run of `make local` stored goes on working.
const (
	clientID     = "11111111-aaaa-4aaa-8aaa-111111111111"
	clientSecret = "not-a-real-secret-1"
	nextSecret   = "not-a-real-secret-2" // what clientSecret is rotated to

	expiredClientID     = "22222222-bbbb-4bbb-8bbb-222222222222"
	expiredClientSecret = "not-a-real-secret-3"

	contosoID, contosoDomain   = "c0000000-0000-4000-8000-000000000001", "contoso.example"
	fabrikamID, fabrikamDomain = "f0000000-0000-4000-8000-000000000002", "fabrikam.example"
)

// fill makes the stand-in Entra know all of that. The app has both secrets, as during a rotation, and where there is a
// stand-in STS a federated credential for the functions.
func fill(e *entratest.Server, aws *ststest.Server) {
	e.AddTenant(entratest.Tenant{ID: contosoID, Domains: []string{contosoDomain}})
	e.AddTenant(entratest.Tenant{ID: fabrikamID, Domains: []string{fabrikamDomain}})
	app := entratest.App{ClientID: clientID, Secrets: []entratest.Secret{{Value: clientSecret}, {Value: nextSecret}}}
	if aws != nil {
		app.Federated = []entratest.Federated{{Issuer: aws.Issuer(), Subject: aws.Subject(), Audience: "api://AzureADTokenExchange", Key: aws.Key()}}
	}
	e.AddApp(app)
	e.AddApp(entratest.App{ClientID: expiredClientID, Secrets: []entratest.Secret{
		{Value: expiredClientSecret, Expires: time.Now().AddDate(0, 0, -1)},
	}})
	for _, tenant := range []string{contosoID, fabrikamID} {
		e.Consent(tenant, clientID, "User.Read.All")
		e.Consent(tenant, expiredClientID, "User.Read.All")
	}
}
