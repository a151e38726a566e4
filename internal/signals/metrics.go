// Package signals reports how the connector is doing: with metrics, which alarms watch, and with an
// event when a connection comes to need a person and when it recovers.
package signals

import (
	"cmp"
	"context"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/aws/aws-lambda-go/lambdacontext"

	"entra-connector/internal/connector"
)

// Namespace is the namespace of all metrics.
const Namespace = "EntraConnector"

// maxApps is how many apps get metrics of their own after a sweep, since CloudWatch charges for
// each metric.
const maxApps = 50

// Metrics writes metrics to a function's log. It bypasses the logger, since alarms depend on the
// metrics whatever the log level.
type Metrics struct {
	// Out gets one whole line per Write, so that a logger can share it.
	Out      io.Writer
	Function string // its name, a dimension of every metric
	Now      func() time.Time
}

// Sweep writes what a sweep over everything has done and found. It leaves out SweepsSucceeded if
// the sweep could not look at everything: an alarm watches for its absence.
func (m Metrics) Sweep(ctx context.Context, report connector.SweepReport, took time.Duration) {
	health := report.Health
	metrics := []metric{
		{"Checked", count, report.Checked},
		{"Due", count, report.Due},
		{"Refreshed", count, report.Refreshed},
		{"Failed", count, report.Failed},
		{"Waiting", count, report.Waiting},
		{"Deferred", count, report.Deferred},
		{"Refused", count, health.Refused},
		{"NewRefusals", count, health.NewlyRefused},
		{"Recovered", count, health.Recovered},
		{"ExpiringCredentials", count, len(report.Expiring)},
		{"StaleEntries", count, report.Stale},
		{"SweepDuration", milliseconds, took.Milliseconds()},
	}
	if !report.Incomplete {
		metrics = append(metrics, metric{"SweepsSucceeded", count, 1})
	}
	if health.Healthy > 0 {
		metrics = append(metrics, metric{"ShortestLife", seconds, int64(health.FirstExpiry.Sub(m.Now()) / time.Second)})
	}
	m.write(ctx, nil, metrics)
	for _, class := range slices.Sorted(maps.Keys(health.FailedBy)) {
		if n := health.FailedBy[class]; n > 0 {
			m.write(ctx, []dimension{{"Class", class}}, []metric{{"Failed", count, n}})
		}
	}
	for _, app := range worstApps(report.Apps) {
		health := report.Apps[app]
		m.write(ctx, []dimension{{"App", app}}, []metric{{"Failed", count, failed(health)}, {"Refused", count, health.Refused}})
	}
}

func (m Metrics) write(ctx context.Context, dimensions []dimension, metrics []metric) {
	properties := make(map[string]any)
	if lc, ok := lambdacontext.FromContext(ctx); ok {
		properties["requestId"] = lc.AwsRequestID
	}
	_, _ = m.Out.Write(emf(m.Now(), properties, append([]dimension{{"FunctionName", m.Function}}, dimensions...), metrics))
}

// worstApps names the apps that are in trouble, at most maxApps of them.
func worstApps(apps map[string]connector.Health) []string {
	worst := slices.SortedFunc(maps.Keys(apps), func(a, b string) int {
		return cmp.Or(cmp.Compare(apps[b].Refused, apps[a].Refused), cmp.Compare(failed(apps[b]), failed(apps[a])), cmp.Compare(a, b))
	})
	worst = slices.DeleteFunc(worst, func(app string) bool { return apps[app].Refused == 0 && failed(apps[app]) == 0 })
	return worst[:min(maxApps, len(worst))]
}

func failed(h connector.Health) (sum int) {
	for _, n := range h.FailedBy {
		sum += n
	}
	return sum
}
