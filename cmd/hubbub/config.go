package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
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
	User     *string `placeholder:"NAME" env:"-" help:"With --room: print what the user of this name may do there, and why; empty for a client without a name."`

	Diff configFile `env:"-" placeholder:"FILE" help:"Print what a reload by this file, in the place of --config's, would change, and what it would keep until a restart."`

	Commented bool `env:"-" help:"Print a file to begin with instead: every setting with what it means, and all that isn't set as a comment."`
}

// Help is shown by hubbub config --help.
func (configCmd) Help() string {
	return "What it prints is a config file: hubbub config > hubbub.yaml, then hubbub serve --config hubbub.yaml. Remove what you don't set, or the defaults of today stay; with --commented they are comments."
}

// Run prints every setting with its meaning, its value and where that is from.
func (c *configCmd) Run(ctx *kong.Context) error {
	cfg, _, err := c.prepare(ctx, c.logger())
	if err != nil {
		return err
	}
	switch {
	case c.User != nil && c.Room == nil:
		return usageError{errors.New("--user needs --room: what may this user do where?")}
	case c.User != nil:
		return c.printAccess(ctx, cfg)
	case c.Diff != "":
		return c.printDiff(ctx, cfg)
	case c.Room != nil:
		return c.printRoom(ctx, cfg)
	case c.Commented:
		return c.printCommented(ctx)
	}
	out, err := c.text(ctx, cfg)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(out)
	return err
}

// text is a file of all settings as they come out, without secrets.
func (c *configCmd) text(ctx *kong.Context, cfg hubbub.Config) ([]byte, error) {
	cfg = cfg.Effective()
	var out bytes.Buffer
	out.WriteString(comment("The effective settings of hubbub serve. A flag counts first, then the environment, then the file, then the default."))
	for _, name := range c.unknown {
		out.WriteString(comment(name + " is in the environment, and no setting: it does nothing."))
	}
	for _, flag := range settings(ctx.Selected().Flags) {
		is, err := c.setting(ctx, flag, &cfg)
		switch {
		case err != nil:
			return nil, err
		case is.Hidden:
			fmt.Fprintf(&out, "\n%s# %s: not shown, %s\n", comment(flag.Help), is.Name, is.From)
		default:
			fmt.Fprintf(&out, "\n%s%s: %s # %s\n", comment(flag.Help), is.Name, is.Value, is.From)
		}
	}
	rules, err := c.roomLines(ctx, cfg.Rooms)
	if err != nil {
		return nil, err
	}
	keys, err := c.keyLines(ctx)
	if err != nil {
		return nil, err
	}
	out.WriteString("\n" + keys + "\n" + rules + "\n" + c.limitLines(cfg.Limits))
	return out.Bytes(), nil
}

// setting is one as it is in force; cfg has no defaults left.
func (c *serveCmd) setting(ctx *kong.Context, flag *kong.Flag, cfg *hubbub.Config) (is hubbub.Setting, err error) {
	value := flag.Target.Interface()
	switch flag.Name { // 0 stands for what the machine has
	case "workers":
		value = cfg.Workers
	case "max-connections":
		value = cfg.MaxConnections
	case "max-buffered-bytes":
		value = size(cfg.MaxBufferedBytes)
	case "cluster-name":
		value = cfg.Cluster.Name
	case "chat": // empty stands for what suits the others
		value = cfg.Chat
	case "direct":
		value = cfg.Direct
	}
	is = hubbub.Setting{Name: flag.Name, From: c.origin(ctx, flag), Hidden: isSecret(value)}
	if !is.Hidden {
		if is.Value, err = yamlValue(value); err != nil {
			return is, fmt.Errorf("%s: %w", flag.Name, err)
		}
	}
	return is, nil
}

// settingsOf are all, for Config.Settings.
func (c *serveCmd) settingsOf(ctx *kong.Context, cfg hubbub.Config) (all []hubbub.Setting) {
	cfg = cfg.Effective()
	for _, flag := range settings(ctx.Selected().Flags) {
		if is, err := c.setting(ctx, flag, &cfg); err == nil {
			all = append(all, is)
		}
	}
	return all
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
	var out strings.Builder
	fmt.Fprintf(&out, "# What the room %q gets, by %s.\n", *c.Room, c.byRule(p.Match, i))
	for _, k := range keys {
		if k.about != "" {
			out.WriteString("\n" + comment(k.about))
		}
		fmt.Fprintf(&out, "%s # %s\n", k.line(), c.ruleOrigin(ctx, i, k.name))
	}
	_, err = os.Stdout.WriteString(out.String())
	return err
}

// byRule says which rule it is; those that are built in are number -1.
func (c *configCmd) byRule(match string, rule int) string {
	switch {
	case rule >= 0:
		return fmt.Sprintf("the rule for %q (%s, %s)", match, ruleName(rule), c.roomOrigin(ruleName(rule)))
	case match == "*":
		return "the default: no rule has a match for it"
	}
	return fmt.Sprintf("the rule for %q, which is built in", match)
}

