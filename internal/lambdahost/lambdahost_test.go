package lambdahost

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
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

// The test binary is also the function under test: started with TEST_FUNCTION set it behaves as that says.
func TestMain(m *testing.M) {
	switch kind := os.Getenv("TEST_FUNCTION"); kind {
	case "":
		os.Exit(m.Run())
	case "worker":
		lambda.Start(work)
	case "asks for SIGTERM":
		lambda.StartWithOptions(work, lambda.WithEnableSIGTERM(func() {
			fmt.Println("bye")
			os.Exit(0)
		}))
	case "ignores SIGTERM":
		signal.Ignore(syscall.SIGTERM)
		lambda.Start(work)
	case "exits at once":
		os.Exit(3)
	case "never asks":
		fmt.Println("initialising")
		time.Sleep(time.Hour)
	case "reports its failed start":
		url := "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime/init/error"
		res, err := http.Post(url, "application/json", strings.NewReader(`{"errorType":"Config.Missing","errorMessage":"no prefix"}`))
		fmt.Println(res.Status, err)
		os.Exit(1)
	default:
		panic("no such test function: " + kind)
	}
}

type order struct {
	Do    string
	Value string
	Size  int
}

// work does as its event says. Its warm environment counts the invocations.
var invocations int

func work(ctx context.Context, o order) (any, error) {
	invocations++
	switch o.Do {
	case "count":
		return invocations, nil
	case "pid":
		return os.Getpid(), nil
	case "context":
		lc, _ := lambdacontext.FromContext(ctx)
		deadline, _ := ctx.Deadline()
		return map[string]any{
			"requestId": lc.AwsRequestID, "arn": lc.InvokedFunctionArn, "remaining": time.Until(deadline).String(),
			"trace": ctx.Value("x-amzn-trace-id"),
		}, nil
	case "environment":
		return os.Environ(), nil
	case "print":
		fmt.Fprintln(os.Stdout, o.Value+" on stdout")
		fmt.Fprint(os.Stderr, o.Value+" on stderr, without an end")
		return nil, nil
	case "fail":
		return nil, errors.New(o.Value)
	case "panic":
		panic(o.Value)
	case "exit":
		code, _ := strconv.Atoi(o.Value)
		os.Exit(code)
	case "leave a child and exit": // one that keeps stdout open
		child := exec.Command("sleep", "600")
		child.Stdout = os.Stdout
		if err := child.Start(); err != nil {
			return nil, err
		}
		fmt.Println(child.Process.Pid)
		os.Exit(1)
	case "hang":
		fmt.Println("hanging")
		time.Sleep(time.Hour)
	case "hang after the answer": // as a program that does not use the official runtime client may
		lc, _ := lambdacontext.FromContext(ctx)
		url := "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime/invocation/" + lc.AwsRequestID + "/response"
		if res, err := http.Post(url, "application/json", strings.NewReader(`"early"`)); err != nil || res.StatusCode != 202 {
			os.Exit(9)
		}
		time.Sleep(time.Hour)
	case "answer another":
		url := "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime/invocation/" + o.Value + "/response"
		res, err := http.Post(url, "application/json", strings.NewReader(`"forged"`))
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(res.Body)
		return fmt.Sprintf("%d %s", res.StatusCode, body), err
	case "late init error":
		url := "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime/init/error"
		res, err := http.Post(url, "application/json", strings.NewReader(`{}`))
		if err != nil {
			return nil, err
		}
		return res.StatusCode, nil
	case "big":
		return strings.Repeat("x", o.Size), nil
	case "":
		return "empty event", nil
	}
	return nil, fmt.Errorf("no such order: %q", o.Do)
}

