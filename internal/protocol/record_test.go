package protocol

import (
	"reflect"
	"testing"
)

func TestRecordsComeBackAsTheyWent(t *testing.T) {
	for _, m := range []*Message{
		{Content: []byte(`1`)},
		{From: "a", User: "ann", Except: "b", Key: []byte("k"), Time: 1234567890123, Content: []byte(`{"a":1}`)},
		{Key: []byte{}, Time: -1, Content: []byte(`"x"`)},
		{From: "server", Content: []byte(`1`), Trace: new("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")},
	} {
		m.Kind, m.Room = RoomMessage, "r"
		got, from, to, err := ReadRecord("r", m.AppendRecord(nil))
		if err != nil || from != 0 || to != 0 || !reflect.DeepEqual(got, m) {
			t.Errorf("%+v came back as %+v (%d, %d, %v)", m, got, from, to, err)
		}
	}
	for _, d := range [][2]uint64{{1, 0}, {0, 1 << 52}} {
		m, from, to, err := ReadRecord("r", AppendDeletion(nil, d[0], d[1]))
		if m != nil || from != d[0] || to != d[1] || err != nil {
			t.Errorf("%v came back as %v %d %d %v", d, m, from, to, err)
		}
	}
	for _, bad := range []string{"", "\x00", "\x01", "\x02", "\x02\x00\x00", "\x02\x01\x01", "\x02\x01\x00\x00", "\x03\x00", "\x01\x00\x00\x00\x00\x00", "\x01\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"} {
		if m, _, _, err := ReadRecord("r", []byte(bad)); err == nil {
			t.Errorf("%q is %+v", bad, m)
		}
	}
}

func FuzzReadRecord(f *testing.F) {
	f.Add((&Message{From: "a", User: "ann", Except: "b", Key: []byte("k"), Time: 5, Content: []byte(`1`)}).AppendRecord(nil))
	f.Add(AppendDeletion(nil, 7, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, from, to, err := ReadRecord("r", b)
		if err != nil {
			return
		}
		var again []byte
		if m != nil {
			again = m.AppendRecord(nil)
		} else {
			again = AppendDeletion(nil, from, to)
		}
		m2, from2, to2, err := ReadRecord("r", again)
		if err != nil || from2 != from || to2 != to || !reflect.DeepEqual(m, m2) {
			t.Errorf("%q is %+v, and %+v when it comes back (%v)", b, m, m2, err)
		}
	})
}
