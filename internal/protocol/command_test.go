package protocol

import (
	"bytes"
	"reflect"
	"testing"
)

// A copy of a command has nothing of the frame that the command lies in.
func TestACopyOfACommandIsItsOwn(t *testing.T) {
	frame := []byte("xxxx")
	commandIn := func(b []byte) *Command {
		at := Position{Epoch: b, Offset: 1}
		return &Command{Type: b, ID: b, Room: b, To: b, Content: b, Key: b, PublishID: b, Token: b, Method: b, Data: b, Since: at, Before: at, Rooms: []RoomPosition{{Room: b, At: at, HasAt: true}}}
	}
	want := commandIn(bytes.Clone(frame))
	got := commandIn(frame).Clone()
	copy(frame, "over")
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the copy has become %+v", got)
	}
}
