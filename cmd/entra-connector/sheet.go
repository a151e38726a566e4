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

// row is a line of the file.
type row struct {
	Line   int               `json:"line"`
	Fields map[string]string `json:"fields"` // those of POST /connections, without the empty ones
	cells  []string          // all, as they stand there
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

func (r *row) app() string { return cmp.Or(r.Fields["app"], "default") }

var (
	columns       = []string{"tenant_id", "app", "connection", "service", "scope", "client_id", "cloud"}
	resultColumns = []string{"outcome", "status", "code", "reason", "request_id"}
)

// read reads the file and, from the results of an earlier run, which rows are done.
func (im *importer) read(path string) error {
	header, rows, err := readCSV(path)
	if err != nil {
		return usage("%s: %v", path, err)
	}
	for i, column := range header {
		if column == "client_secret" || column == "certificate" {
			return usage("%s: secrets do not belong in such a file: remove column %s, and create the app with "+
				"entra-connector app put, or be asked for its secret", path, column)
		} else if !slices.Contains(columns, column) || slices.Contains(header[:i], column) {
			return usage("%s: the first line must name the columns, each once: %s; not %q", path, strings.Join(columns, ", "), column)
		}
	}
	im.header, im.rows, im.results = header, rows, strings.TrimSuffix(path, ".csv")+".results.csv"
	done, err := earlier(im.results)
	if err != nil {
		return err
	}
	im.counts = map[string]int{connected: 0, known: 0, failed: 0, notTried: 0}
	seen := make(map[string]int)
	for _, r := range rows {
		name := r.app() + "/" + cmp.Or(r.Fields["connection"], strings.ToLower(r.Fields["tenant_id"]))
		if seen[name] != 0 {
			return usage("%s: lines %d and %d are the same connection, %s: tell them apart in column connection", path, seen[name], r.Line, name)
		}
		seen[name] = r.Line
		r.result = cmp.Or(done[fmt.Sprint(r.Fields)], result{Outcome: notTried})
		im.counts[r.Outcome]++
	}
	return nil
}

// earlier returns the results of rows that an earlier run has done, by their fields.
func earlier(path string) (map[string]result, error) {
	header, rows, err := readCSV(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	own := len(header) - len(resultColumns)
	if err != nil || own < 1 || !slices.Equal(header[own:], resultColumns) {
		return nil, usage("%s is in the way, as it holds no results: move it elsewhere", path)
	}
	done := make(map[string]result)
	for _, r := range rows {
		cells := r.cells[own:]
		status, _ := strconv.Atoi(cells[1]) // empty where there was none
		if before := (result{cells[0], status, cells[2], cells[3], cells[4]}); before.done() {
			done[fmt.Sprint(r.Fields)] = before
		}
	}
	return done, nil
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
		rows = append(rows, &row{Line: i + 2, Fields: fields, cells: cells})
	}
	return records[0], rows, nil
}

// save writes the results in one step, so that there is always a whole file.
func (im *importer) save() error {
	f, err := os.CreateTemp(filepath.Dir(im.results), ".results-*.csv")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // it is gone once it has its name
	records := [][]string{slices.Concat(im.header, resultColumns)}
	for _, r := range im.rows {
		status := strings.TrimPrefix(strconv.Itoa(r.Status), "0")
		records = append(records, slices.Concat(r.cells, []string{r.Outcome, status, r.Code, r.Reason, r.RequestID}))
	}
	if err := errors.Join(csv.NewWriter(f).WriteAll(records), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), im.results)
}
