// Command hubbub is the server: hubbub serve. Each subcommand has a file of its own.
package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/alecthomas/kong"
)

type cli struct {
	Serve   serveCmd   `cmd:"" help:"Run the server."`
	Version versionCmd `cmd:"" help:"Print the version."`
}

// reserved are the settings that the documents promise and this version has not got.
var reserved = strings.Fields(`config max-connections-per-ip max-buffered-bytes compression
	resume-window dedup-window admin-listen api-key trusted-proxies nats nats-creds cluster-listen
	cluster-name cluster-secret join node-name data-dir replicas`)

func main() {
	if err := checkReserved(os.Args[1:], os.LookupEnv); err != nil {
		fmt.Fprintln(os.Stderr, "hubbub: error:", err)
		os.Exit(2)
	}
	var c cli
	ctx := kong.Parse(&c,
		kong.Name("hubbub"),
		kong.Description("A real-time messaging server: clients hold a WebSocket open, join rooms, and what one publishes reaches every member at once."),
		kong.ShortUsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.DefaultEnvars("HUBBUB"),
	)
	ctx.FatalIfErrorf(ctx.Run())
}

// checkReserved refuses what is not built yet, rather than ignore it.
func checkReserved(args []string, env func(string) (string, bool)) error {
	for _, a := range args {
		if flag, _, _ := strings.Cut(a, "="); strings.HasPrefix(flag, "--jwt-") {
			return fmt.Errorf("%s: reserved, not available in this version", flag)
		}
	}
	for _, name := range reserved {
		for _, a := range args {
			if flag, _, _ := strings.Cut(a, "="); flag == "--"+name {
				return fmt.Errorf("--%s: reserved, not available in this version", name)
			}
		}
		key := "HUBBUB_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		if _, set := env(key); set {
			return fmt.Errorf("%s: reserved, not available in this version", key)
		}
	}
	return nil
}
