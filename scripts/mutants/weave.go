package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// tree is the module on disk.
type tree struct {
	dir    string
	module string
}

// openTree finds the module that dir lies in.
func openTree(dir string) (*tree, error) {
	cmd := exec.Command("go", "list", "-m", "-f", "{{.Path}}\n{{.Dir}}")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("find the module: %w", err)
	}
	name, root, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return &tree{dir: root, module: name}, nil
}

// read parses and checks a package; pkg is its path within the module.
func (t *tree) read(pkg string) ([]*source, error) {
	cmd := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Export,GoFiles", "./"+pkg)
	cmd.Dir, cmd.Stderr = t.dir, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", pkg, err)
	}
	self := path.Join(t.module, pkg)
	exports := map[string]string{}
	var names []string
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath, Export string
			GoFiles            []string
		}
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		exports[p.ImportPath] = p.Export
		if p.ImportPath == self {
			names = p.GoFiles
		}
	}
	set := token.NewFileSet()
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}}
	var all []*source
	var files []*ast.File
	for _, name := range names {
		s := &source{path: path.Join(pkg, name), pkg: pkg, set: set, info: info}
		if s.text, err = os.ReadFile(filepath.Join(t.dir, s.path)); err != nil {
			return nil, err
		}
		if s.tree, err = parser.ParseFile(set, s.path, s.text, parser.SkipObjectResolution|parser.ParseComments); err != nil {
			return nil, err
		}
		all, files = append(all, s), append(files, s.tree)
	}
	lookup := func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) }
	config := types.Config{Importer: importer.ForCompiler(set, "gc", lookup)}
	if _, err := config.Check(self, set, files, info); err != nil {
		return nil, fmt.Errorf("check %s: %w", pkg, err)
	}
	return all, nil
}

// weave gives the file with these faults in it, each behind its number: the index in all.
func (s *source) weave(module string, all []*fault) string {
	type piece struct {
		at       int
		end      bool // closes what began before
		span     int  // the longer one is outside
		inner    bool // inside of all others of the same span
		id       int
		text     string
		replaced int // bytes of the source that it stands for
	}
	var pieces []piece
	for id, f := range all {
		if f.file != s.path {
			continue
		}
		mark := func(text string) string { return strings.ReplaceAll(text, idMark, strconv.Itoa(id+1)) }
		span, inner := f.end-f.start, f.inner.text != ""
		pieces = append(pieces, piece{at: f.start, span: span, inner: inner, id: id, text: mark(f.pre)},
			piece{at: f.end, end: true, span: span, inner: inner, id: id, text: mark(f.post)})
		if f.beforeText != "" {
			pieces = append(pieces, piece{at: f.before, span: 1 << 40, id: id, text: mark(f.beforeText)})
		}
		if inner {
			pieces = append(pieces, piece{at: f.inner.start, id: id, text: mark(f.inner.text), replaced: f.inner.end - f.inner.start})
		}
	}
	// What ends comes before what begins; of those that begin the outermost first, of those that end the innermost.
	slices.SortStableFunc(pieces, func(a, b piece) int {
		if c := cmp.Compare(a.at, b.at); c != 0 {
			return c
		}
		if a.end != b.end {
			return map[bool]int{true: -1, false: 1}[a.end]
		}
		inner := func(p piece) int { return map[bool]int{true: 1}[p.inner] }
		out := cmp.Or(cmp.Compare(b.span, a.span), cmp.Compare(inner(a), inner(b)), cmp.Compare(a.id, b.id))
		if a.end {
			return -out
		}
		return out
	})
	var b strings.Builder
	from := 0
	for _, p := range pieces {
		b.Write(s.text[from:p.at])
		b.WriteString(p.text)
		from = p.at + p.replaced
	}
	b.Write(s.text[from:])
	if len(pieces) == 0 {
		return b.String()
	}
	head := s.at(s.tree.Name.End())
	return b.String()[:head] + "; import " + helper + ` "` + module + `/` + helperDir + `"` + b.String()[head:]
}

const helperDir = "internal/mutant" // exists in the overlay alone

// overlay writes the woven files, and gives the name of what tells go build of them.
func (t *tree) overlay(dir string, sources []*source, all []*fault) (string, error) {
	replace := map[string]string{}
	put := func(name, text string) error {
		to := filepath.Join(dir, strings.ReplaceAll(name, "/", "_"))
		replace[filepath.Join(t.dir, name)] = to
		return os.WriteFile(to, []byte(text), 0o600)
	}
	for _, s := range sources {
		if slices.ContainsFunc(all, func(f *fault) bool { return f.file == s.path }) {
			if err := put(s.path, s.weave(t.module, all)); err != nil {
				return "", err
			}
		}
	}
	if err := put(helperDir+"/mutant.go", helperText); err != nil {
		return "", err
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "overlay.json")
	return name, os.WriteFile(name, text, 0o600)
}

// helperText is the switch. MUTANT is the number of the fault that is on; with MUTANT_TRACE the numbers of all places
// that are come by are appended to that file.
const helperText = `package mutant

import (
	"cmp"
	"fmt"
	"os"
	"strconv"
	"sync"
)

var (
	is, _ = strconv.Atoi(os.Getenv("MUTANT"))
	trace = open(os.Getenv("MUTANT_TRACE")) // at once: some tests leave no descriptor for it
	seen  sync.Map
)

func open(name string) *os.File {
	f, _ := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	return f
}

func On(id int) bool { return id == is || trace != nil && note(id) }

func note(id int) bool {
	if _, known := seen.LoadOrStore(id, true); !known {
		fmt.Fprintln(trace, id)
	}
	return false
}

type number interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~uintptr | ~float32 | ~float64
}

func Less[T cmp.Ordered](id int, a, b T) bool    { return a < b || a == b && On(id) }
func AtMost[T cmp.Ordered](id int, a, b T) bool  { return a < b || a == b && !On(id) }
func More[T cmp.Ordered](id int, a, b T) bool    { return a > b || a == b && On(id) }
func AtLeast[T cmp.Ordered](id int, a, b T) bool { return a > b || a == b && !On(id) }

func Sum[T number](id int, a, b T) T {
	if On(id) {
		return a - b
	}
	return a + b
}

func Difference[T number](id int, a, b T) T {
	if On(id) {
		return a + b
	}
	return a - b
}

func Min[T cmp.Ordered](id int, a, b T) T {
	if On(id) {
		return max(a, b)
	}
	return min(a, b)
}

func Max[T cmp.Ordered](id int, a, b T) T {
	if On(id) {
		return min(a, b)
	}
	return max(a, b)
}
`
