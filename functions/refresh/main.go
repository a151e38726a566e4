// Command refresh is the Lambda function that keeps tokens fresh, on a schedule or when somebody
// asks.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/aws/aws-lambda-go/lambda"

	"entra-connector/internal/connector"
	"entra-connector/internal/setup"
)

func main() {
	s, err := setup.New(context.Background(), os.LookupEnv)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	h := handler{
		sweeper: &connector.Sweeper{
			Store: s.Store, Entra: s.Entra, Window: s.Window, Jitter: 1. / 4,
			Now: time.Now, Log: s.Log, Changed: s.Events.Changed,
		},
		metrics: s.Metrics,
		events:  s.Events,
		log:     s.Log,
	}
	lambda.Start(h.handle)
}
