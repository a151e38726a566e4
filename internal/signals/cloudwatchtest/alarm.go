package cloudwatchtest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"entra-connector/internal/templatetest"
)

// State of an alarm.
type State string

const (
	OK               State = "OK"
	InAlarm          State = "ALARM"
	InsufficientData State = "INSUFFICIENT_DATA"
)

// Alarm is an alarm of a template.
type Alarm struct {
	Name string // its logical ID
	properties
	fill *float64 // replaces missing data points
}

// What a template may use. An alarm with anything else is refused, since it would be evaluated
// wrongly.
var (
	statistics = map[string]func([]float64) float64{
		"Minimum": slices.Min[[]float64],
		"Maximum": slices.Max[[]float64],
		"Sum": func(values []float64) (sum float64) {
			for _, v := range values {
				sum += v
			}
			return sum
		},
	}
	comparisons = map[string]func(v, threshold float64) bool{
		"GreaterThanThreshold": func(v, threshold float64) bool { return v > threshold },
		"LessThanThreshold":    func(v, threshold float64) bool { return v < threshold },
	}
	treatments = []string{"missing", "ignore", "breaching", "notBreaching"}
)

type metric struct {
	Namespace, MetricName string
	Dimensions            []struct{ Name, Value string }
}

// properties are those of AWS::CloudWatch::Alarm that may occur.
type properties struct {
	AlarmName, AlarmDescription string
	AlarmActions, OKActions     []string
	metric
	Period    int
	Statistic string
	Metrics   []struct {
		ID, Expression string
		ReturnData     any
		MetricStat     struct {
			Metric metric
			Period int
			Stat   string
		}
	}
	ComparisonOperator                   string
	Threshold                            *float64
	EvaluationPeriods, DatapointsToAlarm int
	TreatMissingData                     string
}

// Alarms returns the alarms among a template's resources, by name.
func Alarms(resources map[string]templatetest.Resource) ([]Alarm, error) {
	var alarms []Alarm
	for _, name := range slices.Sorted(maps.Keys(resources)) {
		if resources[name].Type == "AWS::CloudWatch::Alarm" {
			a, err := newAlarm(name, resources[name])
			if err != nil {
				return nil, fmt.Errorf("alarm %s: %w", name, err)
			}
			alarms = append(alarms, a)
		}
	}
	return alarms, nil
}

func newAlarm(name string, resource templatetest.Resource) (Alarm, error) {
	a := Alarm{Name: name}
	if err := resource.Decode(&a.properties); err != nil {
		return a, err
	}
	a.DatapointsToAlarm = cmp.Or(a.DatapointsToAlarm, a.EvaluationPeriods)
	if n := len(a.Metrics); n > 0 { // one metric, filled with zeros
		filled, q := a.Metrics[0], a.Metrics[n-1]
		if n != 2 || filled.Expression != "FILL("+q.ID+", 0)" || filled.ReturnData != nil || q.ReturnData != false {
			return a, fmt.Errorf("these metrics are not known here: %+v", a.Metrics)
		}
		a.fill, a.metric, a.Period, a.Statistic = new(0.0), q.MetricStat.Metric, q.MetricStat.Period, q.MetricStat.Stat
	}
	if a.Period < 60 || statistics[a.Statistic] == nil || comparisons[a.ComparisonOperator] == nil || a.Threshold == nil ||
		a.EvaluationPeriods == 0 || !slices.Contains(treatments, a.TreatMissingData) {
		return a, fmt.Errorf("a property is missing or not known here: %+v", a.properties)
	}
	return a, nil
}

// extraPeriods is how much further back than its periods an alarm looks for data points in place of
// missing ones. The documentation says that it does, but not how far; its example has five points
// for three periods.
const extraPeriods = 2

// Evaluate returns the alarm's state at a time, given the state before.
func (a Alarm) Evaluate(m Metrics, now time.Time, before State) State {
	var dimensions []string
	for _, d := range a.Dimensions {
		dimensions = append(dimensions, d.Name+"="+d.Value)
	}
	period := time.Duration(a.Period) * time.Second
	values := make([][]float64, a.EvaluationPeriods+extraPeriods) // by period, the newest last
	for _, p := range m[key(a.Namespace, a.MetricName, dimensions)] {
		i := len(values) - 1 - int((now.Sub(p.At)-1)/period)
		if p.At.Before(now) && i >= 0 {
			values[i] = append(values[i], p.Value)
		}
	}
	points, found := make([]*float64, len(values)), false // nil for none
	for i, v := range values {
		if len(v) > 0 {
			points[i], found = new(statistics[a.Statistic](v)), true
		}
	}
	for i := range points {
		if found && points[i] == nil { // FILL leaves a metric without any data point as it is
			points[i] = a.fill
		}
	}
	return a.judge(points, before)
}

// judge follows the tables in "Configuring how CloudWatch alarms treat missing data": missing data
// points only count when there are too few others.
func (a Alarm) judge(points []*float64, before State) State {
	breaching, well, oldest := 0, 0, 0
	for i := len(points) - 1; i >= 0 && breaching+well < a.EvaluationPeriods; i-- {
		switch p := points[i]; {
		case p == nil:
		case comparisons[a.ComparisonOperator](*p, *a.Threshold):
			breaching, oldest = breaching+1, len(points)-i
		default:
			well++
		}
	}
	missing := a.EvaluationPeriods - breaching - well
	switch treat := a.TreatMissingData; {
	case breaching >= a.DatapointsToAlarm, treat == "breaching" && breaching+missing >= a.DatapointsToAlarm:
		return InAlarm
	case well > 0, treat == "notBreaching", treat == "breaching":
		return OK
	case treat == "ignore":
		return before
	case breaching == 0:
		return InsufficientData
	case oldest >= a.DatapointsToAlarm:
		return InAlarm
	}
	return before
}
