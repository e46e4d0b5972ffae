package e2e

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	window "github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/domdebugger"
	"github.com/chromedp/cdproto/heapprofiler"
	"github.com/chromedp/cdproto/network"
	cdpage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/systeminfo"
	"github.com/chromedp/chromedp"
)

// Chromium's tabs, as the stories of both browsers want them, and the stories that need its debugger.

// show opens a URL as a tab, which is closed with the test t.
func (b *browser) show(t *testing.T, url string) tab {
	t.Helper()
	// A line that is cut, and a server that is away or refuses, are errors to the browser.
	p := (&browser{t: t, ctx: b.ctx}).open(url, "WebSocket connection to", "Failed to load resource", "net::ERR_")
	// Each frame of a WebSocket would be an event. Of a tab that is gone chromedp reads none, and stands still for all
	// tabs when it has too many of them.
	command(p, network.Disable, cdp.Empty{})
	return p
}

func (p *page) visit(url string) error {
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	return chromedp.Do(ctx, chromedp.Navigate(url))
}

// back doesn't wait for the page to load: one that the browser has kept never does.
func (p *page) back() error {
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	_, err := chromedp.Run(ctx, chromedp.Evaluate[any]("history.back()"))
	return err
}

func (p *page) leave() { command(p, cdpage.Close, cdp.Empty{}) }

func (p *page) evaluate(expression string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string]("(async () => JSON.stringify((await ("+expression+")) ?? null))()", chromedp.EvalAwaitPromise))
	return []byte(text), err
}

// command has the debugger do something to the page of a tab.
func command[P, R any](p tab, c cdp.Command[P, R], params P) R {
	page := p.(*page)
	page.t.Helper()
	var result R
	page.do(func(ctx context.Context, t *chromedp.Target) (_ chromedp.Void, err error) {
		if result, err = cdp.Call(ctx, t, c, params); err != nil {
			err = fmt.Errorf("%s: %w", c.Method, err)
		}
		return chromedp.Void{}, err
	})
	return result
}

var chromiumStories = []struct {
	name string
	tell func(t *testing.T, b *browser)
}{
	{"the network is gone", theNetworkIsGone},
	{"frozen and thawed", frozenAndThawed},
	{"hidden", hidden},
	{"asleep", func(t *testing.T, b *browser) { asleep(t, b, "10m") }},
	{"asleep for longer than the session", func(t *testing.T, b *browser) { asleep(t, b, "2s") }},
	{"its process stands still", itsProcessStandsStill},
	{"nothing is left over", nothingIsLeftOver},
}

// What Chromium's debugger can do to a page, and a story of each.
func TestClientInChromiumUnderTheDebugger(t *testing.T) {
	t.Parallel()
	b := startBrowser(t, chromedp.Flag("enable-features", "IntensiveWakeUpThrottling:grace_period_seconds/1"))
	for _, story := range chromiumStories {
		t.Run(story.name, func(t *testing.T) { story.tell(t, b) })
	}
}

// The browser says that it is offline, and lets no byte of an open WebSocket through any more, without ending it.
func theNetworkIsGone(t *testing.T, b *browser) {
	g := setStage(t, b.show, "--resume-window", "10m")
	p := g.page()
	command(p, network.Enable, network.EnableParams{}) // without it an open WebSocket goes on
	v := g.guest(p, "ann", "{}")
	v.join("r")
	g.publish("r", 1, 10)
	v.hears(10)
	before := v.record()
	// The command that cdproto has for it doesn't tell the page.
	conditions := cdp.Command[network.OverrideNetworkStateParams, cdp.Empty]{Method: "Network.emulateNetworkConditions"}
	command(v.tab, conditions, network.OverrideNetworkStateParams{Offline: true, DownloadThroughput: -1, UploadThroughput: -1})
	wait(t, v.tab, `life.includes("offline")`)
	g.publish("r", 11, 20)
	v.publish("r", 21, 25)
	v.until("it is seen", func(r record) bool { return r.State != "online" })
	command(v.tab, conditions, network.OverrideNetworkStateParams{DownloadThroughput: -1, UploadThroughput: -1})
	v.until("all acknowledged", func(r record) bool { return len(r.Acked) == 5 })
	v.hears(20)
	if r := v.online(); r.ID != before.ID || len(r.Failed) != 0 {
		t.Errorf("it is %s, and was %s; failed: %s", r.ID, before.ID, r.Failed)
	}
	if kept := ask[int](t, v.tab, `guests.ann.hub.room("r").history({}).then((h) => h.messages.length)`); kept != 25 {
		t.Errorf("the room has %d messages, want 25", kept)
	}
}

