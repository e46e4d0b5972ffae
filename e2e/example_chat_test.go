package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	hubbubclient "example.com/hubbub/client"
)

// cutsFromNowOn is a plan that leaves alone what connects before begin is true, such as a page that loads.
func cutsFromNowOn(t *testing.T) (plan func(n int) cut, begin *atomic.Bool) {
	t.Helper()
	seed := cutSeed(t)
	t.Logf("HUBBUB_E2E_SEED=%d has the same cuts", seed)
	random := cutsAtRandom(seed)
	begin = new(atomic.Bool)
	return func(n int) cut {
		if begin.Load() {
			return random(n)
		}
		return cut{after: time.Hour}
	}, begin
}

// lineIsCut is what the browser itself says of a connection that a test has cut.
var lineIsCut = []string{"WebSocket connection to", "Failed to load resource"}

// enterChat opens the example's page and enters by the keyboard alone.
func enterChat(b *browser, s *server, name string) *page {
	b.t.Helper()
	p := b.open(s.http("/"), lineIsCut...)
	p.do(chromedp.WaitVisible(chromedp.CSS("#name")), chromedp.KeyEvent(name+kb.Enter)) // which has the focus
	p.until(`document.activeElement.id === "text"`)
	p.shows("#state", "online")
	p.shows("#members", name+" (you)")
	return p
}

const (
	texts     = `[...document.querySelectorAll(".log .line .text")].map((e) => e.textContent).join("|")`
	allIsSent = `document.querySelectorAll(".line.waits, .line.failed").length === 0`
)

// hasSaid waits until the log has these messages in this order, and no others.
func (p *page) hasSaid(all ...string) {
	p.t.Helper()
	p.until(fmt.Sprintf("%s === %q", texts, strings.Join(all, "|")))
}

func numbered(what string, n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("%s %d", what, i))
	}
	return all
}

func TestExampleChatTalksAcrossCutsAndARestart(t *testing.T) {
	t.Parallel()
	s := startExample(t, "chat")
	line := startProxy(t, s, nil)
	b := startBrowser(t)
	ann, bob := enterChat(b, line.front, "Ann"), enterChat(b, s, "Bob")
	ann.shows("#here", "2 here")
	bob.shows("#members", "Ann")

	// Who types is seen typing, until the message is there.
	ann.do(chromedp.KeyEvent("Good morning, <b>Bob</b>"))
	bob.shows("#typing", "Ann is typing")
	ann.do(chromedp.KeyEvent(kb.Enter))
	ann.shows(".line.own .fate", "sent")
	bob.hasSaid("Good morning, <b>Bob</b>")
	bob.until(`document.querySelector("#typing").textContent === ""`)
	want := []string{"Good morning, <b>Bob</b>"}

	// Ann's line is cut. What both say meanwhile arrives, once and in one order: nobody is seen to leave.
	line.cutOff()
	ann.shows("#state", "away")
	for _, text := range numbered("bob", 40) { // more than a page of the history
		bob.say(text)
	}
	for _, text := range numbered("ann", 2) {
		ann.say(text)
	}
	ann.until(`document.querySelectorAll(".line.waits").length === 2`)
	bob.until(allIsSent)
	bob.shows("#members", "Ann")
	line.away.Store(false)
	ann.until(allIsSent)
	want = append(append(want, numbered("bob", 40)...), numbered("ann", 2)...)
	ann.hasSaid(want...)
	bob.hasSaid(want...)

	// The server begins anew. What is written meanwhile goes out when it is back; what may be missing is said, in its
	// place; names and rooms are what they were.
	line.cutOff()
	ann.shows("#state", "away")
	if status := s.stop(t, syscall.SIGTERM); status != 0 {
		t.Errorf("exit status %d, want 0", status)
	}
	bob.shows("#state", "away")
	ann.say("while it was away")
	ann.shows(".line.waits", "while it was away")
	s = startExampleAt(t, s.addr, "chat")
	t.Cleanup(line.cutOff) // or what it carries would look for this server when that has ended
	line.away.Store(false)
	want = append(want, "while it was away")
	for _, p := range []*page{ann, bob} {
		p.hasSaid(want...)
		p.until(allIsSent)
		p.shows(".note.lost", "The server began anew")
		p.until(`document.querySelectorAll(".log .note").length === 1 && document.querySelector(".note").nextElementSibling.textContent.includes("while it was away")`)
		p.shows("#title", "# general")
		p.shows("#here", "2 here")
	}
	bob.say("welcome back")
	want = append(want, "welcome back")
	ann.hasSaid(want...)

	// The program has its say, too.
	out, err := exec.Command("curl", "-sS", "--fail", "-d", "room=general", "-d", "text=tea is ready", s.http("/announce")).CombinedOutput()
	if err != nil {
		t.Fatalf("announce: %v %s", err, out)
	}
	ann.hasSaid(append(want, "tea is ready")...)
	ann.shows(".log li:last-child .who", "Server")
}

