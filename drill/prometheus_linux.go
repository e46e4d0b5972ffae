package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"example.com/hubbub/internal/alarms"
)

const rulesFile = "deploy/prometheus/hubbub.rules.yaml"

// A prometheus scrapes the servers of one drill, with our alarms in a time that passes faster. It starts with the first
// of them, in the same network namespace.
type prometheus struct {
	d       *drill
	addr    unix.SockaddrInet4
	ns      string // its network namespace, as drill has it
	cmd     *exec.Cmd
	log     tail
	exited  chan struct{}
	began   time.Time
	targets []string // its servers' addresses
	scraped int      // how many targets it is known to have scraped
	servers int      // that it was to scrape, ever
}

// scrape has Prometheus look after a server from now on, where the drill is to judge alarms.
func (d *drill) scrape(addr string) {
	if d.prometheus == nil || slices.Contains(d.prometheus.targets, addr) {
		return
	}
	p := d.prometheus
	p.targets = append(p.targets, addr)
	p.servers++
	p.writeTargets()
	if p.cmd == nil {
		p.start()
	}
}

// scraped waits until Prometheus has seen each server twice: a rate needs two figures. It takes up new ones within ten
// seconds.
func (d *drill) scraped() {
	p := d.prometheus
	if p == nil || p.cmd == nil || p.scraped == len(p.targets) {
		return
	}
	p.until("it has scraped all servers", func() bool {
		return len(p.query(`sum_over_time(up[10m]) >= 2 and up`)) >= len(p.targets) // and up: not those that are forgotten
	})
	p.scraped = len(p.targets)
}

// forget has Prometheus scrape none of the servers any more that there are, before the drill ends them.
func (d *drill) forget() {
	if p := d.prometheus; p != nil && p.cmd != nil {
		p.targets, p.scraped = nil, 0
		p.writeTargets()
		p.until("it has forgotten all servers", func() bool { return len(p.query(`up`)) == 0 })
	}
}

func (p *prometheus) dir() string { return filepath.Join(p.d.dir, "prometheus") }

func (p *prometheus) writeTargets() {
	targets, err := json.Marshal([]alarms.Target{{Targets: p.targets, Labels: map[string]string{"job": "hubbub"}}})
	p.d.check(err)
	p.d.check(os.MkdirAll(p.dir(), 0o755))
	file := filepath.Join(p.dir(), "targets.json")
	p.d.check(os.WriteFile(file+".new", targets, 0o600))
	p.d.check(os.Rename(file+".new", file))
}

func (p *prometheus) start() {
	d := p.d
	rules, err := os.ReadFile(rulesFile)
	d.check(err)
	d.check(os.WriteFile(filepath.Join(p.dir(), "rules.yaml"), []byte(alarms.Faster(string(rules))), 0o600))
	d.check(os.WriteFile(filepath.Join(p.dir(), "prometheus.yml"), []byte(alarms.Config), 0o600))
	p.ns = d.ns
	p.addr = unix.SockaddrInet4{Port: d.freePort(), Addr: [4]byte{127, 0, 0, 1}}
	p.cmd = exec.Command("prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data", fmt.Sprintf("--web.listen-address=127.0.0.1:%d", p.addr.Port))
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = p.dir(), &p.log, &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	p.exited, p.began = make(chan struct{}), time.Now()
	if err := p.cmd.Start(); err != nil {
		p.cmd = nil
		d.abort("%v: -alarms needs Debian's package prometheus (make deps installs it)", err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	p.until("it is ready", p.ready)
}

func (p *prometheus) ready() (is bool) {
	p.d.inside(p.ns, func() {
		answer, err := get(p.addr, "/-/ready")
		is = err == nil && bytes.Contains(answer, []byte(" 200 "))
	})
	return is
}

// end ends Prometheus, whose servers may end then, too.
func (p *prometheus) end() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
}

// until waits for what must come.
func (p *prometheus) until(what string, is func() bool) {
	for end := time.Now().Add(patience); !is(); time.Sleep(100 * time.Millisecond) {
		p.d.alive()
		select {
		case <-p.exited:
			p.d.abort("Prometheus has ended: %s", p.log.String())
		default:
		}
		if time.Now().After(end) {
			p.d.abort("Prometheus: it does not come about that %s: %s", what, p.log.String())
		}
	}
}

// query asks for what an expression is now; it is nothing where Prometheus gives no answer.
func (p *prometheus) query(expr string) (samples []alarms.Sample) {
	p.d.inside(p.ns, func() {
		answer, err := get(p.addr, "/api/v1/query?query="+url.QueryEscape(expr))
		if err != nil {
			return
		}
		_, body, _ := bytes.Cut(answer, []byte("\r\n\r\n"))
		samples, err = alarms.Samples(body)
		p.d.check(err)
	})
	return samples
}

// fired is which alarms have fired since Prometheus was started, by name.
func (p *prometheus) fired() (names []string) {
	since := int(time.Since(p.began)/time.Second) + 60
	for _, s := range p.query(fmt.Sprintf(`count by (alertname) (max_over_time(ALERTS{alertstate="firing"}[%ds]))`, since)) {
		names = append(names, s.Metric["alertname"])
	}
	slices.Sort(names)
	return names
}
