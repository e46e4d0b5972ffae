package e2e

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/gif"
	"image/png"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// How the page looks, to all who read it: its pictures, a phone, a zoom, the dark, a keyboard, a screen reader.

// livelyLobby has people of names talk in the lobby, to whom the one of the page answers.
func livelyLobby(t *testing.T, s *server, p *page) {
	t.Helper()
	p.shows("#count", "1 here")
	p.callMe("Ann")
	people := map[string]*client{}
	for i, name := range []string{"Bruno", "Chidi", "Mei", "Oskar"} {
		c := dialWS(t, s.ws("/ws")).welcomed()
		c.ask(fmt.Sprintf(`{"msg_type":"join_room","room":"lobby","data":{"name":%q},"id":1}`, name), "joined")
		people[name] = c
		p.shows("#count", fmt.Sprintf("%d here", i+2))
	}
	p.shows("#messages", "came in")
	if pictures() {
		fillChart(p, people["Oskar"])
	}
	for _, line := range [][2]string{
		{"Bruno", "Morning! Is the new server up?"},
		{"Mei", "Since nine. I restarted it twice while you slept."},
		{"Bruno", "Nobody noticed."},
		{"", "I was typing when it went. It arrived all the same."},
		{"Chidi", "Same here, in a tunnel, on a train. Everything I had missed came in order."},
		{"Mei", "That's the idea."},
		{"Oskar", "So what does the page do when my line is cut?"},
		{"", "It waits, and catches up. Press the button, and see."},
	} {
		if line[0] == "" {
			p.say(line[1])
			p.sent()
			continue
		}
		people[line[0]].sendf(`{"msg_type":"room_message","room":"lobby","content":{"name":%q,"text":%q}}`, line[0], line[1])
		p.shows("#messages", line[1])
	}
}

// pictures says whether those of the docs are made now; then what moves has its time.
func pictures() bool { return os.Getenv("HUBBUB_PICTURES") != "" }

// fillChart lets a minute go by in which there are messages, in a room that only the inspector shows.
func fillChart(p *page, other *client) {
	p.do(chromedp.Click(chromedp.CSS("#tab-protocol")), chromedp.Click(chromedp.CSS("#raw button")), chromedp.Click(chromedp.CSS("#tab-talk")))
	for i := range 55 {
		for range []int{2, 3, 5, 4, 6, 9, 7, 4, 3, 3, 1}[i%11] {
			other.send(`{"msg_type":"room_message","room":"kitchen","content":"tick"}`)
		}
		time.Sleep(time.Second)
	}
}

func TestPageLooks(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := openPage(t, s)
	p.do(chromedp.EmulateViewport(1280, 840))
	livelyLobby(t, s, p)
	still := [2]string{"prefers-reduced-motion", "reduce"}
	p.prefers(still)
	p.picture("docs/pictures/page.png")
	const columns = `Math.sign(document.querySelector("aside").getBoundingClientRect().left - document.querySelector(".conversation").getBoundingClientRect().right)`
	if eval[int](p, columns) != 1 {
		t.Error("there are no two columns")
	}
	light := eval[string](p, `getComputedStyle(document.body).backgroundColor`)
	p.prefers(still, [2]string{"prefers-color-scheme", "dark"})
	if dark := eval[string](p, `getComputedStyle(document.body).backgroundColor`); dark == light {
		t.Errorf("the background is %s in the dark too", dark)
	}
	p.picture("docs/pictures/page-dark.png")
	p.accessible()
	p.prefers(still)
	p.accessible()

	// 200 % zoom is half as many of the style's pixels.
	for _, size := range [][3]int64{{640, 420, 70}, {360, 740, 100}, {320, 568, 140}} {
		p.do(chromedp.EmulateViewport(size[0], size[1], chromedp.EmulateMobile, chromedp.EmulateScale(2)))
		p.until(fmt.Sprintf(`document.documentElement.scrollWidth <= %d`, size[0]))
		p.until(fmt.Sprintf(`document.querySelector("header").offsetHeight <= %d`, size[2]))
		p.until(`(() => { const e = document.querySelector("#log"); return e.clientHeight >= 140 && e.scrollHeight - e.scrollTop - e.clientHeight < 24; })()`)
		if eval[int](p, columns) == 1 {
			t.Errorf("two columns at %d", size[0])
		}
		if size[0] == 360 {
			p.picture("docs/pictures/page-phone.png")
			eval[string](p, `document.querySelector("#state").textContent = document.querySelector("#wait").textContent = "your line is cut"`)
			p.until(fmt.Sprintf(`document.querySelector("header").offsetHeight <= %d`, size[2])) // whatever it says
		}
		p.accessible()
	}

	p.do(chromedp.EmulateViewport(1280, 840), chromedp.Click(chromedp.CSS("#tab-protocol")))
	p.shows("#frames", "room_message")
	p.accessible()

	for _, e := range []string{"button", "#messages li"} {
		const moves = `(() => { const s = getComputedStyle(document.querySelector(%q)); return s.animationName !== "none" || parseFloat(s.transitionDuration) > 0; })()`
		if p.prefers(still); eval[bool](p, fmt.Sprintf(moves, e)) {
			t.Errorf("%s moves where that is not wanted", e)
		}
		if p.prefers(); !eval[bool](p, fmt.Sprintf(moves, e)) {
			t.Errorf("%s never moves: this test finds nothing", e)
		}
	}
}

