package main

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"strings"
)

// fault is one small change, and how it is switched on in the source: what stands before and behind a piece of it, and
// what stands in place of an operator inside.
type fault struct {
	pkg, file string
	line      int
	what      string // for people

	start, end int // offsets of the piece
	pre, post  string
	inner      swap   // of what is inside of the piece, and nothing else may change
	before     int    // offset of the statement that the piece changes places with
	beforeText string // what stands before that one
}

// swap puts text in the place of source bytes.
type swap struct {
	start, end int
	text       string
}

const (
	helper = "xmutant" // the name of the woven package in the files that use it
	idMark = "\x00"    // stands for the fault's number until it has one
)

// source is a file that faults are planted in.
type source struct {
	path string // within the module
	pkg  string
	text []byte
	set  *token.FileSet
	tree *ast.File
	info *types.Info

	faults []*fault
}

func (s *source) at(p token.Pos) int { return s.set.Position(p).Offset }

func (s *source) code(n ast.Node) string { return string(s.text[s.at(n.Pos()):s.at(n.End())]) }

// short is code in one line, for people.
func (s *source) short(n ast.Node) string {
	line, _, more := strings.Cut(s.code(n), "\n")
	if more {
		line += " ..."
	}
	if len(line) > 90 {
		line = line[:87] + "..."
	}
	return line
}

func (s *source) add(n ast.Node, pre, post, format string, args ...any) *fault {
	f := &fault{
		pkg: s.pkg, file: s.path, line: s.set.Position(n.Pos()).Line, what: fmt.Sprintf(format, args...),
		start: s.at(n.Pos()), end: s.at(n.End()), pre: pre, post: post,
	}
	s.faults = append(s.faults, f)
	return f
}

const on = helper + ".On(" + idMark + ")"

// find plants what there is to plant.
func (s *source) find() {
	ast.Inspect(s.tree, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GenDecl:
			return n.Tok == token.VAR
		case *ast.BlockStmt:
			s.statements(n.List)
		case *ast.CaseClause:
			s.statements(n.Body)
		case *ast.CommClause:
			s.statements(n.Body)
		case *ast.IfStmt:
			s.condition(n.Cond, true)
		case *ast.ForStmt:
			if n.Cond != nil {
				s.condition(n.Cond, false)
			}
		case *ast.SwitchStmt:
			if n.Tag == nil {
				for _, c := range n.Body.List {
					for _, e := range c.(*ast.CaseClause).List {
						s.condition(e, false)
					}
				}
			}
		case *ast.BinaryExpr:
			s.binary(n)
		case *ast.CallExpr:
			s.least(n)
		}
		return true
	})
}

func (s *source) statements(list []ast.Stmt) {
	for i, n := range list {
		if !s.removable(n) {
			continue
		}
		s.add(n, "if !"+on+" { ", " }", "left out: %s", s.short(n))
		if other, ok := s.opposite(n); ok {
			s.add(n, "if "+on+" { "+other+" } else { ", " }", "%s in place of %s", other, s.short(n))
		}
		if i > 0 && s.movable(n) && s.movable(list[i-1]) && s.code(list[i-1]) != s.code(n) {
			f := s.add(n, "if !"+on+" { ", " }", "before %s: %s", s.short(list[i-1]), s.short(n))
			f.before, f.beforeText = s.at(list[i-1].Pos()), "if "+on+" { "+s.code(n)+" }; "
		}
	}
}

// removable says whether a statement can stand in an if of its own, and isn't one that only people read.
func (s *source) removable(n ast.Stmt) bool {
	switch n := n.(type) {
	case *ast.ExprStmt:
		call, ok := n.X.(*ast.CallExpr)
		return ok && !s.forPeople(call)
	case *ast.DeferStmt:
		return !s.forPeople(n.Call)
	case *ast.AssignStmt:
		blank, ok := n.Lhs[0].(*ast.Ident)
		return n.Tok != token.DEFINE && !(ok && blank.Name == "_")
	case *ast.IncDecStmt:
		return true
	case *ast.BranchStmt:
		return n.Tok == token.BREAK || n.Tok == token.CONTINUE
	case *ast.ReturnStmt:
		return len(n.Results) == 0
	}
	return false
}

// movable says whether it matters that a statement comes before another one, and isn't the same as leaving that out.
func (s *source) movable(n ast.Stmt) bool {
	switch n.(type) {
	case *ast.DeferStmt, *ast.BranchStmt, *ast.ReturnStmt:
		return false
	}
	return s.removable(n)
}

