package stacktest

import (
	"bytes"
	"strings"
	"sync"
	"testing"
)

// Output is a buffer for what comes out of the functions, and knows the secrets that must not. Its
// methods may be called concurrently.
type Output struct {
	mu      sync.Mutex
	text    bytes.Buffer
	secrets []string
}

func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

// String is what has been written since the last Take.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Guard adds secrets that must not come out. An empty one is none.
func (o *Output) Guard(secrets ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, secret := range secrets {
		if secret != "" {
			o.secrets = append(o.secrets, secret)
		}
	}
}

// Take empties the buffer and returns what was in it. It fails the test if there is a secret in
// that, and leaves the secret out.
func (o *Output) Take(t testing.TB) string {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	text := o.text.String()
	o.text.Reset()
	const hidden = "[a client secret or an access token]"
	var pairs []string
	for _, secret := range o.secrets {
		pairs = append(pairs, secret, hidden)
	}
	text = strings.NewReplacer(pairs...).Replace(text) // in one pass, since there may be thousands
	for line := range strings.Lines(text) {
		if strings.Contains(line, hidden) {
			t.Errorf("a secret came out: %s", line)
		}
	}
	return text
}