func TestExampleChatLosesAndDoublesNothingThroughCutsAtRandom(t *testing.T) {
	t.Parallel()
	s := startExample(t, "chat")
	plan, begin := cutsFromNowOn(t)
	line := startProxy(t, s, plan)
	b := startBrowser(t)
	ann, bob := enterChat(b, line.front, "Ann"), enterChat(b, s, "Bob")
	begin.Store(true)
	line.drop()
	const n = 24
	for i := range n {
		ann.say(fmt.Sprint("ann ", i, "."))
		bob.say(fmt.Sprint("bob ", i, "."))
		if i%8 == 7 {
			line.awaitCut(t)
			ann.shows("#state", "online") // now and then something gets through
		}
	}
	close(line.calm)
	for _, p := range []*page{ann, bob} {
		p.until(allIsSent)
		p.until(fmt.Sprintf(`document.querySelectorAll(".line").length === %d`, 2*n))
	}
	was, at := eval[string](bob, texts), map[string]int{"ann": 0, "bob": 0}
	for _, text := range strings.Split(was, "|") {
		who, _, _ := strings.Cut(text, " ")
		if want := fmt.Sprint(who, " ", at[who], "."); text != want {
			t.Errorf("said was %q where %q is next", text, want)
		}
		at[who]++
	}
	if has := eval[string](ann, texts); has != was {
		t.Errorf("Ann has\n%s\nand Bob\n%s", has, was)
	}
	cuts, kinds := line.tally()
	t.Logf("%d cuts: %s", cuts, kinds)
}

