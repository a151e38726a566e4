package entra

import (
	"flag"
	"fmt"
	"maps"
	"os"
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
		fmt.Fprintf(&table, "| AADSTS %s | %s | %s | %s |\n", codes, classes[r.class], r.Title, r.Action)
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
