package entratest

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
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
		Alg string
		X5t string `json:"x5t#S256"`
	}
	claims struct {
		Iss, Sub, Aud, JTI string
		Exp, Nbf           int64
	}
	signed    string
	signature []byte
}

// parseAssertion returns nil if the JWT cannot be decoded.
func parseAssertion(jwt string) *assertion {
	part := strings.Split(jwt, ".")
	if len(part) != 3 {
		return nil
	}
	// What is not base64url fails below: then it is no JSON, or not what was signed.
	header, _ := base64.RawURLEncoding.DecodeString(part[0])
	payload, _ := base64.RawURLEncoding.DecodeString(part[1])
	a := &assertion{signed: part[0] + "." + part[1]}
	a.signature, _ = base64.RawURLEncoding.DecodeString(part[2])
	if json.Unmarshal(header, &a.header) != nil || json.Unmarshal(payload, &a.claims) != nil {
		return nil
	}
	return a
}

// selfIssued reports whether to check the assertion against the app's certificates.
func (a *assertion) selfIssued(clientID string) bool {
	return a.header.X5t != "" || strings.EqualFold(a.claims.Iss, clientID)
}

func (c *call) checkAssertion() int {
	a := c.assertion
	switch {
	case c.form.Get("client_assertion_type") != assertionType:
		c.detail = "the client_assertion_type is unknown"
		return 9002313
	case a == nil || a.claims.Iss == "" || a.claims.Sub == "" || a.claims.Aud == "":
		return 50027
	case a.selfIssued(c.request.ClientID):
		return c.checkCertificate(a)
	}
	return c.checkFederated(a)
}

// checkCertificate checks an assertion that the app has signed itself.
func (c *call) checkCertificate(a *assertion) int {
	now, id := c.s.options.Now(), c.app.ClientID+" "+a.claims.JTI
	byOwn := func(cert *x509.Certificate) bool {
		sum := sha256.Sum256(cert.Raw)
		key, ok := cert.PublicKey.(*rsa.PublicKey)
		return ok && a.thumbprint() == string(sum[:]) && !now.After(cert.NotAfter) && a.signedBy(key, "PS256")
	}
	// The URL may name the tenant by its domain while the client uses the GUID, which it has from
	// the OpenID configuration.
	url := func(tenant string) string { return c.base + "/" + tenant + "/oauth2/v2.0/token" }
	switch {
	case a.claims.Iss != a.claims.Sub:
		return 50048
	case !strings.EqualFold(a.claims.Sub, c.app.ClientID):
		return 700021
	case !slices.ContainsFunc(c.app.Certificates, byOwn):
		return 700027
	case a.claims.Nbf == 0 || !a.validAt(now):
		return 700024
	case a.claims.Aud != url(c.request.Tenant) && a.claims.Aud != url(c.tenant.ID):
		c.detail = "Client assertion audience claim does not match Realm issuer."
		return 50012
	case a.claims.JTI == "" || c.s.used[id]:
		c.detail = "Client assertion has no jti claim, or one that was used before."
		return 50012
	}
	c.s.used[id] = true
	return 0
}

// checkFederated checks an assertion of an external issuer. Issuer, subject and audience must all
// match one federated credential exactly. The client may use such a token again until it expires.
func (c *call) checkFederated(a *assertion) int {
	if len(c.app.Federated) == 0 {
		return 70021
	}
	matches := slices.Clone(c.app.Federated)
	for _, by := range []struct {
		code int
		got  string
		want func(Federated) string
	}{
		{700211, a.claims.Iss, func(f Federated) string { return f.Issuer }},
		{700213, a.claims.Sub, func(f Federated) string { return f.Subject }},
		{700212, a.claims.Aud, func(f Federated) string { return f.Audience }},
	} {
		matches = slices.DeleteFunc(matches, func(f Federated) bool { return by.want(f) != by.got })
		if len(matches) == 0 {
			c.detail = by.got
			return by.code
		}
	}
	// The documentation supports RS256 only.
	if !slices.ContainsFunc(matches, func(f Federated) bool { return a.signedBy(f.Key, "RS256") }) {
		return 700027
	}
	if !a.validAt(c.s.options.Now()) {
		return 700024
	}
	return 0
}

// thumbprint decodes x5t#S256. The documentation says base64url; MSAL for Go sends the standard
// alphabet with padding.
func (a *assertion) thumbprint() string {
	b, _ := base64.RawURLEncoding.DecodeString(strings.NewReplacer("+", "-", "/", "_", "=", "").Replace(a.header.X5t))
	return string(b)
}

// signedBy reports whether key made the signature with this algorithm.
func (a *assertion) signedBy(key *rsa.PublicKey, alg string) bool {
	sum := sha256.Sum256([]byte(a.signed))
	switch {
	case a.header.Alg != alg:
		return false
	case alg == "PS256": // RFC 7518 section 3.5: the salt is as long as the hash
		return rsa.VerifyPSS(key, crypto.SHA256, sum[:], a.signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
	}
	return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], a.signature) == nil
}

// validAt allows for no clock skew. Entra allows some; how much is not documented.
func (a *assertion) validAt(now time.Time) bool {
	return !now.Before(time.Unix(a.claims.Nbf, 0)) && now.Before(time.Unix(a.claims.Exp, 0))
}
