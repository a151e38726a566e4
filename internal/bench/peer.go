package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

func (b *bench) python() string {
	path, _ := filepath.Abs(filepath.Join(b.venv, "bin", "python"))
	return path
}

func (b *bench) peerBinary() string { return filepath.Join(b.peer, "bootstrap") }

// installPeer installs what the Python function needs, and returns Python's version. Where that fails, and nothing but
// it, the function is left out.
func (b *bench) installPeer(ctx context.Context) string {
	if b.venv == "" {
		return ""
	}
	b.say("installing the Python function's packages in %s", b.venv)
	for _, command := range [][]string{
		{"python3", "-m", "venv", b.venv},
		{b.python(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", filepath.Join(b.peer, "requirements.txt")},
	} {
		if output, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput(); err != nil {
			b.say("it is left out, since %s fails: %v\n%s", strings.Join(command[:3], " "), err, output)
			b.venv = ""
			return ""
		}
	}
	version, _ := exec.CommandContext(ctx, b.python(), "-c", "import platform; print(platform.python_version())").Output()
	return strings.TrimSpace(string(version))
}

// rival is what is measured of ours and the Python function alike.
type rival struct {
	first, next [2]sweep // of connections that are all due, by the number of them: the process's first sweep, and its next
	nothing     sweep    // with none due, of the larger number
}

// sideBySide runs both functions on the same connections. Each has two sweeps with everything due, the first of its process
// and another one, for which it has its connections open and knows the tenants, and one with nothing due.
func (b *bench) sideBySide(ctx context.Context, p *page) error {
	p.beside = b.beside
	for size, n := range b.beside {
		if err := b.measureRival(ctx, "entra-connector", b.refresh, &p.ours, size, n); err != nil {
			return err
		}
		if b.venv == "" {
			continue
		}
		if err := b.measureRival(ctx, "Python", b.peerBinary(), &p.theirs, size, n); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) measureRival(ctx context.Context, name, binary string, v *rival, size, n int) (err error) {
	r, err := b.rig(true, binary)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := r.seed(n, n, soon); err != nil {
		return err
	}
	if v.first[size], err = b.sweep(ctx, r, name+", first sweep"); err != nil {
		return err
	}
	if err := r.age(n, n, soon); err != nil {
		return err
	}
	if v.next[size], err = b.sweep(ctx, r, name+", next sweep"); err != nil {
		return err
	}
	if v.nothing, err = b.sweep(ctx, r, name+", nothing due"); err != nil {
		return err
	}
	if v.first[size].Refreshed != n || v.next[size].Refreshed != n || v.nothing.Refreshed != 0 {
		return fmt.Errorf("%s did not refresh what is due, and that alone:\n%s", name, r.log.Bytes())
	}
	return nil
}
