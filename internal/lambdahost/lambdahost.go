// Package lambdahost runs a built Lambda function on this machine the way Lambda runs it: the bootstrap executable
// in a process of its own, with Lambda's environment, served over the Lambda Runtime API. What is tested and
// demonstrated is thereby the program that is deployed.
//
// A Function starts cold at its first invocation, works on one invocation at a time and stays warm until it fails,
// times out or is closed, as one execution environment of Lambda does. It runs on Unix systems.
package lambdahost

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Lambda's limits for a synchronous invocation. The reply may be a little larger than the event.
const (
	maxEventBytes = 6_291_456
	maxReplyBytes = 6_291_556
)

// What Invoke fails with where Lambda refuses an invocation itself, before any function sees it.
var (
	ErrRequestTooLarge = errors.New("RequestEntityTooLarge: Request must be smaller than 6291456 bytes for the InvokeFunction operation")
	ErrInvalidJSON     = errors.New("InvalidRequestContentException: Could not parse request body into json")
	ErrClosed          = errors.New("the function is closed")
)

// Config says what to run and how.
type Config struct {
	Name   string // in the function's ARN and environment
	Binary string // the bootstrap executable
	// Env is added to the environment that Lambda gives a function, and wins over it. Nothing else is passed on.
	Env         []string
	Timeout     time.Duration // of one invocation; 3 s if zero, as in Lambda
	InitTimeout time.Duration // from the process's start until it asks for work; 10 s if zero, as in Lambda
	MemoryMB    int           // what the function is told it has; 128 if zero. Nothing enforces it.
	Log         io.Writer     // stdout and stderr, one whole line per Write; discarded if nil
}

func (c Config) timeout() time.Duration {
	if c.Timeout == 0 {
		return 3 * time.Second
	}
	return c.Timeout
}

func (c Config) initTimeout() time.Duration {
	if c.InitTimeout == 0 {
		return 10 * time.Second
	}
	return c.InitTimeout
}

func (c Config) memoryMB() int {
	if c.MemoryMB == 0 {
		return 128
	}
	return c.MemoryMB
}

// Result is what Lambda answers to a synchronous invocation.
type Result struct {
	Payload       []byte
	FunctionError string // "" where the function succeeded, else "Unhandled", and Payload describes the error
	Report        Report
}

// Report is what the REPORT line of Lambda's log says of an invocation that the function answered.
type Report struct {
	Init          time.Duration // of a cold start, from the process's start until it asks for work; zero if it was warm
	Duration      time.Duration // from when it got its work until its answer
	MaxMemoryUsed int64         // bytes of memory that the process has had at the most since its start; zero where there is no /proc
}

// Function is one hosted function. Its methods may be called concurrently.
type Function struct {
	cfg   Config
	queue chan *invocation
	stop  chan struct{} // closed by Close
	done  chan struct{} // closed once process and server are gone
	close func()
}

type invocation struct {
	id       string
	payload  []byte
	deadline time.Time
	answer   chan Result // buffered: whoever asked may have stopped waiting
}

// Start checks that the binary is there and gets ready to run it. The process starts with the first invocation.
func Start(cfg Config) (*Function, error) {
	binary, err := filepath.Abs(cfg.Binary)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(binary); err != nil {
		return nil, fmt.Errorf("finding the function's binary: %w", err)
	} else if info.IsDir() || info.Mode()&0o111 == 0 {
		return nil, fmt.Errorf("the function's binary is not an executable file: %s", binary)
	}
	cfg.Binary = binary
	if cfg.Log == nil {
		cfg.Log = io.Discard
	}
	f := &Function{cfg: cfg, queue: make(chan *invocation), stop: make(chan struct{}), done: make(chan struct{})}
	f.close = sync.OnceFunc(func() { close(f.stop) })
	go f.run()
	return f, nil
}

// Invoke runs the function once with payload as its event and waits for its answer, behind the invocations that came
// before. A function's failure is a Result with FunctionError, not an error. What the function printed until it answered
// is in the log when Invoke returns. As in Lambda, cancelling ctx stops the waiting and not the function.
func (f *Function) Invoke(ctx context.Context, payload []byte) (Result, error) {
	if len(payload) == 0 {
		payload = []byte("{}")
	}
	if len(payload) > maxEventBytes {
		return Result{}, ErrRequestTooLarge
	}
	if !json.Valid(payload) {
		return Result{}, ErrInvalidJSON
	}
	inv := &invocation{id: uuid(), payload: payload, answer: make(chan Result, 1)}
	select {
	case f.queue <- inv:
	case <-ctx.Done():
		return Result{}, ctx.Err()
	case <-f.stop:
		return Result{}, ErrClosed
	}
	select {
	case result := <-inv.answer:
		return result, nil
	case <-ctx.Done():
		return Result{}, ctx.Err()
	case <-f.stop:
		return Result{}, ErrClosed
	}
}

