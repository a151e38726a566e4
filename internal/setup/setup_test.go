package setup

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/lambdacontext"

	"entra-connector/internal/secretstore"
	"entra-connector/pkg/entra"
)

func readFrom(env map[string]string) (variables, error) {
	return read(func(name string) (string, bool) {
		value, ok := env[name]
		return value, ok
	})
}

// Each variable has its effect. One that is empty counts as not set.
func TestVariables(t *testing.T) {
	defaults := variables{store: secretstore.Config{Prefix: "entra", WritesPerSecond: 45, RecoveryDays: 30}, window: 30 * time.Minute, level: slog.LevelInfo}
	prefix := func(s string) func(*variables) { return func(v *variables) { v.store.Prefix = s } }
	window := func(d time.Duration) func(*variables) { return func(v *variables) { v.window = d } }
	writes := func(n float64) func(*variables) { return func(v *variables) { v.store.WritesPerSecond = n } }
	key := func(id string) func(*variables) { return func(v *variables) { v.store.KMSKeyID = id } }
	days := func(n int64) func(*variables) { return func(v *variables) { v.store.RecoveryDays = n } }
	level := func(l slog.Level) func(*variables) { return func(v *variables) { v.level = l } }
	authority := func(s string) func(*variables) {
		return func(v *variables) { v.entra = entra.ClientConfig{Authority: s} }
	}
	bus := func(s string) func(*variables) { return func(v *variables) { v.bus = s } }
	long := strings.Repeat("p", 200)
	for _, tt := range []struct {
		name, value string
		want        func(*variables) // nil: refused
	}{
		{"SECRET_PREFIX", "", prefix("entra")},
		{"SECRET_PREFIX", "team/entra_+=.@-1", prefix("team/entra_+=.@-1")},
		{"SECRET_PREFIX", long, prefix(long)},
		{"SECRET_PREFIX", long + "p", nil},
		{"SECRET_PREFIX", "/entra", nil},
		{"SECRET_PREFIX", "entra/", nil},
		{"SECRET_PREFIX", "a//b", nil},
		{"SECRET_PREFIX", "a b", nil},
		{"SECRET_PREFIX", "apps", nil},
		{"SECRET_PREFIX", "connections", nil},
		{"SECRET_PREFIX", "entra/apps", nil},
		{"SECRET_PREFIX", "entra/connections/x", nil},
		{"SECRET_PREFIX", "my-apps/connections2", prefix("my-apps/connections2")},
		{"READER_ACCOUNTS", "111122223333,444455556666", func(v *variables) { v.store.Readers = []string{"111122223333", "444455556666"} }},
		{"READER_ACCOUNTS", "111122223333,", nil},
		{"READER_ACCOUNTS", "arn:aws:iam::111122223333:root", nil},
		{"REFRESH_WINDOW", "", window(30 * time.Minute)},
		{"REFRESH_WINDOW", "1h30m", window(90 * time.Minute)},
		{"REFRESH_WINDOW", "30", nil},
		{"REFRESH_WINDOW", "0s", nil},
		{"REFRESH_WINDOW", "-30m", nil},
		{"WRITES_PER_SECOND", "", writes(45)},
		{"WRITES_PER_SECOND", "0", writes(0)},
		{"WRITES_PER_SECOND", "2.5", writes(2.5)},
		{"WRITES_PER_SECOND", "-1", nil},
		{"WRITES_PER_SECOND", "many", nil},
		{"WRITES_PER_SECOND", "NaN", nil},
		{"WRITES_PER_SECOND", "Inf", nil},
		{"KMS_KEY_ID", "", key("")},
		{"KMS_KEY_ID", "alias/entra", key("alias/entra")},
		{"RECOVERY_WINDOW_DAYS", "", days(30)},
		{"RECOVERY_WINDOW_DAYS", "7", days(7)},
		{"RECOVERY_WINDOW_DAYS", "6", nil},
		{"RECOVERY_WINDOW_DAYS", "31", nil},
		{"RECOVERY_WINDOW_DAYS", "7d", nil},
		{"AZURE_AUTHORITY_HOST", "", authority("")},
		{"AZURE_AUTHORITY_HOST", "https://login.example/", authority("https://login.example")},
		{"AZURE_AUTHORITY_HOST", "http://127.0.0.1:8080", authority("http://127.0.0.1:8080")},
		{"AZURE_AUTHORITY_HOST", "http://login.example", nil},
		{"ALLOW_INSECURE_AUTHORITY", "true", authority("")},
		{"ALLOW_INSECURE_AUTHORITY", "perhaps", nil},
		{"EVENT_BUS", "", bus("")},
		{"EVENT_BUS", "default", bus("default")},
		{"EVENT_BUS", "aws.partner/example.com/Bus_1-a", bus("aws.partner/example.com/Bus_1-a")},
		{"EVENT_BUS", "arn:aws-cn:events:cn-north-1:123456789012:event-bus/mine", bus("arn:aws-cn:events:cn-north-1:123456789012:event-bus/mine")},
		{"EVENT_BUS", "arn:aws:sns:eu-west-1:123456789012:topic", nil},
		{"EVENT_BUS", "my bus", nil},
		{"EVENT_BUS", strings.Repeat("b", 1601), nil},
		{"LOG_LEVEL", "", level(slog.LevelInfo)},
		{"LOG_LEVEL", "DEBUG", level(slog.LevelDebug)},
		{"LOG_LEVEL", "warn", level(slog.LevelWarn)},
		{"LOG_LEVEL", "ERROR", level(slog.LevelError)},
		{"LOG_LEVEL", "loud", nil},
	} {
		got, err := readFrom(map[string]string{tt.name: tt.value})
		if tt.want == nil {
			if err == nil || !strings.HasPrefix(err.Error(), tt.name+" ") {
				t.Errorf("%s=%s: %v, want an error that names it", tt.name, tt.value, err)
			}
			continue
		}
		want := defaults
		tt.want(&want)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s=%s:\n got %+v, %v\nwant %+v", tt.name, tt.value, got, err, want)
		}
	}
}

