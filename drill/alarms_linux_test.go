package main

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fakePrometheus says to every query that these alarms have fired, and gives the drill that asks it.
func fakePrometheus(t *testing.T, name string, fired []string) *drill {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, alarm := range fired {
		said = append(said, `{"metric":{"alertname":"`+alarm+`"},"value":[1,"1"]}`)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Query().Get("query"), `ALERTS{alertstate="firing"}`) {
			t.Errorf("asked for %s", r.URL)
		}
		_, _ = w.Write([]byte(`{"status":"success","data":{"resultType":"vector","result":[` + strings.Join(said, ",") + `]}}`))
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	d := &drill{name: name, deadline: time.Now().Add(patience)}
	d.prometheus = &prometheus{d: d, addr: unix.SockaddrInet4{Port: l.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}}
	return d
}

// What Prometheus says has fired is held against what should: what is missing is a fault, and so is what is too much, but
// for what may be, and for what a busy machine explains.
func TestAlarmsAreJudged(t *testing.T) {
	for name, c := range map[string]struct {
		drill string
		fired []string
		fault string
	}{
		"all that should":     {"storm", []string{"HubbubClientsGone", "HubbubConnectionsBreak"}, ""},
		"what may, too":       {"storm", []string{"HubbubClientsGone", "HubbubConnectionsBreak", "HubbubRefusesClients"}, ""},
		"and the machine's":   {"storm", []string{"HubbubClientsGone", "HubbubConnectionsBreak", "HubbubSlowTurns"}, ""},
		"none where none may": {"load", nil, ""},
		"one is missing":      {"storm", []string{"HubbubConnectionsBreak"}, "should fire did not: HubbubClientsGone"},
		"all are missing":     {"disk", nil, "should fire did not: HubbubTurnsAway"},
		"another one":         {"load", []string{"HubbubDown"}, "should not: HubbubDown"},
	} {
		t.Run(name, func(t *testing.T) {
			d := fakePrometheus(t, c.drill, c.fired)
			d.judgeFired(d.prometheus.fired())
			if faults := strings.Join(d.faults, "; "); (faults == "") != (c.fault == "") || !strings.Contains(faults, c.fault) {
				t.Errorf("the faults are %q, want %q", faults, c.fault)
			}
			if said := strings.Join(d.figures, "; "); !strings.HasPrefix(said, "alarms fired: ") || !strings.Contains(said, list(slices.Sorted(slices.Values(c.fired)))) {
				t.Errorf("the line has %q", said)
			}
		})
	}
}

// A drill whose servers nobody scraped has shown nothing.
func TestADrillThatWasNotScrapedFails(t *testing.T) {
	d := &drill{name: "load"}
	d.prometheus = &prometheus{d: d}
	if d.judgeAlarms(); len(d.faults) != 1 {
		t.Errorf("the faults are %q", d.faults)
	}
}

// docs/monitoring.md has the table of what is expected, drill by drill, and the rules have these alarms.
func TestTheDocsSayWhichAlarmsFire(t *testing.T) {
	read := func(name string) string {
		b, err := os.ReadFile("../" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	_, section, _ := strings.Cut(read("docs/monitoring.md"), "\n## Drills\n")
	section, _, _ = strings.Cut(section, "\n## ")
	names := func(cell, pattern string) (all []string) {
		for _, m := range regexp.MustCompile("`("+pattern+")`").FindAllStringSubmatch(cell, -1) {
			all = append(all, m[1])
		}
		return slices.Sorted(slices.Values(all))
	}
	said := map[string]expected{}
	for line := range strings.Lines(section) {
		if cells := strings.Split(line, "|"); len(cells) > 5 {
			for _, drill := range names(cells[1], "[a-z]+") {
				said[drill] = expected{names(cells[2], `Hubbub\w+`), names(cells[3], `Hubbub\w+`)}
			}
		}
	}
	rules := read(rulesFile)
	for _, d := range drills {
		want, known := alarmsOf[d.name]
		if !known {
			t.Errorf("nothing is expected of the drill %s", d.name)
		}
		got := said[d.name]
		if !slices.Equal(got.fires, slices.Sorted(slices.Values(want.fires))) || !slices.Equal(got.may, slices.Sorted(slices.Values(want.may))) {
			t.Errorf("%s: docs/monitoring.md has %v, expected is %v", d.name, got, want)
		}
		for _, alarm := range slices.Concat(want.fires, want.may, byLoad) {
			if !strings.Contains(rules, "alert: "+alarm+"\n") {
				t.Errorf("%s: there is no alarm %s", d.name, alarm)
			}
		}
	}
	if len(said) != len(drills) || len(alarmsOf) != len(drills) {
		t.Errorf("docs/monitoring.md has %d drills, alarmsOf %d, and there are %d", len(said), len(alarmsOf), len(drills))
	}
}

// A Prometheus that has died says of no alarm that it has fired: the drill fails, also where none is to.
func TestADrillWhosePrometheusDiedFails(t *testing.T) {
	d := fakePrometheus(t, "load", nil)
	d.deadline = time.Now().Add(time.Minute)
	d.prometheus.addr.Port = 1 // nobody listens
	d.prometheus.exited = make(chan struct{})
	close(d.prometheus.exited)
	d.guarded(d.judgeAlarms)
	if len(d.faults) == 0 {
		t.Errorf("it passes: %q", d.figures)
	}
}

// One that doesn't end when it is told to is ended.
func TestAPrometheusThatHangsIsEnded(t *testing.T) {
	p := &prometheus{d: &drill{name: "load"}, exited: make(chan struct{}), cmd: exec.Command("sleep", "1000")}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	p.end()
	if p.cmd.ProcessState.Success() {
		t.Error("it has ended by itself")
	}
}
