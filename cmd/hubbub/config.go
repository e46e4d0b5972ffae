package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v4"

	"example.com/hubbub"
)

// configCmd takes the settings as serve does, and prints what they come to.
type configCmd struct {
	serveCmd `embed:""`
	Room     *string `placeholder:"NAME" env:"-" help:"Print what the room of this name gets, and by which rule, instead."`
}

// Help is shown by hubbub config --help.
func (configCmd) Help() string {
	return "What it prints is a config file: hubbub config > hubbub.yaml, then hubbub serve --config hubbub.yaml. Remove what you don't set, or the defaults of today stay."
}

// Run prints every setting with its meaning, its value and where that is from.
func (c *configCmd) Run(ctx *kong.Context) error {
	cfg, _, err := c.prepare(ctx, c.logger())
	if err != nil {
		return err
	}
	if c.Room != nil {
		return c.printRoom(ctx, cfg)
	}
	cfg = cfg.Effective()
	var out bytes.Buffer
	out.WriteString(comment("The effective settings of hubbub serve. A flag counts first, then the environment, then the file, then the default."))
	for _, name := range c.unknown {
		out.WriteString(comment(name + " is in the environment, and no setting: it does nothing."))
	}
	for _, flag := range settings(ctx.Selected().Flags) {
		value := flag.Target.Interface()
		switch flag.Name { // 0 stands for what the machine has
		case "workers":
			value = cfg.Workers
		case "max-connections":
			value = cfg.MaxConnections
		case "max-buffered-bytes":
			value = size(cfg.MaxBufferedBytes)
		}
		if isSecret(flag) {
			fmt.Fprintf(&out, "\n%s# %s: not shown # %s\n", comment(flag.Help), flag.Name, c.origin(ctx, flag))
			continue
		}
		text, err := yamlValue(value)
		if err != nil {
			return fmt.Errorf("%s: %w", flag.Name, err)
		}
		fmt.Fprintf(&out, "\n%s%s: %s # %s\n", comment(flag.Help), flag.Name, text, c.origin(ctx, flag))
	}
	rules, err := c.roomLines(ctx, cfg.Rooms)
	if err != nil {
		return err
	}
	out.WriteString("\n" + rules)
	_, err = os.Stdout.Write(out.Bytes())
	return err
}

// isSecret says of a setting whether what it is set to must not be seen: what hubbub config prints ends in other
// people's eyes. The name of a file isn't secret.
func isSecret(flag *kong.Flag) bool {
	text, _ := flag.Target.Interface().(string)
	return flag.Tag.Has("secret") && text != "" && !strings.HasPrefix(text, "@")
}

// roomLines is the section rooms, with every rule of the file.
func (c *configCmd) roomLines(ctx *kong.Context, rules []hubbub.RoomPolicy) (string, error) {
	var out strings.Builder
	out.WriteString(comment("Policies of rooms, in the file alone: the first rule counts whose match is the room's whole name, in which * is any run of characters. After these come two that are built in: the room lobby has full presence, and all others get the default. hubbub config --room NAME prints what a room gets."))
	if len(rules) == 0 {
		return out.String() + roomsKey + ": [] # " + c.roomOrigin(roomsKey) + "\n", nil
	}
	fmt.Fprintf(&out, "%s: # %s\n", roomsKey, c.roomOrigin(roomsKey))
	for i, p := range rules {
		keys, err := ruleKeys(p)
		if err != nil {
			return "", err
		}
		indent := "  - "
		for _, k := range keys {
			fmt.Fprintf(&out, "%s%s # %s\n", indent, k.line(), c.ruleOrigin(ctx, i, k.name))
			indent = "    "
		}
	}
	return out.String(), nil
}

// printRoom prints what --room gets: one rule, with what each key means.
func (c *configCmd) printRoom(ctx *kong.Context, cfg hubbub.Config) error {
	p, i, err := cfg.PolicyOf(*c.Room)
	if err != nil {
		return usageError{fmt.Errorf("--room %w", err)}
	}
	keys, err := ruleKeys(p)
	if err != nil {
		return err
	}
	by := fmt.Sprintf("the rule for %q (%s, %s)", p.Match, ruleName(i), c.roomOrigin(ruleName(i)))
	switch {
	case i < 0 && p.Match == "*":
		by = "the default: no rule has a match for it"
	case i < 0:
		by = fmt.Sprintf("the rule for %q, which is built in", p.Match)
	}
	var out strings.Builder
	fmt.Fprintf(&out, "# What the room %q gets, by %s.\n", *c.Room, by)
	for _, k := range keys {
		if k.about != "" {
			out.WriteString("\n" + comment(k.about))
		}
		fmt.Fprintf(&out, "%s # %s\n", k.line(), c.ruleOrigin(ctx, i, k.name))
	}
	_, err = os.Stdout.WriteString(out.String())
	return err
}

// ruleKey is a key of a rule in the file, "history.age" one of its history, and what it means.
type ruleKey struct{ name, value, about string }

// line is what stands in the file.
func (k ruleKey) line() string {
	indent, name := "", k.name
	if _, inner, ok := strings.Cut(k.name, "."); ok {
		indent, name = "  ", inner
	}
	return strings.TrimRight(indent+name+": "+k.value, " ")
}

