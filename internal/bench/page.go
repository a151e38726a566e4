package main

import (
	"cmp"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"text/template"
	"time"
)

// The limits that a sweep is judged by.
const (
	writesPerSecond = 45.0 // default of WRITES_PER_SECOND
	awsWrites       = 50.0 // writes a second that AWS allows
	maxMiB          = 64
)

// page is docs/performance.md. What was not measured is empty.
type page struct {
	Machine string
	Load    float64 // the load average at the start, for each core
	Python  string  // its version
	Took    time.Duration

	Due, Idle    []sweep
	Starts       []*starts // the bare function, refresh, provision, and perhaps Python
	Provisioned  []*provisioned
	Ours, Theirs *rival
}

// target is a figure and its limit.
type target struct {
	Part, What      string
	Measured, Limit string
	Met             bool
}

// targets are those of the parts that were measured.
func (p *page) targets() (all []target) {
	add := func(part, what, format string, measured float64, relation string, limit float64) {
		met := map[string]bool{"=": measured == limit, "≤": measured <= limit, "<": measured < limit, "≥": measured >= limit}
		all = append(all, target{part, what, english.Sprintf(format, measured), relation + " " + english.Sprintf(format, limit), met[relation]})
	}
	if s := last(p.Due); s.Connections > 0 {
		n := float64(s.Connections)
		add("due", "connections refreshed in a sweep", "%.0f", float64(s.Refreshed), "=", n)
		add("due", english.Sprintf("its time ÷ %.1f s, the minimum at %.0f writes a second", n/writesPerSecond, writesPerSecond),
			"%.3f", s.Duration.Seconds()*writesPerSecond/n, "≤", 1.10)
		add("due", "AWS calls for each refresh", "%.3f", s.CallsEach(), "≤", 1.02)
		add("due", "processor time for each refresh", "%.2f ms", s.CPUEach(), "≤", 1)
		add("due", "AWS calls throttled", "%.2f %%", 100*float64(s.Throttled)/float64(s.Calls), "<", 1)
		add("due", "memory, everything due", "%.1f MiB", s.MiB(), "<", maxMiB)
	}
	if s := last(p.Idle); s.Connections > 0 {
		add("idle", "connections checked in a sweep, none due", "%.0f", float64(s.Checked), "=", float64(s.Connections))
		add("idle", "its ListSecrets calls", "%.0f", float64(s.Lists), "≤", float64(s.Connections/100+10))
		add("idle", "memory, nothing due", "%.1f MiB", s.MiB(), "<", maxMiB)
	}
	if len(p.Starts) == 0 {
		return all
	}
	bare, refresh := p.Starts[0], p.Starts[1]
	for _, s := range p.Starts[1:3] {
		add("cold", "cold start of "+s.Name+" ÷ of a bare function", "%.2f", median(s.Ready)/median(bare.Ready), "≤", 2)
		add("cold", "size of "+s.Name, "%.1f MB", s.megabytes, "<", 12)
	}
	for _, python := range p.Starts[3:] {
		add("cold", "cold start of Python ÷ of refresh", "%.1f", median(python.Ready)/median(refresh.Ready), "≥", 25)
	}
	return all
}

// missed names every target that was missed.
func (p *page) missed() (names []string) {
	for _, t := range p.targets() {
		if !t.Met {
			names = append(names, fmt.Sprintf("%s: %s, not %s", t.What, t.Measured, t.Limit))
		}
	}
	return names
}

//go:embed page.tmpl
var pageText string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"printf": english.Sprintf,
	"median": median,
	"spread": spread,
	"div":    func(a, b float64) float64 { return a / b },
	"last":   last,
	"float":  func(n int) float64 { return float64(n) },
}).Parse(pageText))

// String is the text of the page, with its tables aligned.
func (p *page) String() string {
	var text, aligned strings.Builder
	if err := pageTemplate.Execute(&text, map[string]any{
		"Page": p, "Targets": p.targets(), "Date": time.Now().UTC().Format(time.DateOnly),
		"AWSLatency": awsLatency, "EntraLatency": entraLatency, "Ceiling": writesPerSecond, "AWSWrites": awsWrites,
	}); err != nil {
		panic(err)
	}
	w := tabwriter.NewWriter(&aligned, 0, 0, 0, ' ', 0)
	for line := range strings.Lines(text.String()) {
		if cells, ok := strings.CutPrefix(line, "|"); ok {
			line = "|" + strings.ReplaceAll(cells, "|", "\t|")
		}
		fmt.Fprint(w, line)
	}
	w.Flush()
	return aligned.String()
}

// write writes the page and its plots.
func (p *page) write(docs string) error {
	dir := filepath.Join(docs, "performance")
	return cmp.Or(os.MkdirAll(dir, 0o755), p.plot(dir), os.WriteFile(dir+".md", []byte(p.String()), 0o644))
}

// last is the largest sweep.
func last(all []sweep) sweep {
	if len(all) == 0 {
		return sweep{}
	}
	return all[len(all)-1]
}

// spread is the median and, in brackets, the quartiles around it.
func spread(format string, values []float64) string {
	return fmt.Sprintf(format+" ("+format+"–"+format+")", quantile(values, 0.5), quantile(values, 0.25), quantile(values, 0.75))
}

func median(values []float64) float64 { return quantile(values, 0.5) }

// quantile is the value that the share q of the values is below.
func quantile(values []float64, q float64) float64 {
	return slices.Sorted(slices.Values(values))[int(q*float64(len(values)-1)+0.5)]
}

// machine describes this machine and its load. On other systems than Linux it knows less.
func machine() (description string, load float64) {
	field := func(file, name string) string {
		content, _ := os.ReadFile(file)
		_, after, _ := strings.Cut(string(content), name)
		value, _, _ := strings.Cut(strings.TrimLeft(after, "\t :"), "\n")
		return value
	}
	_, _ = fmt.Sscan(field("/proc/loadavg", ""), &load)
	kB, _ := strconv.Atoi(strings.TrimSuffix(field("/proc/meminfo", "MemTotal"), " kB"))
	processor := cmp.Or(field("/proc/cpuinfo", "model name"), "unknown processor")
	return fmt.Sprintf("%s, %d cores, %d GiB, %s/%s, Go %s", processor, runtime.NumCPU(), kB>>20,
		runtime.GOOS, runtime.GOARCH, strings.TrimPrefix(runtime.Version(), "go")), load / float64(runtime.NumCPU())
}
