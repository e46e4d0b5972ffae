package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// completionCmd prints what has a shell complete hubbub's command line. It is made of the command line itself, and needs
// no call of the program.
type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"The shell: bash, zsh or fish."`
}

// Help is shown by hubbub completion --help.
func (completionCmd) Help() string {
	return "bash: source <(hubbub completion bash). zsh: hubbub completion zsh > a folder of $fpath, as _hubbub. fish: hubbub completion fish > ~/.config/fish/completions/hubbub.fish."
}

// Run prints it.
func (c *completionCmd) Run(ctx *kong.Context) error {
	write := map[string]func([]command) string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}[c.Shell]
	_, err := os.Stdout.WriteString(write(commandsOf(ctx.Model.Node, "")))
	return err
}

// command is one of the command line's, by its path, "cluster init", or "" for hubbub itself.
type command struct {
	path, help string
	detail     string
	args       string
	choices    []string // of its arguments
	flags      []*kong.Flag
	commands   []*kong.Node
}

// commandsOf lists a node and all below it.
func commandsOf(n *kong.Node, path string) []command {
	c := command{path: path, help: n.Help, detail: n.Detail, commands: slices.DeleteFunc(slices.Clone(n.Children), func(n *kong.Node) bool { return n.Hidden })}
	for _, p := range n.Positional {
		c.args += " " + p.Summary()
		if p.Enum != "" {
			c.choices = append(c.choices, p.EnumSlice()...)
		}
	}
	for _, group := range n.AllFlags(true) {
		for _, f := range group {
			if path == "" || f.Name != "version" { // which is hubbub's own
				c.flags = append(c.flags, f)
			}
		}
	}
	all := []command{c}
	for _, child := range c.commands {
		all = append(all, commandsOf(child, strings.TrimSpace(path+" "+child.Name))...)
	}
	return all
}

// values are what a flag takes, where that is a choice.
func values(f *kong.Flag) []string {
	if f.Enum == "" {
		return nil
	}
	return f.EnumSlice()
}

// takesFile says that a flag's value is a file or a folder.
func takesFile(f *kong.Flag) bool { return f.PlaceHolder == "FILE" || f.PlaceHolder == "DIR" }

// walk is a function of bash, and of zsh, that sets "at" to the command's path: words that begin with a dash are flags,
// and what no command has as its next word ends the path.
func walk(commands []command) string {
	var paths []string
	for _, c := range commands[1:] {
		paths = append(paths, `"`+c.path+`"`)
	}
	return fmt.Sprintf(`	local at="" word
	for word in "${words[@]:1:$((here - 1))}"; do
		case "${at:+$at }$word" in
			%s) at="${at:+$at }$word" ;;
			*) [[ $word == -* ]] || break ;;
		esac
	done