// ruleKeys are all keys of a rule that has no defaults left.
func ruleKeys(p hubbub.RoomPolicy) ([]ruleKey, error) {
	match, err := yamlValue(quoted(p.Match))
	if err != nil {
		return nil, err
	}
	keys := []ruleKey{{"match", match, "The rooms, by their whole names; * is any run of characters."}}
	const kept = "What is kept for those who come back or look back, up to whichever bound is reached first; off: nothing."
	if h := *p.History; h == (hubbub.History{}) {
		keys = append(keys, ruleKey{"history", "off", kept})
	} else {
		keys = append(keys, ruleKey{"history", "", kept}, ruleKey{"history.messages", strconv.Itoa(h.Messages), ""},
			ruleKey{"history.age", h.Age.String(), ""}, ruleKey{"history.bytes", size(h.Bytes).String(), ""})
	}
	include := "off"
	if p.IncludeSender {
		include = "on"
	}
	return append(keys,
		ruleKey{"presence", p.Presence, "What members are told of each other: off, count (how many) or full (who, and who comes and goes)."},
		ruleKey{"publish", p.Publish, "Who may publish: anyone, members, or server, the application alone."},
		ruleKey{"include-sender", include, "on: who publishes gets its own message too."},
		ruleKey{"slow-consumer", p.SlowConsumer, "What happens to a member that can't keep up: disconnect; or it loses messages and is told so: drop-oldest, latest, latest-by-key."},
		ruleKey{"idle-ttl", p.IdleTTL.String(), "How long a room without members keeps its history and its place in it."},
	), nil
}

// ruleName is how the library calls a rule.
func ruleName(i int) string { return fmt.Sprintf("%s[%d]", roomsKey, i) }

// roomOrigin says where what stands in rooms is from.
func (c *configCmd) roomOrigin(path string) string {
	if c.file != nil && c.file.lines[path] != 0 {
		return fmt.Sprintf("from the file %s, line %d", c.file.path, c.file.lines[path])
	}
	return "the default"
}

// ruleOrigin says where the value of a rule's key is from; the rules that are built in are number -1.
func (c *configCmd) ruleOrigin(ctx *kong.Context, rule int, key string) string {
	from := "built in"
	if rule >= 0 {
		from = c.roomOrigin(ruleName(rule) + "." + key)
	}
	if key == "slow-consumer" && !strings.HasPrefix(from, "from ") {
		return c.origin(ctx, byName(ctx.Selected().Flags, key))
	}
	return from
}

func yamlValue(v any) (string, error) {
	switch t := v.(type) {
	case time.Duration:
		v = t.String()
	case size:
		v = t.String()
	case []string:
		if len(t) == 0 {
			return "[]", nil
		}
		node := yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, item := range t {
			node.Content = append(node.Content, quoted(item))
		}
		v = &node
	}
	b, err := yaml.Dump(v, yaml.WithLineWidth(-1))
	return strings.TrimSpace(string(b)), err
}

// quoted is a text that YAML can't take for anything else.
func quoted(text string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Style: yaml.DoubleQuotedStyle, Value: text}
}

// comment breaks a text into lines of 80 columns.
func comment(text string) string {
	var out strings.Builder
	line := "#"
	for _, word := range strings.Fields(text) {
		if len(line)+1+len(word) > 80 {
			out.WriteString(line + "\n")
			line = "#"
		}
		line += " " + word
	}
	out.WriteString(line + "\n")
	return out.String()
}

// origin says where a setting's value is from.
func (c *serveCmd) origin(ctx *kong.Context, flag *kong.Flag) string {
	for _, p := range ctx.Path {
		if p.Flag == flag && !p.Resolved {
			return "from the flag --" + flag.Name
		}
	}
	if env := envOf(flag); env != "" {
		return "from the environment: " + env
	}
	if c.file != nil {
		if v, ok := c.file.values[flag.Name]; ok {
			return fmt.Sprintf("from the file %s, line %d", c.file.path, v.line)
		}
	}
	return "the default"
}

// locate puts before each line of an error that begins with a setting's name where that was set.
func locate(ctx *kong.Context, c *serveCmd, err error) error {
	lines := strings.Split(err.Error(), "\n")
	for i, line := range lines {
		name, _, _ := strings.Cut(line, " ")
		name = strings.TrimSuffix(name, ":")
		if at := c.file.lineOf(name); at != 0 {
			lines[i] = fmt.Sprintf("%s: line %d: %s", c.file.path, at, line)
			continue
		}
		flag := byName(ctx.Selected().Flags, name)
		if flag == nil {
			continue
		}
		switch from := c.origin(ctx, flag); {
		case strings.HasPrefix(from, "from the environment"):
			lines[i] = envOf(flag) + ": " + line
		case strings.HasPrefix(from, "from the file"):
			lines[i] = fmt.Sprintf("%s: line %d: %s", c.file.path, c.file.values[name].line, line)
		default:
			lines[i] = "--" + line
		}
	}
	return errors.New(strings.Join(lines, "\n"))
}
