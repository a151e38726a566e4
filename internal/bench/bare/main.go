// Command bare is the smallest Lambda function there is in Go: what ours are compared with.
package main

import "github.com/aws/aws-lambda-go/lambda"

func main() { lambda.Start(func() error { return nil }) }
