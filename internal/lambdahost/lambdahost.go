// Package lambdahost runs a built Lambda function on this machine the way Lambda runs it: the
// bootstrap executable in a process of its own, with Lambda's environment, served over the Lambda
// Runtime API. So the program that is tested and demonstrated is the one that is deployed.
//
// A Function works like one execution environment of Lambda: it starts cold at its first
// invocation, takes one invocation at a time, and stays warm until it fails, times out or is
// closed. It runs on Unix systems.
package lambdahost

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"path/filepath"
	"time"

	smithyrand "github.com/aws/smithy-go/rand"
)

// Lambda's limits for a synchronous invocation. The reply may be a little larger than the event.
const (
	maxEventBytes = 6_291_456
	maxReplyBytes = 6_291_556
)

var (
	// ErrRequestTooLarge is how Lambda refuses an event. The function does not see it.
	ErrRequestTooLarge = errors.New("RequestEntityTooLarge: Request must be smaller than 6291456 bytes for the InvokeFunction operation")
	// ErrClosed is what a closed function answers.
	ErrClosed = errors.New("the function is closed")
)

// Config says what to run and how.
type Config struct {
	Name   string // in the function's ARN and environment
	Binary string // the bootstrap executable
	// Env is added to the environment that Lambda gives a function, and wins over it. The function
	// gets nothing of this process's own environment.
	Env     []string
	Timeout time.Duration // of one invocation; 3 s if zero, as in Lambda
	Log     *log.Logger   // gets stdout and stderr, a line at a time; nil discards them

	initTimeout time.Duration // until a new process asks for work; 10 s if zero, as in Lambda
}

// Result is what Lambda answers to a synchronous invocation.
type Result struct {
	Payload       []byte
	FunctionError string // "" if the function succeeded, else "Unhandled", and Payload describes the error
	Report        Report
}

// Report holds what the REPORT line of Lambda's log says about an invocation that was answered.
type Report struct {
	Init          time.Duration // from the start of the process until it asked for work; 0 if it was warm
	Duration      time.Duration // from when the process got its work until its answer
	MaxMemoryUsed int64         // peak memory of the process since its start, in bytes; 0 without /proc
	CPU           time.Duration // processor time of the process since its start, in hundredths of a second; 0 without /proc
}

// Function is one hosted function. Its methods may be called concurrently.
type Function struct {
	cfg   Config
	ctx   context.Context // ends with ErrClosed
	close context.CancelCauseFunc
	idle  chan *process // holds the process while nobody uses it; nil: the next start is cold
}

type invocation struct {
	id       string
	event    []byte
	deadline time.Time
	answer   chan Result // buffered: the caller may have stopped waiting
}

// fault is a failure that Lambda reports for a function that cannot do so itself.
type fault struct{ kind, message string }

func (f *fault) Error() string { return f.message }

// Start makes the function ready. The process starts with the first invocation.
func Start(cfg Config) (*Function, error) {
	var err error
	if cfg.Binary, err = filepath.Abs(cfg.Binary); err != nil {
		return nil, err
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, 3*time.Second)
	cfg.initTimeout = cmp.Or(cfg.initTimeout, 10*time.Second)
	cfg.Log = cmp.Or(cfg.Log, log.New(io.Discard, "", 0))
	f := &Function{cfg: cfg, idle: make(chan *process, 1)}
	f.idle <- nil
	f.ctx, f.close = context.WithCancelCause(context.Background())
	return f, nil
}

