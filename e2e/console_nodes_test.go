package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// The console of a cluster, and of a server that has been there for an hour.

// runNode starts a node of a cluster under a name of its own; it may not be ready when this returns.
func runNode(t *testing.T, name, config string, flags ...string) *server {
	t.Helper()
	s := &server{addr: freeAddr(t), exited: make(chan struct{})}
	s.cmd = exec.Command(program, append([]string{"serve", "--listen", s.addr, "--node-name", name, "--api-key", consoleKey, "--config", config}, flags...)...)
	s.cmd.Env = append(os.Environ(), "HUBBUB_CLUSTER_SECRET="+stageKey)
	s.begin(t)
	return s
}

// Both nodes are drawn by both, one is marked as long as it has other policies, and who has lost the others says so.
func TestConsoleOfACluster(t *testing.T) {
	t.Parallel()
	const rooms = "rooms: [{match: r, presence: full}]\n"
	config := configFile(t, rooms)
	store := freeAddrs(t)
	first := runNode(t, "first", configFile(t, rooms), "--data-dir", t.TempDir(), "--cluster-listen", store)
	first.waitReady(t)
	second := runNode(t, "second", config, "--join", store)
	second.waitReady(t)
	b := startBrowser(t)
	open := func(s *server) *page {
		p := b.open(s.http("/console"), append([]string{"net::ERR_"}, lineFaults...)...)
		p.giveKey(consoleKey)
		p.goes("#/nodes")
		return p
	}
	// rows waits for so many nodes, and for one of them that says all this.
	rows := func(p *page, n int, texts ...string) {
		t.Helper()
		p.until(fmt.Sprintf(`document.querySelectorAll("#view tbody tr").length === %d`, n))
		p.until(fmt.Sprintf(`[...document.querySelectorAll("#view tbody tr")].some((e) => ["%s"].every((text) => e.textContent.includes(text)))`, strings.Join(texts, `", "`)))
	}
	const marked = `[...document.querySelectorAll("#view tbody tr")].filter((e) => e.querySelector(".bad")).map((e) => e.cells[0].textContent).join()`
	ofFirst, ofSecond := open(first), open(second)
	rows(ofFirst, 2, "first asked", "ready")
	rows(ofFirst, 2, "second", "ready")
	rows(ofSecond, 2, "second asked", "ready")
	rows(ofSecond, 2, "first", "ready")
	if got := eval[string](ofFirst, marked); got != "" {
		t.Errorf("%s is marked, and has the same policies", got)
	}
	ofFirst.accessible()

	reads := func(config, rooms string) { // by the second alone
		t.Helper()
		write(t, config, rooms)
		if err := second.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	const warning = "Nodes have other policies of rooms than this one"
	reads(config, "rooms: [{match: r, presence: full, publish: server}]\n")
	for p, other := range map[*page]string{ofFirst: "second", ofSecond: "first"} {
		p.shows("#view", warning)
		rows(p, 2, other, " differs")
		p.until(marked + fmt.Sprintf(" === %q", other))
		p.accessible()
	}
	reads(config, rooms)
	for _, p := range []*page{ofFirst, ofSecond} {
		p.until(fmt.Sprintf(`!document.querySelector("#view").textContent.includes(%q)`, warning))
		p.until(marked + ` === ""`)
	}

	first.stop(t, syscall.SIGKILL)
	ofSecond.shows("#view", "This node is cut off from the others")
	ofSecond.accessible()
}

// An hour as a server keeps it, and what is older: the charts have each sample of the hour where it belongs, and their
// labels say the span, the value now, the least and the most.
func TestConsoleChartsOfAnHour(t *testing.T) {
	t.Parallel()
	s := start(t, "--api-key", consoleKey)
	p := openConsole(t, s)
	p.goes("#/rooms")
	p.shows("#view h2", "Rooms")
	eval[any](p, `void (() => {
		const ask = window.fetch, now = Date.now();
		window.fetch = async (url, ...more) => {
			if (!String(url).includes("/samples")) return ask(url, ...more);
			if (String(url).includes("since=")) return Response.json({ node: "n", every_ms: 10000, samples: [] });
			const samples = [];
			for (let i = -40; i < 360; i++) samples.push({
				time: now - (359 - i) * 10e3, clients: i < 0 ? 7777 : i, connections: i, rooms: 1, waiting: 0, process: 3 * 2 ** 20, buffered: i === 100 ? 2 ** 20 : 0,
				received: 10, sent: i === 180 ? 12340 : 20, received_bytes: 0, sent_bytes: 10240, dropped: 0, errors: 0, accepted: 0, refused: 0, busy_micros: 2500000,
			});
			return Response.json({ node: "n", every_ms: 10000, samples });
		};
	})()`)
	p.goes("#/")
	p.until(`!!document.querySelector(".chart .stroke")?.getAttribute("d")`)
	type chart struct {
		Title, Top, From, Label string
		Lines                   [][]string // the points of each
	}
	charts := eval[[]chart](p, `[...document.querySelectorAll(".chart")].map((e) => ({
		title: e.querySelector("h3").textContent, top: e.querySelector(".top").textContent, from: e.querySelector(".axis span").textContent,
		label: e.querySelector("svg").getAttribute("aria-label"),
		lines: [...e.querySelectorAll(".stroke")].map((path) => path.getAttribute("d").slice(1).split("L")),
	}))`)
	// The plot is 720 wide and 120 high: 119 is zero, and 3 its top.
	for i, want := range []struct {
		title, top string
		at         map[int]string // of the first line, by sample
		told       string
	}{
		{"Clients", "500", map[int]string{0: "0.0 119.0", 180: "361.0 77.2", 359: "720.0 35.7"}, "connected 359 now, between 0 and 359"},
		{"Messages", "2,000/s", map[int]string{0: "0.0 118.9", 180: "361.0 47.4", 359: "720.0 118.9"}, "to clients 2/s now, between 2/s and 1,234/s; from clients 1/s now, between 1/s and 1/s"},
		{"Traffic", "1.0 KiB/s", map[int]string{0: "0.0 3.0", 359: "720.0 3.0"}, "out 1.0 KiB/s now, between 1.0 KiB/s and 1.0 KiB/s"},
		{"Memory", "4.0 MiB", map[int]string{0: "0.0 32.0"}, "between 0 B and 1.0 MiB"},
		{"Workers", "50 %", map[int]string{0: "0.0 61.0"}, "busy 25 % now, between 25 % and 25 %"},
		{"Lost and refused", "1/s", map[int]string{0: "0.0 119.0"}, "lost 0/s now"},
	} {
		if i >= len(charts) {
			t.Fatalf("there are %d charts", len(charts))
		}
		got := charts[i]
		if got.Title != want.title || got.Top != want.top || got.From != "59 min ago" || !strings.Contains(got.Label, want.title+", the last 59 min: ") || !strings.Contains(got.Label, want.told) {
			t.Errorf("%s: the top is %q, want %q; it begins %q; it is called %q, want %q in it", got.Title, got.Top, want.top, got.From, got.Label, want.told)
		}
		for k, line := range got.Lines {
			if len(line) != 360 {
				t.Errorf("%s, line %d: %d points, want 360", got.Title, k, len(line))
			}
		}
		for sample, at := range want.at {
			if len(got.Lines[0]) == 360 && got.Lines[0][sample] != at {
				t.Errorf("%s: sample %d is at %s, want %s", got.Title, sample, got.Lines[0][sample], at)
			}
		}
	}
	if n := eval[int](p, `document.querySelectorAll("details tbody tr").length`); n != 12 {
		t.Errorf("the table of the hour has %d rows, want 12", n)
	}
}
