package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const aboutText = `{"cpu": "AMD EPYC", "cores": 2, "kernel": "6.1", "go": "go1.26.0", "node": "v20.1.0", "gcc": "12.2.0",
	"command": "bench/compare.py all --rivals gws,ws", "secs": 1.5, "servers": [
	{"name": "hubbub", "package": "hubbub", "version": "v1.0.0"},
	{"name": "gws", "package": "github.com/lxzan/gws", "version": "v1.8.9"},
	{"name": "ws", "package": "ws", "version": "8.23.0"}]}`

// Three rounds of a fan-out in which gws is 10 % behind Hubbub and loses messages in one round, and ws answers once;
// and one round of memory.
const measurementsText = `
{"scenario": "fan1k-w1", "label": "gws", "core_us_per_delivery": 4.4, "deliveries_per_s": 227272}
{"scenario": "fan1k-w1", "label": "limit", "core_us_per_delivery": 2.0, "deliveries_per_s": 1234567}
{"scenario": "fan1k-w1", "label": "hubbub", "core_us_per_delivery": 4.0, "deliveries_per_s": 250000, "lat_us": {"p50": 800, "p99": 1900}}
{"scenario": "fan1k-w1", "label": "ws", "error": "no end within 180 s"}
{"scenario": "fan1k-w1", "label": "gws", "core_us_per_delivery": 4.4, "lost_publishes": 7, "closed": 3}
{"scenario": "fan1k-w1", "label": "limit", "core_us_per_delivery": 1.9}
{"scenario": "fan1k-w1", "label": "hubbub", "core_us_per_delivery": 5.0, "disturbed": 0.2}
{"scenario": "fan1k-w1", "label": "ws", "core_us_per_delivery": 24.0}
{"scenario": "fan1k-w1", "label": "gws", "core_us_per_delivery": 9.9}
{"scenario": "fan1k-w1", "label": "limit", "core_us_per_delivery": 7.0}
{"scenario": "fan1k-w1", "label": "hubbub", "core_us_per_delivery": 3.0}
{"scenario": "fan1k-w1", "label": "ws", "error": "no end within 180 s"}
{"scenario": "mem15k", "label": "limit", "rss_bytes_per_conn": 77}
{"scenario": "mem15k", "label": "hubbub", "rss_bytes_per_conn": 560, "heap_bytes_per_conn": 412, "heap_bytes_per_conn_end": 498}
{"scenario": "mem15k", "label": "gws", "rss_bytes_per_conn": 11200}
`

// written runs the program and returns what it wrote, by file name.
func written(t *testing.T, about, measurements string) (map[string]string, error) {
	t.Helper()
	dir := t.TempDir()
	aboutFile, measurementsFile, out := filepath.Join(dir, "about"), filepath.Join(dir, "lines"), filepath.Join(dir, "docs")
	for name, text := range map[string]string{aboutFile: about, measurementsFile: measurements} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := run(aboutFile, measurementsFile, out); err != nil {
		return nil, err
	}
	files := map[string]string{}
	err := filepath.WalkDir(out, func(name string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(name)
		files[strings.TrimPrefix(name, out+"/")] = string(text)
		return err
	})
	return files, err
}

