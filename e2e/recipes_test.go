package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// The programs of docs/recipes, as they stand there, in a browser.

// recipe is one of these pages: its files in a folder that is served, and the server with its hubbub.yaml.
type recipe struct {
	*files
	addr     string // where the docs have localhost:8080
	hub      *server
	url      string
	browser  *browser
	commands []string // what the page has one type
}

func cook(t *testing.T, name string) *recipe {
	t.Helper()
	r := readRecipe(t, readDoc(t, "docs/recipes/"+name+".md"))
	r.serveHub()
	r.browser = startBrowser(t)
	return r
}

// readRecipe writes the files of a page's blocks, and serves them.
func readRecipe(t *testing.T, doc *docPage) *recipe {
	t.Helper()
	dir := t.TempDir()
	pages := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(pages.Close)
	r := &recipe{url: pages.URL, addr: freeAddr(t)}
	r.files = &files{t: t, dir: dir, instead: strings.NewReplacer("localhost:8080", r.addr, "localhost:3000", strings.TrimPrefix(pages.URL, "http://"))}
	for _, b := range doc.blocks {
		first, _, _ := strings.Cut(b.text, "\n")
		words := strings.Fields(first)
		switch {
		case len(words) > 1 && strings.HasPrefix(words[1], "before"): // another system's
		case b.kind == "console":
			for line := range strings.Lines(b.text) {
				if command, ok := strings.CutPrefix(line, "$ "); ok {
					r.commands = append(r.commands, strings.TrimSpace(command))
				}
			}
		case len(words) > 1 && strings.Contains(words[1], "."): // a comment with the file's name
			r.write(words[1], b.text)
		default:
			t.Fatalf("%s has a block that is no file and no command:\n%s", doc.name, b.text)
		}
	}
	return r
}

// serveHub starts the server that hubbub.yaml is for.
func (r *recipe) serveHub() {
	r.t.Helper()
	r.hub = &server{addr: r.addr, exited: make(chan struct{})}
	r.hub.cmd = exec.Command(program, "serve", "--listen", r.addr, "--config", "hubbub.yaml", "--api-key", backendKey)
	r.hub.cmd.Dir = r.dir
	r.hub.run(r.t)
}

// open shows a page of the recipe.
func (r *recipe) open(path string) *page {
	r.t.Helper()
	return r.browser.open(r.url+path, "WebSocket connection to", "Failed to load resource")
}

// members waits until so many are in a room.
func (r *recipe) members(room string, want int) {
	r.t.Helper()
	ask := `curl --fail -s -H "Authorization: Bearer $HUBBUB_API_KEY" http://localhost:8080/api/v1/rooms/` + room + "/presence"
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		got := r.run(ask)
		if strings.HasPrefix(got, fmt.Sprintf(`{"count":%d,`, want)) {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: %s, want %d", room, got, want)
		}
	}
}

func TestRecipePresence(t *testing.T) {
	t.Parallel()
	r := cook(t, "presence")
	ann, bob := r.open("/?name=Ann"), r.open("/?name=Bob")
	r.open("/?name=Bob")
	r.members("team.red", 3)
	ann.shows("#here", "Ann, Bob")
	bob.shows("#here", "Ann, Bob")
	r.members("typing.red", 3)
	// It is shown for 4 s, in which a busy machine may not look.
	eval[bool](ann, `new MutationObserver(() => (globalThis.seen = [...(globalThis.seen ?? []), typing.textContent]))
		.observe(document.querySelector("#typing"), { childList: true }) ?? true`)
	bob.do(chromedp.Focus(chromedp.CSS("input")), chromedp.KeyEvent("hel"))
	ann.until(`(globalThis.seen ?? []).includes("Bob is typing") && seen.at(-1) === ""`)
	bob.close()
	r.members("team.red", 2)
	ann.shows("#here", "Ann, Bob") // in his other window
}

func TestRecipeHistory(t *testing.T) {
	t.Parallel()
	r := cook(t, "history")
	other := dialWS(t, r.hub.ws("/ws")).welcomed()
	say := func(from, to int) (said []string) {
		for i := from; i <= to; i++ {
			other.sendf(`{"msg_type":"room_message","room":"log.1","content":"n%d","id":%d}`, i, i)
			other.message("ack")
			said = append(said, fmt.Sprintf("n%d", i))
		}
		return said
	}
	all := say(1, 25)
	p := r.open("/")
	p.lists(all[15:]...)
	all = append(all, say(26, 26)...)
	p.lists(all[15:]...)
	p.do(chromedp.Click(chromedp.CSS("button")))
	p.lists(all[5:]...)
	p.do(chromedp.Click(chromedp.CSS("button")))
	p.lists(all...)
	p.until(`document.querySelector("button").disabled`)

	// What is taken back goes.
	const takeBack = `curl --fail -sX DELETE -H "Authorization: Bearer $HUBBUB_API_KEY" http://localhost:8080/api/v1/rooms/log.1/history`
	r.run(takeBack + "/26")
	p.lists(all[:25]...)
	r.run(takeBack)
	p.lists()

	// A page that goes on where it was.
	r.write("index.html", `<!doctype html><ul></ul><script type="module" src="reload.js"></script>`)
	p = r.open("/")
	r.members("log.1", 2)
	p.until(`sessionStorage.getItem("log.1") !== null`)
	said := say(27, 28)
	p.lists(said...)
	p.do(chromedp.Navigate("about:blank"))
	said = append(said, say(29, 30)...)
	p.do(chromedp.Navigate(r.url + "/"))
	p.lists(said...)
	p.do(chromedp.Reload())
	p.lists(said...)
}