func frozenAndThawed(t *testing.T, b *browser) {
	g := setStage(t, b.show, "--resume-window", "10m")
	v := g.guest(g.page(), "ann", "{}")
	v.join("r")
	g.publish("r", 1, 10)
	v.hears(10)
	before := v.record()
	command(v.tab, cdpage.SetWebLifecycleState, cdpage.SetWebLifecycleStateParams{State: "frozen"})
	becomes(t, g.s, "hubbub_connections", 0)
	g.publish("r", 11, 2000)
	command(v.tab, cdpage.SetWebLifecycleState, cdpage.SetWebLifecycleStateParams{State: "active"})
	v.hears(2000)
	if r := v.online(); r.ID != before.ID || !r.cameBack() {
		t.Errorf("it is %s, and was %s: %s", r.ID, before.ID, r.path())
	}
}

// A hidden page's timers go off once a second, and later once a minute. Its line stays.
func hidden(t *testing.T, b *browser) {
	g := setStage(t, b.show, "--ping-interval", "1s")
	v := g.guest(g.page(), "ann", "{}")
	v.join("r")
	at := command(v.tab, window.GetWindowForTarget, window.GetWindowForTargetParams{})
	show := func(state window.WindowState) {
		command(v.tab, window.SetWindowBounds, window.SetWindowBoundsParams{WindowID: at.WindowID, Bounds: &window.Bounds{WindowState: state}})
	}
	show("minimized")
	wait(t, v.tab, `document.visibilityState === "hidden"`)
	if _, err := v.tab.evaluate("void tick()"); err != nil {
		t.Fatal(err)
	}
	g.publish("r", 1, 3000)
	v.hears(3000)
	wait(t, v.tab, "longestTick > 5000") // so much for timers
	g.publish("r", 3001, 3010)
	v.hears(3010)
	show("normal")
	wait(t, v.tab, `document.visibilityState === "visible"`)
	v.publish("r", 1, 1)
	r := v.until("acknowledged", func(r record) bool { return len(r.Acked) == 1 })
	for _, s := range r.States {
		if s.Reason == "no sign of life" { // its timers were late, not the server
			t.Errorf("it was %+v", r.States)
		}
	}
}

