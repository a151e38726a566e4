// Command provision is the Lambda function behind the API: it provisions connections and manages
// the apps that they share.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/aws/aws-lambda-go/lambda"

	"entra-connector/internal/setup"
)

func main() {
	s, err := setup.New(context.Background(), os.LookupEnv)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	lambda.Start(newAPI(s).handle)
}
