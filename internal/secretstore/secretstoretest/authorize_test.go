package secretstoretest_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"entra-connector/internal/secretstore/secretstoretest"
)

func TestAuthorize(t *testing.T) {
	var asked []string
	allowed := true
	suffix := regexp.MustCompile(`-[A-Za-z0-9]{6}$`)
	s := secretstoretest.Start(t, secretstoretest.Options{Authorize: func(accessKeyID, action, resource string) bool {
		asked = append(asked, accessKeyID+" "+action+" "+suffix.ReplaceAllString(resource, "-??????"))
		return allowed
	}})
	client := newClient(s.URL(), 1)
	arn := ""
	calls := []struct {
		asks, on string
		call     func() error
	}{
		{"secretsmanager:CreateSecret arn:aws:secretsmanager:us-east-1:123456789012:secret:a/b-??????", "a/b", func() error {
			out, err := client.CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: aws.String("a/b"), SecretString: aws.String("v")})
			if err == nil {
				arn = *out.ARN
			}
			return err
		}},
		{"secretsmanager:GetSecretValue arn:aws:secretsmanager:us-east-1:123456789012:secret:a/b-??????", "a/b", func() error {
			_, err := client.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: aws.String("a/b")})
			return err
		}},
		{"secretsmanager:UpdateSecret arn:aws:secretsmanager:us-east-1:123456789012:secret:a/b-??????", "the ARN", func() error {
			_, err := client.UpdateSecret(t.Context(), &secretsmanager.UpdateSecretInput{SecretId: &arn, Description: aws.String("d")})
			return err
		}},
		{"secretsmanager:ListSecrets *", "", func() error {
			_, err := client.ListSecrets(t.Context(), &secretsmanager.ListSecretsInput{})
			return err
		}},
	}
	for _, x := range calls {
		asked = nil
		if err := x.call(); err != nil {
			t.Errorf("allowed %s: %v", x.asks, err)
		}
		if want := []string{"AKIDEXAMPLE " + x.asks}; !slices.Equal(asked, want) {
			t.Errorf("asked %q, want %q", asked, want)
		}
	}
	allowed = false
	before := s.Snapshot()
	for _, x := range calls {
		err := x.call()
		action, _, _ := strings.Cut(x.asks, " ")
		want := "User: arn:aws:sts::123456789012:assumed-role/AKIDEXAMPLE/session is not authorized to perform: " + action
		if x.on != "" {
			want += " on resource: " + strings.Replace(x.on, "the ARN", arn, 1)
		}
		want += " because no identity-based policy allows the " + action + " action"
		if outcome(err) != "AccessDeniedException" || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v\nwant %s", err, want)
		}
	}
	// Whether there is a secret is nothing that a stranger learns.
	_, err := client.DescribeSecret(t.Context(), &secretsmanager.DescribeSecretInput{SecretId: aws.String("none")})
	if outcome(err) != "AccessDeniedException" {
		t.Errorf("of a secret that does not exist: %v", err)
	}
	if s.Snapshot() != before {
		t.Errorf("what was refused took effect:\n%s", s.Snapshot())
	}
}
