package entra

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// Secret holds a client secret or an access token. It prints as "[redacted]"
// with every verb, through every encoder and inside any struct; [Secret.Reveal]
// is the only way to the value. The zero Secret holds none.
//
// The value sits behind a pointer because fmt cannot call the methods of an
// unexported field and would print a plain string field as it is.
type Secret struct{ p *string }

// NewSecret returns a Secret that holds value.
func NewSecret(value string) Secret { return Secret{p: &value} }

// Reveal returns the value itself. Every call is a place where a secret leaves
// its type: a request to Entra, or the write to the store.
func (s Secret) Reveal() string {
	if s.p == nil {
		return ""
	}
	return *s.p
}

// Equal reports whether both hold the same value, in constant time for values of the same length.
func (s Secret) Equal(other Secret) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(other.Reveal())) == 1
}

// Format implements [fmt.Formatter].
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// MarshalText implements [encoding.TextMarshaler], and so also covers JSON.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue implements [slog.LogValuer].
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }
