package signals

import (
	"encoding/json"
	"maps"
	"time"
)

// dimension is a dimension of all metrics of a line. Its value may have 1,024 characters.
type dimension struct{ name, value string }

// metric is one value. A line may have 100.
type metric struct {
	name, unit string
	value      any // a number
}

const (
	count        = "Count"
	seconds      = "Seconds"
	milliseconds = "Milliseconds"
)

// emf encodes metrics with one set of dimensions as a line of CloudWatch's embedded metric format.
// CloudWatch extracts them from the log. AWS ships an encoder in Powertools for AWS Lambda, but not
// for Go.
//
// The line also has the level and the RFC 3339 timestamp that Lambda expects in a JSON log; without
// them Lambda makes up its own.
//
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
func emf(at time.Time, properties map[string]any, dimensions []dimension, metrics []metric) []byte {
	type definition struct{ Name, Unit string }
	type directive struct {
		Namespace  string
		Dimensions [][]string
		Metrics    []definition
	}
	type metadata struct {
		Timestamp         int64 // milliseconds
		CloudWatchMetrics []directive
	}
	line := map[string]any{"level": "INFO", "timestamp": at.UTC().Format(time.RFC3339Nano)}
	maps.Copy(line, properties)
	names := make([]string, len(dimensions))
	for i, d := range dimensions {
		names[i], line[d.name] = d.name, d.value
	}
	definitions := make([]definition, len(metrics))
	for i, m := range metrics {
		definitions[i], line[m.name] = definition{m.name, m.unit}, m.value
	}
	line["_aws"] = metadata{at.UnixMilli(), []directive{{Namespace, [][]string{names}, definitions}}}
	b, err := json.Marshal(line)
	if err != nil {
		panic(err) // strings and finite numbers only
	}
	return append(b, '\n')
}
