package hub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/hubbub/broker/brokertest"
)

func newTail(t testing.TB, h *Hub, of TailOf) *Tail {
	tail, err := h.Tail(of)
	must(t, err)
	t.Cleanup(tail.Close)
	return tail
}

// hears waits until so many items have come, and gives each as a text.
func (t *Tail) hears(tb testing.TB, n int) (texts []string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 3*time.Minute)
	defer cancel()
	for len(texts) < n {
		items, lost, err := t.Next(ctx)
		if err != nil || lost > 0 {
			tb.Fatalf("%v, and %d are left out, after %q", err, lost, texts)
		}
		for _, i := range items {
			text := string(i.Kind)
			for _, part := range []string{i.Room, i.Client.User, i.From, string(i.Content)} {
				if part != "" {
					text += " " + part
				}
			}
			if i.Time == 0 || (i.Client.ID == ID{}) != (i.From == Server || i.Kind == TailDeleted) || i.Content != nil && i.Size != len(i.Content) {
				tb.Errorf("%+v", i)
			}
			texts = append(texts, text)
		}
	}
	return texts
}

func (t *Tail) wants(tb testing.TB, want ...string) {
	tb.Helper()
	if got := t.hears(tb, len(want)); !slices.Equal(got, want) {
		tb.Errorf("heard %q, want %q", got, want)
	}
}

// Who listens to a room hears it from its beginning on: who comes, what is said, by whom, and what is taken back.
func TestATailOfARoom(t *testing.T) {
	h, l := newHubOf(t, 1, resumable)
	tail, silent := newTail(t, h, TailOf{Room: "r", Content: true}), newTail(t, h, TailOf{Room: "r"})
	a := newUser(t, h, l, "ann")
	for _, room := range []string{"r", "other"} {
		a.say(`{"msg_type":"join_room","room":%q}`, room)
		a.say(`{"msg_type":"room_message","room":%q,"content":1}`, room)
		a.sync()
		publish(t, h, room, `2`)
		must(t, h.DeleteMessage(t.Context(), room, "", 1))
		must(t, h.DeleteHistory(t.Context(), room))
		must(t, h.Remove(t.Context(), room, idOf(a)))
		publish(t, h, room, `3`)
	}
	tail.wants(t, "joined r ann", "room_message r ann "+a.id+" 1", "room_message r server 2", "deleted r", "deleted r", "left r ann", "room_message r server 3")
	silent.wants(t, "joined r ann", "room_message r ann "+a.id, "room_message r server", "deleted r", "deleted r", "left r ann", "room_message r server")
}

// A room whose log lies elsewhere is heard as well, once each, whether anybody here has it open or not.
func TestATailOfARoomThatLiesElsewhere(t *testing.T) {
	h, l := newHubOf(t, 1, func(c *Config) { c.Broker = brokertest.NewMemory().Broker() })
	tail := newTail(t, h, TailOf{Room: "r", Content: true})
	publish(t, h, "r", `1`)
	a := newUser(t, h, l, "ann")
	ofAnn := newTail(t, h, TailOf{User: "ann", Content: true})
	a.say(`{"msg_type":"room_message","room":"r","content":2,"id":1}`)
	a.answer(1.0, func(map[string]any) {})
	ofAnn.wants(t, "room_message r ann "+a.id+" 2")
	a.say(`{"msg_type":"join_room","room":"r","id":2}`)
	a.answer(2.0, func(map[string]any) {})
	publish(t, h, "r", `3`)
	tail.wants(t, "room_message r server 1", "room_message r ann "+a.id+" 2", "joined r ann", "room_message r server 3")
}

// Also what goes nowhere is heard, in a room without history that nobody is in.
func TestATailHearsWhatGoesNowhere(t *testing.T) {
	h, l := newHubOf(t, 1, slowRooms)
	tail := newTail(t, h, TailOf{Room: "plain", Content: true})
	publish(t, h, "plain", `1`)
	a := newClient(t, h, l)
	a.say(`{"msg_type":"room_message","room":"plain","content":2}`)
	tail.wants(t, "room_message plain server 1", "room_message plain "+a.id+" 2")
}

// Who listens to a client or a user hears what it sends, what is sent to it alone, where it goes, and that it comes and
// goes; a resume is neither.
func TestATailOfAClientAndOfAUser(t *testing.T) {
	h, l := newHubOf(t, 1, resumable)
	user := newTail(t, h, TailOf{User: "ann", Content: true})
	a, b := newUser(t, h, l, "ann"), newUser(t, h, l, "bob")
	client := newTail(t, h, TailOf{Client: idOf(a), Content: true})
	a.say(`{"msg_type":"join_room","room":"r"}`)
	b.say(`{"msg_type":"join_room","room":"r"}`)
	a.say(`{"msg_type":"room_message","room":"r","content":1}`)
	a.say(`{"msg_type":"chat","content":2}`)
	a.say(`{"msg_type":"direct_message","to":%q,"content":3}`, b.id)
	a.sync()
	b.say(`{"msg_type":"room_message","room":"r","content":"not hers"}`)
	b.say(`{"msg_type":"direct_message","to":%q,"content":4}`, a.id)
	b.sync()
	a.lose(h)
	_, _, err := h.Publish(t.Context(), &Publication{User: "ann", Content: []byte(`5`)})
	must(t, err)
	must(t, h.Disconnect(t.Context(), idOf(a), 4500, ""))
	want := []string{"joined r ann", "room_message r ann " + a.id + " 1", "chat ann " + a.id + " 2", "direct_message ann " + a.id + " 3",
		"direct_message bob " + b.id + " 4", "direct_message server 5", "left r ann", "disconnected ann"}
	client.wants(t, want...)
	user.wants(t, append([]string{"connected ann"}, want...)...)
}

