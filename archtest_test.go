package hubbub_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "example.com/hubbub"

// allowedImports says which packages of ours each package may import: only what lies below it. A package that is not
// here fails the test, so that a new one finds its layer. "examples/*" stands for each folder in examples.
var allowedImports = map[string][]string{
	"cmd/hubbub": {".", "client", "internal/auth", "internal/sparselog", "internal/bench", "internal/cgroup", "internal/doctor"},
	"examples/*": {"."},
	".": {
		"internal/api", "internal/auth", "internal/front", "internal/hub", "internal/loop", "internal/history", "internal/protocol", "internal/protocol/room", "internal/webhook", "internal/wire",
		"internal/audit", "internal/cgroup", "internal/console", "internal/glob", "internal/metrics", "internal/rate", "internal/sparselog",
		"internal/datadir", "internal/outbox", "internal/tracing", "js", "broker", "broker/nats",
	},

	"broker":            {},
	"broker/nats":       {"broker", "internal/sparselog"},
	"broker/brokertest": {"broker"},

	"internal/api":   {"internal/tracing", "internal/auth", "internal/front", "internal/hub", "internal/history", "internal/protocol", "internal/protocol/room", "internal/sparselog"},
	"internal/front": {"internal/glob", "internal/sparselog"},
	"internal/hub":   {"internal/tracing", "broker", "internal/auth", "internal/loop", "internal/history", "internal/presence", "internal/protocol", "internal/wire", "internal/glob", "internal/rate", "internal/sparselog"},
	"internal/loop":  {"internal/protocol", "internal/wire", "internal/sparselog"},

	"internal/webhook": {"internal/auth", "internal/protocol", "internal/protocol/room", "internal/sparselog"},
	"internal/outbox":  {"internal/tracing", "internal/auth", "internal/hub", "internal/protocol", "internal/protocol/room", "internal/sparselog", "internal/webhook"},
	"internal/datadir": {},
	"internal/tracing": {},

	"client": {}, // it knows the server only from outside

	"internal/bench": {"internal/wire", "internal/wsclient"}, // it knows the server only from outside

	"internal/doctor": {"internal/cgroup", "internal/webhook", "internal/wsclient"}, // so does this; it signs as the server does

	"internal/auth":          {"internal/glob", "internal/protocol", "internal/sparselog"},
	"internal/rate":          {},
	"internal/history":       {"internal/protocol"},
	"internal/presence":      {"internal/protocol"},
	"internal/protocol/room": {"internal/protocol"},
	"internal/protocol":      {},
	"internal/wire":          {},
	"internal/console":       {},
	"js":                     {},
	"internal/metrics":       {},
	"internal/sparselog":     {},
	"internal/cgroup":        {},
	"internal/audit":         {},
	"internal/model":         {},
	"internal/glob":          {},
	"internal/alarms":        {},
	"internal/wsclient":      {}, // not even wire: what both ends share, neither sees the faults of

	"hubbubtest": {".", "internal/audit", "internal/model", "internal/wsclient"},

	"internal/rawtest": {".", "internal/audit", "internal/wsclient"},
	"internal/faulty":  {".", "internal/model", "internal/wire"},
	"conformance":      {"."}, // tests only, by the public API

	"e2e":   {},                                       // it knows the binary only from outside
	"drill": {"internal/alarms", "internal/wsclient"}, // so does this

	"e2e/broken": {"."}, // a program of a user's, with faults

	"bench/report": {}, // what was measured, as a page
	"bench/scale":  {},

	"scripts/mutants": {}, // it knows the source as text
}

// testPackages may be imported by the tests of any package.
var testPackages = []string{"internal/rawtest", "internal/faulty", "internal/wsclient"}

// alsoInTests says what the tests of a package may import beside that.
var alsoInTests = map[string][]string{
	".":                      {"broker/brokertest"},
	"client":                 {".", "hubbubtest"},
	"e2e":                    {"client", "internal/alarms"}, // that is a client of a user's, too
	"internal/hub":           {"broker/brokertest", "internal/model", "internal/protocol/room"},
	"broker/nats":            {"broker/brokertest"},
	"internal/protocol/room": {"internal/wire"}, // how long a frame is
}

