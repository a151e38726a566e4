package secretstoretest_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"

	"entra-connector/internal/secretstore/secretstoretest"
)

// listAll lists page by page and returns the names in order, and how many each page had.
func listAll(tb testing.TB, client *secretsmanager.Client, in secretsmanager.ListSecretsInput) (names []string, sizes []int) {
	tb.Helper()
	for {
		page, err := client.ListSecrets(tb.Context(), &in)
		if err != nil {
			tb.Fatal(err)
		}
		for _, e := range page.SecretList {
			names = append(names, *e.Name)
		}
		sizes = append(sizes, len(page.SecretList))
		if in.NextToken = page.NextToken; in.NextToken == nil {
			return names, sizes
		}
	}
}

func TestPagesOf250(t *testing.T) {
	s := secretstoretest.Start(t, secretstoretest.Options{})
	var want []string
	for i := range 250 {
		name := fmt.Sprintf("%03d", 999-i)
		s.Put(name, "v", "")
		want = append(want, name)
	}
	names, sizes := listAll(t, newClient(s.URL(), 1), secretsmanager.ListSecretsInput{})
	if !slices.Equal(names, want) {
		t.Errorf("listed %v, want the order of creation", names)
	}
	if got := fmt.Sprint(sizes); got != "[100 100 50]" {
		t.Errorf("pages of %s", got)
	}
	_, sizes = listAll(t, newClient(s.URL(), 1), secretsmanager.ListSecretsInput{MaxResults: new(int32(50))})
	if got := fmt.Sprint(sizes); got != "[50 50 50 50 50]" {
		t.Errorf("pages of %s: a last page must not promise another", got)
	}
}

// TestPagesWhileChanging removes and adds secrets between two pages: the others come once each.
func TestPagesWhileChanging(t *testing.T) {
	for _, by := range []types.SortByType{"", "name"} {
		t.Run(string(by), func(t *testing.T) {
			s := secretstoretest.Start(t, secretstoretest.Options{})
			client := newClient(s.URL(), 1)
			for i := range 10 {
				s.Put(fmt.Sprint("s", i), "v", "")
			}
			in := secretsmanager.ListSecretsInput{SortBy: by, MaxResults: new(int32(5))}
			first, err := client.ListSecrets(t.Context(), &in)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"s0", "s4", "s5"} {
				_, err := client.DeleteSecret(t.Context(), &secretsmanager.DeleteSecretInput{SecretId: &name, ForceDeleteWithoutRecovery: new(true)})
				if err != nil {
					t.Fatal(err)
				}
			}
			s.Put("z", "v", "")
			in.NextToken = first.NextToken
			names, _ := listAll(t, client, in)
			if want := []string{"s6", "s7", "s8", "s9", "z"}; !slices.Equal(names, want) {
				t.Errorf("second page %v, want %v", names, want)
			}
		})
	}
}

func TestSortBy(t *testing.T) {
	c := newClock()
	s := secretstoretest.Start(t, secretstoretest.Options{Now: c.now})
	client := newClient(s.URL(), 1)
	for _, name := range []string{"b", "c", "a"} {
		c.advance(time.Second)
		s.Put(name, "v", "")
	}
	c.advance(time.Second)
	s.Put("c", "v2", "")
	for _, x := range []struct {
		by    types.SortByType
		order types.SortOrderType
		want  string
	}{
		{"", "", "[b c a]"},
		{"created-date", "desc", "[a c b]"},
		{"name", "asc", "[a b c]"},
		{"name", "desc", "[c b a]"},
		{"last-changed-date", "", "[b a c]"},
	} {
		names, _ := listAll(t, client, secretsmanager.ListSecretsInput{SortBy: x.by, SortOrder: x.order, MaxResults: new(int32(1))})
		if got := fmt.Sprint(names); got != x.want {
			t.Errorf("by %q %q: %s, want %s", x.by, x.order, got, x.want)
		}
	}
	for _, in := range []secretsmanager.ListSecretsInput{{SortBy: "colour"}, {SortOrder: "up"}} {
		_, err := client.ListSecrets(t.Context(), &in)
		if outcome(err) != "ValidationException" {
			t.Errorf("%+v: %s", in, outcome(err))
		}
	}
}

