package entra

import (
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Certificate is a certificate with its private key.
type Certificate struct {
	PEM        Secret // key and chain, as they were given
	NotAfter   time.Time
	Thumbprint string // base64url of the SHA-256 of the certificate

	notBefore time.Time
	key       *rsa.PrivateKey
}

const minKeyBits = 2048

// ParseCertificate reads a PEM file with one private key, its certificate and, optionally, the rest of
// the chain. Its error says what is wrong with the file, and shows nothing of it. A certificate that
// has expired is no error here, since one that was stored in time must still be read: see
// [Certificate.CheckTime].
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

// CheckTime reports a certificate that has expired or is not valid yet.
func (c *Certificate) CheckTime(now time.Time) error {
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

// assertion signs a client assertion (RFC 7523) in the form that Entra documents: PS256, the
// certificate's SHA-256 thumbprint, the tenant's token URL as audience, a fresh jti.
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

// assertionLife is the ten minutes that Microsoft's own libraries use.
const assertionLife = 10 * time.Minute
