package cloudwatchtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// alarmProperties are those of AWS::CloudWatch::Alarm, under their own names.
type alarmProperties struct {
	AlarmName, AlarmDescription                      string
	AlarmActions, OKActions, InsufficientDataActions []any
	Namespace, MetricName, Statistic                 string
	Dimensions                                       []dimension
	Period                                           int
	Metrics                                          []query
	ComparisonOperator                               string
	Threshold                                        *float64
	EvaluationPeriods, DatapointsToAlarm             int
	TreatMissingData                                 string
}

type dimension struct{ Name, Value string }

type metricName struct {
	Namespace, MetricName string
	Dimensions            []dimension
}

type metricStat struct {
	Metric metricName
	Period int
	Stat   string
}

type query struct {
	ID         string `json:"Id"`
	Expression string
	Label      string
	ReturnData *bool
	MetricStat *metricStat
}

// Alarms returns the alarms of a SAM or CloudFormation template, by name, with its parameters' defaults. A reference to a
// resource, or to an attribute of one, stands for its logical ID: it is up to the test to name its metrics so. It fails on
// properties that it does not know.
func Alarms(template []byte) ([]Alarm, error) {
	var doc struct {
		Parameters map[string]struct {
			Default any `yaml:"Default"`
		} `yaml:"Parameters"`
		Resources map[string]struct {
			Type       string    `yaml:"Type"`
			Properties yaml.Node `yaml:"Properties"`
		} `yaml:"Resources"`
	}
	if err := yaml.Unmarshal(template, &doc); err != nil {
		return nil, err
	}
	r := make(resolver)
	for name, p := range doc.Parameters {
		r[name] = p.Default
	}
	var alarms []Alarm
	for name, resource := range doc.Resources {
		if resource.Type != "AWS::CloudWatch::Alarm" {
			continue
		}
		a := Alarm{Name: name}
		plain, err := json.Marshal(r.resolve(&resource.Properties))
		if err == nil {
			decoder := json.NewDecoder(bytes.NewReader(plain))
			decoder.DisallowUnknownFields()
			err = decoder.Decode(&a.alarmProperties)
		}
		if err == nil && (a.Threshold == nil || a.EvaluationPeriods == 0) {
			err = errors.New("no Threshold or no EvaluationPeriods")
		}
		if err != nil {
			return nil, fmt.Errorf("alarm %s: %w", name, err)
		}
		alarms = append(alarms, a)
	}
	slices.SortFunc(alarms, func(a, b Alarm) int { return strings.Compare(a.Name, b.Name) })
	return alarms, nil
}

// resolver is the values of the parameters.
type resolver map[string]any

// resolve turns a node into what json.Marshal takes. Of !If, which alarms have for their actions, it keeps all branches.
func (r resolver) resolve(n *yaml.Node) any {
	switch {
	case n.Tag == "!Ref":
		return r.ref(n.Value)
	case n.Tag == "!GetAtt":
		resource, _, _ := strings.Cut(n.Value, ".")
		return resource
	case n.Tag == "!Sub" && n.Kind == yaml.ScalarNode:
		return variable.ReplaceAllStringFunc(n.Value, func(v string) string {
			name, _, _ := strings.Cut(v[2:len(v)-1], ".")
			return fmt.Sprint(r.ref(name))
		})
	}
	switch n.Kind {
	case yaml.MappingNode:
		object := make(map[string]any)
		for i := 0; i < len(n.Content); i += 2 {
			object[n.Content[i].Value] = r.resolve(n.Content[i+1])
		}
		return object
	case yaml.SequenceNode:
		list := []any{}
		for _, item := range n.Content {
			list = append(list, r.resolve(item))
		}
		return list
	case yaml.AliasNode:
		return r.resolve(n.Alias)
	}
	var value any
	_ = n.Decode(&value) // a scalar
	return value
}

var variable = regexp.MustCompile(`\$\{[A-Za-z0-9:.]+\}`)

func (r resolver) ref(name string) any {
	if value, ok := r[name]; ok {
		return value
	}
	return name
}
