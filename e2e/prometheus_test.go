package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/hubbub/internal/alarms"
)

const rulesFile = "../deploy/prometheus/hubbub.rules.yaml"

// prometheus is Debian's, with our rules, but for how long an alarm has to be so before it fires.
type prometheus struct {
	t    *testing.T
	addr string
	dir  string

	mu      sync.Mutex
	targets []alarms.Target // guarded by mu, and so is their file
}

// startPrometheus runs one until the test ends. It scrapes nothing until watch names it.
func startPrometheus(t *testing.T) *prometheus {
	t.Helper()
	p := &prometheus{t: t, addr: freeAddr(t), dir: t.TempDir()}
	rules, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	p.write("rules.yaml", alarms.Sooner(string(rules)))
	p.scrape("", nil)
	p.write("prometheus.yml", alarms.Config)
	cmd := exec.Command("prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data", "--web.listen-address="+p.addr)
	log := &syncBuffer{}
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, log, log
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (make deps installs it)", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("Prometheus says:\n%s", log)
		}
	})
	p.until(t, "Prometheus is ready", func() bool {
		res, err := http.Get("http://" + p.addr + "/-/ready")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
	return p
}

// write replaces a file as a whole.
func (p *prometheus) write(name, text string) {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	err := os.WriteFile(path+".new", []byte(text), 0o600)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// watch has servers scraped as nodes of one job until the test ends, before they do, and waits until they have been twice:
// a rate needs two.
func (p *prometheus) watch(t *testing.T, job string, servers ...*server) {
	t.Helper()
	target := alarms.Target{Labels: map[string]string{"job": job}}
	for _, s := range servers {
		target.Targets = append(target.Targets, s.addr)
	}
	p.scrape(job, &target)
	t.Cleanup(func() {
		p.scrape(job, nil)
		p.until(t, job+" is scraped no more", func() bool { return len(p.query(t, fmt.Sprintf(`up{job=%q}`, job))) == 0 })
	})
	p.until(t, "Prometheus has scraped the servers of "+job, func() bool {
		return len(p.query(t, fmt.Sprintf(`count_over_time(hubbub_connections{job=%q}[10m]) >= 2`, job))) >= len(servers)
	})
}

// scrape sets what is scraped of a job; nil is nothing.
func (p *prometheus) scrape(job string, target *alarms.Target) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.targets = slices.DeleteFunc(p.targets, func(o alarms.Target) bool { return o.Labels["job"] == job })
	if target != nil {
		p.targets = append(p.targets, *target)
	}
	b, _ := json.Marshal(p.targets)
	p.write("targets.json", string(b))
}

// query asks for what an expression is now.
func (p *prometheus) query(t *testing.T, expr string) []alarms.Sample {
	t.Helper()
	res, err := http.PostForm("http://"+p.addr+"/api/v1/query", url.Values{"query": {expr}})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	samples, err := alarms.Samples(answer)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	return samples
}

// until waits for a condition.
func (p *prometheus) until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * patience); !is(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not come about that %s", what)
		}
	}
}

// firing waits until alarms of a job fire.
func (p *prometheus) firing(t *testing.T, job string, want ...string) {
	t.Helper()
	for _, alarm := range want {
		p.until(t, alarm+" fires", func() bool { return p.fires(t, job, alarm) })
	}
}

func (p *prometheus) fires(t *testing.T, job, alarm string) bool {
	t.Helper()
	return len(p.query(t, fmt.Sprintf(`ALERTS{alertstate="firing", alertname=%q, job=%q}`, alarm, job))) > 0
}

// call makes a call of a server's API and returns its status.
func (s *server) call(t *testing.T, key, method, path, body string) int {
	t.Helper()
	req, err := http.NewRequest(method, s.http("/api/v1"+path), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode
}

// The rules are such as Prometheus takes, and each alarm fires on the figures that call for it and on no others.
func TestRulesOfPrometheus(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"check", "rules", "hubbub.rules.yaml"},
		{"check", "config", "prometheus.yml"},
		{"test", "rules", "hubbub.rules.test.yaml"},
	} {
		cmd := exec.Command("promtool", args...)
		cmd.Dir = filepath.Dir(rulesFile)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v (make deps installs it)\n%s", strings.Join(args, " "), err, out)
		}
	}
	tests, err := os.ReadFile("../deploy/prometheus/hubbub.rules.test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range readRules(t) {
		if !strings.Contains(string(tests), fmt.Sprintf("alertname=%q", r.Alert)) {
			t.Errorf("no test has %s fire", r.Alert)
		}
	}
}

// By the command of the rules' file, which docs/monitoring.md has too, every alarm leads to a page on the web.
func TestTheAlarmsLeadToAPage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rules, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	command := regexp.MustCompile("(?m)^#   (sed -i .+)$").FindStringSubmatch(string(rules))
	if command == nil || !strings.Contains(readDoc(t, "docs/monitoring.md").text, "`"+command[1]+"`") {
		t.Fatalf("the rules' file has no sed, or docs/monitoring.md another than %q", command)
	}
	copied := filepath.Join(dir, "hubbub.rules.yaml")
	write(t, copied, string(rules))
	(&files{t: t, dir: dir, instead: strings.NewReplacer()}).run(command[1])
	changed, err := os.ReadFile(copied)
	if err != nil {
		t.Fatal(err)
	}
	all, led := strings.Count(string(rules), " runbook_url: docs/"), strings.Count(string(changed), " runbook_url: https://git.example.com/hubbub/tree/main/docs/")
	if all < 30 || led != all {
		t.Errorf("%d of %d lead to a page", led, all)
	}
}

// nobodyListens is an address where connections are refused.
func nobodyListens(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
