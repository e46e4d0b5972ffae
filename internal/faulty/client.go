package faulty

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"
)

// Client makes a client under test. What it shows is told to report, from any goroutine; do gives it a command, and
// doesn't wait for what comes of it. The first command is "new", the last one "end".
type Client func(report func(Report)) (do func(Command))

// Command is what a program has its client do. The traces' README says what each Call takes.
type Command struct {
	Call      string          `json:"call"`
	As        string          `json:"as,omitempty"` // by which its outcome is told
	Room      string          `json:"room,omitempty"`
	To        string          `json:"to,omitempty"`
	Method    string          `json:"method,omitempty"`
	Content   json.RawMessage `json:"content,omitempty"`
	Data      json.RawMessage `json:"data,omitempty"`
	Key       string          `json:"key,omitempty"`
	PublishID string          `json:"publish_id,omitempty"`
	Since     *Position       `json:"since,omitempty"`
	Limit     int             `json:"limit,omitempty"`
	TimeoutMS int             `json:"timeout_ms,omitempty"`
	URL       string          `json:"url,omitempty"`
	Options   *Options        `json:"options,omitempty"`
}

// Position is a place in a room.
type Position struct {
	Epoch  string `json:"epoch"`
	Offset uint64 `json:"offset"`
}

// Options are those of a client that traces set. Times are milliseconds; 0 is the client's own default, but for MinDelay
// and MaxDelay, which are 1 then.
type Options struct {
	MinDelay int      `json:"min_delay_ms,omitempty"`
	MaxDelay int      `json:"max_delay_ms,omitempty"`
	Timeout  int      `json:"timeout_ms,omitempty"`
	Queue    int      `json:"queue,omitempty"`
	Tokens   []string `json:"tokens,omitempty"` // one after the other, the last one again and again
}

// Report is what a client shows: the outcome of a call, where it has "call"; a state, where it has "state"; "ended" when
// nothing more comes; else an event, of the room that it names or of the hub.
type Report map[string]any

// Program is a process that drives clients by lines of JSON: commands with the number of their run go in, reports with
// that number come out.
type Program struct {
	t     testing.TB
	in    io.WriteCloser
	wrote sync.Mutex

	mu   sync.Mutex // what is below
	runs map[int]func(Report)
	last int
	gone bool
}

// StartProgram starts one, which ends with the test and must then say that nothing is left over: it exits with 0 by
// itself when its input ends.
func StartProgram(t testing.TB, dir string, args ...string) *Program {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	p := &Program{t: t, runs: map[int]func(Report){}}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.in = in
	read := make(chan struct{})
	go func() {
		defer close(read)
		p.read(out)
	}()
	t.Cleanup(func() {
		in.Close()
		<-read
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %v: something is left over, or it ended before", args, err)
		}
	})
	return p
}

func (p *Program) read(out io.Reader) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var r Report
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			p.t.Errorf("the driver says %q", lines.Bytes())
			continue
		}
		n, _ := r["run"].(float64)
		delete(r, "run")
		p.mu.Lock()
		report := p.runs[int(n)]
		p.mu.Unlock()
		if report != nil {
			report(r)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = true
	for _, report := range p.runs {
		report(Report{"ended": false})
	}
}

// Client makes clients of the program.
func (p *Program) Client(report func(Report)) func(Command) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last++
	run := p.last
	p.runs[run] = report
	return func(c Command) {
		line, err := json.Marshal(struct {
			Run int `json:"run"`
			Command
		}{run, c})
		if err != nil {
			panic(fmt.Sprintf("a command that is no JSON: %v", err)) // what it is made of was JSON
		}
		p.wrote.Lock()
		defer p.wrote.Unlock()
		p.in.Write(append(line, '\n')) // where it is gone, read says so
	}
}
