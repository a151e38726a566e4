package lambdahost

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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
	Do, Value string
	Size      int
}

var invocations int // of this process

// work does what its event says.
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

// invoke returns the payload, or the type and the message of the error, without the request ID.
func invoke(t *testing.T, f *Function, event string) string {
	t.Helper()
	result, err := f.Invoke(t.Context(), []byte(event))
	if err != nil {
		t.Fatalf("invoking with %s: %v", event, err)
	}
	if result.FunctionError == "" {
		return string(result.Payload)
	}
	var failure struct{ ErrorType, ErrorMessage string }
	if err := json.Unmarshal(result.Payload, &failure); err != nil || result.FunctionError != "Unhandled" {
		t.Fatalf("%s: FunctionError is %q, payload %.200s: %v", event, result.FunctionError, result.Payload, err)
	}
	return failure.ErrorType + ": " + regexp.MustCompile(`[0-9a-f-]{36}`).ReplaceAllString(failure.ErrorMessage, "ID")
}

// count asks the process for how many invocations it has had.
const count = `{"Do":"count"}`

// pid asks the process for its ID.
func pid(t *testing.T, f *Function) (pid int) {
	t.Helper()
	_, _ = fmt.Sscan(invoke(t, f, `{"Do":"pid"}`), &pid)
	return pid
}

func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

func TestWarm(t *testing.T) {
	t.Chdir(filepath.Dir(os.Args[0]))
	f, _ := host(t, "worker", func(c *Config) { c.Binary = filepath.Base(c.Binary) })
	if result, err := f.Invoke(t.Context(), nil); err != nil || result.FunctionError != "" || result.Report.Init <= 0 {
		t.Errorf("starting it: %+v, %v", result, err)
	}
	if got := invoke(t, f, count); got != "1" {
		t.Errorf("the process counts %s invocations, want 1: a start is none", got)
	}
	var first, second [3]string
	for _, into := range []*[3]string{&first, &second} {
		if err := json.Unmarshal([]byte(invoke(t, f, `{"Do":"context"}`)), into); err != nil {
			t.Fatal(err)
		}
	}
	if first[0] == second[0] || len(first[0]) != 36 || first[1] != "arn:aws:lambda:us-east-1:123456789012:function:Worker" {
		t.Errorf("request ID and ARN are %q and then %q", first[:2], second[:2])
	}
	if left, _ := time.ParseDuration(first[2]); left <= 0 || left > time.Minute {
		t.Errorf("time left is %q, want a part of the minute it has", first[2])
	}
	if got := invoke(t, f, `{"Do":"fail","Value":"no such tenant"}`); got != "errorString: no such tenant" {
		t.Errorf("got %s", got)
	}

	// Callers at once wait for each other, and an error has not started it anew.
	counts := make([]string, 4)
	var group sync.WaitGroup
	for i := range counts {
		group.Go(func() { counts[i] = invoke(t, f, count) })
	}
	group.Wait()
	if slices.Sort(counts); !slices.Equal(counts, []string{"5", "6", "7", "8"}) {
		t.Errorf("callers at once got %v, want one process to count them all", counts)
	}
}

func TestWhatEndsTheProcess(t *testing.T) {
	for name, c := range map[string]struct{ event, answer, log string }{
		"panic": {`{"Do":"panic","Value":"out of luck"}`, "string: out of luck", "out of luck"},
		"exit 0": {`{"Do":"exit"}`, "Runtime.ExitError: RequestId: ID Error: Runtime exited without providing a reason",
			"Worker: Runtime exited without providing a reason\n"},
		"exit 7": {`{"Do":"exit","Size":7}`, "Runtime.ExitError: RequestId: ID Error: Runtime exited with error: exit status 7",
			"Worker: Runtime exited with error: exit status 7\n"},
		"timeout": {`{"Do":"hang"}`, "Sandbox.Timedout: RequestId: ID Error: Task timed out after 1.00 seconds",
			"hanging\nWorker: Task timed out after 1.00 seconds\n"},
		"too large a reply": {fmt.Sprintf(`{"Do":"big","Size":%d}`, maxReplyBytes-1), "Function.ResponseSizeTooLarge: " +
			"Response payload size exceeded maximum allowed payload size (6291556 bytes).", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, log := host(t, "worker", func(cfg *Config) {
				if name == "timeout" {
					cfg.Timeout = time.Second
				}
			})
			pid := pid(t, f)
			if got := invoke(t, f, c.event); got != c.answer {
				t.Errorf("got %s", got)
			}
			if strings.Contains(c.answer, "RequestId") && !gone(pid) {
				t.Error("the process is still there")
			}
			if got := invoke(t, f, count); got != "1" {
				t.Errorf("the next process counts %s invocations, want 1", got)
			}
			if got := strings.Join(log.rest(), ""); !strings.Contains(got, c.log) {
				t.Errorf("the log is %q", got)
			}
		})
	}
	t.Run("killed while idle", func(t *testing.T) {
		f, log := host(t, "worker", nil)
		pid := pid(t, f)
		_, _ = f.Invoke(t.Context(), nil) // returns when it is idle
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
		if got := invoke(t, f, count); got != "1" || len(log) > 0 {
			t.Errorf("the next process counts %s invocations, want 1; log %q", got, log.rest())
		}
	})
}

