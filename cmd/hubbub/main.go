// Command hubbub is the server: hubbub serve. Each subcommand has a file of its own.
package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

type cli struct {
	Serve      serveCmd      `cmd:"" help:"Run the server."`
	Config     configCmd     `cmd:"" help:"Check the settings, and print what they come to and where each is from."`
	Health     healthCmd     `cmd:"" help:"Ask a running server whether it is alive, or ready."`
	Key        keyCmd        `cmd:"" help:"Make a key for the HTTP API."`
	Pub        pubCmd        `cmd:"" help:"Publish a message."`
	Sub        subCmd        `cmd:"" help:"Show what comes in rooms, as a client that has joined them."`
	Rooms      roomsCmd      `cmd:"" help:"List the rooms of a server."`
	Kick       kickCmd       `cmd:"" help:"End a client's session, or take it out of a room."`
	Tail       tailCmd       `cmd:"" help:"Show what passes a room, a client or a user."`
	Cluster    clusterCmd    `cmd:"" help:"Begin a cluster."`
	Nodes      nodesCmd      `cmd:"" help:"Show the nodes of a cluster and its stores, or remove a store."`
	Top        topCmd        `cmd:"" help:"Show what a server has to do, live: its rooms, clients and workers."`
	Bundle     bundleCmd     `cmd:"" help:"Put what a bug report needs into one file, without secrets."`
	Doctor     doctorCmd     `cmd:"" help:"Look at the machine, the settings and what is around them: what is wrong, and what to change."`
	Bench      benchCmd      `cmd:"" help:"Put a server under load, and measure it."`
	Token      tokenCmd      `cmd:"" help:"Make a token, to try a server that wants them."`
	Completion completionCmd `cmd:"" help:"Print what has a shell complete this command line."`
	Man        manCmd        `cmd:"" help:"Print the page of the manual."`
	Version    versionCmd    `cmd:"" help:"Print the version."`
	Ask        versionFlag   `name:"version" env:"-" help:"Print the version."`
}

// What hubbub ends with when it doesn't end well: 1, or 2 where the command line, the environment or the file can't be
// used as it is.
const statusUsage = 2

// usageError is one that only another command line, environment or file can mend.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }
func (usageError) ExitCode() int   { return statusUsage }

// shown is an error without the library's name before it, which the program's own stands before already.
type shown struct{ error }

func (e shown) Error() string { return strings.ReplaceAll(e.error.Error(), "hubbub: ", "") }
func (e shown) Unwrap() error { return e.error }

// reserved are the settings that the documents promise and this version has not got.
var reserved = strings.Fields(`pusher-app centrifugo`)

func main() {
	args := helpFirst(os.Args[1:])
	var c cli
	parser := newParser(&c)
	fail := func(err error) {
		parser.Stdout = os.Stderr // the usage is no result
		if err != nil {
			err = shown{err}
		}
		parser.FatalIfErrorf(err)
	}
	if err := checkReserved(args, os.Environ()); err != nil {
		fail(usageError{err})
	}
	if err := checkDash(args, parser.Model.Node); err != nil {
		fail(usageError{err})
	}
	ctx, err := parser.Parse(args)
	if parse := (*kong.ParseError)(nil); errors.As(err, &parse) && parse.ExitCode() == 1 {
		err = parse.Unwrap() // of our own checks of environment and file, where the usage is no help
	}
	if err != nil {
		fail(usageError{explained(err)})
	}
	fail(ctx.Run())
}

// helpFirst takes "help serve" for "serve --help".
func helpFirst(args []string) []string {
	if len(args) == 0 || args[0] != "help" {
		return args
	}
	return append(slices.Clone(args[1:]), "--help")
}

// checkDash refuses the name of a flag with one dash, of which kong would take each letter for a flag, and what only begins
// as -h does: -hello would print the help, and be taken for done.
func checkDash(args []string, all *kong.Node) error {
	for _, a := range args {
		if a == "--" {
			break
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(a, "-"), "=")
		switch {
		case len(name) < 2 || !strings.HasPrefix(a, "-") || name[0] == '-':
		case hasFlag(all, name):
			return fmt.Errorf("unknown flag -%s; did you mean --%s?", name, name)
		case name[0] == 'h':
			return fmt.Errorf("unknown flag %s; what begins with a dash and is no flag stands behind --", a)
		}
	}
	return nil
}

// hasFlag says whether a command, or one below it, has the flag.
func hasFlag(n *kong.Node, name string) bool {
	return slices.ContainsFunc(n.Flags, func(f *kong.Flag) bool { return f.Name == name }) ||
		slices.ContainsFunc(n.Children, func(below *kong.Node) bool { return hasFlag(below, name) })
}

func newParser(c *cli) *kong.Kong {
	return kong.Must(c,
		kong.Name("hubbub"),
		kong.Description("A real-time messaging server: clients hold a WebSocket open, join rooms, and what one publishes reaches every member at once."),
		kong.ShortUsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.DefaultEnvars("HUBBUB"),
	)
}

var errReserved = errors.New("reserved, not available in this version")

// isReserved says whether a setting, by its flag's name, is promised and not there.
func isReserved(name string) bool { return slices.Contains(reserved, name) }

// checkReserved refuses what is not built yet, rather than ignore it. The flags of the commands that are not about the
// server's settings are others, whatever they are called.
func checkReserved(args, environ []string) error {
	flags := args
	if len(args) > 0 && !slices.Contains([]string{"serve", "config", "health", "doctor", "bundle"}, args[0]) {
		flags = nil
	}
	for _, a := range flags {
		flag, _, _ := strings.Cut(a, "=")
		if name, ok := strings.CutPrefix(flag, "--"); ok && isReserved(name) {
			return fmt.Errorf("%s: %w", flag, errReserved)
		}
	}
	for _, v := range variables(environ) {
		if isReserved(v.setting) {
			return fmt.Errorf("%s: %w", v.name, errReserved)
		}
	}
	return nil
}