`, strings.Join(paths, "|"))
}

func bashCompletion(commands []command) string {
	var out strings.Builder
	out.WriteString("# Completion of hubbub for bash, made by hubbub completion bash.\n_hubbub() {\n" +
		"	local cur=\"${COMP_WORDS[COMP_CWORD]}\" prev=\"${COMP_WORDS[COMP_CWORD-1]}\" here=$COMP_CWORD\n	local words=(\"${COMP_WORDS[@]}\")\n	COMPREPLY=()\n")
	out.WriteString(walk(commands))
	out.WriteString("	case \"$at:$prev\" in\n")
	for _, c := range commands {
		for _, f := range c.flags {
			switch v := values(f); {
			case v != nil:
				fmt.Fprintf(&out, "		\"%s:--%s\") mapfile -t COMPREPLY < <(compgen -W '%s' -- \"$cur\"); return ;;\n", c.path, f.Name, strings.Join(v, " "))
			case takesFile(f):
				fmt.Fprintf(&out, "		\"%s:--%s\") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- \"$cur\"); return ;;\n", c.path, f.Name)
			}
		}
	}
	out.WriteString("	esac\n	case \"$at\" in\n")
	for _, c := range commands {
		all := slices.Clone(c.choices)
		for _, n := range c.commands {
			all = append(all, n.Name)
		}
		for _, f := range c.flags {
			all = append(all, "--"+f.Name)
		}
		fmt.Fprintf(&out, "		\"%s\") mapfile -t COMPREPLY < <(compgen -W '%s' -- \"$cur\") ;;\n", c.path, strings.Join(all, " "))
	}
	out.WriteString("	esac\n}\ncomplete -F _hubbub hubbub\n")
	return out.String()
}

// zshQuoted is a text in single quotes, "name:description" where a description is given.
func zshQuoted(name, about string) string {
	text := strings.ReplaceAll(name, ":", `\:`)
	if about != "" {
		text += ":" + about
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

func zshCompletion(commands []command) string {
	var out strings.Builder
	out.WriteString("#compdef hubbub\n# Completion of hubbub for zsh, made by hubbub completion zsh.\n_hubbub() {\n	local here=$((CURRENT - 1)) prev=\"${words[CURRENT-1]}\"\n	local -a all\n")
	out.WriteString(walk(commands))
	out.WriteString("	case \"$at:$prev\" in\n")
	for _, c := range commands {
		for _, f := range c.flags {
			switch v := values(f); {
			case v != nil:
				fmt.Fprintf(&out, "		\"%s:--%s\") compadd -- %s; return ;;\n", c.path, f.Name, strings.Join(v, " "))
			case takesFile(f):
				fmt.Fprintf(&out, "		\"%s:--%s\") _files; return ;;\n", c.path, f.Name)
			}
		}
	}
	out.WriteString("	esac\n	case \"$at\" in\n")
	for _, c := range commands {
		fmt.Fprintf(&out, "		\"%s\") all=(\n", c.path)
		for _, choice := range c.choices {
			fmt.Fprintf(&out, "			%s\n", zshQuoted(choice, ""))
		}
		for _, n := range c.commands {
			fmt.Fprintf(&out, "			%s\n", zshQuoted(n.Name, n.Help))
		}
		for _, f := range c.flags {
			fmt.Fprintf(&out, "			%s\n", zshQuoted("--"+f.Name, firstSentence(f.Help)))
		}
		out.WriteString("		) ;;\n")
	}
	out.WriteString("	esac\n	_describe -o hubbub all\n}\n[[ $zsh_eval_context[-1] == loadautofunc ]] && _hubbub \"$@\" || compdef _hubbub hubbub\n")
	return out.String()
}

func fishCompletion(commands []command) string {
	var out strings.Builder
	out.WriteString("# Completion of hubbub for fish, made by hubbub completion fish.\ncomplete -c hubbub -f\n")
	for _, c := range commands {
		on := "__fish_use_subcommand"
		if c.path != "" {
			on = "__fish_seen_subcommand_from " + strings.ReplaceAll(c.path, " ", "; and __fish_seen_subcommand_from ")
		}
		quote := func(text string) string {
			return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(text) + "'"
		}
		if c.choices != nil {
			fmt.Fprintf(&out, "complete -c hubbub -n '%s' -a %s\n", on, quote(strings.Join(c.choices, " ")))
		}
		for _, n := range c.commands {
			fmt.Fprintf(&out, "complete -c hubbub -n '%s' -a %s -d %s\n", on, n.Name, quote(n.Help))
		}
		for _, f := range c.flags {
			how := ""
			switch v := values(f); {
			case v != nil:
				how = " -x -a " + quote(strings.Join(v, " "))
			case takesFile(f):
				how = " -r -F"
			case !f.IsBool():
				how = " -x"
			}
			fmt.Fprintf(&out, "complete -c hubbub -n '%s' -l %s%s -d %s\n", on, f.Name, how, quote(firstSentence(f.Help)))
		}
	}
	return out.String()
}

// firstSentence is enough beside a list.
func firstSentence(text string) string {
	for i, r := range text {
		if r == ';' || r == ':' || r == '.' && (i+1 == len(text) || text[i+1] == ' ') {
			return text[:i]
		}
	}
	return text
}