func host(t *testing.T, kind string, change func(*Config)) *Function {
	t.Helper()
	cfg := Config{Name: "Worker", Binary: os.Args[0], Env: []string{"TEST_FUNCTION=" + kind}, Timeout: time.Minute}
	if change != nil {
		change(&cfg)
	}
	f, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// invoke expects success, and returns the payload.
func invoke(t *testing.T, f *Function, o order) string {
	t.Helper()
	result := send(t, f, o)
	if result.FunctionError != "" {
		t.Fatalf("%s failed: %s", o.Do, result.Payload)
	}
	return string(result.Payload)
}

// fails expects a function error, and returns its type and message.
func fails(t *testing.T, f *Function, o order) (kind, message string) {
	t.Helper()
	result := send(t, f, o)
	if result.FunctionError != "Unhandled" {
		t.Fatalf("%s: FunctionError is %q, want Unhandled; payload %s", o.Do, result.FunctionError, result.Payload)
	}
	var payload struct{ ErrorType, ErrorMessage string }
	if err := json.Unmarshal(result.Payload, &payload); err != nil {
		t.Fatalf("%s: payload %s: %v", o.Do, result.Payload, err)
	}
	return payload.ErrorType, payload.ErrorMessage
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

// logbook keeps what a function prints, and who wants to can wait for a line.
type logbook struct {
	mu     sync.Mutex
	writes []string
	seen   chan struct{} // closed at the first write that has want in it
	want   string
}

func watch(want string) *logbook { return &logbook{seen: make(chan struct{}), want: want} }

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writes = append(l.writes, string(p))
	if l.want != "" && strings.Contains(string(p), l.want) {
		l.want = ""
		close(l.seen)
	}
	return len(p), nil
}

func (l *logbook) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.writes)
}

func TestStaysWarmBetweenInvocations(t *testing.T) {
	f := host(t, "worker", nil)
	for _, want := range []string{"1", "2", "3"} {
		if got := invoke(t, f, order{Do: "count"}); got != want {
			t.Fatalf("the process counts %s invocations, want %s", got, want)
		}
	}
}

func TestReport(t *testing.T) {
	f := host(t, "worker", nil)
	cold := send(t, f, order{Do: "count"}).Report
	if cold.Init <= 0 || cold.Duration <= 0 {
		t.Errorf("of a cold start the report says %+v", cold)
	}
	const size = 6 << 20
	warm := send(t, f, order{Do: "big", Size: size - 1024}).Report
	if warm.Init != 0 || warm.Duration <= 0 {
		t.Errorf("of a warm start the report says %+v", warm)
	}
	if grown := warm.MaxMemoryUsed - cold.MaxMemoryUsed; runtime.GOOS == "linux" && (cold.MaxMemoryUsed <= 0 || grown < size/2) {
		t.Errorf("with a reply of %d bytes the memory used grew by %d from %d", size, grown, cold.MaxMemoryUsed)
	}
	if small := send(t, f, order{Do: "count"}).Report; small.MaxMemoryUsed < warm.MaxMemoryUsed {
		t.Errorf("the most memory used fell from %d to %d", warm.MaxMemoryUsed, small.MaxMemoryUsed)
	}
}

func TestStartsOnlyWhenInvoked(t *testing.T) {
	log := watch("")
	f := host(t, "exits at once", func(c *Config) { c.Log = log })
	if err := f.Close(); err != nil || len(log.all()) > 0 {
		t.Errorf("a function that was never invoked: %v, %q", err, log.all())
	}
}

func TestContextOfAnInvocation(t *testing.T) {
	f := host(t, "worker", func(c *Config) { c.Env = append(c.Env, "AWS_REGION=eu-west-1") })
	var first, second struct{ RequestID, ARN, Trace, Remaining string }
	for _, into := range []any{&first, &second} {
		if err := json.Unmarshal([]byte(invoke(t, f, order{Do: "context"})), into); err != nil {
			t.Fatal(err)
		}
	}
	if first.RequestID == second.RequestID || len(first.RequestID) != 36 {
		t.Errorf("request IDs %q and %q, want two UUIDs", first.RequestID, second.RequestID)
	}
	if want := "arn:aws:lambda:eu-west-1:123456789012:function:Worker"; first.ARN != want {
		t.Errorf("ARN is %q, want %q", first.ARN, want)
	}
	if !strings.HasPrefix(first.Trace, "Root=1-") {
		t.Errorf("trace ID is %q", first.Trace)
	}
	if left, err := time.ParseDuration(first.Remaining); err != nil || left <= 0 || left > time.Minute {
		t.Errorf("time left is %q, want a part of the minute it has", first.Remaining)
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("LEAKED_FROM_THE_HOST", "1")
	f := host(t, "worker", func(c *Config) {
		c.MemoryMB = 256
		c.Env = append(c.Env, "SECRET_PREFIX=mine", "AWS_REGION=eu-west-1")
	})
	var got []string
	if err := json.Unmarshal([]byte(invoke(t, f, order{Do: "environment"})), &got); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"AWS_LAMBDA_FUNCTION_NAME=Worker", "AWS_LAMBDA_FUNCTION_VERSION=$LATEST", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=256",
		"AWS_LAMBDA_LOG_FORMAT=JSON", "_HANDLER=bootstrap", "LAMBDA_TASK_ROOT=" + filepath.Dir(os.Args[0]), "TZ=:UTC",
		"SECRET_PREFIX=mine", "AWS_REGION=eu-west-1",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is missing", want)
		}
	}
	for _, v := range got {
		if strings.HasPrefix(v, "LEAKED_FROM_THE_HOST") || v == "AWS_REGION=us-east-1" {
			t.Errorf("the function has %s", v)
		}
	}
}

