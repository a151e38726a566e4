package signals_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/lambdacontext"

	"entra-connector/internal/connector"
	"entra-connector/internal/signals"
	"entra-connector/internal/signals/cloudwatchtest"
)

var now = time.Date(2026, 11, 23, 1, 2, 3, 456789000, time.FixedZone("", 3600))

// lines takes whole lines only: the logger writes to the same stream.
type lines struct {
	*testing.T
	log bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	if bytes.Count(p, []byte("\n")) != 1 || p[len(p)-1] != '\n' || !json.Valid(p) {
		l.Errorf("this is not one line: %q", p)
	}
	return l.log.Write(p)
}

// metricsOf returns the metrics that a sweep leaves, by name and any dimensions besides the
// function.
func metricsOf(t *testing.T, report connector.SweepReport, took time.Duration) map[string]float64 {
	t.Helper()
	out := &lines{T: t}
	ctx := lambdacontext.NewContext(t.Context(), &lambdacontext.LambdaContext{AwsRequestID: "3f1c"})
	signals.Metrics{Out: out, Function: "f", Now: func() time.Time { return now }}.Sweep(ctx, report, took)
	metrics := cloudwatchtest.Metrics{}
	if err := metrics.Read(out.log.String(), time.Time{}); err != nil {
		t.Fatal(err)
	}
	for _, member := range []string{`"level":"INFO"`, `"timestamp":"2026-11-23T00:02:03.456789Z"`, `"requestId":"3f1c"`} {
		if n := strings.Count(out.log.String(), member); n != strings.Count(out.log.String(), "\n") { // Lambda wants it in each line
			t.Errorf("%s is in %d lines of %s", member, n, &out.log)
		}
	}
	short := make(map[string]float64)
	for key, points := range metrics {
		name, function := strings.CutPrefix(strings.Replace(key, " FunctionName=f", "", 1), "EntraConnector ")
		if !function || !strings.Contains(key, " FunctionName=f") || len(points) != 1 {
			t.Errorf("metric %q: %v", key, points)
		}
		short[name] = points[0].Value
	}
	return short
}

func TestSweepMetrics(t *testing.T) {
	report := connector.SweepReport{
		Checked: 120, Due: 14, Refreshed: 11, Failed: 2, Waiting: 3, Deferred: 1, Stale: 6,
		Expiring: make([]connector.Expiring, 2),
		Health: connector.Health{Refused: 4, NewlyRefused: 1, Recovered: 5, FailedBy: map[string]int{"refused": 1, "store": 1, "timeout": 0},
			Healthy: 116, FirstExpiry: now.Add(29*time.Minute + 1500*time.Millisecond)},
		Apps: map[string]connector.Health{
			"well":    {Healthy: 100},
			"refused": {Healthy: 9, Refused: 4, FailedBy: map[string]int{"refused": 1}},
			"store":   {Healthy: 7, FailedBy: map[string]int{"store": 1}},
		},
	}
	want := map[string]float64{
		"SweepsSucceeded": 1, "Checked": 120, "Due": 14, "Refreshed": 11, "Failed": 2, "Waiting": 3, "Deferred": 1,
		"Refused": 4, "NewRefusals": 1, "Recovered": 5, "ExpiringCredentials": 2, "StaleEntries": 6, "ShortestLife": 1741, "SweepDuration": 2500,
		"Failed Class=refused": 1, "Failed Class=store": 1,
		"Failed App=refused": 1, "Refused App=refused": 4, "Failed App=store": 1, "Refused App=store": 0,
	}
	if got := metricsOf(t, report, 2500*time.Millisecond); !reflect.DeepEqual(got, want) {
		t.Errorf(" got %v\nwant %v", got, want)
	}

	// An incomplete sweep is not a success, and without healthy connections there is no shortest
	// life.
	report.Incomplete, report.Health.Healthy = true, 0
	delete(want, "SweepsSucceeded")
	delete(want, "ShortestLife")
	if got := metricsOf(t, report, 2500*time.Millisecond); !reflect.DeepEqual(got, want) {
		t.Errorf("incomplete, with nothing healthy:\n got %v\nwant %v", got, want)
	}
	report.Health.Healthy, report.Health.FirstExpiry = 1, now.Add(-time.Minute)
	if got := metricsOf(t, report, 0); got["ShortestLife"] != -60 {
		t.Errorf("a token that expired a minute ago: %v", got)
	}
}

// Each metric costs money: if very many apps are in trouble, only the worst have metrics of their
// own.
func TestMetricsOfTheWorstApps(t *testing.T) {
	apps := make(map[string]connector.Health)
	for i := range 60 {
		apps[fmt.Sprintf("failed%02d", i)] = connector.Health{FailedBy: map[string]int{"timeout": i + 1, "store": 1}}
	}
	apps["refused"] = connector.Health{Refused: 1}
	metrics := metricsOf(t, connector.SweepReport{Apps: apps}, 0)
	names := slices.DeleteFunc(slices.Collect(maps.Keys(metrics)), func(name string) bool { return !strings.HasPrefix(name, "Failed App=") })
	all := strings.Join(names, " ")
	if len(names) != 50 || !strings.Contains(all, "refused") || !strings.Contains(all, "failed11") || strings.Contains(all, "failed10") {
		t.Errorf("%d apps have metrics: %v", len(names), names)
	}
}
