package faulty

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Trace is a story. What its Steps mean is in the README of testdata/protocol/traces.
type Trace struct {
	Name    string         `json:"name"`
	Options Options        `json:"options"`
	Each    map[string]any `json:"each"` // for families: a name, and the values that it has in turn
	// In are rooms that the client is in as the story begins, and where: it has been welcomed with Welcome and the resume
	// token "t1" then. Without them the story begins with its handshake.
	In      map[string]*Position `json:"in"`
	Welcome map[string]any       `json:"welcome"`
	Steps   []Step               `json:"steps"`

	vars map[string]any // of this one of its family
}

// Step is one of a story: exactly one of its fields is set.
type Step struct {
	// The program's side.
	Do    *Command          `json:"do"`
	Gives map[string]any    `json:"gives"` // by the call's name
	Fails map[string]string `json:"fails"`
	Shows Report            `json:"shows"`
	State Report            `json:"state"`

	// The server's side.
	Come   *int            `json:"come"` // waits for a handshake, so many milliseconds after the last end or later; until it is accepted the client is away
	Accept *Accept         `json:"accept"`
	Refuse *Refusal        `json:"refuse"`
	Hear   map[string]any  `json:"hear"`
	Say    json.RawMessage `json:"say"`    // a message, or a list of them
	Within json.RawMessage `json:"within"` // a message, cut at each of its bytes
	Text   *string         `json:"text"`   // a text frame
	Raw    *string         `json:"raw"`    // bytes, in hex
	Cut    string          `json:"cut"`    // "end", or "reset"
	Close  *Close          `json:"close"`
}

// Accept takes a connection. Fields that are nil aren't looked at.
type Accept struct {
	Resume  *string `json:"resume"` // the token that it must show, "" for none
	Token   *string `json:"token"`
	Welcome any     `json:"welcome"` // an object or the name of one: fields beside those of every welcome; "msg_type": null: none is sent
	Deaf    bool    `json:"deaf"`    // pings get no answer
}

// Refusal refuses a handshake.
type Refusal struct {
	Status     any    `json:"status"` // a number, or a name of the family
	RetryAfter string `json:"retry_after"`
}

// Close is a Close frame.
type Close struct {
	Code   any    `json:"code"` // a number, or a name of the family
	Reason string `json:"reason"`
}

// Load reads all traces of a folder, by the names of their files.
func Load(t testing.TB, dir string) map[string][]Trace {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no traces in %s: %v", dir, err)
	}
	all := map[string][]Trace{}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		traces, err := parse(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all[filepath.Base(name)] = traces
	}
	return all
}

func parse(text []byte) (traces []Trace, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&traces); err != nil {
		return nil, err
	}
	for _, t := range traces {
		for i, s := range t.Steps {
			if s.verb() == "" {
				return nil, fmt.Errorf("%q: step %d is none, or more than one", t.Name, i+1)
			}
		}
	}
	return traces, nil
}

// verb is the one field that is set, "" where it isn't one.
func (s Step) verb() (verb string) {
	n := 0
	for name, set := range map[string]bool{
		"do": s.Do != nil, "gives": s.Gives != nil, "fails": s.Fails != nil, "shows": s.Shows != nil, "state": s.State != nil,
		"come": s.Come != nil, "accept": s.Accept != nil, "refuse": s.Refuse != nil, "hear": s.Hear != nil, "say": s.Say != nil, "within": s.Within != nil,
		"text": s.Text != nil, "raw": s.Raw != nil, "cut": s.Cut != "", "close": s.Close != nil,
	} {
		if set {
			verb, n = name, n+1
		}
	}
	if n != 1 {
		return ""
	}
	return verb
}

// Family is all stories that a trace stands for: one for each value of Each, and for each byte of what is cut Within.
func (t Trace) Family() (all []Trace, err error) {
	t.vars = map[string]any{}
	if len(t.Each) == 0 {
		all = []Trace{t}
	}
	for name, values := range t.Each {
		list, err := valuesOf(values)
		if err != nil || len(t.Each) > 1 {
			return nil, fmt.Errorf("%q: each: one name with a list, or with from and to, is wanted: %v", t.Name, err)
		}
		for _, v := range list {
			one := t
			one.Name = fmt.Sprintf("%s, %s %v", t.Name, name, v)
			one.vars = map[string]any{name: v}
			all = append(all, one)
		}
	}
	var cut []Trace
	for _, t := range all {
		n := t.bytesWithin()
		for at := range n {
			one := t
			one.Name = fmt.Sprintf("%s, at byte %d", t.Name, at)
			one.vars = map[string]any{"cut_at": at}
			cut = append(cut, one)
		}
		if n == 0 {
			cut = append(cut, t)
		}
	}
	return cut, nil
}