func TestEmptyPayloadIsAnEmptyEvent(t *testing.T) {
	f := host(t, "worker", nil)
	if result, err := f.Invoke(t.Context(), nil); err != nil || string(result.Payload) != `"empty event"` {
		t.Errorf("got %s, %v", result.Payload, err)
	}
}

func TestFunctionError(t *testing.T) {
	f := host(t, "worker", nil)
	kind, message := fails(t, f, order{Do: "fail", Value: "no such tenant"})
	if kind != "errorString" || message != "no such tenant" {
		t.Errorf("got %s, %s", kind, message)
	}
	if got := invoke(t, f, order{Do: "count"}); got != "2" {
		t.Errorf("the process counts %s invocations, want 2: an error is no reason to start cold", got)
	}
}

func TestPanicStartsCold(t *testing.T) {
	f := host(t, "worker", nil)
	kind, message := fails(t, f, order{Do: "panic", Value: "out of luck"})
	if kind != "string" || message != "out of luck" {
		t.Errorf("got %s, %s", kind, message)
	}
	if got := invoke(t, f, order{Do: "count"}); got != "1" {
		t.Errorf("the next process counts %s invocations, want 1", got)
	}
}

func TestExitMidInvocation(t *testing.T) {
	for code, want := range map[string]string{
		"0": "Runtime exited without providing a reason",
		"7": "Runtime exited with error: exit status 7",
	} {
		t.Run("code "+code, func(t *testing.T) {
			log := watch("")
			f := host(t, "worker", func(c *Config) { c.Log = log })
			kind, message := fails(t, f, order{Do: "exit", Value: code})
			if kind != "Runtime.ExitError" || !strings.HasPrefix(message, "RequestId: ") || !strings.HasSuffix(message, " Error: "+want) {
				t.Errorf("got %s, %s", kind, message)
			}
			if lines := log.all(); len(lines) != 1 || !strings.Contains(lines[0], want) || !strings.Contains(lines[0], `"level":"ERROR"`) {
				t.Errorf("the log is %q", lines)
			}
			if got := invoke(t, f, order{Do: "count"}); got != "1" {
				t.Errorf("the next process counts %s invocations, want 1", got)
			}
		})
	}
}

func TestTimeout(t *testing.T) {
	log := watch("")
	f := host(t, "worker", func(c *Config) { c.Timeout, c.Log = time.Second, log })
	pid, _ := strconv.Atoi(invoke(t, f, order{Do: "pid"}))
	kind, message := fails(t, f, order{Do: "hang"})
	if kind != "Sandbox.Timedout" || !strings.HasSuffix(message, " Error: Task timed out after 1.00 seconds") {
		t.Errorf("got %s, %s", kind, message)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the process that timed out is still there: %v", err)
	}
	if lines := strings.Join(log.all(), ""); !strings.Contains(lines, "hanging\n") || !strings.Contains(lines, "Task timed out after 1.00 seconds") {
		t.Errorf("the log is %q", lines)
	}
	if got := invoke(t, f, order{Do: "count"}); got != "1" {
		t.Errorf("the next process counts %s invocations, want 1", got)
	}
}

func TestAnInvocationLastsUntilTheNextIsAskedFor(t *testing.T) {
	f := host(t, "worker", func(c *Config) { c.Timeout = time.Second })
	if got := invoke(t, f, order{Do: "hang after the answer"}); got != `"early"` {
		t.Errorf("got %s", got)
	}
	if got := invoke(t, f, order{Do: "count"}); got != "1" {
		t.Errorf("the next process counts %s invocations, want 1: the one before ran into its deadline", got)
	}
}

func TestAResultForAnotherInvocationIsRefused(t *testing.T) {
	f := host(t, "worker", nil)
	got := invoke(t, f, order{Do: "answer another", Value: "8476a536-e9f4-11e8-9739-2dfe598c3fcd"})
	if !strings.HasPrefix(got, `"400 `) || !strings.Contains(got, "InvalidRequestID") {
		t.Errorf("got %s", got)
	}
	if got := invoke(t, f, order{Do: "late init error"}); got != "403" {
		t.Errorf("an error of a start that is over: got %s, want 403", got)
	}
	if got := invoke(t, f, order{Do: "count"}); got != "3" {
		t.Errorf("the process counts %s invocations, want 3", got)
	}
}

