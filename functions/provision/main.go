// Command provision is the Lambda function behind the API: it provisions
// connections and manages the apps that they share.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/aws/aws-lambda-go/lambda"

	"entra-connector/internal/setup"
	"entra-connector/pkg/entra"
)

func main() {
	s, err := setup.New(context.Background(), os.LookupEnv)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	provisioner := &entra.Provisioner{Store: s.Store, Entra: s.Entra, Now: time.Now, Log: s.Log, Changed: s.Events.Changed}
	lambda.Start(newAPI(provisioner, s.Events, s.Log).handle)
}
