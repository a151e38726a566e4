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

	"entra-connector/internal/connector"

	"github.com/aws/aws-lambda-go/lambdacontext"

	"entra-connector/internal/signals"
	"entra-connector/internal/signals/cloudwatchtest"
)

var now = time.Date(2026, 11, 23, 1, 2, 3, 456789000, time.FixedZone("", 3600))

// sweepMetrics are the metrics after a sweep, as CloudWatch has them, under their
// name and what dimensions they have beside the function.
func sweepMetrics(t *testing.T, report connector.SweepReport, took time.Duration) map[string][]float64 {
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
		Checked: 120, Due: 14, Refreshed: 11, Failed: 2, Waiting: 3, Deferred: 1,
		Expiring: make([]connector.Expiring, 2),
		Health: connector.Health{Refused: 4, NewlyRefused: 1, Recovered: 5, FailedBy: map[string]int{"refused": 1, "store": 1, "timeout": 0},
			Healthy: 116, ShortestLife: 29*time.Minute + 1500*time.Millisecond},
		Apps: map[string]connector.Health{
			"well":    {Healthy: 100},
			"refused": {Healthy: 9, Refused: 4, FailedBy: map[string]int{"refused": 1}},
			"store":   {Healthy: 7, FailedBy: map[string]int{"store": 1}},
		},
	}
	want := map[string]float64{
		"SweepsSucceeded": 1, "Checked": 120, "Due": 14, "Refreshed": 11, "Failed": 2, "Waiting": 3, "Deferred": 1,
		"Refused": 4, "NewRefusals": 1, "Recovered": 5, "ExpiringCredentials": 2, "ShortestLife": 1741, "SweepDuration": 2500,
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
	report.Health.Healthy, report.Health.ShortestLife = 1, -time.Minute
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
	var metrics []string
	for name := range sweepMetrics(t, connector.SweepReport{Apps: apps}, 0) {
		if strings.HasPrefix(name, "Failed App=") {
			metrics = append(metrics, name)
		}
	}
	all := strings.Join(metrics, " ")
	if len(metrics) != 50 || !strings.Contains(all, "refused") || !strings.Contains(all, "failed11") || strings.Contains(all, "failed10") {
		t.Errorf("%d apps have metrics: %v", len(metrics), metrics)
	}
}

// Lambda and CloudWatch know a line by these members.
func TestMetricLine(t *testing.T) {
	var out bytes.Buffer
	ctx := lambdacontext.NewContext(t.Context(), &lambdacontext.LambdaContext{AwsRequestID: "3f1c"})
	signals.Metrics{Out: &out, Function: "f", Now: func() time.Time { return now }}.Sweep(ctx, connector.SweepReport{}, 0)
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%v: %s", err, &out)
	}
	if got["level"] != "INFO" || got["timestamp"] != "2026-11-23T00:02:03.456789Z" || got["requestId"] != "3f1c" {
		t.Errorf("line %s", &out)
	}
	if aws, _ := got["_aws"].(map[string]any); aws["Timestamp"] != float64(now.UnixMilli()) {
		t.Errorf("_aws is %v", got["_aws"])
	}
}

// lines counts Writes, and fails where one is not a whole line.
type lines struct {
	t  *testing.T
	mu sync.Mutex
	n  int
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n++; bytes.Count(p, []byte("\n")) != 1 || p[len(p)-1] != '\n' || !json.Valid(p) {
		l.t.Errorf("not one line: %q", p)
	}
	return len(p), nil
}

// The logger writes to the same stream, at the same time.
func TestALineIsOneWrite(t *testing.T) {
	out := &lines{t: t}
	log := slog.New(slog.NewJSONHandler(out, nil))
	metrics := signals.Metrics{Out: out, Function: "f", Now: time.Now}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() { metrics.Sweep(context.Background(), connector.SweepReport{}, 0) })
		group.Go(func() { log.Info("sweep done", "checked", 1) })
	}
	group.Wait()
	if out.n != 16 {
		t.Errorf("%d writes, want 16", out.n)
	}
}
