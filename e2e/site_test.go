package e2e

import (
	"context"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// The site of the docs, as `make site` builds it.

// buildSite builds it into a folder of the test's.
func buildSite(t *testing.T) (folder string) {
	t.Helper()
	folder = filepath.Join(t.TempDir(), "site")
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "node_modules/vitepress/bin/vitepress.js", "build")
	cmd.Dir = "../site"
	cmd.Env = append(os.Environ(), "SITE_OUT="+folder)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("the site isn't built: %v\n%s", err, out)
	}
	return folder
}

func TestSite(t *testing.T) {
	t.Parallel()
	folder := buildSite(t)
	pages := map[string]string{}
	if err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".html" {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			pages["/"+filepath.ToSlash(strings.TrimPrefix(path, folder+"/"))] = string(b)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Run("make site says where it is", func(t *testing.T) {
		if out, err := exec.Command("make", "-n", "-C", "..", "site").CombinedOutput(); err != nil || !strings.Contains(string(out), "the site is in bin/site") {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("every page of docs is there, and in the menu", func(t *testing.T) { siteIsWhole(t, pages) })
	t.Run("links and what pages load", func(t *testing.T) { siteLinks(t, folder, pages) })
	t.Run("in a browser", func(t *testing.T) { siteInABrowser(t, folder) })
}

func siteIsWhole(t *testing.T, pages map[string]string) {
	n := 0
	if err := filepath.WalkDir("../docs", func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".md" {
			return err
		}
		n++
		at := "/" + strings.TrimSuffix(strings.TrimPrefix(filepath.ToSlash(path), "../docs/"), ".md") + ".html"
		at = strings.Replace(at, "/README.html", "/index.html", 1)
		if pages[at] == "" {
			t.Errorf("%s is no page of the site", path)
		}
		if link := strings.TrimSuffix(at, "index.html"); !strings.Contains(pages["/index.html"], `href="`+link+`"`) {
			t.Errorf("the menu has no %s", link)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if n < 40 {
		t.Errorf("found %d files", n)
	}
	for _, group := range []string{"Start", "Clients", "Backend", "Operate", "Cluster", "Reference", "Decisions"} {
		if !strings.Contains(pages["/index.html"], ">"+group+"</h2>") {
			t.Errorf("the menu has no group %s", group)
		}
	}
}

var (
	siteLink   = regexp.MustCompile(`<a [^>]*?href="([^"]*)"`)
	siteAnchor = regexp.MustCompile(` id="([^"]*)"`)
	siteLoads  = regexp.MustCompile(`<(?:script|link|img|iframe|source|video)\b[^>]*? (?:src|href)="([^"]*)"`)
	styleLoads = regexp.MustCompile(`url\(([^)]*)\)|@import`)
)

// siteLinks follows every link of the site within it, to the heading that it names; and sees that pages load nothing
// from elsewhere.
func siteLinks(t *testing.T, folder string, pages map[string]string) {
	anchors := map[string]map[string]bool{}
	for name, page := range pages {
		anchors[name] = map[string]bool{}
		for _, m := range siteAnchor.FindAllStringSubmatch(page, -1) {
			anchors[name][m[1]] = true
		}
	}
	links, loads := 0, 0
	for name, page := range pages {
		for _, m := range siteLink.FindAllStringSubmatch(page, -1) {
			to, err := url.Parse(m[1])
			if err != nil {
				t.Errorf("%s: %s: %v", name, m[1], err)
				continue
			}
			if to.Host != "" {
				continue // for the reader to follow
			}
			links++
			at := (&url.URL{Path: name}).ResolveReference(to)
			path := at.Path
			if strings.HasSuffix(path, "/") {
				path += "index.html"
			}
			if pages[path] == "" {
				t.Errorf("%s: %s leads nowhere", name, m[1])
			} else if at.Fragment != "" && !anchors[path][at.Fragment] {
				t.Errorf("%s: %s: there is no such heading", name, m[1])
			}
		}
		for _, m := range siteLoads.FindAllStringSubmatch(page, -1) {
			if strings.HasPrefix(m[1], "data:") {
				continue
			}
			loads++
			if _, err := os.Stat(filepath.Join(folder, filepath.FromSlash(m[1]))); err != nil || !strings.HasPrefix(m[1], "/") || strings.HasPrefix(m[1], "//") {
				t.Errorf("%s loads %s, which isn't of the site", name, m[1])
			}
		}
	}
	if links < 3000 || loads < 100 {
		t.Errorf("found %d links, and %d files that are loaded", links, loads)
	}
	styles, err := filepath.Glob(folder + "/assets/*.css")
	if err != nil || len(styles) == 0 {
		t.Fatalf("no styles: %v", err)
	}
	for _, style := range styles {
		b, err := os.ReadFile(style)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range styleLoads.FindAllStringSubmatch(string(b), -1) {
			if !strings.HasPrefix(strings.Trim(m[1], `"'`), "/assets/") && !strings.HasPrefix(strings.Trim(m[1], `"'`), "data:") {
				t.Errorf("%s loads %.80s", style, m[0])
			}
		}
	}
}

// siteInABrowser looks for a word, opens the page that has it, and sees it on a phone and in the dark, under a policy
// that forbids what is elsewhere.
func siteInABrowser(t *testing.T, folder string) {
	files := http.FileServer(http.Dir(folder))
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'self' 'unsafe-inline' data:")
		files.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	p := (&browser{t: t, ctx: startBrowser(t).ctx}).open(front.URL + "/")
	p.do(chromedp.EmulateViewport(1280, 840))
	p.shows("h1", "Hubbub")
	p.picture("bin/pictures/site.png")
	light := eval[string](p, `getComputedStyle(document.body).backgroundColor`)
	p.until(`document.querySelector(".DocSearch-Button, #local-search button") !== null`)
	p.do(chromedp.Click(chromedp.CSS("#local-search button")))
	p.until(`document.querySelector("#localsearch-input") !== null`)
	p.do(chromedp.Focus(chromedp.CSS("#localsearch-input")), chromedp.KeyEvent("epochs"))
	p.until(`document.querySelector("#localsearch-list a.result") !== null`)
	p.picture("bin/pictures/site-search.png")
	p.do(chromedp.Focus(chromedp.CSS("#localsearch-input")), chromedp.KeyEvent(kb.Enter))
	p.until(`location.pathname !== "/" && /epoch/i.test(document.querySelector("main").textContent)`)

	p.do(chromedp.Navigate(front.URL + "/protocol.html"))
	p.shows("h1", "The room protocol")
	p.prefers([2]string{"prefers-color-scheme", "dark"})
	p.until(`document.documentElement.classList.contains("dark") && getComputedStyle(document.body).backgroundColor !== "` + light + `"`)
	p.picture("bin/pictures/site-dark.png")
	p.do(chromedp.EmulateViewport(360, 740, chromedp.EmulateMobile, chromedp.EmulateScale(2)))
	p.until(`document.documentElement.scrollWidth <= 360`)
	p.picture("bin/pictures/site-phone.png")
	p.do(chromedp.Click(chromedp.CSS(".VPLocalNav .menu")))
	p.until(`document.querySelector(".VPSidebar.open a[href='/troubleshooting.html']") !== null`)
	p.picture("bin/pictures/site-menu.png")
	p.do(chromedp.Click(chromedp.CSS(".VPSidebar.open a[href='/troubleshooting.html']")))
	p.shows("h1", "Troubleshooting")
}
