package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"example.com/hubbub"
)

// roomsKey is the one setting that is no flag: a list of rules.
const roomsKey = "rooms"

// rulesReader makes rules and limits of YAML. It checks the form; what values there are is the library's to say. lines are those
// of the keys, under the names by which the library's errors call them: "rooms[0].history.age".
type rulesReader struct {
	lines map[string]int
	errs  []error
}

// fileKey is what a mapping may have.
type fileKey struct {
	name string
	read func(*yaml.Node) error
}

// rules reads the value of "rooms".
func (r *rulesReader) rules(n *yaml.Node) (all []hubbub.RoomPolicy) {
	list := resolved(n)
	if list.Kind != yaml.SequenceNode {
		r.fail(n.Line, roomsKey, errors.New("a list of rules is wanted, each with a match"))
		return nil
	}
	for i, item := range list.Content {
		all = append(all, r.rule(item, ruleName(i)))
	}
	return all
}

func (r *rulesReader) rule(n *yaml.Node, at string) (p hubbub.RoomPolicy) {
	r.lines[at] = n.Line
	r.mapping(n, at, []fileKey{
		{"match", scalar(&p.Match, func(text string) (string, error) { return text, nil })},
		{"history", func(v *yaml.Node) (err error) { p.History, err = r.history(v, at+".history"); return err }},
		{"presence", scalar(&p.Presence, word)},
		{"join", scalar(&p.Join, word)},
		{"read", scalar(&p.Read, word)},
		{"publish", scalar(&p.Publish, word)},
		{"include-sender", scalar(&p.IncludeSender, parseSwitch)},
		{"slow-consumer", scalar(&p.SlowConsumer, word)},
		{"idle-ttl", scalar(&p.IdleTTL, func(text string) (*time.Duration, error) { d, err := parseTime(text); return &d, err })},
	})
	if line := r.lines[at+".include-sender"]; line != 0 && !p.IncludeSender && strings.Contains(p.Match, "${user}") {
		r.fail(line, at+".include-sender", errors.New("can't be set where the match has ${user}, off neither")) // which the library can't see
	}
	return p
}

// history is off, or bounds. None of them may be 0, which the library would take for the default.
func (r *rulesReader) history(n *yaml.Node, at string) (*hubbub.History, error) {
	h := &hubbub.History{}
	keys := []fileKey{
		{"messages", scalar(&h.Messages, above0(parseNumber))},
		{"age", scalar(&h.Age, above0(parseTime))},
		{"bytes", scalar(&h.Bytes, above0(parseSize))},
		{"replicas", scalar(&h.Replicas, above0(parseNumber))},
	}
	switch v := resolved(n); {
	case v.Kind == yaml.ScalarNode && v.Value == "off":
	case v.Kind == yaml.MappingNode && len(v.Content) > 0:
		r.mapping(n, at, keys)
	case v.Kind == yaml.ScalarNode:
		return h, fmt.Errorf("%q: write off, or a mapping of %s", v.Value, keyNames(keys))
	default:
		return h, fmt.Errorf("write off, or a mapping of %s", keyNames(keys))
	}
	return h, nil
}

// mapping reads a mapping of these keys.
func (r *rulesReader) mapping(n *yaml.Node, at string, keys []fileKey) {
	m := resolved(n)
	if m.Kind != yaml.MappingNode {
		r.fail(n.Line, at, fmt.Errorf("a mapping is wanted, of %s", keyNames(keys)))
		return
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		name, line := m.Content[i].Value, m.Content[i].Line
		path := at + "." + name
		known := slices.IndexFunc(keys, func(k fileKey) bool { return k.name == name })
		switch before := r.lines[path]; {
		case known < 0:
			r.fail(line, path, fmt.Errorf("there is no such key; use %s", keyNames(keys)))
		case before != 0:
			r.fail(line, path, fmt.Errorf("stands in line %d already", before))
		default:
			r.lines[path] = line
			if err := keys[known].read(m.Content[i+1]); err != nil {
				r.fail(line, path, err)
			}
		}
	}
}

func (r *rulesReader) fail(line int, path string, err error) {
	r.errs = append(r.errs, fmt.Errorf("line %d: %s: %w", line, path, err))
}

// resolved is what an alias stands for.
func resolved(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func keyNames(keys []fileKey) string {
	var all []string
	for _, k := range keys {
		all = append(all, k.name)
	}
	last := len(all) - 1
	return strings.Join(all[:last], ", ") + " or " + all[last]
}

// scalar reads one value, as it stands there: see fileValue.
func scalar[T any](to *T, parse func(text string) (T, error)) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		text, err := nodeText(n, false)
		if err != nil {
			return err
		}
		*to, err = parse(text)
		return err
	}
}

// word is a name that the library knows or not; it takes none for the default.
func word(text string) (string, error) {
	if text == "" {
		return "", errors.New("there is no value")
	}
	return text, nil
}

func parseSwitch(text string) (bool, error) {
	if text != "on" && text != "off" {
		return false, fmt.Errorf("%q: unknown; use on or off", text)
	}
	return text == "on", nil
}

func parseNumber(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("%q is no number", text)
	}
	return n, nil
}

func parseTime(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%q is no time: write 25s or 2m", text)
	}
	return d, nil
}

func parseSize(text string) (int, error) {
	var s size
	err := s.UnmarshalText([]byte(text))
	return int(s), err
}

// above0 refuses 0.
func above0[T int | time.Duration](parse func(string) (T, error)) func(string) (T, error) {
	return func(text string) (T, error) {
		v, err := parse(text)
		if err == nil && v == 0 {
			err = fmt.Errorf("%s: must be greater; to keep nothing write history: off", text)
		}
		return v, err
	}
}
