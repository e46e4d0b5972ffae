package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	"example.com/hubbub/client"
	"example.com/hubbub/internal/faulty"
)

// driver does for this client what js/test/driver.js does for the other: commands in, reports out.
type driver struct {
	t      *testing.T
	report func(faulty.Report)
	hub    *client.Hub
	ctx    context.Context // of calls, until the end
	cancel context.CancelFunc
	reads  sync.WaitGroup // the ranges over events, which end with the hub
	rest   sync.WaitGroup // calls, members, states
	known  sync.Map       // rooms whose events are ranged over
}

func drive(t *testing.T) faulty.Client {
	return func(report func(faulty.Report)) func(faulty.Command) {
		d := &driver{t: t, report: report}
		d.ctx, d.cancel = context.WithCancel(context.Background())
		return d.do
	}
}

func (d *driver) do(c faulty.Command) {
	switch c.Call {
	case "new":
		d.connect(c)
		return
	case "end":
		d.hub.Close()
		d.reads.Wait()
		d.cancel()
		d.rest.Wait()
		d.report(faulty.Report{"ended": true})
		return
	case "close":
		go d.hub.Close()
		return
	}
	if c.Room != "" {
		d.room(c.Room)
	}
	if c.Call == "members" {
		d.rest.Go(func() { d.members(c.Room) })
		return
	}
	ctx, cancel := d.ctx, context.CancelFunc(func() {})
	if c.TimeoutMS > 0 {
		ctx, cancel = context.WithTimeout(d.ctx, time.Duration(c.TimeoutMS)*time.Millisecond)
	}
	d.call(ctx, cancel, c)
}

func (d *driver) connect(c faulty.Command) {
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	o := client.Options{MinDelay: ms(c.Options.MinDelay), MaxDelay: ms(c.Options.MaxDelay), Timeout: ms(c.Options.Timeout), QueueCalls: c.Options.Queue}
	if tokens := c.Options.Tokens; len(tokens) > 0 {
		n := 0
		o.Token = func(context.Context) (string, error) {
			n++
			return tokens[min(n, len(tokens))-1], nil
		}
	}
	hub, err := client.New(c.URL, o)
	if err != nil {
		d.t.Error(err)
		return
	}
	d.hub = hub
	d.rest.Go(func() {
		for s := range hub.States(context.Background()) {
			d.report(state(s))
		}
	})
	d.reads.Go(func() {
		for e := range hub.Events(context.Background()) {
			if in, is := e.(client.Entered); is {
				d.room(in.Room)
			}
			d.report(event("", e))
		}
	})
}

func state(s client.Status) faulty.Report {
	r := faulty.Report{"state": s.State}
	var closed *client.CloseError
	if errors.As(s.Err, &closed) {
		r["code"], r["reason"] = closed.Code, closed.Reason
	}
	return r
}

// room has a room's events reported.
func (d *driver) room(name string) {
	if _, known := d.known.LoadOrStore(name, true); known {
		return
	}
	room := d.hub.Room(name)
	d.reads.Go(func() {
		for e := range room.Events(context.Background()) {
			if left, is := e.(client.Left); !is || left.Reason != "" {
				d.report(event(name, e))
			}
		}
	})
}

// event is one as a report; of the hub where room is "".
func event(room string, e client.Event) faulty.Report {
	r := faulty.Report{}
	if room != "" {
		r["room"] = room
	}
	switch e := e.(type) {
	case client.Message:
		m := map[string]any{"from": e.From, "content": e.Content}
		if e.Position.Epoch != "" {
			m["epoch"], m["offset"] = e.Position.Epoch, e.Position.Offset
		}
		kind := "message"
		if room == "" && e.Direct {
			kind = "direct"
		} else if room == "" {
			kind = "chat"
		}
		r[kind] = m
	case client.Gap:
		r["gap"] = map[string]any{"count": e.Count, "reason": e.Reason}
	case client.Lost:
		r["lost"] = e.Reason
		if e.Position.Epoch != "" {
			r["at"] = e.Position
		}
	case client.Deleted:
		r["deleted"] = map[string]any{"offset": e.Offset, "to_offset": e.ToOffset}
	case client.Left:
		r["left"] = e.Reason
	case client.Entered:
		r["joined"] = e.Room
	}
	return r
}

