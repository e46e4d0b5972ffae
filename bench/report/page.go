package main

import (
	_ "embed"
	"fmt"
	"math"
	"strings"
	"text/template"
)

//go:embed page.md.tmpl
var pageText string

var page = template.Must(template.New("page").Parse(pageText))

// titles says what happens in compare.py's scenarios.
var titles = map[string]string{
	"fan100-w16":   "one room of 100, 16 publishes outstanding",
	"fan100-w1":    "one room of 100, one publish at a time",
	"fan1k-w1":     "one room of 1,000, one publish at a time",
	"fan10k-w1":    "one room of 10,000, one publish at a time",
	"fan18k-w1":    "one room of 18,000, one publish at a time",
	"fan1k-w16":    "one room of 1,000, 16 publishes outstanding",
	"fan1k-w64":    "one room of 1,000, 64 publishes outstanding",
	"fan10k-w16":   "one room of 10,000, 16 publishes outstanding",
	"fan18k-w16":   "one room of 18,000, 16 publishes outstanding",
	"rooms10x100":  "10 rooms of 100, 64 publishes outstanding",
	"rooms1000x10": "1,000 rooms of 10, 64 publishes outstanding",
	"rate1k":       "22 publishes a second to a room of 1,000",
	"echo-w1":      "1,000 connections, one message under way on each",
	"echo-w16":     "1,000 connections, 16 messages under way on each",
	"echo-16k":     "100 connections, messages of 16 KiB",
	"echo100-w1":   "100 connections, one message under way on each",
	"mem15k":       "15,000 idle connections, each in a room",
	"mem15k-echo":  "15,000 idle connections of the echo",
	"mem1k":        "1,000 idle connections in a room",
}

func (s *scenario) title() string {
	if title, ok := titles[s.name]; ok {
		return title
	}
	return s.name
}

// write returns the page and its charts by their file names.
func write(r *report) (map[string]string, error) {
	files := map[string]string{}
	charts := []struct {
		name, title string
		kind        func(*scenario) bool
		panel       func(*scenario) panel
	}{
		{"fan-out", "Fan-out: processor time for each delivery, as a multiple of the limit's", (*scenario).isFanOut, r.cpuPanel},
		{"echo", "Echo: processor time for each message, as a multiple of the limit's", (*scenario).isEcho, r.cpuPanel},
		{"memory", "Memory of the server for each idle connection, in bytes", (*scenario).isMemory, r.memoryPanel},
	}
	images := map[string]string{} // in Markdown
	for _, c := range charts {
		var panels []panel
		for _, s := range r.only(c.kind) {
			panels = append(panels, c.panel(s))
		}
		if len(panels) == 0 {
			continue
		}
		svg, err := draw(c.title, panels)
		if err != nil {
			return nil, err
		}
		files["benchmarks/"+c.name+".svg"] = svg
		images[c.name] = fmt.Sprintf("![%s](benchmarks/%s.svg)\n\n", c.title, c.name)
	}
	var b strings.Builder
	err := page.Execute(&b, map[string]any{
		"About": r.about, "Level": math.Round(level * 100), "Total": r.total, "Disturbed": r.disturbed,
		"Images": images, "Overview": r.overview(), "FanOut": r.details((*scenario).isFanOut), "Echo": r.details((*scenario).isEcho),
		"Memory": r.memory(), "Faults": r.faults(), "Versions": r.versions(),
	})
	files["benchmarks.md"] = b.String()
	return files, err
}

// overview is the multiples of the limit: a row for each scenario, a column for each server.
func (r *report) overview() string {
	servers := r.servers()
	header := []string{"scenario"}
	for _, name := range servers {
		header = append(header, r.title(name))
	}
	var rows [][]string
	for _, s := range r.scenarios {
		if s.isMemory() {
			continue
		}
		row := []string{"`" + s.name + "`: " + s.title()}
		rows = append(rows, append(row, s.multiples(servers, cpu)...))
		if s.isRate() {
			rows = append(rows, append([]string{"`" + s.name + "`: its p99 latency"}, s.multiples(servers, p99)...))
		}
	}
	return table(header, rows)
}

// multiples is a figure of each server as a multiple of the limit's, which stands there in microseconds too.
func (s *scenario) multiples(servers []string, of func(measurement) float64) (cells []string) {
	base := s.result("limit").figure(of)
	for _, name := range servers {
		result := s.result(name)
		cell := multiple(result.figure(of).ratio(base).median)
		switch {
		case len(result.rounds) == 0 && result.failed > 0:
			cell = "failed"
		case name == "limit" && base.median >= 100:
			cell += fmt.Sprintf(" (%s µs)", thousands(base.median))
		case name == "limit" && base.median > 0:
			cell += fmt.Sprintf(" (%.2f µs)", base.median)
		}
		cells = append(cells, result.mark(cell))
	}
	return cells
}

