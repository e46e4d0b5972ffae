package hubbub_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
)

// withLabel is the values of one metric's label.
func withLabel(all map[string]float64, name, label string) (values []string) {
	for series := range all {
		if value, ok := strings.CutPrefix(series, name+"{"+label+`="`); ok {
			values = append(values, strings.TrimSuffix(value, `"}`))
		}
	}
	slices.Sort(values)
	return values
}

// A close code that the code can produce has its row in /metrics from the start, or a rate would miss the first; and
// its row in the docs.
func TestEveryCloseCodeIsCounted(t *testing.T) {
	codes := closeConstants(t)
	var want []string
	for name, where := range usesOf(t, codes) {
		want = append(want, codes[name])
		t.Logf("%s (%s) in %s", name, codes[name], where)
	}
	want = append(want, "other")
	slices.Sort(want)
	s := rawtest.Start(t, hubbub.Config{})
	got := withLabel(scrape(t, s), "hubbub_closed_total", "code")
	if !slices.Equal(got, want) {
		t.Errorf("closed_total has the codes %v, the code can produce %v", got, want)
	}
	_, table, _ := strings.Cut(operations(t), "| `closed_total` |")
	table, _, _ = strings.Cut(table, "\n\n")
	if rows := firstColumns(table); !slices.Equal(rows, want) {
		t.Errorf("docs/operations.md has rows for the close codes %v, want %v", rows, want)
	}
}

// firstColumns are the names in code marks in the first column of a table of Markdown.
func firstColumns(table string) (names []string) {
	for line := range strings.Lines(table) {
		first, _, _ := strings.Cut(strings.TrimPrefix(line, "|"), "|")
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(first, -1) {
			names = append(names, m[1])
		}
	}
	slices.Sort(names)
	return names
}

func operations(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// closeConstants are the close codes that have a name, with their numbers.
func closeConstants(t *testing.T) map[string]string {
	t.Helper()
	codes := map[string]string{}
	for _, file := range []string{"internal/wire/close.go", "internal/protocol/codes.go"} {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "Close") {
				codes[v.Names[0].Name] = v.Values[0].(*ast.BasicLit).Value
			}
			return true
		})
	}
	if len(codes) < 15 {
		t.Fatalf("found only %v", codes)
	}
	return codes
}

// usesOf says which of the constants the server's code uses, and where: beside metrics.go, whose table is held against
// it.
func usesOf(t *testing.T, codes map[string]string) map[string]string {
	t.Helper()
	uses := map[string]string{}
	for _, dir := range []string{".", "internal/hub", "internal/loop", "internal/wire", "internal/protocol"} {
		files, _ := filepath.Glob(dir + "/*.go")
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") || file == "metrics.go" {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			declared := map[*ast.Ident]bool{}
			ast.Inspect(f, func(n ast.Node) bool {
				if v, ok := n.(*ast.ValueSpec); ok {
					declared[v.Names[0]] = true
				}
				if id, ok := n.(*ast.Ident); ok && codes[id.Name] != "" && !declared[id] {
					uses[id.Name] = file
				}
				return true
			})
		}
	}
	return uses
}

// The docs name every metric of ours, and none that isn't there.
func TestEveryMetricIsInTheDocs(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{
		Questions: hubbub.Questions{URL: "http://backend.invalid", Events: []string{"connect"}, Secrets: []string{backendSecret}},
	})
	served := map[string]bool{}
	for series := range scrape(t, s) {
		name, _, _ := strings.Cut(series, "{")
		if !strings.HasPrefix(name, "hubbub_") {
			continue
		}
		for _, part := range []string{"_bucket", "_sum", "_count"} { // of a histogram
			name = strings.TrimSuffix(name, part)
		}
		served[name] = true
	}
	_, table, _ := strings.Cut(operations(t), "\n## Metrics\n")
	table, _, _ = strings.Cut(table, "| `closed_total` |")
	var documented []string
	for _, name := range firstColumns(table) {
		if name, _, _ = strings.Cut(name, "{"); strings.HasPrefix(name, "hubbub_") {
			documented = append(documented, name)
		}
	}
	if want := slices.Sorted(maps.Keys(served)); !slices.Equal(documented, want) {
		t.Errorf("docs/operations.md has the metrics\n%s\nand /metrics serves\n%s", strings.Join(documented, "\n"), strings.Join(want, "\n"))
	}
	_, table, _ = strings.Cut(operations(t), "| `upgrades_total` |")
	table, _, _ = strings.Cut(table, "\n\n")
	results := slices.DeleteFunc(withLabel(scrape(t, s), "hubbub_upgrades_total", "result"), func(r string) bool { return r == "accepted" })
	if rows := firstColumns(table); !slices.Equal(rows, results) {
		t.Errorf("docs/operations.md has rows for the refused upgrades %v, want %v", rows, results)
	}
	files, _ := filepath.Glob("docs/*.md")
	for _, file := range append(files, "README.md", "CHANGELOG.md") {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`hubbub_[a-z_]+`).FindAllString(string(b), -1) {
			if !served[name] {
				t.Errorf("%s speaks of %s, which isn't served", file, strconv.Quote(name))
			}
		}
	}
}
