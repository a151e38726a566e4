package main

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"time"

	"entra-connector/internal/connector"
)

// pass is what a browser remembers of its way, in one cookie. Nobody signs it, so nothing in it is
// believed: what it says about account and tenant is only shown, to the browser that sent it. Which
// tenant somebody has proved to come from is stored with the invitation, under an ID that follows
// from the key.
type pass struct {
	Link string `json:"l"`
	Key  string `json:"k,omitempty"` // random; replaced after each answer of Microsoft
	Step step   `json:"s"`
	End  string `json:"e,omitempty"` // the code of how it ended
	// Round makes the state of each way to the consent page another one.
	Round string `json:"r,omitempty"`

	Account  string `json:"a,omitempty"`
	Tenant   string `json:"t,omitempty"`
	ClientID string `json:"i,omitempty"`
	Since    int64  `json:"c,omitempty"` // when Microsoft said that the consent was given
}

// step is how far somebody has come.
type step string

const (
	begun     step = ""        // has been sent to sign in
	signedIn  step = "signed"  // may connect the tenant
	consent   step = "consent" // has been sent to consent
	approved  step = "approved"
	connected step = "connected"
)

// The prefix keeps other hosts of the domain from setting the cookie. Lax lets it come along when
// Microsoft sends the browser back.
const (
	cookieName = "__Host-connect"
	cookieLife = time.Hour
)

// next returns the pass for the next step, with a new key.
func (p pass) next(to step) pass {
	p.Key, p.Step, p.End = rand.Text(), to, ""
	return p
}

// ended returns the pass of a way that ended. It has no key, so no answer fits it.
func (p pass) ended(code string) pass {
	return pass{Link: p.Link, End: code, Account: p.Account, Tenant: p.Tenant, ClientID: p.ClientID}
}

// The purposes for which a key is used.
const (
	forState    = "state"
	forConsent  = "state of consent"
	forNonce    = "nonce"
	forVerifier = "verifier"
	forSignIn   = "sign-in"
)

// derive returns a value of 43 characters that only this key has for the purpose. One that is
// public tells nothing about the others.
func (p pass) derive(purpose string) string {
	mac := hmac.New(sha256.New, []byte(p.Key))
	mac.Write([]byte(purpose + "\n" + p.Link))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// signInID names a sign-in in the store.
func (p pass) signInID() string { return p.derive(forSignIn)[:22] }

// expects reports whether a state is the one that was sent.
func (p pass) expects(state string) bool {
	if p.Key == "" {
		return false
	}
	want := ""
	switch p.Step {
	case begun:
		want = p.derive(forState)
	case consent:
		want = p.derive(forConsent + p.Round)
	default:
		return false
	}
	return subtle.ConstantTimeCompare([]byte(state), []byte(want)) == 1
}

// passOf reads the cookie.
func passOf(r *http.Request) (p pass) {
	cookie, err := r.Cookie(cookieName)
	if err != nil {
		return pass{}
	}
	text, err := base64.RawURLEncoding.DecodeString(cookie.Value)
	if err != nil || json.Unmarshal(text, &p) != nil {
		return pass{}
	}
	return p
}

// passFor reads the cookie if it is about the link.
func passFor(r *http.Request, link connector.Link) pass {
	if p := passOf(r); subtle.ConstantTimeCompare([]byte(p.Link), []byte(link.Reveal())) == 1 {
		return p
	}
	return pass{Link: link.Reveal()}
}

// set sends the cookie.
func (p pass) set(w http.ResponseWriter) {
	text, _ := json.Marshal(p) // strings and a number
	http.SetCookie(w, &http.Cookie{
		Name: cookieName, Value: base64.RawURLEncoding.EncodeToString(text), Path: "/", MaxAge: int(cookieLife / time.Second),
		Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}
