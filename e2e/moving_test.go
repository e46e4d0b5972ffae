package e2e

import (
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The programs that docs/moving.md has people move to, as they stand there.

// afterPage is what the docs say of show, and the script.
const afterPage = `<!doctype html><title>after</title><ul></ul><script>
globalThis.show = (...what) => document.querySelector("ul").append(Object.assign(document.createElement("li"), { textContent: what.join(": ") }));
</script><script type="module" src="after.js"></script>`

// moved opens the page of a section for ann, and when she has joined the room for bob.
func moved(t *testing.T, section, room string) (r *recipe, ann, bob *page) {
	t.Helper()
	r = readRecipe(t, readDoc(t, "docs/moving.md").section(section))
	r.write("hubbub.secret", backendKey)
	r.write("index.html", afterPage)
	r.serveHub()
	r.browser = startBrowser(t)
	enter := func(user string) *page {
		out, status := hubbub(t, []string{"HUBBUB_JWT_KEY=" + backendKey}, "token", "--user", user, "--join", "team*")
		if status != 0 {
			t.Fatal(out)
		}
		r.write("hubbub-token", strings.TrimSpace(out))
		return r.open("/")
	}
	ann = enter("ann")
	r.members(room, 1)
	bob = enter("bob")
	r.members(room, 2)
	return r, ann, bob
}

// heard waits until the page has these lines, whatever others it has.
func (p *page) heard(lines ...string) {
	p.t.Helper()
	for _, line := range lines {
		p.shows("ul", line)
	}
}

func TestMovingFromSocketIO(t *testing.T) {
	t.Parallel()
	r, ann, bob := moved(t, "Socket.IO", "team.red")
	ann.heard("bob: hello")
	r.run(r.commands[0])
	ann.heard("news: lunch")
	bob.heard("news: lunch")
}

func TestMovingFromCentrifugo(t *testing.T) {
	t.Parallel()
	r, ann, bob := moved(t, "Centrifugo", "team:red")
	ann.heard("ann: hello", "bob: hello")
	bob.heard("bob: hello")
	r.run(r.commands[0])
	ann.heard("news: lunch")
	bob.heard("news: lunch")
}

func TestMovingFromPusher(t *testing.T) {
	t.Parallel()
	r, ann, bob := moved(t, "Pusher Channels", "client-red")
	ann.heard("here: ann, bob", "bob: …")
	bob.heard("here: ann, bob")
	r.run(r.commands[0])
	ann.heard("ann: hello")
	bob.heard("ann: hello")
}

func TestMovingFromAHub(t *testing.T) {
	t.Parallel()
	r := readRecipe(t, readDoc(t, "docs/moving.md").section("A hub of gorilla/websocket"))
	r.write("static/index.html", afterPage)
	binary := filepath.Join(r.dir, "after")
	build := exec.Command("go", "build", "-o", binary, filepath.Join(r.dir, "after.go"))
	build.Dir = ".." // in the module, where it finds the library
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s := &server{addr: r.addr, base: "/live", exited: make(chan struct{})}
	s.cmd = exec.Command(binary)
	s.cmd.Dir = r.dir
	s.run(t)
	browser := startBrowser(t)
	ann := browser.open(s.http("/"), "favicon.ico")
	ann.lists("hello")
	bob := browser.open(s.http("/"), "favicon.ico")
	bob.lists("hello")
	ann.lists("hello", "hello")
	res, err := http.PostForm(s.http("/announce"), url.Values{"text": {"lunch"}})
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	ann.lists("hello", "hello", "lunch")
	bob.lists("hello", "lunch")
}
