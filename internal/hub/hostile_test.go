package hub

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"
	"time"

	"example.com/hubbub/broker"
	"example.com/hubbub/broker/brokertest"
)

// Whatever another node asks or tells, of whatever version it is, each question has an answer and nothing breaks.
func FuzzPeers(f *testing.F) {
	for _, kind := range slices.Sorted(maps.Keys(calls)) {
		for _, text := range []string{``, `null`, `{}`, `[]`, `[{}]`, `{"rooms":["r"],"ids":["AQ=="],"id":"AQ==","limit":-5,"after":"!","clients":["x"]}`, `{"limit":9223372036854775807}`} {
			f.Add(uint8(kind), "r", []byte(text))
		}
	}
	for _, told := range [][]byte{{}, {0}, {1}, {2, 0, 48}, {1, 255, 255, 255, 255, 255}, {2, '{', '}'}, []byte("\x02[{}]"), []byte("\x03{\"e\":[{\"r\":\"r\"}]}"), {255}} {
		f.Add(uint8(255), "r", told)
		f.Add(uint8(255), "", told)
	}
	nodes := nodesOf(f, brokertest.NewMemory(), 2, func(*Config) {})
	nodes[0].member("a user", "r")
	from := nodes[1].inner.ID()
	f.Fuzz(func(t *testing.T, kind uint8, topic string, body []byte) {
		h := nodes[0].h
		h.Heard(topic, from, body)
		h.Missed(topic)
		_, _ = InfoOf(broker.Peer{ID: from, Beat: body})
		_ = decodeAnswer(body, nil, new(NodeInfo))
		answered := make(chan []byte, 2)
		h.Handle(from, append([]byte{kind}, body...), func(answer []byte) { answered <- answer })
		select {
		case a := <-answered:
			if !json.Valid(a) {
				t.Errorf("answer %s", a)
			}
		case <-time.After(7 * time.Second): // servedWithin, and some
			t.Errorf("no answer")
		}
	})
}
