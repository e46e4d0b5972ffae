package hubbub_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/broker/nats"
	"example.com/hubbub/internal/rawtest"
)

// span is what a setting may be, both ends included.
type span struct {
	name        string
	least, most int64
	set         func(c *hubbub.Config, v int64)
}

// spans are all settings that are numbers or times. Where zero stands for a default, least is the next one.
func spans() (all []span) {
	add := func(name string, least, most int64, set func(c *hubbub.Config, v int64)) {
		all = append(all, span{name, least, most, set})
	}
	in := func(name string, least time.Duration, most time.Duration, of func(c *hubbub.Config) *time.Duration) {
		add(name, int64(least), int64(most), func(c *hubbub.Config, v int64) { *of(c) = time.Duration(v) })
	}
	number := func(name string, least, most int64, of func(c *hubbub.Config) *int) {
		add(name, least, most, func(c *hubbub.Config, v int64) { *of(c) = int(v) })
	}
	const many, day = 1 << 30, 24 * time.Hour
	number("workers", 1, 1024, func(c *hubbub.Config) *int { return &c.Workers })
	number("max-connections", 1, many, func(c *hubbub.Config) *int { return &c.MaxConnections })
	number("max-connections-per-ip", 0, many, func(c *hubbub.Config) *int { return &c.MaxConnectionsPerIP })
	number("max-rooms-per-client", 1, 1<<20, func(c *hubbub.Config) *int { return &c.MaxRoomsPerClient })
	number("max-hook-calls", 1, many, func(c *hubbub.Config) *int { return &c.MaxHookCalls })
	number("send-queue-bytes", 64<<10, many, func(c *hubbub.Config) *int { return &c.SendQueueBytes })
	add("max-message-bytes", 128, nats.MaxBody, func(c *hubbub.Config, v int64) {
		c.MaxMessageBytes, c.SendQueueBytes, c.DataDir = int(v), many, "/somewhere"
	})
	add("max-buffered-bytes", 64<<10, many, func(c *hubbub.Config, v int64) { c.MaxBufferedBytes = v })
	in("send-queue-age", time.Second, day, func(c *hubbub.Config) *time.Duration { return &c.SendQueueAge })
	in("ping-interval", time.Second, day, func(c *hubbub.Config) *time.Duration { return &c.PingInterval })
	in("pong-timeout", time.Second, day, func(c *hubbub.Config) *time.Duration { return &c.PongTimeout })
	in("dedup-window", time.Second, day, func(c *hubbub.Config) *time.Duration { return &c.DedupWindow })
	in("handshake-timeout", 100*time.Millisecond, day, func(c *hubbub.Config) *time.Duration { return &c.HandshakeTimeout })
	in("hook-timeout", time.Millisecond, day, func(c *hubbub.Config) *time.Duration { return &c.HookTimeout })
	in("shutdown-delay", 0, day, func(c *hubbub.Config) *time.Duration { return &c.ShutdownDelay })
	in("resume-window", time.Second, day, func(c *hubbub.Config) *time.Duration { return &c.ResumeWindow })
	in("jwt-leeway", -time.Hour, time.Minute, func(c *hubbub.Config) *time.Duration { return &c.JWT.Leeway })
	room := func(name string, least, most int64, set func(r *hubbub.RoomPolicy, v int64)) {
		add("rooms[0]."+name, least, most, func(c *hubbub.Config, v int64) {
			c.Rooms = []hubbub.RoomPolicy{{Match: "r", History: &hubbub.History{Messages: 1}}}
			set(&c.Rooms[0], v)
		})
	}
	room("history.messages", 1, 100_000, func(r *hubbub.RoomPolicy, v int64) { r.History.Messages = int(v) })
	room("history.bytes", 1, 256<<20, func(r *hubbub.RoomPolicy, v int64) { r.History.Bytes = int(v) })
	room("history.age", int64(time.Second), int64(day), func(r *hubbub.RoomPolicy, v int64) { r.History.Age = time.Duration(v) })
	room("idle-ttl", 0, int64(day), func(r *hubbub.RoomPolicy, v int64) { ttl := time.Duration(v); r.IdleTTL = &ttl })
	add("rooms", 0, 1000, func(c *hubbub.Config, v int64) {
		for i := range max(0, v) {
			c.Rooms = append(c.Rooms, hubbub.RoomPolicy{Match: fmt.Sprint("r", i)})
		}
	})
	number("limits.user.connections", 0, many, func(c *hubbub.Config) *int { return &c.Limits.User.Connections })
	rate := func(least, most int64, set func(r *hubbub.Rate, v int64)) {
		add("limits.client.joins", least, most, func(c *hubbub.Config, v int64) {
			c.Limits.Client.Joins = hubbub.Rate{N: 1, Per: time.Second, Burst: 1}
			set(&c.Limits.Client.Joins, v)
		})
	}
	rate(1, many, func(r *hubbub.Rate, v int64) { *r = hubbub.Rate{N: int(v)} })
	rate(int64(time.Millisecond), int64(time.Hour), func(r *hubbub.Rate, v int64) { r.Per = time.Duration(v) })
	rate(1, many, func(r *hubbub.Rate, v int64) { r.Burst = int(v) })
	add("limits.client.bytes", 64<<10, many, func(c *hubbub.Config, v int64) {
		c.Limits.Client.Bytes = hubbub.Rate{N: 1, Per: time.Second, Burst: int(v)}
	})
	add("node-name", 0, 128, func(c *hubbub.Config, v int64) { c.NodeName = strings.Repeat("n", int(max(0, v))) })
	return all
}

