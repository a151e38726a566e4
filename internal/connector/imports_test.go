package connector

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the table of codes in docs/operations.md")

// The table that people read is the one that the code uses.
func TestOperationsListsEveryCode(t *testing.T) {
	const path, head = "../../docs/operations.md", "| from the connector | meaning | what to do |\n| --- | --- | --- |\n"
	var table strings.Builder
	for _, code := range slices.Sorted(maps.Keys(own)) {
		fmt.Fprintf(&table, "| `%s` | %s | %s |\n", code, own[code].Title, own[code].Action)
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
		t.Errorf("%s does not list what the code says; run go test ./internal/connector -run Operations -update", path)
	}
}

// The lifecycle stands on the protocol alone. Stores and edges stand on it, and not the other way.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	ours := 0
	for _, p := range strings.Fields(string(out)) {
		if strings.Contains(p, "aws") {
			t.Errorf("internal/connector depends on %s", p)
		}
		if strings.HasPrefix(p, "entra-connector/") {
			ours++
		}
	}
	if ours != 2 {
		t.Errorf("internal/connector depends on %d packages of this module, want itself and pkg/entra", ours)
	}
}