// beginning are the steps by which the client comes into the rooms where it is first.
func (t Trace) beginning() (steps []Step) {
	if t.In == nil {
		return nil
	}
	welcome := map[string]any{"resume_token": "t1", "resume_window_ms": 30000, "resumed": false}
	maps.Copy(welcome, t.Welcome)
	steps = []Step{{Accept: &Accept{Resume: new(string), Welcome: welcome}}, {State: Report{"state": "online"}}}
	for _, name := range slices.Sorted(maps.Keys(t.In)) {
		joined := map[string]any{"msg_type": "joined", "room": name, "id": "$id"}
		if at := t.In[name]; at != nil {
			joined["epoch"], joined["offset"] = at.Epoch, at.Offset
		}
		say, _ := json.Marshal(joined) // it is made of strings and numbers
		steps = append(steps,
			Step{Do: &Command{Call: "join", Room: name, As: "join " + name}},
			Step{Hear: map[string]any{"msg_type": "join_room", "room": name}},
			Step{Say: say},
			Step{Gives: map[string]any{"join " + name: map[string]any{}}})
	}
	return steps
}

func valuesOf(v any) (list []any, err error) {
	switch v := v.(type) {
	case []any:
		return v, nil
	case map[string]any:
		from, _ := v["from"].(float64)
		to, _ := v["to"].(float64)
		but, _ := v["but"].([]any)
		for n := from; n <= to; n++ {
			if !slices.Contains(but, any(n)) {
				list = append(list, n)
			}
		}
		if len(list) > 0 {
			return list, nil
		}
	}
	return nil, fmt.Errorf("%v", v)
}

// bytesWithin is how long the frame is that is cut at each byte; what it refers to is taken as short.
func (t Trace) bytesWithin() int {
	for _, s := range t.Steps {
		if s.Within != nil {
			return len(textFrame(compact(s.Within)))
		}
	}
	return 0
}

func compact(raw json.RawMessage) []byte {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return raw
	}
	return b.Bytes()
}

// fill puts the values of names into what a trace says. A string that is "$" and a name stands for its value.
func (t Trace) fill(v any) any {
	switch v := v.(type) {
	case string:
		if name, is := strings.CutPrefix(v, "$"); is {
			switch value := t.vars[name].(type) {
			case nil:
			case string:
				return value
			default:
				return t.fill(value) // an object may name others
			}
		}
	case map[string]any:
		filled := map[string]any{}
		for key, one := range v {
			filled[key] = t.fill(one)
		}
		return filled
	case []any:
		filled := []any{}
		for _, one := range v {
			filled = append(filled, t.fill(one))
		}
		return filled
	}
	return v
}

// match says how a value differs from what is wanted of it, "" for not at all. Of an object only the keys that are named
// count, and null stands for one that is missing. "$" and a name that has no value yet takes the value.
func (t Trace) match(want, got any) string {
	switch want := t.fill(want).(type) {
	case map[string]any:
		object, is := got.(map[string]any)
		if !is {
			return fmt.Sprintf("%v, want %v", got, want)
		}
		for key, one := range want {
			if diff := t.match(one, object[key]); diff != "" {
				return key + ": " + diff
			}
		}
		return ""
	case []any:
		list, is := got.([]any)
		if !is || len(list) != len(want) {
			return fmt.Sprintf("%v, want %v", got, want)
		}
		for i, one := range want {
			if diff := t.match(one, list[i]); diff != "" {
				return fmt.Sprintf("%d: %s", i, diff)
			}
		}
		return ""
	case string:
		if name, is := strings.CutPrefix(want, "$"); is && got != nil {
			t.vars[name] = got
			return ""
		}
		if got != any(want) {
			return fmt.Sprintf("%v, want %q", got, want)
		}
		return ""
	default:
		if got != want {
			return fmt.Sprintf("%v, want %v", got, want)
		}
		return ""
	}
}
