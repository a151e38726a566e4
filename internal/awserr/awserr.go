// Package awserr reduces errors of the AWS SDK to what is safe to keep and to show. Their text
// names accounts, roles and ARNs.
package awserr

import (
	"errors"
	"net"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
)

// Codes of failures that AWS did not answer.
const (
	Timeout     = "timeout"
	Unreachable = "unreachable"
)

// Code names a failed call in one word: AWS's own code, [Timeout] also if the context's deadline
// has passed, or [Unreachable].
func Code(err error) string {
	var api smithy.APIError
	var network net.Error
	switch {
	case errors.As(err, &api):
		return api.ErrorCode()
	case errors.As(err, &network) && network.Timeout():
		return Timeout
	}
	return Unreachable
}

// Unanswered reports whether AWS gave no answer, or one that broke off. The call may have taken
// effect.
func Unanswered(err error) bool {
	var api smithy.APIError
	return !errors.As(err, &api)
}

// Temporary reports whether the same call may work later, in the SDK's own judgement.
func Temporary(err error) bool {
	var api smithy.APIError
	var response *awshttp.ResponseError
	if !errors.As(err, &api) || errors.As(err, &response) && response.HTTPStatusCode() >= http.StatusInternalServerError {
		return true
	}
	if api.ErrorCode() == "LimitExceededException" { // in Secrets Manager a quota, not a rate
		return false
	}
	return retry.IsErrorRetryables(retry.DefaultRetryables).IsErrorRetryable(err) == aws.TrueTernary ||
		retry.IsErrorThrottles(retry.DefaultThrottles).IsErrorThrottle(err) == aws.TrueTernary
}
