package entratest

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// assertionType is the only client_assertion_type there is (RFC 7523).
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// assertion is a client assertion: a JWT in place of a secret. One that the app signs with its
// certificate follows certificate-credentials.md, one of an external issuer follows
// workload-identity-federation-considerations.md.
type assertion struct {
	header struct {
		Alg  string `json:"alg"`
		X5t  string `json:"x5t"`
		X5t2 string `json:"x5t#S256"`
	}
	claims struct {
		Iss string      `json:"iss"`
		Sub string      `json:"sub"`
		Aud audience    `json:"aud"`
		JTI string      `json:"jti"`
		Exp json.Number `json:"exp"` // a number, or as MSAL for Go once had it a number in a string
		Nbf json.Number `json:"nbf"`
	}
	signed    string
	signature []byte
}

// audience is a string or a list of them.
type audience []string

func (a *audience) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(a))
}

func parseAssertion(jwt string) (*assertion, error) {
	part := strings.Split(jwt, ".")
	if len(part) != 3 {
		return nil, errors.New("JWT is not well formed")
	}
	a := &assertion{signed: part[0] + "." + part[1]}
	var err error
	if a.signature, err = base64.RawURLEncoding.DecodeString(part[2]); err != nil {
		return nil, errors.New("JWT signature is not base64url")
	}
	for i, into := range []any{&a.header, &a.claims} {
		b, err := base64.RawURLEncoding.DecodeString(part[i])
		if err != nil || json.Unmarshal(b, into) != nil {
			return nil, errors.New("JWT header or payload cannot be read")
		}
	}
	return a, nil
}

// selfIssued reports whether the assertion is to be checked against the app's certificates.
func (a *assertion) selfIssued(clientID string) bool {
	return a.header.X5t != "" || a.header.X5t2 != "" || strings.EqualFold(a.claims.Iss, clientID)
}

// assert checks the request's client assertion.
func (c *call) assert(g grant) int {
	for _, name := range []string{"client_assertion_type", "client_assertion"} {
		if c.form.Get(name) == "" {
			c.detail = name
			return 900144
		}
	}
	if c.form.Get("client_assertion_type") != assertionType {
		c.detail = "the client_assertion_type is unknown"
		return 9002313
	}
	a, err := parseAssertion(c.form.Get("client_assertion"))
	if err != nil {
		c.detail = err.Error()
		return 50027
	}
	if a.claims.Iss == "" || a.claims.Sub == "" || len(a.claims.Aud) == 0 {
		c.detail = "JWT lacks iss, sub or aud"
		return 50027
	}
	if a.selfIssued(c.request.ClientID) {
		return c.assertCertificate(a, g)
	}
	return c.assertFederated(a, g)
}

// assertCertificate checks an assertion that the app has signed itself.
func (c *call) assertCertificate(a *assertion, g grant) int {
	switch {
	case a.claims.Iss != a.claims.Sub:
		return 50048
	case !strings.EqualFold(a.claims.Sub, g.app.ClientID):
		return 700021
	}
	if c.detail = a.certificateFault(g.app, c.s.now()); c.detail != "" {
		return 700027
	}
	if c.detail = a.timeFault(c.s.now(), true); c.detail != "" {
		return 700024
	}
	// The tenant may stand in the URL by another of its names than the client has got from the
	// OpenID configuration.
	urls := []string{
		c.base + "/" + c.request.Tenant + "/oauth2/v2.0/token",
		c.base + "/" + g.tenant.ID + "/oauth2/v2.0/token",
	}
	if len(a.claims.Aud) != 1 || !slices.Contains(urls, a.claims.Aud[0]) {
		c.detail = "Client assertion audience claim does not match Realm issuer."
		return 50012
	}
	if a.claims.JTI == "" {
		c.detail = "Client assertion has no jti claim."
		return 50012
	}
	id := g.app.ClientID + " " + a.claims.JTI
	if c.s.used[id] {
		c.detail = "Client assertion has been used before."
		return 50012
	}
	c.s.used[id] = true
	return 0
}

