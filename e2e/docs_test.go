package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// docBlock is one fenced block of a page of the docs.
type docBlock struct{ kind, text string }

// docPage is such a page as its blocks, taken in their order.
type docPage struct {
	t      *testing.T
	name   string
	text   string
	blocks []docBlock
}

func readDoc(t *testing.T, name string) *docPage {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", name))
	if err != nil {
		t.Fatal(err)
	}
	return parseDoc(t, name, string(b))
}

func parseDoc(t *testing.T, name, text string) *docPage {
	p := &docPage{t: t, name: name, text: text}
	for _, m := range regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```$").FindAllStringSubmatch(text, -1) {
		p.blocks = append(p.blocks, docBlock{m[1], m[2]})
	}
	return p
}

// section reads one section of a page, by its title.
func (p *docPage) section(title string) *docPage {
	p.t.Helper()
	_, text, found := strings.Cut(p.text, "\n## "+title+"\n")
	if !found {
		p.t.Fatalf("%s has no section %q", p.name, title)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	return parseDoc(p.t, p.name, text)
}

// next is the next block, which must be of this kind and begin with this.
func (p *docPage) next(kind, begins string) string {
	p.t.Helper()
	if len(p.blocks) == 0 {
		p.t.Fatalf("%s has no more blocks, where one of %s shall begin with %q", p.name, kind, begins)
	}
	b := p.blocks[0]
	p.blocks = p.blocks[1:]
	if b.kind != kind || !strings.HasPrefix(b.text, begins) {
		p.t.Fatalf("%s goes on with %s, not with a block of %s that begins with %q:\n%s", p.name, b.kind, kind, begins, b.text)
	}
	return b.text
}

// commands are the next block's, without what they print.
func (p *docPage) commands(begins string) (all []string) {
	p.t.Helper()
	for line := range strings.Lines(p.next("console", "$ "+begins)) {
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			all = append(all, strings.TrimSpace(command))
		}
	}
	return all
}

// block is the first of a kind.
func (p *docPage) block(kind string) string {
	p.t.Helper()
	for _, b := range p.blocks {
		if b.kind == kind {
			return b.text
		}
	}
	p.t.Fatalf("%s has no block of %s", p.name, kind)
	return ""
}

// ended sees that there is nothing more, so that what is added to the page is tested too.
func (p *docPage) ended() {
	p.t.Helper()
	if len(p.blocks) > 0 {
		p.t.Errorf("%s has a block that nobody runs:\n%s", p.name, p.blocks[0].text)
	}
}

// files are a reader's own. Each that is written is a second newer than the one before, since a server of files and a
// browser tell versions apart by no less; and from the future, or the browser would go on with an old one for a tenth of
// its age.
type files struct {
	t       *testing.T
	dir     string
	instead *strings.Replacer // of the addresses in the docs, the test's
	time    time.Time
}

func (f *files) write(name, text string) {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		f.t.Fatal(err)
	}
	write(f.t, path, f.instead.Replace(text))
	if f.time = f.time.Add(time.Second); f.time.Before(time.Now()) {
		f.time = time.Now().Add(24 * time.Hour)
	}
	if err := os.Chtimes(path, f.time, f.time); err != nil {
		f.t.Fatal(err)
	}
}

// run runs a command of the docs in a shell, to its end, and returns what it says.
func (f *files) run(command string) string {
	f.t.Helper()
	cmd := exec.CommandContext(f.t.Context(), "bash", "-c", f.instead.Replace(command))
	cmd.Dir = f.dir
	cmd.Env = append(os.Environ(), "HUBBUB_API_KEY="+backendKey, "NO_PROXY=*", "npm_config_offline=true", "npm_config_cache="+f.dir+"/.npm")
	out, err := cmd.CombinedOutput()
	if err != nil {
		f.t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return strings.TrimSpace(string(out))
}

// serve runs a command of the docs that is `hubbub serve`, at addr, until the test ends or it is stopped.
func (f *files) serve(command, addr string) *server {
	f.t.Helper()
	s := &server{addr: addr, exited: make(chan struct{})}
	s.cmd = exec.Command("bash", "-c", "exec "+f.instead.Replace(command))
	s.cmd.Dir = f.dir
	s.cmd.Env = append(os.Environ(), "HUBBUB_LISTEN="+addr)
	s.run(f.t)
	return s
}

// folder runs a command of the docs that serves the folder, until the test ends, and waits until it does.
func (f *files) folder(command, addr string) {
	f.t.Helper()
	_, port, _ := net.SplitHostPort(addr)
	cmd := exec.Command("bash", "-c", "exec "+strings.Replace(command, "3000", port+" --bind 127.0.0.1", 1))
	cmd.Dir = f.dir
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if nc, err := net.Dial("tcp", addr); err == nil {
			nc.Close()
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("%s serves nothing", command)
		}
	}
}

// submit says something by the page's form, in which the field has the focus.
func (p *page) submit(text string) {
	p.t.Helper()
	p.do(chromedp.Focus(chromedp.CSS("input")), chromedp.KeyEvent(text+kb.Enter))
}

// close closes the page's tab, as somebody does who has seen enough.
func (p *page) close() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Cancel(ctx); err != nil {
		p.t.Fatal(err)
	}
}

// lists waits until the page's list is this.
func (p *page) lists(items ...string) {
	p.t.Helper()
	p.until(fmt.Sprintf(`[...document.querySelectorAll("ul > li")].map((li) => li.textContent).join("|") === %q`, strings.Join(items, "|")))
}

// counts waits until so many are in a room, in which the client itself is not.
func (c *client) counts(room string, want int64) {
	c.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		c.sendf(`{"msg_type":"presence","room":%q,"id":1}`, room)
		got := c.message("presence").num("count")
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%s has %d members, want %d", room, got, want)
		}
	}
}

// The README's programs do what it says.
func TestREADME(t *testing.T) {
	t.Parallel()
	doc := readDoc(t, "README.md")
	programs := map[string]string{}
	for _, b := range doc.blocks {
		first, _, _ := strings.Cut(b.text, "\n")
		programs[b.kind+" "+first] = b.text
	}
	page := httptest.NewUnstartedServer(nil)
	t.Cleanup(page.Close)
	s := start(t, "--allowed-origins", "http://"+page.Listener.Addr().String())
	f := &files{t: t, dir: t.TempDir(), instead: strings.NewReplacer("localhost:8080", s.addr)}
	page.Config.Handler = http.FileServer(http.Dir(f.dir))
	page.Start()

	f.write("client.js", programs[`js import { Hubbub } from "http://localhost:8080/hubbub.js";`])
	f.write("plain.js", programs[`js const ws = new WebSocket("ws://localhost:8080/ws");`])
	f.write("index.html", `<!doctype html><ul></ul><script>
console.log = (from, content) => document.querySelector("ul").append(Object.assign(document.createElement("li"), { textContent: content }));
document.head.append(Object.assign(document.createElement("script"), { type: "module", src: location.hash.slice(1) }));
</script>`)
	f.write("program.py", programs["python import asyncio, json, websockets"])
	python := exec.Command(python, "-u", "program.py")
	python.Dir = f.dir
	said := new(syncBuffer)
	python.Stdout, python.Stderr = said, said
	if err := python.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = python.Process.Kill()
		_ = python.Wait()
	})
	browser := startBrowser(t)
	plain := browser.open(page.URL+"/#plain.js", "favicon.ico")
	other := dialWS(t, s.ws("/ws")).welcomed()
	other.counts("lobby", 2) // the page and the program
	client := browser.open(page.URL+"/#client.js", "favicon.ico")
	plain.lists("hello")
	other.send(`{"msg_type":"room_message","room":"lobby","content":"hello to all"}`)
	plain.lists("hello", "hello to all")
	client.lists("hello to all")
	for deadline := time.Now().Add(patience); !strings.Contains(said.String(), "hello to all"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the program in Python says %s", said)
		}
	}
}
