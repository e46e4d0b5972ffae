package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"github.com/alecthomas/kong"

	"example.com/hubbub"
)

// printCommented prints a file of all settings to begin with. What isn't set is a comment with nothing between the # and
// the name, and has its default, or where there is none what stands for a value in the help.
func (c *configCmd) printCommented(ctx *kong.Context) error {
	var out bytes.Buffer
	out.WriteString(comment("The settings of hubbub serve, each with its default: take the # before a name away to set it. Flags and the environment count before this file. hubbub config --config FILE checks it, and prints what all settings come to."))
	for _, flag := range settings(ctx.Selected().Flags) {
		out.WriteString("\n" + comment(flag.Help))
		value, mark := flag.Target.Interface(), "#"
		if c.origin(ctx, flag) != "the default" {
			mark = ""
		}
		switch {
		case mark == "" && isSecret(value):
			fmt.Fprintf(&out, "# %s: not shown, %s\n", flag.Name, c.origin(ctx, flag))
		case mark != "" && flag.Default == "":
			fmt.Fprintf(&out, "#%s: %s\n", flag.Name, flag.PlaceHolder)
		default:
			text, err := yamlValue(value)
			if err != nil {
				return fmt.Errorf("%s: %w", flag.Name, err)
			}
			fmt.Fprintf(&out, "%s%s: %s\n", mark, flag.Name, text)
		}
	}
	sections, err := c.commentedSections(ctx)
	if err != nil {
		return err
	}
	out.WriteString(sections)
	_, err = os.Stdout.Write(out.Bytes())
	return err
}

// commentedSections are the settings that are no flags: as they are set, or an example of each of their keys.
func (c *configCmd) commentedSections(ctx *kong.Context) (string, error) {
	f := &file{}
	if c.file != nil {
		f = c.file
	}
	cfg := hubbub.Config{Rooms: []hubbub.RoomPolicy{{Match: "chat.*"}}}.Effective()
	exampleLimits(&cfg.Limits)
	of := *c
	if len(f.apiKeys) == 0 {
		key := hubbub.APIKey{Name: "backend", SHA256: strings.Repeat("0", 64), Allow: []string{"publish", "read"}}
		of.file = &file{apiKeys: []hubbub.APIKey{key}}
	}
	keys, err := of.keyLines(ctx)
	if err != nil {
		return "", err
	}
	if len(f.apiKeys) == 0 {
		keys = asComment(keys)
	}
	rules := f.rooms
	if len(rules) == 0 {
		rules = cfg.Rooms
	}
	rooms, err := c.roomLines(ctx, rules)
	if err != nil {
		return "", err
	}
	if len(f.rooms) == 0 {
		rooms = asComment(rooms)
	}
	limits := c.limitLines(f.limits)
	if f.limits == (hubbub.Limits{}) {
		limits = asComment(c.limitLines(cfg.Limits))
	}
	return "\n" + keys + "\n" + rooms + "\n" + limits, nil
}

// exampleLimits sets all that there are.
func exampleLimits(l *hubbub.Limits) {
	for _, g := range limitGroups(l) {
		for _, k := range g.keys {
			switch {
			case k.connections != nil:
				*k.connections = 10
			case k.bytes:
				*k.rate = hubbub.Rate{N: 1 << 20, Burst: 2 << 20}
			default:
				*k.rate = hubbub.Rate{N: 50, Burst: 100}
			}
		}
	}
}

// asComment makes comments of a section's lines, without where their values are from; those that are comments stay.
func asComment(section string) string {
	var out strings.Builder
	for line := range strings.Lines(section) {
		if strings.HasPrefix(line, "# ") {
			out.WriteString(line)
			continue
		}
		line, _, _ = strings.Cut(line, " #")
		out.WriteString("#" + strings.TrimRight(line, "\n") + "\n")
	}
	return out.String()
}