// certificateFault says what is wrong with the signature or the key that made it; "" is nothing.
func (a *assertion) certificateFault(app App, now time.Time) string {
	for _, cert := range app.Certificates {
		sum, sum1 := sha256.Sum256(cert.Raw), sha1.Sum(cert.Raw) // SHA-1 names the certificate, no more
		var matches bool
		switch a.header.Alg {
		case "PS256":
			matches = thumbprint(a.header.X5t2) == string(sum[:])
		case "RS256": // the older form
			matches = thumbprint(a.header.X5t) == string(sum1[:])
		}
		if !matches {
			continue
		}
		if now.After(cert.NotAfter) {
			return "The key used is expired."
		}
		if key, ok := cert.PublicKey.(*rsa.PublicKey); !ok || !a.signedBy(key) {
			return "The provided signature value did not match the expected signature value."
		}
		return ""
	}
	return "The key was not found."
}

// thumbprint decodes x5t or x5t#S256: base64url by the documentation, while MSAL for Go sends the
// standard alphabet with padding.
func thumbprint(s string) string {
	b, _ := base64.RawURLEncoding.DecodeString(strings.NewReplacer("+", "-", "/", "_", "=", "").Replace(s))
	return string(b)
}

// assertFederated checks an assertion of an external issuer against the app's federated credentials.
// All of issuer, subject and audience must match one of them exactly. Such a token may be used again
// until it expires: a pod's or a workflow's is.
func (c *call) assertFederated(a *assertion, g grant) int {
	if len(g.app.Federated) == 0 {
		c.detail = fmt.Sprintf("Assertion Issuer: '%s'. Assertion Subject: '%s'. Assertion Audience: '%s'.",
			a.claims.Iss, a.claims.Sub, strings.Join(a.claims.Aud, "', '"))
		return 70021
	}
	matches := slices.Clone(g.app.Federated)
	for _, by := range []struct {
		code int
		got  string
		want func(Federated) string
	}{
		{700211, a.claims.Iss, func(f Federated) string { return f.Issuer }},
		{700213, a.claims.Sub, func(f Federated) string { return f.Subject }},
		{700212, strings.Join(a.claims.Aud, "', '"), func(f Federated) string { return f.Audience }},
	} {
		matches = slices.DeleteFunc(matches, func(f Federated) bool { return by.want(f) != by.got })
		if len(matches) == 0 {
			c.detail = by.got
			return by.code
		}
	}
	// Only RS256 is supported, by the documentation.
	if a.header.Alg != "RS256" || !slices.ContainsFunc(matches, func(f Federated) bool { return f.Key != nil && a.signedBy(f.Key) }) {
		c.detail = "The key was not found."
		return 700027
	}
	if c.detail = a.timeFault(c.s.now(), false); c.detail != "" {
		return 700024
	}
	return 0
}

// signedBy reports whether key made the signature, in the way that the header says.
func (a *assertion) signedBy(key *rsa.PublicKey) bool {
	sum := sha256.Sum256([]byte(a.signed))
	switch a.header.Alg {
	case "PS256": // RFC 7518 section 3.5: the salt is as long as the hash
		return rsa.VerifyPSS(key, crypto.SHA256, sum[:], a.signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
	case "RS256":
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], a.signature) == nil
	}
	return false
}

// timeFault says when the assertion would be valid, if it is not now; "" is valid. No clock skew is
// allowed for: Entra allows some, how much is not documented.
func (a *assertion) timeFault(now time.Time, needNbf bool) string {
	exp, err := a.claims.Exp.Int64()
	nbf, err2 := a.claims.Nbf.Int64()
	if a.claims.Nbf == "" && !needNbf {
		nbf, err2 = 0, nil
	}
	from, until := time.Unix(nbf, 0).UTC(), time.Unix(exp, 0).UTC()
	if err != nil || err2 != nil || now.Before(from) || !now.Before(until) {
		return fmt.Sprintf("assertion valid from %s, expiry time of assertion %s", from.Format(time.RFC3339), until.Format(time.RFC3339))
	}
	return ""
}
