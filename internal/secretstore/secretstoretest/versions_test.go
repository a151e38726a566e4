package secretstoretest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"

	"entra-connector/internal/secretstore/secretstoretest"
)

// TestVersionQuota fills a secret up within a day, and sees the old versions make room afterwards.
func TestVersionQuota(t *testing.T) {
	c := newClock()
	s := secretstoretest.Start(t, secretstoretest.Options{Now: c.now})
	client := newClient(s.URL(), 1)
	s.Put("a", "v0", "")
	for i := range 99 {
		if got := update(t.Context(), client, "a", fmt.Sprint("v", i+1)); got != success {
			t.Fatalf("update %d: %s", i, got)
		}
	}
	c.advance(24*time.Hour - time.Nanosecond)
	if got := update(t.Context(), client, "a", "v100"); got != "LimitExceededException" {
		t.Errorf("version 101 within a day: %s", got)
	}
	if got, _ := s.Value("a"); got != "v99" {
		t.Errorf("value is %q after a refusal, want v99", got)
	}
	c.advance(time.Nanosecond)
	if got := update(t.Context(), client, "a", "v100"); got != success {
		t.Errorf("version 101 a day later: %s", got)
	}
	for version, want := range map[string]string{"AWSCURRENT": "v100", "AWSPREVIOUS": "v99"} {
		out, err := client.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: new("a"), VersionStage: &version})
		if err != nil || *out.SecretString != want {
			t.Errorf("%s is not %s: %v", version, want, err)
		}
	}
}

// TestLabelledVersionsStay has the oldest version keep its place for its label.
func TestLabelledVersionsStay(t *testing.T) {
	c := newClock()
	s := secretstoretest.Start(t, secretstoretest.Options{Now: c.now})
	client := newClient(s.URL(), 1)
	s.Put("a", "v", "")
	_, err := client.PutSecretValue(t.Context(), &secretsmanager.PutSecretValueInput{
		SecretId: new("a"), SecretString: new("kept"), VersionStages: []string{"mine"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 120 {
		c.advance(time.Hour)
		if got := update(t.Context(), client, "a", "v"); got != success {
			t.Fatal(got)
		}
	}
	out, err := client.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: new("a"), VersionStage: new("mine")})
	if err != nil || *out.SecretString != "kept" {
		t.Errorf("lost a labelled version: %v", err)
	}
	versions, err := client.ListSecretVersionIds(t.Context(), &secretsmanager.ListSecretVersionIdsInput{SecretId: new("a"), IncludeDeprecated: new(true)})
	if err != nil || len(versions.Versions) != 100 {
		t.Errorf("%d versions, want 100; %v", len(versions.Versions), err)
	}
}

func TestTagQuota(t *testing.T) {
	s := secretstoretest.Start(t, secretstoretest.Options{})
	s.Put("a", "v", "")
	client := newClient(s.URL(), 1)
	tag := func(key string) string {
		_, err := client.TagResource(t.Context(), &secretsmanager.TagResourceInput{
			SecretId: new("a"), Tags: []types.Tag{{Key: &key, Value: new("v")}},
		})
		return outcome(err)
	}
	for i := range 50 {
		if got := tag(fmt.Sprint(i)); got != success {
			t.Fatalf("tag %d: %s", i, got)
		}
	}
	before := s.Snapshot()
	if got := tag("50"); got != "LimitExceededException" || s.Snapshot() != before {
		t.Errorf("tag 51: %s", got)
	}
	if got := tag("49"); got != success {
		t.Errorf("tag 50 again: %s", got)
	}
}

func TestRecoveryWindowEnds(t *testing.T) {
	c := newClock()
	s := secretstoretest.Start(t, secretstoretest.Options{Now: c.now})
	client := newClient(s.URL(), 1)
	for i, name := range []string{"long", "short"} { // the window that began last ends first
		days := int64(8 - i)
		s.Put(name, "v", "")
		if _, err := client.DeleteSecret(t.Context(), &secretsmanager.DeleteSecretInput{SecretId: &name, RecoveryWindowInDays: &days}); err != nil {
			t.Fatal(err)
		}
	}
	gone := func(name string) bool {
		_, err := client.DescribeSecret(t.Context(), &secretsmanager.DescribeSecretInput{SecretId: &name})
		return outcome(err) == "ResourceNotFoundException"
	}
	c.advance(7*24*time.Hour - time.Nanosecond)
	if gone("short") {
		t.Error("gone before its window ended")
	}
	c.advance(time.Nanosecond)
	if !gone("short") || gone("long") {
		t.Error("after 7 days, want short gone and long there")
	}
	c.advance(24 * time.Hour)
	if !gone("long") {
		t.Error("still there after its window ended")
	}
}

// TestDates has every edit move LastChangedDate, a version's CreatedDate stay, and LastAccessedDate be a day.
func TestDates(t *testing.T) {
	c := newClock()
	s := secretstoretest.Start(t, secretstoretest.Options{Now: c.now})
	client := newClient(s.URL(), 1)
	ctx := t.Context()
	start := c.now()
	s.Put("a", "v", "")
	name := new("a")
	describe := func() *secretsmanager.DescribeSecretOutput {
		out, err := client.DescribeSecret(ctx, &secretsmanager.DescribeSecretInput{SecretId: name})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for op, edit := range map[string]func() error{
		"UpdateSecret": func() error {
			_, err := client.UpdateSecret(ctx, &secretsmanager.UpdateSecretInput{SecretId: name, Description: new("d")})
			return err
		},
		"TagResource": func() error {
			_, err := client.TagResource(ctx, &secretsmanager.TagResourceInput{SecretId: name, Tags: []types.Tag{{Key: new("k"), Value: new("v")}}})
			return err
		},
		"UntagResource": func() error {
			_, err := client.UntagResource(ctx, &secretsmanager.UntagResourceInput{SecretId: name, TagKeys: []string{"k"}})
			return err
		},
		"DeleteSecret": func() error {
			if _, err := client.DeleteSecret(ctx, &secretsmanager.DeleteSecretInput{SecretId: name}); err != nil {
				return err
			}
			if got := describe().LastChangedDate; !got.Equal(c.now()) {
				t.Errorf("changed %v by DeleteSecret, want %v", got, c.now())
			}
			c.advance(time.Second)
			_, err := client.RestoreSecret(ctx, &secretsmanager.RestoreSecretInput{SecretId: name})
			return err
		},
	} {
		c.advance(1500 * time.Millisecond)
		if err := edit(); err != nil {
			t.Fatal(err)
		}
		if got := describe().LastChangedDate; !got.Equal(c.now()) {
			t.Errorf("changed %v by %s, want %v", got, op, c.now())
		}
	}
	d := describe()
	if !d.CreatedDate.Equal(start) || d.LastAccessedDate != nil {
		t.Errorf("created %v, accessed %v; want %v, never", d.CreatedDate, d.LastAccessedDate, start)
	}
	out, err := client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: name})
	if err != nil || !out.CreatedDate.Equal(start) {
		t.Errorf("version created %v, want %v; %v", out.CreatedDate, start, err)
	}
	if got, want := describe().LastAccessedDate, time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC); got == nil || !got.Equal(want) {
		t.Errorf("accessed %v, want %v", got, want)
	}
}

