package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
)

const width = 80 // columns

// screen writes for a person to read.
type screen struct {
	out   io.Writer
	steps int
}

// pair is a line of two columns.
type pair struct{ name, value string }

func (s *screen) step(title string) {
	s.steps++
	fmt.Fprintln(s.out)
	s.pairs(0, pair{strconv.Itoa(s.steps), title})
	fmt.Fprintln(s.out)
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
		for _, line := range wrap(p.value, width-indent-column-2) {
			fmt.Fprintf(s.out, "%*s%-*s  %s\n", indent, "", column, p.name, line)
			p.name = ""
		}
	}
}

// wrap breaks text between words. A word that is too long stays whole; no text is no line.
func wrap(text string, columns int) []string {
	var lines []string
	for word := range strings.FieldsSeq(text) {
		last := len(lines) - 1
		if last >= 0 && len([]rune(lines[last]))+1+len([]rune(word)) <= columns {
			lines[last] += " " + word
		} else {
			lines = append(lines, word)
		}
	}
	return lines
}

// problems passes on the lines of a function's log that report a problem: those of level WARN and
// above, and what is not a log line at all, such as a panic.
type problems struct{ out io.Writer }

func (p problems) Write(line []byte) (int, error) {
	var entry struct{ Level string }
	if json.Unmarshal(line, &entry) == nil && (entry.Level == "DEBUG" || entry.Level == "INFO") {
		return len(line), nil
	}
	return p.out.Write(line)
}
