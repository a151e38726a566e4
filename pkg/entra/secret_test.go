package entra_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"entra-connector/pkg/entra"
)

// A secret must not show through any verb or encoder, whatever holds it.
func TestSecretNeverPrints(t *testing.T) {
	type exported struct{ S entra.Secret }
	type unexported struct{ s entra.Secret }
	type nested struct {
		inner unexported
		list  []entra.Secret
		any   any
	}
	secret := entra.NewSecret(canary)
	holders := map[string]any{
		"itself":     secret,
		"pointer":    &secret,
		"exported":   exported{secret},
		"unexported": unexported{secret},
		"nested":     nested{unexported{secret}, []entra.Secret{secret}, unexported{secret}},
		"map":        map[string]entra.Secret{"k": secret},
		"app":        entra.Registration{Credential: entra.Credential{ClientSecret: secret, Certificate: &entra.Certificate{PEM: secret}}},
		"token":      entra.Token{AccessToken: secret},
		"error":      fmt.Errorf("wrapped: %v", secret),
	}
	for name, holder := range holders {
		for _, verb := range strings.Split("%v %+v %#v %s %q %x %X %d %t %T %p %08b", " ") {
			if got := fmt.Sprintf(verb, holder); strings.Contains(got, canary) || strings.Contains(got, fmt.Sprintf("%x", canary)) {
				t.Errorf("%s prints %s with %s", name, got, verb)
			}
		}
		if got, err := json.Marshal(holder); err == nil && bytes.Contains(got, []byte(canary)) {
			t.Errorf("%s marshals to %s", name, got)
		}
		for format, handler := range map[string]func(*bytes.Buffer) slog.Handler{
			"text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
			"JSON": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
		} {
			var b bytes.Buffer
			slog.New(handler(&b)).Info("m", "k", holder)
			if strings.Contains(b.String(), canary) {
				t.Errorf("%s logs %s as %s", name, b.String(), format)
			}
		}
	}
	if secret.Reveal() != canary {
		t.Errorf("Reveal() = %q", secret.Reveal())
	}
}

func TestSecretEqual(t *testing.T) {
	a, b, c := entra.NewSecret("x"), entra.NewSecret("x"), entra.NewSecret("y")
	if !a.Equal(b) || a.Equal(c) || a.Equal(entra.Secret{}) {
		t.Error("Equal compares by value")
	}
}
