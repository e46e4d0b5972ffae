package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// A trouble is a fault that befalls servers, and the alarms that are to fire then.
type trouble struct {
	root bool // it can be made by root alone
	make func(t *testing.T, p *prometheus, job string)
	want []string
}

const hookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

var troubles = map[string]trouble{
	"none": {make: calm},
	"crowd": {make: crowd, want: []string{"HubbubNearMaxConnections", "HubbubRefusesClients", "HubbubConnectionsBreak",
		"HubbubClientsGone"}},
	"slow":      {make: slowMembers, want: []string{"HubbubSlowReaders"}},
	"closed":    {make: closedMembers, want: []string{"HubbubSlowReaders"}},
	"buffers":   {make: fullBuffers, want: []string{"HubbubBuffersFill", "HubbubOverloaded"}},
	"memory":    {make: littleMemory, want: []string{"HubbubNearMemoryLimit"}},
	"files":     {make: fewFiles, want: []string{"HubbubNearDescriptors"}},
	"restarts":  {make: restarts, want: []string{"HubbubRestarts", "HubbubDown"}},
	"strangers": {make: strangers, want: []string{"HubbubTurnsAway", "HubbubAPIUnauthorized"}},
	"limits":    {make: aboveLimits, want: []string{"HubbubRefusesMuch"}},
	"backend": {make: noBackend, want: []string{"HubbubQuestionsFail", "HubbubCommandsFail", "HubbubWebhooksLate",
		"HubbubOutboxFills", "HubbubWebhooksDropped"}},
	"muddled": {make: muddledBackend, want: []string{"HubbubQuestionsFail", "HubbubFaults"}},
	"reload":  {make: badReload, want: []string{"HubbubReloadFailed"}},
	"slowly":  {make: slowBackend, want: []string{"HubbubQuestionsSlow"}},
	"gone":    {make: goneBackend, want: []string{"HubbubWebhooksStopped"}},
	"disk":    {root: true, make: fullDisk, want: []string{"HubbubWebhooksDisk", "HubbubLogsRefuse", "HubbubAPIFails"}},
	"cluster": {make: lostNATS, want: []string{"HubbubCutOff", "HubbubLinksDown", "HubbubLogsRefuse", "HubbubMessagesMissed",
		"HubbubNodesDisagree", "HubbubLogsLost"}},
	"cut":      {make: cutNode, want: []string{"HubbubCutOff", "HubbubLinksDown", "HubbubLogsRefuse", "HubbubNodesDisagree"}},
	"killed":   {make: killedNode, want: []string{"HubbubDown"}},
	"last":     {make: lastStore, want: []string{"HubbubDown", "HubbubCutOff"}},
	"frozen":   {make: frozenStore, want: []string{"HubbubDown", "HubbubNodeHangs", "HubbubCutOff", "HubbubLinksDown", "HubbubLogsRefuse"}},
	"policies": {make: twoPolicies, want: []string{"HubbubPoliciesDiffer"}},
}

// byLoad are alarms that may be right where nothing but this machine is at fault.
var byLoad = []string{"HubbubSlowTurns", "HubbubWorkerBehind", "HubbubQuestionsSlow"}

// mayAlso are alarms that a trouble may bring, and does on some machines.
var mayAlso = map[string][]string{
	"disk":    {"HubbubLogsSlow", "HubbubWebhooksLate"},
	"cut":     {"HubbubAPIFails", "HubbubMessagesMissed"},
	"frozen":  {"HubbubAPIFails", "HubbubCommandsFail", "HubbubLogsSlow", "HubbubMessagesMissed"},
	"killed":  {"HubbubMessagesMissed"},
	"last":    {"HubbubLogsRefuse", "HubbubMessagesMissed", "HubbubNodeHangs"},
	"buffers": {"HubbubSlowReaders"},
	"cluster": {"HubbubAPIFails", "HubbubCommandsFail", "HubbubNodeHangs", "HubbubLogsSlow"},
}

// Real faults of real servers, as a real Prometheus sees them: the alarms fire that should, and no others.
func TestAlarms(t *testing.T) {
	t.Parallel()
	p := startPrometheus(t)
	t.Run("trouble", func(t *testing.T) {
		for name, its := range troubles {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				if its.root && os.Getuid() != 0 {
					t.Fatal("a small tmpfs needs root")
				}
				its.make(t, p, "hubbub-"+name)
				p.firing(t, "hubbub-"+name, its.want...)
			})
		}
	})
	for _, s := range p.query(t, `count by (job, alertname) (max_over_time(ALERTS{alertstate="firing"}[1h]))`) {
		name, alarm := strings.TrimPrefix(s.Metric["job"], "hubbub-"), s.Metric["alertname"]
		if !slices.Contains(slices.Concat(troubles[name].want, mayAlso[name], byLoad), alarm) {
			t.Errorf("%s fired, and the trouble was %q", alarm, name)
		}
	}
}

