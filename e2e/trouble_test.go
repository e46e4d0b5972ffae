package e2e

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/hubbub/internal/wsclient"
)

// docs/troubleshooting.md is held against the program: each of its symptoms is provoked, and what the page quotes must
// be seen, in the answer, in the log and in the metrics.

// mishap is one symptom, as the test provokes it.
type mishap struct {
	t      *testing.T
	s      *server            // whose log and metrics are meant
	before map[string]float64 // its metrics as it was started
	saw    syncBuffer         // what clients and commands were shown
	done   bool               // it was held against the page while it lasted
}

// symptom is one section of the page: the quotes in code marks behind each of its words.
type symptom struct {
	title string
	lines map[string]string // by the word that begins them: Seen, Log, Metric, Cause, Do
}

var (
	symptomLine = regexp.MustCompile(`(?m)^- \*\*(Seen|Log|Metric|Cause|Do)\*\*: (.*)$`)
	codeSpan    = regexp.MustCompile("`([^`]+)`")
)

// symptoms are the page's, by their titles.
func symptoms(t *testing.T) map[string]symptom {
	t.Helper()
	all := map[string]symptom{}
	for _, section := range strings.Split(readDoc(t, "docs/troubleshooting.md").text, "\n### ")[1:] {
		section, _, _ = strings.Cut(section, "\n## ")
		title, text, _ := strings.Cut(section, "\n")
		s := symptom{title, map[string]string{}}
		for _, m := range symptomLine.FindAllStringSubmatch(text, -1) {
			s.lines[m[1]] = m[2]
		}
		if s.lines["Seen"] == "" || s.lines["Cause"] == "" || s.lines["Do"] == "" {
			t.Errorf("%q doesn't say what is seen, why it is so, and what to do", title)
		}
		all[title] = s
	}
	return all
}

// quotes are what stands in code marks behind a word.
func (s symptom) quotes(word string) (all []string) {
	for _, m := range codeSpan.FindAllStringSubmatch(s.lines[word], -1) {
		all = append(all, m[1])
	}
	return all
}

// has says whether a text holds a quote, in which … stands for anything within a line.
func has(text, quote string) bool {
	parts := strings.Split(quote, "…")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile(strings.Join(parts, `.*`)).MatchString(text)
}

func TestTroubleshooting(t *testing.T) {
	t.Parallel()
	page := symptoms(t)
	for _, title := range slices.Sorted(maps.Keys(page)) {
		if mishaps[title] == nil && title != "An error has a code" {
			t.Errorf("nothing provokes %q", title)
		}
	}
	for title, provoke := range mishaps {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			symptom, ok := page[title]
			if !ok {
				t.Errorf("docs/troubleshooting.md has no section %q", title)
			}
			tr := &mishap{t: t}
			provoke(tr)
			t.Logf("seen:\n%s", tr.saw.String())
			tr.check(symptom)
		})
	}
}

// Whoever reads an error's code or a Close's finds it on the page; and what the page tells to set can be set.
func TestTroubleshootingIsWhole(t *testing.T) {
	t.Parallel()
	text := readDoc(t, "docs/troubleshooting.md").text
	protocol := readDoc(t, "docs/protocol.md")
	for _, section := range []string{"Errors", "The end of a connection"} {
		codes := regexp.MustCompile("(?m)^\\| `?([a-z_]+|[0-9]{4})`? \\|").FindAllStringSubmatch(protocol.section(section).text, -1)
		if len(codes) < 10 {
			t.Errorf("found %d codes in docs/protocol.md, %s", len(codes), section)
		}
		for _, m := range codes {
			if m[1] != "code" && m[1] != "1000" && !regexp.MustCompile(`(?m)^(### .*\b|\| `+"`)"+m[1]+`\b`).MatchString(text) {
				t.Errorf("docs/troubleshooting.md has no heading and no row for %s", m[1])
			}
		}
	}
	help, status := hubbub(t, nil, "serve", "--help")
	if status != 0 {
		t.Fatalf("hubbub serve --help: %d", status)
	}
	for title, s := range symptoms(t) {
		if metric := s.lines["Metric"]; len(s.quotes("Metric")) == 0 && !regexp.MustCompile(`^none( [a-z ]+)?: .`).MatchString(metric) {
			t.Errorf("%s: it names no metric in code marks, and doesn't say why there is none: %q", title, metric)
		}
		for _, quote := range s.quotes("Do") {
			for _, m := range regexp.MustCompile(`--[a-z][a-z-]+`).FindAllString(quote, -1) {
				if strings.HasPrefix(quote, "-") && !strings.Contains(help, m) {
					t.Errorf("%s: hubbub serve has no %s", title, m)
				}
			}
		}
	}
}

