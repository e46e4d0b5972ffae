package e2e

import (
	"context"
	"fmt"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/chromedp"
)

// Chromium's tabs, as the stories of both browsers want them.

// show opens a URL as a tab, which is closed with the test t.
func (b *browser) show(t *testing.T, url string) tab {
	t.Helper()
	// A line that is cut, and a server that is away or refuses, are errors to the browser.
	return (&browser{t: t, ctx: b.ctx}).open(url, "WebSocket connection to", "Failed to load resource", "net::ERR_")
}

func (p *page) visit(url string) error {
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	return chromedp.Do(ctx, chromedp.Navigate(url))
}

// back doesn't wait for the page to load: one that the browser has kept never does.
func (p *page) back() error {
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	_, err := chromedp.Run(ctx, chromedp.Evaluate[any]("history.back()"))
	return err
}

func (p *page) leave() { _ = chromedp.Cancel(p.ctx) }

func (p *page) evaluate(expression string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string]("(async () => JSON.stringify((await ("+expression+")) ?? null))()", chromedp.EvalAwaitPromise))
	return []byte(text), err
}

// command has the browser's debugger do something to the page.
func command[P, R any](p *page, c cdp.Command[P, R], params P) R {
	p.t.Helper()
	var result R
	p.do(func(ctx context.Context, t *chromedp.Target) (_ chromedp.Void, err error) {
		if result, err = cdp.Call(ctx, t, c, params); err != nil {
			err = fmt.Errorf("%s: %w", c.Method, err)
		}
		return chromedp.Void{}, err
	})
	return result
}
