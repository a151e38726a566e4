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
	const path, head = "../../docs/operations.md", "| code | | meaning | what to do |\n| --- | --- | --- | --- |\n"
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(page), head)
	if !found {
		t.Fatalf("%s has no table of codes", path)
	}
	_, after, _ := strings.Cut(rest, "\n## ")
	want := before + head + codeTable() + "\n## " + after
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if string(page) != want {
		t.Errorf("%s does not list what the code says; run go test ./pkg/entra -update", path)
	}
}

func codeTable() string {
	classes := map[Class]string{Refused: "person", Unsettled: "settles", Throttled: "passes", Unavailable: "passes"}
	var b strings.Builder
	for _, entry := range aadsts {
		var codes []string
		for _, code := range entry.codes {
			codes = append(codes, fmt.Sprint(code))
		}
		fmt.Fprintf(&b, "| AADSTS %s | %s | %s | %s |\n", strings.Join(codes, ", "), classes[entry.class], entry.Title, entry.Action)
	}
	for _, code := range slices.Sorted(maps.Keys(explanations)) {
		fmt.Fprintf(&b, "| `%s` | | %s | %s |\n", code, explanations[code].Title, explanations[code].Action)
	}
	return b.String()
}
