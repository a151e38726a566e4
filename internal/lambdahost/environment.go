package lambdahost

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	accountID = "123456789012"
	region    = "us-east-1" // unless Config.Env says otherwise

	// terminateGrace lies between SIGTERM and SIGKILL. Lambda allows 0.5 s; a busy machine of a developer gets more.
	terminateGrace = 2 * time.Second
)

// environment is one process of the function and the Runtime API server that only this process knows of. Both end
// together, so that a late request of an old process can never reach a new one's invocation.
type environment struct {
	cmd    *exec.Cmd
	server *http.Server
	output *output
	arn    string

	idle    chan struct{}    // the process asks for an invocation …
	work    chan *invocation // … and gets it
	results chan Result      // what it posted: one per invocation, or its error while starting
	exited  chan struct{}    // closed when the process is gone and its output is read to the end
	status  error            // of the process; read it after exited

	mu      sync.Mutex
	started bool        // it has asked for an invocation
	current *invocation // the one it owes a result
}

// launch starts the server and the process.
func launch(cfg Config) (*environment, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("serving the Runtime API: %w", err)
	}
	vars := append(lambdaEnv(cfg, listener.Addr().String()), cfg.Env...)
	e := &environment{
		cmd:     exec.Command(cfg.Binary),
		arn:     fmt.Sprintf("arn:aws:lambda:%s:%s:function:%s", cmp.Or(lookup(vars, "AWS_REGION"), region), accountID, cfg.Name),
		idle:    make(chan struct{}),
		work:    make(chan *invocation),
		results: make(chan Result, 1),
		exited:  make(chan struct{}),
	}
	if e.output, err = newOutput(cfg.Log); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	e.cmd.Env = vars
	e.cmd.Dir = filepath.Dir(cfg.Binary)
	e.cmd.Stdout, e.cmd.Stderr = e.output.in, e.output.in
	// A process group of its own: Ctrl-C in a terminal is for the host, which then stops the function in good order.
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}

	e.server = &http.Server{Handler: e.runtimeAPI(), ErrorLog: log.New(io.Discard, "", 0)}
	if err := e.cmd.Start(); err != nil {
		e.output.close()
		return nil, errors.Join(err, listener.Close())
	}
	go func() { _ = e.server.Serve(listener) }()
	go func() {
		e.status = e.cmd.Wait()
		_ = syscall.Kill(-e.cmd.Process.Pid, syscall.SIGKILL) // what it started and left behind
		e.output.close()
		close(e.exited)
	}()
	return e, nil
}

// lambdaEnv is what Lambda sets for a function on an OS-only runtime.
// https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
func lambdaEnv(cfg Config, runtimeAPI string) []string {
	return []string{
		"AWS_LAMBDA_RUNTIME_API=" + runtimeAPI,
		"AWS_LAMBDA_FUNCTION_NAME=" + cfg.Name,
		"AWS_LAMBDA_FUNCTION_VERSION=$LATEST",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=" + strconv.Itoa(cfg.memoryMB()),
		"AWS_LAMBDA_INITIALIZATION_TYPE=on-demand",
		"AWS_LAMBDA_LOG_GROUP_NAME=/aws/lambda/" + cfg.Name,
		"AWS_LAMBDA_LOG_STREAM_NAME=local",
		"AWS_LAMBDA_LOG_FORMAT=JSON",
		"AWS_REGION=" + region,
		"AWS_DEFAULT_REGION=" + region,
		"_HANDLER=bootstrap",
		"LAMBDA_TASK_ROOT=" + filepath.Dir(cfg.Binary),
		"LAMBDA_RUNTIME_DIR=/var/runtime",
		"LANG=en_US.UTF-8",
		"PATH=/usr/local/bin:/usr/bin:/bin:/opt/bin",
		"TZ=:UTC",
	}
}

// lookup finds the value that a process with these variables would see: the last one.
func lookup(vars []string, name string) (value string) {
	for _, v := range vars {
		if rest, ok := strings.CutPrefix(v, name+"="); ok {
			value = rest
		}
	}
	return value
}

// runtimeAPI is the Lambda Runtime API, and as much of the Extensions API as aws-lambda-go asks for where a function
// wants to see SIGTERM. https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
func (e *environment) runtimeAPI() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", e.next)
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/response", func(w http.ResponseWriter, r *http.Request) {
		e.result(w, r, "")
	})
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/error", func(w http.ResponseWriter, r *http.Request) {
		e.result(w, r, "Unhandled")
	})
	mux.HandleFunc("POST /2018-06-01/runtime/init/error", func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		started := e.started
		e.mu.Unlock()
		payload, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxReplyBytes))
		if started || err != nil {
			apiError(w, http.StatusForbidden, "InvalidStateTransition", "State transition from Ready to InitError failed")
			return
		}
		e.post(w, Result{Payload: payload, FunctionError: "Unhandled"})
	})
	mux.HandleFunc("POST /2020-01-01/extension/register", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Lambda-Extension-Identifier", uuid())
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{}")
	})
	mux.HandleFunc("GET /2020-01-01/extension/event/next", func(w http.ResponseWriter, r *http.Request) {
		select { // an extension that registered for no event never gets one
		case <-r.Context().Done():
		case <-e.exited:
		}
	})
	return mux
}

