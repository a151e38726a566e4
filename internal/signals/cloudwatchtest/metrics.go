// Package cloudwatchtest does what CloudWatch does with a function's log: it reads the metrics in
// it that are in the embedded metric format, and evaluates the alarms of a template on them.
//
// The rules are those of the CloudWatch User Guide, "Specification: Embedded metric format" and
// "Using Amazon CloudWatch alarms".
package cloudwatchtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Metrics are data points by metric, in the order in which they came. A metric's key is its
// namespace, its name and its dimensions in the order of their names: "AWS/SQS NumberOfMessagesSent
// QueueName=q".
type Metrics map[string][]Point

// Point is a data point.
type Point struct {
	At    time.Time
	Value float64
}

func key(namespace, name string, dimensions []string) string {
	slices.Sort(dimensions)
	return strings.Join(append([]string{namespace, name}, dimensions...), " ")
}

// Read adds the metrics in a log and skips its other lines. If at is not zero, it replaces the
// lines' own time. Read fails on a line that CloudWatch, or Lambda in front of it, would drop.
func (m Metrics) Read(log string, at time.Time) error {
	for line := range strings.Lines(log) {
		if strings.Contains(line, `"_aws"`) {
			if err := m.read(line, at); err != nil {
				return fmt.Errorf("%w in %s", err, line)
			}
		}
	}
	return nil
}

const (
	maxLine    = 1 << 20
	maxMetrics = 100
	maxValue   = 1024 // characters of a namespace or a dimension's value
)

// units are those that are used here; CloudWatch has more.
var units = []string{"Count", "Seconds", "Milliseconds"}

func (m Metrics) read(line string, at time.Time) error {
	var root map[string]any
	var meta struct {
		AWS struct {
			Timestamp         int64
			CloudWatchMetrics []struct {
				Namespace  string
				Dimensions [][]string
				Metrics    []struct{ Name, Unit string }
			}
		} `json:"_aws"`
		Level     string    `json:"level"`
		Timestamp time.Time `json:"timestamp"`
	}
	if err := errors.Join(json.Unmarshal([]byte(line), &root), json.Unmarshal([]byte(line), &meta)); err != nil {
		return err
	}
	own := time.UnixMilli(meta.AWS.Timestamp)
	switch {
	case len(line) > maxLine:
		return errors.New("the line has more than 1 MB")
	case len(meta.AWS.CloudWatchMetrics) == 0:
		return errors.New("no metric is defined")
	case meta.Level == "":
		return errors.New("the level is missing, which Lambda's JSON logs need")
	case own.Sub(meta.Timestamp).Abs() > time.Millisecond:
		return errors.New("the two timestamps differ")
	}
	if at.IsZero() {
		at = own
	}
	for _, d := range meta.AWS.CloudWatchMetrics {
		switch {
		case d.Namespace == "" || len(d.Namespace) > maxValue || strings.HasPrefix(d.Namespace, "AWS/"):
			return errors.New("the Namespace is not allowed")
		case len(d.Metrics) == 0 || len(d.Metrics) > maxMetrics || len(d.Dimensions) == 0:
			return errors.New("there are no metrics, too many of them, or no Dimensions")
		}
		for _, set := range d.Dimensions {
			var dimensions []string
			for _, name := range set {
				value, _ := root[name].(string)
				if value == "" || len(value) > maxValue {
					return fmt.Errorf("dimension %s is not a string of 1 to 1,024 characters", name)
				}
				dimensions = append(dimensions, name+"="+value)
			}
			for _, metric := range d.Metrics {
				value, ok := root[metric.Name].(float64)
				if !ok || !slices.Contains(units, metric.Unit) {
					return fmt.Errorf("metric %s is not a number, or has the unknown unit %q", metric.Name, metric.Unit)
				}
				k := key(d.Namespace, metric.Name, dimensions)
				m[k] = append(m[k], Point{at, value})
			}
		}
	}
	return nil
}