// accessible holds what is shown against the rules of axe-core.
func (p *page) accessible() {
	p.t.Helper()
	axe, err := os.ReadFile("ws/node_modules/axe-core/axe.min.js")
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if _, err := chromedp.Run(ctx, chromedp.Evaluate[bool](string(axe)+"; true")); err != nil {
		p.t.Fatal(err)
	}
	p.until(`document.getAnimations().every((a) => a.playState !== "running")`) // half way, colours are others
	for _, v := range eval[[]string](p, `axe.run().then((r) => [...r.violations, ...(r.passes.length > 10 ? [] : [{ id: "axe has not run", nodes: [] }])]
		.map((v) => v.id + ": " + v.help + "\n" + v.nodes.slice(0, 5).map((n) => n.html + "\n" + n.failureSummary).join("\n")))`) {
		p.t.Errorf("accessibility: %s", v)
	}
}

// By the keyboard alone: everything is reached, and the focus is seen.
func TestPageByKeyboard(t *testing.T) {
	t.Parallel()
	p := openPage(t, start(t))
	p.shows("#count", "1 here")
	p.until(`document.activeElement.id === "text"`)
	eval[any](p, `document.activeElement.blur()`)
	reached := map[string]bool{}
	for range 20 {
		p.do(chromedp.KeyEvent(kb.Tab))
		id := eval[string](p, `document.activeElement.id || document.activeElement.textContent.trim()`)
		if reached[id] {
			break
		}
		reached[id] = true
		if !eval[bool](p, `parseFloat(getComputedStyle(document.activeElement).outlineWidth) >= 2`) {
			t.Errorf("the focus on %s is not seen", id)
		}
	}
	for _, id := range []string{"tab-talk", "name", "log", "text", "Send", "second", "cut", "slow", "copy", "code"} {
		if !reached[id] {
			t.Errorf("%s is not reached: %v", id, reached)
		}
	}
	p.do(chromedp.Focus(chromedp.CSS("#tab-talk")), chromedp.KeyEvent(kb.ArrowRight))
	p.until(`document.activeElement.id === "tab-protocol" && !document.querySelector("#protocol").hidden`)
	p.do(chromedp.KeyEvent(kb.ArrowRight))
	p.until(`document.activeElement.id === "tab-talk" && document.querySelector("#protocol").hidden`)
	p.do(chromedp.Focus(chromedp.CSS("#cut")), chromedp.KeyEvent(" "))
	p.shows("#state", "your line is cut")
	p.shows("#state", "connected")
	p.do(chromedp.Focus(chromedp.CSS("#slow")), chromedp.KeyEvent(" "))
	p.until(`document.querySelector("#slow").getAttribute("aria-checked") === "true"`)
}

// A screen reader is told what comes, and not of each when many come.
func TestPageReadsOutInMeasure(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := openPage(t, s)
	p.shows("#count", "1 here")
	eval[any](p, `(window.told = 0, new MutationObserver(() => window.told++).observe(document.querySelector("#news"), { childList: true }))`)
	other := dialWS(t, s.ws("/ws")).welcomed()
	const n = 300
	for i := range n {
		other.sendf(`{"msg_type":"room_message","room":"lobby","content":{"name":"Bob","text":"n%d."}}`, i)
	}
	p.shows("#news", fmt.Sprintf("Bob: n%d.", n-1))
	p.shows("#messages", fmt.Sprintf("n%d.", n-1))
	if told := eval[int](p, `window.told`); told > n/4 {
		t.Errorf("of %d messages it was told %d times", n, told)
	}
}

