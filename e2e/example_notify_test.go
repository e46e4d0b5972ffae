package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// startNotify runs the backend of examples/notify, which starts the hubbub under test. Pages reach that through a line to cut.
func startNotify(t *testing.T) (backend, hub *server, line *proxy) {
	t.Helper()
	hub = &server{addr: freeAddr(t)}
	line = startProxy(t, hub, nil)
	return runNotify(t, freeAddr(t), hub, line), hub, line
}

func runNotify(t *testing.T, addr string, hub *server, line *proxy) (backend *server) {
	t.Helper()
	backend = &server{addr: addr, exited: make(chan struct{})}
	backend.cmd = exec.Command("node", "../examples/notify/backend.js", "--listen", addr, "--hubbub", hub.addr, "--public", line.front.addr, "--program", program)
	backend.run(t)
	return backend
}

// A backend whose address is taken says so, and leaves no hubbub behind.
func TestExampleNotifyCantListen(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", freeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	addr := taken.Addr().String()
	out, err := exec.CommandContext(ctx, "node", "../examples/notify/backend.js", "--listen", addr, "--hubbub", freeAddr(t), "--program", program).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "--listen "+addr) || strings.Contains(string(out), "process id") {
		t.Errorf("%v\n%s", err, out)
	}
}

// visitor is somebody with a cookie and without a page.
type visitor struct {
	t       *testing.T
	backend *server
	client  http.Client
}

func newVisitor(t *testing.T, backend *server, name string) *visitor {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	v := &visitor{t, backend, http.Client{Jar: jar, Timeout: patience}}
	v.posts("/sign-in", map[string]string{"name": name}, http.StatusNoContent)
	return v
}

func (v *visitor) posts(path string, body any, status int) {
	v.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		v.t.Fatal(err)
	}
	res, err := v.client.Post(v.backend.http(path), "application/json", strings.NewReader(string(b)))
	if err != nil {
		v.t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != status {
		says, _ := io.ReadAll(res.Body)
		v.t.Errorf("POST %s %s: %s %s, want %d", path, b, res.Status, says, status)
	}
}

func (v *visitor) notifies(to, text string) {
	v.t.Helper()
	v.posts("/notify", map[string]string{"to": to, "text": text}, http.StatusNoContent)
}

func TestExampleNotify(t *testing.T) {
	t.Parallel()
	backend, hub, line := startNotify(t)
	defer line.away.Store(true) // pages outlive a server that was started last
	b := startBrowser(t)
	faults := []string{"WebSocket connection to", "Failed to load resource"}

	strictPage(t, backend)

	// Ann signs in by the keyboard, and is welcome.
	p := b.open(backend.http("/"), faults...)
	p.until(`document.activeElement.id === "name"`)
	p.do(chromedp.KeyEvent("ann" + kb.Enter))
	p.shows("#state", "online")
	p.shows("#notices", "Welcome, ann!")
	p.shows("#badge", "1 new")

	// A second tab is hers too. What bob's page asks the backend to tell her, both show.
	second := b.open(backend.http("/"), faults...)
	second.shows("#badge", "1 new")
	second.shows("#state", "online")
	bob := newVisitor(t, backend, "bob")
	bob.notifies("ann", "Lunch at one?")
	for _, tab := range []*page{p, second} {
		tab.shows("#notices li.new", "Lunch at one?")
		tab.shows("#badge", "2 new")
		tab.until(`document.title.startsWith("(2) ")`)
	}
	newVisitor(t, backend, "ann")
	p.shows("#says", "signed in somewhere else")
	second.shows("#says", "signed in somewhere else")
	p.picture("examples/notify/screenshot.png")

	// What is read in one tab is read in the other.
	second.do(chromedp.Focus(chromedp.CSS("#read")), chromedp.KeyEvent(kb.Enter))
	p.until(`document.querySelector("#badge").hidden`)
	second.until(`document.querySelector("#badge").hidden`)
	p.do(chromedp.Focus(chromedp.CSS("#to")), chromedp.KeyEvent("ann"), chromedp.Focus(chromedp.CSS("#text")), chromedp.KeyEvent("buy milk"+kb.Enter))
	second.shows("#notices li.new", "buy milk")

	// While the line is cut, and while no page is open, nothing is lost.
	second.do(chromedp.Navigate("about:blank"))
	line.cutOff()
	p.shows("#state", "waiting")
	bob.notifies("ann", "<b>while</b> you were away")
	line.away.Store(false)
	p.shows("#notices li.new", "<b>while</b> you were away")
	second.do(chromedp.Navigate(backend.http("/")))
	second.shows("#badge", "2 new")

	// Nor when Hubbub dies and forgets all: the backend has it, and pages know that they must ask.
	processes := regexp.MustCompile(`hubbub has the process id (\d+)`).FindAllStringSubmatch(backend.log.String(), -1)
	pid, err := strconv.Atoi(processes[len(processes)-1][1])
	if err != nil {
		t.Fatal(err)
	}
	line.away.Store(true)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.shows("#state", "waiting")
	bob.notifies("ann", "Hubbub is down")
	backend.waitReady(t)
	line.away.Store(false)
	for _, tab := range []*page{p, second} {
		tab.shows("#notices li.new", "Hubbub is down")
		tab.shows("#state", "online")
		tab.shows("#badge", "3 new")
	}

	// A phone in the dark. Who signs out is out in every tab.
	p.prefers([2]string{"prefers-color-scheme", "dark"}, [2]string{"prefers-reduced-motion", "reduce"})
	p.do(chromedp.EmulateViewport(360, 640, chromedp.EmulateMobile))
	p.until(`document.documentElement.scrollWidth <= 360`)
	p.picture("bin/notify-phone.png")
	p.do(chromedp.Focus(chromedp.CSS("#sign-out")), chromedp.KeyEvent(kb.Enter))
	for _, tab := range []*page{p, second} {
		tab.until(`!document.querySelector("#sign-in").hidden && document.querySelector("#inbox").hidden`)
	}
	p.until(`document.documentElement.scrollWidth <= 360`)

	// A backend that begins anew knows nobody, and has another key: pages ask who it is that they have.
	p.do(chromedp.Focus(chromedp.CSS("#name")), chromedp.KeyEvent(kb.Enter))
	p.shows("#state", "online")
	line.away.Store(true)
	if status := backend.stop(t, syscall.SIGTERM); status != 0 {
		t.Errorf("exit status %d, want 0", status)
	}
	runNotify(t, backend.addr, hub, line)
	line.away.Store(false)
	p.until(`!document.querySelector("#sign-in").hidden`)
}

