package secretstore

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"

	"entra-connector/internal/awserr"
	"entra-connector/internal/connector"
)

var errCursor = &connector.InvalidError{Fields: []connector.FieldError{{Field: "cursor", Detail: "is not one that this API returned as next"}}}

// errEmpty reports an answer without what it always has. The SDK takes an empty one for a success.
var errEmpty = errors.New("empty answer")

// storeError maps the error of a call about a secret to one that [connector.Store] promises.
func storeError(ctx context.Context, op, secret string, err error) error {
	if err == nil {
		return nil
	}
	var (
		missing *types.ResourceNotFoundException
		cursor  *types.InvalidNextTokenException
	)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errNoTurn):
		return context.DeadlineExceeded
	case errors.Is(err, errSpent):
		return &connector.StoreError{Op: op, Secret: secret, Code: connector.CodeTooManyCalls, Temporary: true}
	case errors.As(err, &missing):
		return connector.ErrNotFound
	case errors.As(err, &cursor):
		return errCursor
	}
	code := awserr.Code(err)
	return &connector.StoreError{
		Op: op, Secret: secret, Code: code, Temporary: awserr.Temporary(err), Timeout: code == awserr.Timeout, Unanswered: awserr.Unanswered(err),
	}
}