// Each setting takes both ends of what it may be, and nothing beyond them; the error names it.
func TestTheEndsOfEverySetting(t *testing.T) {
	// These know no such thing as less or more, round up, or have a meaning of their own for it.
	open := map[string]bool{
		"rooms -1": true, "node-name -1": true, "max-buffered-bytes 1073741825": true, "rooms[0].history.age 999999999": true,
		fmt.Sprint("jwt-leeway ", int64(-time.Hour)-1): true,
	}
	for _, s := range spans() {
		for v, fine := range map[int64]bool{s.least: true, s.most: true, s.least - 1: false, s.most + 1: false} {
			var c hubbub.Config
			s.set(&c, v)
			err := c.Validate()
			if fine = fine || v == 0 || open[fmt.Sprint(s.name, " ", v)]; (err == nil) != fine || err != nil && !strings.Contains(err.Error(), s.name) {
				t.Errorf("%s %d: %v", s.name, v, err)
			}
		}
	}
	for _, c := range []struct {
		says string
		cfg  hubbub.Config
	}{
		{`handler "x": nil`, hubbub.Config{Handlers: map[string]hubbub.Handler{"x": nil}}},
		{`handler ""`, hubbub.Config{Handlers: map[string]hubbub.Handler{"": func(context.Context, *hubbub.Message) (any, error) { return nil, nil }}}},
		{`subprotocols "a": stands there twice`, hubbub.Config{Subprotocols: []string{"a", "b", "a"}}},
		{"limits.client.joins", hubbub.Config{Limits: hubbub.Limits{Client: hubbub.ClientLimits{Joins: hubbub.Rate{N: 1, Per: time.Millisecond + 1}}}}},
	} {
		if err := c.cfg.Validate(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v, want %s", err, c.says)
		}
	}
}

