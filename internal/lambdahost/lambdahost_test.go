package lambdahost

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

// The test binary is also the function under test: TEST_FUNCTION says how it behaves.
func TestMain(m *testing.M) {
	switch os.Getenv("TEST_FUNCTION") {
	case "":
		os.Exit(m.Run())
	case "worker":
		lambda.Start(work)
	case "exits at once":
		os.Exit(3)
	case "never asks":
		fmt.Println("initialising")
		time.Sleep(time.Hour)
	}
}

type order struct {
	Do    string
	Value string
	Size  int
}

var invocations int // of this process

// work does what its event says.
func work(ctx context.Context, o order) (any, error) {
	invocations++
	lc, _ := lambdacontext.FromContext(ctx)
	switch o.Do {
	case "count":
		return invocations, nil
	case "pid":
		return os.Getpid(), nil
	case "context":
		deadline, _ := ctx.Deadline()
		return []string{lc.AwsRequestID, lc.InvokedFunctionArn, time.Until(deadline).String()}, nil
	case "print":
		fmt.Println(o.Value + " on stdout")
		fmt.Fprint(os.Stderr, o.Value+" on stderr, without an end")
		return nil, nil
	case "fail":
		return nil, errors.New(o.Value)
	case "panic":
		panic(o.Value)
	case "exit":
		child := exec.Command("sleep", "600") // which keeps stdout open
		child.Stdout = os.Stdout
		_ = child.Start()
		os.Exit(o.Size)
	case "hang":
		fmt.Println("hanging")
		time.Sleep(time.Hour)
	case "big":
		return strings.Repeat("x", o.Size), nil
	case "":
		return "an event without an order", nil
	}
	return nil, fmt.Errorf("no such order: %q", o.Do)
}

// lines are the log, a line each.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

// rest are the lines that have been written and not received.
func (l lines) rest() (rest []string) {
	for len(l) > 0 {
		rest = append(rest, <-l)
	}
	return rest
}

func host(t *testing.T, kind string, change func(*Config)) (*Function, lines) {
	t.Helper()
	out := make(lines, 1000)
	cfg := Config{Name: "Worker", Binary: os.Args[0], Env: []string{"TEST_FUNCTION=" + kind},
		Timeout: time.Minute, Log: log.New(out, "", 0)}
	if change != nil {
		change(&cfg)
	}
	f, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f, out
}

func send(t *testing.T, f *Function, o order) Result {
	t.Helper()
	event, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	result, err := f.Invoke(t.Context(), event)
	if err != nil {
		t.Fatalf("invoking to %s: %v", o.Do, err)
	}
	return result
}

// invoke expects success, and decodes the payload.
func invoke[T any](t *testing.T, f *Function, o order) (v T) {
	t.Helper()
	result := send(t, f, o)
	if err := json.Unmarshal(result.Payload, &v); err != nil || result.FunctionError != "" {
		t.Fatalf("%s: %s %.200s, %v", o.Do, result.FunctionError, result.Payload, err)
	}
	return v
}

// count asks the process for how many invocations it has had.
func count(t *testing.T, f *Function) int {
	t.Helper()
	return invoke[int](t, f, order{Do: "count"})
}

// fails expects a function error, and returns its type and message.
func fails(t *testing.T, f *Function, o order) (kind, message string) {
	t.Helper()
	result := send(t, f, o)
	var payload struct{ ErrorType, ErrorMessage string }
	if err := json.Unmarshal(result.Payload, &payload); err != nil || result.FunctionError != "Unhandled" {
		t.Fatalf("%s: FunctionError is %q, payload %.200s: %v", o.Do, result.FunctionError, result.Payload, err)
	}
	return payload.ErrorType, payload.ErrorMessage
}

func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

