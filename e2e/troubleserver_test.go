package e2e

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// mishaps are all symptoms of the page.
var mishaps = func() map[string]func(*mishap) {
	all := map[string]func(*mishap){}
	for _, some := range []map[string]func(*mishap){cannotConnect, connectionEnds, messagesMissing, serverTroubles} {
		maps.Copy(all, some)
	}
	return all
}()

// Symptoms of messages, by the headings of docs/troubleshooting.md.
var messagesMissing = map[string]func(*mishap){
	"I don't get what I publish myself": func(tr *mishap) {
		tr.start()
		c := tr.enter()
		tr.tell(c, `{"msg_type":"join_room","room":"r","id":1}`)
		tr.tell(c, `{"msg_type":"room_message","room":"r","content":"hello","id":2}`)
		c.write(text(`{"msg_type":"ping","id":3}`))
		c.message("pong") // and nothing before it
		tr.s = start(tr.t, rules(tr, "rooms: [{match: r, include-sender: on}]\n")...)
		c = tr.enter()
		c.write(text(`{"msg_type":"join_room","room":"r"}`) + text(`{"msg_type":"room_message","room":"r","content":"hello"}`))
		c.message("room_message")
	},
	"`recovered` is false, with `epoch`": func(tr *mishap) {
		tr.comesBack("epoch", nil)
		dir := tr.t.TempDir()
		tr.comesBack("", []string{"--data-dir", dir})
	},
	"`recovered` is false, with `expired`": func(tr *mishap) {
		flags := rules(tr, "rooms: [{match: r, history: {messages: 1}}]\n")
		tr.start(flags...)
		c := tr.enter()
		position := positionOf(parse(tr.t, tr.tell(c, `{"msg_type":"join_room","room":"r","id":1}`), "joined"))
		other := tr.enter()
		for range 3 {
			other.write(text(`{"msg_type":"room_message","room":"r","content":1,"id":1}`))
			other.message("ack")
		}
		tr.tell(tr.enter(), `{"msg_type":"join_room","room":"r","since":`+position+`,"id":1}`)
	},
	"`recovered` is false, with `no_history`": func(tr *mishap) {
		tr.start(rules(tr, "rooms: [{match: r, history: off}]\n")...)
		tr.tell(tr.enter(), `{"msg_type":"join_room","room":"r","since":{"epoch":"k3.1","offset":17},"id":1}`)
	},
	"A `gap` comes": func(tr *mishap) {
		tr.start(append(rules(tr, "rooms: [{match: r, slow-consumer: drop-oldest}]\n"), "--send-queue-bytes", "64KiB", "--max-message-bytes", "16KiB")...)
		slow, publisher := tr.enter(), tr.enter()
		if err := slow.Conn.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
			tr.t.Fatal(err)
		}
		slow.write(text(`{"msg_type":"join_room","room":"r","id":1}`))
		slow.message("joined")
		for n := 0; scrape(tr.t, tr.s)[`hubbub_dropped_total{policy="drop-oldest"}`] == 0; {
			n = flood(publisher, "r", n, 50*time.Millisecond)
		}
		for {
			if m := slow.expect(fin | opText); strings.HasPrefix(m, `{"msg_type":"gap"`) {
				tr.see("%s", m)
				return
			}
		}
	},
	"`forbidden`, and the log has a line": func(tr *mishap) {
		tr.start(rules(tr, "rooms: [{match: \"news.*\", publish: server}]\n")...)
		tr.tell(tr.enter(), `{"msg_type":"room_message","room":"news.1","content":1,"id":1}`)
		out, status := hubbub(tr.t, nil, "config", "--config", configFile(tr.t, "rooms: [{match: \"news.*\", publish: server}]\n"), "--room", "news.1")
		if status != 0 || !strings.Contains(out, "publish: server") {
			tr.t.Errorf("hubbub config --room: %d %s", status, out)
		}
	},
}