// next blocks until there is an invocation for the process.
func (e *environment) next(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	e.started = true
	e.mu.Unlock()
	select {
	case e.idle <- struct{}{}:
	case <-r.Context().Done():
		return
	case <-e.exited:
		return
	}
	select {
	case inv := <-e.work:
		e.mu.Lock()
		e.current = inv
		e.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Lambda-Runtime-Aws-Request-Id", inv.id)
		w.Header().Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(inv.deadline.UnixMilli(), 10))
		w.Header().Set("Lambda-Runtime-Invoked-Function-Arn", e.arn)
		w.Header().Set("Lambda-Runtime-Trace-Id", traceID())
		_, _ = w.Write(inv.payload)
	case <-r.Context().Done():
	case <-e.exited:
	}
}

// result takes the process's answer to the invocation it is working on, and to no other.
func (e *environment) result(w http.ResponseWriter, r *http.Request, functionError string) {
	payload, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxReplyBytes))
	var tooLarge *http.MaxBytesError
	if err != nil && !errors.As(err, &tooLarge) {
		return // the process went away in the middle; its exit says the rest
	}

	e.mu.Lock()
	known := e.current != nil && e.current.id == r.PathValue("id")
	if known {
		e.current = nil
	}
	e.mu.Unlock()
	switch {
	case !known:
		apiError(w, http.StatusBadRequest, "InvalidRequestID", "Invalid request ID")
	case tooLarge != nil:
		e.results <- Result{FunctionError: "Unhandled", Payload: []byte(fmt.Sprintf(
			`{"errorType":"Function.ResponseSizeTooLarge","errorMessage":"Response payload size exceeded maximum allowed payload size (%d bytes)."}`,
			maxReplyBytes))}
		apiError(w, http.StatusRequestEntityTooLarge, "RequestEntityTooLarge",
			fmt.Sprintf("Exceeded maximum allowed payload size (%d bytes).", maxReplyBytes))
	default:
		e.post(w, Result{Payload: payload, FunctionError: functionError})
	}
}

// post hands a result to the host before the process hears that it was accepted: a process that exits upon that
// cannot make its result look missing.
func (e *environment) post(w http.ResponseWriter, result Result) {
	select {
	case e.results <- result:
	case <-e.exited:
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	_, _ = io.WriteString(w, `{"status":"OK"}`)
}

func apiError(w http.ResponseWriter, status int, kind, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"errorType":%q,"errorMessage":%q}`, kind, message)
}

// lastResult is what an exited process posted before it went, or else what otherwise says.
func (e *environment) lastResult(otherwise func() Result) Result {
	select {
	case result := <-e.results:
		return result
	default:
		return otherwise()
	}
}

func (e *environment) gone() bool {
	select {
	case <-e.exited:
		return true
	default:
		return false
	}
}

func (e *environment) exitFault() fault {
	if e.status == nil {
		return fault{Type: "Runtime.ExitError", Message: "Runtime exited without providing a reason"}
	}
	return fault{Type: "Runtime.ExitError", Message: "Runtime exited with error: " + e.status.Error()}
}

// maxMemory is the most resident memory, in bytes, that the process has had. It is not that of getrusage, which on Linux
// counts what the process that started it had at that time.
func maxMemory(pid int) int64 {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, peak, _ := strings.Cut(string(status), "\nVmHWM:")
	var kB int64
	_, _ = fmt.Sscanf(peak, "%d kB", &kB)
	return kB << 10
}

// terminate ends the process as at the end of a Lambda environment's life.
func (e *environment) terminate() {
	_ = syscall.Kill(-e.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-e.exited:
	case <-time.After(terminateGrace):
	}
	e.kill()
}

// kill ends the process, if it still runs, and then the server.
func (e *environment) kill() {
	_ = e.cmd.Process.Kill()
	<-e.exited
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = e.server.Shutdown(ctx) // waits for the handlers; they return since the process is gone
	_ = e.server.Close()
}

func traceID() string {
	var b [20]byte
	_, _ = rand.Read(b[:])
	return fmt.Sprintf("Root=1-%08x-%s;Parent=%s;Sampled=0", time.Now().Unix(), hex.EncodeToString(b[:12]), hex.EncodeToString(b[12:]))
}
