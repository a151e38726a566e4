package setup

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"testing"
)

// The table of variables in docs/configuration.md names those that the functions read, and defaults
// that change nothing.
func TestDocumentedVariables(t *testing.T) {
	page, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	defaults := make(map[string]string)
	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\| (?:`(.*?)`|[^|`]*) \\|").FindAllStringSubmatch(string(page), -1) {
		documented = append(documented, row[1])
		defaults[row[1]] = row[2]
	}
	var known []string
	unset, err := read(func(name string) (string, bool) {
		known = append(known, name)
		return "", false
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(documented)
	slices.Sort(known)
	if !slices.Equal(documented, known) {
		t.Errorf("documented are\n%q, the functions read\n%q", documented, known)
	}
	if set, err := readFrom(defaults); err != nil || !reflect.DeepEqual(set, unset) {
		t.Errorf("the documented defaults mean\n%+v, %v, want\n%+v", set, err, unset)
	}
}