func TestSeedAndInspect(t *testing.T) {
	s := secretstoretest.Start(t, secretstoretest.Options{})
	client := newClient(s.URL(), 1)
	s.Put("b", "v1", "d1")
	s.Put("a", "v1", "")
	before := s.Snapshot()
	s.Put("b", "v2", "d2")
	if s.Snapshot() == before {
		t.Error("Snapshot does not tell values apart")
	}
	if v, _ := s.Value("b"); v != "v2" {
		t.Errorf("Value is %q, want v2", v)
	}
	if d, _ := s.Description("b"); d != "d2" {
		t.Errorf("Description is %q, want d2", d)
	}
	if got := fmt.Sprint(s.Names()); got != "[a b]" {
		t.Errorf("Names are %s", got)
	}
	if len(s.Calls()) != 0 {
		t.Errorf("seeding was recorded: %v", s.Calls())
	}
	want := `a
  description ""
  versions 1
  "v1" [AWSCURRENT]
b
  description "d2"
  versions 2
  "v1" [AWSPREVIOUS]
  "v2" [AWSCURRENT]
`
	if got := s.Snapshot(); got != want {
		t.Errorf("snapshot:\n%swant:\n%s", got, want)
	}

	if _, err := client.DeleteSecret(t.Context(), &secretsmanager.DeleteSecretInput{SecretId: new("a")}); err != nil {
		t.Fatal(err)
	}
	_, valued := s.Value("a")
	_, described := s.Description("a")
	if valued || described || len(s.Names()) != 1 {
		t.Error("a secret whose deletion is pending passes for a live one")
	}
	if s.Snapshot() == want {
		t.Error("Snapshot does not show the deletion")
	}
	for i := range 150 { // no quota applies
		s.Put("a", fmt.Sprint("v", i), "")
	}
	if v, ok := s.Value("a"); !ok || v != "v149" {
		t.Errorf("Value is %q after seeding anew", v)
	}
}
