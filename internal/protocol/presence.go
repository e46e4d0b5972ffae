package protocol

// Member is one who is in a room.
type Member struct {
	ClientID string
	User     string // "" for none
	Data     []byte // raw JSON, as it came with the join; nil for none
}

// AppendPresence appends the answer to a presence. members is nil where the room only counts them:
// then neither it nor more is told. More says that the room has others beside members.
func AppendPresence(dst []byte, room string, count int, members []Member, more bool, id []byte) []byte {
	dst = appendText(dst, `{"msg_type":"presence","room":`, room)
	dst = appendInt(dst, `,"count":`, int64(count))
	if members != nil {
		dst = appendMemberList(dst, members)
		dst = appendBool(dst, `,"more":`, more)
	}
	return appendEnd(dst, id)
}

// AppendMembers appends word of those who joined a room, or left it; count is of those who are in it now.
func AppendMembers(dst []byte, joined bool, room string, count int, members []Member) []byte {
	before := `{"msg_type":"member_left","room":`
	if joined {
		before = `{"msg_type":"member_joined","room":`
	}
	dst = appendText(dst, before, room)
	dst = appendInt(dst, `,"count":`, int64(count))
	return append(appendMemberList(dst, members), '}')
}

func appendMemberList(dst []byte, members []Member) []byte {
	dst = append(dst, `,"members":[`...)
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
