package e2e

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

const (
	paddleTop    = `+document.querySelector("#you").getAttribute("y") < 1`
	paddleBottom = `+document.querySelector("#you").getAttribute("y") > 71`
)

// key presses a key, or lets it go: a KeyEvent does both at once.
func (p *page) key(kind input.DispatchKeyEventType, name string) {
	p.t.Helper()
	p.do(func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, input.DispatchKeyEvent, input.DispatchKeyEventParams{Type: kind, Key: name, Code: name})
		return chromedp.Void{}, err
	})
}

// touch puts a finger on an element, at a part of its height, and takes it off again.
func (p *page) touch(selector string, part float64) {
	p.t.Helper()
	at := eval[[]float64](p, fmt.Sprintf(`(({ x, y, width, height }) => [x + width / 2, y + height * %f])(document.querySelector(%q).getBoundingClientRect())`, part, selector))
	p.do(func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, input.DispatchTouchEvent, input.DispatchTouchEventParams{
			Type: input.DispatchTouchEventTypeTouchStart, TouchPoints: []*input.TouchPoint{{X: at[0], Y: at[1]}},
		})
		if err == nil {
			_, err = cdp.Call(ctx, t, input.DispatchTouchEvent, input.DispatchTouchEventParams{Type: input.DispatchTouchEventTypeTouchEnd, TouchPoints: []*input.TouchPoint{}})
		}
		return chromedp.Void{}, err
	})
}

// moves waits until the ball has moved: the server's ticks come.
func (p *page) moves() {
	p.t.Helper()
	p.until(fmt.Sprintf(`document.querySelector("#ball").getAttribute("cx") !== %q`, eval[string](p, `document.querySelector("#ball").getAttribute("cx")`)))
}

func TestExampleGame(t *testing.T) {
	t.Parallel()
	s := startExample(t, "game", "-away", "1h")
	line := startProxy(t, s, nil)
	defer line.away.Store(true) // pages outlive a server that was started last
	p := startBrowser(t).open(line.front.http("/"), "WebSocket connection to", "Failed to load resource")
	p.shows("#state", "online")
	strictPage(t, s)

	// A match, by the keyboard alone.
	p.do(chromedp.Focus(chromedp.CSS("#name")), chromedp.KeyEvent("Ann"+kb.Enter))
	p.shows("#score", "You 0 : 0 bot")
	p.until(`document.querySelector("#start").hidden`)
	p.key(input.DispatchKeyEventTypeRawKeyDown, "ArrowDown")
	p.until(paddleBottom)
	p.key(input.DispatchKeyEventTypeKeyUp, "ArrowDown")
	p.moves()

	// Its line is cut: it comes back into the same match.
	eval[bool](p, `(() => {
		window.left = 0;
		new MutationObserver(() => document.querySelector("#state").textContent === "online" || window.left++)
			.observe(document.querySelector("#state"), { childList: true });
		return true;
	})()`)
	line.drop()
	p.until("window.left > 0")
	p.shows("#state", "online")
	p.moves()
	p.key(input.DispatchKeyEventTypeRawKeyDown, "w")
	p.until(paddleTop)
	if says := p.text("#says"); says != "" {
		t.Errorf("after a cut the page says %q", says)
	}

	// Who stays in the corner loses, and everybody sees it.
	p.shows("#says", "The bot wins.")
	p.key(input.DispatchKeyEventTypeKeyUp, "w")
	p.shows("#results li", "Ann")
	p.shows("#results li", ": 5 bot · the bot wins")
	again := func() {
		t.Helper()
		p.do(chromedp.Focus(chromedp.CSS("#start button")), chromedp.KeyEvent(kb.Enter))
		p.until(`document.querySelector("#start").hidden`)
		p.shows("#score", "You 0 : 0 bot")
	}
	again()
	p.until(`document.querySelector("#ball").getAttribute("cx") < 70`)
	p.picture("examples/game/screenshot.png")

	// A phone in the dark, a finger on the court.
	p.prefers([2]string{"prefers-color-scheme", "dark"})
	p.do(chromedp.EmulateViewport(360, 640, chromedp.EmulateMobile))
	p.until(`document.documentElement.scrollWidth <= 360`)
	p.touch("#court", 0.99)
	p.until(paddleBottom)
	p.touch("#court", 0.01)
	p.until(paddleTop)
	p.picture("bin/game-phone.png")

	// The ball waits for nobody: who comes back when the match is over hears how it ended.
	watcher := dialWS(t, s.ws("/ws")).welcomed()
	watcher.join("results")
	line.cutOff()
	p.shows("#state", "waiting")
	watcher.message("room_message")
	line.away.Store(false)
	p.shows("#says", "The bot wins.")
	again()

	// A server that begins anew knows of no match; the next one can be played.
	line.away.Store(true)
	if status := s.stop(t, syscall.SIGTERM); status != 0 {
		t.Errorf("exit status %d, want 0", status)
	}
	startExampleAt(t, s.addr, "game")
	line.away.Store(false)
	p.shows("#says", "The match is over")
	p.shows("#state", "online")
	p.until(`document.querySelector("#results").childElementCount === 0`)
	again()
	p.moves()
}

// Who loses the line and doesn't come back loses the match; who asks for what is none gets an answer, and plays on.
func TestExampleGameWhoStaysAwayLoses(t *testing.T) {
	t.Parallel()
	s := startExample(t, "game", "-away", "1s")
	watcher := dialWS(t, s.ws("/ws")).welcomed()
	watcher.join("results")

	c := dialRaw(t, s, "/ws", "")
	c.welcomed()
	c.write(text(`{"msg_type":"request","method":"move","content":{"to":"up"},"id":1}`))
	if m := c.message("error"); m.str("code") != "bad_message" {
		t.Errorf("a paddle that goes nowhere: %s", m.text)
	}
	c.write(text(`{"msg_type":"join_room","room":"match.1","id":2}`))
	if m := c.message("error"); m.str("code") != "forbidden" {
		t.Errorf("into a match by itself: %s", m.text)
	}
	c.write(text(`{"msg_type":"request","method":"play","content":{"name":"` + strings.Repeat("ä", 30) + `"},"id":3}`))
	if m := c.message("joined"); m.str("room") != "match.1" {
		t.Errorf("it plays in %s", m.text)
	}
	c.Close()
	m := watcher.message("room_message")
	if content := m.raw("content"); !strings.Contains(content, `"away":true`) || !strings.Contains(content, `"winner":"bot"`) || !strings.Contains(content, `"`+strings.Repeat("ä", 20)+`"`) {
		t.Errorf("the result is %s", content)
	}
}
