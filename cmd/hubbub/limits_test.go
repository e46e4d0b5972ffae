package main

import (
	"strings"
	"testing"
	"time"

	"example.com/hubbub"
)

// limits is the section of a file.
func limits(t *testing.T, text string) hubbub.Limits {
	t.Helper()
	f, err := parseFile([]byte(text), serveFlags(t))
	if err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	return f.limits
}

const allLimits = `
limits:
  client: {messages: 50/s, bytes: 1MiB/s burst 4MiB, joins: 600/m}
  user:
    connections: 20
    connects: 10/s burst 30
    messages: 7200/h
    bytes: 64KiB/s
    joins: 5/s
  address: {connects: 20/s, messages: 1/m, bytes: 1000000/s, joins: 1/h burst 1}
`

func TestTheFilesLimits(t *testing.T) {
	want := hubbub.Limits{
		Client: hubbub.ClientLimits{
			Messages: hubbub.Rate{N: 50, Per: time.Second}, Bytes: hubbub.Rate{N: 1 << 20, Per: time.Second, Burst: 4 << 20}, Joins: hubbub.Rate{N: 600, Per: time.Minute},
		},
		User: hubbub.UserLimits{
			Connections: 20, Connects: hubbub.Rate{N: 10, Per: time.Second, Burst: 30}, Messages: hubbub.Rate{N: 7200, Per: time.Hour},
			Bytes: hubbub.Rate{N: 64 << 10, Per: time.Second}, Joins: hubbub.Rate{N: 5, Per: time.Second},
		},
		Address: hubbub.AddressLimits{
			Connects: hubbub.Rate{N: 20, Per: time.Second}, Messages: hubbub.Rate{N: 1, Per: time.Minute}, Bytes: hubbub.Rate{N: 1_000_000, Per: time.Second},
			Joins: hubbub.Rate{N: 1, Per: time.Hour, Burst: 1},
		},
	}
	if got := limits(t, allLimits); got != want {
		t.Errorf("%+v", got)
	}
	if got := limits(t, "limits: {}"); got != (hubbub.Limits{}) {
		t.Errorf("%+v", got)
	}
}

// What hubbub config prints is a file with the same limits.
func TestLimitsArePrintedAsAFile(t *testing.T) {
	for _, text := range []string{"", "limits: {}", "limits: {user: {connections: 1}}", allLimits} {
		want := hubbub.Config{Limits: limits(t, text)}.Effective().Limits
		out, err := printed(t, "config", "--config", write(t, text))
		if err != nil {
			t.Fatal(err)
		}
		if got := limits(t, out); got != want {
			t.Errorf("from\n%s\ncame\n%s", text, out[strings.Index(out, "\nlimits"):])
		}
		if _, err := printed(t, "config", "--config", write(t, out)); err != nil {
			t.Errorf("the second time: %v", err)
		}
	}
}

func TestABadLimitIsRefusedByKeyAndLine(t *testing.T) {
	for text, want := range map[string][]string{
		"limits: 5":                                          {"line 1: limits:", "client, user or address"},
		"limits: {clients: {}}":                              {"limits.clients:", "client, user or address"},
		"limits:\n  client: {connects: 1/s}":                 {"line 2: limits.client.connects:", "messages, bytes or joins"},
		"limits:\n  client: {messages: 50}":                  {"line 2: limits.client.messages:", `"50"`, "50/s burst N"},
		"limits: {client: {messages: 50/d}}":                 {"limits.client.messages:", `"50/d"`},
		"limits: {client: {messages: 1KiB/s}}":               {"limits.client.messages:", `"1KiB" is no number`},
		"limits: {client: {messages: 0/s}}":                  {"limits.client.messages:", "leave the line out"},
		"limits: {client: {messages: -1/s}}":                 {"limits.client.messages:", "greater than 0"},
		"limits: {client: {messages: 5/s burst 0}}":          {"limits.client.messages:", "greater than 0"},
		"limits: {client: {messages: 5/s bust 7}}":           {"limits.client.messages:", "5/s bust 7"},
		"limits: {client: {bytes: 1XiB/s}}":                  {"limits.client.bytes:", `"1XiB" is no size`},
		"limits: {client: {messages: [1/s]}}":                {"limits.client.messages:", "one value is wanted"},
		"limits: {client: {messages: 1/s, messages: 2/s}}":   {"limits.client.messages:", "stands in line 1 already"},
		"limits: {}\nlimits: {}":                             {"line 2: limits: stands in line 1 already"},
		"limits: {user: {connections: 0}}":                   {"limits.user.connections:", "greater than 0"},
		"limits:\n  client: {bytes: 1KiB/s burst 1KiB}":      {"line 2: limits.client.bytes", "max-message-bytes, 65536"},
		"limits: {client: {messages: 2000000000/s}}":         {"limits.client.messages", "not between 1 and"},
		"limits: {client: {messages: 1/s burst 9999999999}}": {"limits.client.messages", "burst"},
		"listen: unix:x\nlimits: {address: {connects: 1/s}}": {"limits.address:", "Unix socket"},
		"limit: {}": {"did you mean limits?"},
	} {
		_, err := printed(t, "config", "--config", write(t, text))
		if err == nil {
			t.Errorf("%s: accepted", text)
			continue
		}
		for _, part := range want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %v\nlacks %s", text, err, part)
			}
		}
	}
}

// Whatever stands in the file, a rate that is taken is printed as one that is read alike.
func FuzzRate(f *testing.F) {
	for _, text := range []string{"50/s", "1MiB/s burst 4MiB", "600/m", " 1/h  burst 7 ", "0/s", "-1/s", "1/s/s", "9999999999999999999/s", "1 /s", "1/sburst 2"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, bytes := range []bool{false, true} {
			number := parseNumber
			if bytes {
				number = parseSize
			}
			r, err := parseRate(text, "1/s", number)
			if err != nil {
				continue
			}
			if r.N <= 0 || r.Burst < 0 || r.Per < time.Second || r.Per > time.Hour {
				t.Fatalf("%q is %+v", text, r)
			}
			if r.Burst == 0 {
				r.Burst = r.N
			}
			again, err := parseRate(limitKey{rate: &r, bytes: bytes}.text(), "1/s", number)
			if err != nil || again != r {
				t.Fatalf("%q is %+v, and then %+v, %v", text, r, again, err)
			}
		}
	})
}
