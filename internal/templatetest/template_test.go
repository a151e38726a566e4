package templatetest

import (
	"reflect"
	"strings"
	"testing"
)

const text = `
Parameters:
  Minutes: { Type: Number, Default: 3 }
  Email: { Type: String, Default: "" }
Conditions:
  Silent: !Equals [!Ref Email, ""]
  Told: !Not [!Equals [!Ref Email, ""]]
  Usual: !Equals [!Ref Minutes, "3"]
Resources:
  Topic: { Type: T, Condition: Told }
  Queue: { Type: Q }
  Thing:
    Type: X
    Properties:
      Number: !Ref Minutes
      Text: "7"
      Plain: !Ref Queue
      Attribute: !GetAtt Queue.Arn
      Joined: !Sub "${AWS::Region}/${Queue.QueueName} in ${Minutes}"
      List: [!If [Told, !Ref Topic, !Ref AWS::NoValue], !If [Silent, quiet, loud], !If [Usual, 3, 4]]
      Gone: !If [Told, !Ref Email, !Ref AWS::NoValue]
`

func TestParse(t *testing.T) {
	for email, list := range map[string][]any{"": {"quiet", 3}, "a@b": {"Topic", "loud", 3}} {
		got, err := Parse([]byte(text), map[string]string{"Email": email})
		want := map[string]any{"Number": 3, "Text": "7", "Plain": "Queue", "Attribute": "Queue.Arn",
			"Joined": "us-east-1/Queue.QueueName in 3", "List": list}
		if email != "" {
			want["Gone"] = email
		}
		if _, there := got["Topic"]; err != nil || there != (email != "") || !reflect.DeepEqual(got["Thing"].Properties, want) {
			t.Errorf("with %q: %v, %v", email, got, err)
		}
	}
	// Whatever would be read wrongly is an error.
	for old, wrong := range map[string]string{
		"!Ref Queue": "!Ref Nothing", "Plain: !Ref Queue": "Plain: { Ref: Queue }", "!GetAtt Queue.Arn": "!Join [a, [b]]",
		"${Queue.QueueName}": "${Nothing}", "[Told, !Ref Email": "[Untold, !Ref Email", `!Not [!Equals [!Ref Email, ""]]`: "!Condition Silent",
		"Told, !Ref Topic": "Silent, !Ref Topic",
	} {
		if !strings.Contains(text, old) {
			t.Fatalf("%s is not in the text", old)
		}
		if _, err := Parse([]byte(strings.Replace(text, old, wrong, 1)), nil); err == nil {
			t.Errorf("%s is accepted", wrong)
		}
	}
	if _, err := Parse([]byte(text), map[string]string{"Other": ""}); err == nil {
		t.Error("a parameter that is not there is accepted")
	}
	got, _ := Parse([]byte(text), nil)
	if err := got["Thing"].Decode(new(struct{ Number int })); err == nil {
		t.Error("properties without a field are ignored")
	}
}