func TestPageHasMediansAndRatios(t *testing.T) {
	files, err := written(t, aboutText, measurementsText)
	if err != nil {
		t.Fatal(err)
	}
	page := files["benchmarks.md"]
	for _, want := range []string{
		"| scenario | the limit | Hubbub | lxzan/gws | ws (npm) |\n",
		"| `fan1k-w1`: one room of 1,000, one publish at a time | 1.00 (2.00 µs) | 2.00 | 2.20 † | 12 † |\n",
		"| the limit | 0 | 2.00 | 255 % | 1.00 | 0.50 | 0 | 0 | 0 |\n",
		"| Hubbub | 0 | 4.00 | 50 % | 2.00 | 1.00 | 0 | 0 | 0 |\n",
		"| lxzan/gws † | 0 | 4.40 | 125 % | 2.20 | 1.10 (level) | 0 | 0 | 0 |\n",
		"| ws (npm) † | 0 | 24.00 | 0 % | 12 | 6.00 | 0 | 0 | 0 |\n",
		"| Hubbub | 560 | 0 % | 1.00 | 0 | 412 | 498 | 0 | 0 |\n",
		"| lxzan/gws | 11,200 | 0 % | 20 | 0 |  |  | 0 | 0 |\n",
		"- lxzan/gws, `fan1k-w1`: 7 messages did not reach everybody in time; 3 connections were closed\n",
		"- ws (npm), `fan1k-w1`: no answer in 2 of 3 rounds (no end within 180 s)\n",
		"1 of 15 measurements were disturbed",
		"2 cores (AMD EPYC), Linux 6.1, go1.26.0, Node.js v20.1.0, gcc 12.2.0.",
		"| lxzan/gws | `github.com/lxzan/gws` | v1.8.9 |\n",
		"$ bench/compare.py all --rivals gws,ws\n",
		"(benchmarks/fan-out.svg)",
		"(benchmarks/memory.svg)",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if t.Failed() {
		t.Log(page)
	}
	if strings.Contains(page, "echo.svg") {
		t.Error("the page shows a chart of the echo, which did not run")
	}
}

func TestHubbubStandsBehindTheLimitWithItsDefaultsFirst(t *testing.T) {
	var all []measurement
	for _, name := range []string{"gws", "hubbub-uring", "limit", "hubbub-workers2", "hubbub"} {
		all = append(all, measurement{Scenario: "fan1k-w1", Server: name, CPU: 1})
	}
	r := summarize(all, about{})
	var titles []string
	for _, name := range r.servers() {
		titles = append(titles, r.title(name))
	}
	if got, want := strings.Join(titles, "; "), "the limit; Hubbub; Hubbub, io_uring; Hubbub, 2 workers; gws"; got != want {
		t.Errorf("the order is %s, want %s", got, want)
	}
	own := 0
	for _, b := range r.cpuPanel(r.scenarios[0]).Bars {
		if b.Own {
			own++
		}
	}
	if own != 3 {
		t.Errorf("%d bars are Hubbub's, want 3", own)
	}
}

func TestMedianOfAnEvenNumberOfRoundsLiesBetweenTheTwoInTheMiddle(t *testing.T) {
	r := &result{rounds: []measurement{{CPU: 9}, {CPU: 1}, {CPU: 4}, {CPU: 2}}}
	if got, want := r.figure(cpu), (figure{3, 1, 9}); got != want {
		t.Errorf("the figure of 9, 1, 4, 2 is %v, want %v", got, want)
	}
}

func TestDifferencesUnder15PercentAreLevel(t *testing.T) {
	for ratio, want := range map[float64]string{
		1: "1.00", 1.14: "1.14 (level)", 1.16: "1.16", 0.88: "0.88 (level)", 0.86: "0.86", 12.3: "12", 0: "",
	} {
		if got := beside(ratio); got != want {
			t.Errorf("beside(%v) = %q, want %q", ratio, got, want)
		}
	}
}

func TestChartHasABarForEachServerButTheLimit(t *testing.T) {
	files, err := written(t, aboutText, measurementsText)
	if err != nil {
		t.Fatal(err)
	}
	for name, bars := range map[string]int{"benchmarks/fan-out.svg": 3, "benchmarks/memory.svg": 2} {
		var rects int
		for d := xml.NewDecoder(strings.NewReader(files[name])); ; {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
				rects++
			}
		}
		if rects != bars {
			t.Errorf("%s has %d bars, want %d", name, rects, bars)
		}
		if !strings.Contains(files[name], "prefers-color-scheme: dark") {
			t.Errorf("%s has no colours for the dark", name)
		}
	}
}

func TestBadLineIsNamed(t *testing.T) {
	for _, measurements := range []string{
		`{"scenario": "fan1k-w1", "label": "limit"}` + "\n{broken",
		`{"scenario": "fan1k-w1", "label": "limit"}` + "\n" + `{"label": "limit"}`,
	} {
		if _, err := written(t, aboutText, measurements); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("of %s the report says %v, want an error that names line 2", measurements, err)
		}
	}
}
