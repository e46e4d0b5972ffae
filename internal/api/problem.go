package api

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"

	"example.com/hubbub/internal/hub"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/protocol/room"
)

// problem is why a call, or a part of it, was not done. Immutable.
type problem struct {
	status int
	code   string
	retry  bool
	detail string
}

// The codes that the protocol's table hasn't got.
const (
	unauthorized = "unauthorized"
	apiOff       = "api_off"
	notFound     = "not_found"
	tooLargeCode = "too_large"
)

// statuses are those of the protocol's codes.
var statuses = map[protocol.Code]int{
	protocol.BadJSON:       http.StatusBadRequest,
	protocol.BadMessage:    http.StatusBadRequest,
	protocol.UnknownType:   http.StatusBadRequest,
	protocol.BadRoom:       http.StatusBadRequest,
	protocol.TooDeep:       http.StatusBadRequest,
	protocol.BinaryFrame:   http.StatusBadRequest,
	protocol.BadPosition:   http.StatusBadRequest,
	protocol.UnknownClient: http.StatusNotFound,
	protocol.NotMember:     http.StatusNotFound,
	protocol.Forbidden:     http.StatusForbidden,
	protocol.RateLimited:   http.StatusTooManyRequests,
	protocol.LimitReached:  http.StatusTooManyRequests,
	protocol.Overloaded:    http.StatusTooManyRequests,
	protocol.Unavailable:   http.StatusServiceUnavailable,
	protocol.Timeout:       http.StatusGatewayTimeout,
	protocol.Internal:      http.StatusInternalServerError,
}

func fault(code protocol.Code, detail string) *problem {
	return &problem{statuses[code], code.String(), code.Retry(), detail}
}

// bad is a fault of the call's own form.
func bad(format string, args ...any) *problem {
	return fault(protocol.BadMessage, fmt.Sprintf(format, args...))
}

// tooMuch is what isn't let in beside all that goes on already.
func tooMuch(detail string) *problem {
	return &problem{http.StatusServiceUnavailable, protocol.Overloaded.String(), true, detail}
}

func tooLarge(detail string) *problem {
	return &problem{http.StatusRequestEntityTooLarge, tooLargeCode, false, detail}
}

func nothing(detail string) *problem {
	return &problem{http.StatusNotFound, notFound, false, detail}
}

// problemOf is what an error of the hub's is for the backend.
func problemOf(err error) *problem {
	var told *protocol.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &told):
		return fault(told.Code, told.Message)
	case errors.Is(err, hub.ErrUnknownClient):
		return fault(protocol.UnknownClient, "client: no such client")
	case errors.Is(err, hub.ErrUnknownUser):
		return nothing("user: no client of this user is here")
	case errors.Is(err, hub.ErrNotMember):
		return fault(protocol.NotMember, "client: it is not in the room")
	case errors.Is(err, hub.ErrNoHistory):
		return fault(protocol.Forbidden, "the room's policy keeps no history")
	case errors.Is(err, hub.ErrNoPresence):
		return fault(protocol.Forbidden, "the room's policy doesn't tell who is in it")
	case errors.Is(err, hub.ErrNoPosition):
		return fault(protocol.BadPosition, "the room has no such position")
	case errors.Is(err, hub.ErrOverloaded):
		return fault(protocol.Overloaded, "too much waits already; nothing was done")
	case errors.Is(err, hub.ErrStopped):
		return fault(protocol.Unavailable, "the server is stopping; nothing was done")
	case errors.Is(err, hub.ErrLimitReached):
		return fault(protocol.LimitReached, "client: it is in as many rooms as it may be (--max-rooms-per-client)")
	case errors.Is(err, hub.ErrTooManyTails):
		return fault(protocol.LimitReached, "too many tails are open already; close one first")
	case errors.Is(err, hub.ErrUnavailable):
		return fault(protocol.Unavailable, "the room's log, or another node, can't be reached; nothing was done")
	case errors.Is(err, hub.ErrTimeout):
		return fault(protocol.Timeout, "the room's log, or another node, didn't answer in time: it may have been done; what is published with the same publish_id is done once")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return fault(protocol.Timeout, "it was not done in time, and will not be")
	}
	return fault(protocol.Internal, err.Error())
}

// appendError appends what stands in a result of a part of a call.
func (p *problem) appendError(dst []byte) []byte {
	dst = append(dst, `{"error":{"code":"`...)
	dst = append(append(dst, p.code...), `","message":`...)
	dst = room.AppendString(dst, p.detail)
	return append(strconv.AppendBool(append(dst, `,"retry":`...), p.retry), "}}"...)
}

// appendBody appends the body of RFC 9457.
func (p *problem) appendBody(dst []byte) []byte {
	dst = append(dst, `{"type":"about:blank","title":`...)
	dst = room.AppendString(dst, http.StatusText(p.status))
	dst = strconv.AppendInt(append(dst, `,"status":`...), int64(p.status), 10)
	dst = append(append(append(dst, `,"code":"`...), p.code...), `","retry":`...)
	dst = strconv.AppendBool(dst, p.retry)
	return append(room.AppendString(append(dst, `,"detail":`...), p.detail), "}\n"...)
}

// retryAfter is spread, or all would come back at once.
func retryAfter() string { return strconv.Itoa(1 + rand.IntN(5)) }
