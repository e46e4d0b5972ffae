// Report turns the measurements of compare.py into a page with tables and charts:
//
//	compare.py ... --json FILE --about ABOUT
//	report -about ABOUT -out docs FILE
//
// writes docs/benchmarks.md, and its charts into docs/benchmarks/. What it writes depends on the two files alone.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	aboutFile := flag.String("about", "", "the file that compare.py --about wrote")
	out := flag.String("out", "docs", "the folder for benchmarks.md and benchmarks/*.svg")
	flag.Parse()
	if flag.NArg() != 1 || *aboutFile == "" {
		fmt.Fprintln(os.Stderr, "usage: report -about ABOUT [-out FOLDER] MEASUREMENTS")
		os.Exit(2)
	}
	if err := run(*aboutFile, flag.Arg(0), *out); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func run(aboutFile, measurementsFile, out string) error {
	var a about
	text, err := os.ReadFile(aboutFile)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &a); err != nil {
		return fmt.Errorf("%s: %w", aboutFile, err)
	}
	text, err = os.ReadFile(measurementsFile)
	if err != nil {
		return err
	}
	measurements, err := parse(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", measurementsFile, err)
	}
	files, err := write(summarize(measurements, a))
	if err != nil {
		return err
	}
	for name, content := range files {
		name = filepath.Join(out, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// about is what the figures depend on.
type about struct {
	CPU, Kernel, Go, Node, GCC, Command string
	Cores                               int
	Secs                                float64 // of each measurement
	Servers                             []server
}

type server struct{ Name, Package, Version string }

// title is what readers know a server by.
func (a about) title(name string) string {
	switch name {
	case "limit":
		return "the limit"
	case "hubbub":
		return "Hubbub"
	case "hubbub-workers2":
		return "Hubbub, 2 workers"
	case "hubbub-uring":
		return "Hubbub, io_uring"
	}
	for _, s := range a.Servers {
		if s.Name == name {
			if path, ok := strings.CutPrefix(s.Package, "github.com/"); ok {
				return path
			}
			return s.Package + " (npm)"
		}
	}
	return name
}

// measurement is one line of compare.py.
type measurement struct {
	Scenario    string   `json:"scenario"`
	Server      string   `json:"label"`
	Error       string   `json:"error"` // alone with the two above
	Conns       int      `json:"conns"`
	Closed      int      `json:"closed"`
	Failed      int      `json:"failed"` // to connect
	Published   int      `json:"published"`
	Lost        int      `json:"lost_publishes"`
	Dups        int      `json:"dups"`
	PerSecond   float64  `json:"deliveries_per_s"`
	Bytes       float64  `json:"bytes_per_delivery"`
	CPU         float64  `json:"core_us_per_delivery"`
	ConnectCPU  float64  `json:"connect_cpu_us"`
	RSS         float64  `json:"rss_bytes_per_conn"`
	RSSAfter    float64  `json:"rss_bytes_per_conn_end"`
	Heap        *float64 `json:"heap_bytes_per_conn"` // nil: the server doesn't tell
	HeapAfter   *float64 `json:"heap_bytes_per_conn_end"`
	Disturbed   float64  `json:"disturbed"`
	Connects    float64  `json:"connects_per_s"`
	LatencyUsec struct {
		P50 float64 `json:"p50"`
		P99 float64 `json:"p99"`
	} `json:"lat_us"`
}

func parse(text string) (all []measurement, err error) {
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		var m measurement
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		if m.Scenario == "" || m.Server == "" {
			return nil, fmt.Errorf("line %d: no scenario or no label: %.80s", i+1, line)
		}
		all = append(all, m)
	}
	if len(all) == 0 {
		return nil, errors.New("no measurements")
	}
	return all, nil
}
