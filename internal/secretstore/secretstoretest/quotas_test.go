package secretstoretest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"entra-connector/internal/secretstore/secretstoretest"
)

// TestAWSQuotas spends a second's worth of each group, and finds it back with time.
func TestAWSQuotas(t *testing.T) {
	c := newClock()
	s := secretstoretest.Start(t, secretstoretest.Options{Now: c.now, Quotas: secretstoretest.AWSQuotas})
	client := newClient(s.URL(), 1)
	ctx := t.Context()
	name := new("none")
	write := func() error { // the two share a quota
		_, err := client.UpdateSecret(ctx, &secretsmanager.UpdateSecretInput{SecretId: name})
		return err
	}
	put := func() error {
		_, err := client.PutSecretValue(ctx, &secretsmanager.PutSecretValueInput{SecretId: name, SecretString: new("v")})
		return err
	}
	create := func() error {
		_, err := client.CreateSecret(ctx, &secretsmanager.CreateSecretInput{Name: name})
		return err
	}
	remove := func() error {
		_, err := client.DeleteSecret(ctx, &secretsmanager.DeleteSecretInput{SecretId: name, RecoveryWindowInDays: new(int64(1))})
		return err
	}
	list := func() error {
		_, err := client.ListSecrets(ctx, &secretsmanager.ListSecretsInput{})
		return err
	}
	throttled := func(call func() error) bool { return outcome(call()) == "ThrottlingException" }
	for _, x := range []struct {
		group string
		call  func() error
		other func() error // of the same group
		rate  int
	}{
		{"writes", write, put, 50},
		{"creations", create, create, 50},
		{"deletions", remove, remove, 50},
		{"lists", list, list, 100},
	} {
		for i := range x.rate {
			if throttled(x.call) {
				t.Fatalf("%s: request %d is throttled", x.group, i+1)
			}
		}
		if !throttled(x.other) {
			t.Errorf("%s: request %d is not throttled", x.group, x.rate+1)
		}
	}
	c.advance(time.Second / 50)
	if throttled(put) || !throttled(write) {
		t.Error("after a fiftieth of a second, want one write to pass and the next to be throttled")
	}
	c.advance(time.Hour)
	passed := 0
	for passed < 100 && !throttled(write) {
		passed++
	}
	if passed != 50 {
		t.Errorf("%d writes at once after an hour's rest, want 50", passed)
	}
	if n := len(s.Names()); n != 1 {
		t.Errorf("%d secrets, want 1", n)
	}
}

func TestNoQuotas(t *testing.T) {
	c := newClock()
	s := secretstoretest.Start(t, secretstoretest.Options{Now: c.now, Quotas: secretstoretest.Quotas{Get: 1}})
	client := newClient(s.URL(), 1)
	for i := range 200 {
		s.Put(fmt.Sprint(i), "v", "")
		if got := update(t.Context(), client, fmt.Sprint(i), "v"); got != success {
			t.Fatalf("write %d: %s", i, got)
		}
	}
	read(t.Context(), client, "0")
	if got := read(t.Context(), client, "0"); got != "ThrottlingException" {
		t.Errorf("second read: %s", got)
	}
}
