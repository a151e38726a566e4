package entra

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Certificate is a certificate with its private key.
type Certificate struct {
	PEM        Secret // key and certificates, as they were given
	NotAfter   time.Time
	Thumbprint string // base64url of the SHA-256 of the certificate

	notBefore time.Time
	public    any
	key       *rsa.PrivateKey
}

const minKeyBits = 2048

var (
	errNoPEM     = errors.New("is not PEM")
	errBrokenPEM = errors.New(`has lost its line breaks, or its lines are indented; send the file as it is, with one \n for each line break in JSON`)
	errRSA       = fmt.Errorf("needs an RSA key of at least %d bits", minKeyBits)
)

// ParseCertificate reads a PEM file with one private key and its certificate, in any order. If
// several certificates belong to the key, it takes the one that stays valid longest. It ignores all
// others, as Entra does. Its error says what is wrong with the file without quoting it. An expired
// certificate is no error, since one that was valid when it was stored must stay readable: see
// [Certificate.CheckTime].
func ParseCertificate(file Secret, now time.Time) (*Certificate, error) {
	key, found, unreadable, err := readPEM(file)
	if err != nil {
		return nil, err
	}
	var best *Certificate
	for _, c := range found {
		if key.PublicKey.Equal(c.public) && (best == nil || c.betterThan(best, now)) {
			best = c
		}
	}
	switch {
	case best != nil:
		best.PEM, best.key = file, key
		return best, nil
	case unreadable:
		return nil, errors.New("holds a certificate that cannot be read")
	case len(found) == 0:
		return nil, errors.New("has no certificate")
	}
	return nil, errors.New("has a private key that does not belong to its certificate")
}

// readPEM returns the private key and the certificates in a file, and whether there are others that
// cannot be read.
func readPEM(file Secret) (key *rsa.PrivateKey, found []*Certificate, unreadable bool, err error) {
	blocks := 0
	rest := bytes.TrimPrefix([]byte(file.Reveal()), []byte("\ufeff"))
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		blocks++
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY", block.Headers["DEK-Info"] != "":
			return nil, nil, false, errors.New("has an encrypted private key; decrypt it first, since nobody is there to enter a passphrase")
		case block.Type == "CERTIFICATE":
			certificate, err := parseX509(block.Bytes)
			if err == nil {
				found = append(found, certificate)
			}
			unreadable = unreadable || err != nil
		case block.Type == "EC PARAMETERS":
			return nil, nil, false, errRSA
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			if key != nil {
				return nil, nil, false, errors.New("holds more than one private key")
			}
			if key, err = parseKey(block); err != nil {
				return nil, nil, false, err
			}
		default:
			return nil, nil, false, errors.New("holds something other than a private key and certificates")
		}
	}
	switch {
	case bytes.Contains(rest, []byte("-----BEGIN")):
		return nil, nil, false, errBrokenPEM
	case blocks == 0:
		return nil, nil, false, errNoPEM
	case key == nil:
		return nil, nil, false, errors.New("has no private key")
	}
	return key, found, unreadable, nil
}

func (c *Certificate) betterThan(other *Certificate, now time.Time) bool {
	if begun, otherBegun := !now.Before(c.notBefore), !now.Before(other.notBefore); begun != otherBegun {
		return begun
	}
	return c.NotAfter.After(other.NotAfter)
}

// parseX509 reads only what it needs. Go refuses certificates that Entra accepts, such as one with
// a negative serial number, although RFC 5280 asks programs to handle those.
func parseX509(der []byte) (*Certificate, error) {
	var c struct {
		TBS struct {
			Version      int `asn1:"optional,explicit,default:0,tag:0"`
			SerialNumber *big.Int
			Signature    asn1.RawValue
			Issuer       asn1.RawValue
			Validity     struct{ NotBefore, NotAfter time.Time }
			Subject      asn1.RawValue
			PublicKey    asn1.RawValue
		}
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &c); err != nil {
		return nil, err
	}
	public, err := x509.ParsePKIXPublicKey(c.TBS.PublicKey.FullBytes)
	thumbprint := sha256.Sum256(der)
	return &Certificate{
		NotAfter: c.TBS.Validity.NotAfter, Thumbprint: base64.RawURLEncoding.EncodeToString(thumbprint[:]),
		notBefore: c.TBS.Validity.NotBefore, public: public,
	}, err
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

var oidRSAPSS = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}

// parseKey tries each format, since the block's label is often wrong.
func parseKey(block *pem.Block) (*rsa.PrivateKey, error) {
	var parsed any
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		if pkcs1, pkcs1Err := x509.ParsePKCS1PrivateKey(block.Bytes); pkcs1Err == nil {
			parsed, err = pkcs1, nil
		}
	}
	var pkcs8 struct {
		Version   int
		Algorithm struct {
			Algorithm  asn1.ObjectIdentifier
			Parameters asn1.RawValue `asn1:"optional"`
		}
		Key []byte
	}
	key, isRSA := parsed.(*rsa.PrivateKey)
	switch {
	case block.Type == "EC PRIVATE KEY", err == nil && (!isRSA || key.N.BitLen() < minKeyBits):
		return nil, errRSA
	case err == nil:
		return key, nil
	}
	if _, asn1Err := asn1.Unmarshal(block.Bytes, &pkcs8); asn1Err == nil && pkcs8.Algorithm.Algorithm.Equal(oidRSAPSS) {
		return nil, errors.New("has a key that is restricted to RSASSA-PSS; create an ordinary RSA key")
	}
	return nil, errors.New("has a private key that cannot be read")
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
