package main

import (
	"fmt"
	"iter"
	"math"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// What the template and AWS set, and by which a sweep is judged.
const (
	ceiling  = 45.0 // writes a second: WRITES_PER_SECOND's default
	awsQuota = 50.0 // writes a second that AWS allows
)

// page is docs/performance.md.
type page struct {
	machine machine
	python  string // its version; empty if there was none
	took    time.Duration

	asked, idle  int // connections that were due, and of the sweep with nothing due
	due, nothing sweep

	others float64   // share of the machine that other programs had during the cold starts
	starts []*starts // the bare function, refresh, provision and, if there was Python, its function
	sizes  []int64   // of the first three's binaries, in bytes

	newApp, knownApp provisioned

	beside       [2]int
	ours, theirs rival
}

// row is a line of a table: what, how it came out, and, where there is one, its target.
type row struct {
	what, measured, target string
	missed                 bool
}

// atMost is a row with a target. Format takes both numbers.
func atMost(what string, measured, limit float64, format string) row {
	return row{what, fmt.Sprintf(format, measured), "≤ " + fmt.Sprintf(format, limit), !(measured <= limit)}
}

func plain(what, format string, args ...any) row {
	return row{what: what, measured: fmt.Sprintf(format, args...)}
}

// memory is a row with the target of both kinds of sweep.
func memory(bytes int64) row {
	const limit = 64
	what := "most memory used (resident)"
	if bytes == 0 {
		return plain(what, "not measured: no /proc here")
	}
	return row{what, mib(bytes), fmt.Sprintf("< %d MiB", limit), bytes >= limit<<20}
}

func mib(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }

func (p *page) dueRows() []row {
	floor := float64(p.asked) / ceiling
	all := row{"refreshed", thousands(p.due.Refreshed), "all " + thousands(p.asked), p.due.Refreshed != p.asked}
	throttled := 100 * float64(p.due.throttled) / float64(p.due.calls)
	return []row{
		all,
		plain("time", "%.1f s", p.due.Duration.Seconds()),
		atMost(fmt.Sprintf("over the floor of %s ÷ %.0f a second = %.1f s", thousands(p.asked), ceiling, floor), p.due.Duration.Seconds()/floor, 1.10, "%.3f ×"),
		plain("refreshes a second", "%.1f; in each 10 s %s", p.due.rate(), spread(p.due.rates, "%.1f")),
		plain(fmt.Sprintf("of the %.0f writes a second that AWS allows", awsQuota), "%.0f %%", 100*p.due.rate()/awsQuota),
		{"AWS calls throttled", fmt.Sprintf("%d of %s", p.due.throttled, thousands(p.due.calls)), "< 1 %", throttled >= 1},
		atMost("AWS calls for each refresh", p.due.callsEach(), 1.02, "%.3f"),
		memory(p.due.MaxMemoryUsed),
	}
}

func (p *page) nothingRows() []row {
	limit := p.idle/100 + 10
	return []row{
		{"connections looked at", thousands(p.nothing.Checked), "all " + thousands(p.idle), p.nothing.Checked != p.idle},
		{"ListSecrets calls", thousands(p.nothing.lists), "≤ " + thousands(limit), p.nothing.lists > limit},
		plain("other AWS calls", "%d", p.nothing.calls-p.nothing.lists),
		plain("time", "%.1f s", p.nothing.Duration.Seconds()),
		memory(p.nothing.MaxMemoryUsed),
	}
}

func (p *page) startRows() [][]string {
	bare := p.starts[0]
	rows := [][]string{{"", "until it asks for work", "× bare", "target", "until its first answer", "× bare", "most memory"}}
	for i, s := range p.starts {
		target := ""
		if i == 1 || i == 2 {
			target = p.judged(p.startRow(i))
		}
		rows = append(rows, []string{s.name, spread(s.ready, "%.1f") + " ms", fmt.Sprintf("%.2f", median(s.ready)/median(bare.ready)), target,
			spread(s.answered, "%.1f") + " ms", fmt.Sprintf("%.2f", median(s.answered)/median(bare.answered)), mib(s.memory)})
	}
	return rows
}

// company says who else was at work. Long starts suffer more from that than short ones.
func (p *page) company() string {
	const tolerable = 0.2
	text := fmt.Sprintf("Other programs had %.0f %% of the machine meanwhile.", 100*p.others)
	if p.others > tolerable {
		text += " **That is too much for the times to be compared.**"
	}
	return text
}

// startRow judges the cold start of refresh (1) or provision (2).
func (p *page) startRow(i int) row {
	return atMost("cold start of "+p.starts[i].name, median(p.starts[i].ready)/median(p.starts[0].ready), 2.0, "%.1f ×")
}

func (p *page) sizeRow(i int) row {
	const limit = 12e6
	return row{"size of " + p.starts[i].name, fmt.Sprintf("%.1f MB", float64(p.sizes[i])/1e6), "< 12 MB", p.sizes[i] >= limit}
}

func (p *page) provisioningRows() [][]string {
	rows := [][]string{{"", "AWS calls", "Entra requests", "they take", "provisioning takes", "ratio"}}
	for name, v := range each("the first connection of a new app", p.newApp, "another connection of the app", p.knownApp) {
		rows = append(rows, []string{name, fmt.Sprint(v.aws), fmt.Sprint(v.entra), fmt.Sprintf("%.0f ms", median(v.upstream)),
			spread(v.took, "%.0f") + " ms", spread(v.ratios(), "%.2f")})
	}
	return rows
}

// each ranges over two pairs, in order.
func each[K, V any](key1 K, value1 V, key2 K, value2 V) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) { _ = yield(key1, value1) && yield(key2, value2) }
}

