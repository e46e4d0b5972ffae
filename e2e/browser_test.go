package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

func findBrowser() (string, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("chromium (Debian: chromium)")
}

// browser is a Chromium of a test's own.
type browser struct {
	t   *testing.T
	ctx context.Context
}

// browsers has a place for each test that may use one at a time.
var browsers = make(chan struct{}, 3)

// awaitBrowser waits for a place among them, which is the test's until it ends.
func awaitBrowser(t *testing.T) {
	t.Helper()
	browsers <- struct{}{}
	t.Cleanup(func() { <-browsers })
}

// shared is the Chromium of those tests that want no options: to start one takes the two processors for seconds.
var shared struct {
	start sync.Once
	ctx   context.Context
	stop  func()
	err   error
}

// startBrowser gives a test a Chromium with a profile of its own until it ends, and a process of its own where it has
// these options beside the usual ones.
func startBrowser(t *testing.T, options ...chromedp.ExecAllocatorOption) *browser {
	t.Helper()
	awaitBrowser(t)
	if len(options) > 0 {
		ctx, stop, err := runBrowser(t.TempDir(), options...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stop)
		return &browser{t: t, ctx: ctx}
	}
	shared.start.Do(func() { shared.ctx, shared.stop, shared.err = runBrowser(filepath.Join(builds, "chromium")) })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	ctx, cancel := chromedp.NewContext(shared.ctx, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	return &browser{t: t, ctx: ctx}
}

// runBrowser starts a Chromium with its profile in a folder.
func runBrowser(profile string, options ...chromedp.ExecAllocatorOption) (ctx context.Context, stop func(), err error) {
	path, err := findBrowser()
	if err != nil {
		return nil, nil, err
	}
	alloc, end := chromedp.NewExecAllocator(context.Background(), append([]chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path),
		chromedp.UserDataDir(profile),
		chromedp.WSURLReadTimeout(patience), // the first start on a machine takes long: 20 s of the default were too short
		chromedp.NoSandbox, chromedp.Headless, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.WindowSize(1200, 800),
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-features", "WebUIOmniboxPopup,WebUIOmniboxAimPopup"), // pages of its own, which cost seconds in each window
		chromedp.Flag("disable-dev-shm-usage", true),
	}, options...)...)
	ctx, cancel := chromedp.NewContext(alloc)
	stop = func() {
		cancel()
		end()
	}
	// The first call starts the browser, which would end with a deadline's context.
	if err := chromedp.Do(ctx); err != nil {
		stop()
		return nil, nil, err
	}
	return ctx, stop, nil
}

// page is one tab.
type page struct {
	t   *testing.T
	ctx context.Context

	mu      sync.Mutex
	faults  []string // what the browser's console complained about
	allowed []string // of these, what has one of these in it is no fault
}

// open shows a URL in a tab of its own. What the browser's console complains about there, such as an exception or what
// the page's security policy forbids, fails the test; allowed are parts of what it may say: a line that is cut by the
// test is an error to the browser.
func (b *browser) open(url string, allowed ...string) *page {
	b.t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	b.t.Cleanup(cancel)
	p := &page{t: b.t, ctx: ctx, allowed: allowed}
	if err := chromedp.Listen(ctx, func(ev any) {
		switch ev := ev.(type) {
		case *log.EventEntryAdded:
			p.complain(fmt.Sprintf("%s: %s %s", ev.Entry.Level, ev.Entry.Text, ev.Entry.URL))
		case *runtime.EventExceptionThrown:
			text := ev.ExceptionDetails.Text
			if e := ev.ExceptionDetails.Exception; e != nil {
				text += " " + e.Description
			}
			p.complain(text)
		case *runtime.EventConsoleAPICalled:
			switch ev.Type {
			case runtime.ConsoleAPICalledTypeError, runtime.ConsoleAPICalledTypeWarning, runtime.ConsoleAPICalledTypeAssert:
				text := string(ev.Type) + ":"
				for _, arg := range ev.Args {
					text += " " + string(arg.Value) + arg.Description
				}
				p.complain(text)
			}
		}
	}); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if c := p.complaints(); c != "" {
			b.t.Errorf("the browser complains about %s:\n%s", url, c)
		}
	})
	p.do(chromedp.Navigate(url))
	return p
}

