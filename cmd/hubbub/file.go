package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
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
	values map[string]fileValue // rooms too, without a text
	rooms  []hubbub.RoomPolicy
	lines  map[string]int // of what stands in rooms: see rulesReader
}

// readFile reads the file and holds every key and value against the flags. The error names all that is wrong, each with
// its line.
func readFile(path string, flags []*kong.Flag) (*file, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--config: %w", err)
	}
	f, err := parseFile(b, flags)
	if err != nil {
		var all interface{ Unwrap() []error }
		if !errors.As(err, &all) {
			return nil, fmt.Errorf("--config: %s: %w", path, err)
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
	f := &file{values: map[string]fileValue{}}
	loader, err := yaml.NewLoader(strings.NewReader(string(b)))
	if err != nil {
		return nil, err
	}
	var doc, more yaml.Node
	if err := loader.Load(&doc); err == io.EOF {
		return f, nil // empty, or comments alone
	} else if err != nil {
		return nil, err
	}
	if err := loader.Load(&more); err != io.EOF {
		if err == nil {
			err = fmt.Errorf("line %d: a second document; the settings are one", more.Line)
		}
		return nil, err
	}
	top := &doc
	if doc.Kind == yaml.DocumentNode && len(doc.Content) == 1 {
		top = doc.Content[0]
	}
	if top.Kind == yaml.ScalarNode && top.ShortTag() == "!!null" {
		return f, nil
	}
	if top.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: not of the form \"name: value\"", top.Line)
	}
	var errs []error
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		if key.Value == roomsKey && f.lines == nil {
			read := rulesReader{lines: map[string]int{roomsKey: key.Line}}
			f.rooms, f.lines = read.rules(value), read.lines
			f.values[roomsKey] = fileValue{line: key.Line}
			errs = append(errs, read.errs...)
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

// lineOf is the line of a setting of rooms, or that of what it would stand in; 0 where there is none.
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
		return "", errors.New("there is no such setting; hubbub config lists all")
	}
	text, err := nodeText(value, flag.Target.Kind() == reflect.Slice)
	if err != nil {
		return "", err
	}
	scratch := reflect.New(flag.Target.Type()).Elem()
	if err := flag.Mapper.Decode(&kong.DecodeContext{Value: flag.Value, Scan: kong.Scan().PushTyped(text, kong.FlagValueToken)}, scratch); err != nil {
		return "", err
	}
	if flag.Enum != "" && !flag.EnumMap()[text] {
		return "", fmt.Errorf("%q is none of %s", text, strings.ReplaceAll(flag.Enum, ",", ", "))
	}
	return text, nil
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

// settings are the flags that are settings of the server; the others say what hubbub is to do.
func settings(flags []*kong.Flag) (all []*kong.Flag) {
	for _, f := range flags {
		if f.Name != "help" && f.Name != "config" && f.Name != "room" {
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
			items = append(items, item)
		}
		return kong.JoinEscaped(items, ','), nil
	}
	return "", errors.New("a value is wanted, not a mapping")
}

// BeforeResolve reads the file that --config or HUBBUB_CONFIG names, once flags and environment are known.
func (c *serveCmd) BeforeResolve(ctx *kong.Context) error {
	var flags []*kong.Flag
	for _, path := range ctx.Path {
		if path.Command != nil {
			flags = path.Command.Flags
		}
	}
	for _, f := range flags {
		if f.Name != "config" {
			continue
		}
		path, _ := ctx.FlagValue(f).(configFile)
		if path == "" {
			return nil
		}
		read, err := readFile(string(path), flags)
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
