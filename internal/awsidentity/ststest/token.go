package ststest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// request is what a GetWebIdentityToken asks for.
type request struct {
	audience []string
	life     time.Duration
}

// parse reads the parameters and holds them to the API reference. AWS says all that is wrong at once; this says the
// first thing.
func parse(form url.Values) (request, *apiError) {
	invalid := func(format string, args ...any) (request, *apiError) {
		return request{}, fail(http.StatusBadRequest, "ValidationError", "1 validation error detected: "+format, args...)
	}
	var req request
	audiences := 0
	for k := range form {
		switch {
		case strings.HasPrefix(k, "Audience."):
			audiences++
		case strings.HasPrefix(k, "Tags."):
			return invalid("the stand-in STS has no tags")
		}
	}
	for n := 1; form.Has(fmt.Sprintf("Audience.member.%d", n)); n++ {
		req.audience = append(req.audience, form.Get(fmt.Sprintf("Audience.member.%d", n)))
	}
	if audiences != len(req.audience) {
		return invalid("members of 'audience' are not numbered from 1")
	}
	if n := len(req.audience); n < 1 || n > 10 {
		return invalid("'audience' has %d members, must have 1 to 10", n)
	}
	for _, a := range req.audience {
		if n := utf8.RuneCountInString(a); n < 1 || n > 1000 {
			return invalid("a member of 'audience' has %d characters, must have 1 to 1000", n)
		}
	}
	switch alg := form.Get("SigningAlgorithm"); alg {
	case "RS256":
	case "ES384":
		return invalid("the stand-in STS signs with RS256 only, not with ES384")
	default:
		return invalid("Value '%s' at 'signingAlgorithm' failed to satisfy constraint: Member must satisfy enum value set: [RS256, ES384]", alg)
	}
	seconds := 300
	if form.Has("DurationSeconds") {
		var err error
		if seconds, err = strconv.Atoi(form.Get("DurationSeconds")); err != nil || seconds < 60 || seconds > 3600 {
			return invalid("Value '%s' at 'durationSeconds' failed to satisfy constraint: Member must be between 60 and 3600", form.Get("DurationSeconds"))
		}
	}
	req.life = time.Duration(seconds) * time.Second
	return req, nil
}

// key signs all tokens of all servers: making one takes long.
var key = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// issueLocked makes a token. Its claims are those of "Understanding token claims"; of AWS's own, which depend on where the
// caller runs, there are the account and the Region that every caller has.
func (s *Server) issueLocked(req request, region string) result {
	at := s.now().UTC().Truncate(time.Second)
	expires := at.Add(req.life)
	claims := map[string]any{
		"iss": s.issuer, "sub": s.subject, "aud": req.audience,
		"iat": at.Unix(), "nbf": at.Unix(), "exp": expires.Unix(), "jti": newUUID(),
		"https://sts.amazonaws.com/": map[string]any{"aws_account": s.account, "source_region": region},
	}
	if len(req.audience) == 1 {
		claims["aud"] = req.audience[0]
	}
	return result{WebIdentityToken: sign(claims), Expiration: expires}
}

// sign makes an RS256 JWT (RFC 7515, RFC 7518 section 3.3).
func sign(claims map[string]any) string {
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err) // strings and numbers only
	}
	enc := base64.RawURLEncoding.EncodeToString
	signed := enc([]byte(`{"alg":"RS256","typ":"JWT","kid":"ststest"}`)) + "." + enc(payload)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key(), crypto.SHA256, sum[:])
	if err != nil {
		panic(err) // a good key and a digest of the right size
	}
	return signed + "." + enc(signature)
}

// newUUID returns a random UUID, such as AWS uses for requests and tokens.
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
