package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"example.com/hubbub"
)

// limitsKey is the second setting that is no flag: what a client, a user and an address may do in a time.
const limitsKey = "limits"

// limitKey is one of the limits.
type limitKey struct {
	name        string
	rate        *hubbub.Rate
	bytes       bool
	connections *int // instead of a rate
}

// limitGroups are all limits there are, by whom, as they stand in the file.
func limitGroups(l *hubbub.Limits) []struct {
	by   string
	keys []limitKey
} {
	return []struct {
		by   string
		keys []limitKey
	}{
		{"client", []limitKey{
			{name: "messages", rate: &l.Client.Messages},
			{name: "bytes", rate: &l.Client.Bytes, bytes: true},
			{name: "joins", rate: &l.Client.Joins},
		}},
		{"user", []limitKey{
			{name: "connections", connections: &l.User.Connections},
			{name: "connects", rate: &l.User.Connects},
			{name: "messages", rate: &l.User.Messages},
			{name: "bytes", rate: &l.User.Bytes, bytes: true},
			{name: "joins", rate: &l.User.Joins},
		}},
		{"address", []limitKey{
			{name: "connects", rate: &l.Address.Connects},
			{name: "messages", rate: &l.Address.Messages},
			{name: "bytes", rate: &l.Address.Bytes, bytes: true},
			{name: "joins", rate: &l.Address.Joins},
		}},
	}
}

// limits reads the value of "limits".
func (r *rulesReader) limits(n *yaml.Node, to *hubbub.Limits) {
	var groups []fileKey
	for _, g := range limitGroups(to) {
		var keys []fileKey
		for _, k := range g.keys {
			keys = append(keys, fileKey{k.name, k.read})
		}
		at := limitsKey + "." + g.by
		groups = append(groups, fileKey{g.by, func(v *yaml.Node) error { r.mapping(v, at, keys); return nil }})
	}
	r.mapping(n, limitsKey, groups)
}

func (k limitKey) read(n *yaml.Node) error {
	text, err := nodeText(n, false)
	switch {
	case err != nil:
		return err
	case k.connections != nil:
		*k.connections, err = limitNumber(text, parseNumber)
	case k.bytes:
		*k.rate, err = parseRate(text, "1MiB/s", parseSize)
	default:
		*k.rate, err = parseRate(text, "50/s", parseNumber)
	}
	return err
}

// parseRate reads "50/s", "50/s burst 100": so many a second, a minute (m) or an hour (h), and how many at once.
func parseRate(text, example string, number func(string) (int, error)) (r hubbub.Rate, err error) {
	bad := fmt.Errorf("%q is no rate: write %s, or %[2]s burst N; a rate is a second's (s), a minute's (m) or an hour's (h)", text, example)
	words := strings.Fields(text)
	if len(words) != 1 && (len(words) != 3 || words[1] != "burst") {
		return r, bad
	}
	n, per, found := strings.Cut(words[0], "/")
	r.Per = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}[per]
	if !found || r.Per == 0 {
		return r, bad
	}
	if r.N, err = limitNumber(n, number); err == nil && len(words) == 3 {
		r.Burst, err = limitNumber(words[2], number)
	}
	return r, err
}

// limitNumber refuses 0, which the library would take for no limit, or for a default.
func limitNumber(text string, number func(string) (int, error)) (int, error) {
	n, err := number(text)
	if err == nil && n <= 0 {
		err = errors.New(strconv.Quote(text) + ": must be greater than 0; leave the line out for no limit")
	}
	return n, err
}

// text is the limit as it stands in the file.
func (k limitKey) text() string {
	number := strconv.Itoa
	if k.bytes {
		number = func(n int) string { return size(n).String() }
	}
	if k.connections != nil {
		return number(*k.connections)
	}
	per := "s"
	switch k.rate.Per {
	case time.Minute:
		per = "m"
	case time.Hour:
		per = "h"
	}
	return number(k.rate.N) + "/" + per + " burst " + number(k.rate.Burst)
}

func (k limitKey) set() bool {
	if k.connections != nil {
		return *k.connections > 0
	}
	return k.rate.N > 0
}

// limitLines is the section limits, with every limit that is set.
func (c *configCmd) limitLines(l hubbub.Limits) string {
	var out strings.Builder
	out.WriteString(comment("How often a client (client:), all clients of a user (user:) or of an address (address:) may do a thing, in the file alone: messages, bytes and joins; connects, but of a client; and connections, of a user. 50/s burst 100 is 50 a second and 100 at once; also /m and /h. What isn't named has no limit."))
	if l == (hubbub.Limits{}) {
		return out.String() + limitsKey + ": {} # " + c.roomOrigin(limitsKey) + "\n"
	}
	fmt.Fprintf(&out, "%s: # %s\n", limitsKey, c.roomOrigin(limitsKey))
	for _, g := range limitGroups(&l) {
		head := "  " + g.by + ":\n"
		for _, k := range g.keys {
			if k.set() {
				fmt.Fprintf(&out, "%s    %s: %s # %s\n", head, k.name, k.text(), c.roomOrigin(limitsKey+"."+g.by+"."+k.name))
				head = ""
			}
		}
	}
	return out.String()
}