func TestWarm(t *testing.T) {
	t.Chdir(filepath.Dir(os.Args[0]))
	f, _ := host(t, "worker", func(c *Config) { c.Binary = filepath.Base(c.Binary) })
	if result, err := f.Invoke(t.Context(), nil); err != nil || result.FunctionError != "" || result.Report.Init <= 0 {
		t.Errorf("starting it: %+v, %v", result, err)
	}
	if got := count(t, f); got != 1 {
		t.Errorf("the process counts %d invocations, want 1: a start is none", got)
	}

	first, second := invoke[[]string](t, f, order{Do: "context"}), invoke[[]string](t, f, order{Do: "context"})
	if first[0] == second[0] || len(first[0]) != 36 {
		t.Errorf("request IDs %q and %q, want two UUIDs", first[0], second[0])
	}
	if want := "arn:aws:lambda:us-east-1:123456789012:function:Worker"; first[1] != want {
		t.Errorf("ARN is %q, want %q", first[1], want)
	}
	if left, err := time.ParseDuration(first[2]); err != nil || left <= 0 || left > time.Minute {
		t.Errorf("time left is %q, want a part of the minute it has", first[2])
	}

	if kind, message := fails(t, f, order{Do: "fail", Value: "no such tenant"}); kind != "errorString" || message != "no such tenant" {
		t.Errorf("got %s, %s", kind, message)
	}

	// Callers at once wait for each other, and an error has not started it anew.
	const callers = 4
	counts := make([]int, callers)
	var group sync.WaitGroup
	for i := range callers {
		group.Go(func() { counts[i] = count(t, f) })
	}
	group.Wait()
	if slices.Sort(counts); !slices.Equal(counts, []int{5, 6, 7, 8}) {
		t.Errorf("%d callers at once got %v, want one process to count them all", callers, counts)
	}
}

func TestWhatEndsTheProcess(t *testing.T) {
	for name, c := range map[string]struct {
		order
		kind, message string // of the error
		log           string // lines that it has to have
	}{
		"panic":  {order{Do: "panic", Value: "out of luck"}, "string", "out of luck", "out of luck"},
		"exit 0": {order{Do: "exit"}, "Runtime.ExitError", "Runtime exited without providing a reason", "Worker: Runtime exited without"},
		"exit 7": {order{Do: "exit", Size: 7}, "Runtime.ExitError", "Runtime exited with error: exit status 7", "Worker: Runtime exited with error"},
		"timeout": {order{Do: "hang"}, "Sandbox.Timedout", "Task timed out after 1.00 seconds",
			"hanging\nWorker: Task timed out after 1.00 seconds\n"},
		"too large a reply": {order{Do: "big", Size: maxReplyBytes - 1}, "Function.ResponseSizeTooLarge",
			"Response payload size exceeded maximum allowed payload size (6291556 bytes).", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, log := host(t, "worker", func(cfg *Config) {
				if name == "timeout" {
					cfg.Timeout = time.Second
				}
			})
			pid := invoke[int](t, f, order{Do: "pid"})
			kind, message := fails(t, f, c.order)
			if kind != c.kind || !strings.HasSuffix(message, c.message) {
				t.Errorf("got %s, %s", kind, message)
			}
			if (kind == "Runtime.ExitError" || kind == "Sandbox.Timedout") && !gone(pid) {
				t.Error("the process is still there")
			}
			if got := count(t, f); got != 1 {
				t.Errorf("the next process counts %d invocations, want 1", got)
			}
			if got := strings.Join(log.rest(), ""); !strings.Contains(got, c.log) {
				t.Errorf("the log is %q", got)
			}
		})
	}
	t.Run("killed while idle", func(t *testing.T) {
		f, log := host(t, "worker", nil)
		pid := invoke[int](t, f, order{Do: "pid"})
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for started := time.Duration(0); started == 0; {
			result, err := f.Invoke(t.Context(), nil)
			if err != nil || result.FunctionError != "" {
				t.Fatalf("starting it again: %+v, %v", result, err)
			}
			started = result.Report.Init
		}
		if got := count(t, f); got != 1 || len(log.rest()) > 0 {
			t.Errorf("the next process counts %d invocations, want 1", got)
		}
	})
}

func TestFailedStart(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("not a program"), 0o700); err != nil {
		t.Fatal(err)
	}
	for kind, want := range map[string][2]string{
		"exits at once": {"Runtime.ExitError", "Runtime exited with error: exit status 3"},
		"never asks":    {"Sandbox.Timedout", "Task timed out after 0.25 seconds"},
		script:          {"Runtime.InvalidEntrypoint", "exec format error"},
		"missing":       {"Runtime.InvalidEntrypoint", "no such file or directory"},
	} {
		f, _ := host(t, kind, func(c *Config) {
			switch kind {
			case "never asks":
				c.initTimeout = 250 * time.Millisecond
			case script, "missing":
				c.Binary = kind
			}
		})
		for range 2 { // the second finds things as the first did
			got, message := fails(t, f, order{Do: "count"})
			if got != want[0] || !strings.HasSuffix(message, want[1]) {
				t.Errorf("%s: got %s, %s, want %v", kind, got, message, want)
			}
		}
	}
}

