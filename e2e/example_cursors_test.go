package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	hubbubclient "example.com/hubbub/client"
)

type spot struct {
	X float64 `json:"x"`
	Y float64 `json:"y"`
}

// pointing is a Go client among those who point at the board.
func pointing(t *testing.T, ctx context.Context, s *server, name string, color int) (*hubbubclient.Hub, *hubbubclient.Room) {
	t.Helper()
	hub, err := hubbubclient.Dial(ctx, s.ws("/ws"), hubbubclient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hub.Close() })
	room := hub.Room("cursors")
	if err := room.JoinWith(ctx, hubbubclient.JoinOptions{Data: map[string]any{"name": name, "color": color}}); err != nil {
		t.Fatal(err)
	}
	return hub, room
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func openBoard(b *browser, s *server, name string) *page {
	b.t.Helper()
	p := b.open(s.http("/"), lineIsCut...)
	p.shows("#state", "online")
	p.do(chromedp.Focus(chromedp.CSS("#name")))
	eval[bool](p, `(document.querySelector("#name").select(), true)`)
	p.do(chromedp.KeyEvent(name + kb.Tab))
	p.shows("#people", name+" (you)")
	return p
}

// pointedAt says that the cursor with this name is drawn at this spot of the board.
func pointedAt(name string, at spot) string {
	return fmt.Sprintf(`(() => {
		const c = [...document.querySelectorAll(".cursor")].find((e) => e.textContent.trim() === %q)?.getBoundingClientRect();
		const b = document.querySelector("#board");
		return !!c && Math.abs(c.left - b.getBoundingClientRect().left - b.clientLeft - %v * b.clientWidth) < 1 && Math.abs(c.top - b.getBoundingClientRect().top - b.clientTop - %v * b.clientHeight) < 1;
	})()`, name, at.X, at.Y)
}

func TestExampleCursorsShowsFiftyAtOnce(t *testing.T) {
	t.Parallel()
	s := startExample(t, "cursors")
	b := startBrowser(t)
	ann := openBoard(b, s, "Ann")
	ctx := within(t)
	const n, steps = 50, 60
	hubs, ends := make([]*hubbubclient.Hub, n), make([]spot, n)
	var all sync.WaitGroup
	for i := range n {
		hub, room := pointing(t, ctx, s, fmt.Sprintf("Guest %d.", i), i%8)
		hubs[i], ends[i] = hub, spot{float64(i%10)/10 + 0.05, float64(i/10)/5 + 0.1}
		all.Go(func() {
			tick := time.NewTicker(time.Second / 20)
			defer tick.Stop()
			for step := range steps {
				part := float64(step+1) / steps
				at := spot{0.5 + (ends[i].X-0.5)*part, 0.5 + (ends[i].Y-0.5)*part}
				if _, err := room.Publish(ctx, at, hubbubclient.PublishOptions{Key: hub.ClientID()}); err != nil {
					t.Error(err)
					return
				}
				<-tick.C
			}
		})
	}
	ann.until(`document.querySelectorAll(".cursor").length === 50`)
	all.Wait()
	for i := range n {
		ann.until(pointedAt(fmt.Sprintf("Guest %d.", i), ends[i]))
	}
	ann.until(`document.querySelectorAll("#people li").length === 51`)
	if n := eval[int](ann, `document.querySelectorAll("#cursors [class*=' c']").length`); n != 50 {
		t.Errorf("%d of 50 cursors have a colour", n)
	}

	// A strange client's words stay words, and what is no place on the board is no cursor.
	hub, room := pointing(t, ctx, s, "<b>Eve</b>", 99)
	for _, at := range []any{map[string]any{"x": "0px); } *", "y": 0}, 7, spot{-1, 5}, nil, []int{1}, spot{0.25, 0.25}} {
		if _, err := room.Publish(ctx, at, hubbubclient.PublishOptions{Key: hub.ClientID()}); err != nil {
			t.Fatal(err)
		}
	}
	ann.until(pointedAt("<b>Eve</b>", spot{0.25, 0.25}))

	// Cursors of those who left vanish.
	for _, hub := range append(hubs[1:], hub) {
		hub.Close()
	}
	ann.until(`document.querySelectorAll(".cursor").length === 1`)
	ann.shows(".cursor", "Guest 0.")
	ann.until(`document.querySelectorAll("#people li").length === 2`)
}

