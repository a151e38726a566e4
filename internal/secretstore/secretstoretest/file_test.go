package secretstoretest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"

	"entra-connector/internal/secretstore/secretstoretest"
)

func TestFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "new", "state.json")
	c := newClock()
	o := secretstoretest.Options{File: file, Now: c.now, ListLag: 5 * time.Minute}
	s := secretstoretest.Start(t, o)
	client := newClient(s.URL(), 1)
	ctx := t.Context()
	if _, err := os.Stat(file); err == nil {
		t.Error("saved before there was anything to save")
	}
	created, err := client.CreateSecret(ctx, &secretsmanager.CreateSecretInput{
		Name: new("a"), SecretString: new("v1"), Description: new("d"), Tags: []types.Tag{{Key: new("k"), Value: new("v")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	update(ctx, client, "a", "v2")
	s.Put("seeded", "v", "")
	s.Put("deleted", "v", "")
	_, err = client.DeleteSecret(ctx, &secretsmanager.DeleteSecretInput{SecretId: new("deleted"), RecoveryWindowInDays: new(int64(7))})
	if err != nil {
		t.Fatal(err)
	}
	s.Put("gone", "v", "")
	_, err = client.DeleteSecret(ctx, &secretsmanager.DeleteSecretInput{SecretId: new("gone"), ForceDeleteWithoutRecovery: new(true)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.PutSecretValue(ctx, &secretsmanager.PutSecretValueInput{SecretId: new("seeded"), SecretBinary: []byte{0}}); err != nil {
		t.Fatal(err)
	}

	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o600 {
		t.Errorf("mode %o, want 600", mode)
	}
	if left, _ := os.ReadDir(filepath.Dir(file)); len(left) != 1 {
		t.Errorf("files left over: %v", left)
	}

	// No Close: what was answered is saved, however the program ends.
	again := secretstoretest.Start(t, o)
	if got, want := again.Snapshot(), s.Snapshot(); got != want {
		t.Errorf("loaded:\n%swant:\n%s", got, want)
	}
	client = newClient(again.URL(), 1)
	d, err := client.DescribeSecret(ctx, &secretsmanager.DescribeSecretInput{SecretId: created.ARN})
	if err != nil || *d.ARN != *created.ARN || !d.CreatedDate.Equal(c.now()) || len(d.VersionIdsToStages) != 2 {
		t.Errorf("loaded %+v, %v", d, err)
	}
	page, err := client.ListSecrets(ctx, &secretsmanager.ListSecretsInput{})
	if err != nil || len(page.SecretList) != 2 {
		t.Errorf("listed %d of what was loaded, want 2: %v", len(page.SecretList), err)
	}
	c.advance(7 * 24 * time.Hour)
	if strings.Contains(again.Snapshot(), "deleted\n") {
		t.Error("a recovery window does not outlast the program")
	}
}

func TestFileTightensMode(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state.json")
	if err := os.WriteFile(file, []byte("[]"), 0o644); err != nil {
		t.Fatal(err)
	}
	secretstoretest.Start(t, secretstoretest.Options{File: file}).Put("a", "v", "")
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 600; %v", info.Mode(), err)
	}
}

func TestFileUnreadable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state.json")
	if err := os.WriteFile(file, []byte(`[{"Name":"c4nary"`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := secretstoretest.New(secretstoretest.Options{File: file})
	if err == nil || strings.Contains(err.Error(), "c4nary") || !strings.Contains(err.Error(), file) {
		t.Errorf("got %v", err)
	}
}

func TestFileUnwritable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := secretstoretest.Start(t, secretstoretest.Options{File: dir})
	s.Put("a", "v1", "")
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got := update(t.Context(), newClient(s.URL(), 1), "a", "v2"); got != "InternalServiceError" {
		t.Errorf("update that could not be saved: %s", got)
	}
	if err := s.Close(); err == nil {
		t.Error("Close does not tell")
	}
	if left, _ := os.ReadDir(filepath.Dir(dir)); len(left) != 1 {
		t.Errorf("files left over: %v", left)
	}
}
