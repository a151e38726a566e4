package secretstoretest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"entra-connector/internal/secretstore/secretstoretest"
)

// TestListLag follows one secret through its life, and sees each stage listed five minutes late, to the nanosecond.
func TestListLag(t *testing.T) {
	const lag = 5 * time.Minute
	c := newClock()
	s := secretstoretest.Start(t, secretstoretest.Options{Now: c.now, ListLag: lag})
	client := newClient(s.URL(), 1)
	ctx := t.Context()
	listed := func() (all []string) {
		page, err := client.ListSecrets(ctx, &secretsmanager.ListSecretsInput{IncludePlannedDeletion: new(true)})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.SecretList {
			shown := *e.Name + "=" + aws.ToString(e.Description)
			if e.DeletedDate != nil {
				shown += " (pending)"
			}
			all = append(all, shown)
		}
		return all
	}
	name := new("a")
	var arns []string
	create := func(description string) func() error {
		return func() error {
			out, err := client.CreateSecret(ctx, &secretsmanager.CreateSecretInput{Name: name, Description: &description})
			if err == nil {
				arns = append(arns, *out.ARN)
			}
			return err
		}
	}
	before := "[]"
	for _, x := range []struct {
		step string
		do   func() error
		then string
	}{
		{"create", create("one"), "[a=one]"},
		{"update", func() error {
			_, err := client.UpdateSecret(ctx, &secretsmanager.UpdateSecretInput{SecretId: name, Description: new("two")})
			return err
		}, "[a=two]"},
		{"delete", func() error {
			_, err := client.DeleteSecret(ctx, &secretsmanager.DeleteSecretInput{SecretId: name})
			return err
		}, "[a=two (pending)]"},
		{"restore", func() error {
			_, err := client.RestoreSecret(ctx, &secretsmanager.RestoreSecretInput{SecretId: name})
			return err
		}, "[a=two]"},
		{"force", func() error {
			_, err := client.DeleteSecret(ctx, &secretsmanager.DeleteSecretInput{SecretId: name, ForceDeleteWithoutRecovery: new(true)})
			return err
		}, "[]"},
		{"create again", create("three"), "[a=three]"},
	} {
		if err := x.do(); err != nil {
			t.Fatalf("%s: %v", x.step, err)
		}
		if got := fmt.Sprint(listed()); got != before {
			t.Errorf("%s: listed at once: %s, want %s", x.step, got, before)
		}
		c.advance(lag - time.Nanosecond)
		if got := fmt.Sprint(listed()); got != before {
			t.Errorf("%s: listed too early: %s, want %s", x.step, got, before)
		}
		c.advance(time.Nanosecond)
		if got := fmt.Sprint(listed()); got != x.then {
			t.Errorf("%s: listed %s later: %s, want %s", x.step, lag, got, x.then)
		}
		before = x.then
	}
	if len(arns) != 2 || arns[0] == arns[1] {
		t.Errorf("ARNs %v, want two", arns)
	}
}

// TestLagOnlyOfListSecrets has a reader by name see changes at once.
func TestLagOnlyOfListSecrets(t *testing.T) {
	s := secretstoretest.Start(t, secretstoretest.Options{ListLag: time.Hour})
	s.Put("a", "v", "d")
	d, err := newClient(s.URL(), 1).DescribeSecret(t.Context(), &secretsmanager.DescribeSecretInput{SecretId: new("a")})
	if err != nil || *d.Description != "d" {
		t.Errorf("described %+v, %v", d, err)
	}
}

// TestLagShowsChangesInBetween has several changes within the lag, each of which is shown in its turn.
func TestLagShowsChangesInBetween(t *testing.T) {
	c := newClock()
	s := secretstoretest.Start(t, secretstoretest.Options{Now: c.now, ListLag: 10 * time.Second})
	client := newClient(s.URL(), 1)
	for i := range 20 {
		s.Put("a", "v", fmt.Sprint(i))
		page, err := client.ListSecrets(t.Context(), &secretsmanager.ListSecretsInput{})
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case i < 10 && len(page.SecretList) != 0:
			t.Errorf("listed %d s after the creation", i)
		case i >= 10 && (len(page.SecretList) != 1 || *page.SecretList[0].Description != fmt.Sprint(i-10)):
			t.Errorf("second %d: listed %v, want description %d", i, page.SecretList, i-10)
		}
		c.advance(time.Second)
	}
}
