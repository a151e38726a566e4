package secretstore

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"

	"entra-connector/internal/awserr"
	"entra-connector/internal/connector"
)

var errCursor = &connector.InvalidError{Fields: []connector.FieldError{{Field: "cursor", Detail: "is not one that this API returned as next"}}}

// storeError maps the SDK's errors to the ones that [connector.Store] promises.
func storeError(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	var (
		missing *types.ResourceNotFoundException
		pending *types.InvalidRequestException
		cursor  *types.InvalidNextTokenException
	)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errNoTurn):
		return context.DeadlineExceeded
	case errors.As(err, &missing), errors.As(err, &pending):
		// InvalidRequestException: the secret is scheduled for deletion.
		return connector.ErrNotFound
	case errors.As(err, &cursor):
		return errCursor
	}
	code := awserr.Code(err)
	return &connector.StoreError{Op: op, Code: code, Temporary: awserr.Temporary(err), Timeout: code == awserr.Timeout}
}