// calm is a server that is used, with all that it can have. Its figures are those that panels and alarms may speak of.
func calm(t *testing.T, p *prometheus, job string) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer(w, "{}")
	}))
	t.Cleanup(backend.Close)
	s := start(t, "--api-key", backendKey, "--webhook-url", backend.URL, "--hook-url", backend.URL, "--hook-events", "request",
		"--webhook-secret", hookSecret, "--data-dir", t.TempDir())
	p.watch(t, job, s)
	a, b := dialRaw(t, s, "/ws", ""), dialRaw(t, s, "/ws", "")
	for _, c := range []*rawConn{a, b} {
		c.welcomed()
		c.write(text(`{"msg_type":"join_room","room":"r","id":1}`))
		c.message("joined")
	}
	for i := range 30 {
		a.write(text(`{"msg_type":"room_message","room":"r","content":"hello","id":2}`))
		a.message("ack")
		if status := s.call(t, backendKey, "POST", "/publish", `{"room":"r","content":1}`); status != http.StatusOK {
			t.Fatalf("publish %d: %d", i, status)
		}
		a.message("room_message")
	}
	for _, panel := range readDashboard(t).charts() {
		for _, target := range panel.Targets {
			p.names(t, panel.Title, target.Expr, job)
		}
	}
	for _, r := range readRules(t) {
		p.names(t, r.Alert, r.Expr, job)
	}
}

