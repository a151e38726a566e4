package entra_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

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
