package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// The console, as who runs the server uses it: in a browser, with a key.

const consoleKey = "console-key-0123456789"

// openConsole gives it the key.
func openConsole(t *testing.T, s *server) *page {
	t.Helper()
	p := startBrowser(t).open(s.http(s.base+"/console"), lineFaults...)
	p.giveKey(consoleKey)
	p.shows("#state", "ready")
	return p
}

func (p *page) giveKey(key string) {
	p.t.Helper()
	p.until(`document.activeElement.id === "key"`)
	eval[any](p, `document.querySelector("#key").select()`)
	p.do(chromedp.KeyEvent(key + kb.Enter))
}

// presses clicks the first button within an element that says this.
func (p *page) presses(within, text string) {
	p.t.Helper()
	button := fmt.Sprintf(`[...document.querySelectorAll(%q)].flatMap((e) => [...e.querySelectorAll("button")]).find((e) => e.textContent === %q && !e.disabled && e.getClientRects().length)`, within, text)
	p.until("!!" + button)
	eval[any](p, button+".click()")
}

// goes to a view of the console by its address.
func (p *page) goes(hash string) {
	p.t.Helper()
	eval[any](p, fmt.Sprintf(`void (location.hash = %q)`, hash))
}

// publishAll publishes to rooms by the API.
func publishAll(t *testing.T, s *server, rooms []string, content string) {
	t.Helper()
	body := fmt.Sprintf(`{"rooms":["%s"],"content":%s}`, strings.Join(rooms, `","`), content)
	r, err := http.NewRequest("POST", s.http(s.base+"/api/v1/publish"), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+consoleKey)
	r.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusOK || bytes.Contains(b, []byte(`"error"`)) {
		t.Fatalf("%d %s", res.StatusCode, b[:min(len(b), 500)])
	}
}

