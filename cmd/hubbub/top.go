package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/term"
)

// topCmd shows what a server has to do, anew and anew.
type topCmd struct {
	apiFlags `embed:""`
	Interval time.Duration `env:"-" default:"2s" placeholder:"TIME" help:"How often it asks, at least 500ms (${default})."`
	Sort     string        `env:"-" default:"members" enum:"members,rate" placeholder:"BY" help:"Rooms by members, or by rate of messages (${default})."`
	Clients  bool          `env:"-" help:"Clients in the place of the rooms, as the key c has it."`
	Once     bool          `env:"-" help:"Print one table, and end; as it does where it writes to no terminal."`
}

// Help is shown by hubbub top --help.
func (topCmd) Help() string {
	return "Rooms with most members or messages, the clients for whom most waits, workers and their queues, memory, and what is lost, of the node that is asked: hubbub top --url http://localhost:9000, with HUBBUB_API_KEY. Keys: s sorts rooms by members or by messages, c has clients alone in their place, p pauses, ? helps, q ends. With --json what the API answers, once. A worker's BUSY is its share of the time in which it did something."
}

// figures are GET /figures, as far as they are shown.
type figures struct {
	Time, Started           int64
	Node, Version           string
	NotReady                string `json:"not_ready"`
	Connections             int
	MaxConnections          int `json:"max_connections"`
	Clients, Parked, Rooms  int
	Received, Sent          int64
	ReceivedBytes           int64 `json:"received_bytes"`
	SentBytes               int64 `json:"sent_bytes"`
	Panics                  int64
	Dropped, Closed, Errors map[string]int64
	Memory                  struct {
		Process, Buffered, History int64
		MaxBuffered                int64 `json:"max_buffered"`
	}
	Workers []struct {
		Connections, Waiting int
		BusyMicros           int64 `json:"busy_micros"`
	}
}

// topRoom is a room of GET /rooms.
type topRoom struct {
	Room    string
	Members int
	Rate    float64
}

// topClient is a client of GET /clients, in the order of what waits for them.
type topClient struct {
	Client, User string
	Since        int64 // Unix milliseconds
	Unsent       int64 `json:"unsent_bytes"`
	Rooms        []string
}

// look is what a server said at one moment.
type look struct {
	figures   figures
	rooms     []topRoom
	clients   []topClient
	noClients error   // why there are none to be shown
	cpu       float64 // seconds of the process; below 0 where /metrics isn't there
	raw       []byte
}

// view is what is shown, and how.
type view struct {
	last, now     *look // last is nil before the second
	sort          string
	paused, help  bool
	clients       bool  // they have the place of the rooms, too
	err           error // why there is no newer
	url           string
	width, height int
}

// Both are more than a terminal shows.
const (
	maxTopRooms   = 200
	maxTopClients = 100
)

// ask looks at the server.
func (c *topCmd) ask(ctx context.Context, sort string) (*look, error) {
	l := &look{cpu: -1}
	var err error
	if l.raw, err = c.call(ctx, http.MethodGet, "/figures", nil, nil, &l.figures); err != nil {
		return nil, err
	}
	var page struct{ Rooms []topRoom }
	query := url.Values{"order": {sort}, "limit": {strconv.Itoa(maxTopRooms)}}
	if _, err := c.call(ctx, http.MethodGet, "/rooms", query, nil, &page); err != nil {
		return nil, err
	}
	l.rooms = page.Rooms
	var slow struct{ Clients []topClient }
	query = url.Values{"order": {"unsent"}, "limit": {strconv.Itoa(maxTopClients)}}
	if _, err := c.call(ctx, http.MethodGet, "/clients", query, nil, &slow); err != nil {
		l.noClients = err // a worker that hangs; the rest is worth the more
	}
	l.clients = slow.Clients
	if seconds, err := c.processSeconds(ctx); err == nil {
		l.cpu = seconds
	}
	return l, nil
}

