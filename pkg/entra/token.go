package entra

import (
	"strconv"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// The keys of the six values that integrations read.
const (
	KeyTokenType    = "PAN_SEC_MICROSOFT_ENTRA_TOKEN_TYPE"
	KeyExpiresAt    = "PAN_SEC_MICROSOFT_ENTRA_EXPIRES_AT"
	KeyExpiresIn    = "PAN_SEC_MICROSOFT_ENTRA_EXPIRES_IN"
	KeyExtExpiresIn = "PAN_SEC_MICROSOFT_ENTRA_EXT_EXPIRES_IN"
	KeyAccessToken  = "PAN_SEC_MICROSOFT_ENTRA_ACCESS_TOKEN"
	KeyTenantID     = "PAN_SEC_MICROSOFT_ENTRA_TENANT_ID"
)

// Token is one token response.
type Token struct {
	TenantID     string // GUID, lower case: the tenant that was asked
	Type         string // always "Bearer"
	AccessToken  Secret
	ExpiresIn    int64     // seconds, as Entra said
	ExtExpiresIn int64     // seconds; ExpiresIn if Entra sent none
	RequestedAt  time.Time // when the request was sent
}

// ExpiresAt counts the token's life from when it was requested, so that an error is always early.
// The v2.0 response carries no absolute time.
func (t Token) ExpiresAt() time.Time {
	return t.RequestedAt.Add(t.Lifetime()).Truncate(time.Second)
}

// Lifetime is the time from the request to the expiry.
func (t Token) Lifetime() time.Duration { return time.Duration(t.ExpiresIn) * time.Second }

// HasNoRoles reports whether the token can be read and carries no role. A token is opaque by
// contract, so one that cannot be read may carry any.
func (t Token) HasNoRoles() bool {
	var claims struct {
		jwt.RegisteredClaims
		Roles []string `json:"roles"`
	}
	_, _, err := jwt.NewParser().ParseUnverified(t.AccessToken.Reveal(), &claims)
	return err == nil && len(claims.Roles) == 0
}

// Values returns the six values. Each is a string, so that environment variables and the JSON keys
// of containers can carry them. The access token is in the clear: only a store should see them.
func (t Token) Values() map[string]string {
	return map[string]string{
		KeyTokenType:    t.Type,
		KeyExpiresAt:    strconv.FormatInt(t.ExpiresAt().Unix(), 10),
		KeyExpiresIn:    strconv.FormatInt(t.ExpiresIn, 10),
		KeyExtExpiresIn: strconv.FormatInt(t.ExtExpiresIn, 10),
		KeyAccessToken:  t.AccessToken.Reveal(),
		KeyTenantID:     t.TenantID,
	}
}
