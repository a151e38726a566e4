package stack

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// Build builds both functions from this module's source into dir and returns the paths of the binaries. It is for tests,
// which so always run the functions as they are now; under the race detector the functions get it too, and their packages
// are compiled once.
func Build(dir string) (provision, refresh string, err error) {
	gomod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", "", fmt.Errorf("finding the module: %w", err)
	}
	root := filepath.Dir(strings.TrimSpace(string(gomod)))
	if dir, err = filepath.Abs(dir); err != nil {
		return "", "", err
	}
	args := []string{"build", "-o", dir + string(filepath.Separator)}
	if raceDetector {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "./functions/provision", "./functions/refresh")...)
	build.Dir = root
	if output, err := build.CombinedOutput(); err != nil {
		return "", "", errors.Join(fmt.Errorf("building the functions: %w", err), errors.New(string(output)))
	}
	return filepath.Join(dir, "provision"), filepath.Join(dir, "refresh"), nil
}
