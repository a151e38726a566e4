// Command bare is the smallest Lambda function in Go. The bench compares our functions with it.
package main

import "github.com/aws/aws-lambda-go/lambda"

func main() { lambda.Start(func() error { return nil }) }
