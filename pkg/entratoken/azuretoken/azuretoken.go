// Package azuretoken lets the Azure SDK use the token of a connection.
package azuretoken

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"entra-connector/pkg/entratoken"
)

// ErrRefused means that the SDK asked for a token that the connection does not have.
var ErrRefused = errors.New("refused")

// Credential is an [azcore.TokenCredential]. Its errors are those of the reader, and ErrRefused.
type Credential struct{ reader *entratoken.Reader }

var _ azcore.TokenCredential = (*Credential)(nil)

// New returns a credential that hands out the reader's tokens.
func New(r *entratoken.Reader) *Credential { return &Credential{r} }

// GetToken implements [azcore.TokenCredential]. It refuses a scope or a tenant that is not the
// connection's, and a claims challenge. It needs no scope.
func (c *Credential) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if o.Claims != "" {
		return azcore.AccessToken{}, c.refuse("a stored token cannot answer a claims challenge")
	}
	if len(o.Scopes) > 0 {
		scope, err := c.reader.Scope(ctx)
		if err != nil {
			return azcore.AccessToken{}, err
		}
		if len(o.Scopes) > 1 || normal(o.Scopes[0]) != normal(scope) {
			return azcore.AccessToken{}, c.refuse("its scope is %s, not %s", scope, strings.Join(o.Scopes, " "))
		}
	}
	t, err := c.reader.Token(ctx)
	if err != nil {
		return azcore.AccessToken{}, err
	}
	if o.TenantID != "" && !strings.EqualFold(o.TenantID, t.TenantID) {
		return azcore.AccessToken{}, c.refuse("its tenant is %s, not %s", t.TenantID, o.TenantID)
	}
	return azcore.AccessToken{Token: t.AccessToken.Reveal(), ExpiresOn: t.ExpiresAt(), RefreshOn: t.RefreshAt}, nil
}

func (c *Credential) refuse(format string, args ...any) error {
	return fmt.Errorf("entra-connector: connection %s: %w: %s", c.reader.Connection(), ErrRefused, fmt.Sprintf(format, args...))
}

// normal makes scopes that Entra takes for the same equal: with a slash at the end of the resource
// and without, in upper and in lower case.
func normal(scope string) string {
	return strings.Replace(strings.ToLower(scope), "//.default", "/.default", 1)
}
