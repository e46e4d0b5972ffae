package main

import (
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"

	"golang.org/x/text/width"
)

const (
	maxTopWorkers = 8   // how many workers have a line each
	fewTopClients = 3   // as many are shown beside the rooms, or none
	userColumns   = 12  // for the name of a client's user
	moreColumns   = 120 // from so many on, half of those beyond are the user's, too
	maxUser       = 40  // the most that it gets
	roomColumns   = 16  // the least for a client's rooms; with less they have none
	maxRoomsNamed = 20  // of one client
)

// lines are what the view shows, at most height of them, each at most width columns wide.
func (v *view) lines() []string {
	var all []string
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	flow := func(parts ...string) { all = append(all, flowed(v.width, "  ", parts)...) }
	f := &v.now.figures
	state := "ready"
	if f.NotReady != "" {
		state = "NOT READY: " + printable(f.NotReady)
	}
	if v.paused {
		state += "  PAUSED"
	}
	up := max(0, time.Duration(f.Time-f.Started)*time.Millisecond).Round(time.Second)
	flow("hubbub top", "node "+printable(f.Node), printable(f.Version), "up "+up.String(), state)
	if v.help {
		all = append(all, "", "  s  rooms by members, or by messages a second", "  c  clients in the place of the rooms, and back", "  p  pause, and go on", "  ?  this help, and back", "  q  end", "",
			"  BUSY is the share of the time in which a worker did something;",
			"  QUEUE the tasks that wait for it.",
			"  MESSAGES/S of a room is what is published to it, of the last 10 s;",
			"  members count on all nodes.",
			"  UNSENT of a client are the bytes that wait for it, here in the server: who is",
			"  slow is first. AGE is its session's; hubbub kick sends one away.",
			"  dropped are messages that did not reach a client because it was too slow.")
		return v.fit(all)
	}
	if v.err != nil {
		all = append(all, flowed(v.width, " ", strings.Fields("NO ANSWER, what follows is old: "+printable(v.err.Error())))...)
	}
	say := fmt.Sprintf
	flow(say("connections %d of %d", f.Connections, f.MaxConnections), say("clients %d", f.Clients), say("parked %d", f.Parked), say("rooms %d", f.Rooms))
	flow("memory "+bytesText(f.Memory.Process), say("buffered %s of %s", bytesText(f.Memory.Buffered), bytesText(f.Memory.MaxBuffered)), "history "+bytesText(f.Memory.History), "cpu "+v.cpu())
	flow(say("in %s msg/s %s/s", v.rate(func(f *figures) int64 { return f.Received }), v.byteRate(func(f *figures) int64 { return f.ReceivedBytes })),
		say("out %s msg/s %s/s", v.rate(func(f *figures) int64 { return f.Sent }), v.byteRate(func(f *figures) int64 { return f.SentBytes })))
	flow(say("dropped %s/s, %d in all", v.rate(dropped), dropped(f)), say("errors %s/s", v.rate(func(f *figures) int64 { return sum(f.Errors) })),
		say("closed %s/s, %d as too slow", v.rate(func(f *figures) int64 { return sum(f.Closed) }), f.Closed["4000"]), say("panics %d", f.Panics))
	add("")
	add("WORKER  CONNECTIONS   BUSY  QUEUE")
	for i, w := range f.Workers {
		if i == maxTopWorkers && len(f.Workers) > maxTopWorkers+1 {
			add("... and %d more", len(f.Workers)-i)
			break
		}
		add("%6d  %11d  %5s  %5d", i, w.Connections, v.busy(i), w.Waiting)
	}
	add("")
	if v.clients {
		return v.fit(append(all, v.clientLines(maxTopClients)...))
	}
	if n := (v.height-len(all))/2 - 2; n >= fewTopClients {
		all = append(append(all, v.clientLines(n)...), "")
	}
	by := map[string]string{"members": "by members", "rate": "by messages"}[v.sort]
	add(" MEMBERS  MESSAGES/S  ROOM (%s)", by)
	for _, r := range v.now.rooms {
		add("%8d  %10s  %s", r.Members, decimal(r.Rate), shownName(r.Room, max(8, v.width-22)))
	}
	if len(v.now.rooms) == 0 {
		add("there are no rooms")
	}
	return v.fit(all)
}

// flowed is what stands on one line where it fits, and else on several, broken between the parts alone; the further ones are
// indented.
func flowed(width int, between string, parts []string) (all []string) {
	line := ""
	for _, p := range parts {
		switch {
		case line == "":
			line = p
		case columnsIn(line+between+p) > width:
			all, line = append(all, line), "  "+p
		default:
			line += between + p
		}
	}
	return append(all, line)
}

// A column of the table of clients.
type column struct {
	name  string
	width int // in columns of the terminal
	left  bool
	cell  func(c *topClient) string
}

// clientColumns are those that the terminal has the columns for. A client's id is never left out, since hubbub kick wants it;
// how many rooms it has, and its age, go first.
func (v *view) clientColumns() (all []column) {
	user := min(userColumns+max(0, v.width-moreColumns)/2, maxUser)
	unsent := column{"UNSENT", 10, false, func(c *topClient) string { return bytesText(c.Unsent) }}
	age := column{"AGE", 4, false, func(c *topClient) string {
		return ageText(time.Duration(v.now.figures.Time-c.Since) * time.Millisecond)
	}}
	count := column{"ROOMS", 5, false, func(c *topClient) string { return fmt.Sprint(len(c.Rooms)) }}
	name := column{"USER", user, true, func(c *topClient) string { return shownName(c.User, user) }}
	id := column{"CLIENT", 36, true, func(c *topClient) string { return printable(c.Client) }}
	in := column{"IN", roomColumns, true, func(c *topClient) string {
		var rooms []string
		for _, r := range c.Rooms[:min(len(c.Rooms), maxRoomsNamed)] {
			rooms = append(rooms, shownName(r, max(8, v.width)))
		}
		return strings.Join(rooms, ", ")
	}}
	for _, all = range [][]column{{unsent, age, count, name, id, in}, {unsent, age, name, id, in}, {unsent, name, id, in}, {unsent, name, id}, {unsent, id}} {
		needs := -2
		for _, c := range all {
			needs += c.width + 2
		}
		if needs <= v.width {
			break
		}
	}
	return all
}