func TestFailedStart(t *testing.T) {
	for kind, want := range map[string][2]string{
		"exits at once":            {"Runtime.ExitError", "Runtime exited with error: exit status 3"},
		"never asks":               {"Sandbox.Timedout", "Task timed out after 0.25 seconds"},
		"reports its failed start": {"Config.Missing", "no prefix"},
	} {
		t.Run(kind, func(t *testing.T) {
			f := host(t, kind, func(c *Config) {
				if kind == "never asks" {
					c.InitTimeout = 250 * time.Millisecond
				}
			})
			for range 2 { // the second finds things as the first did
				got, message := fails(t, f, order{Do: "count"})
				if got != want[0] || !strings.HasSuffix(message, want[1]) {
					t.Errorf("got %s, %s, want %v", got, message, want)
				}
			}
		})
	}
}

func TestBinaryThatCannotRun(t *testing.T) {
	dir := t.TempDir()
	if _, err := Start(Config{Binary: filepath.Join(dir, "bootstrap")}); err == nil {
		t.Error("a missing binary is accepted")
	}
	if _, err := Start(Config{Binary: dir}); err == nil {
		t.Error("a directory is accepted")
	}
	script := filepath.Join(dir, "bootstrap")
	if err := os.WriteFile(script, []byte("not a program"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(Config{Binary: script}); err == nil {
		t.Error("a file that is not executable is accepted")
	}
	if err := os.Chmod(script, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := Start(Config{Binary: script})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if kind, _ := fails(t, f, order{}); kind != "Runtime.InvalidEntrypoint" {
		t.Errorf("got %s", kind)
	}
}

func TestRelativeBinary(t *testing.T) {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	binary, err := filepath.Rel(dir, os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	f := host(t, "worker", func(c *Config) { c.Binary = binary })
	invoke(t, f, order{Do: "count"})
}

func TestPayloadLimits(t *testing.T) {
	f := host(t, "worker", nil)
	event := func(size int) []byte {
		return slices.Concat([]byte(`{"Do":"count","Value":"`), bytes.Repeat([]byte("x"), size-25), []byte(`"}`))
	}
	if result, err := f.Invoke(t.Context(), event(6291456)); err != nil || string(result.Payload) != "1" {
		t.Errorf("the largest event: %s, %v", result.Payload, err)
	}
	if _, err := f.Invoke(t.Context(), event(6291456+1)); !errors.Is(err, ErrRequestTooLarge) {
		t.Errorf("an event above the limit: %v", err)
	}
	if _, err := f.Invoke(t.Context(), []byte(`{"Do":`)); !errors.Is(err, ErrInvalidJSON) {
		t.Errorf("an event that is not JSON: %v", err)
	}
	if got := len(invoke(t, f, order{Do: "big", Size: 6291556 - 2})); got != 6291556 {
		t.Errorf("the largest reply has %d bytes, want %d", got, 6291556)
	}
	kind, message := fails(t, f, order{Do: "big", Size: 6291556 - 1})
	if kind != "Function.ResponseSizeTooLarge" || !strings.Contains(message, "(6291556 bytes)") {
		t.Errorf("a reply above the limit: %s, %s", kind, message)
	}
	if got := invoke(t, f, order{Do: "count"}); got != "1" {
		t.Errorf("after a refused reply, the next process counts %s invocations, want 1", got)
	}
}

func TestOneAtATime(t *testing.T) {
	f := host(t, "worker", nil)
	const callers = 8
	counts := make([]string, callers)
	var group sync.WaitGroup
	for i := range callers {
		group.Go(func() { counts[i] = invoke(t, f, order{Do: "count"}) })
	}
	group.Wait()
	slices.Sort(counts)
	if want := []string{"1", "2", "3", "4", "5", "6", "7", "8"}; !slices.Equal(counts, want) {
		t.Errorf("%d callers at once got %v, want one process to count them all", callers, counts)
	}
}

func TestCancellingStopsTheWaitingOnly(t *testing.T) {
	log := watch("hanging")
	f := host(t, "worker", func(c *Config) { c.Timeout, c.Log = 2*time.Second, log })
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-log.seen
		cancel()
	}()
	if _, err := f.Invoke(ctx, []byte(`{"Do":"hang"}`)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was cancelled", err)
	}
	if _, err := f.Invoke(ctx, []byte(`{"Do":"count"}`)); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting behind it: got %v, want that it was cancelled", err)
	}
	invoke(t, f, order{Do: "count"})
	if lines := strings.Join(log.all(), ""); !strings.Contains(lines, "Task timed out") {
		t.Errorf("the cancelled invocation did not run to its deadline: %q", lines)
	}
}

func TestProcessThatDiesWhileIdle(t *testing.T) {
	log := watch("without an end")
	f := host(t, "worker", func(c *Config) { c.Log = log })
	invoke(t, f, order{Do: "print"}) // a line that the log gets once the process is gone
	pid, err := strconv.Atoi(invoke(t, f, order{Do: "pid"}))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-log.seen
	if got := invoke(t, f, order{Do: "count"}); got != "1" {
		t.Errorf("the next process counts %s invocations, want 1", got)
	}
}

func TestLogIsCompleteWhenInvokeReturns(t *testing.T) {
	log := watch("")
	f := host(t, "worker", func(c *Config) { c.Log = log })
	for i := range 200 {
		line := strings.Repeat("x", i*50) + " " + strconv.Itoa(i)
		invoke(t, f, order{Do: "print", Value: line})
		if got := strings.Join(log.all(), ""); !strings.HasSuffix(got, line+" on stdout\n") {
			t.Fatalf("after invocation %d the log ends in %q", i, got[max(0, len(got)-100):])
		}
	}
}

func TestWhatAProcessLeavesBehindIsKilled(t *testing.T) {
	log := watch("")
	f := host(t, "worker", func(c *Config) { c.Log = log })
	fails(t, f, order{Do: "leave a child and exit"})
	child, err := strconv.Atoi(strings.TrimSpace(log.all()[0]))
	if err != nil {
		t.Fatal(err)
	}
	// The child is now init's, or whatever stands in for it here, to reap: gone or a zombie.
	for range 1000 {
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child))
		if err != nil || bytes.Contains(state, []byte(") Z ")) {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Errorf("process %d is left", child)
}

func TestLogIsWholeLines(t *testing.T) {
	log := watch("")
	f := host(t, "worker", func(c *Config) { c.Log = log })
	invoke(t, f, order{Do: "print", Value: "said"})
	_ = f.Close()
	want := []string{"said on stdout\n", "said on stderr, without an end\n"}
	if got := log.all(); !slices.Equal(got, want) {
		t.Errorf("the log is %q, want %q", got, want)
	}
}

func TestClose(t *testing.T) {
	for kind, want := range map[string]string{"worker": "", "asks for SIGTERM": "bye\n", "ignores SIGTERM": ""} {
		t.Run(kind, func(t *testing.T) {
			log := watch("")
			f := host(t, kind, func(c *Config) { c.Log = log })
			pid, _ := strconv.Atoi(invoke(t, f, order{Do: "pid"}))
			for range 2 {
				if err := f.Close(); err != nil {
					t.Error(err)
				}
			}
			if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("the process is still there: %v", err)
			}
			if got := strings.Join(log.all(), ""); got != want {
				t.Errorf("it said %q, want %q", got, want)
			}
			if _, err := f.Invoke(t.Context(), nil); !errors.Is(err, ErrClosed) {
				t.Errorf("invoking it afterwards: %v", err)
			}
		})
	}
}

func TestCloseMidInvocationAndMidStart(t *testing.T) {
	for kind, sign := range map[string]string{"worker": "hanging", "never asks": "initialising"} {
		t.Run(kind, func(t *testing.T) {
			log := watch(sign)
			f := host(t, kind, func(c *Config) { c.Log = log })
			go func() {
				<-log.seen
				_ = f.Close()
			}()
			if _, err := f.Invoke(t.Context(), []byte(`{"Do":"hang"}`)); !errors.Is(err, ErrClosed) {
				t.Errorf("got %v", err)
			}
			_ = f.Close()
			if got := log.all(); len(got) != 1 {
				t.Errorf("the log is %q, want no error of a function that was stopped", got)
			}
		})
	}
}

func TestCloseLeavesNoGoroutine(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 3 {
		f := host(t, "worker", nil)
		invoke(t, f, order{Do: "count"})
		send(t, f, order{Do: "exit", Value: "1"})
		invoke(t, f, order{Do: "count"})
		_ = f.Close()
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
