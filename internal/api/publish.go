package api

import (
	"bytes"
	"cmp"
	"context"
	"strconv"
	"time"

	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/history"
	"example.com/hubbub/internal/hub"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/protocol/room"
)

// waitFor is how long a call waits for clients' workers, a batch for all of them.
const waitFor = 8 * time.Second

func (a *API) publish(c *call) ([]byte, *problem) {
	p, wrong := readPublish(c.body, a.now().MaxMessageBytes)
	if wrong == nil {
		wrong = p.takeIdempotencyKey(c.r.Header["Idempotency-Key"])
	}
	if wrong != nil {
		return nil, wrong
	}
	return a.publishOne(c.r.Context(), c.key, &p, make([]byte, 0, 96))
}

// takeIdempotencyKey takes the header for the publish_id.
func (p *publication) takeIdempotencyKey(sent []string) *problem {
	switch {
	case len(sent) == 0:
		return nil
	case len(sent) > 1:
		return bad("the header Idempotency-Key is there twice")
	case p.room == "" && p.rooms == nil:
		return bad("the header Idempotency-Key goes with room or rooms alone")
	case p.publishID != "" && p.publishID != sent[0]:
		return bad("the header Idempotency-Key isn't what publish_id is")
	}
	p.publishID = sent[0]
	return checkShort(p.publishID, "the header Idempotency-Key", 1, protocol.MaxPublishID)
}

// publishOne publishes to wherever p says, and appends the result. Where there is a problem nothing was done.
func (a *API) publishOne(ctx context.Context, by *auth.APIKey, p *publication, dst []byte) ([]byte, *problem) {
	out := hub.Publication{
		Room: p.room, User: p.user, Everyone: p.everyone, From: cmp.Or(p.from, hub.Server), PublishID: p.publishID, Publisher: by.Name,
		Content: bytes.Clone(p.content), // the body's buffer is used again, and holds more than this
	}
	if p.key != "" {
		out.Key = []byte(p.key)
	}
	if p.exclude != "" {
		out.Exclude, _ = hub.ParseID([]byte(p.exclude)) // its reader has looked
	}
	if p.client != "" {
		id, is := hub.ParseID([]byte(p.client))
		if !is {
			return nil, problemOf(hub.ErrUnknownClient)
		}
		out.Client = id
	}
	if p.rooms != nil {
		return a.publishToRooms(ctx, p.rooms, &out, dst), nil
	}
	at, duplicate, err := a.Hub.Publish(ctx, &out)
	if err != nil {
		return nil, problemOf(err)
	}
	return appendPublished(dst, at, duplicate), nil
}

func (a *API) publishToRooms(ctx context.Context, rooms []string, out *hub.Publication, dst []byte) []byte {
	dst = append(dst, `{"results":[`...)
	for i, name := range rooms {
		if i > 0 {
			dst = append(dst, ',')
		}
		if err := protocol.CheckRoom([]byte(name)); err != nil {
			dst = fault(err.Code, "rooms["+strconv.Itoa(i)+"] can't be used: "+err.Message).appendError(dst)
			continue
		}
		to := *out
		to.Room = name
		at, duplicate, err := a.Hub.Publish(ctx, &to)
		if err != nil {
			dst = problemOf(err).appendError(dst)
			continue
		}
		dst = appendPublished(dst, at, duplicate)
	}
	return append(dst, "]}"...)
}

// appendPublished appends where a message is.
func appendPublished(dst []byte, at history.Position, duplicate bool) []byte {
	dst = append(dst, '{')
	if at.Epoch != "" {
		dst = append(appendPosition(dst, at), ',')
	}
	if duplicate {
		dst = append(dst, `"duplicate":true,`...)
	}
	return endObject(dst)
}

// appendPosition appends a position's fields.
func appendPosition(dst []byte, at history.Position) []byte {
	dst = room.AppendString(append(dst, `"epoch":`...), at.Epoch)
	return strconv.AppendUint(append(dst, `,"offset":`...), at.Offset, 10)
}

// endObject puts a brace in the place of the last comma, if there is one.
func endObject(dst []byte) []byte {
	if last := len(dst) - 1; dst[last] == ',' {
		dst = dst[:last]
	}
	return append(dst, '}')
}

// batch does one call after another. What fails stops none.
func (a *API) batch(c *call) ([]byte, *problem) {
	if len(c.r.Header["Idempotency-Key"]) > 0 {
		return nil, bad("the header Idempotency-Key goes with publish alone: give each publish of a batch its publish_id")
	}
	all, wrong := readBatch(c.body, a.now().MaxMessageBytes)
	if wrong != nil {
		return nil, wrong
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), waitFor)
	defer cancel()
	out := []byte(`{"results":[`)
	for i := range all {
		if i > 0 {
			out = append(out, ',')
		}
		from := len(out)
		result, no := a.operate(ctx, c, &all[i], out)
		if no != nil {
			result = no.appendError(out[:from])
		}
		out = result
	}
	return append(out, "]}"...), nil
}

// operate does one call of a batch, and appends the result.
func (a *API) operate(ctx context.Context, c *call, op *operation, dst []byte) ([]byte, *problem) {
	if op.wrong != nil {
		return nil, op.wrong
	}
	if right := operationRights[op.name]; c.key.Rights&right == 0 {
		return nil, fault(protocol.Forbidden, op.name+" needs a key with the right "+right.String())
	}
	var no *problem
	switch op.name {
	case "publish":
		return a.publishOne(c.r.Context(), c.key, &op.publication, dst)
	case "join":
		no = a.joinRoom(ctx, op.room, op.target)
	case "leave":
		no = a.leaveRoom(ctx, op.room, op.target)
	case "disconnect":
		no = a.disconnect(ctx, op.target, op.user, op.code, op.reason)
	case "delete":
		no = a.deleteMessages(ctx, op.room, op.epoch, op.offset)
	}
	return append(dst, "{}"...), no
}
