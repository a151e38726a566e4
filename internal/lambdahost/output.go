package lambdahost

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"log"
	"os"
)

// output is the pipe from a process's stdout and stderr to the log, which gets whole lines.
type output struct {
	in, out *os.File
	log     *log.Logger
	mark    []byte
	marks   chan struct{} // one for each mark that came through
	done    chan struct{} // closed at the end of the output
}

func newOutput(to *log.Logger) (*output, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	mark := []byte("\x00" + rand.Text() + "\n")
	o := &output{in: in, out: out, log: to, mark: mark, marks: make(chan struct{}), done: make(chan struct{})}
	go o.copy()
	return o, nil
}

func (o *output) copy() {
	defer close(o.done)
	for lines := bufio.NewReader(o.out); ; {
		line, err := lines.ReadBytes('\n')
		line, marked := bytes.CutSuffix(line, o.mark)
		if len(line) > 0 {
			o.log.Print(string(line))
		}
		if marked {
			o.marks <- struct{}{}
		}
		if err != nil {
			return
		}
	}
}

// sync waits until everything that the process has written so far is in the log: a mark goes down
// the same pipe and comes out last.
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
	<-o.done
	_ = o.out.Close()
}
