package entra_test

import (
	"os/exec"
	"strings"
	"testing"
)

// The library knows Entra and nothing of AWS, nor of the rest of this module.
func TestImportsNoAWS(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := strings.Fields(string(out))
	if len(packages) < 50 {
		t.Fatalf("only %d packages listed", len(packages))
	}
	for _, p := range packages {
		if strings.Contains(p, "aws") || strings.Contains(p, "entra-connector/internal") || strings.Contains(p, "entratest") {
			t.Errorf("pkg/entra depends on %s", p)
		}
	}
}
