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
	Serve   serveCmd   `cmd:"" help:"Run the server."`
	Config  configCmd  `cmd:"" help:"Print the effective settings and where each is from."`
	Bench   benchCmd   `cmd:"" help:"Put a server under load, and measure it."`
	Version versionCmd `cmd:"" help:"Print the version."`
}

// reserved are the settings that the documents promise and this version has not got.
var reserved = strings.Fields(`
	admin-listen api-key trusted-proxies nats nats-creds cluster-listen
	cluster-name cluster-secret join node-name data-dir replicas`)

func main() {
	if err := checkReserved(os.Args[1:], os.Environ()); err != nil {
		fmt.Fprintln(os.Stderr, "hubbub: error:", err)
		os.Exit(2)
	}
	var c cli
	parser := newParser(&c)
	ctx, err := parser.Parse(os.Args[1:])
	parser.FatalIfErrorf(err)
	parser.FatalIfErrorf(locate(ctx, c.selected(ctx), ctx.Run()))
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

// selected are the settings of the command that runs, nil when it has none.
func (c *cli) selected(ctx *kong.Context) *serveCmd {
	switch ctx.Command() {
	case "serve":
		return &c.Serve
	case "config":
		return &c.Config.serveCmd
	}
	return nil
}

var errReserved = errors.New("reserved, not available in this version")

// isReserved says whether a setting, by its flag's name, is promised and not there.
func isReserved(name string) bool {
	return slices.Contains(reserved, name) || strings.HasPrefix(name, "jwt-")
}

// checkReserved refuses what is not built yet, rather than ignore it. Other names that begin with HUBBUB_ are let be:
// Kubernetes sets HUBBUB_PORT and its like for a service that is called hubbub.
func checkReserved(args, environ []string) error {
	for _, a := range args {
		flag, _, _ := strings.Cut(a, "=")
		if name, ok := strings.CutPrefix(flag, "--"); ok && isReserved(name) {
			return fmt.Errorf("%s: %w", flag, errReserved)
		}
	}
	for _, e := range environ {
		key, _, _ := strings.Cut(e, "=")
		if name, ok := strings.CutPrefix(key, "HUBBUB_"); ok && isReserved(strings.ToLower(strings.ReplaceAll(name, "_", "-"))) {
			return fmt.Errorf("%s: %w", key, errReserved)
		}
	}
	return nil
}
