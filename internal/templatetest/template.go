// Package templatetest reads template.yaml as CloudFormation does, for tests of what it deploys.
package templatetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// Resource is a resource of a template. A reference in its properties stands for the logical ID of
// the resource that it names, an attribute for the logical ID with the attribute's name, such as
// "RefreshFunction.Arn".
type Resource struct {
	Type       string
	Properties map[string]any
}

// Decode stores the properties in v, as [json.Unmarshal] would. It fails on a property that v has
// no field for.
func (r Resource) Decode(v any) error {
	text, _ := json.Marshal(r.Properties) // without a text, Decode fails
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	return decoder.Decode(v)
}

// Read returns the resources of ../../template.yaml by logical ID, for these parameters and the
// defaults of the others.
func Read(tb testing.TB, parameters map[string]string) map[string]Resource {
	tb.Helper()
	text, err := os.ReadFile("../../template.yaml")
	if err != nil {
		tb.Fatal(err)
	}
	resources, err := Parse(text, parameters)
	if err != nil {
		tb.Fatal(err)
	}
	return resources
}

// Parse is [Read] for the text of a template. It fails on whatever it does not understand.
func Parse(text []byte, parameters map[string]string) (map[string]Resource, error) {
	var r resolver
	if err := yaml.Unmarshal(text, &r); err != nil {
		return nil, err
	}
	// The stand-ins for AWS have the same Region and account.
	r.values = map[string]any{"AWS::Partition": "aws", "AWS::Region": "us-east-1", "AWS::AccountId": "123456789012",
		"AWS::StackName": "entra-connector", "AWS::URLSuffix": "amazonaws.com", "AWS::NoValue": noValue{}}
	for name, p := range r.Parameters {
		r.values[name] = p.Default
	}
	for name, value := range parameters {
		if _, ok := r.Parameters[name]; !ok {
			r.fail("there is no parameter %s", name)
		}
		r.values[name] = value
	}
	for id, resource := range r.Resources {
		if resource.Condition != "" && !r.condition(resource.Condition) {
			delete(r.Resources, id)
		}
	}
	resources := make(map[string]Resource)
	for id, resource := range r.Resources {
		properties, _ := r.resolve(&resource.Properties).(map[string]any)
		resources[id] = Resource{resource.Type, properties}
	}
	return resources, errors.Join(r.errs...)
}

// resolver is a template, as far as it is read here.
type resolver struct {
	Parameters map[string]struct {
		Default any `yaml:"Default"`
	} `yaml:"Parameters"`
	Conditions map[string]yaml.Node `yaml:"Conditions"`
	Resources  map[string]struct {
		Type       string    `yaml:"Type"`
		Condition  string    `yaml:"Condition"`
		Properties yaml.Node `yaml:"Properties"`
	} `yaml:"Resources"`

	values map[string]any // of parameters and pseudo parameters
	errs   []error
}

// noValue is AWS::NoValue, which stands for nothing.
type noValue struct{}

var variable = regexp.MustCompile(`\$\{[^}]*\}`)

func (r *resolver) fail(format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf(format, args...))
}

// resolve returns the value of a node.
func (r *resolver) resolve(n *yaml.Node) any {
	switch tag := n.ShortTag(); {
	case (tag == "!Ref" || tag == "!GetAtt") && n.Kind == yaml.ScalarNode:
		return r.reference(n, n.Value)
	case tag == "!Sub" && n.Kind == yaml.ScalarNode:
		return variable.ReplaceAllStringFunc(n.Value, func(s string) string { return fmt.Sprint(r.reference(n, s[2:len(s)-1])) })
	case tag == "!Sub" && len(n.Content) == 2: // the second has values of its own
		own, _ := r.resolve(n.Content[1]).(map[string]any)
		return variable.ReplaceAllStringFunc(n.Content[0].Value, func(s string) string {
			if value, ok := own[s[2:len(s)-1]]; ok {
				return fmt.Sprint(value)
			}
			return fmt.Sprint(r.reference(n, s[2:len(s)-1]))
		})
	case tag == "!If" && len(n.Content) == 3:
		if r.condition(n.Content[0].Value) {
			return r.resolve(n.Content[1])
		}
		return r.resolve(n.Content[2])
	case tag == "!Equals" && len(n.Content) == 2: // CloudFormation compares numbers as strings
		return fmt.Sprint(r.resolve(n.Content[0])) == fmt.Sprint(r.resolve(n.Content[1]))
	case tag == "!And" && len(n.Content) == 2:
		return r.resolve(n.Content[0]) == true && r.resolve(n.Content[1]) == true
	case tag == "!Not" && len(n.Content) == 1:
		return r.resolve(n.Content[0]) == false
	case tag == "!!seq":
		list := []any{}
		for _, item := range n.Content {
			if v := r.resolve(item); v != any(noValue{}) {
				list = append(list, v)
			}
		}
		return list
	case tag == "!!map":
		object := make(map[string]any)
		for i := 0; i < len(n.Content); i += 2 {
			key := n.Content[i].Value
			if key == "Ref" || strings.HasPrefix(key, "Fn::") {
				r.fail("line %d: the function %s is not known here", n.Line, key)
			}
			if v := r.resolve(n.Content[i+1]); v != any(noValue{}) {
				object[key] = v
			}
		}
		return object
	case strings.HasPrefix(tag, "!!") && n.Kind == yaml.ScalarNode:
		var v any
		if err := n.Decode(&v); err != nil {
			r.fail("line %d: %w", n.Line, err)
		}
		return v
	}
	if !n.IsZero() { // a resource may have no properties
		r.fail("line %d: %s %s is not known here", n.Line, n.ShortTag(), n.Value)
	}
	return nil
}

func (r *resolver) reference(n *yaml.Node, name string) any {
	if value, ok := r.values[name]; ok {
		return value
	}
	id, _, _ := strings.Cut(name, ".")
	if _, ok := r.Resources[id]; !ok {
		r.fail("line %d: there is no value for %s", n.Line, name)
	}
	return name
}

// condition says whether a condition holds.
func (r *resolver) condition(name string) bool {
	n, ok := r.Conditions[name]
	if !ok {
		r.fail("there is no condition %s", name)
	}
	return ok && r.resolve(&n) == true
}
