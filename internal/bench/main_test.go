package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"entra-connector/internal/lambdahost"
	"entra-connector/internal/stack"
)

// A small run, without Python, goes through every part and leaves no figure out.
func TestQuickRun(t *testing.T) {
	dir := t.TempDir()
	provision, refresh, err := stack.Build(dir)
	if err != nil {
		t.Fatal(err)
	}
	bare := filepath.Join(dir, "bare")
	if output, err := exec.Command("go", "build", "-o", bare, "./bare").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-quick", "-provision", provision, "-refresh", refresh, "-bare", bare, "-venv", "",
		"-connections", "40", "-idle", "250"}, &out); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"| refreshed | 40 | all 40, met |", "| connections looked at | 250 |", "| ListSecrets calls | 3 | ≤ 12, met |",
		"| the first connection of a new app | 4 | 1 | 210 ms |", "could not be had on this machine: nothing was compared",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in:\n%s", want, &out)
		}
	}
	if strings.Contains(text, "NaN") || strings.Contains(text, "Inf") {
		t.Errorf("a figure is missing:\n%s", &out)
	}
}

// good is a page whose figures all meet their targets, though some only just.
func good() *page {
	p := &page{python: "3.13.0", asked: 10_000, idle: 100_000, sizes: []int64{1, 11_999_999, 11_999_999}}
	p.due = sweep{Checked: 10_000, Refreshed: 10_000, calls: 10_190, throttled: 101,
		Report: lambdahost.Report{Duration: 244e9, MaxMemoryUsed: 64<<20 - 1}}
	p.nothing = sweep{Checked: 100_000, calls: 1011, lists: 1010, Report: lambdahost.Report{MaxMemoryUsed: 64<<20 - 1}}
	for _, ready := range []float64{10, 20, 20, 500} {
		p.starts = append(p.starts, &starts{name: "some", ready: []float64{ready}, answered: []float64{ready}})
	}
	return p
}

func TestMissedTargetsAreNamed(t *testing.T) {
	if missed := good().missed(); len(missed) > 0 {
		t.Errorf("missed: %q", missed)
	}
	for want, spoil := range map[string]func(*page){
		"refreshed: 9,999, not all 10,000":               func(p *page) { p.due.Refreshed-- },
		"floor of 10,000 ÷ 45 a second = 222.2 s: 1.10":  func(p *page) { p.due.Duration += 1e9 },
		"AWS calls throttled: 103 of 10,190, not < 1 %":  func(p *page) { p.due.throttled += 2 },
		"AWS calls for each refresh: 1.021, not ≤ 1.020": func(p *page) { p.due.calls += 20 },
		"most memory used (resident): 64.0 MiB":          func(p *page) { p.nothing.MaxMemoryUsed++ },
		"connections looked at: 99,999, not all 100,000": func(p *page) { p.nothing.Checked-- },
		"ListSecrets calls: 1,011, not ≤ 1,010":          func(p *page) { p.nothing.lists++ },
		"cold start of some: 2.1 ×, not ≤ 2.0 ×":         func(p *page) { p.starts[2].ready = []float64{21} },
		"cold start beside Python: 24.9 ×, not ≥ 25 ×":   func(p *page) { p.starts[3].ready = []float64{498} },
		"size of some: 12.0 MB, not < 12 MB":             func(p *page) { p.sizes[1]++ },
	} {
		p := good()
		spoil(p)
		if missed := p.missed(); len(missed) != 1 || !strings.Contains(missed[0], want) {
			t.Errorf("missed %q, want %q alone", missed, want)
		}
	}
	p := good()
	p.python, p.starts = "", p.starts[:3]
	if missed := p.missed(); len(missed) > 0 {
		t.Errorf("without Python, missed: %q", missed)
	}
}

func TestSpread(t *testing.T) {
	if got, want := spread([]float64{5, 1, 4, 2, 3}, "%.1f"), "3.0 (2.0–4.0)"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := spread([]float64{1, 2}, "%.2f"), "1.50 (1.25–1.75)"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