// Invoke runs the function with this event, after the invocations that came before. A nil event
// only starts the process, unless it is warm.
//
// If the function fails, that is a Result with FunctionError and no error. Everything that the
// function printed before it answered is in the log when Invoke returns. As in Lambda, the end of
// ctx stops the waiting but not the function.
func (f *Function) Invoke(ctx context.Context, event []byte) (Result, error) {
	if len(event) > maxEventBytes {
		return Result{}, ErrRequestTooLarge
	}
	id, _ := smithyrand.NewUUID(rand.Reader).GetUUID() // rand.Reader never fails
	inv := &invocation{id: id, event: event, answer: make(chan Result, 1)}
	select {
	case p := <-f.idle:
		go func() { f.idle <- f.serve(p, inv) }()
	case <-ctx.Done():
		return Result{}, ctx.Err()
	case <-f.ctx.Done():
		return Result{}, ErrClosed
	}
	select {
	case result := <-inv.answer:
		return result, nil
	case <-ctx.Done():
		return Result{}, ctx.Err()
	case <-f.ctx.Done():
		return Result{}, ErrClosed
	}
}

// Close kills the process, as Lambda does without extensions, and waits until nothing is left.
func (f *Function) Close() error {
	f.close(ErrClosed)
	if p := <-f.idle; p != nil {
		p.kill()
	}
	f.idle <- nil
	return nil
}

// serve answers one invocation. It returns the process for the next one, nil for a cold start.
func (f *Function) serve(p *process, inv *invocation) *process {
	if f.ctx.Err() != nil {
		return p
	}
	var report Report
	if p != nil {
		select {
		case <-p.exited: // while it was idle
			p.kill()
			p = nil
		default:
		}
	}
	if p == nil {
		start := time.Now()
		var err error
		if p, err = f.coldStart(); err != nil {
			f.fail(inv, err)
			return nil
		}
		report.Init = time.Since(start)
	}
	if inv.event == nil {
		inv.answer <- Result{Report: report}
		return p
	}

	ctx, cancel := f.within(f.cfg.Timeout)
	defer cancel()
	start := time.Now()
	inv.deadline, _ = ctx.Deadline()
	p.work <- inv
	result, err := await(ctx, p, p.results)
	if err != nil {
		p.kill()
		f.fail(inv, err)
		return nil
	}
	report.Duration, report.MaxMemoryUsed, report.CPU = time.Since(start), p.maxMemory(), p.cpu()
	result.Report = report
	p.output.sync()
	inv.answer <- result

	// The invocation lasts until the process asks for the next one. After a panic it exits instead.
	if _, err := await(ctx, p, p.idle); err != nil {
		p.kill()
		return nil
	}
	return p
}

// coldStart starts a process and waits until it asks for work.
func (f *Function) coldStart() (*process, error) {
	p, err := launch(f.cfg)
	if err != nil {
		return nil, &fault{"Runtime.InvalidEntrypoint", err.Error()}
	}
	ctx, cancel := f.within(f.cfg.initTimeout)
	defer cancel()
	if _, err := await(ctx, p, p.idle); err != nil {
		p.kill()
		return nil, err
	}
	return p, nil
}

// within is a context that ends when time is up or the function is closed. Its cause says which.
func (f *Function) within(limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(f.ctx, limit,
		&fault{"Sandbox.Timedout", fmt.Sprintf("Task timed out after %.2f seconds", limit.Seconds())})
}

// await receives from the process unless it exits first or ctx ends.
func await[T any](ctx context.Context, p *process, c <-chan T) (v T, err error) {
	select {
	case v = <-c:
	case <-p.exited:
		select {
		case v = <-c: // sent just before the exit
		default:
			err = p.fault()
		}
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	return v, err
}

// fail answers with a fault in Lambda's words, and logs it. A closed function has not failed.
func (f *Function) fail(inv *invocation, err error) {
	why, ok := errors.AsType[*fault](err)
	if !ok {
		return
	}
	f.cfg.Log.Printf("%s: %s", f.cfg.Name, why.message)
	payload, _ := json.Marshal(map[string]string{
		"errorType": why.kind, "errorMessage": fmt.Sprintf("RequestId: %s Error: %s", inv.id, why.message)})
	inv.answer <- Result{Payload: payload, FunctionError: "Unhandled"}
}
