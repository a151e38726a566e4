package main

import (
	"encoding/xml"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gonum.org/v1/plot/plotter"

	"entra-connector/internal/lambdahost"
	"entra-connector/internal/stack"
)

// A small run without Python fills every other section of the page.
func TestSmallRun(t *testing.T) {
	t.Chdir("../..") // the module that has the functions
	b := bench{bare: filepath.Join(t.TempDir(), "bare"), python: "no-python", due: 40, idle: 250, starts: 5, provisionings: 3, beside: 10, progress: t.Output()}
	var err error
	if b.provision, b.refresh, err = stack.Build(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if output, err := exec.Command("go", "build", "-C", "internal/bench", "-o", b.bare, "./bare").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	p, err := b.measure(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Idle) != 2 || p.Idle[0].Connections != 100 || p.Idle[1].Calls != 4 {
		t.Errorf("nothing due: got %+v, want a sweep of 100, and one of 250 with 4 AWS calls", p.Idle)
	}
	text := strings.Join(strings.Fields(p.String()), " ")
	for _, want := range []string{
		"| connections refreshed in a sweep | 40 | = 40 | met |", "| connections checked in a sweep, none due | 250 | = 250 | met |",
		"| its ListSecrets calls | 3 | ≤ 12 | met |", "| first connection of a new app | 8 | 1 | 270 ms |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in:\n%s", want, p)
		}
	}
	for _, unwanted := range []string{"NaN", "Inf", "Beside Python"} {
		if strings.Contains(text, unwanted) {
			t.Errorf("%q is in:\n%s", unwanted, p)
		}
	}
}

// good is a page whose figures meet all targets, though some only just.
func good() *page {
	report := lambdahost.Report{Duration: 244 * time.Second, MaxMemoryUsed: 64<<20 - 1, CPU: 9500 * time.Millisecond}
	due := sweep{Connections: 10_000, answer: answer{10_000, 10_000}, Calls: 10_190, Throttled: 101, Report: report,
		Pace: plotter.XYs{{X: 1, Y: 44}, {X: 2, Y: 45}}}
	idle := sweep{Connections: 100_000, answer: answer{Checked: 100_000}, Calls: 1011, Lists: 1010, Report: report}
	p := &page{Due: []sweep{due}, Idle: []sweep{idle}, Ours: &rival{due, due, idle}, Theirs: &rival{due, due, idle}}
	for _, ready := range []float64{10, 20, 20, 500} {
		p.Starts = append(p.Starts, &starts{Name: "some", Ready: []float64{ready}, Answered: []float64{ready}, megabytes: 11.999999})
	}
	return p
}

func TestMissedTargetsAreNamed(t *testing.T) {
	if missed := good().missed(); len(missed) > 0 {
		t.Errorf("missed: %q", missed)
	}
	for want, spoil := range map[string]func(*page){
		"refreshed in a sweep: 9,999, not = 10,000":            func(p *page) { p.Due[0].Refreshed-- },
		"222.2 s, the minimum at 45 writes a second: 1.10":     func(p *page) { p.Due[0].Duration += time.Second },
		"AWS calls throttled: 1.01 %, not < 1.00 %":            func(p *page) { p.Due[0].Throttled += 2 },
		"AWS calls for each refresh: 1.021, not ≤ 1.020":       func(p *page) { p.Due[0].Calls += 20 },
		"processor time for each refresh: 1.05 ms, not ≤ 1.00": func(p *page) { p.Due[0].CPU += time.Second },
		"memory, everything due: 64.0 MiB, not < 64.0 MiB":     func(p *page) { p.Due[0].MaxMemoryUsed++ },
		"memory, nothing due: 64.0 MiB, not < 64.0 MiB":        func(p *page) { p.Idle[0].MaxMemoryUsed++ },
		"checked in a sweep, none due: 99,999, not = 100,000":  func(p *page) { p.Idle[0].Checked-- },
		"ListSecrets calls: 1,011, not ≤ 1,010":                func(p *page) { p.Idle[0].Lists++ },
		"cold start of some ÷ of a bare function: 2.10, not ≤": func(p *page) { p.Starts[2].Ready[0]++ },
		"cold start of Python ÷ of refresh: 24.9, not ≥ 25":    func(p *page) { p.Starts[3].Ready[0] -= 2 },
		"size of some: 12.0 MB, not < 12.0 MB":                 func(p *page) { p.Starts[1].megabytes = 12 },
	} {
		p := good()
		spoil(p)
		if missed := p.missed(); len(missed) != 1 || !strings.Contains(missed[0], want) {
			t.Errorf("missed %q, want %q alone", missed, want)
		}
	}
}

func TestPageAndPlotsAreWritten(t *testing.T) {
	docs := t.TempDir()
	if err := good().write(docs); err != nil {
		t.Fatal(err)
	}
	page, _ := os.ReadFile(filepath.Join(docs, "performance.md"))
	for _, name := range []string{"growth", "pace", "python"} {
		svg, _ := os.ReadFile(filepath.Join(docs, "performance", name+".svg"))
		if err := xml.Unmarshal(svg, new(struct{})); err != nil {
			t.Errorf("%s.svg is not a picture: %v", name, err)
		}
		if !strings.Contains(string(svg), "Arial") || !strings.Contains(string(svg), `<path d="M0,0L600,0`) || strings.Contains(string(svg), "NaN") {
			t.Errorf("%s.svg lacks a common font, a white background or a number", name)
		}
		if !strings.Contains(string(page), "(performance/"+name+".svg)") {
			t.Errorf("the page does not show %s.svg", name)
		}
	}
}

func TestSpread(t *testing.T) {
	if got, want := spread("%.1f", []float64{5, 1, 4, 2, 3}), "3.0 (2.0–4.0)"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
