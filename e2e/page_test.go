package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// What the browser says of a line that is cut or refused, which is no fault of the page.
var lineFaults = []string{"WebSocket connection to", "Failed to load resource"}

func openPage(t *testing.T, s *server) *page {
	t.Helper()
	return startBrowser(t).open(s.http("/"), lineFaults...)
}

// openPages are tabs of one browser, in which people of these names are in the lobby.
func openPages(t *testing.T, s *server, names ...string) (pages []*page) {
	t.Helper()
	b := startBrowser(t)
	for _, name := range names {
		p := b.open(s.http("/"), lineFaults...)
		p.shows("#count", fmt.Sprintf("%d here", len(pages)+1))
		p.callMe(name)
		pages = append(pages, p)
	}
	for i, p := range pages {
		for j, name := range names {
			if i != j {
				p.shows("#here", name)
			}
		}
	}
	return pages
}

func (p *page) callMe(name string) {
	p.t.Helper()
	p.do(chromedp.Focus(chromedp.CSS("#name")))
	eval[any](p, `document.querySelector("#name").select()`)
	p.do(chromedp.KeyEvent(name + kb.Enter))
	p.shows("#code", strconv.Quote(name))
}

// say types with the keyboard alone.
func (p *page) say(text string) {
	p.t.Helper()
	p.do(chromedp.Focus(chromedp.CSS("#text")), chromedp.KeyEvent(text+kb.Enter))
	p.until(fmt.Sprintf(`[...document.querySelectorAll("#messages .mine .text, .log .own .text")].some((e) => e.textContent === %q)`, text))
}

// says how often an element's text has this.
func (p *page) says(selector, text string) int {
	p.t.Helper()
	return eval[int](p, fmt.Sprintf(`[...document.querySelectorAll(%q)].filter((e) => e.textContent === %q).length`, selector, text))
}

// sent waits until all that was said here is sent.
func (p *page) sent() {
	p.t.Helper()
	p.until(`[...document.querySelectorAll(".fate")].every((e) => e.textContent.startsWith("sent"))`)
}

// isTyping goes on typing until the other sees it: it shows for seconds alone.
func (p *page) isTyping(name string, other *page) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(other.text("#typing"), name+" is typing"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("nobody sees that %s is typing", name)
		}
		eval[any](p, `document.querySelector("#text").dispatchEvent(new Event("input")) && null`)
	}
}

// cut presses the switch; the line stays away until the function that it gives is called, however slow a machine is.
func (p *page) cut() (mend func()) {
	p.t.Helper()
	eval[any](p, `(() => {
		const { setTimeout } = window;
		window.setTimeout = (fn, ms, ...more) => (ms === 5000 ? (window.mend = fn, 0) : setTimeout(fn, ms, ...more));
		document.querySelector("#cut").click();
		window.setTimeout = setTimeout;
	})()`)
	p.shows("#state", "your line is cut")
	return func() { eval[any](p, `window.mend()`) }
}

func TestPageTwoWindowsTalk(t *testing.T) {
	eachIO(t, []string{"--workers", "2"}, func(t *testing.T, s *server) {
		pages := openPages(t, s, "Ann", "Bob")
		ann, bob := pages[0], pages[1]
		bob.callMe("Bobby")
		ann.shows("#messages", "Bob is Bobby now")

		ann.do(chromedp.Focus(chromedp.CSS("#text")), chromedp.KeyEvent("hel"))
		ann.isTyping("Ann", bob)
		ann.do(chromedp.KeyEvent("lo" + kb.Enter))
		bob.until(`document.querySelector("#typing").textContent === ""`)
		bob.shows("#messages", "hello")
		bob.shows("#messages .about strong", "Ann")
		bob.shows("#news", "Ann: hello") // is read out
		ann.shows("#messages li.mine .fate", "sent")

		// A stranger's text stays text, his name too.
		const wicked = `<img src=x onerror="document.title='broken into'"><b>bold</b>`
		mallory := dialWS(t, s.ws("/ws")).welcomed()
		mallory.ask(fmt.Sprintf(`{"msg_type":"join_room","room":"lobby","data":{"name":%q},"id":1}`, wicked), "joined")
		mallory.sendf(`{"msg_type":"room_message","room":"lobby","content":{"text":%q,"name":%q}}`, wicked, wicked)
		mallory.send(`{"msg_type":"room_message","room":"lobby","content":{"text":{"a":1},"name":["x"]}}`)
		mallory.send(`{"msg_type":"room_message","room":"lobby","content":[null]}`)
		mallory.send(`{"msg_type":"chat","content":"to all of you"}`)
		for _, p := range pages {
			p.shows("#here", "<img src=x onerror=")
			p.shows("#messages", "<b>bold</b>")
			p.shows("#messages", `{"text":{"a":1}`)
			p.shows("#messages", "[null]")
			p.shows("#messages", "to everyone")
			p.until(`document.title === "Hubbub" && !document.querySelector("main img, main b")`)
		}

		// Who goes is missed by name, and who comes late sees what was said.
		mallory.close(1000, "")
		ann.shows("#messages", " left")
		bob.do(chromedp.Navigate("about:blank"))
		ann.shows("#messages", "Bobby left")
		bob.do(chromedp.NavigateBack())
		bob.shows("#messages", "hello")
		ann.shows("#count", "2 here")
		bob.until(`document.querySelector("#name").value === "Bobby"`) // the tab remembers
		if n := bob.says("#messages .text", "hello"); n != 1 {
			t.Errorf("hello is there %d times", n)
		}
	})
}

