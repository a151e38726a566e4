package permissions

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"entra-connector/internal/templatetest"
)

// permission is one action that a role, or whoever has a managed policy, may take on one resource.
type permission struct {
	role, sid, action, resource string
	conditions                  conditions
}

// conditions are the values that each key of a request may have, by operator.
type conditions map[string]map[string]texts

// texts is what a policy has as one string or as a list.
type texts []string

func (l *texts) UnmarshalJSON(text []byte) error {
	if text[0] == '[' {
		return json.Unmarshal(text, (*[]string)(l))
	}
	*l = make(texts, 1)
	return json.Unmarshal(text, &(*l)[0])
}

// policy is a policy document, as far as it is known here.
type policy struct {
	Version   string
	Statement []struct {
		Sid, Effect      string
		Action, Resource texts
		Condition        conditions
	}
}

// here is the start of the ARNs of what is deployed here.
var here = regexp.MustCompile(`^arn:aws:[a-z-]+:us-east-1:123456789012:(secret:)?`)

func (p permission) String() string {
	s := fmt.Sprintf("%s %s %s on %s", p.role, p.sid, p.action, here.ReplaceAllString(p.resource, ""))
	if len(p.conditions) > 0 {
		when, _ := json.Marshal(p.conditions)
		s += " when " + string(when)
	}
	return s
}

// permissions are those of all roles and managed policies. The test stops at whatever it does not
// know.
func permissions(t *testing.T, resources map[string]templatetest.Resource) (granted []permission) {
	t.Helper()
	for _, id := range slices.Sorted(maps.Keys(resources)) {
		kind := resources[id].Type
		if !strings.HasPrefix(kind, "AWS::IAM::") {
			continue
		}
		type inline struct {
			PolicyName     string
			PolicyDocument policy
		}
		var holder struct {
			Description              string
			AssumeRolePolicyDocument any // see uses
			Policies                 []inline
			PolicyDocument           policy
		}
		if err := resources[id].Decode(&holder); err != nil || kind != "AWS::IAM::Role" && kind != "AWS::IAM::ManagedPolicy" {
			t.Fatalf("%s is not known here: %v", id, err)
		}
		for _, p := range append(holder.Policies, inline{PolicyDocument: holder.PolicyDocument}) {
			for _, s := range p.PolicyDocument.Statement {
				if s.Effect != "Allow" {
					t.Fatalf("%s: the effect %s is not known here", id, s.Effect)
				}
				for operator := range s.Condition {
					if operators[operator] == nil {
						t.Fatalf("%s: the condition operator %s is not known here", id, operator)
					}
				}
				for _, action := range s.Action {
					for _, resource := range s.Resource {
						granted = append(granted, permission{id, s.Sid, action, resource, s.Condition})
					}
				}
			}
		}
	}
	return granted
}

// operators say whether the values that a request has of a key satisfy those in the policy:
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_multi-value-conditions.html
var operators = map[string]func(policy, request []string) bool{
	"StringEquals": func(policy, request []string) bool {
		return len(request) == 1 && slices.Contains(policy, request[0])
	},
	"ForAllValues:StringEquals": func(policy, request []string) bool {
		return !slices.ContainsFunc(request, func(v string) bool { return !slices.Contains(policy, v) })
	},
	"Null": func(policy, request []string) bool {
		return len(policy) == 1 && policy[0] == strconv.FormatBool(len(request) == 0)
	},
}

// allowed says whether a role may take an action on a resource, in a request with these condition
// keys.
func allowed(granted []permission, role, action, resource string, request map[string][]string) bool {
	return slices.ContainsFunc(granted, func(p permission) bool {
		for operator, tests := range p.conditions {
			for key, values := range tests {
				if !operators[operator](values, request[key]) {
					return false
				}
			}
		}
		return p.role == role && matches(p.action, action) && matches(p.resource, resource)
	})
}

// matches knows the wildcards of IAM: * stands for any text, ? for any character.
func matches(pattern, s string) bool {
	return regexp.MustCompile(`^` + strings.NewReplacer(`\*`, `.*`, `\?`, `.`).Replace(regexp.QuoteMeta(pattern)) + `$`).MatchString(s)
}
