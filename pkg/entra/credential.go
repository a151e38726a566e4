package entra

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Credential is how an app proves to Entra that it is itself. Exactly one of
// ClientSecret, Certificate and Federation is set.
type Credential struct {
	ClientSecret Secret
	// SecretExpiresAt is when the client secret expires, where the operator said
	// so: Entra tells nobody.
	SecretExpiresAt time.Time
	Certificate     *Certificate
	Federation      *Federation
}

// The kinds of credential, by the field that holds each in the API.
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

// ExpiresAt is when the credential stops working, zero where that is not known
// or never.
func (c Credential) ExpiresAt() time.Time {
	if c.Certificate != nil {
		return c.Certificate.NotAfter
	}
	return c.SecretExpiresAt
}

// Equal reports whether both are the same credential. When it is said to expire
// is not part of it.
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

// fingerprint is the same for credentials by which Entra takes an app for the
// same, and reveals none.
func (c Credential) fingerprint() [sha256.Size]byte {
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

// Federation is a credential that is not stored: an assertion that an
// [AssertionSource] issues when it is needed, and that a federated credential
// of the app registration accepts.
type Federation struct {
	Audience string
	// Issuer and Subject are what the assertions say of themselves, and what the
	// federated credential in Entra must repeat to the letter.
	Issuer, Subject string
}

// AssertionSource issues assertions for federation: JWTs, signed with RS256,
// that name the program itself as their subject. An error is an [*Error], or
// the context's where the context has ended.
type AssertionSource interface {
	Assertion(ctx context.Context, audience string) (Secret, error)
}

// Certificate is a certificate with its private key.
type Certificate struct {
	PEM        Secret // key and chain, as they were given
	NotAfter   time.Time
	Thumbprint string // base64url of the SHA-256 of the certificate

	notBefore time.Time
	key       *rsa.PrivateKey
}

const minKeyBits = 2048

// ParseCertificate reads a PEM file with one private key, its certificate and
// what may follow of the chain. Its error says what is wrong, and shows nothing
// of it. A certificate that is not in its time is no error here: one that was
// stored in time must still be read.
func ParseCertificate(file Secret) (*Certificate, error) {
	var key *rsa.PrivateKey
	var chain []*x509.Certificate
	for rest := []byte(file.Reveal()); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if len(strings.TrimSpace(string(rest))) > 0 {
				return nil, errors.New("holds something that is not PEM")
			}
			break
		}
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY", block.Headers["DEK-Info"] != "":
			return nil, errors.New("has an encrypted private key; decrypt it first, since nobody is there to enter a passphrase")
		case block.Type == "CERTIFICATE":
			certificate, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, errors.New("holds a certificate that cannot be read")
			}
			chain = append(chain, certificate)
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			if key != nil {
				return nil, errors.New("holds more than one private key")
			}
			var err error
			if key, err = parseKey(block); err != nil {
				return nil, err
			}
		default:
			return nil, errors.New("holds something other than a private key and certificates")
		}
	}
	switch {
	case key == nil:
		return nil, errors.New("has no private key")
	case len(chain) == 0:
		return nil, errors.New("has no certificate")
	case !key.PublicKey.Equal(chain[0].PublicKey):
		return nil, errors.New("has a private key that does not belong to its first certificate")
	}
	thumbprint := sha256.Sum256(chain[0].Raw)
	return &Certificate{
		PEM: file, NotAfter: chain[0].NotAfter, Thumbprint: base64.RawURLEncoding.EncodeToString(thumbprint[:]),
		notBefore: chain[0].NotBefore, key: key,
	}, nil
}

// inTime reports a certificate that has expired or is not valid yet.
func (c *Certificate) inTime(now time.Time) error {
	switch {
	case now.After(c.NotAfter):
		return fmt.Errorf("expired at %s", c.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(c.notBefore):
		return fmt.Errorf("is not valid before %s", c.notBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

func parseKey(block *pem.Block) (*rsa.PrivateKey, error) {
	var parsed any
	var err error
	if block.Type == "RSA PRIVATE KEY" {
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	} else {
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	key, isRSA := parsed.(*rsa.PrivateKey)
	switch {
	case block.Type == "EC PRIVATE KEY", err == nil && !isRSA, isRSA && err == nil && key.N.BitLen() < minKeyBits:
		return nil, errors.New("needs an RSA key of at least 2048 bits")
	case err != nil:
		return nil, errors.New("has a private key that cannot be read")
	}
	return key, nil
}

// assertion signs a client assertion (RFC 7523) in the form that Entra
// documents: PS256, the certificate's SHA-256 thumbprint, the tenant's token
// URL as audience, a fresh jti.
func (c *Certificate) assertion(clientID, tokenURL string, now time.Time) (Secret, error) {
	t := jwt.NewWithClaims(jwt.SigningMethodPS256, jwt.MapClaims{
		"aud": tokenURL,
		"iss": clientID,
		"sub": clientID,
		"jti": newGUID(),
		"nbf": now.Unix(),
		"iat": now.Unix(),
		"exp": now.Add(assertionLife).Unix(),
	})
	t.Header["x5t#S256"] = c.Thumbprint
	signed, err := t.SignedString(c.key)
	if err != nil {
		return Secret{}, fmt.Errorf("signing a client assertion: %w", err)
	}
	return NewSecret(signed), nil
}

const (
	// assertionLife is the ten minutes that Microsoft's own libraries use.
	assertionLife = 10 * time.Minute
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
)

// assertionForm returns the fields of a token request that prove an app that
// has no client secret.
func (c *Client) assertionForm(ctx context.Context, app App, tokenURL string) (url.Values, error) {
	var assertion Secret
	var err error
	switch app.Credential.Kind() {
	case KindClientSecret:
		return nil, nil
	case KindCertificate:
		assertion, err = app.Credential.Certificate.assertion(app.ClientID, tokenURL, c.now())
	case KindFederation:
		assertion, err = c.assertions.Assertion(ctx, app.Credential.Federation.Audience)
	}
	if err != nil {
		return nil, err
	}
	return url.Values{"client_assertion_type": {assertionType}, "client_assertion": {assertion.Reveal()}}, nil
}

// Identify returns the federation with the issuer and the subject that its
// assertions carry. Errors are those of the [AssertionSource].
func (c *Client) Identify(ctx context.Context, f Federation) (Federation, error) {
	assertion, err := c.assertions.Assertion(ctx, f.Audience)
	if err != nil {
		return f, err
	}
	var claims jwt.RegisteredClaims
	// Not verified: it was just issued to us, and is Entra's to verify.
	if _, _, err := jwt.NewParser().ParseUnverified(assertion.Reveal(), &claims); err != nil {
		return f, &Error{Class: Malformed, Code: CodeMalformed}
	}
	f.Issuer, f.Subject = claims.Issuer, claims.Subject
	return f, nil
}

// noAssertions is the source of a client that has none.
type noAssertions struct{}

func (noAssertions) Assertion(context.Context, string) (Secret, error) {
	return Secret{}, &Error{Class: Refused, Code: CodeFederationDisabled}
}