// Who was away for longer than the room remembers is told so, in the place where something is missing, and gets the rest.
func TestExampleChatSaysWhatItCantBring(t *testing.T) {
	t.Parallel()
	s := startExample(t, "chat")
	line := startProxy(t, s, nil)
	ann := enterChat(startBrowser(t), line.front, "Ann")
	ann.say("before")
	ann.until(allIsSent)
	line.cutOff()
	ann.shows("#state", "away")
	ctx := within(t)
	hub, err := hubbubclient.Dial(ctx, s.ws("/ws"), hubbubclient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer hub.Close()
	const n = 700 // of 2 KB: the room keeps 1 MiB
	for i := range n {
		content := map[string]any{"name": "Bob", "text": fmt.Sprintf("%d %s", i, strings.Repeat("x", 2000))}
		if _, err := hub.Room("chat:general").Publish(ctx, content, hubbubclient.PublishOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	line.away.Store(false)
	ann.until(fmt.Sprintf(`document.querySelector(".log li:last-child .text")?.textContent.startsWith("%d ") ?? false`, n-1))
	all := strings.Split(eval[string](ann, `[...document.querySelectorAll(".log li")].map((e) => e.querySelector(".text")?.textContent ?? e.textContent).join("|")`), "|")
	if len(all) < 300 || all[0] != "before" || !strings.Contains(all[1], "missing here (expired)") {
		t.Fatalf("%d lines: %.100q", len(all), all)
	}
	for i, text := range all[2:] {
		if want := fmt.Sprint(n-len(all)+2+i, " "); !strings.HasPrefix(text, want) {
			t.Fatalf("%.20q, want %q", text, want)
		}
	}
}

func TestExampleChatHasRoomsAndTheirHistory(t *testing.T) {
	t.Parallel()
	s := startExample(t, "chat")
	b := startBrowser(t)
	ann := enterChat(b, s, "Ann")
	for _, text := range numbered("n", 100) {
		ann.say(text)
	}
	ann.until(allIsSent)

	// A latecomer gets the last page, and the older ones as he scrolls up; what he reads stays in its place.
	bob := enterChat(b, s, "Bob")
	bob.hasSaid(numbered("n", 100)[70:]...)
	bob.until(`(e => e.scrollHeight - e.scrollTop - e.clientHeight < 2)(document.querySelector(".log"))`)
	top := `[...document.querySelectorAll(".line")].find((e) => e.textContent.includes("n 70")).getBoundingClientRect().top`
	eval[bool](bob, `(document.querySelector(".log").scrollTop = 0, new Promise(requestAnimationFrame), true)`)
	bob.hasSaid(numbered("n", 100)[40:]...)
	if y := eval[float64](bob, top); y < 100 {
		t.Errorf("what was read jumps to %v", y)
	}
	bob.do(chromedp.Focus(chromedp.CSS(".older")), chromedp.KeyEvent(kb.Enter)) // where scrolling there wasn't enough
	bob.until(`document.querySelectorAll(".line").length >= 90`)
	eval[bool](bob, `(document.querySelector(".log").scrollTop = 0, true)`)
	bob.hasSaid(numbered("n", 100)...)
	bob.until(`document.querySelector(".older").hidden`)

	// Somebody opens a room, the others hear of it and come. What is said where one isn't looking is counted.
	ann.do(chromedp.Focus(chromedp.CSS("#room")), chromedp.KeyEvent("kitchen"+kb.Enter))
	ann.shows("#title", "# kitchen")
	ann.hasSaid()
	bob.shows("#others", "kitchen")
	bob.do(chromedp.Focus(chromedp.CSS(`#others [data-room=kitchen]`)), chromedp.KeyEvent(kb.Enter))
	ann.shows("#members", "Bob")
	ann.until(`document.querySelector("#others-title").hidden`)
	bob.do(chromedp.Click(chromedp.CSS(`#rooms [data-room=general]`)))
	bob.shows("#title", "# general")
	ann.say("soup?")
	ann.say("or salad?")
	bob.shows("#rooms [data-room=kitchen] .unread", "2")
	bob.until(`document.title === "(2) Chat"`)
	bob.until(texts + `.includes("n 99") && !` + texts + `.includes("soup")`)
	bob.do(chromedp.Click(chromedp.CSS(`#rooms [data-room=kitchen]`)))
	bob.hasSaid("soup?", "or salad?")
	bob.until(`document.title === "Chat" && !document.querySelector(".unread")`)

	// A reload keeps the name and the rooms. Who leaves a room is gone from it.
	bob.do(chromedp.Reload())
	bob.shows("#members", "Bob (you)")
	bob.shows("#title", "# kitchen")
	bob.hasSaid("soup?", "or salad?")
	ann.shows("#here", "2 here")
	bob.do(chromedp.Click(chromedp.CSS("#leave")))
	bob.shows("#title", "# general")
	ann.shows("#here", "1 here")
}

func TestExampleChatLooksRight(t *testing.T) {
	t.Parallel()
	s := startExample(t, "chat")
	b := startBrowser(t)
	ann, bob, cleo := enterChat(b, s, "Ann"), enterChat(b, s, "Bob"), enterChat(b, s, "Cleo")
	for _, said := range []struct {
		who  *page
		text string
	}{
		{ann, "Morning! Did the night shift leave us anything?"},
		{bob, "Two boxes of croissants, and the build is green."},
		{cleo, "I restarted the server at seven. Did you lose anything?"},
		{ann, "Not a word. It said that it began anew, and went on."},
		{bob, "My train went through the tunnel just then: all that you said came when I was out again, once and in order."},
	} {
		said.who.say(said.text)
		said.who.until(allIsSent)
	}
	cleo.do(chromedp.Focus(chromedp.CSS("#room")), chromedp.KeyEvent("kitchen"+kb.Enter))
	cleo.shows("#title", "# kitchen")
	bob.do(chromedp.Click(chromedp.CSS(`#rooms [data-room=random]`)))
	bob.shows("#title", "# random")
	bob.say("A cat sits on the router.")
	ann.shows("#rooms [data-room=random] .unread", "1")
	bob.do(chromedp.Click(chromedp.CSS(`#rooms [data-room=general]`)), chromedp.Focus(chromedp.CSS("#text")), chromedp.KeyEvent("x"))
	ann.shows("#typing", "Bob is typing")
	ann.shows("#others", "kitchen")
	ann.picture("examples/chat/screenshot.png")

	// A phone in the dark.
	ann.prefers([2]string{"prefers-color-scheme", "dark"})
	ann.do(chromedp.EmulateViewport(360, 640, chromedp.EmulateMobile))
	ann.until(`document.documentElement.scrollWidth <= 360 && document.documentElement.scrollHeight <= 640`)
	ann.until(`(e => e.scrollHeight - e.scrollTop - e.clientHeight < 2)(document.querySelector(".log"))`) // the log goes on following
	bob.do(chromedp.KeyEvent("!"))
	ann.shows("#typing", "Bob is typing")
	ann.picture("examples/chat/phone.png")

	// At 200 % zoom nothing is cut off.
	ann.do(chromedp.EmulateViewport(600, 400))
	ann.until(`document.documentElement.scrollWidth <= 600 && document.querySelector(".log").clientHeight > 200`)

	// Whoever comes by phone is asked for a name first.
	dora := b.open(s.http("/"))
	dora.do(chromedp.EmulateViewport(360, 640, chromedp.EmulateMobile))
	dora.until(`document.querySelector("#hello").getBoundingClientRect().right <= 360 && document.documentElement.scrollWidth <= 360`)
}