func (p *page) besideRows() [][]string {
	rows := [][]string{{"", "entra-connector", "Python", "ratio", "target"}}
	add := func(what, format string, ours, theirs, ratio float64, target string) {
		times := fmt.Sprintf("%.1f", ratio)
		if math.IsNaN(ratio) || math.IsInf(ratio, 0) {
			times = ""
		}
		rows = append(rows, []string{what, fmt.Sprintf(format, ours), fmt.Sprintf(format, theirs), times, target})
	}
	faster := p.fasterRow()
	ours, theirs := median(p.starts[1].ready), median(p.starts[3].ready)
	add("cold start, until it asks for work", "%.1f ms", ours, theirs, theirs/ours, p.judged(faster))
	ours, theirs = median(p.starts[1].answered), median(p.starts[3].answered)
	add("cold start, until its first answer", "%.1f ms", ours, theirs, theirs/ours, "")
	for size, n := range p.beside {
		for name, pair := range each("first sweep", [2]sweep{p.ours.first[size], p.theirs.first[size]}, "next sweep", [2]sweep{p.ours.next[size], p.theirs.next[size]}) {
			add(fmt.Sprintf("refreshes a second, %s of %d", name, n), "%.1f", pair[0].rate(), pair[1].rate(), pair[0].rate()/pair[1].rate(), "")
		}
	}
	a, b := p.ours.next[1], p.theirs.next[1]
	add("AWS calls for each refresh", "%.2f", a.callsEach(), b.callsEach(), b.callsEach()/a.callsEach(), "")
	c, d := p.ours.nothing, p.theirs.nothing
	add(fmt.Sprintf("AWS calls of a sweep of %d with nothing due", p.beside[1]), "%.0f", float64(c.calls), float64(d.calls), float64(d.calls)/float64(c.calls), "")
	add("AWS calls throttled", "%.0f", float64(a.throttled), float64(b.throttled), float64(b.throttled)/float64(a.throttled), "")
	const MiB = 1 << 20
	add("most memory used (resident)", "%.1f MiB", float64(a.MaxMemoryUsed)/MiB, float64(b.MaxMemoryUsed)/MiB, float64(b.MaxMemoryUsed)/float64(a.MaxMemoryUsed), "")
	return rows
}

// fasterRow judges how much sooner than the Python function ours asks for work.
func (p *page) fasterRow() row {
	const least = 25
	ratio := median(p.starts[3].ready) / median(p.starts[1].ready)
	return row{"cold start beside Python", fmt.Sprintf("%.1f ×", ratio), fmt.Sprintf("≥ %d ×", least), !(ratio >= least)}
}

// missed names every target that was missed.
func (p *page) missed() (names []string) {
	rows := slices.Concat(p.dueRows(), p.nothingRows(), []row{p.startRow(1), p.startRow(2), p.sizeRow(1), p.sizeRow(2)})
	if p.python != "" {
		rows = append(rows, p.fasterRow())
	}
	for _, r := range rows {
		if r.missed {
			names = append(names, fmt.Sprintf("%s: %s, not %s", r.what, r.measured, r.target))
		}
	}
	return names
}

// judged is the target's cell.
func (p *page) judged(r row) string {
	switch {
	case r.target == "":
		return ""
	case r.missed:
		return r.target + ", **missed**"
	}
	return r.target + ", met"
}

// String is the whole page.
func (p *page) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Performance

%s wrote this page. It measures the built functions, run as Lambda runs them, between stand-ins for Entra and Secrets
Manager on the same machine, and fails if a target is missed. It takes about ten minutes; nothing else should run meanwhile.
%s after it is a run of half a minute, which judges nothing and leaves this page alone.

%s

Every AWS call takes %d ms and every answer of Entra %d ms, and AWS's quotas hold, %.0f writes a second among them. Where
two numbers stand in brackets behind one, it is the median, and half of what was measured lies between them.

%s## What the figures say, and what they do not