// An http authority needs explicit permission.
func TestInsecureAuthority(t *testing.T) {
	for allow, want := range map[string]string{"true": "http://entra.test", "1": "http://entra.test", "false": "", "": ""} {
		got, err := readFrom(map[string]string{"AZURE_AUTHORITY_HOST": "http://entra.test", "ALLOW_INSECURE_AUTHORITY": allow})
		if want == "" && err == nil || want != "" && (err != nil || got.entra.Authority != want) {
			t.Errorf("ALLOW_INSECURE_AUTHORITY=%s: %q, %v, want %q", allow, got.entra.Authority, err, want)
		}
	}
}

// Whoever got several variables wrong learns of all at once. No value is quoted: it may be a secret
// in the wrong place.
func TestEveryWrongVariableIsNamed(t *testing.T) {
	names := []string{"SECRET_PREFIX", "REFRESH_WINDOW", "WRITES_PER_SECOND", "RECOVERY_WINDOW_DAYS", "ALLOW_INSECURE_AUTHORITY", "AZURE_AUTHORITY_HOST", "EVENT_BUS", "LOG_LEVEL"}
	const value = "/c4nary secret"
	_, err := New(t.Context(), func(name string) (string, bool) { return value, true })
	if err == nil {
		t.Fatal("no error")
	}
	for _, name := range names {
		if strings.Count(err.Error(), name+" must ") != 1 {
			t.Errorf("%s is not named in:\n%v", name, err)
		}
	}
	if strings.Contains(err.Error(), "c4nary") {
		t.Errorf("a value is quoted in:\n%v", err)
	}
}

// Lambda goes by these keys of a log line, and so do alarms on logs.
func TestLogLines(t *testing.T) {
	var out bytes.Buffer
	log := newLogger(&out, slog.LevelWarn)
	ctx := lambdacontext.NewContext(t.Context(), &lambdacontext.LambdaContext{AwsRequestID: "3f1c"})
	log.InfoContext(ctx, "below the level")
	log.WarnContext(ctx, "refresh failed", "code", "AADSTS7000222")
	log.Error("outside of an invocation")
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines, want 2:\n%s", len(lines), out.String())
	}
	for i, want := range []map[string]any{
		{"message": "refresh failed", "level": "WARN", "requestId": "3f1c", "code": "AADSTS7000222"},
		{"message": "outside of an invocation", "level": "ERROR"},
	} {
		var got map[string]any
		if err := json.Unmarshal([]byte(lines[i]), &got); err != nil {
			t.Fatalf("%v: %s", err, lines[i])
		}
		at, _ := got["timestamp"].(string)
		if _, err := time.Parse(time.RFC3339Nano, at); err != nil {
			t.Errorf("timestamp %v in %s", err, lines[i])
		}
		delete(got, "timestamp")
		if !reflect.DeepEqual(got, want) {
			t.Errorf("line %s, want %v and a timestamp", lines[i], want)
		}
	}
}
