package room

import "example.com/hubbub/internal/protocol"

// For who else reads JSON that holds contents and isn't a client's message: the HTTP API's bodies.

// SkipSpace is where b goes on behind white space at i.
func SkipSpace(b []byte, i int) int { return skipSpace(b, i) }

// ScanScalar finds the end of the string, number or literal that begins at b[i]. Where fault isn't empty it says what is
// wrong at end. lone is where the first surrogate is escaped that stands alone, or -1: JSON's grammar allows it, and a
// message may not have it.
func ScanScalar(b []byte, i int) (end, lone int, fault string) {
	end, f := scanScalar(b, i)
	lone = -1
	for f == faultSurrogate {
		if lone < 0 {
			lone = end
		}
		end, _, f = scanString(b, end+len(`\ud800`)-1) // the last digit stands for the opening quote
	}
	return end, lone, faultTexts[f]
}

// Unquote is the text of a string with its quotes that ScanScalar has accepted, and found nothing alone in.
func Unquote(raw []byte) string {
	raw = raw[1 : len(raw)-1]
	for _, c := range raw {
		if c == '\\' {
			return string(appendUnescaped(make([]byte, 0, len(raw)), raw))
		}
	}
	return string(raw)
}

// AppendMessages appends a page of a history as a list, each message as in the answer to `history`.
func AppendMessages(dst []byte, page []*protocol.Message) []byte {
	dst = append(dst, '[')
	for i, m := range page {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendText(dst, `{"from":`, m.From)
		dst = append(append(dst, `,"content":`...), m.Content...)
		dst = appendMessageTail(dst, m)
	}
	return append(dst, ']')
}

// AppendMembers appends who is in a room as a list, each as in the answer to `presence`.
func AppendMembers(dst []byte, members []protocol.Member) []byte {
	dst = append(dst, '[')
	for i, m := range members {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendText(dst, `{"client_id":`, m.ClientID)
		dst = appendUser(dst, m.User)
		if m.Data != nil {
			dst = append(append(dst, `,"data":`...), m.Data...)
		}
		dst = append(dst, '}')
	}
	return append(dst, ']')
}
