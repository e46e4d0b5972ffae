package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v4"

	"example.com/hubbub"
)

// configFile is the path of the settings' file, and fileValue one setting of it, as it stands there: what a YAML reader
// would make of an unquoted `on` or `1_000` doesn't matter, a flag gets the same text.
type configFile string

type fileValue struct {
	text string
	line int
}

// file is what the config file sets, by name.
type file struct {
	path   string
	values map[string]fileValue // the sections too, without a text
	rooms  []hubbub.RoomPolicy
	lines  map[string]int // of what stands in the sections: see rulesReader

	apiKeys []hubbub.APIKey
	limits  hubbub.Limits
}

// readFile reads the file and holds every key and value against the flags. The error names all that is wrong, each with
// its line; by is what has named the file.
func readFile(path, by string, flags []*kong.Flag) (*file, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", by, err)
	}
	f, err := parseFile(b, flags)
	if err != nil {
		var all interface{ Unwrap() []error }
		if !errors.As(err, &all) {
			return nil, fmt.Errorf("%s: %s: %w", by, path, err)
		}
		var errs []error
		for _, err := range all.Unwrap() {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
		}
		return nil, errors.Join(errs...)
	}
	f.path = path
	return f, nil
}

// parseFile makes of YAML, a mapping of names to values, what the flags of these names will get.
func parseFile(b []byte, flags []*kong.Flag) (*file, error) {
	f := &file{values: map[string]fileValue{}, lines: map[string]int{}}
	loader, err := yaml.NewLoader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	var doc, more yaml.Node
	if err := loader.Load(&doc); err == io.EOF {
		return f, nil // empty, or comments alone
	} else if err != nil {
		return nil, inWords(err, string(b))
	}
	if err := loader.Load(&more); err == nil {
		return nil, fmt.Errorf("line %d: a second document; the settings are one", more.Line)
	} else if err != io.EOF {
		return nil, inWords(err, string(b))
	}
	top := &doc
	if doc.Kind == yaml.DocumentNode && len(doc.Content) == 1 {
		top = doc.Content[0]
	}
	if top.Kind == yaml.ScalarNode && top.ShortTag() == "!!null" {
		return f, nil
	}
	if top.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: not of the form \"name: value\", with a blank after the colon", top.Line)
	}
	var errs []error
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		if _, twice := f.values[key.Value]; !twice && slices.Contains(sections, key.Value) {
			errs = append(errs, f.section(key, value)...)
			continue
		}
		text, err := fileSetting(key.Value, value, flags)
		if before, twice := f.values[key.Value]; twice {
			err = fmt.Errorf("stands in line %d already", before.line)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("line %d: %s: %w", key.Line, key.Value, err))
			continue
		}
		f.values[key.Value] = fileValue{text, key.Line}
	}
	return f, errors.Join(errs...)
}

// sections are the settings that are no flags.
var sections = []string{roomsKey, apiKeysKey, limitsKey}

// section reads one of them.
func (f *file) section(key, value *yaml.Node) []error {
	f.values[key.Value] = fileValue{line: key.Line}
	f.lines[key.Value] = key.Line
	read := rulesReader{lines: f.lines}
	switch key.Value {
	case roomsKey:
		f.rooms = read.rules(value)
	case apiKeysKey:
		f.apiKeys = read.keys(value)
	case limitsKey:
		read.limits(value, &f.limits)
	}
	return read.errs
}

// inWords says in which line YAML can't be read, and what to do about it. YAML's own words are for those who know its
// grammar.
func inWords(err error, text string) error {
	var e *yaml.LoadError
	if !errors.As(err, &e) {
		return err
	}
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if indent := l[:len(l)-len(strings.TrimLeft(l, " \t-"))]; strings.Contains(indent, "\t") {
			return fmt.Errorf("line %d: a tab before the text; YAML wants blanks there", i+1)
		}
	}
	at := e.Mark.Line
	has := func(part string) bool { return strings.Contains(e.ContextMsg+": "+e.Message, part) }
	why := "YAML can't read it: " + e.Message
	switch {
	case e.Stage == "reader":
		return errors.New("it is no text in UTF-8")
	case has("anchor"), has("alias"), has("cannot start any token"), has("scanning a tag"):
		if value := oddValue.FindStringSubmatch(lines[max(0, min(at, len(lines))-1)]); value != nil {
			why = fmt.Sprintf("a value that begins with %s means something else in YAML; put it in quotes: %q", value[1][:1], strings.TrimSpace(value[1]))
		}
	case has("escape character"):
		why = "a backslash in double quotes means something else in YAML; use single quotes"
	case has("quoted scalar"):
		at, why = e.ContextMark.Line, "a quote begins here and doesn't end"
	case has("flow sequence"), has("flow mapping"):
		at, why = e.ContextMark.Line, "a bracket opens here and isn't closed, or there is no comma between two values"
	case has("mapping values are not allowed"):
		why = "it has more blanks before it than the lines above, or there is a colon in its value, which must stand in quotes then"
	case has("did not find expected"):
		why = "it has more or less blanks before it than the lines above"
	}
	return fmt.Errorf("line %d: %s", at, why)
}

