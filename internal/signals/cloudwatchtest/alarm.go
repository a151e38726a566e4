package cloudwatchtest

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
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
	alarmProperties
}

// extraPeriods is how much further back CloudWatch looks than the evaluation
// periods, for data points in place of missing ones. That it does is documented;
// how far is not, but for an example of five points for three periods.
const extraPeriods = 2

// Evaluate returns the alarm's state at a time, given the state before.
func (a Alarm) Evaluate(m *Metrics, now time.Time, before State) (State, error) {
	points, err := a.points(m, now)
	if err != nil {
		return before, fmt.Errorf("alarm %s: %w", a.Name, err)
	}
	breaches, err := comparison(a.ComparisonOperator, *a.Threshold)
	if err != nil {
		return before, fmt.Errorf("alarm %s: %w", a.Name, err)
	}
	return a.judge(points, breaches, before), nil
}

// judge decides as the tables in "Configuring how CloudWatch alarms treat missing
// data" have it: real data points count before missing ones are made up.
func (a Alarm) judge(points []*float64, breaches func(float64) bool, before State) State {
	toAlarm := a.DatapointsToAlarm
	if toAlarm == 0 {
		toAlarm = a.EvaluationPeriods
	}
	breaching, well, oldest := 0, 0, 0
	for i := len(points) - 1; i >= 0 && breaching+well < a.EvaluationPeriods; i-- {
		switch p := points[i]; {
		case p == nil:
		case breaches(*p):
			breaching, oldest = breaching+1, len(points)-i
		default:
			well++
		}
	}
	missing := a.EvaluationPeriods - breaching - well
	switch {
	case breaching >= toAlarm, a.TreatMissingData == "breaching" && breaching+missing >= toAlarm:
		return InAlarm
	case well > 0, a.TreatMissingData == "notBreaching", a.TreatMissingData == "breaching":
		return OK
	case a.TreatMissingData == "ignore":
		return before
	case breaching == 0:
		return InsufficientData
	case oldest >= toAlarm:
		return InAlarm
	}
	return before
}

func comparison(operator string, threshold float64) (func(float64) bool, error) {
	switch operator {
	case "GreaterThanThreshold":
		return func(v float64) bool { return v > threshold }, nil
	case "GreaterThanOrEqualToThreshold":
		return func(v float64) bool { return v >= threshold }, nil
	case "LessThanThreshold":
		return func(v float64) bool { return v < threshold }, nil
	case "LessThanOrEqualToThreshold":
		return func(v float64) bool { return v <= threshold }, nil
	}
	return nil, fmt.Errorf("comparison %s is not known here", operator)
}

// fill is the one expression that is known here.
var fill = regexp.MustCompile(`^FILL\((\w+), *(-?[0-9.]+)\)$`)

// points are the alarm's data points, the newest last, with nil for none.
func (a Alarm) points(m *Metrics, now time.Time) ([]*float64, error) {
	if len(a.Metrics) == 0 {
		return a.statistics(m, now, metricStat{metricName{a.Namespace, a.MetricName, a.Dimensions}, a.Period, a.Statistic})
	}
	stats := make(map[string][]*float64)
	for _, q := range a.Metrics {
		if q.MetricStat == nil {
			continue
		}
		points, err := a.statistics(m, now, *q.MetricStat)
		if err != nil {
			return nil, err
		}
		stats[q.ID] = points
	}
	var returned []*float64
	for _, q := range a.Metrics {
		if q.ReturnData != nil && !*q.ReturnData {
			continue
		}
		if returned != nil {
			return nil, fmt.Errorf("more than one query returns data")
		}
		returned = stats[q.ID]
		if q.Expression != "" {
			call := fill.FindStringSubmatch(q.Expression)
			if call == nil || stats[call[1]] == nil {
				return nil, fmt.Errorf("expression %s is not known here", q.Expression)
			}
			value, err := strconv.ParseFloat(call[2], 64)
			if err != nil {
				return nil, err
			}
			returned = filled(stats[call[1]], value)
		}
	}
	if returned == nil {
		return nil, fmt.Errorf("no query returns data")
	}
	return returned, nil
}

// filled is FILL: of a metric without any data point it makes none.
func filled(points []*float64, value float64) []*float64 {
	out := make([]*float64, len(points))
	some := false
	for i, p := range points {
		out[i] = p
		if some = some || p != nil; p == nil {
			out[i] = &value
		}
	}
	if !some {
		return points
	}
	return out
}

func (a Alarm) statistics(m *Metrics, now time.Time, s metricStat) ([]*float64, error) {
	period := time.Duration(s.Period) * time.Second
	if period < time.Minute || period%time.Minute != 0 {
		return nil, fmt.Errorf("a period of %d s is not known here", s.Period)
	}
	dimensions := make(map[string]string)
	for _, d := range s.Metric.Dimensions {
		dimensions[d.Name] = d.Value
	}
	all := m.points[key(s.Metric.Namespace, s.Metric.MetricName, dimensions)]
	n := a.EvaluationPeriods + extraPeriods
	points := make([]*float64, n)
	for i := range n {
		from := now.Add(-period * time.Duration(n-i))
		var values []float64
		for _, p := range all {
			if !p.at.Before(from) && p.at.Before(from.Add(period)) {
				values = append(values, p.value)
			}
		}
		if len(values) == 0 {
			continue
		}
		value, err := statistic(s.Stat, values)
		if err != nil {
			return nil, err
		}
		points[i] = &value
	}
	return points, nil
}

func statistic(name string, values []float64) (float64, error) {
	sum, least, most := 0.0, values[0], values[0]
	for _, v := range values {
		sum, least, most = sum+v, min(least, v), max(most, v)
	}
	switch name {
	case "Sum":
		return sum, nil
	case "Average":
		return sum / float64(len(values)), nil
	case "Minimum":
		return least, nil
	case "Maximum":
		return most, nil
	case "SampleCount":
		return float64(len(values)), nil
	}
	return 0, fmt.Errorf("statistic %s is not known here", name)
}
