package entra_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"entra-connector/pkg/entra"
	"entra-connector/pkg/entra/entratest"
)

// Get a token for Microsoft Graph in a customer's tenant. The stand-in takes the place of Entra
// here; without an Authority, the client asks Microsoft.
func Example() {
	server := entratest.New(entratest.Options{})
	server.Listen()
	defer server.Close()
	const clientID, tenantID = "cccccccc-0000-4000-8000-000000000003", "aaaaaaaa-0000-4000-8000-000000000001"
	server.AddApp(entratest.App{ClientID: clientID, Secrets: []entratest.Secret{{Value: "made-up"}}})
	server.AddTenant(entratest.Tenant{ID: tenantID, Domains: []string{"contoso.com"}})
	server.Consent(tenantID, clientID, "User.Read.All")

	client := entra.NewClient(entra.ClientConfig{Authority: server.URL()})
	app := entra.Registration{
		ClientID:   clientID,
		Credential: entra.Credential{ClientSecret: entra.NewSecret("made-up")},
		Cloud:      entra.Public,
	}
	scope, err := entra.ServiceScope("microsoft-graph", app.Cloud)
	if err != nil {
		log.Fatal(err)
	}
	tenant, err := client.ResolveTenant(context.Background(), app.Cloud, "contoso.com")
	if err != nil {
		log.Fatal(err)
	}
	token, err := client.Token(context.Background(), app, scope, tenant)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(token.Type, token.Lifetime(), token.AccessToken)

	// A refusal says what a person has to do.
	app.Credential.ClientSecret = entra.NewSecret("wrong")
	_, err = client.Token(context.Background(), app, scope, tenant)
	var refused *entra.Error
	if errors.As(err, &refused) {
		fmt.Println(refused.Code, refused.Title)
	}
	// Output:
	// Bearer 59m59s [redacted]
	// AADSTS7000215 The client secret is wrong
}
