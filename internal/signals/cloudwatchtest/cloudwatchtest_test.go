package cloudwatchtest

import (
	"strings"
	"testing"
	"time"

	"entra-connector/internal/templatetest"
)

// The tables in the CloudWatch User Guide, "Configuring how CloudWatch alarms treat missing data":
// 0 is within the threshold, X beyond it, - missing.
func TestMissingData(t *testing.T) {
	for _, tt := range []struct {
		points                                string
		toAlarm                               int
		missing, ignore, breaching, notBreach State
	}{
		{"0-X-X", 3, OK, OK, OK, OK},
		{"0----", 3, OK, OK, OK, OK},
		{"-----", 3, InsufficientData, "before", InAlarm, OK},
		{"0XX-X", 3, InAlarm, InAlarm, InAlarm, InAlarm},
		{"--X--", 3, InAlarm, "before", InAlarm, OK},
		{"0-X-X", 2, InAlarm, InAlarm, InAlarm, InAlarm},
		{"00X0X", 2, InAlarm, InAlarm, InAlarm, InAlarm},
		{"0-X--", 2, OK, OK, InAlarm, OK},
		{"----0", 2, OK, OK, InAlarm, OK},
		{"---X-", 2, InAlarm, "before", InAlarm, OK},
	} {
		var points []*float64
		for _, p := range tt.points {
			points = append(points, map[rune]*float64{'0': new(0.0), 'X': new(1.0)}[p])
		}
		for i, want := range []State{tt.missing, tt.ignore, tt.breaching, tt.notBreach} {
			a := Alarm{properties: properties{EvaluationPeriods: 3, DatapointsToAlarm: tt.toAlarm, TreatMissingData: treatments[i],
				ComparisonOperator: "GreaterThanThreshold", Threshold: new(0.0)}}
			if got := a.judge(points, "before"); got != want {
				t.Errorf("%s, %d of 3, %s: %s, want %s", tt.points, tt.toAlarm, treatments[i], got, want)
			}
		}
	}
}

const template = `
Resources:
  Silent:
    Type: AWS::CloudWatch::Alarm
    Properties:
      Metrics:
        - { Id: f, Expression: "FILL(m, 0)" }
        - Id: m
          ReturnData: false
          MetricStat: { Metric: { Namespace: N, MetricName: Done, Dimensions: [{ Name: F, Value: f }] }, Period: 60, Stat: Sum }
      ComparisonOperator: LessThanThreshold
      Threshold: 2
      EvaluationPeriods: 3
      TreatMissingData: notBreaching
`

func TestAlarms(t *testing.T) {
	read := func(text string) ([]Alarm, error) {
		resources, err := templatetest.Parse([]byte(text), nil)
		if err != nil {
			t.Fatal(err)
		}
		return Alarms(resources)
	}
	alarms, err := read(template)
	if err != nil || len(alarms) != 1 || alarms[0].Name != "Silent" {
		t.Fatalf("%+v, %v", alarms, err)
	}
	at := func(minute int) time.Time { return time.Unix(0, 0).Add(time.Duration(minute) * time.Minute) }
	m := Metrics{"N Done F=f": {{at(10), 1}, {at(10), 1}}, "N Done F=other": {{at(12), 2}}}
	for minute, want := range map[int]State{10: OK, 11: OK, 13: OK, 14: InAlarm, 15: InAlarm, 16: OK} {
		if got := alarms[0].Evaluate(m, at(minute), "before"); got != want {
			t.Errorf("minute %d: %s, want %s", minute, got, want)
		}
	}
	for old, wrong := range map[string]string{
		"Threshold: 2": "ThresholdMetricId: m", "Period: 60": "Period: 30", "Stat: Sum": "Stat: p50", "FILL(m, 0)": "m * 2",
		"ReturnData: false": "ReturnData: true", "LessThanThreshold": "LessThanLowerThreshold",
		"TreatMissingData: notBreaching": "TreatMissingData: NotBreaching", "EvaluationPeriods: 3": "DatapointsToAlarm: 3",
	} {
		if _, err := read(strings.Replace(template, old, wrong, 1)); err == nil {
			t.Errorf("%s is accepted", wrong)
		}
	}
}

func TestReadIsStrict(t *testing.T) {
	const line = `{"_aws":{"Timestamp":2000,"CloudWatchMetrics":[{"Namespace":"N","Dimensions":[["F"]],"Metrics":[{"Name":"M","Unit":"Count"}]}]},` +
		`"F":"f","M":2,"level":"INFO","timestamp":"1970-01-01T00:00:02Z"}`
	m := Metrics{}
	if err := m.Read("{\"message\":\"hello\"}\n"+line+"\nplain\n", time.Time{}); err != nil {
		t.Fatal(err)
	}
	if got := m["N M F=f"]; len(m) != 1 || len(got) != 1 || got[0] != (Point{time.UnixMilli(2000), 2}) {
		t.Errorf("read %v", m)
	}
	for old, wrong := range map[string]string{
		`"Timestamp":2000,`: ``, `"level":"INFO",`: ``, `00:00:02Z`: `00:00:09Z`, `"Namespace":"N"`: `"Namespace":"AWS/N"`, `"F":"f"`: `"F":1`,
		`"M":2`: `"M":"2"`, `"M":2,`: ``, `"Count"`: `"Counts"`, `[["F"]]`: `[["G"]]`, `[{"Name":"M","Unit":"Count"}]`: `[]`, `:02Z"}`: `:02Z"} {}`,
	} {
		if err := m.Read(strings.Replace(line, old, wrong, 1), time.Time{}); err == nil {
			t.Errorf("%s instead of %s is accepted", wrong, old)
		}
	}
}
