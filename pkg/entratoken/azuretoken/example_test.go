package azuretoken_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"entra-connector/pkg/entratoken"
	"entra-connector/pkg/entratoken/azuretoken"
	"entra-connector/pkg/entratoken/internal/casetest"
)

// Hand the credential to any client of the Azure SDK, such as azblob.NewClient.
func ExampleNew() {
	ctx := context.Background()
	reader, err := entratoken.New(ctx, "default/contoso", entratoken.Options{
		Client: casetest.Manager(func() (string, error) { // without a Client, AWS
			return casetest.Value("eyJ0…", time.Now().Add(time.Hour), time.Hour), nil
		}),
		Scope: "https://storage.azure.com/.default", // without a Scope, the connection's is looked up
	})
	if err != nil {
		log.Fatal(err)
	}
	credential := azuretoken.New(reader)

	token, err := credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{"https://storage.azure.com/.default"}})
	fmt.Println(token.Token, err)
	_, err = credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}})
	fmt.Println(err)
	// Output:
	// eyJ0… <nil>
	// entra-connector: connection default/contoso: refused: its scope is https://storage.azure.com/.default, not https://vault.azure.net/.default
}