// What is typed while the server restarts arrives when it is back, once.
func TestPageKeepsWhatIsTypedOverARestart(t *testing.T) {
	eachIO(t, nil, func(t *testing.T, s *server) {
		pages := openPages(t, s, "Ann", "Bob")
		ann, bob := pages[0], pages[1]
		ann.say("before")
		bob.shows("#messages", "before")
		if status := s.stop(t, syscall.SIGTERM); status != 0 {
			t.Errorf("exit status %d, want 0", status)
		}
		ann.shows("#state", "reconnecting")
		ann.shows("#messages", "code 1001: going away")
		ann.say("typed meanwhile")
		ann.shows("#messages .fate.waiting", "waiting for the line")
		ann.accessible()

		startAt(t, s.addr)
		for _, p := range pages {
			p.shows("#state", "connected")
			p.shows("#messages", "begun anew")
			p.shows("#count", "2 here")
		}
		ann.sent()
		bob.shows("#messages", "typed meanwhile")
		bob.say("welcome back")
		ann.shows("#messages", "welcome back")
		for _, text := range []string{"before", "typed meanwhile", "welcome back"} {
			for i, p := range pages {
				if n := p.says("#messages .text", text); n != 1 {
					t.Errorf("page %d has %q %d times", i, text, n)
				}
			}
		}
	})
}

// The switch cuts one's own line: three times, and nothing is lost, nothing doubled, and the count is right.
func TestPageCutsItsOwnLine(t *testing.T) {
	eachIO(t, []string{"--resume-window", "10m"}, func(t *testing.T, s *server) {
		pages := openPages(t, s, "Ann", "Bob")
		ann, bob := pages[0], pages[1]
		for round := 1; round <= 3; round++ {
			mend := ann.cut()
			for i := range round {
				bob.say(fmt.Sprintf("missed %d.%d", round, i))
			}
			bob.sent()
			ann.say(fmt.Sprintf("typed in the tunnel %d", round))
			ann.shows("#messages .fate.waiting", "waiting for the line")
			if n := ann.says("#messages .text", fmt.Sprintf("missed %d.0", round)); n != 0 {
				t.Error("the line isn't cut")
			}

			mend()
			ann.shows("#state", "connected")
			messages := "messages"
			if round == 1 {
				messages = "message"
			}
			ann.shows("#catch-up", fmt.Sprintf(": %d %s came after, 1 of yours went out", round, messages))
			ann.sent()
			bob.shows("#messages", fmt.Sprintf("typed in the tunnel %d", round))
		}
		for i, p := range pages {
			for round := 1; round <= 3; round++ {
				for j := range round {
					if n := p.says("#messages .text", fmt.Sprintf("missed %d.%d", round, j)); n != 1 {
						t.Errorf("page %d has the message %d.%d %d times", i, round, j, n)
					}
				}
				if n := p.says("#messages .text", fmt.Sprintf("typed in the tunnel %d", round)); n != 1 {
					t.Errorf("page %d has what was typed in tunnel %d %d times", i, round, n)
				}
			}
			p.shows("#count", "2 here")
		}
		if text := bob.text("#messages"); strings.Contains(text, "left") {
			t.Errorf("Bob is told that somebody left:\n%s", text)
		}
	})
}

// A slow phone's line is slow both ways, and loses nothing.
func TestPageOnASlowLine(t *testing.T) {
	t.Parallel()
	s := start(t)
	pages := openPages(t, s, "Ann", "Bob")
	ann, bob := pages[0], pages[1]
	ann.do(chromedp.Click(chromedp.CSS("#slow")))
	ann.until(`document.querySelector("#slow").getAttribute("aria-checked") === "true"`)
	ann.say("from the edge of the net")
	ann.shows("#messages .fate", "sent after")
	bob.shows("#messages", "from the edge of the net")
	ann.until(`parseFloat(document.querySelector("#p99").textContent.replace(/\D/g, "")) >= 1200`)
	ann.do(chromedp.Click(chromedp.CSS("#slow")))
	bob.say("and back")
	ann.shows("#messages", "and back")
}