// Close stops the process, with SIGTERM and if need be SIGKILL, and waits until nothing of the function is left.
func (f *Function) Close() error {
	f.close()
	<-f.done
	return nil
}

// run owns the process: invocations reach it one after the other.
func (f *Function) run() {
	defer close(f.done)
	var env *environment // nil: cold
	for {
		select {
		case inv := <-f.queue:
			env = f.serve(env, inv)
		case <-f.stop:
			if env != nil {
				env.terminate()
			}
			return
		}
	}
}

// serve takes one invocation through the process and answers it. It returns the environment ready for the next
// invocation, or nil if that has to start cold.
func (f *Function) serve(env *environment, inv *invocation) *environment {
	warm := env != nil && !env.gone()
	var report Report
	if !warm {
		if env != nil {
			env.kill()
		}
		var why *fault
		start := time.Now()
		if env, why = f.coldStart(); why != nil {
			inv.answer <- f.report(inv, *why)
		}
		if env == nil {
			return nil
		}
		report.Init = time.Since(start)
	}

	timeout := time.NewTimer(f.cfg.timeout())
	defer timeout.Stop()
	start := time.Now()
	inv.deadline = start.Add(f.cfg.timeout())
	select {
	case env.work <- inv:
	case <-env.exited:
		if warm { // it went while idle, which is none of this invocation's doing
			return f.serve(env, inv)
		}
		inv.answer <- f.report(inv, env.exitFault())
		env.kill()
		return nil
	case <-f.stop:
		return env
	}

	select {
	case result := <-env.results:
		report.Duration, report.MaxMemoryUsed = time.Since(start), maxMemory(env.cmd.Process.Pid)
		result.Report = report
		env.output.sync()
		inv.answer <- result
	case <-env.exited:
		inv.answer <- env.lastResult(func() Result { return f.report(inv, env.exitFault()) })
		env.kill()
		return nil
	case <-timeout.C:
		env.kill()
		inv.answer <- f.report(inv, timedOut(f.cfg.timeout()))
		return nil
	case <-f.stop:
		return env
	}

	// The caller has its answer, but the invocation lasts until the process asks for the next one. After a panic, for
	// instance, it reports the error and then exits.
	select {
	case <-env.idle:
		return env
	case <-env.exited:
	case <-timeout.C:
	case <-f.stop:
		return env
	}
	env.kill()
	return nil
}

// coldStart launches the process and waits until it asks for its first invocation. It returns neither an environment
// nor a fault if the function is closed meanwhile.
func (f *Function) coldStart() (*environment, *fault) {
	env, err := launch(f.cfg)
	if err != nil {
		return nil, &fault{Type: "Runtime.InvalidEntrypoint", Message: err.Error()}
	}
	timeout := time.NewTimer(f.cfg.initTimeout())
	defer timeout.Stop()

	var why fault
	select {
	case <-env.idle:
		return env, nil
	case result := <-env.results:
		why = fault{reported: result.Payload}
	case <-env.exited:
		why = env.exitFault()
		why.reported = env.lastResult(func() Result { return Result{} }).Payload
	case <-timeout.C:
		why = timedOut(f.cfg.initTimeout())
	case <-f.stop:
		env.terminate()
		return nil, nil
	}
	env.kill()
	return nil, &why
}

// fault is a failure that Lambda, not the function, puts into words, unless the process did so itself during its start.
type fault struct {
	Type, Message string
	reported      []byte
}

func timedOut(after time.Duration) fault {
	return fault{Type: "Sandbox.Timedout", Message: fmt.Sprintf("Task timed out after %.2f seconds", after.Seconds())}
}

// report writes the fault to the function's log, where Lambda also leaves it, and words it as Lambda's answer.
func (f *Function) report(inv *invocation, why fault) Result {
	if why.reported != nil {
		return Result{Payload: why.reported, FunctionError: "Unhandled"}
	}
	message := fmt.Sprintf("RequestId: %s Error: %s", inv.id, why.Message)
	line, _ := json.Marshal(map[string]string{
		"timestamp": time.Now().UTC().Format(time.RFC3339Nano), "level": "ERROR", "message": why.Message,
		"errorType": why.Type, "function": f.cfg.Name, "requestId": inv.id,
	})
	_, _ = f.cfg.Log.Write(append(line, '\n'))
	payload, _ := json.Marshal(map[string]string{"errorType": why.Type, "errorMessage": message})
	return Result{Payload: payload, FunctionError: "Unhandled"}
}

func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	s := hex.EncodeToString(b[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}