// Who doesn't listen slows nobody: what is too much for it is left out and counted, and then it hears on.
func TestATailLeavesOutWhatIsTooMuch(t *testing.T) {
	h, l := newHub(t, 2)
	tail := newTail(t, h, TailOf{Room: "r", Content: true})
	a := newClient(t, h, l)
	a.say(`{"msg_type":"join_room","room":"r"}`)
	a.sync()
	content := `"` + strings.Repeat("x", 998) + `"`
	const all = 1000
	for range all - 1 { // beside the join
		publish(t, h, "r", content)
		a.next()
	}
	if kept := h.Kept(KeptTails); kept < maxTailBytes/2 || kept > maxTailBytes {
		t.Errorf("%d bytes are kept", kept)
	}
	for _, fault := range h.Audit() {
		t.Error(fault)
	}
	items, lost, err := tail.Next(t.Context())
	if err != nil || lost == 0 || len(items)+int(lost) != all || h.Kept(KeptTails) != 0 {
		t.Errorf("%d items and %d left out of %d, %v; %d bytes are kept", len(items), lost, all, err, h.Kept(KeptTails))
	}
	publish(t, h, "r", `"`+strings.Repeat("x", maxTailBytes)+`"`) // one is heard whatever its size
	publish(t, h, "r", `1`)
	items, lost, err = tail.Next(t.Context())
	if len(items) != 1 || lost != 1 || err != nil {
		t.Errorf("%d items, %d, %v", len(items), lost, err)
	}
	for _, kib := range []int{200, 100, 1} { // the last would have room, but what is left out lies behind what is told
		publish(t, h, "r", `"`+strings.Repeat("x", kib<<10)+`"`)
	}
	items, lost, err = tail.Next(t.Context())
	if len(items) != 1 || lost != 2 || err != nil {
		t.Errorf("%d items, %d, %v", len(items), lost, err)
	}
}

func TestHowManyMayListen(t *testing.T) {
	h, _ := newHub(t, 1)
	for _, of := range []TailOf{{}, {Room: "r", User: "ann"}, {Client: NewID(), Room: "r"}} {
		if _, err := h.Tail(of); err == nil {
			t.Errorf("%+v is taken", of)
		}
	}
	var all []*Tail
	for i := range maxTails {
		all = append(all, newTail(t, h, TailOf{Room: fmt.Sprint(i)}))
	}
	if _, err := h.Tail(TailOf{Room: "r"}); !errors.Is(err, ErrTooManyTails) {
		t.Error(err)
	}
	all[7].Close()
	all[7].Close()
	if _, _, err := all[7].Next(t.Context()); !errors.Is(err, ErrTailClosed) {
		t.Error(err)
	}
	newTail(t, h, TailOf{Room: "r"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := all[8].Next(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for _, tail := range h.tails.list() {
		tail.Close()
	}
	if h.tails.all.Load() != nil {
		t.Error("messages still look for tails")
	}
}

// Who listens as the hub stops is told so, and nobody begins to listen then.
func TestTailsEndWithTheHub(t *testing.T) {
	h, l := newHub(t, 1)
	tail := newTail(t, h, TailOf{Room: "r", Content: true})
	publish(t, h, "r", `1`)
	tail.hears(t, 1)
	publish(t, h, "r", `2`)
	ended := make(chan error)
	other := newTail(t, h, TailOf{Room: "other"})
	go func() {
		_, _, err := other.Next(context.Background())
		ended <- err
	}()
	l.Stop(0)
	l.Wait()
	h.Stop()
	_, _, err := tail.Next(t.Context())
	_, begins := h.Tail(TailOf{Room: "r"})
	if after := <-ended; !errors.Is(err, ErrStopped) || !errors.Is(after, ErrStopped) || !errors.Is(begins, ErrStopped) {
		t.Errorf("%v, %v, %v", err, after, begins)
	}
}

// Many listen, begin and end while much is said; each hears one order without a hole but those that it is told.
func TestManyListenWhileMuchIsSaid(t *testing.T) {
	h, _ := newHub(t, 2)
	stop := make(chan bool)
	var busy, all sync.WaitGroup
	for range 2 {
		busy.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, _, err := h.Publish(t.Context(), &Publication{Room: "r", Content: []byte(`1`)}); err != nil {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	for range 8 {
		all.Go(func() {
			for range 20 {
				tail, err := h.Tail(TailOf{Room: "r"})
				if err != nil {
					t.Error(err)
					return
				}
				next := uint64(0)
				for range 5 {
					items, lost, _ := tail.Next(t.Context())
					for _, i := range items {
						if next != 0 && i.Offset != next {
							t.Errorf("offset %d, want %d", i.Offset, next)
						}
						next = i.Offset + 1
					}
					if lost > 0 {
						next += uint64(lost)
					}
				}
				tail.Close()
			}
		})
	}
	all.Wait()
	close(stop)
	busy.Wait()
	until(t, "all is settled", func() bool { return len(h.Audit()) == 0 })
}
