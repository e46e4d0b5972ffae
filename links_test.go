package hubbub_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// Every link of the docs that names a file of the repository, and every one to a heading, leads there.
func TestLinksOfTheDocs(t *testing.T) {
	var pages []string
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && path != "."):
			return filepath.SkipDir
		case filepath.Ext(path) == ".md":
			pages = append(pages, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(pages) < 30 {
		t.Errorf("found %d pages", len(pages))
	}
	anchors := map[string]map[string]bool{}
	texts := map[string]string{}
	for _, page := range pages {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		texts[page] = withoutCode(string(b))
		anchors[page] = headings(texts[page])
	}
	links := 0
	for page, text := range texts {
		for _, m := range regexp.MustCompile(`\]\(([^)\s]+)|(?:href|src)="([^"]+)"`).FindAllStringSubmatch(text, -1) {
			target := m[1] + m[2]
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			links++
			name, anchor, hasAnchor := strings.Cut(target, "#")
			path := page
			if name != "" {
				path = filepath.Join(filepath.Dir(page), filepath.FromSlash(name))
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s: %s: there is no such file", page, target)
			} else if hasAnchor && anchors[path] != nil && !anchors[path][anchor] {
				t.Errorf("%s: %s: there is no such heading", page, target)
			}
		}
	}
	if links < 150 {
		t.Errorf("found %d links", links)
	}
}

var (
	fences    = regexp.MustCompile("(?ms)^```.*?^```$")
	codeSpans = regexp.MustCompile("`[^`\n]*`")
)

// withoutCode takes out what is no link, though it looks like one; code in headings stays.
func withoutCode(text string) string {
	text = fences.ReplaceAllString(text, "")
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if !strings.HasPrefix(line, "#") {
			lines[i] = codeSpans.ReplaceAllString(line, "")
		}
	}
	return strings.Join(lines, "\n")
}

// headings are a page's anchors, by the rule of GitHub: small letters, blanks as dashes, no punctuation, and a number
// where one comes again.
func headings(text string) map[string]bool {
	all := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ +(.*)$`).FindAllStringSubmatch(text, -1) {
		slug := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r):
				return unicode.ToLower(r)
			}
			return -1
		}, strings.TrimSpace(m[1]))
		anchor := slug
		for n := 1; all[anchor]; n++ {
			anchor = fmt.Sprintf("%s-%d", slug, n)
		}
		all[anchor] = true
	}
	return all
}
