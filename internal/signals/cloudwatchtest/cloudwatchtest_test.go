package cloudwatchtest

import (
	"strings"
	"testing"
	"time"
)

// The tables in the CloudWatch User Guide, "Configuring how CloudWatch alarms
// treat missing data": 0 is within the threshold, X beyond it, - missing.
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
		for treat, want := range map[string]State{"missing": tt.missing, "": tt.missing, "ignore": tt.ignore, "breaching": tt.breaching, "notBreaching": tt.notBreach} {
			a := Alarm{alarmProperties: alarmProperties{EvaluationPeriods: 3, DatapointsToAlarm: tt.toAlarm, TreatMissingData: treat}}
			if got := a.judge(points, func(v float64) bool { return v > 0 }, "before"); got != want {
				t.Errorf("%s, %d of 3, %s: %s, want %s", tt.points, tt.toAlarm, treat, got, want)
			}
		}
	}
}

const template = `
Parameters:
  Minutes: { Type: Number, Default: 3 }
Resources:
  Queue: { Type: AWS::SQS::Queue }
  Silent:
    Type: AWS::CloudWatch::Alarm
    Properties:
      AlarmDescription: !Sub nothing for ${Minutes} minutes in ${Queue.QueueName}
      Metrics:
        - { Id: f, Expression: "FILL(m, 0)" }
        - Id: m
          ReturnData: false
          MetricStat:
            Metric: { Namespace: N, MetricName: Done, Dimensions: [{ Name: F, Value: !Ref Fn }] }
            Period: 60
            Stat: Sum
      ComparisonOperator: LessThanThreshold
      Threshold: 1
      EvaluationPeriods: !Ref Minutes
      TreatMissingData: breaching
      AlarmActions: [!If [Told, !Ref Topic, !Ref AWS::NoValue]]
  Full:
    Type: AWS::CloudWatch::Alarm
    Properties:
      Namespace: AWS/SQS
      MetricName: Visible
      Dimensions: [{ Name: QueueName, Value: !GetAtt Queue.QueueName }]
      Period: 300
      Statistic: Maximum
      ComparisonOperator: GreaterThanOrEqualToThreshold
      Threshold: 2.5
      EvaluationPeriods: 1
      TreatMissingData: notBreaching
`

func TestAlarms(t *testing.T) {
	alarms, err := Alarms([]byte(template))
	if err != nil || len(alarms) != 2 || alarms[0].Name != "Full" || alarms[1].AlarmDescription != "nothing for 3 minutes in Queue" {
		t.Fatalf("%+v, %v", alarms, err)
	}
	full, silent := alarms[0], alarms[1]
	var m Metrics
	at := func(minutes int) time.Time { return time.Unix(0, 0).Add(time.Duration(minutes) * time.Minute) }
	state := func(a Alarm, minutes int) State {
		s, err := a.Evaluate(&m, at(minutes), "before")
		if err != nil {
			t.Error(err)
		}
		return s
	}
	if got := state(silent, 10); got != InAlarm {
		t.Errorf("with no data at all: %s", got)
	}
	m.Put("N", "Done", map[string]string{"F": "Fn"}, at(10), 1)
	m.Put("N", "Done", map[string]string{"F": "Other"}, at(12), 1)
	m.Put("AWS/SQS", "Visible", map[string]string{"QueueName": "Queue"}, at(10), 2.5)
	m.Put("AWS/SQS", "Visible", map[string]string{"QueueName": "Queue"}, at(11), 1)
	for minutes, want := range map[int]State{10: InAlarm, 11: OK, 13: OK, 14: InAlarm} {
		if got := state(silent, minutes); got != want {
			t.Errorf("minute %d: %s, want %s", minutes, got, want)
		}
	}
	for minutes, want := range map[int]State{10: OK, 11: InAlarm, 15: InAlarm, 40: OK} {
		if got := state(full, minutes); got != want {
			t.Errorf("the queue in minute %d: %s, want %s", minutes, got, want)
		}
	}
	// What would be evaluated wrongly is refused.
	for old, new := range map[string]string{
		"Statistic: Maximum": "ExtendedStatistic: p99", "Threshold: 2.5": "ThresholdMetricId: m", "Period: 300": "Period: 30",
		"Maximum": "IQM", "GreaterThanOrEqualToThreshold": "GreaterThanUpperThreshold", "FILL(m, 0)": "m * 2", "Stat: Sum": "Stat: p50",
	} {
		alarms, err := Alarms([]byte(strings.Replace(template, old, new, 1)))
		for _, a := range alarms {
			if _, failed := a.Evaluate(&m, at(11), OK); failed != nil {
				err = failed
			}
		}
		if err == nil {
			t.Errorf("%s is accepted", new)
		}
	}
}

// What CloudWatch, or Lambda in front of it, would drop is an error.
func TestReadIsStrict(t *testing.T) {
	const line = `{"_aws":{"Timestamp":1,"CloudWatchMetrics":[{"Namespace":"N","Dimensions":[["F"]],"Metrics":[{"Name":"M","Unit":"Count"}]}]},` +
		`"F":"f","M":2,"level":"INFO","timestamp":"1970-01-01T00:00:00.001Z"}`
	var m Metrics
	if err := m.Read("{\"message\":\"hello\"}\n"+line+"\nplain\n", time.Time{}); err != nil {
		t.Fatal(err)
	}
	if got := m.Values("N", "M", map[string]string{"F": "f"}); len(got) != 1 || got[0] != 2 {
		t.Errorf("values %v of %v", got, m.All())
	}
	for old, new := range map[string]string{
		`"Timestamp":1,`: ``, `"level":"INFO",`: ``, `00:00:00.001Z`: `00:00:09Z`, `"Namespace":"N"`: `"Namespace":"AWS/N"`, `"F":"f"`: `"F":1`,
		`"M":2`: `"M":"2"`, `"M":2,`: ``, `"Count"`: `"Counts"`, `[["F"]]`: `[["G"]]`, `[{"Name":"M","Unit":"Count"}]`: `[]`, `.001Z"}`: `.001Z"} {}`,
	} {
		if err := m.Read(strings.Replace(line, old, new, 1), time.Time{}); err == nil {
			t.Errorf("%s instead of %s is accepted", new, old)
		}
	}
}
