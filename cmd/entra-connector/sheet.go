package main

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// sheet is a file of connections to be, and the file beside it of what became of them.
type sheet struct {
	results string // its path
	header  []string
	rows    []*row
}

// row is a line of the file.
type row struct {
	line   int
	cells  []string          // as they stand there
	fields map[string]string // those of POST /connections, without the empty ones
	result
}

// result is what became of a row.
type result struct {
	Outcome   string `json:"outcome"`
	Status    int    `json:"status,omitempty"` // of HTTP
	Code      string `json:"code,omitempty"`
	Reason    string `json:"reason,omitempty"`
	RequestID string `json:"request_id,omitempty"`
}

// The outcomes.
const (
	connected = "connected"
	known     = "known" // it was connected already
	failed    = "failed"
	notTried  = "not tried"
)

func (r result) done() bool { return r.Outcome == connected || r.Outcome == known }

func (r *row) app() string { return cmp.Or(r.fields["app"], "default") }

var (
	columns       = []string{"tenant_id", "app", "connection", "service", "scope", "client_id", "cloud"}
	resultColumns = []string{"outcome", "status", "code", "reason", "request_id"}
)

// readSheet reads the file and, from the results of an earlier run, which rows are done.
func readSheet(path string) (*sheet, error) {
	header, rows, err := readCSV(path)
	if err != nil {
		return nil, usage("%s: %v", path, err)
	}
	for i, column := range header {
		switch {
		case column == "client_secret" || column == "certificate":
			return nil, usage("%s: secrets do not belong in such a file: remove column %s, and create the app with "+
				"entra-connector app put, or be asked for its secret", path, column)
		case !slices.Contains(columns, column) || slices.Contains(header[:i], column):
			return nil, usage("%s: the first line must name the columns, each once: %s; not %q", path, strings.Join(columns, ", "), column)
		}
	}
	seen := make(map[string]int)
	for _, r := range rows {
		name := r.app() + "/" + cmp.Or(r.fields["connection"], strings.ToLower(r.fields["tenant_id"]))
		if seen[name] != 0 {
			return nil, usage("%s: lines %d and %d are the same connection, %s: tell them apart in column connection", path, seen[name], r.line, name)
		}
		seen[name] = r.line
		r.Outcome = notTried
	}
	s := &sheet{results: strings.TrimSuffix(path, ".csv") + ".results.csv", header: header, rows: rows}
	return s, s.recall()
}

// recall takes over what an earlier run has done.
func (s *sheet) recall() error {
	header, rows, err := readCSV(s.results)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	own := len(header) - len(resultColumns)
	if err != nil || own < 1 || !slices.Equal(header[own:], resultColumns) {
		return usage("%s is in the way, as it holds no results: move it elsewhere", s.results)
	}
	done := make(map[string]result)
	for _, r := range rows {
		cells := r.cells[own:]
		status, _ := strconv.Atoi(cells[1]) // empty where there was none
		if before := (result{cells[0], status, cells[2], cells[3], cells[4]}); before.done() {
			done[fmt.Sprint(r.fields)] = before
		}
	}
	for _, r := range s.rows {
		if before, ok := done[fmt.Sprint(r.fields)]; ok {
			r.result = before
		}
	}
	return nil
}

// readCSV reads a file whose first line names the columns, tenant_id among them.
func readCSV(path string) (header []string, rows []*row, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	b = bytes.TrimPrefix(b, []byte("\ufeff")) // as Excel saves it
	if !utf8.Valid(b) {
		return nil, nil, errors.New("it is not in UTF-8")
	}
	r := csv.NewReader(bytes.NewReader(b))
	if first, _, _ := strings.Cut(string(b), "\n"); strings.Contains(first, ";") && !strings.Contains(first, ",") {
		r.Comma = ';' // as Excel saves it in half of Europe
	}
	records, err := r.ReadAll()
	if err != nil || len(records) == 0 || !slices.Contains(records[0], "tenant_id") {
		return nil, nil, cmp.Or(err, errors.New("the first line must name the columns, and tenant_id among them"))
	}
	for i, cells := range records[1:] {
		fields := make(map[string]string)
		for j, cell := range cells {
			if cell != "" && slices.Contains(columns, records[0][j]) {
				fields[records[0][j]] = cell
			}
		}
		rows = append(rows, &row{line: i + 2, cells: cells, fields: fields})
	}
	return records[0], rows, nil
}

// save writes the results in one step, so that there is always a whole file.
func (s *sheet) save() error {
	f, err := os.CreateTemp(filepath.Dir(s.results), ".results-*.csv")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // it is gone once it has its name
	records := [][]string{slices.Concat(s.header, resultColumns)}
	for _, r := range s.rows {
		status := strings.TrimPrefix(strconv.Itoa(r.Status), "0")
		records = append(records, slices.Concat(r.cells, []string{r.Outcome, status, r.Code, r.Reason, r.RequestID}))
	}
	if err := errors.Join(csv.NewWriter(f).WriteAll(records), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), s.results)
}
