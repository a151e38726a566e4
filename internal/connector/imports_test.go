package connector_test

import (
	"os/exec"
	"strings"
	"testing"
)

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
