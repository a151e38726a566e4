package main

import (
	"encoding/json"
	"flag"
	"testing"

	"github.com/aws/aws-lambda-go/events"

	. "entra-connector/internal/stack/stacktest"
)

func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", "8") // they wait more than they work
	Main(m)
}

// invoke sends an event as it is, rather than a request.
func invoke(t *testing.T, c *Connector, event any) events.APIGatewayV2HTTPResponse {
	t.Helper()
	payload, err := json.Marshal(event)
	if err != nil {
		t.Fatal(err)
	}
	result := c.Invoke(c.Provision, string(payload))
	var response events.APIGatewayV2HTTPResponse
	if err := json.Unmarshal(result.Payload, &response); err != nil || result.FunctionError != "" {
		t.Fatalf("%v %s %.200s", err, result.FunctionError, result.Payload)
	}
	return response
}
