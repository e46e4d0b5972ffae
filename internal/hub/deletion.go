package hub

import (
	"context"
	"errors"
)

var errNotYet = errors.New("not in this version")

// DeleteHistory forgets what a room has kept up to now: it is in no page and no recovery any more. The room's epoch and
// its position stay, and its members are told in their order of its messages. ErrNoHistory, ErrOverloaded, ErrStopped,
// or ctx's, and then nothing was done. Any goroutine.
func (h *Hub) DeleteHistory(ctx context.Context, room string) error {
	return errNotYet
}

// DeleteMessage is DeleteHistory for the message with that offset alone; epoch is that of the room, "" for whichever it
// has. ErrNoPosition where the room keeps no such message.
func (h *Hub) DeleteMessage(ctx context.Context, room, epoch string, offset uint64) error {
	return errNotYet
}
