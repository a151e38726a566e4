package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// machine is what the figures were measured on.
type machine struct{ processor, memory, system string }

// thisMachine asks /proc and os-release, which only Linux has.
func thisMachine() machine {
	m := machine{
		processor: field("/proc/cpuinfo", "model name", ":"),
		memory:    "of unknown size",
		system:    runtime.GOOS,
	}
	if m.processor == "" {
		m.processor = "unknown"
	}
	m.processor += fmt.Sprintf(" (%s), %d cores", runtime.GOARCH, runtime.NumCPU())
	var kB int64
	if _, err := fmt.Sscanf(field("/proc/meminfo", "MemTotal", ":"), "%d kB", &kB); err == nil {
		m.memory = fmt.Sprintf("%.0f GiB", float64(kB)/(1<<20))
	}
	if name := strings.Trim(field("/etc/os-release", "PRETTY_NAME", "="), `"`); name != "" {
		release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
		kernel, _, _ := strings.Cut(strings.TrimSpace(string(release)), "-") // without what its builder calls it
		m.system = fmt.Sprintf("%s, Linux %s", name, kernel)
	}
	return m
}

// load is processor time: what all programs have had since the machine started, and what this one and those that it ran to
// their end have had of it. Only on Linux is there any.
type load struct {
	all, own time.Duration
	at       time.Time
}

func loadNow() load {
	l := load{at: time.Now()}
	content, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(content), "\n")
	for i, ticks := range strings.Fields(line) {
		const idle, wait, steal = 4, 5, 8 // what follows is counted in what comes before
		if n, err := strconv.ParseInt(ticks, 10, 64); err == nil && i != idle && i != wait && i <= steal {
			l.all += time.Duration(n) * (time.Second / 100)
		}
	}
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var usage syscall.Rusage
		if syscall.Getrusage(who, &usage) == nil {
			l.own += time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
		}
	}
	return l
}

// others is the share of the machine that other programs have had since.
func (l load) others() float64 {
	now := loadNow()
	others := (now.all - l.all) - (now.own - l.own)
	return max(0, others.Seconds()/now.at.Sub(l.at).Seconds()/float64(runtime.NumCPU()))
}

// field is the value of the first line of the file with that name.
func field(file, name, separator string) string {
	content, _ := os.ReadFile(file)
	for line := range strings.Lines(string(content)) {
		if key, value, ok := strings.Cut(line, separator); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