// clientLines are the table of clients: those for whom most waits, at most so many.
func (v *view) clientLines(most int) []string {
	columns := v.clientColumns()
	row := func(cell func(column) string) string {
		var line strings.Builder
		for _, c := range columns {
			text := cell(c)
			pad := strings.Repeat(" ", max(0, c.width-columnsIn(text)))
			if c.left {
				line.WriteString(text + pad + "  ")
			} else {
				line.WriteString(pad + text + "  ")
			}
		}
		return strings.TrimRight(line.String(), " ")
	}
	all := []string{row(func(c column) string { return c.name })}
	for i := range v.now.clients[:min(len(v.now.clients), most)] {
		all = append(all, row(func(c column) string { return c.cell(&v.now.clients[i]) }))
	}
	switch {
	case v.now.noClients != nil:
		all = append(all, "they can't be had: "+printable(v.now.noClients.Error()))
	case len(v.now.clients) == 0:
		all = append(all, "there are no clients")
	}
	return all
}

// ageText is a time in its largest unit.
func ageText(age time.Duration) string {
	switch {
	case age >= 48*time.Hour:
		return fmt.Sprintf("%dd", age/(24*time.Hour))
	case age >= time.Hour:
		return fmt.Sprintf("%dh", age/time.Hour)
	case age >= time.Minute:
		return fmt.Sprintf("%dm", age/time.Minute)
	}
	return fmt.Sprintf("%ds", max(0, age)/time.Second)
}

// fit cuts lines to the terminal. The names in them are shown safely before.
func (v *view) fit(all []string) []string {
	if len(all) > v.height && v.height > 0 {
		all = all[:v.height]
	}
	for i := range all {
		all[i] = cutTo(all[i], v.width)
	}
	return all
}

func dropped(f *figures) int64 { return sum(f.Dropped) }

func sum(counts map[string]int64) (n int64) {
	for _, c := range counts {
		n += c
	}
	return n
}

// between is the time between the two looks, in seconds; 0 where there is one alone, or another process since.
func (v *view) between() float64 {
	if v.last == nil || v.last.figures.Started != v.now.figures.Started {
		return 0
	}
	return float64(v.now.figures.Time-v.last.figures.Time) / 1000
}

func (v *view) perSecond(of func(f *figures) int64) (float64, bool) {
	seconds := v.between()
	if seconds <= 0 {
		return 0, false
	}
	return max(0, float64(of(&v.now.figures)-of(&v.last.figures))/seconds), true
}

func (v *view) rate(of func(f *figures) int64) string {
	if n, known := v.perSecond(of); known {
		return decimal(n)
	}
	return "-"
}

func (v *view) byteRate(of func(f *figures) int64) string {
	if n, known := v.perSecond(of); known {
		return bytesText(int64(n))
	}
	return "-"
}

func (v *view) busy(worker int) string {
	share, known := v.perSecond(func(f *figures) int64 {
		if worker >= len(f.Workers) {
			return 0
		}
		return f.Workers[worker].BusyMicros
	})
	if !known {
		return "-"
	}
	return fmt.Sprintf("%.0f %%", math.Min(100, share/1e4))
}

func (v *view) cpu() string {
	seconds := v.between()
	if seconds <= 0 || v.now.cpu < 0 || v.last.cpu < 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f %%", 100*max(0, v.now.cpu-v.last.cpu)/seconds)
}

// decimal has as many digits as tell something.
func decimal(n float64) string {
	if n < 100 {
		return strings.TrimSuffix(fmt.Sprintf("%.1f", n), ".0")
	}
	return fmt.Sprintf("%.0f", n)
}

func bytesText(n int64) string {
	for _, u := range []struct {
		bytes int64
		name  string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= u.bytes {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.bytes), u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}

// marksShown is how many marks may stand on one letter; more would reach into the lines above and below.
const marksShown = 2

// shownName is a name that somebody else has chosen, in so many columns at most: nothing in it moves the cursor, turns
// the writing around or makes it longer than it seems.
func shownName(name string, columns int) string {
	var b strings.Builder
	marks := marksShown // none at the beginning
	for _, r := range name {
		switch mark := unicode.Is(unicode.M, r); {
		case mark && marks < marksShown:
			marks++
			b.WriteRune(r)
		case mark || hidden(r):
			fmt.Fprintf(&b, "\\u%04x", r)
			marks = marksShown
		default:
			marks = 0
			b.WriteRune(r)
		}
	}
	return cutTo(b.String(), columns)
}

// cutTo is a text in so many columns at most, with a sign where something is missing.
func cutTo(text string, columns int) string {
	used, end := 0, 0 // end is where the sign would stand
	for i, r := range text {
		n := columnsOf(r)
		if used+n > columns {
			return text[:end] + "…"
		}
		if used += n; used < columns {
			end = i + len(string(r))
		}
	}
	return text
}

// columnsIn is how many columns a text takes.
func columnsIn(text string) (n int) {
	for _, r := range text {
		n += columnsOf(r)
	}
	return n
}

// columnsOf is how many columns of a terminal a character takes.
func columnsOf(r rune) int {
	if unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Me, r) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}
