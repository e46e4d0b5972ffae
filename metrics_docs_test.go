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

// The table of the log has every line at warn and error that the server writes, with its level, and none that it doesn't.
func TestEveryWarningIsInTheDocs(t *testing.T) {
	_, table, _ := strings.Cut(operations(t), "\n## Logs\n")
	table, _, _ = strings.Cut(table, "\n## ")
	documented := map[string][]string{} // lines, by level: what they begin with
	before := ""
	for row := range strings.Lines(table) {
		cells := strings.Split(row, "|")
		if len(cells) < 4 {
			continue
		}
		if !strings.Contains(cells[2], "`") { // "the same"
			cells[2] = before
		}
		before = cells[2]
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[2], -1) {
			for level := range strings.SplitSeq(strings.TrimSpace(cells[1]), ", ") {
				documented[level] = append(documented[level], m[1])
			}
		}
	}
	logged, texts := logLines(t)
	for level, lines := range logged {
		for line, where := range lines {
			if !slices.ContainsFunc(documented[level], func(d string) bool {
				begins, _, _ := strings.Cut(d, "…")
				return begins != "" && strings.HasPrefix(line, begins)
			}) {
				t.Errorf("%s: docs/operations.md lacks the line %q at %s", where, line, level)
			}
		}
		for _, d := range documented[level] {
			for part := range strings.SplitSeq(d, "…") {
				if !slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(text, part) }) {
					t.Errorf("docs/operations.md has the line %q, which nothing writes", d)
				}
			}
		}
	}
}

// logLines are the texts, or what they begin with, of all lines at warn and error that the sources write, with where; and
// all texts that stand in the sources.
func logLines(t *testing.T) (lines map[string]map[string]string, texts []string) {
	lines = map[string]map[string]string{"warn": {}, "error": {}}
	levels := map[string]string{"Warn": "warn", "Error": "error", "LevelWarn": "warn", "LevelError": "error"}
	begins := func(e ast.Expr) string {
		for {
			switch is := e.(type) {
			case *ast.BinaryExpr:
				e = is.X
				continue
			case *ast.BasicLit:
				if text, err := strconv.Unquote(is.Value); err == nil {
					return text
				}
			}
			return ""
		}
	}
	for _, dir := range serverSources(t) {
		files, _ := filepath.Glob(dir + "/*.go")
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					texts = append(texts, begins(lit))
				}
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				level := ""
				for i, e := range append([]ast.Expr{call.Fun}, call.Args...) { // the text stands behind the level
					if text := begins(e); level != "" && text != "" {
						lines[level][text] = file
					}
					level = ""
					if s, ok := e.(*ast.SelectorExpr); ok && (i == 0 || strings.HasPrefix(s.Sel.Name, "Level")) {
						level = levels[s.Sel.Name]
					}
				}
				return true
			})
		}
	}
	if len(lines["warn"]) < 40 || len(lines["error"]) < 30 {
		t.Fatalf("found only %v", lines)
	}
	return lines, texts
}

// serverSources are the folders whose code is in a server that runs.
func serverSources(t *testing.T) []string {
	others := []string{"alarms", "audit", "bench", "doctor", "faulty", "model", "rawtest", "wsclient"}
	dirs, err := filepath.Glob("internal/*")
	if err != nil {
		t.Fatal(err)
	}
	dirs = slices.DeleteFunc(dirs, func(dir string) bool { return slices.Contains(others, filepath.Base(dir)) })
	return append(dirs, ".", "cmd/hubbub", "broker/nats")
}
