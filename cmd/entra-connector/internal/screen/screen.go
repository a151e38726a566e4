// Package screen writes for people: text and tables that fit the terminal, colours where they are
// wanted, progress, and questions.
package screen

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// Colours of the terminal's own palette that can be read on a light and on a dark background.
const (
	Bold    = "1"
	Red     = "31"
	Green   = "32"
	Magenta = "35"
)

// Pane is standard output or standard error.
type Pane struct {
	W      io.Writer
	Width  int // columns; 0 where this is no terminal, and then nothing is wrapped
	height int
	colour bool // not with NO_COLOR, see https://no-color.org
	live   bool // what was written can be painted over
}

// New looks at what a file is.
func New(f *os.File) Pane {
	p := Pane{W: f}
	if width, height, err := term.GetSize(int(f.Fd())); err == nil {
		p.Width, p.height = max(width, 20), max(height, 3)
		p.live = os.Getenv("TERM") != "dumb"
		p.colour = p.live && os.Getenv("NO_COLOR") == ""
	}
	return p
}

// Paint colours a text that is not wrapped.
func (p *Pane) Paint(colour, text string) string {
	if !p.colour || colour == "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// Line writes a line as it is.
func (p *Pane) Line(text string) { fmt.Fprintln(p.W, text) }

// Say writes a paragraph.
func (p *Pane) Say(text string) {
	for _, line := range wrap(text, p.Width) {
		p.Line(line)
	}
}

// Pairs writes names and, in a second column that is wrapped, the value that follows each. A name
// whose value is empty is left out.
func (p *Pane) Pairs(pairs ...string) {
	column := 0
	for pair := range slices.Chunk(pairs, 2) {
		if pair[1] != "" {
			column = max(column, length(pair[0]))
		}
	}
	for pair := range slices.Chunk(pairs, 2) {
		name := clean(pair[0])
		for _, line := range wrap(pair[1], p.Width-column-4) {
			if p.Width > 0 && column+4+length(line) > p.Width { // too long a word to stand beside the name
				if name != "" {
					p.Line("  " + name)
				}
				p.Line("    " + line)
			} else {
				p.Line(fmt.Sprintf("  %-*s  %s", column, name, line))
			}
			name = ""
		}
	}
}

const gap = 2 // spaces between columns

// Table writes rows below their heads, and leaves out the last column where there is no room for
// it. A cell that is wider than its column is not broken: the rest of its row follows on the next
// line.
func (p *Pane) Table(heads []string, rows [][]string, colour func(cell string) string) {
	widths, total := make([]int, len(heads)), -gap
	for i, head := range heads {
		widths[i] = length(head)
		for _, row := range rows {
			widths[i] = max(widths[i], length(row[i]))
		}
		total += widths[i] + gap
	}
	if last := len(heads) - 1; p.Width > 0 && total > p.Width {
		total -= widths[last] + gap
		widths = widths[:last]
		widest := slices.Index(widths, slices.Max(widths))
		widths[widest] = max(widths[widest]-max(total-p.Width, 0), length(heads[widest]))
	}
	p.row(widths, heads, func(string) string { return Bold })
	for _, row := range rows {
		p.row(widths, row, colour)
	}
}

func (p *Pane) row(widths []int, cells []string, colour func(cell string) string) {
	line, end, offset := "", 0, 0 // end is where the line ends, and offset where the column begins
	for i, width := range widths {
		if cell := clean(cells[i]); cell != "" {
			if end > 0 && end > offset-gap { // the cell before reaches into this column
				p.Line(line)
				line, end = "", 0
			}
			line += strings.Repeat(" ", offset-end) + p.Paint(colour(cell), cell)
			end = offset + length(cell)
		}
		offset += width + gap
	}
	p.Line(line)
}

// Progress paints a line over the one before, on a terminal only. An empty text takes it away.
func (p *Pane) Progress(text string) {
	if p.live { // less one column, or the cursor would begin another line
		fmt.Fprintf(p.W, "\r\x1b[K%.*s", p.Width-1, text)
	}
}

// Repaint puts what draw writes where it wrote before on standard output, as far as there is room.
// Where nothing can be painted over, each drawing follows the last.
func Repaint(draw func(*Pane)) {
	now := New(os.Stdout) // the window may have changed
	if !now.live {
		draw(&now)
		return
	}
	var drawn strings.Builder
	draw(&Pane{W: &drawn, Width: now.Width, colour: now.colour})
	lines := strings.Split(strings.TrimSuffix(drawn.String(), "\n"), "\n")
	if more := len(lines) - now.height + 1; more > 0 {
		lines = append(lines[:now.height-2], fmt.Sprintf("… and %d lines more: make the window taller.", more+1))
	}
	// From the top, each line to its end, and then what is left of the last drawing.
	fmt.Fprint(now.W, "\x1b[H"+strings.Join(lines, "\x1b[K\n")+"\x1b[K\n\x1b[J")
}

// ErrNoTerminal reports that there is nobody to ask.
var ErrNoTerminal = errors.New("standard input is no terminal")

// Ask asks on the terminal, and shows the answer as it is typed unless it is hidden.
func (p *Pane) Ask(ctx context.Context, question string, hidden bool) (string, error) {
	fd := int(os.Stdin.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", ErrNoTerminal
	}
	// Reading cannot be interrupted, and the terminal must not stay mute.
	defer context.AfterFunc(ctx, func() {
		_ = term.Restore(fd, before) // there is nothing else to try
		fmt.Fprintln(p.W)
		os.Exit(1)
	})()
	fmt.Fprint(p.W, question)
	if hidden {
		defer fmt.Fprintln(p.W)
		answer, err := term.ReadPassword(fd)
		return string(answer), err
	}
	answer, err := bufio.NewReader(os.Stdin).ReadString('\n')
	return strings.TrimSpace(answer), err
}

func length(s string) int { return utf8.RuneCountInString(s) }

// clean takes out what a terminal would obey.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return utf8.RuneError
		}
		return r
	}, s)
}

// wrap breaks text between words, if columns is above zero. A word that is too long stays whole; no
// text is no line.
func wrap(text string, columns int) []string {
	var lines []string
	for word := range strings.FieldsSeq(text) {
		word = clean(word)
		last := len(lines) - 1
		if last >= 0 && (columns <= 0 || length(lines[last])+1+length(word) <= columns) {
			lines[last] += " " + word
		} else {
			lines = append(lines, word)
		}
	}
	return lines
}