// check waits for what the page quotes.
func (tr *mishap) check(s symptom) {
	tr.t.Helper()
	if tr.done {
		return
	}
	tr.done = true
	wait := func(what string, holds func() bool) {
		for end := time.Now().Add(patience); !holds(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				tr.t.Errorf("%s isn't there", what)
				return
			}
		}
	}
	for _, quote := range s.quotes("Seen") {
		if !has(tr.saw.String(), quote) {
			tr.t.Errorf("what is seen has no %s", quote)
		}
	}
	for _, quote := range s.quotes("Log") {
		wait("the log's "+quote, func() bool { return has(tr.s.log.String(), quote) })
	}
	for _, quote := range s.quotes("Metric") {
		name, value, exact := strings.Cut(quote, " ")
		wait("the metric "+quote, func() bool {
			now := scrape(tr.t, tr.s)[name]
			return exact && fmt.Sprint(now) == value || !exact && now > tr.before[name]
		})
	}
	if tr.t.Failed() && tr.s != nil {
		tr.t.Logf("its log:\n%s", tr.s.log.String())
	}
}

// start runs the server that has the trouble.
func (tr *mishap) start(flags ...string) *server {
	tr.t.Helper()
	tr.s = start(tr.t, flags...)
	tr.before = scrape(tr.t, tr.s)
	return tr.s
}

// unready runs one that won't be ready.
func (tr *mishap) unready(command *exec.Cmd, addr string) *server {
	tr.t.Helper()
	s := &server{addr: addr, cmd: command, exited: make(chan struct{})}
	s.begin(tr.t)
	tr.s, tr.before = s, map[string]float64{}
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if res, err := http.Get(s.http("/healthz")); err == nil {
			res.Body.Close()
			return s
		} else if time.Now().After(end) {
			tr.t.Fatal(err)
		}
	}
}

// see takes down what is shown.
func (tr *mishap) see(format string, args ...any) { fmt.Fprintf(&tr.saw, format+"\n", args...) }

// fails runs a command that doesn't succeed, and sees what it says.
func (tr *mishap) fails(env []string, args ...string) {
	tr.t.Helper()
	out, status := hubbub(tr.t, env, args...)
	if status == 0 {
		tr.t.Errorf("hubbub %s succeeds", strings.Join(args, " "))
	}
	tr.see("%s", out)
}

// upgrade asks for a WebSocket with these header lines, and sees the answer. It returns the status, and the connection
// where that is 101.
func (tr *mishap) upgrade(path string, lines ...string) (status int, c *rawConn) {
	tr.t.Helper()
	return tr.request(wsclient.Upgrade(tr.s.addr, path, lines...))
}

func (tr *mishap) request(head string) (status int, c *rawConn) {
	tr.t.Helper()
	c = connect(tr.t, tr.s)
	tr.see("%s", head)
	c.write(head)
	return tr.answered(c), c
}

// answered sees an HTTP answer.
func (tr *mishap) answered(c *rawConn) int {
	tr.t.Helper()
	res := c.response("GET")
	var head bytes.Buffer
	_ = res.Header.Write(&head)
	tr.see("HTTP/1.1 %s\n%s", res.Status, head.String())
	if res.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(res.Body)
		tr.see("%s", body)
	}
	return res.StatusCode
}

// get sees what curl would.
func (tr *mishap) get(path string, headers ...string) {
	tr.t.Helper()
	tr.see("%s", path)
	out, err := exec.Command("curl", append([]string{"-sS", "-i", "--noproxy", "*", tr.s.http(path)}, headers...)...).CombinedOutput()
	if err != nil {
		tr.t.Fatalf("curl: %v %s", err, out)
	}
	tr.see("%s", out)
}

// enter is a client who is welcomed.
func (tr *mishap) enter() *rawConn {
	tr.t.Helper()
	c := dialRaw(tr.t, tr.s, "/ws", "")
	c.welcomed()
	return c
}

// tell sends a message and sees the next one that comes.
func (tr *mishap) tell(c *rawConn, message string) string {
	tr.t.Helper()
	c.write(text(message))
	return tr.hear(c)
}

func (tr *mishap) hear(c *rawConn) string {
	tr.t.Helper()
	answer := c.expect(fin | opText)
	tr.see("%s", answer)
	return answer
}

// ends sees the Close that comes, whatever comes before.
func (tr *mishap) ends(c *rawConn) {
	tr.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	for {
		first, payload, err := c.read()
		if err != nil {
			tr.see("the connection ends without a Close: %v", err)
			return
		}
		if first == fin|opClose {
			code, reason, _ := wsclient.ParseClose([]byte(payload))
			tr.see("close %d %s", code, reason)
			c.write(closeFrame(code, ""))
			return
		}
	}
}
