package permissions

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// Where the stack is deployed: what the stand-ins' ARNs say too.
var pseudoParameters = map[string]string{
	"AWS::Partition": "aws", "AWS::Region": "us-east-1", "AWS::AccountId": "123456789012", "AWS::StackName": "entra-connector",
	"AWS::URLSuffix": "amazonaws.com",
}

// template is template.yaml as CloudFormation reads it for certain parameters. It stops the test at whatever it does not
// understand.
type template struct {
	*testing.T
	parameters map[string]string
	conditions map[string]yaml.Node
	resources  map[string]resource
}

type resource struct {
	Type       string    `yaml:"Type"`
	Condition  string    `yaml:"Condition"`
	Properties yaml.Node `yaml:"Properties"`
}

// read reads the template for the defaults of its parameters and those given.
func read(t *testing.T, parameters map[string]string) *template {
	t.Helper()
	text, err := os.ReadFile("../../template.yaml")
	var file struct {
		Parameters map[string]struct {
			Default *string `yaml:"Default"`
		} `yaml:"Parameters"`
		Conditions map[string]yaml.Node `yaml:"Conditions"`
		Resources  map[string]resource  `yaml:"Resources"`
	}
	if err == nil {
		err = yaml.Unmarshal(text, &file)
	}
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &template{t, maps.Clone(pseudoParameters), file.Conditions, file.Resources}
	for name, p := range file.Parameters {
		if p.Default != nil {
			tmpl.parameters[name] = *p.Default
		}
	}
	for name, value := range parameters {
		if _, ok := file.Parameters[name]; !ok {
			t.Fatalf("the template has no parameter %s", name)
		}
		tmpl.parameters[name] = value
	}
	maps.DeleteFunc(tmpl.resources, func(_ string, r resource) bool { return r.Condition != "" && !tmpl.condition(r.Condition) })
	return tmpl
}

// noValue is AWS::NoValue: as if there were nothing.
type noValue struct{}

// resolve returns what a node stands for: a string, a []any or a map[string]any. An attribute of a resource is its name, such
// as "RefreshFunction.Arn", a reference to a resource its logical ID.
func (t *template) resolve(n *yaml.Node) any {
	t.Helper()
	switch tag := n.ShortTag(); {
	case tag == "!Ref" && n.Value == "AWS::NoValue":
		return noValue{}
	case tag == "!Ref":
		return t.reference(n, n.Value)
	case tag == "!GetAtt" && n.Kind == yaml.ScalarNode:
		return t.reference(n, n.Value)
	case tag == "!Sub" && n.Kind == yaml.ScalarNode:
		return regexp.MustCompile(`\$\{[^}]*\}`).ReplaceAllStringFunc(n.Value, func(s string) string { return t.reference(n, s[2:len(s)-1]) })
	case tag == "!If" && len(n.Content) == 3:
		if t.condition(n.Content[0].Value) {
			return t.resolve(n.Content[1])
		}
		return t.resolve(n.Content[2])
	case strings.HasPrefix(tag, "!!") && n.Kind == yaml.ScalarNode:
		return n.Value
	case tag == "!!seq":
		list := []any{}
		for _, item := range n.Content {
			if v := t.resolve(item); v != (any)(noValue{}) {
				list = append(list, v)
			}
		}
		return list
	case tag == "!!map":
		object := make(map[string]any)
		for i := 0; i < len(n.Content); i += 2 {
			key := n.Content[i].Value
			if key == "Ref" || strings.HasPrefix(key, "Fn::") {
				t.Fatalf("template.yaml:%d: this test does not know %s", n.Line, key)
			}
			if v := t.resolve(n.Content[i+1]); v != (any)(noValue{}) {
				object[key] = v
			}
		}
		return object
	}
	t.Fatalf("template.yaml:%d: this test does not know %s %s", n.Line, n.ShortTag(), n.Value)
	return nil
}

func (t *template) reference(n *yaml.Node, name string) string {
	t.Helper()
	if value, ok := t.parameters[name]; ok {
		return value
	}
	id, _, _ := strings.Cut(name, ".")
	if _, ok := t.resources[id]; !ok {
		t.Fatalf("template.yaml:%d: there is no value for %s", n.Line, name)
	}
	return name
}