// halt stops the browser's processes, or the pages' alone, until the function that it returns is called.
func halt(t *testing.T, b *browser, kind string) (goOn func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	all, err := cdp.Call(ctx, chromedp.FromContext(ctx).Browser, systeminfo.GetProcessInfo, cdp.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	each := func(sig syscall.Signal) {
		for _, one := range all.ProcessInfo {
			if kind == "" || one.Type == kind {
				_ = syscall.Kill(int(one.ID), sig) // one may have ended
			}
		}
	}
	goOn = func() { each(syscall.SIGCONT) }
	t.Cleanup(goOn)
	each(syscall.SIGSTOP)
	return goOn
}

// A laptop that slept: nothing of the browser ran, its sockets neither. The server has given it up meanwhile.
func asleep(t *testing.T, b *browser, resumable string) {
	g := setStage(t, b.show, "--ping-interval", "1s", "--pong-timeout", "1s", "--resume-window", resumable)
	v := g.guest(g.page(), "ann", "{}")
	v.join("r")
	g.publish("r", 1, 10)
	v.hears(10)
	before := v.record()
	wake := halt(t, b, "")
	g.publish("r", 11, 20)
	becomes(t, g.s, "hubbub_connections", 0)
	if resumable == "2s" {
		becomes(t, g.s, "hubbub_parked_sessions", 0)
	}
	g.publish("r", 21, 30)
	wake()
	v.hears(30)
	if r := v.online(); (r.ID == before.ID) != (resumable != "2s") || !r.cameBack() {
		t.Errorf("it is %s, and was %s: %+v", r.ID, before.ID, r.States)
	}
}

// The page's own process stands still while the one that has its sockets goes on: the server hears Pongs all the while.
func itsProcessStandsStill(t *testing.T, b *browser) {
	g := setStage(t, b.show, "--ping-interval", "1s", "--pong-timeout", "1s", "--resume-window", "10m")
	v := g.guest(g.page(), "ann", "{}")
	v.join("r")
	goOn := halt(t, b, "renderer")
	n := 0
	for begin := time.Now(); time.Since(begin) < 6*time.Second; n++ { // longer than the client's patience and the server's
		g.publish("r", n+1, n+1)
	}
	goOn()
	v.hears(n)
	v.online()
}

// After a hundred connections one is left, and after close() none, nor a timer or a listener.
func nothingIsLeftOver(t *testing.T, b *browser) {
	g := setStage(t, b.show)
	p := g.page()
	listeners := func() int {
		n := 0
		for _, target := range []string{"globalThis", "document"} {
			n += len(command(p, domdebugger.GetEventListeners, domdebugger.GetEventListenersParams{ObjectID: object(p, target)}).Listeners)
		}
		return n
	}
	sockets := func() string {
		found := command(p, runtime.QueryObjects, runtime.QueryObjectsParams{PrototypeObjectID: object(p, "WebSocket.prototype"), ObjectGroup: "count"})
		command(p, runtime.ReleaseObjectGroup, runtime.ReleaseObjectGroupParams{ObjectGroup: "count"})
		return found.Objects.Description
	}
	heap := func() float64 {
		command(p, heapprofiler.CollectGarbage, cdp.Empty{})
		return command(p, runtime.GetHeapUsage, cdp.Empty{}).UsedSize
	}
	before := listeners()
	v := g.guest(p, "ann", "{minDelay: 1, maxDelay: 2}")
	v.join("r")
	reconnect := func(times int) float64 {
		for range times {
			g.line.drop()
			wait(t, p, `guests.ann.states.some((s) => s.state === "waiting") && guests.ann.hub.state === "online"`)
			if _, err := p.evaluate("void (guests.ann.states.length = 0)"); err != nil {
				t.Fatal(err)
			}
		}
		return heap()
	}
	first := reconnect(20)
	after := reconnect(100)
	t.Logf("the heap has grown by %.0f bytes in 100 connections", after-first)
	if after-first > 200_000 {
		t.Errorf("the heap has grown from %.0f to %.0f", first, after)
	}
	if n := sockets(); n != "Array(1)" {
		t.Errorf("WebSockets: %s, want one", n)
	}
	g.publish("r", 1, 3)
	v.hears(3)
	v.do("close", "")
	if r := v.record(); r.State != "closed" || r.Timers != 0 || r.Socket || r.Pending != 0 {
		t.Errorf("after close(): %+v", r)
	}
	if n := listeners(); n != before {
		t.Errorf("%d listeners, and before there were %d", n, before)
	}
	becomes(t, g.s, "hubbub_connections", 0)
	for deadline := time.Now().Add(patience); sockets() != "Array(0)"; { // the browser lets go of it when its Close is answered
		if time.Now().After(deadline) {
			t.Fatalf("WebSockets: %s, want none", sockets())
		}
	}
}

// object is the debugger's name for what an expression gives.
func object(p tab, expression string) runtime.RemoteObjectID {
	return command(p, runtime.Evaluate, runtime.EvaluateParams{Expression: expression}).Result.ObjectID
}
