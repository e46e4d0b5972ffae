package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// hubbubSays runs the program, and gives its status and what it says.
func hubbubSays(t *testing.T, args ...string) (code int, out, errors string) {
	t.Helper()
	cmd, stdout, stderr := program(t, args...)
	cmd.Env = append(os.Environ(), "HUBBUB_TEST_PROGRAM=1", "HUBBUB_API_KEY=akeyofsixteenbytes")
	return status(t, cmd), stdout.String(), stderr.String()
}

// What cluster init prints are settings that the server takes, with a secret that is another one each time.
func TestClusterInit(t *testing.T) {
	code, out, _ := hubbubSays(t, "cluster", "init", "--host", "a.example.com,b:9000", "--host", "2001:db8::1")
	if code != 0 {
		t.Fatal(code, out)
	}
	secret := regexp.MustCompile(`HUBBUB_CLUSTER_SECRET=(\S+)`).FindStringSubmatch(out)
	if len(secret) != 2 || len(secret[1]) < 20 {
		t.Fatalf("no secret in\n%s", out)
	}
	var listens []string
	for _, line := range regexp.MustCompile(`(?m)^hubbub (serve .*)$`).FindAllStringSubmatch(out, -1) {
		c, _, err := parse(t, map[string]string{"HUBBUB_CLUSTER_SECRET": secret[1]}, strings.Fields(line[1])...)
		if err != nil {
			t.Fatalf("%s: %v", line[0], err)
		}
		cfg := c.config(nil)
		if err := cfg.Validate(); err != nil || len(cfg.Cluster.Join) != 3 {
			t.Errorf("%s: %v, joins %q", line[0], err, cfg.Cluster.Join)
		}
		listens = append(listens, cfg.Cluster.Listen)
	}
	if got := strings.Join(listens, " "); got != "a.example.com:7422 b:9000 [2001:db8::1]:7422 " {
		t.Errorf("they listen at %q", got)
	}
	if _, again, _ := hubbubSays(t, "cluster", "init", "--stores", "1"); strings.Contains(again, secret[1]) || strings.Contains(again, "--cluster-listen host-1:7422 --join") {
		t.Errorf("one store:\n%s", again)
	}
	_, here, _ := hubbubSays(t, "cluster", "init", "--host", "a:1,a:3,a:5")
	for _, own := range []string{"--data-dir hubbub-data --cluster-listen a:1 --join", "--data-dir hubbub-data-2 --cluster-listen a:3 --listen :8081", "hubbub-data-3 --cluster-listen a:5 --listen :8082"} {
		if !strings.Contains(here, own) {
			t.Errorf("on one machine there is no %q:\n%s", own, here)
		}
	}
	for _, bad := range [][]string{{"--stores", "2"}, {"--host", "a"}, {"--host", "a,a,b"}, {"--host", "a,a:7423,b"}, {"--host", "a,b,c;d"}, {"--host", "a,b,c:65535"}, {"--stores", "1", "--host", "a:x"}} {
		if code, _, says := hubbubSays(t, append([]string{"cluster", "init"}, bad...)...); code != statusUsage || !strings.Contains(says, bad[len(bad)-2]) {
			t.Errorf("%q: status %d, %s", bad, code, says)
		}
	}
}

func TestNodesAreShown(t *testing.T) {
	var mu sync.Mutex // guards what follows
	answer := `{"nodes":[{"id":"1","name":"one","role":"store","store":"a:7422","policies":"x","in":true,"clients":3},
		{"id":"2","name":"two\u001b[2J","policies":"y","not_ready":"it is cut off"},{"id":"3","name":"three","policies":"y"}],"cut":true,
		"stores":{"leader":"AAA","stores":[{"name":"AAA","address":"a:7422","up":true,"leader":true,"bytes":2500000},{"name":"BBB"}],
		"streams":[{"leader":"AAA","replicas":3,"messages":7,"copies":[{"current":true}]},{"leader":"","replicas":3}],"problems":["the store BBB is away"]}}`
	var asked []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.Method+" "+r.URL.EscapedPath())
		if r.Method == "DELETE" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		io.WriteString(w, answer)
	}))
	defer s.Close()
	code, out, _ := hubbubSays(t, "nodes", "--url", s.URL)
	if code != 1 {
		t.Errorf("with something wrong it ends with %d", code)
	}
	for _, want := range []string{"one", "a:7422", "yes, leads", "2.5 MB", "streams: 2, with all their copies: 0, without a leader, so that it isn't known: 1; messages: 7", `! two\u001b[2J is not ready: it is cut off`,
		"! the store BBB is away", "! this node can't hear of the others", "! nodes have different policies of rooms"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	for _, want := range []string{`(?m)^BBB +no +\? +\? +\? +-`, `(?m)^two\S+ +no `, `(?m)^three +\? `, `(?m)^one +yes `} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("no %s in\n%s", want, out)
		}
	}
	if strings.Contains(out, "\x1b") {
		t.Error("what could move the cursor is printed as it is")
	}
	const alone = `{"nodes":[{"id":"1","name":"one","policies":"x","in":true}],"cut":false}`
	mu.Lock()
	answer = alone
	mu.Unlock()
	if code, out, says := hubbubSays(t, "nodes", "--url", s.URL); code != 0 || strings.Contains(out, "STORE  UP") {
		t.Errorf("one that is alone: status %d\n%s%s", code, out, says)
	}
	if code, out, _ := hubbubSays(t, "nodes", "--url", s.URL, "--json"); code != 0 || strings.TrimSpace(out) != alone {
		t.Errorf("as JSON: %d %s", code, out)
	}
	code, out, says := hubbubSays(t, "nodes", "remove", "B/B", "--url", s.URL)
	mu.Lock()
	defer mu.Unlock()
	if code != 0 || out != "B/B is forgotten\n" || asked[len(asked)-1] != "DELETE /api/v1/nodes/B%2FB" {
		t.Errorf("removed: %d %s%s, asked %q", code, out, says, asked)
	}
}

// The secret of a cluster, and passwords in addresses, aren't shown.
func TestSettingsOfClustersAreShown(t *testing.T) {
	code, out, says := hubbubSays(t, "config", "--cluster-listen", "a:7422", "--data-dir", "d", "--cluster-secret", "0123456789abcdef", "--join", "a:7422", "--join", "b:7422,c:7422")
	if code != 0 || strings.Contains(out, "0123456789abcdef") || !strings.Contains(out, "# cluster-secret: not shown, from the flag") ||
		!strings.Contains(out, `join: ["a:7422", "b:7422", "c:7422"]`) || !strings.Contains(out, "cluster-name: hubbub # the default") {
		t.Errorf("status %d\n%s%s", code, out, says)
	}
	code, out, says = hubbubSays(t, "config", "--nats", "nats://me:word@n:4222,nats://m:4222")
	if code != 0 || strings.Contains(out, "me:word") || !strings.Contains(out, "# nats: not shown") {
		t.Errorf("status %d\n%s%s", code, out, says)
	}
	if code, out, says = hubbubSays(t, "config", "--nats", "nats://n:4222"); code != 0 || !strings.Contains(out, `nats: ["nats://n:4222"]`) {
		t.Errorf("status %d\n%s%s", code, out, says)
	}
}