func (p *page) complain(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, part := range p.allowed {
		if strings.Contains(text, part) {
			return
		}
	}
	p.faults = append(p.faults, text)
}

func (p *page) complaints() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.faults, "\n")
}

func (p *page) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		p.t.Fatalf("the page: %v\nit shows: %s", err, p.text("body"))
	}
}

// until waits for a JavaScript expression to be true.
func (p *page) until(expression string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	for {
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool](expression))
		if ok {
			return
		}
		if err != nil {
			p.t.Fatalf("%s: %v\nthe page shows: %s", expression, err, p.text("body"))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// shows waits until an element's text holds this.
func (p *page) shows(selector, text string) {
	p.t.Helper()
	p.until(fmt.Sprintf(`(document.querySelector(%q)?.textContent ?? "").includes(%q)`, selector, text))
}

// text is what an element shows, or why that can't be said.
func (p *page) text(selector string) string {
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](fmt.Sprintf(`document.querySelector(%q).innerText`, selector)))
	if err != nil {
		return err.Error()
	}
	return text
}

// eval is the value of a JavaScript expression; a promise is waited for.
func eval[T any](p *page, expression string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T]("(async () => ("+expression+"))()", chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// prefers sets media features for the page: {"prefers-color-scheme", "dark"}, {"prefers-reduced-motion", "reduce"}.
func (p *page) prefers(features ...[2]string) {
	p.t.Helper()
	var media emulation.SetEmulatedMediaParams
	for _, f := range features {
		media.Features = append(media.Features, &emulation.MediaFeature{Name: f[0], Value: f[1]})
	}
	p.do(func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, media)
		return chromedp.Void{}, err
	})
}

// picture looks at what the page shows now, which must be more than one colour. With HUBBUB_PICTURES set it is kept as a
// PNG file at this path beneath the project's folder: `make pictures` makes those of the docs anew.
func (p *page) picture(path string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	shot, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(shot))
	if err != nil {
		p.t.Fatal(err)
	}
	plain := true
	for b, y := img.Bounds(), img.Bounds().Min.Y; y < b.Max.Y && plain; y++ {
		for x := b.Min.X; x < b.Max.X && plain; x++ {
			plain = img.At(x, y) == img.At(b.Min.X, b.Min.Y)
		}
	}
	if plain {
		p.t.Errorf("the page is blank, for %s", path)
	}
	if os.Getenv("HUBBUB_PICTURES") == "" {
		return
	}
	at := filepath.Join("..", path)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(at, shot, 0o644); err != nil {
		p.t.Fatal(err)
	}
}

var (
	building sync.Mutex
	examples = map[string]error{} // those that are built, or why they aren't
)

// buildExample builds the program of a folder of examples/ once.
func buildExample(name string) (binary string, err error) {
	building.Lock()
	defer building.Unlock()
	binary = filepath.Join(builds, "example-"+name)
	err, built := examples[name]
	if !built {
		args := append([]string{"build", "-o", binary}, strings.Fields(os.Getenv("HUBBUB_E2E_BUILDFLAGS"))...)
		if out, failed := exec.Command("go", append(args, "../examples/"+name)...).CombinedOutput(); failed != nil {
			err = fmt.Errorf("building examples/%s: %w\n%s", name, failed, out)
		}
		examples[name] = err
	}
	return binary, err
}

// startExample builds the program of a folder of examples/ and runs it on a free port until the test ends.
func startExample(t *testing.T, name string, flags ...string) *server {
	t.Helper()
	return startExampleAt(t, freeAddr(t), name, flags...)
}

func startExampleAt(t *testing.T, addr, name string, flags ...string) *server {
	t.Helper()
	binary, err := buildExample(name)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: addr, exited: make(chan struct{})}
	s.cmd = exec.Command(binary, append([]string{"-listen", addr}, flags...)...)
	s.run(t)
	return s
}