func (d *driver) members(room string) {
	for p, err := range d.hub.Room(room).Members(d.ctx) {
		if err != nil {
			return
		}
		ids := []string{}
		for _, m := range p.Members {
			ids = append(ids, m.ClientID+string(m.Data))
		}
		d.report(faulty.Report{"room": room + " members", "members": ids, "count": p.Count})
	}
}

// queued is a context that tells when a call begins to wait: then it stands in the queue.
type queued struct {
	context.Context
	once  sync.Once
	waits chan struct{}
}

func (q *queued) Done() <-chan struct{} {
	q.once.Do(func() { close(q.waits) })
	return q.Context.Done()
}

// call makes a call whose outcome is reported. The next command comes when it is queued, or has failed.
func (d *driver) call(ctx context.Context, cancel context.CancelFunc, c faulty.Command) {
	q := &queued{Context: ctx, waits: make(chan struct{})}
	d.rest.Go(func() {
		defer cancel()
		ok, err := d.ask(q, c)
		q.Done()
		r := faulty.Report{"call": c.As}
		if err == nil {
			r["ok"] = ok
		} else {
			r["error"] = code(err)
			var no *client.Error
			if errors.As(err, &no) {
				r["retry"], r["retry_after_ms"] = no.Retry, no.RetryAfter.Milliseconds()
			}
		}
		d.report(r)
	})
	<-q.waits
}

func (d *driver) ask(ctx context.Context, c faulty.Command) (ok any, err error) {
	room := d.hub.Room(c.Room)
	switch c.Call {
	case "join":
		o := client.JoinOptions{}
		if c.Data != nil {
			o.Data = c.Data
		}
		if c.Since != nil {
			o.Since = &client.Position{Epoch: c.Since.Epoch, Offset: c.Since.Offset}
		}
		return map[string]any{}, room.JoinWith(ctx, o)
	case "leave":
		return map[string]any{}, room.Leave(ctx)
	case "publish":
		at, err := room.Publish(ctx, c.Content, client.PublishOptions{Key: c.Key, ID: c.PublishID})
		ok := map[string]any{}
		if at.Epoch != "" {
			ok["epoch"], ok["offset"] = at.Epoch, at.Offset
		}
		return ok, err
	case "history":
		page, err := room.History(ctx, client.HistoryOptions{Limit: c.Limit})
		contents := []json.RawMessage{}
		for _, m := range page.Messages {
			contents = append(contents, m.Content)
		}
		return map[string]any{"contents": contents, "more": page.More}, err
	case "presence":
		p, err := room.Presence(ctx)
		return map[string]any{"count": p.Count}, err
	case "chat":
		return map[string]any{}, d.hub.Chat(ctx, c.Content)
	case "send":
		return map[string]any{}, d.hub.Send(ctx, c.To, c.Content)
	case "request":
		content, err := d.hub.Request(ctx, c.Method, c.Content)
		return map[string]any{"content": content}, err
	}
	return nil, errors.New("no such call: " + c.Call)
}

// code is an error by the words that both clients share.
func code(err error) string {
	var no *client.Error
	switch {
	case errors.Is(err, client.ErrUnknown):
		return "unknown"
	case errors.Is(err, client.ErrQueueFull):
		return "queue_full"
	case errors.Is(err, client.ErrTooLarge):
		return "too_large"
	case errors.As(err, &no):
		return no.Code
	case errors.Is(err, client.ErrClosed):
		return "closed"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	}
	return err.Error()
}