// The log is bounded, and follows its end unless the reader has scrolled up.
func TestPageLogFollowsItsEnd(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := openPage(t, s)
	p.shows("#count", "1 here")
	other := dialWS(t, s.ws("/ws")).welcomed()
	many := func(from, to int) {
		for i := from; i < to; i++ {
			other.sendf(`{"msg_type":"room_message","room":"lobby","content":"n%d."}`, i)
		}
		p.shows("#messages", fmt.Sprintf("n%d.", to-1))
	}
	const atEnd = `(() => { const e = document.querySelector("#log"); return e.scrollHeight - e.scrollTop - e.clientHeight < 24; })()`
	many(0, 600)
	p.until(`document.querySelectorAll("#messages li").length === 500 && ` + atEnd)
	p.do(chromedp.EmulateViewport(1200, 500)) // the box shrinks
	p.until(atEnd)
	many(600, 610)
	p.until(atEnd)

	p.do(chromedp.Focus(chromedp.CSS("#log")), chromedp.KeyEvent(kb.Home))
	p.until(`document.querySelector("#log").scrollTop === 0`)
	eval[any](p, `new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(null))))`) // the page has seen it
	many(610, 613)
	p.shows("#newer:not([hidden])", "3 new messages")
	p.accessible()
	p.until(`document.querySelector("#log").scrollTop < 2000`)
	p.do(chromedp.Click(chromedp.CSS("#newer")))
	p.until(atEnd + ` && document.querySelector("#newer").hidden`)
	many(613, 614)
	p.until(atEnd)
}

// The inspector shows the frames, and sends what one writes.
func TestPageInspector(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := openPage(t, s)
	p.shows("#count", "1 here")
	other := dialWS(t, s.ws("/ws")).welcomed()
	other.join("kitchen")
	p.do(chromedp.Click(chromedp.CSS("#tab-protocol")))
	p.until(`document.querySelector("#talk").hidden`)
	p.shows("#frames", `→ {"msg_type":"join_room","room":"lobby"`)
	p.shows("#frames", `← {"msg_type":"joined","room":"lobby"`)
	p.shows("#session", "max_message_bytes")
	p.do(chromedp.Focus(chromedp.CSS("#kind")), chromedp.KeyEvent("room_m"), chromedp.Click(chromedp.CSS("#raw button")))
	if m := other.message("room_message"); m.str("content") != "hello" || m.str("room") != "kitchen" {
		t.Errorf("the page sent %s", m.text)
	}
	p.shows("#frames", `← {"msg_type":"ack"`)
	p.do(chromedp.SetValue(chromedp.CSS("#json"), "{broken"), chromedp.Click(chromedp.CSS("#raw button")))
	p.shows("#frames", `"code":"bad_json"`)
	p.until(`!document.querySelector("#frames").textContent.includes('"msg_type":"ping"')`)
	p.do(chromedp.Click(chromedp.CSS("#pings")))
	p.shows("#frames", `→ {"msg_type":"ping"`)
}

// The code that the page shows does what it says: it is copied, and run.
func TestPageCodeRuns(t *testing.T) {
	t.Parallel()
	p := openPage(t, start(t))
	p.shows("#count", "1 here")
	p.callMe("Ann \"the\" first")
	p.do(chromedp.Click(chromedp.CSS("#copy")))
	p.shows("#copied", "Copied.")
	code := eval[string](p, `document.querySelector("#code").textContent`)
	first, rest, _ := strings.Cut(code, "\n")
	if !strings.Contains(first, `/hubbub.js"`) || strings.Count(code, "\n") > 14 {
		t.Errorf("the code is\n%s", code)
	}
	module, err := filepath.Abs("../js/hubbub.js")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "code.mjs") // Node.js loads no module from the net
	if err := os.WriteFile(file, fmt.Appendf(nil, "import { Hubbub } from %q;\n%s", module, rest), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", "--experimental-websocket", file)
	var out syncBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	p.shows("#messages .about strong", `Ann "the" first`)
	p.shows("#messages .text", "hello")
	p.shows("#count", "2 here")
	p.say("hello, program")
	for deadline := time.Now().Add(patience); !strings.Contains(out.String(), "hello, program"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the program says:\n%s", out.String())
		}
	}
}
