// Package cloudwatchtest does what CloudWatch does with a function's log: it takes the metrics out of it that are in the
// embedded metric format, strictly, and evaluates a template's alarms on them.
//
// The rules are those of the CloudWatch User Guide, "Specification: Embedded metric format" and "Using Amazon CloudWatch
// alarms".
package cloudwatchtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Metrics are data points as CloudWatch keeps them. The zero value is empty.
type Metrics struct {
	points map[string][]point // :: key → its data points
}

type point struct {
	at    time.Time
	value float64
}

// key identifies a metric, whose dimensions are part of what it is.
func key(namespace, name string, dimensions map[string]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", namespace, name)
	for _, d := range slices.Sorted(maps.Keys(dimensions)) {
		fmt.Fprintf(&b, " %s=%s", d, dimensions[d])
	}
	return b.String()
}

// Put adds a data point, as a service of AWS publishes it.
func (m *Metrics) Put(namespace, name string, dimensions map[string]string, at time.Time, value float64) {
	if m.points == nil {
		m.points = make(map[string][]point)
	}
	k := key(namespace, name, dimensions)
	m.points[k] = append(m.points[k], point{at, value})
}

// Values are all data points of a metric, in the order in which they came.
func (m *Metrics) Values(namespace, name string, dimensions map[string]string) (values []float64) {
	for _, p := range m.points[key(namespace, name, dimensions)] {
		values = append(values, p.value)
	}
	return values
}

// All are the data points of all metrics: under "namespace name dimension=value…".
func (m *Metrics) All() map[string][]float64 {
	all := make(map[string][]float64)
	for k, points := range m.points {
		for _, p := range points {
			all[k] = append(all[k], p.value)
		}
	}
	return all
}

// Read takes the metrics out of a log, a line each, and leaves out what is nothing of the format. Where at is not zero, it
// stands in for the lines' own time. An error is about lines that CloudWatch, or Lambda in front of it, would drop.
func (m *Metrics) Read(log string, at time.Time) error {
	var errs []error
	for line := range strings.Lines(log) {
		if strings.Contains(line, `"_aws"`) {
			if err := m.read([]byte(line), at); err != nil {
				errs = append(errs, fmt.Errorf("%w in %s", err, strings.TrimSpace(line)))
			}
		}
	}
	return errors.Join(errs...)
}

const (
	maxLine       = 1 << 20
	maxMetrics    = 100
	maxDimensions = 30
	maxValue      = 1024 // characters of a dimension's value, and of a name
)

var units = []string{"", "None", "Count", "Percent", "Bytes", "Seconds", "Milliseconds", "Microseconds"} // of more

func (m *Metrics) read(line []byte, at time.Time) error {
	var meta struct {
		AWS struct {
			Timestamp         *int64
			CloudWatchMetrics []struct {
				Namespace  string
				Dimensions [][]string
				Metrics    []struct {
					Name, Unit        string
					StorageResolution int `json:",omitempty"`
				}
			}
		} `json:"_aws"`
		Level     string    `json:"level"`
		Timestamp time.Time `json:"timestamp"`
	}
	var root map[string]any
	decoder := json.NewDecoder(bytes.NewReader(line))
	if err := decoder.Decode(&root); err != nil || decoder.InputOffset() < int64(len(bytes.TrimSpace(line))) {
		return errors.New("the line is not one JSON object")
	}
	if err := json.Unmarshal(line, &meta); err != nil {
		return fmt.Errorf("the metadata is of a wrong type: %w", err)
	}
	switch {
	case len(line) > maxLine:
		return errors.New("the line has more than 1 MB")
	case meta.AWS.Timestamp == nil:
		return errors.New("the Timestamp is missing")
	case len(meta.AWS.CloudWatchMetrics) == 0:
		return errors.New("no metric is defined")
	case meta.Level == "" || meta.Timestamp.IsZero():
		return errors.New("what Lambda's JSON logs need is missing")
	}
	own := time.UnixMilli(*meta.AWS.Timestamp)
	if own.Sub(meta.Timestamp).Abs() > time.Millisecond {
		return errors.New("the two timestamps differ")
	}
	if at.IsZero() {
		at = own
	}
	for _, d := range meta.AWS.CloudWatchMetrics {
		switch {
		case d.Namespace == "" || len(d.Namespace) > maxValue || strings.HasPrefix(d.Namespace, "AWS/"):
			return errors.New("the Namespace is not one that may be used")
		case len(d.Metrics) == 0 || len(d.Metrics) > maxMetrics:
			return errors.New("there is no metric, or too many")
		case len(d.Dimensions) == 0:
			return errors.New("the Dimensions are missing")
		}
		for _, set := range d.Dimensions {
			dimensions := make(map[string]string)
			for _, name := range set {
				value, ok := root[name].(string)
				if !ok || value == "" || len(value) > maxValue {
					return fmt.Errorf("dimension %s is not a string of up to 1,024 characters", name)
				}
				dimensions[name] = value
			}
			if len(dimensions) > maxDimensions || len(dimensions) < len(set) {
				return errors.New("there are too many dimensions")
			}
			for _, metric := range d.Metrics {
				value, ok := root[metric.Name].(float64)
				switch {
				case !ok:
					return fmt.Errorf("metric %s is not a number", metric.Name)
				case !slices.Contains(units, metric.Unit):
					return fmt.Errorf("unit %s is unknown", metric.Unit)
				}
				m.Put(d.Namespace, metric.Name, dimensions, at, value)
			}
		}
	}
	return nil
}
