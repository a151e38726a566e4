package lambdahost

import (
	"bytes"
	"io"
	"os"
	"time"
)

// output is the pipe from a process's stdout and stderr to the log, which gets whole lines, each in one Write, so that
// what several processes say never mixes within a line.
type output struct {
	in, out *os.File
	log     io.Writer
	mark    []byte
	marks   chan struct{} // one for each mark that came through
	done    chan struct{} // closed at the end of the output
}

func newOutput(log io.Writer) (*output, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	o := &output{in: in, out: out, log: log, mark: []byte("\x00" + uuid() + "\x00"), marks: make(chan struct{}), done: make(chan struct{})}
	go o.copy()
	return o, nil
}

func (o *output) copy() {
	defer close(o.done)
	var pending []byte
	buffer := make([]byte, 32<<10)
	for {
		n, err := o.out.Read(buffer)
		pending = o.pass(append(pending, buffer[:n]...))
		if err != nil {
			if len(pending) > 0 {
				_, _ = o.log.Write(append(pending, '\n'))
			}
			return
		}
	}
}

// pass writes the lines that are complete, takes note of marks and leaves them out, and returns the rest.
func (o *output) pass(pending []byte) []byte {
	for {
		end, mark := bytes.IndexByte(pending, '\n'), bytes.Index(pending, o.mark)
		switch {
		case mark >= 0 && (end < 0 || mark < end):
			pending = append(pending[:mark], pending[mark+len(o.mark):]...)
			o.marks <- struct{}{}
		case end >= 0:
			_, _ = o.log.Write(pending[:end+1]) // a log that fails must not make the function fail
			pending = pending[end+1:]
		default:
			return pending
		}
	}
}

// sync waits until everything that the process has written by now is in the log: a mark goes down the same pipe and
// comes out behind it.
func (o *output) sync() {
	if _, err := o.in.Write(o.mark); err == nil {
		select {
		case <-o.marks:
		case <-o.done:
		}
	}
}

// close ends the output of a process that is gone, and waits until the rest of it is in the log.
func (o *output) close() {
	_ = o.in.Close()
	_ = o.out.SetReadDeadline(time.Now().Add(time.Second)) // should anything that is still alive hold the other end
	<-o.done
	_ = o.out.Close()
}
