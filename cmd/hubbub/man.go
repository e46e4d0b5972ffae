package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/alecthomas/kong"

	"example.com/hubbub"
)

// manCmd prints the page of the manual, made of the command line itself.
type manCmd struct{}

// Help is shown by hubbub man --help.
func (manCmd) Help() string { return "To read it: hubbub man | man -l -" }

// Run prints it.
func (manCmd) Run(ctx *kong.Context) error {
	all := commandsOf(ctx.Model.Node, "")
	var out strings.Builder
	fmt.Fprintf(&out, ".TH HUBBUB 1 \"\" \"hubbub %s\" \"User Commands\"\n.SH NAME\nhubbub \\- a real\\-time messaging server\n", roff(hubbub.Version()))
	out.WriteString(".SH SYNOPSIS\n.B hubbub\n.I command\n.RI [ flags ]\n.SH DESCRIPTION\n" + roff(ctx.Model.Help) + "\n.SH COMMANDS\n")
	for _, c := range all[1:] {
		if len(c.commands) > 0 {
			continue
		}
		fmt.Fprintf(&out, ".SS \"hubbub %s\"\n%s\n", roff(c.path+c.args), roff(c.help))
		if c.detail != "" {
			fmt.Fprintf(&out, ".PP\n%s\n", roff(c.detail))
		}
		for _, f := range c.flags {
			if f.Name == "help" || c.path != "serve" && isSetting(all, f) {
				continue
			}
			value := ""
			if !f.IsBool() {
				value = " " + f.FormatPlaceHolder()
			}
			fmt.Fprintf(&out, ".TP\n\\fB%s\\fR%s\n%s\n", roff("--"+f.Name), roff(value), roff(f.Help))
		}
		if c.path == "config" || c.path == "health" {
			out.WriteString(".PP\nAnd the flags of\n.BR \"hubbub serve\" .\n")
		}
	}
	out.WriteString(".SH ENVIRONMENT\nEach flag of\n.B hubbub serve\nmay be set by HUBBUB_ and its name in capitals, with _ for \\-: HUBBUB_LISTEN.\n" +
		".SH FILES\n.TP\n.I /etc/hubbub/hubbub.yaml\nThe settings of the packaged service.\n.TP\n.I /etc/hubbub/hubbub.env\nIts environment, for secrets; root alone reads it.\n" +
		".SH EXIT STATUS\n0, or 1 where it failed, or 2 where the command line, the environment or the file can't be used as it is.\n")
	_, err := os.Stdout.WriteString(out.String())
	return err
}

// isSetting says whether serve has the flag: config and health have all of them too.
func isSetting(all []command, f *kong.Flag) bool {
	for _, c := range all {
		if c.path == "serve" {
			for _, of := range c.flags {
				if of.Name == f.Name && of.Help == f.Help {
					return true
				}
			}
		}
	}
	return false
}

// roff escapes a text, in which nothing is a command then.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "\n", " ", `"`, `\(dq`).Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}