// resetAll ends connections without a word.
func resetAll(all []*rawConn) {
	for _, c := range all {
		_ = c.Conn.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
}

func crowd(t *testing.T, p *prometheus, job string) {
	s := start(t, "--max-connections", "150", "--resume-window", "0s")
	p.watch(t, job, s)
	var all []*rawConn
	for range 140 {
		c := dialRaw(t, s, "/ws", "")
		c.welcomed()
		all = append(all, c)
	}
	p.firing(t, job, "HubbubNearMaxConnections")
	for range 30 {
		if c, err := tryDial(t, s, "/ws"); err == nil {
			all = append(all, c)
			t.Cleanup(func() { c.Close() })
		}
	}
	if len(all) != 150 {
		t.Errorf("%d are let in", len(all))
	}
	p.firing(t, job, "HubbubRefusesClients")
	resetAll(all)
}

func slowMembers(t *testing.T, p *prometheus, job string) {
	s := start(t, "--slow-consumer", "drop-oldest", "--send-queue-bytes", "64KiB")
	p.watch(t, job, s)
	lazy, publisher := dialRaw(t, s, "/ws", text(`{"msg_type":"join_room","room":"r"}`)), dialRaw(t, s, "/ws", "")
	publisher.welcomed()
	for scrape(t, s)[`hubbub_dropped_total{policy="drop-oldest"}`] < 500 {
		for range 50 {
			publisher.write(text(`{"msg_type":"room_message","room":"r","content":"` + strings.Repeat("x", 60_000) + `"}`))
		}
	}
	t.Cleanup(func() { lazy.Close() })
}

// closedMembers: who doesn't read is closed, as it is by default, when one message is too many; the others were taken by the
// kernel.
func closedMembers(t *testing.T, p *prometheus, job string) {
	s := start(t, "--send-queue-bytes", "64KiB", "--api-key", backendKey)
	p.watch(t, job, s)
	body := fmt.Sprintf(`{"room":"r","content":%q}`, strings.Repeat("x", 60_000))
	for range 30 {
		lazy := dialRaw(t, s, "/ws", text(`{"msg_type":"join_room","room":"r"}`))
		t.Cleanup(func() { lazy.Close() })
	}
	becomes(t, s, "hubbub_connections", 30)
	for end := time.Now().Add(patience); scrape(t, s)[`hubbub_closed_total{code="4000"}`] < 30; {
		if time.Now().After(end) {
			t.Fatal("not all of those who don't read are closed")
		}
		for range 20 {
			s.call(t, backendKey, "POST", "/publish", body)
		}
	}
}

func fullBuffers(t *testing.T, p *prometheus, job string) {
	s := start(t, "--max-buffered-bytes", "4MiB", "--api-key", backendKey, "--send-queue-bytes", "512KiB", "--slow-consumer", "drop-oldest")
	p.watch(t, job, s)
	big := strings.Repeat("x", 60_000)
	for i := range 45 {
		if status := s.call(t, backendKey, "POST", "/publish", fmt.Sprintf(`{"room":"kept-%d","content":%q}`, i, big)); status != http.StatusOK {
			t.Fatalf("publish: %d", status)
		}
	}
	p.firing(t, job, "HubbubBuffersFill")
	for range 12 {
		lazy := dialRaw(t, s, "/ws", text(`{"msg_type":"join_room","room":"r"}`))
		t.Cleanup(func() { lazy.Close() })
	}
	for scrape(t, s)[`hubbub_closed_total{code="1013"}`] == 0 {
		s.call(t, backendKey, "POST", "/publish", fmt.Sprintf(`{"room":"r","content":%q}`, big))
	}
}

// under starts a server by a shell's command, in which it is "$@".
func under(t *testing.T, command string, flags ...string) *server {
	t.Helper()
	s := &server{addr: freeAddr(t), exited: make(chan struct{})}
	s.cmd = exec.Command("bash", append([]string{"-c", command, "-", program, "serve", "--listen", s.addr}, flags...)...)
	s.run(t)
	return s
}

func littleMemory(t *testing.T, p *prometheus, job string) {
	p.watch(t, job, under(t, `GOMEMLIMIT=20MiB exec "$@"`))
}

func fewFiles(t *testing.T, p *prometheus, job string) {
	s := under(t, `ulimit -n 200; exec "$@"`, "--max-connections", "5000")
	for scrape(t, s)["process_open_fds"] < 0.96*200 {
		dialRaw(t, s, "/ws", "").welcomed()
	}
	p.watch(t, job, s) // last, so that it is watched no more when they go
}

func restarts(t *testing.T, p *prometheus, job string) {
	s := start(t)
	p.watch(t, job, s)
	for n := 2; n <= 4; n++ {
		_ = s.cmd.Process.Kill()
		<-s.exited
		s = startAt(t, s.addr)
		p.until(t, "the new process is seen", func() bool {
			return len(p.query(t, fmt.Sprintf(`changes(process_start_time_seconds{job=%q}[10m]) >= %d`, job, n-1))) > 0
		})
	}
	p.firing(t, job, "HubbubRestarts")
	_ = s.cmd.Process.Signal(syscall.SIGSTOP) // it hangs
	t.Cleanup(func() {
		_ = s.cmd.Process.Signal(syscall.SIGCONT)
		s.waitReady(t)
	})
}

func strangers(t *testing.T, p *prometheus, job string) {
	s := start(t, "--jwt-key", backendKey, "--api-key", backendKey)
	p.watch(t, job, s)
	for range 40 {
		if c, err := tryDial(t, s, "/ws"); err == nil {
			c.Close()
			t.Fatal("somebody without a token is let in")
		}
		if status := s.call(t, "hub_0123456789", "GET", "/rooms", ""); status != http.StatusUnauthorized {
			t.Fatalf("a bad key is answered %d", status)
		}
	}
}

func aboveLimits(t *testing.T, p *prometheus, job string) {
	s := start(t, "--config", configFile(t, "limits: {client: {messages: 100/h burst 300}}\n"))
	p.watch(t, job, s)
	c := dialRaw(t, s, "/ws", "")
	c.welcomed()
	for range 1000 {
		c.write(text(`{"msg_type":"leave_room","room":"x","id":1}`))
		c.expect(fin | opText)
	}
}

func noBackend(t *testing.T, p *prometheus, job string) {
	nobody := "http://" + nobodyListens(t)
	s := start(t, "--api-key", backendKey, "--hook-url", nobody, "--hook-events", "join", "--webhook-url", nobody, "--webhook-secret", hookSecret,
		"--webhook-events", "client.connected,message.published", "--webhook-rooms", "r")
	p.watch(t, job, s)
	c := dialRaw(t, s, "/ws", "")
	c.welcomed()
	for range 40 {
		c.write(text(`{"msg_type":"join_room","room":"r","id":1}`))
		if m := c.message("error"); m.str("code") != "unavailable" {
			t.Fatalf("without a backend a join is told %s", m.text)
		}
	}
	body := fmt.Sprintf(`{"room":"r","content":%q}`, strings.Repeat("x", 60_000))
	filled := func(bytes float64) bool { return scrape(t, s)[`hubbub_webhook_outbox_bytes{where="memory"}`] > bytes }
	for !filled(20 << 20) {
		s.call(t, backendKey, "POST", "/publish", body)
	}
	p.firing(t, job, "HubbubOutboxFills")
	for dropped := 0.0; dropped == 0; dropped = scrape(t, s)[`hubbub_webhook_dropped_total{event="message.published"}`] {
		s.call(t, backendKey, "POST", "/publish", body)
	}
}

func slowBackend(t *testing.T, p *prometheus, job string) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(1200 * time.Millisecond): // the fault
		case <-r.Context().Done():
		}
		answer(w, "{}")
	}))
	t.Cleanup(backend.Close)
	s := start(t, "--hook-url", backend.URL, "--hook-events", "join", "--webhook-secret", hookSecret)
	p.watch(t, job, s)
	c := dialRaw(t, s, "/ws", "")
	c.welcomed()
	for i := range 3 {
		c.write(text(fmt.Sprintf(`{"msg_type":"join_room","room":"r%d","id":1}`, i)))
		c.message("joined")
	}
}

