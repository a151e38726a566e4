package entra

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the table of codes in docs/operations.md")

// The table that people read is the one that the code uses.
func TestOperationsListsEveryCode(t *testing.T) {
	const path, head = "../../docs/operations.md", "| from Entra | | meaning | what to do |\n| --- | --- | --- | --- |\n"
	classes := map[Class]string{Refused: "person", Unsettled: "settles", Throttled: "passes", Unavailable: "passes"}
	var table strings.Builder
	for _, r := range aadsts {
		codes := strings.Trim(strings.ReplaceAll(fmt.Sprint(r.codes), " ", ", "), "[]")
		fmt.Fprintf(&table, "| AADSTS %s | %s | %s | %s |\n", codes, classes[r.class], r.title, r.action)
		for _, code := range r.codes {
			if got := rowOf(fmt.Sprint("AADSTS", code)); got.advice() != r.advice() || r.title == "" || !strings.HasSuffix(r.action, ".") {
				t.Errorf("%d is listed twice, or not explained: %+v", code, r)
			}
		}
	}
	for _, code := range slices.Sorted(maps.Keys(failures)) {
		fmt.Fprintf(&table, "| `%s` | | %s | %s |\n", code, failures[code].Title, failures[code].Action)
	}

	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(page), head)
	_, after, _ := strings.Cut(rest, "\n\n")
	if !found {
		t.Fatalf("%s has no table of codes", path)
	}
	want := before + head + table.String() + "\n" + after
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if string(page) != want {
		t.Errorf("%s does not list what the code says; run go test ./pkg/entra -update", path)
	}
}

// The protocol stands by itself: it needs nothing of AWS, and no other package of this module.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := strings.Fields(string(out))
	if len(packages) < 50 {
		t.Fatalf("only %d packages listed", len(packages))
	}
	for _, p := range packages {
		if strings.Contains(p, "aws") || strings.HasPrefix(p, "entra-connector/") && p != "entra-connector/pkg/entra" {
			t.Errorf("pkg/entra depends on %s", p)
		}
	}
}

// Nor does it name what belongs to those who use it: routes, parameters of a deployment, AWS.
func TestNamesNothingAbove(t *testing.T) {
	above := regexp.MustCompile(`/apps/|/connections|PUT |POST |Federation=|\bSTS\b|Lambda|Secrets Manager`)
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if found := above.Find(text); found != nil && !strings.HasSuffix(name, "_test.go") {
			t.Errorf("%s names %q", name, found)
		}
	}
}