func TestExampleCursorsSendsTheNewestOncePerTick(t *testing.T) {
	t.Parallel()
	s := startExample(t, "cursors")
	ann := openBoard(startBrowser(t), s, "Ann")
	ctx := within(t)
	_, room := pointing(t, ctx, s, "Bob", 1)
	ann.shows("#people", "Bob")

	// A thousand moves within one turn of the page are two messages: the first of them and the last.
	eval[bool](ann, `(() => {
		const board = document.querySelector("#board"), r = board.getBoundingClientRect();
		for (let i = 1; i <= 1000; i++) {
			board.dispatchEvent(new PointerEvent("pointermove", { clientX: r.left + r.width * i / 1000, clientY: r.top + r.height / 2 }));
		}
		return true;
	})()`)
	var heard []spot
	for m := range room.Messages(ctx) {
		var at spot
		if err := m.Decode(&at); err != nil {
			t.Fatal(err)
		}
		if m.Key != m.From {
			t.Errorf("the key is %q, from %q", m.Key, m.From)
		}
		if heard = append(heard, at); at.X == 1 {
			break
		}
	}
	if len(heard) != 2 || heard[0].X != 0.001 {
		t.Errorf("heard %v", heard)
	}

	// Who comes later is told where she points, and is told when that is nowhere.
	late, lateRoom := pointing(t, ctx, s, "Cleo", 2)
	defer late.Close()
	for m := range lateRoom.Messages(ctx) {
		if string(m.Content) == `{"x":1,"y":0.5}` {
			eval[bool](ann, `document.querySelector("#board").dispatchEvent(new PointerEvent("pointerleave"))`)
		}
		if string(m.Content) == "null" {
			break
		}
	}
	if ctx.Err() != nil {
		t.Error("Cleo hears nothing")
	}
}

// Who can't keep up gets the newest place of each client, and the word that others were left out.
func TestExampleCursorsGivesASlowViewerTheNewest(t *testing.T) {
	t.Parallel()
	s := startExample(t, "cursors")
	ctx := within(t)
	slow := dialRaw(t, s, "/ws", "")
	if err := slow.Conn.(*net.TCPConn).SetReadBuffer(16 << 10); err != nil {
		t.Fatal(err)
	}
	slow.welcomed()
	slow.write(text(`{"msg_type":"join_room","room":"cursors","id":1}`))
	slow.message("joined")
	hub, room := pointing(t, ctx, s, "Ann", 0)
	last, conflated := -1, 0
	look := func() {
		var m struct {
			Type    string `json:"msg_type"`
			Reason  string
			Content struct{ N int }
		}
		if err := json.Unmarshal([]byte(slow.expect(fin|opText)), &m); err != nil {
			t.Fatal(err)
		}
		switch {
		case m.Type == "gap" && m.Reason == "latest-by-key":
			conflated++
		case m.Type == "gap", m.Type == "room_message" && m.Content.N <= last:
			t.Fatalf("after %d: %+v", last, m)
		case m.Type == "room_message":
			last = m.Content.N
		}
	}
	const n = 600 // of 30 KB: more than sockets and the queue hold
	pad := strings.Repeat("x", 30_000)
	for i := range n {
		at := map[string]any{"x": 0.5, "y": 0.5, "n": i, "pad": pad}
		if _, err := room.Publish(ctx, at, hubbubclient.PublishOptions{Key: hub.ClientID()}); err != nil {
			t.Fatal(err)
		}
		if i%5 == 4 {
			look() // who takes nothing for seconds is closed
		}
	}
	for last < n-1 {
		look()
	}
	if conflated == 0 {
		t.Error("nothing was left out")
	}
}

// shapesOf are what a page shows, by id: kind and place.
const shapesOf = `Object.fromEntries([...document.querySelectorAll(".shape")].map((e) => [e.dataset.id, e.classList[1] + " " + parseFloat(e.style.left).toFixed(2) + " " + parseFloat(e.style.top).toFixed(2)]))`

// press presses keys on the shape with this id.
func (p *page) press(id, keys string) {
	p.t.Helper()
	p.do(chromedp.Focus(chromedp.CSS(fmt.Sprintf(`[data-id=%q]`, id))), chromedp.KeyEvent(keys))
}

// add clicks one of the tools, and is the new shape's id.
func (p *page) add(kind string) string {
	p.t.Helper()
	p.do(chromedp.Focus(chromedp.CSS(`#tools [data-kind=`+kind+`]`)), chromedp.KeyEvent(kb.Enter))
	return eval[string](p, `document.activeElement.dataset.id`)
}

// boardOf is what the server says.
func boardOf(t *testing.T, hub *hubbubclient.Hub) map[string]string {
	t.Helper()
	answer, err := hub.Request(within(t), "board", nil)
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Shapes []struct {
			ID, Kind string
			spot
		}
	}
	if err := json.Unmarshal(answer, &board); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, s := range board.Shapes {
		all[s.ID] = fmt.Sprintf("%s %.2f %.2f", s.Kind, s.X*100, s.Y*100)
	}
	return all
}