// answer is what a backend says that allows.
func answer(w http.ResponseWriter, body string) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(body))
}

// muddledBackend answers what can't be understood, which clients are told as an internal error.
func muddledBackend(t *testing.T, p *prometheus, job string) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w, "yes") }))
	t.Cleanup(backend.Close)
	s := start(t, "--hook-url", backend.URL, "--hook-events", "join", "--webhook-secret", hookSecret)
	p.watch(t, job, s)
	c := dialRaw(t, s, "/ws", "")
	c.welcomed()
	c.write(text(`{"msg_type":"join_room","room":"r","id":1}`))
	c.message("error")
}

func badReload(t *testing.T, p *prometheus, job string) {
	file := configFile(t, "chat: users\n")
	s := start(t, "--config", file)
	p.watch(t, job, s)
	write(t, file, "chat: nobody\n")
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

func goneBackend(t *testing.T, p *prometheus, job string) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusGone) }))
	t.Cleanup(backend.Close)
	s := start(t, "--webhook-url", backend.URL, "--webhook-secret", hookSecret)
	p.watch(t, job, s)
	dialRaw(t, s, "/ws", "").welcomed()
}

func fullDisk(t *testing.T, p *prometheus, job string) {
	disk := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=8m", "hubbub-test", disk).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", disk).Run() })
	s := start(t, "--data-dir", filepath.Join(disk, "data"), "--api-key", backendKey, "--webhook-url", "http://"+nobodyListens(t),
		"--webhook-secret", hookSecret)
	p.watch(t, job, s)
	_ = os.WriteFile(filepath.Join(disk, "filler"), make([]byte, 16<<20), 0o600) // as much as there is room for
	dialRaw(t, s, "/ws", "").welcomed()                                          // the backend is to be told
	body := `{"room":"r","content":"` + strings.Repeat("x", 40_000) + `"}`
	p.until(t, "HubbubAPIFails fires", func() bool { // a status is counted from the second scrape that has it
		var calls sync.WaitGroup
		for range 4 { // side by side: each may wait for as long as a publish may
			calls.Go(func() { s.call(t, backendKey, "POST", "/publish", body) })
		}
		calls.Wait()
		return p.fires(t, job, "HubbubAPIFails")
	})
}

// lostNATS: two nodes lose the NATS server between them; it comes back with nothing stored. Beside them is a third that
// nobody told of the others.
func lostNATS(t *testing.T, p *prometheus, job string) {
	_, port, _ := net.SplitHostPort(freeAddr(t))
	bus := startNATS(t, port)
	flags := []string{"--nats", "nats://127.0.0.1:" + port, "--cluster-secret", "0123456789abcdef", "--api-key", backendKey,
		"--config", configFile(t, "rooms: [{match: \"live.*\", history: off}]\n")}
	one, two, alone := start(t, flags...), start(t, flags...), start(t)
	p.watch(t, job, one, two, alone)
	for _, s := range []*server{one, two} {
		becomes(t, s, "hubbub_peers", 1)
	}
	p.firing(t, job, "HubbubNodesDisagree")
	c := dialRaw(t, one, "/ws", "")
	c.welcomed()
	for _, room := range []string{"kept", "live.1"} {
		c.write(text(`{"msg_type":"join_room","id":1,"room":"` + room + `"}`))
		c.message("joined")
	}
	c.write(text(`{"msg_type":"room_message","room":"kept","content":1,"id":2}`))
	c.message("ack")
	bus.Shutdown()
	bus.WaitForShutdown()
	for _, room := range []string{"kept", "live.1"} {
		c.write(text(`{"msg_type":"room_message","content":1,"id":3,"room":"` + room + `"}`))
		c.message("error")
	}
	p.firing(t, job, "HubbubCutOff", "HubbubLinksDown", "HubbubLogsRefuse", "HubbubMessagesMissed")
	startNATS(t, port)
}

func startNATS(t *testing.T, port string) *natsserver.Server {
	t.Helper()
	o := &natsserver.Options{Host: "127.0.0.1", JetStream: true, StoreDir: t.TempDir(), NoSigs: true, MaxPayload: 8 << 20}
	if _, err := fmt.Sscan(port, &o.Port); err != nil {
		t.Fatal(err)
	}
	s, err := natsserver.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(patience) {
		t.Fatal("NATS does not become ready")
	}
	return s
}