func TestFailedStart(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("not a program"), 0o700); err != nil {
		t.Fatal(err)
	}
	for kind, want := range map[string]string{
		"exits at once": "Runtime.ExitError: RequestId: ID Error: Runtime exited with error: exit status 3",
		"never asks":    "Sandbox.Timedout: RequestId: ID Error: Task timed out after 0.25 seconds",
		script:          "Runtime.InvalidEntrypoint: RequestId: ID Error: fork/exec " + script + ": exec format error",
		"/missing":      "Runtime.InvalidEntrypoint: RequestId: ID Error: fork/exec /missing: no such file or directory",
	} {
		f, _ := host(t, kind, func(c *Config) {
			if kind == "never asks" {
				c.initTimeout = 250 * time.Millisecond
			} else if strings.HasPrefix(kind, "/") {
				c.Binary = kind
			}
		})
		for range 2 { // the second finds things as the first did
			if got := invoke(t, f, count); got != want {
				t.Errorf("%s: got %s, want %s", kind, got, want)
			}
		}
	}
}

func TestPayloadLimitsAndReport(t *testing.T) {
	f, _ := host(t, "worker", nil)
	var reports []Report
	for _, event := range []string{count, `{"Do":"big","Size":6291554}`, count} {
		result, err := f.Invoke(t.Context(), []byte(event))
		if err != nil || result.FunctionError != "" || event != count && len(result.Payload) != 6291556 {
			t.Errorf("%s: %d bytes, %s, %v", event, len(result.Payload), result.FunctionError, err)
		}
		reports = append(reports, result.Report)
	}
	cold, big, after := reports[0], reports[1], reports[2]
	if cold.Init <= 0 || big.Init != 0 || cold.Duration <= 0 || big.Duration <= 0 {
		t.Errorf("the reports of a cold and a warm start are %+v and %+v", cold, big)
	}
	// The largest reply makes the process grow, and its peak stays.
	grown := big.MaxMemoryUsed - cold.MaxMemoryUsed
	if runtime.GOOS == "linux" && (cold.MaxMemoryUsed <= 0 || grown < 3<<20 || after.MaxMemoryUsed < big.MaxMemoryUsed || big.CPU <= 0 || after.CPU < big.CPU) {
		t.Errorf("the reports are %+v", reports)
	}
	sized := func(size int) string { return `{"Do":"count","Value":"` + strings.Repeat("x", size-25) + `"}` }
	if got := invoke(t, f, sized(6291456)); got != "4" {
		t.Errorf("the largest event: %s", got)
	}
	if _, err := f.Invoke(t.Context(), []byte(sized(6291456+1))); !errors.Is(err, ErrRequestTooLarge) {
		t.Errorf("an event above the limit: %v", err)
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
		t.Errorf("the caller that gave up had to wait for %s", <-log)
	}
	invoke(t, f, count)
	if lines := log.rest(); len(lines) != 1 || !strings.Contains(lines[0], "Task timed out") {
		t.Errorf("the cancelled invocation did not run to its deadline: %q", lines)
	}
}

func TestLog(t *testing.T) {
	f, log := host(t, "worker", nil)
	for i := range 200 {
		line := strings.Repeat("x", i*50) + " " + strconv.Itoa(i)
		invoke(t, f, `{"Do":"print","Value":"`+line+`"}`)
		want := []string{line + " on stdout\n", line + " on stderr, without an end\n"}
		if got := log.rest(); !slices.Equal(got, want) {
			t.Fatalf("when invocation %d has been answered, the log is %q", i, got)
		}
	}
}

func TestClose(t *testing.T) {
	before := runtime.NumGoroutine()
	for kind, event := range map[string]string{"worker": `{"Do":"hang"}`, "never asks": `{}`} {
		f, log := host(t, kind, nil)
		go func() {
			<-log
			_ = f.Close()
		}()
		if _, err := f.Invoke(t.Context(), []byte(event)); !errors.Is(err, ErrClosed) {
			t.Errorf("closed while it was busy: %v", err)
		}
		_ = f.Close()
		if rest := log.rest(); len(rest) > 0 {
			t.Errorf("the log is %q, want nothing about a function that was closed", rest)
		}
	}
	f, _ := host(t, "worker", nil)
	invoke(t, f, `{"Do":"exit"}`)
	pid := pid(t, f)
	_, _ = f.Invoke(t.Context(), nil) // returns when it is idle
	_ = f.Close()
	if !gone(pid) {
		t.Error("the process is still there")
	}
	if _, err := f.Invoke(t.Context(), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("invoking it afterwards: %v", err)
	}
	for i := 0; runtime.NumGoroutine() > before; i++ { // connections of net/http end a moment after their server
		if time.Sleep(time.Millisecond); i == 1000 {
			stacks := make([]byte, 1<<20)
			t.Fatalf("goroutines are left:\n%s", stacks[:runtime.Stack(stacks, true)])
		}
	}
}
