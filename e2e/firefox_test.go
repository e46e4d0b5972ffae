package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func findFirefox() (string, error) {
	for _, name := range []string{"firefox-esr", "firefox"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("firefox (Debian: firefox-esr)")
}

// firefox is a Firefox of a test's own, driven by WebDriver BiDi, which it speaks itself.
type firefox struct {
	t    *testing.T
	conn *websocket.Conn

	mu      sync.Mutex
	ids     int
	answers map[int]chan bidi
	tabs    map[string]*firefoxTab
	ended   error // why nothing comes any more
}

// bidi is what the browser says: an answer, an error, or an event.
type bidi struct {
	ID      int
	Type    string
	Error   string
	Message string
	Result  json.RawMessage
	Method  string
	Params  json.RawMessage
}

// The profile of a browser that asks nobody but the test.
const firefoxPrefs = `
user_pref("app.normandy.enabled", false);
user_pref("app.update.disabledForTesting", true);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("browser.startup.page", 0);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("extensions.update.enabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("network.proxy.type", 0);
user_pref("services.settings.server", "data:,#remote-settings-dummy/v1");
user_pref("toolkit.telemetry.enabled", false);
`

// startFirefox starts one, which ends with the test.
func startFirefox(t *testing.T) *firefox {
	t.Helper()
	awaitBrowser(t)
	path, err := findFirefox()
	if err != nil {
		t.Fatal(err)
	}
	profile := t.TempDir()
	if err := os.WriteFile(filepath.Join(profile, "user.js"), []byte(firefoxPrefs), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "--headless", "--no-remote", "--remote-debugging-port=0", "--profile", profile)
	cmd.Env = append(os.Environ(), "HOME="+profile, "TMPDIR="+profile, "MOZ_CRASHREPORTER_DISABLE=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // its processes are ended together
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 1)
	read := make(chan struct{})
	var log syncBuffer
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			fmt.Fprintln(&log, lines.Text())
			if _, at, ok := strings.Cut(lines.Text(), "WebDriver BiDi listening on "); ok {
				said <- at
			}
		}
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-read
		_ = cmd.Wait()
	})
	f := &firefox{t: t, answers: map[int]chan bidi{}, tabs: map[string]*firefoxTab{}}
	select {
	case at := <-said:
		f.dial(strings.TrimSpace(at))
	case <-read:
		t.Fatalf("Firefox ended at its start:\n%s", log.String())
	case <-time.After(patience):
		t.Fatalf("Firefox doesn't listen:\n%s", log.String())
	}
	return f
}

func (f *firefox) dial(at string) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, at+"/session", nil)
	if err != nil {
		f.t.Fatal(err)
	}
	conn.SetReadLimit(-1)
	f.conn = conn
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		f.hear()
	}()
	f.t.Cleanup(func() {
		_, _ = f.call("browser.close", map[string]any{}) // it ends, and the connection with it
		_ = conn.CloseNow()
		<-heard
	})
	f.must("session.new", map[string]any{"capabilities": map[string]any{}})
	f.must("session.subscribe", map[string]any{"events": []string{"log.entryAdded"}})
}

// hear reads all that the browser says.
func (f *firefox) hear() {
	for {
		_, b, err := f.conn.Read(context.Background())
		if err != nil {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.ended = err
			for id, answer := range f.answers {
				delete(f.answers, id)
				close(answer)
			}
			return
		}
		var m bidi
		if err := json.Unmarshal(b, &m); err != nil {
			continue
		}
		f.mu.Lock()
		if m.Method == "log.entryAdded" {
			f.complain(m.Params)
		} else if answer := f.answers[m.ID]; answer != nil {
			delete(f.answers, m.ID)
			answer <- m
		}
		f.mu.Unlock()
	}
}

func (f *firefox) complain(params json.RawMessage) {
	var e struct {
		Level, Text string
		Source      struct{ Context string }
	}
	if err := json.Unmarshal(params, &e); err != nil {
		return
	}
	// A line that is cut, and a server that is away or refuses, are errors to the browser.
	for _, part := range []string{"establish a connection to the server at ws://", "The connection to ws://", "/readyz. (Reason: CORS request did not succeed)"} {
		if strings.Contains(e.Text, part) {
			return
		}
	}
	if tab := f.tabs[e.Source.Context]; tab != nil && (e.Level == "error" || e.Level == "warn") {
		tab.faults = append(tab.faults, e.Level+": "+e.Text)
	}
}

// call sends a command and waits for its answer.
func (f *firefox) call(method string, params any) (json.RawMessage, error) {
	f.mu.Lock()
	f.ids++
	id, answer := f.ids, make(chan bidi, 1)
	ended := f.ended
	if ended == nil {
		f.answers[id] = answer
	}
	f.mu.Unlock()
	if ended != nil {
		return nil, ended
	}
	b, err := json.Marshal(map[string]any{"id": id, "method": method, "params": params})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := f.conn.Write(ctx, websocket.MessageText, b); err != nil {
		return nil, err
	}
	select {
	case m, ok := <-answer:
		if !ok {
			return nil, errors.New("Firefox has ended")
		}
		if m.Type != "success" {
			return nil, fmt.Errorf("%s: %s: %s", method, m.Error, m.Message)
		}
		return m.Result, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: no answer", method)
	}
}

func (f *firefox) must(method string, params any) json.RawMessage {
	f.t.Helper()
	result, err := f.call(method, params)
	if err != nil {
		f.t.Fatal(err)
	}
	return result
}

// firefoxTab is one tab.
type firefoxTab struct {
	f       *firefox
	context string
	faults  []string // what its console complained about; guarded by f.mu
}

// open shows a URL in a tab of its own. What its console complains about fails the test.
func (f *firefox) open(t *testing.T, url string) tab {
	t.Helper()
	var made struct{ Context string }
	result, err := f.call("browsingContext.create", map[string]any{"type": "tab"})
	if err == nil {
		err = json.Unmarshal(result, &made)
	}
	if err != nil {
		t.Fatal(err)
	}
	p := &firefoxTab{f: f, context: made.Context}
	f.mu.Lock()
	f.tabs[p.context] = p
	f.mu.Unlock()
	t.Cleanup(func() {
		p.leave()
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(p.faults) > 0 {
			t.Errorf("Firefox complains about %s:\n%s", url, strings.Join(p.faults, "\n"))
		}
	})
	if err := p.visit(url); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *firefoxTab) leave() {
	_, _ = p.f.call("browsingContext.close", map[string]any{"context": p.context})
}

func (p *firefoxTab) visit(url string) error {
	_, err := p.f.call("browsingContext.navigate", map[string]any{"context": p.context, "url": url, "wait": "complete"})
	return err
}

func (p *firefoxTab) back() error {
	_, err := p.f.call("browsingContext.traverseHistory", map[string]any{"context": p.context, "delta": -1})
	return err
}

func (p *firefoxTab) evaluate(expression string) ([]byte, error) {
	result, err := p.f.call("script.evaluate", map[string]any{
		"expression":      "(async () => JSON.stringify((await (" + expression + ")) ?? null))()",
		"target":          map[string]any{"context": p.context},
		"awaitPromise":    true,
		"resultOwnership": "none",
	})
	if err != nil {
		return nil, err
	}
	var r struct {
		Type             string
		Result           struct{ Value string }
		ExceptionDetails struct{ Text string }
	}
	if err := json.Unmarshal(result, &r); err != nil {
		return nil, err
	}
	if r.Type != "success" {
		return nil, errors.New(r.ExceptionDetails.Text)
	}
	return []byte(r.Result.Value), nil
}
