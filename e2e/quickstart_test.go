package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"
)

// quickstart is somebody who reads docs/quickstart.md for the first time, and does what stands there.
type quickstart struct {
	t         *testing.T
	doc       *docPage
	hub, chat *files // the two folders
	addr, url string // of the server, and of the page
	start     string // the command that starts the server
	s         *server
	browser   *browser
	script    string // chat.js
	ann, bob  *page
	said      []string
}

func TestQuickstart(t *testing.T) {
	t.Parallel()
	addr, pages := freeAddr(t), freeAddr(t)
	instead := strings.NewReplacer("localhost:8080", addr, "localhost:3000", pages, "-o hubbub ", "-o "+filepath.Join(t.TempDir(), "hubbub")+" ")
	q := &quickstart{t: t, doc: readDoc(t, "docs/quickstart.md"), addr: addr, url: "http://" + pages + "/"}
	q.hub = &files{t: t, dir: t.TempDir(), instead: instead}
	q.chat = &files{t: t, dir: t.TempDir(), instead: instead}
	if err := os.Symlink(program, filepath.Join(q.hub.dir, "hubbub")); err != nil {
		t.Fatal(err)
	}

	commands := q.doc.commands("go build -o hubbub ./cmd/hubbub")
	(&files{t: t, dir: "..", instead: instead}).run(commands[0])
	q.start = commands[1]
	q.s = q.hub.serve(q.start, addr)

	q.chat.write("index.html", q.doc.next("html", "<!-- index.html -->"))
	q.script = q.doc.next("js", "// chat.js\n")
	q.chat.write("chat.js", q.script)
	q.chat.folder(q.doc.commands("python3 ")[0], pages)
	q.browser = startBrowser(t)
	q.talk()
	q.seeWhoIsThere()
	q.seeWhatWasSaid()
	q.pullThePlug()
	q.letInWhomTheyKnow()
	q.doc.ended()
}

// open opens a window. That the server is away is an error to the browser.
func (q *quickstart) open(rest string) *page {
	q.t.Helper()
	return q.browser.open(q.url+rest, "WebSocket connection to", "Failed to load resource")
}

// add adds the next block to the script, and reloads both windows.
func (q *quickstart) add(begins string) {
	q.t.Helper()
	q.script += q.doc.next("js", begins)
	q.chat.write("chat.js", q.script)
	for _, p := range []*page{q.ann, q.bob} {
		p.do(chromedp.Reload())
	}
}

// says has somebody say something, and ann see it.
func (q *quickstart) says(p *page, name, text string) {
	q.t.Helper()
	p.submit(text)
	q.said = append(q.said, name+": "+text)
	q.ann.lists(q.said...)
}

func (q *quickstart) talk() {
	q.ann, q.bob = q.open("?name=Ann"), q.open("?name=Bob")
	other := dialWS(q.t, q.s.ws("/ws")).welcomed()
	other.counts("lobby", 2)
	q.says(q.ann, "Ann", "is anybody there?")
	q.bob.lists(q.said...)
	q.says(q.bob, "Bob", "hello")
	other.send(`{"msg_type":"room_message","room":"lobby","content":"something else"}`)
	q.said = append(q.said, "somebody: something else")
	q.ann.lists(q.said...)
}

func (q *quickstart) seeWhoIsThere() {
	q.add("// who is there\n")
	q.ann.shows("h1", "Ann, Bob")
	q.bob.shows("h1", "Ann, Bob")
	q.bob.close()
	q.ann.until(`document.querySelector("h1").textContent === "Ann"`)
	q.bob = q.open("?name=Bob")
}

func (q *quickstart) seeWhatWasSaid() {
	q.add("// what was said before\n")
	q.ann.lists(q.said...)
	q.bob.lists(q.said...)
	q.says(q.bob, "Bob", "so early?")
}

func (q *quickstart) pullThePlug() {
	q.add("// when the line is gone\n")
	q.ann.lists(q.said...)
	q.bob.lists(q.said...)
	q.stop()
	q.ann.until(`document.title === "chat: waiting"`)
	q.ann.submit("where are you?")
	q.s = q.hub.serve(q.start, q.addr)
	q.bob.lists(append(q.said, "(the server has begun anew)", "Ann: where are you?")...)
	q.ann.until(`document.title === "chat: online"`)
}

func (q *quickstart) letInWhomTheyKnow() {
	q.stop()
	q.hub.run(q.doc.commands("openssl ")[0])
	q.hub.write("hubbub.yaml", q.doc.next("yaml", "# hubbub.yaml\n"))
	q.s = q.hub.serve(q.doc.commands("./hubbub serve")[0], q.addr)
	q.chat.write("chat.js", q.doc.next("js", "// chat.js\n"))
	var tokens []string
	for _, command := range q.doc.commands("./hubbub token") {
		tokens = append(tokens, q.hub.run(command))
	}
	q.ann, q.bob = q.open("#"+tokens[0]), q.open("#"+tokens[1])
	q.ann.shows("h1", "ann, bob")
	q.bob.shows("h1", "ann, bob")
	q.ann.submit("among us")
	q.bob.lists("ann: among us")
	q.open("#" + tokens[1]).lists("ann: among us")
	q.open("#"+tokens[2]).shows("h1", "may not join")
	q.open("").until(`document.title.includes("there is no token")`)
}

// stop is Control-C.
func (q *quickstart) stop() {
	q.t.Helper()
	if status := q.s.stop(q.t, syscall.SIGINT); status != 0 {
		q.t.Errorf("the server ends with status %d", status)
	}
}