func TestRecipeDashboard(t *testing.T) {
	t.Parallel()
	r := cook(t, "dashboard")
	shows := func(p *page, want string) {
		t.Helper()
		p.until(fmt.Sprintf(`[...document.querySelectorAll("dl > *")].map((e) => e.textContent).join(" ") === %q`, want))
	}
	early := r.open("/")
	r.members("dash.eu", 1)
	r.run(r.commands[0])
	shows(early, "cpu 0.71")
	r.run(r.commands[1])
	shows(early, "cpu 0.74 disk 12 GB")
	shows(r.open("/"), "cpu 0.74 disk 12 GB")
	r.commands = r.commands[2:]
}

func TestRecipeBackend(t *testing.T) {
	t.Parallel()
	r := cook(t, "backend")
	early := r.open("/")
	r.members("order.7", 1)
	out := strings.Split(r.run(r.commands[2]), "\n")
	if len(out) != 2 || !strings.Contains(out[0], "offset: 1 }") || !strings.Contains(out[1], "offset: 1, duplicate: true }") {
		t.Errorf("%s says %q", r.commands[2], out)
	}
	early.shows("p", "Order 7 is paid")
	r.open("/").shows("p", "Order 7 is paid")
}

func TestRecipeReact(t *testing.T) {
	t.Parallel()
	r := cook(t, "react")
	r.install(r.commands[0])
	app, err := os.ReadFile(filepath.Join(r.dir, "app.jsx"))
	if err != nil {
		t.Fatal(err)
	}
	r.write("app.jsx", string(app)+`
globalThis.hub = hub;
const room = hub.room("team.red"), leave = room.leave;
room.leave = () => (globalThis.left = true, leave.call(room));
`)
	r.run(r.commands[1])
	p := r.open("/")
	p.shows("h1", "team.red: 1 here")
	p.until("globalThis.left === true") // by the second effect of StrictMode
	p.close()
	r.members("team.red", 0)
	r.showsRooms()
}

func TestRecipeVue(t *testing.T) {
	t.Parallel()
	r := cook(t, "vue")
	r.install(r.commands[0])
	app, err := os.ReadFile(filepath.Join(r.dir, "app.js"))
	if err != nil {
		t.Fatal(err)
	}
	r.write("app.js", string(app)+"\nglobalThis.hub = hub;\n")
	r.showsRooms()
}

// install does what an `npm install` of the docs does, by links to what deps.sh has installed.
func (r *recipe) install(command string) {
	r.t.Helper()
	packages, ok := strings.CutPrefix(command, "npm install ")
	if !ok {
		r.t.Fatalf("%s is no npm install", command)
	}
	modules := filepath.Join(r.dir, "node_modules")
	if err := os.Mkdir(modules, 0o755); err != nil {
		r.t.Fatal(err)
	}
	for _, name := range append(strings.Fields(packages), ".bin") {
		from := "pages/node_modules/" + name
		if name == "../hubbub/js" {
			from, name = "../js", "hubbub-client"
		}
		from, err := filepath.Abs(from)
		if err == nil {
			_, err = os.Stat(from)
		}
		if err == nil {
			err = os.Symlink(from, filepath.Join(modules, name))
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

// showsRooms is the story of the pages that are made with a framework: a room, another one, none, and the first again.
func (r *recipe) showsRooms() {
	r.t.Helper()
	other := dialWS(r.t, r.hub.ws("/ws")).welcomed()
	other.join("team.red")
	p := r.open("/")
	p.shows("h1", "team.red: 2 here")
	p.submit("hello")
	if m := other.message("room_message"); m.str("content") != "hello" {
		r.t.Errorf("the page says %s", m.text)
	}
	p.lists("hello")
	other.send(`{"msg_type":"room_message","room":"team.red","content":"hello to you"}`)
	p.lists("hello", "hello to you")

	click := func(n int) { p.do(chromedp.Click(chromedp.CSS(fmt.Sprintf("button:nth-of-type(%d)", n)))) }
	// Once a room is left nobody listens, and nothing awaits an answer.
	quiet := func(room string) {
		p.until(fmt.Sprintf(`[...hub.room(%q)._heard.values()].every((all) => all.size === 0) && !hub.room(%[1]q).joined`, room))
		p.until(`hub._pending.size === 0`)
	}
	click(2)
	p.shows("h1", "team.blue: 1 here")
	p.lists()
	quiet("team.red")
	r.members("team.red", 1)
	click(3)
	p.until(`!document.querySelector("section")`)
	quiet("team.blue")
	r.members("team.blue", 0)
	click(1)
	p.shows("h1", "team.red: 2 here")
	p.lists("hello", "hello to you")

	// It comes back by itself.
	eval[bool](p, `hub.on("state", (state) => (globalThis.states ??= []).push(state)) && !hub._socket.close(4002)`)
	p.until(`(globalThis.states ?? []).includes("waiting")`)
	other.send(`{"msg_type":"room_message","room":"team.red","content":"and again"}`)
	p.lists("hello", "hello to you", "and again")

	// A server that begins anew has nothing of that, and the page shows what it has.
	r.hub.stop(r.t, syscall.SIGTERM)
	r.serveHub()
	other = dialWS(r.t, r.hub.ws("/ws")).welcomed()
	other.send(`{"msg_type":"room_message","room":"team.red","content":{"text":"anew"}}`)
	p.until(`document.querySelectorAll("li").length === 1 && document.querySelector("li").textContent !== "hello"`)
}