// details is a table for each scenario of a kind.
func (r *report) details(kind func(*scenario) bool) string {
	var b strings.Builder
	for _, s := range r.only(kind) {
		limit, hubbub := s.result("limit").figure(cpu), s.result("hubbub").figure(cpu)
		var rows [][]string
		for _, result := range s.results {
			if len(result.rounds) == 0 {
				rows = append(rows, []string{r.title(result.server), "failed"})
				continue
			}
			c := result.figure(cpu)
			rows = append(rows, []string{
				result.mark(r.title(result.server)),
				thousands(result.figure(perSecond).median),
				fmt.Sprintf("%.2f", c.median),
				fmt.Sprintf("%.0f %%", c.spread()*100),
				multiple(c.ratio(limit).median),
				beside(c.ratio(hubbub).median),
				thousands(result.figure(func(m measurement) float64 { return m.LatencyUsec.P50 }).median),
				thousands(result.figure(p99).median),
				thousands(result.figure(func(m measurement) float64 { return m.Bytes }).median),
			})
		}
		fmt.Fprintf(&b, "### `%s`: %s\n\n%s\n", s.name, s.title(),
			table([]string{"server", "deliveries/s", "CPU µs each", "spread", "x limit", "x Hubbub", "p50 µs", "p99 µs", "bytes each"}, rows))
	}
	return strings.TrimSpace(b.String()) + "\n"
}

// memory is a table for each scenario of memory.
func (r *report) memory() string {
	var b strings.Builder
	for _, s := range r.only((*scenario).isMemory) {
		hubbub := s.result("hubbub").figure(rss)
		var rows [][]string
		for _, result := range s.results {
			if len(result.rounds) == 0 {
				rows = append(rows, []string{r.title(result.server), "failed"})
				continue
			}
			f := result.figure(rss)
			rows = append(rows, []string{
				result.mark(r.title(result.server)),
				thousands(f.median),
				fmt.Sprintf("%.0f %%", f.spread()*100),
				beside(f.ratio(hubbub).median),
				thousands(result.figure(func(m measurement) float64 { return m.RSSAfter }).median),
				result.heap(func(m measurement) *float64 { return m.Heap }),
				result.heap(func(m measurement) *float64 { return m.HeapAfter }),
				thousands(result.figure(func(m measurement) float64 { return m.Connects }).median),
				fmt.Sprintf("%.0f", result.figure(func(m measurement) float64 { return m.ConnectCPU }).median),
			})
		}
		fmt.Fprintf(&b, "### `%s`: %s\n\n%s\n", s.name, s.title(),
			table([]string{"server", "RSS", "spread", "x Hubbub", "RSS after load", "live heap", "live heap after", "connects/s", "CPU µs a connect"}, rows))
	}
	return strings.TrimSpace(b.String()) + "\n"
}

// heap is the median of what only some servers tell.
func (r *result) heap(of func(measurement) *float64) string {
	for _, m := range r.rounds {
		if of(m) == nil {
			return ""
		}
	}
	return thousands(r.figure(func(m measurement) float64 { return *of(m) }).median)
}

// faults lists what went wrong, or says that nothing did.
func (r *report) faults() string {
	var b strings.Builder
	for _, s := range r.scenarios {
		for _, result := range s.results {
			if said := result.faults(); said != "" {
				fmt.Fprintf(&b, "- %s, `%s`: %s\n", r.title(result.server), s.name, said)
			}
		}
	}
	if b.Len() == 0 {
		return "Every server answered in every round, lost no message and closed no connection.\n"
	}
	return "These are marked † in the tables:\n\n" + b.String()
}

func (r *report) versions() string {
	var rows [][]string
	for _, s := range r.about.Servers {
		rows = append(rows, []string{r.title(s.Name), "`" + s.Package + "`", s.Version})
	}
	return table([]string{"server", "package", "version"}, rows)
}

// mark adds a sign to what a fault makes worth less.
func (r *result) mark(cell string) string {
	if r.faults() != "" {
		return cell + " †"
	}
	return cell
}

// table writes a Markdown table with all columns but the first to the right. A row may be short.
func table(header []string, rows [][]string) string {
	var b strings.Builder
	line := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	line(header)
	fmt.Fprintf(&b, "|---%s|\n", strings.Repeat("|---:", len(header)-1))
	for _, row := range rows {
		line(append(row, make([]string, len(header)-len(row))...))
	}
	return b.String()
}

// multiple writes a ratio; 0 is none.
func multiple(ratio float64) string {
	switch {
	case ratio == 0:
		return ""
	case ratio < 9.95:
		return fmt.Sprintf("%.2f", ratio)
	}
	return fmt.Sprintf("%.0f", ratio)
}

// beside writes a ratio to Hubbub, and says where it is no difference.
func beside(ratio float64) string {
	if ratio != 0 && ratio != 1 && ratio < 1+level && ratio > 1/(1+level) {
		return multiple(ratio) + " (level)"
	}
	return multiple(ratio)
}

// thousands writes a whole number with commas.
func thousands(v float64) string {
	text := fmt.Sprintf("%.0f", math.Abs(v))
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	if v <= -0.5 {
		text = "-" + text
	}
	return text
}