// agree waits until all pages show what the server has, and that this is so many shapes.
func agree(t *testing.T, hub *hubbubclient.Hub, want int, pages ...*page) map[string]string {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		server := boardOf(t, hub)
		same := len(server) == want
		for _, p := range pages {
			same = same && maps.Equal(eval[map[string]string](p, shapesOf), server)
		}
		if same {
			return server
		}
		if time.Now().After(deadline) {
			for _, p := range pages {
				t.Logf("a page has %v, and shows %s", eval[map[string]string](p, shapesOf), p.text("body"))
			}
			t.Fatalf("the server has %v", server)
		}
	}
}

func TestExampleCursorsKeepsShapesRightAcrossCutsAndARestart(t *testing.T) {
	t.Parallel()
	s := startExample(t, "cursors")
	line := startProxy(t, s, nil)
	b := startBrowser(t)
	ann, bob := openBoard(b, line.front, "Ann"), openBoard(b, s, "Bob")
	watch, err := hubbubclient.Dial(within(t), s.ws("/ws"), hubbubclient.Options{MaxDelay: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()

	// Added, moved by keys and by the pointer, deleted: the same on both pages.
	square, circle, triangle := ann.add("square"), ann.add("circle"), bob.add("triangle")
	agree(t, watch, 3, ann, bob)
	ann.press(square, kb.ArrowRight+kb.ArrowDown+kb.ArrowDown)
	bob.do(chromedp.MouseEvent("mouseMoved", 5, 5)) // off the board
	drag := eval[[]float64](bob, fmt.Sprintf(`(r => [r.left + r.width / 2, r.top + r.height / 2])(document.querySelector("[data-id='%s']").getBoundingClientRect())`, circle))
	x, y := drag[0], drag[1]
	bob.do(chromedp.MouseEvent("mousePressed", x, y, chromedp.ButtonType("left"), chromedp.ClickCount(1)))
	for i := range 20 {
		bob.do(chromedp.MouseEvent("mouseMoved", x+float64(i)*5, y+float64(i)*3, chromedp.ButtonType("left")))
	}
	bob.do(chromedp.MouseEvent("mouseReleased", x+100, y+60, chromedp.ButtonType("left"), chromedp.ClickCount(1)))
	agree(t, watch, 3, ann, bob)

	// While Ann is away Bob deletes what she moves, and she deletes and adds. Nothing is lost, and nothing comes back.
	line.cutOff()
	ann.shows("#state", "away")
	ann.press(square, kb.ArrowLeft)
	ann.press(circle, kb.Delete)
	added := ann.add("square")
	bob.press(square, kb.Delete)
	bob.press(triangle, kb.ArrowUp)
	others := bob.add("circle")
	agree(t, watch, 3, bob)
	line.away.Store(false)
	is := agree(t, watch, 3, ann, bob)
	for _, id := range []string{triangle, added, others} {
		if is[id] == "" {
			t.Errorf("%s is lost, the board is %v", id, is)
		}
	}
	ann.shows("#news", "this shape is gone")

	// While she is away for longer than the room remembers, the whole board is what mends hers.
	line.cutOff()
	ann.shows("#state", "away")
	for i := range 2100 {
		shape := map[string]any{"id": triangle, "kind": "triangle", "color": 1, "x": float64(i%100) / 100, "y": 0.5}
		if _, err := watch.Request(within(t), "move", shape); err != nil {
			t.Fatal(err)
		}
	}
	bob.press(triangle, kb.Delete)
	agree(t, watch, 2, bob)
	line.away.Store(false)
	agree(t, watch, 2, ann)

	// A latecomer sees the same.
	cleo := openBoard(b, s, "Cleo")
	agree(t, watch, 2, cleo)
	cleo.do(chromedp.Navigate("about:blank"))

	// Lines that break again and again while both draw lose nothing.
	for i := range 10 {
		id := ann.add("square")
		line.drop()
		ann.press(id, kb.ArrowDown)
		if i%2 == 0 {
			line.drop()
			ann.press(id, kb.Delete)
		}
		bob.press(others, kb.ArrowLeft)
	}
	agree(t, watch, 7, ann, bob)

	// The server begins anew: its board is empty, and the page says so. What is added meanwhile is there; what was moved is not.
	line.cutOff()
	ann.shows("#state", "away")
	if status := s.stop(t, syscall.SIGTERM); status != 0 {
		t.Errorf("exit status %d, want 0", status)
	}
	ann.press(others, kb.ArrowUp)
	added = ann.add("triangle")
	s = startExampleAt(t, s.addr, "cursors")
	t.Cleanup(line.cutOff) // or what it carries would look for this server when that has ended
	line.away.Store(false)
	is = agree(t, watch, 1, ann, bob)
	if is[added] == "" {
		t.Errorf("the board is %v, without what was added", is)
	}
	for _, p := range []*page{ann, bob} {
		p.shows("#news", "The server began anew, with an empty board: 7 shapes are gone")
		p.shows("#people", "Ann")
		p.shows("#people", "Bob")
	}
}

func TestExampleCursorsLosesNoShapeThroughCutsAtRandom(t *testing.T) {
	t.Parallel()
	s := startExample(t, "cursors")
	plan, begin := cutsFromNowOn(t)
	line := startProxy(t, s, plan)
	b := startBrowser(t)
	ann, bob := openBoard(b, line.front, "Ann"), openBoard(b, s, "Bob")
	hub, err := hubbubclient.Dial(within(t), s.ws("/ws"), hubbubclient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer hub.Close()
	begin.Store(true)
	line.drop()
	var want []string
	for i := range 30 {
		id := ann.add([]string{"square", "circle", "triangle"}[i%3])
		ann.do(chromedp.KeyEvent(kb.ArrowLeft + kb.ArrowDown))
		if i%4 == 0 {
			ann.do(chromedp.KeyEvent(kb.Delete))
		} else {
			want = append(want, id)
		}
		if i%6 == 5 {
			line.awaitCut(t)
			ann.shows("#state", "online") // now and then something gets through
		}
	}
	close(line.calm)
	is := agree(t, hub, len(want), ann, bob)
	for _, id := range want {
		if is[id] == "" {
			t.Errorf("%s is lost", id)
		}
	}
	if text := ann.text("#news"); text != "" {
		t.Errorf("the page says %q", text)
	}
	n, kinds := line.tally()
	t.Logf("%d cuts: %s", n, kinds)
}

func TestExampleCursorsLooksRight(t *testing.T) {
	t.Parallel()
	s := startExample(t, "cursors")
	ann := openBoard(startBrowser(t), s, "Ann")
	ctx := within(t)
	hub, err := hubbubclient.Dial(ctx, s.ws("/ws"), hubbubclient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer hub.Close()
	kinds := []string{"square", "circle", "triangle"}
	for i := range 14 {
		shape := map[string]any{"id": fmt.Sprint("s", i), "kind": kinds[i%3], "color": i % 8, "x": 0.1 + float64(i%5)*0.19, "y": 0.2 + float64(i/5)*0.28}
		if _, err := hub.Request(ctx, "add", shape); err != nil {
			t.Fatal(err)
		}
	}
	for i, name := range []string{"Bob", "Cleo", "Dai", "Eli", "Fay", "Gus", "Hana", "Ivo"} {
		_, room := pointing(t, ctx, s, name, i)
		at := spot{0.12 + float64(i%4)*0.23, 0.12 + float64(i/4)*0.5 + float64(i%2)*0.12}
		if _, err := room.Publish(ctx, at, hubbubclient.PublishOptions{}); err != nil {
			t.Fatal(err)
		}
		ann.until(pointedAt(name, at))
	}
	ann.until(`document.querySelectorAll(".shape").length === 14 && document.querySelectorAll("#people li").length === 9`)
	ann.press("s6", kb.ArrowRight)
	ann.until(`!document.querySelector("#delete").disabled`)
	ann.picture("examples/cursors/screenshot.png")

	// Names can be read: each colour bears white, by the formula of WCAG.
	contrasts := eval[[]float64](ann, `[...document.querySelectorAll(".cursor span")].map((e) => {
		const light = (rgb) => rgb.match(/\d+/g).slice(0, 3).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
			.reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
		const { color, backgroundColor } = getComputedStyle(e);
		return (light(color) + 0.05) / (light(backgroundColor) + 0.05);
	})`)
	if slices.Min(contrasts) < 4.5 {
		t.Errorf("contrasts are %v", contrasts)
	}

	// A phone in the dark, and without motion.
	ann.prefers([2]string{"prefers-color-scheme", "dark"}, [2]string{"prefers-reduced-motion", "reduce"})
	ann.do(chromedp.EmulateViewport(360, 640, chromedp.EmulateMobile))
	ann.until(`document.documentElement.scrollWidth <= 360`)
	ann.until(pointedAt("Ivo", spot{0.81, 0.74}))
	if motion := eval[string](ann, `getComputedStyle(document.querySelector(".shape")).transitionDuration`); motion != "0s" {
		t.Errorf("shapes move for %s", motion)
	}
	ann.picture("examples/cursors/phone.png")

	// At 200 % zoom nothing is cut off.
	ann.do(chromedp.EmulateViewport(600, 400))
	ann.until(`document.documentElement.scrollWidth <= 600 && document.querySelector("#board").clientHeight > 200`)
}
