package hub

import (
	"testing"
	"time"

	"example.com/hubbub/broker"
	"example.com/hubbub/broker/brokertest"
	"example.com/hubbub/internal/protocol"
)

// A batch that comes to a room as the hub stops finds it gone behind its first message; nothing is kept then.
func TestABatchForARoomThatGoes(t *testing.T) {
	h, l := newHubOf(t, 1, func(c *Config) { c.Broker = brokertest.NewMemory().Broker() })
	c := newClient(t, h, l)
	c.say(`{"msg_type":"join_room","room":"r","id":1}`)
	c.answer(1.0, func(map[string]any) {})
	publish(t, h, "r", `1`)
	c.answer(nil, func(map[string]any) {})
	c.say(`{"msg_type":"leave_room","room":"r","id":2}`)
	c.answer(2.0, func(map[string]any) {})
	info, _ := h.roomHere("r")
	record := (&protocol.Message{From: Server, Content: []byte(`2`), Time: time.Now().UnixMilli()}).AppendRecord(nil)
	h.stopOnce.Do(func() { close(h.stop) })
	h.Deliver("r", []broker.Entry{{Offset: info.Position.Offset + 1, Body: record}, {Offset: info.Position.Offset + 2, Body: record}})
	if n := h.allKept(); n != 0 {
		t.Errorf("%d bytes are kept", n)
	}
}
