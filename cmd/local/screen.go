package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
)

const width = 100 // columns that no line exceeds

// screen writes for a person to read.
type screen struct {
	out   io.Writer
	steps int
}

// pair is a line of two columns. An empty value leaves the line out.
type pair struct{ name, value string }

func (s *screen) step(title string) {
	s.steps++
	fmt.Fprintf(s.out, "\n%d  %s\n\n", s.steps, title)
}

// say writes a paragraph.
func (s *screen) say(indent int, text string) {
	for _, line := range wrap(text, width-indent) {
		fmt.Fprintf(s.out, "%*s%s\n", indent, "", line)
	}
}

// pairs writes two columns and wraps the second.
func (s *screen) pairs(indent int, pairs ...pair) {
	column := 0
	for _, p := range pairs {
		column = max(column, len(p.name))
	}
	for _, p := range pairs {
		name := p.name
		for _, line := range wrap(p.value, width-indent-column-2) {
			fmt.Fprintf(s.out, "%*s%-*s  %s\n", indent, "", column, name, line)
			name = ""
		}
	}
}

// wrap breaks text between words. A word that is too long stays whole; no text is no line.
func wrap(text string, columns int) []string {
	var lines []string
	for word := range strings.FieldsSeq(text) {
		last := len(lines) - 1
		if last >= 0 && len(lines[last])+1+len(word) <= columns {
			lines[last] += " " + word
		} else {
			lines = append(lines, word)
		}
	}
	return lines
}

// shared lets the functions' logs and this program write to one terminal.
type shared struct {
	mu  sync.Mutex
	out io.Writer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(p)
}

// problems passes on the lines of a function's log that report one: those of level WARN and above, and what is no log
// line at all, such as a panic.
type problems struct{ out io.Writer }

func (p problems) Write(line []byte) (int, error) {
	var entry struct {
		Level string `json:"level"`
	}
	quiet := json.Unmarshal(bytes.TrimSpace(line), &entry) == nil && (entry.Level == "DEBUG" || entry.Level == "INFO")
	if quiet {
		return len(line), nil
	}
	return p.out.Write(line)
}