// What a call may be given, to the last byte: what is beyond is named, and what isn't gets as far as the server.
func TestTheEndsOfWhatACallIsGiven(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{})
	ctx := t.Context()
	const nobody = "00000000-0000-4000-8000-000000000000"
	disconnects := func(code int, reason string) error { return s.Disconnect(ctx, nobody, code, reason) }
	for name, c := range map[string]struct {
		err  error
		fine bool
	}{
		"code 3999":          {disconnects(3999, ""), false},
		"code 4000":          {disconnects(4000, ""), true},
		"code 4999":          {disconnects(4999, ""), true},
		"code 5000":          {disconnects(5000, ""), false},
		"reason of 123":      {disconnects(0, strings.Repeat("x", 123)), true},
		"reason of 124":      {disconnects(0, strings.Repeat("x", 124)), false},
		"reason, no UTF-8":   {disconnects(0, "\xff"), false},
		"the user's, 5000":   {s.DisconnectUser(ctx, "u", 5000, ""), false},
		"the user's, 4999":   {s.DisconnectUser(ctx, "u", 4999, ""), true},
		"Key of 255":         {publishes(s, hubbub.Publication{Room: "r", Key: strings.Repeat("k", 255)}), true},
		"Key of 256":         {publishes(s, hubbub.Publication{Room: "r", Key: strings.Repeat("k", 256)}), false},
		"PublishID of 64":    {publishes(s, hubbub.Publication{Room: "r", PublishID: strings.Repeat("k", 64)}), true},
		"PublishID of 65":    {publishes(s, hubbub.Publication{Room: "r", PublishID: strings.Repeat("k", 65)}), false},
		"From of 64":         {publishes(s, hubbub.Publication{Room: "r", From: strings.Repeat("k", 64)}), true},
		"From of 65":         {publishes(s, hubbub.Publication{Room: "r", From: strings.Repeat("k", 65)}), false},
		"Key to a user":      {publishes(s, hubbub.Publication{User: "u", Key: "k"}), false},
		"a user":             {publishes(s, hubbub.Publication{User: "u"}), true},
		"Since and Before":   {reads(s, hubbub.HistoryQuery{Since: &hubbub.Position{}, Before: &hubbub.Position{}}), false},
		"a page of 1000":     {reads(s, hubbub.HistoryQuery{Limit: 1000}), true},
		"a page of 1001":     {reads(s, hubbub.HistoryQuery{Limit: 1001}), false},
		"a page of -1":       {reads(s, hubbub.HistoryQuery{Limit: -1}), false},
		"a tail of two":      {listens(s, hubbub.TailOf{Room: "r", User: "u"}), false},
		"a tail of one":      {listens(s, hubbub.TailOf{Room: "r"}), true},
		"a tail of a name":   {listens(s, hubbub.TailOf{User: "\n"}), false},
		"a tail of a client": {listens(s, hubbub.TailOf{Client: "c"}), false},
	} {
		if fine := c.err == nil || errors.Is(c.err, hubbub.ErrUnknownClient) || errors.Is(c.err, hubbub.ErrUnknownUser); fine != c.fine {
			t.Errorf("%s: %v", name, c.err)
		}
	}
}

func publishes(s *rawtest.Server, p hubbub.Publication) error {
	p.Content = 1
	_, err := s.Publish(context.Background(), p)
	return err
}

func reads(s *rawtest.Server, q hubbub.HistoryQuery) error {
	_, err := s.History(context.Background(), "r", q)
	return err
}

func listens(s *rawtest.Server, of hubbub.TailOf) error {
	tail, err := s.Tail(of)
	if err == nil {
		tail.Close()
	}
	return err
}

// An identity that the application gives has bounds, too; and is the server's from then on, whatever becomes of what it
// was made of.
func TestTheEndsOfAnIdentity(t *testing.T) {
	rooms := []string{"a", "b"}
	var of atomic.Pointer[hubbub.Identity]
	s := rawtest.Start(t, hubbub.Config{MaxRoomsPerClient: 2, Authenticate: func(context.Context, *hubbub.Credentials) (*hubbub.Identity, error) { return of.Load(), nil }})
	data := func(n int) []byte { return []byte(`"` + strings.Repeat("x", n-2) + `"`) }
	for name, c := range map[string]struct {
		who    hubbub.Identity
		status int
	}{
		"two rooms":         {hubbub.Identity{User: "u", Rooms: rooms}, 101},
		"three rooms":       {hubbub.Identity{User: "u", Rooms: []string{"a", "b", "c"}}, 503},
		"data of 4096":      {hubbub.Identity{User: "u", Data: data(4096)}, 101},
		"data of 4097":      {hubbub.Identity{User: "u", Data: data(4097)}, 503},
		"data that is none": {hubbub.Identity{User: "u", Data: []byte("{")}, 503},
	} {
		of.Store(&c.who)
		if r, _ := knock(t, s, "GET", "/ws", nil); r.StatusCode != c.status && !(c.status == 503 && r.StatusCode == 401) {
			t.Errorf("%s: %d", name, r.StatusCode)
		}
	}
	of.Store(&hubbub.Identity{User: "u", Rooms: rooms})
	m, _ := letInAs(t, s, "u", "/ws", nil)
	rooms[0], rooms[1] = "other", "another"
	d, err := s.Client(t.Context(), m.id)
	if err != nil || fmt.Sprint(d.Rooms) != "[a b]" {
		t.Errorf("it is in %v: %v", d.Rooms, err)
	}
}
