package stack

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
)

// Build builds both functions into dir and returns their paths. It is for tests, and uses the race
// detector if they do.
func Build(dir string) (provision, refresh string, err error) {
	args := []string{"build", "-o", dir + string(filepath.Separator)}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	args = append(args, "entra-connector/functions/provision", "entra-connector/functions/refresh")
	if output, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("building the functions: %w\n%s", err, output)
	}
	return filepath.Join(dir, "provision"), filepath.Join(dir, "refresh"), nil
}

// BuildConnect builds the function of the customer's page into dir and returns its path.
func BuildConnect(dir string) (string, error) {
	output, err := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "entra-connector/functions/connect").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building the customer's page: %w\n%s", err, output)
	}
	return filepath.Join(dir, "connect"), nil
}