func (t *template) condition(name string) bool {
	t.Helper()
	n, ok := t.conditions[name]
	if !ok {
		t.Fatalf("template.yaml: there is no condition %s", name)
	}
	return t.holds(&n)
}

func (t *template) holds(n *yaml.Node) bool {
	t.Helper()
	switch tag := n.ShortTag(); {
	case tag == "!Condition":
		return t.condition(n.Value)
	case tag == "!Equals" && len(n.Content) == 2:
		return t.resolve(n.Content[0]) == t.resolve(n.Content[1])
	case tag == "!Not" && len(n.Content) == 1:
		return !t.holds(n.Content[0])
	case tag == "!And":
		return !slices.ContainsFunc(n.Content, func(c *yaml.Node) bool { return !t.holds(c) })
	case tag == "!Or":
		return slices.ContainsFunc(n.Content, t.holds)
	}
	t.Fatalf("template.yaml:%d: this test does not know the condition %s", n.Line, n.ShortTag())
	return false
}

// property returns what a path such as "RefreshFunction.LoggingConfig.LogGroup" leads to, nil where there is nothing.
func (t *template) property(path string) any {
	t.Helper()
	names := strings.Split(path, ".")
	properties := t.resources[names[0]].Properties
	n := &properties
	for _, name := range names[1:] {
		var child *yaml.Node
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == name {
				child = n.Content[i+1]
			}
		}
		if child == nil {
			return nil
		}
		n = child
	}
	return t.resolve(n)
}

// permission is one action that a role, or who has a managed policy, may take on one resource.
type permission struct {
	role, sid, action, resource string
	condition                   condition
}

// here is how the ARNs of what is deployed here begin.
var here = regexp.MustCompile(`^arn:aws:[a-z-]+:us-east-1:123456789012:(secret:)?`)

func (p permission) String() string {
	s := fmt.Sprintf("%s %s %s on %s", p.role, p.sid, p.action, here.ReplaceAllString(p.resource, ""))
	if len(p.condition) > 0 {
		s += " when " + p.condition.String()
	}
	return s
}

// permissions are those of all roles and managed policies of the template.
func (t *template) permissions() (granted []permission) {
	t.Helper()
	for _, id := range slices.Sorted(maps.Keys(t.resources)) {
		switch kind := t.resources[id].Type; {
		case kind == "AWS::IAM::Role":
			granted = append(granted, t.role(id)...)
		case kind == "AWS::Serverless::Function" && (t.property(id+".Role") == nil || t.property(id+".Policies") != nil):
			t.Fatalf("%s has no role of the template's own", id)
		case kind == "AWS::IAM::ManagedPolicy" && t.property(id+".Roles") == nil: // for people and programs outside the stack
			granted = append(granted, t.statements(id, t.property(id+".PolicyDocument"))...)
		case strings.HasPrefix(kind, "AWS::IAM::"):
			t.Fatalf("this test does not know %s", kind)
		}
	}
	return granted
}

func (t *template) role(id string) (granted []permission) {
	t.Helper()
	if t.property(id+".ManagedPolicyArns") != nil {
		t.Fatalf("this test does not know what the managed policies of %s allow", id)
	}
	for _, policy := range t.property(id + ".Policies").([]any) {
		granted = append(granted, t.statements(id, policy.(map[string]any)["PolicyDocument"])...)
	}
	return granted
}

// statements are what a policy document grants to whoever has that ID.
func (t *template) statements(id string, document any) (granted []permission) {
	t.Helper()
	for _, s := range document.(map[string]any)["Statement"].([]any) {
		statement := s.(map[string]any)
		for element := range statement {
			if !slices.Contains([]string{"Sid", "Effect", "Action", "Resource", "Condition"}, element) {
				t.Fatalf("this test does not know %s in a statement of %s", element, id)
			}
		}
		if statement["Effect"] != "Allow" {
			t.Fatalf("this test does not know the effect %v in a statement of %s", statement["Effect"], id)
		}
		for _, action := range texts(statement["Action"]) {
			for _, resource := range texts(statement["Resource"]) {
				granted = append(granted, permission{id, fmt.Sprint(statement["Sid"]), action, resource, t.conditionOf(statement["Condition"])})
			}
		}
	}
	return granted
}

