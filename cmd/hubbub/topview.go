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
	maxTopWorkers = 8  // how many workers have a line each
	fewTopClients = 3  // as many are shown beside the rooms, or none
	userColumns   = 12 // for the name of a client's user
	maxRoomsNamed = 20 // of one client
)

// lines are what the view shows, at most height of them, each at most width columns wide.
func (v *view) lines() []string {
	var all []string
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	f := &v.now.figures
	state := "ready"
	if f.NotReady != "" {
		state = "NOT READY: " + printable(f.NotReady)
	}
	if v.paused {
		state += "  PAUSED"
	}
	up := max(0, time.Duration(f.Time-f.Started)*time.Millisecond).Round(time.Second)
	add("hubbub top  node %s  %s  up %s  %s", printable(f.Node), printable(f.Version), up, state)
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
		add("NO ANSWER, what follows is old: %s", printable(v.err.Error()))
	}
	add("connections %d of %d  clients %d  parked %d  rooms %d", f.Connections, f.MaxConnections, f.Clients, f.Parked, f.Rooms)
	add("memory %s  buffered %s of %s  history %s  cpu %s", bytesText(f.Memory.Process), bytesText(f.Memory.Buffered), bytesText(f.Memory.MaxBuffered), bytesText(f.Memory.History), v.cpu())
	add("in %s msg/s %s/s  out %s msg/s %s/s", v.rate(func(f *figures) int64 { return f.Received }), v.byteRate(func(f *figures) int64 { return f.ReceivedBytes }),
		v.rate(func(f *figures) int64 { return f.Sent }), v.byteRate(func(f *figures) int64 { return f.SentBytes }))
	add("dropped %s/s, %d in all  errors %s/s  closed %s/s, %d as too slow  panics %d", v.rate(dropped), dropped(f), v.rate(func(f *figures) int64 { return sum(f.Errors) }),
		v.rate(func(f *figures) int64 { return sum(f.Closed) }), f.Closed["4000"], f.Panics)
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

// clientLines are the table of clients: those for whom most waits, at most so many.
func (v *view) clientLines(most int) []string {
	all := []string{"    UNSENT   AGE  ROOMS  USER          CLIENT                                IN"}
	for i, c := range v.now.clients {
		if i == most {
			break
		}
		age := time.Duration(v.now.figures.Time-c.Since) * time.Millisecond
		user := shownName(c.User, userColumns)
		user += strings.Repeat(" ", max(0, userColumns-columnsIn(user)))
		var rooms []string
		for _, r := range c.Rooms[:min(len(c.Rooms), maxRoomsNamed)] {
			rooms = append(rooms, shownName(r, max(8, v.width)))
		}
		all = append(all, fmt.Sprintf("%10s  %4s  %5d  %s  %-36s  %s", bytesText(c.Unsent), ageText(age), len(c.Rooms), user, printable(c.Client), strings.Join(rooms, ", ")))
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
