package bench

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Print writes the result for people.
func (r *Result) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	line(string(r.Mode), "%s", r.URL)
	line("", "%s", r.setting())
	if r.Ended != "finished" {
		line("ended", "%s", r.Ended)
	}
	if h := r.Handshakes; h != nil {
		what := "opened"
		if r.Mode == Connect {
			what = "opened and closed"
		}
		line("connections", "%s %s, %s a second", group(h.Opened), what, group(int64(h.PerSecond)))
		if h.Opened > 0 {
			line("  handshake", "%s", h.Latency.text())
		}
	}
	if r.Mode == Echo || r.Mode == Fanout {
		if r.Mode == Fanout {
			line("published", "%s, %s a second", group(r.Published), group(int64(r.PublishesPerSecond)))
		}
		line("delivered", "%s, %s a second, %s a second", group(r.Delivered), group(int64(r.DeliveriesPerSecond)), size(float64(r.ReceivedBytes)/max(r.Duration, 1e-9)))
		if r.Latency != nil && r.Latency.Count > 0 {
			line("latency", "%s", r.Latency.text())
		}
		line("checks", "%s", r.Faults.text())
	}
	if f := &r.Faults; len(f.Broken)+len(f.Failed) > 0 {
		for _, s := range []string{reasons("broke", f.Broken), reasons("did not open", f.Failed)} {
			if s != "" {
				line("faults", "%s", s)
			}
		}
	}
	r.printServer(line)
	r.printGenerator(line)
	return t.Flush()
}

// setting is what was asked for.
func (r *Result) setting() string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	switch r.Mode {
	case Connect:
		add("%s at once", plural(int64(r.Concurrency), "connection"))
	case Fanout:
		add("%s of %s, %s", plural(int64(r.Rooms), "room"), plural(int64(r.Members), "member"), plural(int64(r.Publishers), "publisher"))
	default:
		add("%s", plural(int64(r.Connections), "connection"))
		if r.Rooms > 0 {
			add("in %s", plural(int64(r.Rooms), "room"))
		}
	}
	if r.Mode == Echo || r.Mode == Fanout {
		switch {
		case r.Rate > 0:
			add("%s a second", plural(int64(r.Rate), "message"))
		case r.Mode == Echo:
			add("%d under way on each", r.Window)
		default:
			add("%d under way", r.Window)
		}
		add("payload %s bytes", group(int64(r.Size)))
	}
	if r.Compression {
		add("compressed")
	}
	add("%.1f s", r.Duration)
	return strings.Join(parts, ", ")
}

func (r *Result) printServer(line func(name, format string, args ...any)) {
	s := r.Server
	if s == nil {
		line("server", "CPU and memory not known: %s", r.ServerUnknown)
		return
	}
	what := map[Mode]string{Connect: "handshake", Idle: "", Echo: "message", Fanout: "delivery"}[r.Mode]
	pids := strings.Trim(fmt.Sprint(s.PIDs), "[]")
	text := fmt.Sprintf("process %s: CPU %.2f s", pids, s.CPUSeconds)
	if r.Duration > 0 {
		text += fmt.Sprintf(" (%.2f processors)", s.CPUSeconds/r.Duration)
	}
	if what != "" && s.CPUEach > 0 {
		text += fmt.Sprintf(", %.2f us a %s", s.CPUEach, what)
	}
	line("server", "%s", text)
	if r.Mode == Connect {
		line("  memory", "%s at the end", size(float64(s.MemoryEnd)))
		return
	}
	if s.MemoryEnd == 0 { // a process that has ended has none
		line("  memory", "%s before, %s connected; it is gone", size(float64(s.MemoryBefore)), size(float64(s.MemoryConnected)))
		return
	}
	line("  memory", "%s before, %s connected, %s at the end", size(float64(s.MemoryBefore)), size(float64(s.MemoryConnected)), size(float64(s.MemoryEnd)))
	if r.Mode == Idle {
		line("  a connection", "%s bytes when connected, %s at the end", group(int64(s.EachConnected)), group(int64(s.EachEnd)))
	}
	if s.HeapEnd > 0 {
		line("  its Go heap", "%s before, %s at the end, garbage included", size(float64(s.HeapBefore)), size(float64(s.HeapEnd)))
	}
}

func (r *Result) printGenerator(line func(name, format string, args ...any)) {
	g := r.Generator
	if r.Mode == Idle {
		return
	}
	text := "CPU not known"
	if g.Known {
		text = fmt.Sprintf("CPU %.2f s, %.0f %% of the %d processors it may use", g.CPUSeconds, 100*g.Busy, g.Processors)
	}
	line("generator", "%s", text)
	switch {
	case g.Limited:
		line("", "THE GENERATOR WAS THE LIMIT, not the server: %s", g.Why)
	case g.Shared:
		line("", "NEITHER RAN FREELY: %s", g.Why)
	}
}

// text is a distribution on one line.
func (l Latency) text() string {
	ms := func(v float64) string { return strconv.FormatFloat(v, 'f', digits(v), 64) }
	return fmt.Sprintf("p50 %s, p90 %s, p99 %s, p99.9 %s, max %s ms", ms(l.P50), ms(l.P90), ms(l.P99), ms(l.P999), ms(l.Max))
}

// digits shows about three that mean something.
func digits(v float64) int {
	switch {
	case v < 1:
		return 3
	case v < 100:
		return 2
	}
	return 0
}

// text says what the checks found.
func (f *Faults) text() string {
	s := fmt.Sprintf("%s lost, %s doubled, %s out of order", group(f.Lost), group(f.Doubled), group(f.OutOfOrder+f.Crossed))
	for _, more := range []struct {
		n    int64
		what string
	}{{f.Damaged, "damaged"}, {f.Stray, "delivered to the wrong connection"}, {f.Errors, "error messages"}} {
		if more.n > 0 {
			s += ", " + group(more.n) + " " + more.what
		}
	}
	return s
}

// group writes a number with a comma at each thousand.
func group(n int64) string {
	s := strconv.FormatInt(n, 10)
	first := 1
	if n < 0 {
		first = 2
	}
	for i := len(s) - 3; i >= first; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// size writes a number of bytes.
func size(bytes float64) string {
	switch {
	case bytes >= 1<<30:
		return fmt.Sprintf("%.1f GiB", bytes/(1<<30))
	case bytes >= 1<<20:
		return fmt.Sprintf("%.1f MiB", bytes/(1<<20))
	case bytes >= 1<<10:
		return fmt.Sprintf("%.1f KiB", bytes/(1<<10))
	}
	return fmt.Sprintf("%.0f bytes", bytes)
}

// String is the status on one line.
func (s Status) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", s.Phase, group(s.Done))
	if s.Of > 0 {
		fmt.Fprintf(&b, " of %s", group(s.Of))
	}
	if s.Phase != "holding" && s.Phase != "settling" {
		fmt.Fprintf(&b, ", %s/s", group(int64(s.Rate)))
	}
	if s.P50 > 0 {
		fmt.Fprintf(&b, ", p50 %s p99 %s", short(s.P50), short(s.P99))
	}
	fmt.Fprintf(&b, ", errors %s", group(s.Errors))
	if s.Left > 0 {
		fmt.Fprintf(&b, ", %s left", s.Left.Round(time.Second))
	}
	return b.String()
}

// short rounds a latency to three digits or so.
func short(d time.Duration) time.Duration {
	switch {
	case d < time.Millisecond:
		return d.Round(time.Microsecond)
	case d < time.Second:
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(time.Millisecond)
}