// oddValue is a value that needs quotes, up to what would end it.
var oddValue = regexp.MustCompile("(?:^|[:\\[{,]|- )\\s*([*&!@%`][^,\\]}#]*)")

// lineOf is the line of a setting of rooms or limits, or that of what it would stand in; 0 where there is none.
func (f *file) lineOf(name string) int {
	for f != nil {
		if line := f.lines[name]; line != 0 {
			return line
		}
		dot := strings.LastIndexByte(name, '.')
		if dot < 0 {
			break
		}
		name = name[:dot]
	}
	return 0
}

// fileSetting gives the text of a value that the flag of that name accepts.
func fileSetting(name string, value *yaml.Node, flags []*kong.Flag) (string, error) {
	if isReserved(name) {
		return "", errReserved
	}
	flag := byName(flags, name)
	if flag == nil {
		if like := nearest(name, append(names(flags), sections...)); like != "" {
			return "", fmt.Errorf("there is no such setting; did you mean %s?", like)
		}
		return "", errors.New("there is no such setting; hubbub config lists all")
	}
	text, err := nodeText(value, flag.Target.Kind() == reflect.Slice)
	if err != nil {
		return "", err
	}
	if text == "" && flag.Default != "" {
		return "", errors.New("there is no value")
	}
	return text, checkText(flag, text)
}

// byName finds a setting's flag.
func byName(flags []*kong.Flag, name string) *kong.Flag {
	for _, f := range settings(flags) {
		if f.Name == name {
			return f
		}
	}
	return nil
}

func names(flags []*kong.Flag) (all []string) {
	for _, f := range settings(flags) {
		all = append(all, f.Name)
	}
	return all
}

// settings are the flags that are settings of the server; the others say what hubbub is to do.
func settings(flags []*kong.Flag) (all []*kong.Flag) {
	for _, f := range flags {
		if !slices.Contains([]string{"help", "config", "room", "user", "commented", "diff", "url", "ready", "timeout"}, f.Name) && len(f.Envs) > 0 {
			all = append(all, f)
		}
	}
	return all
}

// nodeText is a value as a flag would be given it: a list becomes items with commas between.
func nodeText(n *yaml.Node, list bool) (string, error) {
	n = resolved(n)
	switch n.Kind {
	case yaml.ScalarNode:
		if n.ShortTag() == "!!null" {
			return "", errors.New("there is no value")
		}
		return n.Value, nil
	case yaml.SequenceNode:
		if !list {
			return "", errors.New("one value is wanted, not a list")
		}
		var items []string
		for _, c := range n.Content {
			item, err := nodeText(c, false)
			if err != nil {
				return "", err
			}
			if item == "" {
				return "", errors.New("one of its items is empty")
			}
			items = append(items, item)
		}
		return kong.JoinEscaped(items, ','), nil
	}
	return "", errors.New("a value is wanted, not a mapping")
}

// BeforeReset looks at the environment, before kong does: its errors would name the flags.
func (c *serveCmd) BeforeReset(ctx *kong.Context) (err error) {
	c.unknown, err = checkEnvironment(os.Environ(), ctx.Selected().Flags)
	return err
}

// BeforeResolve reads the file that --config or HUBBUB_CONFIG names, once flags and environment are known.
func (c *serveCmd) BeforeResolve(ctx *kong.Context) error {
	if err := checkEmpty(ctx); err != nil {
		return err
	}
	flags := ctx.Selected().Flags
	for _, f := range flags {
		if f.Name != "config" {
			continue
		}
		path, _ := ctx.FlagValue(f).(configFile)
		if path == "" {
			return nil
		}
		by := "--config"
		if strings.HasPrefix(c.origin(ctx, f), "from the environment") {
			by = envOf(f)
		}
		read, err := readFile(string(path), by, flags)
		if err != nil {
			return err
		}
		c.file = read
		ctx.AddResolver(read)
	}
	return nil
}

// Validate is a kong.Resolver's; readFile has checked everything.
func (f *file) Validate(*kong.Application) error { return nil }

// Resolve gives the file's value to a flag that was not given and whose environment variable isn't set: kong would take
// a resolver's before the environment's.
func (f *file) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	v, ok := f.values[flag.Name]
	if !ok || envOf(flag) != "" {
		return nil, nil
	}
	return v.text, nil
}

// envOf is the name of the environment variable that sets a flag, or empty when none does.
func envOf(flag *kong.Flag) string {
	for _, name := range flag.Envs {
		if _, set := os.LookupEnv(name); set {
			return name
		}
	}
	return ""
}