// texts is what a policy has as one string or as a list of them.
func texts(v any) []string {
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	var all []string
	for _, item := range list {
		all = append(all, item.(string))
	}
	return all
}

// condition is the Condition of a statement: the values of each key, by operator.
type condition map[string]map[string][]string

// operators are the ones that the template uses. They say whether the values that a request has of a key satisfy those in the
// policy: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_multi-value-conditions.html
var operators = map[string]func(policy, request []string) bool{
	"StringEquals": func(policy, request []string) bool {
		return len(request) == 1 && slices.Contains(policy, request[0])
	},
	"ForAllValues:StringEquals": func(policy, request []string) bool {
		return !slices.ContainsFunc(request, func(v string) bool { return !slices.Contains(policy, v) })
	},
}

func (t *template) conditionOf(v any) condition {
	t.Helper()
	if v == nil {
		return nil
	}
	c := make(condition)
	for operator, tests := range v.(map[string]any) {
		if operators[operator] == nil {
			t.Fatalf("this test does not know the condition operator %s", operator)
		}
		c[operator] = make(map[string][]string)
		for key, values := range tests.(map[string]any) {
			c[operator][key] = texts(values)
		}
	}
	return c
}

func (c condition) String() string {
	var all []string
	for operator, tests := range c {
		for key, values := range tests {
			all = append(all, fmt.Sprintf("%s %s %s", key, operator, strings.Join(values, ", ")))
		}
	}
	slices.Sort(all)
	return strings.Join(all, " and ")
}

func (c condition) holds(request map[string][]string) bool {
	for operator, tests := range c {
		for key, values := range tests {
			if !operators[operator](values, request[key]) {
				return false
			}
		}
	}
	return true
}

// allowed reports whether a role may take an action on a resource; request are the condition keys that the action has.
func allowed(granted []permission, role, action, resource string, request map[string][]string) bool {
	return slices.ContainsFunc(granted, func(p permission) bool {
		return p.role == role && matches(strings.ToLower(p.action), strings.ToLower(action)) && matches(p.resource, resource) && p.condition.holds(request)
	})
}

// matches knows the wildcards of IAM: * is any text, ? any one character.
func matches(pattern, s string) bool {
	quoted := strings.NewReplacer(`\*`, `.*`, `\?`, `.`).Replace(regexp.QuoteMeta(pattern))
	return regexp.MustCompile(`^(?s:` + quoted + `)$`).MatchString(s)
}

func TestAllowed(t *testing.T) {
	granted := []permission{
		{role: "R", action: "s:Get*", resource: "arn:secret:a/*"},
		{role: "R", action: "s:Put", resource: "arn:secret:b-??????", condition: condition{"StringEquals": {"k": {"v", "w"}}}},
		{role: "R", action: "s:List", resource: "*", condition: condition{"ForAllValues:StringEquals": {"k": {"v"}}}},
	}
	for _, x := range []struct {
		role, action, resource string
		values                 []string // of the key k
		want                   bool
	}{
		{"R", "s:Get", "arn:secret:a/", nil, true},
		{"R", "S:GETVALUE", "arn:secret:a/b/c-AbCdEf", nil, true},
		{"Q", "s:Get", "arn:secret:a/b", nil, false},
		{"R", "s:Get", "arn:secret:A/b", nil, false},
		{"R", "s:Get", "arn:secret:a", nil, false},
		{"R", "s:Get", "arnxsecret:a/b", nil, false},
		{"R", "xs:Get", "arn:secret:a/b", nil, false},
		{"R", "s:Put", "arn:secret:b-AbCdEf", []string{"w"}, true},
		{"R", "s:Put", "arn:secret:b-AbCdE", []string{"w"}, false},
		{"R", "s:Put", "arn:secret:b-AbCdEf", []string{"x"}, false},
		{"R", "s:Put", "arn:secret:b-AbCdEf", nil, false},
		{"R", "s:List", "*", []string{"v", "v"}, true},
		{"R", "s:List", "*", []string{"v", "w"}, false},
		{"R", "s:List", "*", nil, true},
	} {
		if got := allowed(granted, x.role, x.action, x.resource, map[string][]string{"k": x.values}); got != x.want {
			t.Errorf("%+v: %t", x, got)
		}
	}
}
