package signals

import (
	"encoding/json"
	"maps"
	"time"
)

// dimension narrows the metrics of a line. A value may have 1,024 characters.
type dimension struct{ name, value string }

// metric is one value. A line may have 100 of them.
type metric struct {
	name, unit string
	value      any // a number
}

const (
	count        = "Count"
	seconds      = "Seconds"
	milliseconds = "Milliseconds"
)

// emf encodes metrics as one line of CloudWatch's embedded metric format, with
// one set of dimensions. CloudWatch takes them out of the log by themselves. AWS
// has such an encoder in its Powertools, of which there are none for Go.
//
// The line also has what Lambda looks for in a JSON log: without a level, or a
// timestamp in RFC 3339, it would judge the line by rules of its own.
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
