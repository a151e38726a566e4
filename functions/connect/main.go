// Command connect is the Lambda function behind the customer's page: an administrator of a customer
// comes with an operator's link, signs in at Microsoft, approves, and is connected.
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
	if err == nil {
		var h *host
		if h, err = newHost(s, os.LookupEnv); err == nil {
			lambda.Start(h.handle)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