func TestConsoleShowsAndReachesIn(t *testing.T) {
	t.Parallel()
	config := filepath.Join(t.TempDir(), "hubbub.yaml")
	if err := os.WriteFile(config, []byte("rooms:\n  - match: \"kitchen*\"\n    presence: full\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &server{base: "/live", addr: freeAddr(t), exited: make(chan struct{})}
	s.cmd = exec.Command(program, "serve", "--listen", s.addr, "--base-path", "/live", "--api-key", consoleKey, "--config", config, "--slow-consumer", "latest")
	s.run(t)
	const wicked = `kitchen<img src=x onerror="document.title='broken into'"><b>bold</b>`
	ann := dialWS(t, s.ws("/live/ws")).welcomed()
	bob := dialWS(t, s.ws("/live/ws")).welcomed()
	for _, c := range []*client{ann, bob} {
		c.ask(fmt.Sprintf(`{"msg_type":"join_room","room":%q,"data":{"name":%q},"id":1}`, wicked, wicked), "joined")
	}

	p := startBrowser(t).open(s.http("/live/console/"), lineFaults...) // goes to the one without a slash
	p.giveKey("wrong-key-0123456789")
	p.shows("#wrong", "doesn't know this key")
	p.accessible()
	p.giveKey(consoleKey)
	p.shows("#state", "ready")
	p.shows(".tiles", "Clients2")
	p.shows("#view", "Worker")
	if got := eval[string](p, `location.href + JSON.stringify(localStorage) + document.cookie`); strings.Contains(got, consoleKey) || !strings.Contains(got, "/live/console") {
		t.Errorf("the key is where it shouldn't be: %s", got)
	}
	p.do(chromedp.Reload())
	p.shows("#state", "ready") // the tab has it still

	p.goes("#/rooms")
	p.shows("tbody", "<b>bold</b>")
	eval[any](p, `document.querySelector("tbody a").click()`)
	p.shows("#view h2", "<img src=x onerror=")
	p.until(`document.activeElement.tagName === "H2"`) // a screen reader reads on from there
	p.shows("#view", "2 members")
	p.shows("#view", "Listening")
	ann.sendf(`{"msg_type":"room_message","room":%q,"content":{"text":%q}}`, wicked, wicked)
	p.shows(".tail", `onerror=\"document.title`)
	bob.message("room_message")

	p.do(chromedp.Focus(chromedp.CSS("#content")), chromedp.KeyEvent("no JSON"))
	p.shows("#view", "it goes as a text")
	p.presses(".card", "Publish")
	if m := bob.message("room_message"); m.str("content") != "no JSON" || m.str("from") != "server" {
		t.Errorf("bob got %s", m.text)
	}
	p.shows(".tail", "no JSON")
	p.shows("#news", "Published as #2")

	// Why the policy is as it is.
	for _, want := range []string{"Presencefullrooms[0] “kitchen*”", "Who may joinanyonethe default; rooms[0] “kitchen*” doesn't say", "A slow memberlatest--slow-consumer; rooms[0]"} {
		p.shows("#view", want)
	}

	// What can't be undone is asked once.
	p.presses(".card", "Take all back")
	p.shows("#ask-title", "Take back all")
	p.accessible()
	p.do(chromedp.KeyEvent(kb.Escape))
	p.until(`!document.querySelector("#ask").open`)
	p.shows("#view", "no JSON") // it is there still
	p.presses(".bounded tbody tr", "Take back")
	p.presses("#ask", "Take back")
	if m := bob.message("deleted"); m.str("room") != wicked {
		t.Errorf("bob got %s", m.text)
	}
	p.shows("#news", "taken back")
	p.presses(fmt.Sprintf(`tr:has([title="%s"])`, bob.id), "Remove")
	p.presses("#ask", "Remove")
	if m := bob.message("left"); m.str("reason") != "kicked" {
		t.Errorf("bob got %s", m.text)
	}
	p.goes("#/clients/" + bob.id)
	p.shows("#view", "It is in no room")
	p.shows("#view", "Listening")
	p.accessible()
	p.presses(".head", "Close")
	p.presses("#ask", "Close")
	if e := bob.expect("close"); e.Code != 4500 {
		t.Errorf("bob is closed with %d", e.Code)
	}
	p.shows("#view", "There is no such client now")
	p.shows(".tail", "disconnected")

	p.goes("#/settings")
	p.shows("#view", "set, not shown")
	p.shows("tbody tr", "log-level")
	if strings.Contains(p.text("body"), consoleKey) {
		t.Error("a secret is shown")
	}
	p.goes("#/nodes")
	p.shows("tbody", "ready")
	p.until(`document.title.includes("Hubbub console") && !document.querySelector("#view img, #view b")`)

	p.do(chromedp.Click(chromedp.CSS("#forget")))
	p.until(`document.querySelector("#view").textContent === "" && sessionStorage.length === 0`)
}

// On the admin listener it shows the rooms to who has a key, and nothing to who has none; where the server has none, it says so.
func TestConsoleOnTheAdminListener(t *testing.T) {
	t.Parallel()
	admin := freeAddr(t)
	s := start(t, "--admin-listen", admin, "--api-key", consoleKey)
	dialWS(t, s.ws("/ws")).welcomed().join("lobby")
	off := freeAddr(t)
	start(t, "--admin-listen", off)
	b := startBrowser(t)

	p := b.open("http://"+admin+"/console#/rooms", lineFaults...)
	p.until(`document.activeElement.id === "key"`)
	if text := p.text("#view"); text != "" {
		t.Errorf("without a key it shows %q", text)
	}
	p.giveKey(consoleKey)
	p.shows("#view tbody", "lobby")

	p = b.open("http://"+off+"/console", lineFaults...)
	p.giveKey(consoleKey)
	p.shows("#wrong", "HUBBUB_API_KEY")
}

// A hundred thousand rooms are read a page at a time.
func TestConsoleOfManyRooms(t *testing.T) {
	t.Parallel()
	config := filepath.Join(t.TempDir(), "hubbub.yaml")
	if err := os.WriteFile(config, []byte("rooms:\n  - match: \"*\"\n    idle-ttl: 24h\n    history: {messages: 1, age: 24h}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, "--api-key", consoleKey, "--config", config)
	rooms := make([]string, 1000)
	for i := range 100 {
		for j := range rooms {
			rooms[j] = fmt.Sprintf("room.%02d.%03d", i, j)
		}
		publishAll(t, s, rooms, "1")
	}
	busy := dialWS(t, s.ws("/ws")).welcomed()
	busy.join("room.77.777")
	p := openConsole(t, s)
	p.goes("#/rooms")
	p.shows("#view", "100,000 rooms")
	p.shows("tbody tr", "room.77.777") // it has a member
	p.until(`document.querySelectorAll("tbody tr").length === 50`)
	p.presses(".pager", "More")
	p.shows("tbody tr", "room.00.049")
	p.presses(".pager", "More")
	p.shows("tbody tr", "room.00.099")
	p.presses(".pager", "Back")
	p.shows("tbody tr", "room.00.049")
	p.do(chromedp.Focus(chromedp.CSS("#search")), chromedp.KeyEvent("42.99"))
	p.shows("tbody tr", "room.42.990")
	p.until(`document.querySelectorAll("tbody tr").length === 10`)
	eval[any](p, `document.querySelector("#search").select()`)
	p.do(chromedp.KeyEvent("nowhere"))
	p.shows("#view", "No room has this in its name")
	p.accessible()
}

// Of a busy room as much is drawn as one can look at, and the rest is counted.
func TestConsoleTailOfABusyRoom(t *testing.T) {
	t.Parallel()
	s := start(t, "--api-key", consoleKey)
	p := openConsole(t, s)
	p.goes("#/rooms/busy")
	p.shows("#view", "Listening")
	rooms := make([]string, 1000)
	for i := range rooms {
		rooms[i] = "busy"
	}
	for i := range 20 {
		publishAll(t, s, rooms, fmt.Sprintf(`"call %d"`, i))
	}
	p.until(`document.querySelector(".left") && !document.querySelector(".left").hidden`)
	publishAll(t, s, []string{"busy"}, `"the last one"`)
	p.shows(".tail", "the last one")
	p.shows("p.left", "left out")
	p.until(`document.querySelectorAll(".tail li").length <= 200`)
	p.presses(".tools", "Clear")
	p.until(`document.querySelector("p.left").hidden`)
}

func TestConsoleLooks(t *testing.T) {
	t.Parallel()
	s := start(t, "--api-key", consoleKey, "--max-connections", "500")
	var people []*client
	for i, name := range []string{"Ann", "Bruno", "Chidi", "Mei", "Oskar", "Priya"} {
		c := dialWS(t, s.ws("/ws")).welcomed()
		for k, room := range []string{"lobby", "orders/42", "game.arena", "news"} {
			if i%(k+1) == 0 {
				c.ask(fmt.Sprintf(`{"msg_type":"join_room","room":%q,"data":{"name":%q},"id":1}`, room, name), "joined")
			}
		}
		people = append(people, c)
		go func() {
			for range c.events { // or it would be a slow one
			}
		}()
	}
	rounds := 2
	if pictures() {
		rounds = 240 // seconds: the charts have something to show
	}
	for i := range rounds {
		for k, c := range people[:1+(i/20+i%7)%len(people)] {
			for range 1 + (i/9+k)%4 {
				c.sendf(`{"msg_type":"room_message","room":"lobby","content":{"text":"order %d is ready","table":%d}}`, 100+i, k+1)
			}
			if (i+k)%3 == 0 {
				c.sendf(`{"msg_type":"room_message","room":"orders/42","content":{"state":"paid","n":%d}}`, i)
			}
		}
		if pictures() {
			time.Sleep(time.Second)
		}
	}
	p := openConsole(t, s)
	still := [2]string{"prefers-reduced-motion", "reduce"}
	p.prefers(still)
	p.do(chromedp.EmulateViewport(1280, 860))
	p.until(`[...document.querySelectorAll(".chart .stroke")].every((e) => e.getAttribute("d"))`) // there is a sample
	p.until(`!document.querySelector(".tiles").textContent.includes("…")`)
	p.picture("docs/pictures/console.png")
	light := eval[string](p, `getComputedStyle(document.body).backgroundColor`)
	views := []string{"#/", "#/rooms", "#/rooms/lobby", "#/clients", "#/clients/" + people[0].id, "#/users/nobody", "#/nodes", "#/settings"}
	for _, scheme := range []string{"light", "dark"} {
		p.prefers(still, [2]string{"prefers-color-scheme", scheme})
		for _, view := range views {
			p.goes(view)
			p.until(`!document.querySelector("[aria-busy]") && !document.querySelector("#view").textContent.includes("Loading")`)
			p.accessible()
		}
	}
	if dark := eval[string](p, `getComputedStyle(document.body).backgroundColor`); dark == light {
		t.Errorf("the background is %s in the dark too", dark)
	}

	// 200 % zoom is half as many of the style's pixels.
	p.prefers(still)
	for _, width := range []int64{640, 390, 320} {
		p.do(chromedp.EmulateViewport(width, 780, chromedp.EmulateMobile, chromedp.EmulateScale(2)))
		for _, view := range views {
			p.goes(view)
			p.until(`!document.querySelector("[aria-busy]") && !document.querySelector("#view").textContent.includes("Loading")`)
			p.until(fmt.Sprintf(`document.documentElement.scrollWidth <= %d`, width))
			if view == "#/rooms/lobby" && width == 390 {
				people[1].send(`{"msg_type":"room_message","room":"lobby","content":{"text":"table 4 has paid"}}`)
				p.shows(".tail", "table 4 has paid")
				for i := range 12 {
					people[i%len(people)].sendf(`{"msg_type":"room_message","room":"lobby","content":{"text":"order %d is ready"}}`, 400+i)
					p.shows(".tail", fmt.Sprintf("order %d is", 400+i))
				}
				p.picture("docs/pictures/console-phone.png")
				p.accessible()
			}
		}
	}
	const moves = `parseFloat(getComputedStyle(document.querySelector("button")).transitionDuration) > 0`
	if eval[bool](p, moves) {
		t.Error("a button moves where that is not wanted")
	}
	if p.prefers(); !eval[bool](p, moves) {
		t.Error("nothing ever moves: this test finds nothing")
	}
}

// By the keyboard alone: what there is is reached, and the focus is seen.
func TestConsoleByKeyboard(t *testing.T) {
	t.Parallel()
	s := start(t, "--api-key", consoleKey)
	ann := dialWS(t, s.ws("/ws")).welcomed()
	ann.join("lobby")
	p := openConsole(t, s)
	p.goes("#/rooms/lobby")
	p.shows(".bounded tbody", ann.id[:8])
	reached := map[string]bool{}
	for range 40 {
		p.do(chromedp.KeyEvent(kb.Tab))
		id := eval[string](p, `document.activeElement.id || document.activeElement.textContent.trim() || document.activeElement.getAttribute("aria-label") || ""`)
		reached[id] = true
		if id != "" && !eval[bool](p, `parseFloat(getComputedStyle(document.activeElement).outlineWidth) >= 2`) {
			t.Errorf("the focus on %s is not seen", id)
		}
	}
	for _, id := range []string{"Overview", "Rooms", "forget", "Pause", "Clear", "content", "from", "Publish", "Remove", "Close", "as-user"} {
		if !reached[id] {
			t.Errorf("%s is not reached: %v", id, reached)
		}
	}
	eval[any](p, `[...document.querySelectorAll("td button")].find((e) => e.textContent === "Remove").focus()`)
	p.do(chromedp.KeyEvent(kb.Enter))
	p.until(`document.activeElement.id === "ask-no"`)
	p.do(chromedp.KeyEvent(kb.Tab), chromedp.KeyEvent(kb.Enter))
	if m := ann.message("left"); m.str("reason") != "kicked" {
		t.Errorf("ann got %s", m.text)
	}
}