// All that the page is made of goes by a strict policy, wherever it is mounted.
func TestPagePolicy(t *testing.T) {
	t.Parallel()
	res, err := http.Get(start(t).http("/"))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	csp := res.Header.Get("Content-Security-Policy")
	for _, part := range []string{"default-src 'none'", "script-src 'self';", "style-src 'self';", "frame-ancestors 'none'", "require-trusted-types-for 'script'"} {
		if !strings.Contains(csp, part) {
			t.Errorf("the policy lacks %q: %s", part, csp)
		}
	}
}

// The moving picture of the README: two windows talk, one line is cut, and catches up.
func TestPageMovingPicture(t *testing.T) {
	t.Parallel()
	s := start(t)
	pages := openPages(t, s, "Ann", "Bob")
	ann, bob := pages[0], pages[1]
	for _, p := range pages {
		p.do(chromedp.EmulateViewport(480, 560, chromedp.EmulateMobile))
		p.prefers([2]string{"prefers-reduced-motion", "reduce"})
	}
	var film film
	show := func(seconds float64) { film.add(t, seconds, ann.shot(), bob.shot()) }
	show(1)
	ann.say("Hello from the left window.")
	bob.shows("#messages", "left window")
	show(1.5)
	bob.do(chromedp.Focus(chromedp.CSS("#text")), chromedp.KeyEvent("And hello"))
	bob.isTyping("Bob", ann)
	show(1.5)
	bob.do(chromedp.KeyEvent(" from the right one." + kb.Enter))
	ann.shows("#messages", "right one")
	show(1.5)
	mend := ann.cut()
	bob.say("Are you in the tunnel already?")
	bob.sent()
	show(1.5)
	bob.say("I'll tell you all the same.")
	bob.sent()
	ann.say("I am, and I can type.")
	ann.shows("#messages .fate.waiting", "waiting for the line")
	show(2.5)
	mend()
	ann.shows("#catch-up", "2 messages came after, 1 of yours went out")
	ann.sent()
	bob.shows("#messages", "I can type")
	for _, p := range pages {
		p.until(`document.querySelector("#typing").textContent === ""`)
	}
	show(3.5)
	film.keep(t, "docs/pictures/page.gif")
}

// shot is what the page shows now.
func (p *page) shot() image.Image {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	shot, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(shot))
	if err != nil {
		p.t.Fatal(err)
	}
	return img
}

// film is a moving picture in the making.
type film struct {
	frames []*image.RGBA
	delays []int // hundredths of a second
}

// add has a frame of pictures side by side.
func (f *film) add(t *testing.T, seconds float64, pictures ...image.Image) {
	t.Helper()
	const border = 8
	size := pictures[0].Bounds().Size()
	frame := image.NewRGBA(image.Rect(0, 0, (size.X+border)*len(pictures)+border, size.Y+2*border))
	draw.Draw(frame, frame.Bounds(), image.NewUniform(color.Gray{0x9a}), image.Point{}, draw.Src)
	for i, p := range pictures {
		at := image.Pt(border+i*(size.X+border), border)
		draw.Draw(frame, image.Rectangle{at, at.Add(size)}, p, p.Bounds().Min, draw.Src)
	}
	f.frames = append(f.frames, frame)
	f.delays = append(f.delays, int(seconds*100))
}

// keep writes it as a GIF of less than a megabyte, where pictures are made.
func (f *film) keep(t *testing.T, path string) {
	t.Helper()
	palette := f.palette()
	out := gif.GIF{Delay: f.delays}
	for _, frame := range f.frames {
		p := image.NewPaletted(frame.Bounds(), palette)
		draw.Draw(p, p.Bounds(), frame, image.Point{}, draw.Src)
		out.Image = append(out.Image, p)
	}
	var b bytes.Buffer
	if err := gif.EncodeAll(&b, &out); err != nil {
		t.Fatal(err)
	}
	if b.Len() >= 1<<20 {
		t.Errorf("%s would have %d bytes", path, b.Len())
	}
	if !pictures() {
		return
	}
	at := filepath.Join("..", path)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// palette is the 256 colours that there are most of.
func (f *film) palette() (p color.Palette) {
	count := map[color.RGBA]int{}
	for _, frame := range f.frames {
		for i := 0; i < len(frame.Pix); i += 4 {
			count[color.RGBA{frame.Pix[i], frame.Pix[i+1], frame.Pix[i+2], 0xff}]++
		}
	}
	for _, c := range slices.SortedFunc(maps.Keys(count), func(a, b color.RGBA) int { return count[b] - count[a] }) {
		if len(p) < 256 {
			p = append(p, c)
		}
	}
	return p
}