// purePackages are functions of values: no connection, no clock, no goroutine, no lock. Their list is what they may not
// import.
var purePackages = map[string][]string{
	"internal/wire":          {"net", "net/http", "os", "syscall", "sync", "sync/atomic", "context", "time"},
	"internal/protocol/room": {"net", "net/http", "os", "syscall", "sync", "sync/atomic", "context"}, // time: for durations
	"internal/presence":      {"net", "net/http", "os", "syscall", "sync", "sync/atomic", "context", "time", "encoding/json"},
	"internal/history":       {"net", "net/http", "os", "syscall", "sync", "sync/atomic", "context"}, // the same
	"internal/protocol":      {"net", "net/http", "os", "syscall", "sync", "sync/atomic", "context"}, // time: for durations
	"internal/alarms":        {"net", "net/http", "os", "syscall", "sync", "sync/atomic", "context"}, // time: for durations
	"internal/cgroup":        {"net", "net/http", "os", "syscall", "sync", "sync/atomic", "context", "time"},
	"internal/model":         {"net", "net/http", "os", "syscall", "sync", "sync/atomic", "context"}, // time is an argument
	"internal/glob":          {"net", "net/http", "os", "syscall", "sync", "sync/atomic", "context", "time"},
	"internal/wsclient":      {"net", "net/http", "os", "syscall", "sync", "sync/atomic", "context", "time"},
	"internal/rate":          {"net", "net/http", "os", "syscall", "sync", "sync/atomic", "context", "time"},
}

// longFiles may have more than maxLines, and why.
var longFiles = map[string]string{}

const maxLines = 500

// goPackage is what `go list -json` says, as far as it is used here.
type goPackage struct {
	ImportPath, Dir                    string
	GoFiles, CgoFiles, IgnoredGoFiles  []string
	Imports, TestImports, XTestImports []string
}

// name is the path within the module: "." for the root.
func (p goPackage) name() string {
	if p.ImportPath == module {
		return "."
	}
	return strings.TrimPrefix(p.ImportPath, module+"/")
}

func (p goPackage) sources() (files []string) {
	for _, f := range slices.Concat(p.GoFiles, p.CgoFiles, p.IgnoredGoFiles) {
		if !strings.HasSuffix(f, "_test.go") {
			files = append(files, filepath.Join(p.Dir, f))
		}
	}
	return files
}

