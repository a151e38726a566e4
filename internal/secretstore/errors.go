package secretstore

import (
	"context"
	"errors"
	"net"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/aws/smithy-go"

	"entra-connector/pkg/entra"
)

var errCursor = &entra.InvalidError{Fields: []entra.FieldError{{Field: "cursor", Detail: "is not one that this API returned as next"}}}

// storeError maps the SDK's errors to the ones that [entra.Store] promises.
// Nothing of their text is kept: it names ARNs and accounts.
func storeError(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	var (
		missing *types.ResourceNotFoundException
		pending *types.InvalidRequestException
		cursor  *types.InvalidNextTokenException
		api     smithy.APIError
		network net.Error
	)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errNoTurn):
		return context.DeadlineExceeded
	case errors.As(err, &missing), errors.As(err, &pending):
		// InvalidRequestException: the secret is scheduled for deletion.
		return entra.ErrNotFound
	case errors.As(err, &cursor):
		return errCursor
	case errors.As(err, &api):
		return &entra.StoreError{Op: op, Code: api.ErrorCode(), Temporary: temporary(err)}
	}
	if errors.As(err, &network) && network.Timeout() {
		return &entra.StoreError{Op: op, Code: entra.CodeTimeout, Temporary: true}
	}
	return &entra.StoreError{Op: op, Code: "unreachable", Temporary: true}
}

// temporary asks the SDK's own judgement of what a retry may mend.
func temporary(err error) bool {
	var response *awshttp.ResponseError
	if errors.As(err, &response) && response.HTTPStatusCode() >= http.StatusInternalServerError {
		return true
	}
	return retry.IsErrorRetryables(retry.DefaultRetryables).IsErrorRetryable(err) == aws.TrueTernary ||
		retry.IsErrorThrottles(retry.DefaultThrottles).IsErrorThrottle(err) == aws.TrueTernary
}
