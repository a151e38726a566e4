package lambdahost

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const region = "us-east-1" // unless Config.Env names another

// process is one process of the function, with a Runtime API server that no other process knows.
// Both end together, so a late request of an old process never reaches a new one's invocation.
type process struct {
	cmd    *exec.Cmd
	server *httptest.Server
	output *output
	arn    string

	idle    chan struct{}    // the process asks for an invocation,
	work    chan *invocation // gets it
	results chan Result      // and posts the result
	exited  chan struct{}    // closed when it is gone and its output has been read
}

// launch starts the server and the process.
func launch(cfg Config) (*process, error) {
	p := &process{
		cmd:     exec.Command(cfg.Binary),
		arn:     "arn:aws:lambda:" + region + ":123456789012:function:" + cfg.Name,
		idle:    make(chan struct{}),
		work:    make(chan *invocation, 1),
		results: make(chan Result, 1),
		exited:  make(chan struct{}),
	}
	var err error
	if p.output, err = newOutput(cfg.Log); err != nil {
		return nil, err
	}
	// This is the part of the Lambda Runtime API that aws-lambda-go uses.
	// https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
	api := http.NewServeMux()
	api.HandleFunc("GET /2018-06-01/runtime/invocation/next", p.next)
	api.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/{kind}", p.result)
	p.server = httptest.NewServer(api)
	p.cmd.Env = append(lambdaEnv(cfg, p.server.Listener.Addr().String()), cfg.Env...)
	p.cmd.Dir = filepath.Dir(cfg.Binary)
	p.cmd.Stdout, p.cmd.Stderr = p.output.in, p.output.in
	// In a process group of its own, it does not get the Ctrl-C that is meant for the host.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		p.output.close()
		p.server.Close()
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait()
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // children, which would keep the output open
		p.output.close()
		close(p.exited)
	}()
	return p, nil
}

// lambdaEnv is what Lambda sets for a function on an OS-only runtime.
// https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
func lambdaEnv(cfg Config, runtimeAPI string) []string {
	return []string{
		"AWS_LAMBDA_RUNTIME_API=" + runtimeAPI,
		"AWS_LAMBDA_FUNCTION_NAME=" + cfg.Name,
		"AWS_LAMBDA_FUNCTION_VERSION=$LATEST",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=128", // the default; nothing enforces it here
		"AWS_REGION=" + region,
		"AWS_DEFAULT_REGION=" + region,
		"_HANDLER=bootstrap",
		"LAMBDA_TASK_ROOT=" + filepath.Dir(cfg.Binary),
		"PATH=/usr/local/bin:/usr/bin:/bin:/opt/bin",
		"TZ=:UTC",
	}
}

// next blocks until there is an invocation for the process.
func (p *process) next(w http.ResponseWriter, r *http.Request) {
	select {
	case p.idle <- struct{}{}:
	case <-r.Context().Done():
		return
	}
	select {
	case inv := <-p.work:
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Lambda-Runtime-Aws-Request-Id", inv.id)
		w.Header().Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(inv.deadline.UnixMilli(), 10))
		w.Header().Set("Lambda-Runtime-Invoked-Function-Arn", p.arn)
		_, _ = w.Write(inv.event)
	case <-r.Context().Done():
	}
}

// result takes the response or the error. The host has it before the process hears that it was
// accepted, so a process that then exits at once has still answered.
func (p *process) result(w http.ResponseWriter, r *http.Request) {
	payload, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxReplyBytes))
	result, status := Result{Payload: payload}, http.StatusAccepted
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		status = http.StatusRequestEntityTooLarge
		result.Payload = fmt.Appendf(nil, `{"errorType":"Function.ResponseSizeTooLarge",`+
			`"errorMessage":"Response payload size exceeded maximum allowed payload size (%d bytes)."}`, maxReplyBytes)
	} else if err != nil {
		return // the process went away in the middle; its exit says the rest
	}
	if status != http.StatusAccepted || r.PathValue("kind") == "error" {
		result.FunctionError = "Unhandled"
	}
	p.results <- result
	w.WriteHeader(status)
}

// fault is what Lambda says of a process that exited without an answer.
func (p *process) fault() *fault {
	if p.cmd.ProcessState.Success() {
		return &fault{"Runtime.ExitError", "Runtime exited without providing a reason"}
	}
	return &fault{"Runtime.ExitError", "Runtime exited with error: " + p.cmd.ProcessState.String()}
}

// maxMemory is the process's peak of resident memory in bytes. getrusage would include the host's.
func (p *process) maxMemory() int64 {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	_, peak, _ := strings.Cut(string(status), "\nVmHWM:")
	var kB int64
	_, _ = fmt.Sscanf(peak, "%d kB", &kB)
	return kB << 10
}

// cpu is the processor time of the process, its own and the system's for it: see proc_pid_stat(5).
func (p *process) cpu() time.Duration {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // from the third on; the second may have spaces
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * time.Second / 100 // Linux counts in hundredths
}

// kill ends the process, if it still runs, and the server.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
	p.server.Close()
}
