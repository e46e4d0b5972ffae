package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/alecthomas/kong"

	"example.com/hubbub"
)

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run() error {
	fmt.Println(version())
	return nil
}

// versionFlag is --version, which needs no command.
type versionFlag bool

// BeforeReset prints the version and ends.
func (versionFlag) BeforeReset(app *kong.Kong) error {
	fmt.Println(version())
	app.Exit(0)
	return nil
}

// version has the commit too, where the build knows it.
func version() string {
	commit := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				commit = " " + s.Value
			}
		}
	}
	return fmt.Sprintf("hubbub %s%s %s %s/%s", hubbub.Version(), commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