// forPeople says that a call logs, panics, or clears what the collector may have.
func (s *source) forPeople(call *ast.CallExpr) bool {
	switch f := call.Fun.(type) {
	case *ast.Ident:
		return f.Name == "panic" || f.Name == "clear"
	case *ast.SelectorExpr:
		switch f.Sel.Name {
		case "Debug", "Info", "Warn", "Error", "Log":
			return true
		}
	}
	return false
}

// opposite is a statement that counts the other way.
func (s *source) opposite(n ast.Stmt) (string, bool) {
	switch n := n.(type) {
	case *ast.IncDecStmt:
		return s.code(n.X) + map[token.Token]string{token.INC: "--", token.DEC: "++"}[n.Tok], true
	case *ast.AssignStmt:
		op, ok := map[token.Token]string{token.ADD_ASSIGN: "-=", token.SUB_ASSIGN: "+="}[n.Tok]
		if ok && s.numeric(n.Lhs[0]) {
			return s.code(n.Lhs[0]) + " " + op + " " + s.code(n.Rhs[0]), true
		}
	}
	return "", false
}

func (s *source) condition(e ast.Expr, always bool) {
	if !s.plainBool(e) {
		return
	}
	s.add(e, "((", ") && !"+on+")", "never: %s", s.short(e))
	if always {
		s.add(e, "((", ") || "+on+")", "always: %s", s.short(e))
	}
}

func (s *source) binary(e *ast.BinaryExpr) {
	replace := func(fn string, what string) {
		f := s.add(e, helper+"."+fn+"("+idMark+", ", ")", "%s in place of %s in %s", what, e.Op, s.short(e))
		f.inner = swap{s.at(e.OpPos), s.at(e.OpPos) + len(e.Op.String()), ","}
	}
	switch e.Op {
	case token.LAND, token.LOR:
		for _, x := range []ast.Expr{e.X, e.Y} {
			switch {
			case !s.plainBool(x):
			case e.Op == token.LAND:
				s.add(x, "((", ") || "+on+")", "not asked: %s in %s", s.short(x), s.short(e))
			default:
				s.add(x, "((", ") && !"+on+")", "not asked: %s in %s", s.short(x), s.short(e))
			}
		}
	case token.LSS, token.LEQ, token.GTR, token.GEQ:
		name := map[token.Token][2]string{token.LSS: {"Less", "<="}, token.LEQ: {"AtMost", "<"}, token.GTR: {"More", ">="}, token.GEQ: {"AtLeast", ">"}}[e.Op]
		if s.numeric(e.X) && s.numeric(e.Y) && (!s.constant(e.X) || !s.constant(e.Y)) {
			replace(name[0], name[1])
		}
	case token.ADD, token.SUB:
		name := map[token.Token][2]string{token.ADD: {"Sum", "-"}, token.SUB: {"Difference", "+"}}[e.Op]
		if s.numeric(e) && !s.constant(e) {
			replace(name[0], name[1])
		}
	}
}

// least takes the builtin min for max, or the other way round, where it has two arguments.
func (s *source) least(e *ast.CallExpr) {
	name, ok := e.Fun.(*ast.Ident)
	if !ok || len(e.Args) != 2 || s.constant(e) || !s.numeric(e) {
		return
	}
	if _, builtin := s.info.Uses[name].(*types.Builtin); !builtin {
		return
	}
	fn, other := map[string]string{"min": "Min", "max": "Max"}[name.Name], map[string]string{"min": "max", "max": "min"}[name.Name]
	if fn == "" {
		return
	}
	f := s.add(e, "", "", "%s in place of %s", other, s.short(e))
	f.inner = swap{s.at(name.Pos()), s.at(e.Lparen) + 1, helper + "." + fn + "(" + idMark + ", "}
}

func (s *source) plainBool(e ast.Expr) bool {
	t, ok := s.info.TypeOf(e).(*types.Basic)
	return ok && t.Info()&types.IsBoolean != 0 && !s.constant(e)
}

func (s *source) numeric(e ast.Expr) bool {
	t, ok := s.info.TypeOf(e).Underlying().(*types.Basic)
	return ok && t.Info()&(types.IsInteger|types.IsFloat) != 0
}

func (s *source) constant(e ast.Expr) bool { return s.info.Types[e].Value != nil }