// printAccess prints what --user may do in --room.
func (c *configCmd) printAccess(ctx *kong.Context, cfg hubbub.Config) error {
	all, err := cfg.AccessOf(*c.Room, *c.User)
	if err != nil {
		return usageError{fmt.Errorf("--room %q --user %q: %w", *c.Room, *c.User, err)}
	}
	who := fmt.Sprintf("the user %q", *c.User)
	if *c.User == "" {
		who = "a client without a name"
	}
	var out strings.Builder
	fmt.Fprintf(&out, "# What %s may do in the room %q. Hooks of your program may forbid more.\n", who, *c.Room)
	for _, a := range all {
		c.printVerb(&out, a.Verb, a.Who, c.byRule(a.Match, a.Rule), fmt.Sprintf("%q: [%q]", a.Verb, *c.Room))
	}
	effective := cfg.Effective()
	for _, of := range []struct{ flag, who string }{{"chat", effective.Chat}, {"direct", effective.Direct}} {
		from := c.origin(ctx, byName(ctx.Selected().Flags, of.flag))
		c.printVerb(&out, of.flag, of.who, fmt.Sprintf("--%s, %s", of.flag, from), fmt.Sprintf("%q: true", of.flag))
	}
	_, err = os.Stdout.WriteString(out.String())
	return err
}

// printVerb says whether the user may do it, by what, and what its token needs where that counts.
func (c *configCmd) printVerb(out io.Writer, verb, who, by, claim string) {
	answer := "no"
	switch {
	case who == "anyone", who == "users" && *c.User != "":
		answer = "yes"
	case who == "members":
		answer = "as a member"
	case who == "granted":
		answer = "with a token"
		by += fmt.Sprintf("; its claim hubbub needs {%s}", claim)
	}
	fmt.Fprintf(out, "%s: %s # %s, by %s\n", verb, answer, who, by)
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
	keys := []ruleKey{{"match", match, "The rooms, by their whole names; * is any run of characters, ${user} the client's own name."}}
	may := []ruleKey{
		{"join", p.Join, "Who may become a member: anyone, users (who has a name), granted (whose token has a pattern for it), or server: whom the application puts in."},
		{"read", p.Read, "Who may read without being a member: one of these, or members."},
		{"publish", p.Publish, "Who may publish: one of these, or members."},
	}
	if p.History == nil { // its match has ${user}: it sets nothing else
		return append(keys, may...), nil
	}
	const kept = "What is kept for those who come back or look back, up to whichever bound is reached first; off: nothing. With replicas of 1, 3 or 5 so many stores keep it, else those of --replicas."
	if h := *p.History; h == (hubbub.History{}) {
		keys = append(keys, ruleKey{"history", "off", kept})
	} else {
		keys = append(keys, ruleKey{"history", "", kept}, ruleKey{"history.messages", strconv.Itoa(h.Messages), ""},
			ruleKey{"history.age", h.Age.String(), ""}, ruleKey{"history.bytes", size(h.Bytes).String(), ""})
		if h.Replicas != 0 { // else it is that of --replicas, and no key says so
			keys = append(keys, ruleKey{"history.replicas", strconv.Itoa(h.Replicas), ""})
		}
	}
	include := "off"
	if p.IncludeSender {
		include = "on"
	}
	keys = append(keys, ruleKey{"presence", p.Presence, "What members are told of each other: off, count (how many) or full (who, and who comes and goes)."})
	keys = append(keys, may...)
	return append(keys,
		ruleKey{"include-sender", include, "on: who publishes gets its own message too."},
		ruleKey{"slow-consumer", p.SlowConsumer, "What happens to a member that can't keep up: disconnect; or it loses messages and is told so: drop-oldest, latest, latest-by-key."},
		ruleKey{"idle-ttl", p.IdleTTL.String(), "How long a room without members keeps its history and its place in it."},
	), nil
}

// ruleName is how the library calls a rule.
func ruleName(i int) string { return fmt.Sprintf("%s[%d]", roomsKey, i) }

// roomOrigin says where what stands in rooms and the like is from.
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
	case natsURLs:
		return yamlValue([]string(t))
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

// isGiven says whether a flag, by its name, is on the command line.
func isGiven(ctx *kong.Context, name string) bool {
	return slices.ContainsFunc(ctx.Path, func(p *kong.Path) bool { return p.Flag != nil && p.Flag.Name == name && !p.Resolved })
}

// origin says where a setting's value is from.
func (c *serveCmd) origin(ctx *kong.Context, flag *kong.Flag) string {
	if isGiven(ctx, flag.Name) {
		return "from the flag --" + flag.Name
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

// isSecret says that a setting has a value that is nobody's to read.
func isSecret(value any) bool {
	switch value := value.(type) {
	case secret: // the name of a file with the secret in it is none
		return value != "" && !strings.HasPrefix(string(value), "@")
	case secrets:
		return len(value) > 0
	case natsURLs:
		return slices.ContainsFunc(value, func(u string) bool { return strings.Contains(u, "@") }) // a password, or a token
	}
	return false
}