func TestNextTokenOfAnotherList(t *testing.T) {
	s := secretstoretest.Start(t, secretstoretest.Options{})
	client := newClient(s.URL(), 1)
	s.Put("a", "v", "")
	s.Put("b", "v", "")
	first, err := client.ListSecrets(t.Context(), &secretsmanager.ListSecretsInput{MaxResults: new(int32(1))})
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.ListSecrets(t.Context(), &secretsmanager.ListSecretsInput{
		NextToken: first.NextToken, Filters: []types.Filter{{Key: "name", Values: []string{"b"}}},
	})
	if outcome(err) != "InvalidNextTokenException" {
		t.Errorf("got %s", outcome(err))
	}
}

// TestSparsePages has a filter that leaves out thousands: AWS may then send short and even empty pages.
func TestSparsePages(t *testing.T) {
	s := secretstoretest.Start(t, secretstoretest.Options{})
	s.Put("wanted-0", "v", "")
	for i := range 11000 {
		s.Put(fmt.Sprint("other-", i), "v", "")
	}
	s.Put("wanted-1", "v", "")
	names, sizes := listAll(t, newClient(s.URL(), 1), secretsmanager.ListSecretsInput{
		Filters: []types.Filter{{Key: "name", Values: []string{"wanted"}}},
	})
	if got := fmt.Sprint(names, sizes); got != "[wanted-0 wanted-1] [1 0 1]" {
		t.Errorf("got %s", got)
	}
}

func TestVersionPages(t *testing.T) {
	s := secretstoretest.Start(t, secretstoretest.Options{})
	for range 5 {
		s.Put("a", "v", "")
	}
	in := &secretsmanager.ListSecretVersionIdsInput{SecretId: new("a"), IncludeDeprecated: new(true), MaxResults: new(int32(2))}
	client := newClient(s.URL(), 1)
	seen := make(map[string]bool)
	var sizes []int
	for pages := secretsmanager.NewListSecretVersionIdsPaginator(client, in); pages.HasMorePages(); {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range page.Versions {
			seen[*v.VersionId] = true
		}
		sizes = append(sizes, len(page.Versions))
	}
	if got := fmt.Sprint(len(seen), sizes); got != "5 [2 2 1]" {
		t.Errorf("got %s", got)
	}
	in.NextToken = new("made-up")
	if _, err := client.ListSecretVersionIds(t.Context(), in); outcome(err) != "InvalidNextTokenException" {
		t.Errorf("made-up NextToken: %s", outcome(err))
	}
}

func BenchmarkListOf100000(b *testing.B) {
	for _, by := range []types.SortByType{"created-date", "name"} {
		b.Run(string(by), func(b *testing.B) {
			s := secretstoretest.Start(b, secretstoretest.Options{})
			for i := range 100_000 {
				s.Put(fmt.Sprint(i), "v", "")
			}
			client := newClient(s.URL(), 1)
			for b.Loop() {
				if names, _ := listAll(b, client, secretsmanager.ListSecretsInput{SortBy: by}); len(names) != 100_000 {
					b.Fatalf("listed %d", len(names))
				}
			}
		})
	}
}

func BenchmarkUpdate(b *testing.B) {
	s := secretstoretest.Start(b, secretstoretest.Options{ListLag: 5 * time.Minute})
	for i := range 10_000 {
		s.Put(fmt.Sprint(i), "v", "")
	}
	client := newClient(s.URL(), 1)
	for i := 0; b.Loop(); i++ {
		if got := update(b.Context(), client, fmt.Sprint(i%10_000), "v2"); got != success {
			b.Fatal(got)
		}
	}
}