// Nobody reads or writes what is another's, and what is no call is answered as such.
func TestExampleNotifyRefuses(t *testing.T) {
	t.Parallel()
	backend, hub, _ := startNotify(t)
	newVisitor(t, backend, "ann")
	bob := newVisitor(t, backend, "bob")
	for _, body := range []any{map[string]any{"to": "ann"}, map[string]any{"to": "ann", "text": strings.Repeat("x", 201)}, map[string]any{"to": "ann", "text": 7}, nil, 7} {
		status := http.StatusBadRequest
		if _, ok := body.(map[string]any); !ok {
			status = http.StatusNotFound // to nobody
		}
		bob.posts("/notify", body, status)
	}
	bob.posts("/notify", map[string]any{"to": "carol", "text": "hello"}, http.StatusNotFound)
	bob.posts("/notify", map[string]any{"to": "ann", "text": strings.Repeat("x", 20_000)}, http.StatusRequestEntityTooLarge)
	bob.posts("/read", map[string]any{"upTo": 1e9}, http.StatusBadRequest)
	bob.posts("/sign-in", map[string]any{"name": "ann,bob"}, http.StatusBadRequest)
	bob.posts("/constructor", nil, http.StatusNotFound)

	res, err := bob.client.PostForm(backend.http("/notify"), nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("a form: %s", res.Status)
	}
	stranger := visitor{t, backend, http.Client{Timeout: patience}}
	stranger.posts("/notify", map[string]any{"to": "ann", "text": "hello"}, http.StatusUnauthorized)

	if res, err = bob.client.Get(backend.http("/token")); err != nil {
		t.Fatal(err)
	}
	token, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("a token: %s %v", res.Status, err)
	}
	c := dialRaw(t, hub, "/ws?token="+string(token), "")
	if m := c.message("welcome"); m.str("user") != "bob" {
		t.Errorf("bob is %s", m.text)
	}
	for room, answer := range map[string]string{"user:ann": "error", "user:*": "error", "lobby": "error", "user:bob": "joined"} {
		c.write(text(fmt.Sprintf(`{"msg_type":"join_room","room":%q,"id":1}`, room)))
		c.message(answer)
	}
	c.write(text(`{"msg_type":"room_message","room":"user:bob","content":{"read":99},"id":2}`))
	if m := c.message("error"); m.str("code") != "forbidden" {
		t.Errorf("a page publishes: %s", m.text)
	}
}