func TestPayloadLimitsAndReport(t *testing.T) {
	f, _ := host(t, "worker", nil)
	report := send(t, f, order{Do: "count"}).Report
	if report.Init <= 0 || report.Duration <= 0 || report.MaxMemoryUsed <= 0 && runtime.GOOS == "linux" {
		t.Errorf("of a cold start the report says %+v", report)
	}
	event := func(size int) []byte {
		return slices.Concat([]byte(`{"Do":"count","Value":"`), bytes.Repeat([]byte("x"), size-25), []byte(`"}`))
	}
	if result, err := f.Invoke(t.Context(), event(6291456)); err != nil || string(result.Payload) != "2" {
		t.Errorf("the largest event: %s, %v", result.Payload, err)
	}
	if _, err := f.Invoke(t.Context(), event(6291456+1)); !errors.Is(err, ErrRequestTooLarge) {
		t.Errorf("an event above the limit: %v", err)
	}
	const largest = 6291556
	result := send(t, f, order{Do: "big", Size: largest - 2})
	if len(result.Payload) != largest || result.FunctionError != "" || result.Report.Init != 0 || result.Report.Duration <= 0 {
		t.Errorf("the largest reply has %d bytes; %s, %+v", len(result.Payload), result.FunctionError, result.Report)
	}
	// It makes the process grow, and what that has used once stays.
	most, more := result.Report.MaxMemoryUsed, send(t, f, order{Do: "count"}).Report.MaxMemoryUsed
	if runtime.GOOS == "linux" && (most-report.MaxMemoryUsed < largest/2 || more < most) {
		t.Errorf("the memory used grew from %d to %d, and was %d afterwards", report.MaxMemoryUsed, most, more)
	}
}

func TestCancellingStopsTheWaitingOnly(t *testing.T) {
	f, log := host(t, "worker", func(c *Config) { c.Timeout = 2 * time.Second })
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-log
		cancel()
	}()
	for _, event := range []string{`{"Do":"hang"}`, `{"Do":"count"}`} { // the second waits for the first
		if _, err := f.Invoke(ctx, []byte(event)); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v, want that it was cancelled", event, err)
		}
	}
	if len(log) > 0 {
		t.Errorf("who cancelled had to wait until %s", <-log)
	}
	count(t, f)
	if lines := log.rest(); len(lines) != 1 || !strings.Contains(lines[0], "Task timed out") {
		t.Errorf("the cancelled invocation did not run to its deadline: %q", lines)
	}
}

func TestLog(t *testing.T) {
	f, log := host(t, "worker", nil)
	for i := range 200 {
		line := strings.Repeat("x", i*50) + " " + strconv.Itoa(i)
		invoke[any](t, f, order{Do: "print", Value: line})
		want := []string{line + " on stdout\n", line + " on stderr, without an end\n"}
		if got := log.rest(); !slices.Equal(got, want) {
			t.Fatalf("when invocation %d has been answered, the log is %q", i, got)
		}
	}
}

func TestClose(t *testing.T) {
	before := runtime.NumGoroutine()
	for name, c := range map[string]struct{ kind, event string }{
		"never invoked":    {"exits at once", ""},
		"idle":             {"worker", `{"Do":"pid"}`},
		"after an exit":    {"worker", `{"Do":"exit"}`},
		"during its work":  {"worker", `{"Do":"hang"}`},
		"during its start": {"never asks", `{}`},
	} {
		f, log := host(t, c.kind, nil)
		busy := strings.HasPrefix(name, "during")
		if busy {
			go func() {
				<-log
				_ = f.Close()
			}()
		}
		if c.event != "" {
			result, err := f.Invoke(t.Context(), []byte(c.event))
			if busy != errors.Is(err, ErrClosed) {
				t.Errorf("%s: %v", name, err)
			}
			_, _ = f.Invoke(t.Context(), nil) // returns when it is idle
			log.rest()
			_ = f.Close()
			if pid, _ := strconv.Atoi(string(result.Payload)); pid > 0 && !gone(pid) {
				t.Errorf("%s: the process is still there", name)
			}
		}
		_ = f.Close()
		if _, err := f.Invoke(t.Context(), nil); !errors.Is(err, ErrClosed) {
			t.Errorf("%s: invoking it afterwards: %v", name, err)
		}
		if rest := log.rest(); len(rest) > 0 {
			t.Errorf("%s: the log is %q, want nothing about a function that was closed", name, rest)
		}
	}
	for range 1000 { // connections of net/http end a moment after their server
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(time.Millisecond)
	}
	stacks := make([]byte, 1<<20)
	t.Errorf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), stacks[:runtime.Stack(stacks, true)])
}