// processSeconds is the processor time that the server has taken, by its metrics.
func (c *topCmd) processSeconds(ctx context.Context) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(c.URL, "/")+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	answer, err := apiClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(io.LimitReader(answer.Body, maxReply))
	for lines.Scan() {
		if value, found := strings.CutPrefix(lines.Text(), "process_cpu_seconds_total "); found {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, errors.New("not there")
}

// Run shows it until a key or a signal ends it.
func (c *topCmd) Run() error {
	if c.Interval < 500*time.Millisecond {
		return usageError{fmt.Errorf("--interval %s: less than 500ms", c.Interval)}
	}
	ctx, cancel := untilSignal()
	defer cancel()
	v := &view{sort: c.Sort, clients: c.Clients, url: c.URL}
	var err error
	if v.now, err = c.ask(ctx, v.sort); err != nil {
		return err
	}
	in, out := int(os.Stdin.Fd()), int(os.Stdout.Fd())
	switch {
	case c.JSON:
		fmt.Println(printableJSON(v.now.raw))
		return nil
	case c.Once || !term.IsTerminal(in) || !term.IsTerminal(out):
		return c.once(ctx, v)
	}
	return c.live(ctx, v, in, out)
}

// once prints one table, with the rates of one interval.
func (c *topCmd) once(ctx context.Context, v *view) error {
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(c.Interval):
	}
	next, err := c.ask(ctx, v.sort)
	if err != nil {
		return err
	}
	v.last, v.now = v.now, next
	v.width, v.height = 160, 60
	if w, h, err := term.GetSize(int(os.Stdout.Fd())); err == nil {
		v.width, v.height = w, h-1
	}
	fmt.Println(strings.Join(v.lines(), "\n"))
	return nil
}

// What moves a terminal: another screen without a cursor, and back; and to its top.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l"
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	toTop       = "\x1b[H"
	clearLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// live shows it on a terminal.
func (c *topCmd) live(ctx context.Context, v *view, in, out int) error {
	was, err := term.MakeRaw(in)
	if err != nil {
		return err
	}
	defer term.Restore(in, was)
	os.Stdout.WriteString(enterScreen)
	defer os.Stdout.WriteString(leaveScreen)

	keys := make(chan byte)
	go readKeys(ctx, keys)
	type answer struct {
		look *look
		err  error
	}
	answers := make(chan answer, 1)
	asking := false
	due := time.NewTicker(c.Interval)
	defer due.Stop()
	size := time.NewTicker(200 * time.Millisecond) // a signal for it is not everywhere
	defer size.Stop()
	ask := func() {
		if asking || v.paused {
			return
		}
		asking = true
		sort := v.sort
		go func() {
			l, err := c.ask(ctx, sort)
			answers <- answer{l, err}
		}()
	}
	for v.draw(out); ; v.draw(out) {
		select {
		case <-ctx.Done():
			return nil
		case key := <-keys:
			if key == 'q' || key == 3 || key == 4 { // Control-C and -D, which a raw terminal hands on
				return nil
			}
			if v.key(key) {
				ask()
			}
		case <-due.C:
			ask()
		case a := <-answers:
			if asking = false; a.err != nil {
				v.err = a.err
			} else if v.err = nil; !v.paused {
				v.last, v.now = v.now, a.look
			}
		case <-size.C:
		}
	}
}

// readKeys hands on what is typed. It ends with the process: nothing interrupts a read of a terminal.
func readKeys(ctx context.Context, to chan<- byte) {
	b := make([]byte, 1)
	for {
		if n, err := os.Stdin.Read(b); err != nil || n == 0 {
			return
		}
		select {
		case to <- b[0]:
		case <-ctx.Done():
			return
		}
	}
}

// key does what a key is for, and says whether the server is to be asked at once.
func (v *view) key(key byte) bool {
	switch key {
	case 's':
		v.sort = map[string]string{"members": "rate", "rate": "members"}[v.sort]
		return true
	case 'p', ' ':
		v.paused = !v.paused
		return !v.paused
	case 'c':
		v.clients = !v.clients
	case '?', 'h':
		v.help = !v.help
	}
	return false
}

// draw writes what has to be seen, over what was.
func (v *view) draw(out int) {
	if w, h, err := term.GetSize(out); err == nil {
		v.width, v.height = w, h
	}
	os.Stdout.WriteString(toTop + strings.Join(v.lines(), clearLine+"\r\n") + clearLine + clearBelow)
}