// comesBack has a client return to its room after a restart of the server.
func (tr *mishap) comesBack(reason string, flags []string) {
	tr.t.Helper()
	tr.start(flags...)
	c := tr.enter()
	c.write(text(`{"msg_type":"join_room","room":"r","id":1}`))
	position := positionOf(c.message("joined"))
	c.write(text(`{"msg_type":"room_message","room":"r","content":1,"id":1}`))
	c.message("ack")
	if status := tr.s.stop(tr.t, syscall.SIGKILL); status == 0 {
		tr.t.Error("it wasn't killed")
	}
	tr.start(flags...)
	answer := parse(tr.t, tr.tell(tr.enter(), `{"msg_type":"join_room","room":"r","since":`+position+`,"id":1}`), "joined")
	if recovered := answer.raw("recovered") == "true"; recovered != (reason == "") {
		tr.t.Errorf("after a restart with %v: %s", flags, answer.text)
	}
}

func positionOf(m message) string {
	m.t.Helper()
	return fmt.Sprintf(`{"epoch":%q,"offset":%d}`, m.str("epoch"), m.num("offset"))
}

// Symptoms of the server and of what it works with, by the headings of docs/troubleshooting.md.
var serverTroubles = map[string]func(*mishap){
	"It doesn't start: the address is taken": func(tr *mishap) {
		tr.start()
		tr.fails(nil, "serve", "--listen", tr.s.addr)
	},
	"It doesn't start: a setting it doesn't know": func(tr *mishap) {
		tr.fails(nil, "serve", "--config", configFile(tr.t, "max-conections: 5\n"))
		tr.fails([]string{"HUBBUB_MAX_CONECTIONS=5"}, "serve")
	},
	"It doesn't start: another process has its folder": func(tr *mishap) {
		dir := tr.t.TempDir()
		tr.start("--data-dir", dir)
		tr.fails(nil, "serve", "--listen", freeAddr(tr.t), "--data-dir", dir)
	},
	"A setting does nothing": func(tr *mishap) {
		s := &server{addr: freeAddr(tr.t), exited: make(chan struct{})}
		s.cmd = exec.Command(program, "serve", "--listen", s.addr)
		s.cmd.Env = append(os.Environ(), "HUBBUB_COLOUR=red", "HUBBUB_LOG_LEVEL=debug")
		s.run(tr.t)
		tr.s = s
		out, status := hubbub(tr.t, []string{"HUBBUB_LOG_LEVEL=debug"}, "config")
		if status != 0 {
			tr.t.Error(status)
		}
		tr.see("%s", out)
	},
	"The kernel ends it: out of memory": func(tr *mishap) {
		s := &server{addr: freeAddr(tr.t), exited: make(chan struct{})}
		s.cmd = exec.Command(program, "serve", "--listen", s.addr, "--max-buffered-bytes", "64MiB")
		s.cmd.Env = append(os.Environ(), "GOMEMLIMIT=100MiB")
		s.run(tr.t)
		tr.s = s
		tr.before = map[string]float64{}
		s.stop(tr.t, syscall.SIGKILL)
		tr.see("%v", s.err)
	},
	"The API answers 401 or 403": func(tr *mishap) {
		tr.start()
		tr.get("/api/v1/rooms")
		tr.start("--api-key", stageKey)
		tr.get("/api/v1/rooms", "-H", "Authorization: Bearer hub_old")
	},
	"`/metrics` and the API are 404": func(tr *mishap) {
		admin := freeAddr(tr.t)
		public := start(tr.t, "--admin-listen", admin, "--api-key", stageKey)
		tr.s = public
		tr.get("/metrics")
		tr.get("/api/v1/rooms")
		tr.s = &server{addr: admin}
		if status := statusOf(tr.t, tr.s.http("/metrics")); status != 200 {
			tr.t.Errorf("the admin listener's /metrics: %d", status)
		}
		tr.s = public
	},
	"Webhooks don't arrive": func(tr *mishap) {
		tr.start("--webhook-url", "http://"+freeAddr(tr.t)+"/hook", "--webhook-secret", hookSecret)
		tr.enter()
	},
	"Webhooks don't arrive any more: 410": func(tr *mishap) {
		backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) }))
		tr.t.Cleanup(backend.Close)
		tr.start("--webhook-url", backend.URL, "--webhook-secret", hookSecret)
		tr.enter()
	},
	"Questions have no answer": func(tr *mishap) {
		tr.start("--hook-url", "http://"+freeAddr(tr.t), "--hook-events", "join", "--webhook-secret", hookSecret)
		tr.tell(tr.enter(), `{"msg_type":"join_room","room":"r","id":1}`)
	},
	"A reload changes nothing": func(tr *mishap) {
		flags := rules(tr, "chat: users\n")
		tr.start(append(flags, "--api-key", stageKey)...)
		write(tr.t, flags[len(flags)-1], "chat: nobody\n")
		if err := tr.s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			tr.t.Fatal(err)
		}
		tr.check(symptom{lines: map[string]string{"Metric": symptoms(tr.t)["A reload changes nothing"].lines["Metric"]}}) // by the signal alone
		tr.done = false
		tr.get("/api/v1/reload", "-X", "POST", "-H", "Authorization: Bearer "+stageKey)
	},
	"The disk is full": func(tr *mishap) {
		disk := smallDisk(tr.t)
		tr.start("--data-dir", filepath.Join(disk, "data"))
		c := tr.enter()
		tr.tell(c, `{"msg_type":"join_room","room":"r","id":1}`)
		fill(tr.t, disk)
		for end := time.Now().Add(patience); ; {
			c.write(text(fmt.Sprintf(`{"msg_type":"room_message","room":"r","content":%q,"id":2}`, strings.Repeat("x", 40_000))))
			answer := c.expect(fin | opText)
			if strings.Contains(answer, `"msg_type":"error"`) {
				tr.see("%s", answer)
				break
			}
			if time.Now().After(end) {
				tr.t.Fatalf("a publish is answered %s", answer)
			}
		}
		tr.check(symptoms(tr.t)["The disk is full"]) // before there is room again
		tr.t.Cleanup(func() {                        // twice, which ends it at once: NATS may stand still for good now (seen with 2.15.3)
			for range 2 {
				_ = tr.s.cmd.Process.Signal(syscall.SIGTERM)
				tr.s.waitDraining(tr.t)
			}
		})
	},
	"A node of a cluster ends at its start: other policies": func(tr *mishap) {
		store := freeAddrs(tr.t)
		flags := []string{"--cluster-secret", stageKey, "--join", store}
		first := append([]string{"--data-dir", tr.t.TempDir(), "--cluster-listen", store, "--cluster-secret", stageKey}, rules(tr, "rooms: [{match: r, presence: full}]\n")...)
		start(tr.t, first...)
		tr.fails(nil, append([]string{"serve", "--listen", freeAddr(tr.t)}, flags...)...)
	},
	"A node of a cluster isn't let in: another secret": func(tr *mishap) {
		store := freeAddrs(tr.t)
		tr.start("--data-dir", tr.t.TempDir(), "--cluster-listen", store, "--cluster-secret", stageKey)
		first := tr.s
		addr := freeAddr(tr.t)
		other := &mishap{t: tr.t}
		other.unready(exec.Command(program, "serve", "--listen", addr, "--cluster-secret", strings.ToUpper(stageKey), "--join", store), addr)
		other.get("/readyz")
		if up, ok := scrape(tr.t, other.s)["hubbub_links_up"]; !ok || up != 0 {
			tr.t.Errorf("hubbub_links_up of who isn't let in is %g (there: %t)", up, ok)
		}
		other.s.says(tr.t, "refuses this node")
		tr.see("%s%s", other.saw.String(), other.s.log.String())
		tr.s = first
	},
	"It doesn't start: NATS can't be reached": func(tr *mishap) {
		tr.fails(nil, "serve", "--listen", freeAddr(tr.t), "--nats", "nats://"+freeAddr(tr.t))
	},
}
