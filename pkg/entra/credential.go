package entra

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Registration is the part of an Entra app registration that a token request needs. Many tenants
// may use it.
type Registration struct {
	ClientID   string // GUID; see [CheckClientID]
	Credential Credential
	Cloud      Cloud // where it is registered
}

// CheckClientID accepts a GUID.
func CheckClientID(s string) error {
	return checkForm(s, guidPattern().MatchString(s), "must be a GUID, such as 00000000-0000-0000-0000-000000000000")
}

// Credential is what an app proves its identity with. Exactly one of ClientSecret, Certificate
// and Federation is set.
type Credential struct {
	ClientSecret Secret
	// SecretExpiresAt is when the client secret expires, if somebody said so. Entra does not tell.
	SecretExpiresAt time.Time
	Certificate     *Certificate
	Federation      *Federation
}

// The kinds of credential.
const (
	KindClientSecret = "client_secret"
	KindCertificate  = "certificate"
	KindFederation   = "federation"
)

// Kind names the credential's kind.
func (c Credential) Kind() string {
	switch {
	case c.Certificate != nil:
		return KindCertificate
	case c.Federation != nil:
		return KindFederation
	}
	return KindClientSecret
}

// ExpiresAt is when the credential stops working, or zero if that is unknown or never happens.
func (c Credential) ExpiresAt() time.Time {
	if c.Certificate != nil {
		return c.Certificate.NotAfter
	}
	return c.SecretExpiresAt
}

// Equal reports whether both are the same credential. It ignores SecretExpiresAt.
func (c Credential) Equal(other Credential) bool {
	if c.Kind() != other.Kind() {
		return false
	}
	switch c.Kind() {
	case KindCertificate:
		return c.Certificate.PEM.Equal(other.Certificate.PEM)
	case KindFederation:
		return *c.Federation == *other.Federation
	}
	return c.ClientSecret.Equal(other.ClientSecret)
}

// Fingerprint is equal for credentials that Entra cannot tell apart. It reveals nothing of them.
func (c Credential) Fingerprint() [sha256.Size]byte {
	h := sha256.New()
	fmt.Fprintln(h, c.Kind())
	switch c.Kind() {
	case KindCertificate:
		io.WriteString(h, c.Certificate.PEM.Reveal())
	case KindFederation:
		io.WriteString(h, c.Federation.Audience)
	default:
		io.WriteString(h, c.ClientSecret.Reveal())
	}
	return [sha256.Size]byte(h.Sum(nil))
}

const (
	maxSecretLength = 1024

	// DefaultAudience is the audience that Microsoft recommends for federated credentials.
	DefaultAudience = "api://AzureADTokenExchange"
	maxAudience     = 600 // characters, in a federated credential
)

// CheckClientSecret accepts 1 to 1,024 characters, none of them a control character.
func CheckClientSecret(s Secret) error {
	value := s.Reveal()
	ok := utf8.RuneCountInString(value) <= maxSecretLength && !strings.ContainsFunc(value, unicode.IsControl)
	return checkForm(value, ok, fmt.Sprintf("must be 1 to %d characters, none of them a control character", maxSecretLength))
}

// Federation is a credential that is not stored. An [AssertionSource] issues an assertion when one
// is needed, and a federated credential of the app registration accepts it.
type Federation struct {
	Audience string `json:"audience"`
	// Issuer and Subject are what the assertions say about themselves. The federated credential in
	// Entra must repeat them to the letter.
	Issuer  string `json:"issuer,omitempty"`
	Subject string `json:"subject,omitempty"`
}

// CheckAudience accepts what a federated credential can hold.
func CheckAudience(s string) error {
	ok := len(s) <= maxAudience && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
	return checkForm(s, ok, fmt.Sprintf("must have an audience of at most %d printable characters without spaces, such as %s", maxAudience, DefaultAudience))
}

// AssertionSource issues assertions for federation: JWTs, signed with RS256, that name the program
// itself as their subject. The error is an [*Error], or the context's if it has ended.
type AssertionSource interface {
	Assertion(ctx context.Context, audience string) (Secret, error)
}

// noAssertions is the source of a client that has none.
type noAssertions struct{}

func (noAssertions) Assertion(context.Context, string) (Secret, error) {
	return Secret{}, newError(Refused, CodeNoAssertion)
}