// packages lists the module as it is built for an operating system.
func packages(t *testing.T, goos string) (all []goPackage) {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,CgoFiles,IgnoredGoFiles,Imports,TestImports,XTestImports", "./...")
	cmd.Env = append(os.Environ(), "GOOS="+goos)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list for %s: %v\n%s", goos, err, stderr.String())
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		switch err := dec.Decode(&p); {
		case errors.Is(err, io.EOF):
			return all
		case err != nil:
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// allowed looks a package up in the table.
func allowed(name string) ([]string, bool) {
	list, ok := allowedImports[name]
	if !ok {
		list, ok = allowedImports[path.Dir(name)+"/*"]
	}
	return list, ok
}

func TestImportsOnlyGoDown(t *testing.T) {
	for _, goos := range []string{"linux", "darwin", "windows"} {
		for _, p := range packages(t, goos) {
			name := p.name()
			list, ok := allowed(name)
			if !ok {
				t.Errorf("%s is not in the table of allowed imports: find its layer and add it", name)
				continue
			}
			check := func(kind string, imports, list []string) {
				for _, i := range imports {
					if i != module && !strings.HasPrefix(i, module+"/") {
						continue
					}
					to := goPackage{ImportPath: i}.name()
					if !slices.Contains(list, to) {
						t.Errorf("%s imports %s%s (GOOS=%s): the table does not allow it", name, to, kind, goos)
					}
				}
			}
			check("", p.Imports, list)
			// A test may import its own package too.
			inTests := slices.Concat(list, testPackages, alsoInTests[name], []string{name})
			check(" in a test", p.TestImports, inTests)
			check(" in a test", p.XTestImports, inTests)
		}
	}
}

func TestTableNamesNoPackageThatIsGone(t *testing.T) {
	for name := range allowedImports {
		if _, err := os.Stat(strings.TrimSuffix(name, "/*")); err != nil {
			t.Errorf("the table names %s: %v", name, err)
		}
	}
}

func TestPurePackagesStayPure(t *testing.T) {
	for _, p := range packages(t, "linux") {
		forbidden, pure := purePackages[p.name()]
		if !pure {
			continue
		}
		for _, file := range p.sources() {
			set := token.NewFileSet()
			tree, err := parser.ParseFile(set, file, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range tree.Imports {
				if name := strings.Trim(i.Path.Value, `"`); slices.Contains(forbidden, name) {
					t.Errorf("%v: %s is pure and may not import %s", set.Position(i.Pos()), p.name(), name)
				}
			}
			ast.Inspect(tree, func(n ast.Node) bool {
				what := impurity(n)
				if what != "" {
					t.Errorf("%v: %s is pure and may not use %s", set.Position(n.Pos()), p.name(), what)
				}
				return true
			})
		}
	}
}

// impurity says which goroutine, channel or clock a piece of syntax uses.
func impurity(n ast.Node) string {
	switch n := n.(type) {
	case *ast.GoStmt:
		return "a goroutine"
	case *ast.ChanType, *ast.SelectStmt, *ast.SendStmt:
		return "a channel"
	case *ast.SelectorExpr:
		if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains([]string{"Now", "Since", "Until", "After", "Sleep", "Tick", "NewTimer", "NewTicker", "AfterFunc"}, n.Sel.Name) {
			return "the clock (time." + n.Sel.Name + ")"
		}
	}
	return ""
}

// A panic must leave no room and no shard locked: what is called under such a lock may panic, so that is unlocked by
// defer. They are all called r or sh.
func TestAPanicLeavesNoRoomLocked(t *testing.T) {
	files, _ := filepath.Glob("internal/hub/*.go")
	found := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		set := token.NewFileSet()
		tree, err := parser.ParseFile(set, file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			block, ok := n.(*ast.BlockStmt)
			if !ok {
				return true
			}
			locked := false
			for _, stmt := range block.List {
				switch {
				case isCallOf(stmt, "Lock"):
					found++
					locked = true
				case isCallOf(stmt, "Unlock"):
					locked = false
				case locked && isDeferOf(stmt, "Unlock"):
					locked = false
				case locked && callsAnything(stmt):
					t.Errorf("%v: called while a lock is held that no defer unlocks", set.Position(stmt.Pos()))
				}
			}
			return true
		})
	}
	if found < 50 {
		t.Errorf("only %d locks were found", found)
	}
}

// isCallOf says whether stmt is r.mu.method() or sh.mu.method().
func isCallOf(stmt ast.Stmt, method string) bool {
	e, ok := stmt.(*ast.ExprStmt)
	return ok && isLockCall(e.X, method)
}

func isDeferOf(stmt ast.Stmt, method string) bool {
	d, ok := stmt.(*ast.DeferStmt)
	return ok && isLockCall(d.Call, method)
}

func isLockCall(e ast.Expr, method string) bool {
	call, ok := e.(*ast.CallExpr)
	if !ok {
		return false
	}
	of, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || of.Sel.Name != method {
		return false
	}
	mu, ok := of.X.(*ast.SelectorExpr)
	if !ok || mu.Sel.Name != "mu" {
		return false
	}
	owner, ok := mu.X.(*ast.Ident)
	return ok && (owner.Name == "r" || owner.Name == "sh")
}

// callsAnything says whether something but a builtin function is called.
func callsAnything(n ast.Node) (calls bool) {
	ast.Inspect(n, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			if name, ok := call.Fun.(*ast.Ident); !ok || !slices.Contains([]string{"append", "clear", "copy", "delete", "len", "make", "max", "min", "new"}, name.Name) {
				calls = true
			}
		}
		return true
	})
	return calls
}

func TestFilesStayShort(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range packages(t, "linux") {
		for _, file := range p.sources() {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			name := path.Join(p.name(), filepath.Base(file))
			lines := bytes.Count(b, []byte("\n"))
			reason, excused := longFiles[name]
			seen[name] = true
			switch {
			case lines > maxLines && !excused:
				t.Errorf("%s has %d lines, more than %d: split it, or give a reason in longFiles", name, lines, maxLines)
			case lines <= maxLines && excused:
				t.Errorf("%s has %d lines and needs no exception", name, lines)
			case excused && len(reason) < 10:
				t.Errorf("%s has an exception without a reason", name)
			}
		}
	}
	for name := range longFiles {
		if !seen[name] {
			t.Errorf("longFiles names %s, which is gone", name)
		}
	}
}