Counts carry over to other machines and, by and large, so do ratios of what ran here side by side. Times and rates follow from
the latencies above, which are assumptions, as does how far Python falls behind in refreshes a second: it waits for one answer
after the other. Loopback is not a network. Lambda gives a function a share of a core that grows with its memory, and a cold
start there also makes the sandbox ready and brings the code to it. Real quotas are shared with everything else in the account
and Region.
`, "`make bench`", "`build/bench/bench -quick`", p.setting(), awsLatency.Milliseconds(), entraLatency.Milliseconds(), awsQuota, p.tables())
	return b.String()
}

func (p *page) setting() string {
	python := p.python
	if python == "" {
		python = "not available"
	}
	return table([][]string{
		{"measured on", time.Now().UTC().Format(time.DateOnly) + ", in " + clock(p.took) + " minutes"},
		{"processor", p.machine.processor},
		{"memory", p.machine.memory},
		{"system", p.machine.system},
		{"Go, Python", strings.TrimPrefix(runtime.Version(), "go") + ", " + python},
	})
}

// tables is the part of the page that has the figures.
func (p *page) tables() string {
	var b strings.Builder
	section := func(title string, parts ...string) {
		fmt.Fprintf(&b, "## %s\n\n%s\n\n", title, strings.Join(parts, "\n\n"))
	}
	section("A sweep with everything due",
		fmt.Sprintf("%s connections, each in a tenant of its own, all due at once. `WRITES_PER_SECOND` is at its default. The writes are the\n"+
			"floor: a refresh cannot cost less than one.", thousands(p.asked)), p.rows(p.dueRows()))
	section("A sweep with nothing due", "Most sweeps of most schedules. ListSecrets returns at most a hundred at a time.", p.rows(p.nothingRows()))
	section("Cold start", fmt.Sprintf("%d starts of each function, taken in turns, each a new process. The bare one is `lambda.Start(func() error { return nil })`,\n"+
		"built with the same flags. Times are from the process's start. The first answer, of all but the bare one, includes one\n"+
		"ListSecrets, which the stand-in answers at once.\n%s", len(p.starts[0].ready), p.company()),
		table(p.startRows()), p.rows([]row{p.sizeRow(1), p.sizeRow(2), plain("size of "+p.starts[0].name, "%.1f MB", float64(p.sizes[0])/1e6)}))
	section("Provisioning", fmt.Sprintf("%d `POST /connections` of each kind, over what their round trips take one after the other. A client secret, a tenant\n"+
		"named by its GUID, a function that is warm.", len(p.newApp.took)), table(p.provisioningRows()))
	if p.python == "" {
		section("Beside the function one would otherwise write", "Python, or its packages, could not be had on this machine: nothing was compared.")
	} else {
		section("Beside the function one would otherwise write", p.besideText(), table(p.besideRows()))
	}
	return b.String()
}

func (p *page) besideText() string {
	const text = "[`refresh.py`](../internal/bench/peer/refresh.py), with the packages of [`requirements.txt`](../internal/bench/peer/requirements.txt),\n" +
		"lists the secrets, reads each, asks msal for a token where one is due and puts it back, one connection after the other, with\n" +
		"its clients kept between invocations. Same secrets, same stand-ins, same latencies; ours keeps to its %.0f writes a second.\n" +
		"In its first sweep msal also asks each tenant for its OpenID configuration, in the next one it does not.\n\n" +
		"Extrapolated from its next sweep of %d, Python would need %.0f minutes for %s connections. Lambda stops a function after 15."
	rate := p.theirs.next[1].rate()
	return fmt.Sprintf(text, ceiling, p.beside[1], float64(p.asked)/rate/60, thousands(p.asked))
}

// rows is a table of rows.
func (p *page) rows(rows []row) string {
	lines := [][]string{{"", "measured", "target"}}
	for _, r := range rows {
		lines = append(lines, []string{r.what, r.measured, p.judged(r)})
	}
	return table(lines)
}

// table is a Markdown table, also to be read as it is.
func table(lines [][]string) string {
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell), 3)
		}
	}
	var b strings.Builder
	write := func(line []string) {
		for i, cell := range line {
			fmt.Fprintf(&b, "| %-*s ", widths[i], cell)
		}
		b.WriteString("|\n")
	}
	write(lines[0])
	for _, width := range widths {
		b.WriteString("| " + strings.Repeat("-", width) + " ")
	}
	b.WriteString("|\n")
	for _, line := range lines[1:] {
		write(line)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// spread is the median and, in brackets, the quartiles around it.
func spread(values []float64, format string) string {
	if len(values) == 0 {
		return "–"
	}
	return fmt.Sprintf(format+" ("+format+"–"+format+")", median(values), quantile(values, 0.25), quantile(values, 0.75))
}

func median(values []float64) float64 { return quantile(values, 0.5) }

// quantile is the value below which the part q of the values lies; between two values it is interpolated.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	at := q * float64(len(sorted)-1)
	below := int(at)
	above := min(below+1, len(sorted)-1)
	return sorted[below] + (at-float64(below))*(sorted[above]-sorted[below])
}

// thousands writes 10000 as 10,000.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// clock writes a duration as minutes and seconds.
func clock(d time.Duration) string {
	s := int(d.Seconds())
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}
