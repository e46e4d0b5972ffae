package api

import (
	"bytes"
	"encoding/json"
	"testing"
)

var benchBody = []byte(`{"room":"bench","content":{"text":"what an application's backend says, about a hundred bytes of it"}}`)

func BenchmarkReadPublish(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, no := readPublish(benchBody, 64<<10); no != nil {
			b.Fatal(no)
		}
	}
}

// BenchmarkReadPublishStandard is what it is compared with; it doesn't see a field that stands twice, and takes names
// in any letter case.
func BenchmarkReadPublishStandard(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		var p struct {
			Room    string          `json:"room"`
			Content json.RawMessage `json:"content"`
		}
		d := json.NewDecoder(bytes.NewReader(benchBody))
		d.DisallowUnknownFields()
		if err := d.Decode(&p); err != nil {
			b.Fatal(err)
		}
	}
}
