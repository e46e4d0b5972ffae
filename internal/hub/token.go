package hub

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash"
	"sync"
	"time"

	"example.com/hubbub/broker"
)

// Resumption is a token that Resume has found good: whose session it is.
type Resumption struct {
	ID   ID
	User string // of that session; "" as long as nobody knows
	gen  uint32

	// Where the hub has a cluster, of a session that isn't here: Admit asks for it (claims.go).
	elsewhere bool
	node      broker.NodeID   // that gave the token out
	owner     [ownerSize]byte // ownerOf its user
}

// A token is a version; the session's id, the generation and when it ends; where there are other nodes, which would have to
// know it, the node that gave it out and ownerOf; and the signature.
const (
	tokenAlone = 1
	tokenNodes = 2

	tokenSize = 1 + 16 + 4 + 8
	ownerSize = 16
	nodesSize = tokenSize + len(broker.NodeID{}) + ownerSize
)

// token is what resumes the session.
func (h *Hub) token(id ID, gen uint32, user string) string {
	b := make([]byte, 0, nodesSize+16)
	b = append(b, tokenAlone)
	b = append(b, id[:]...)
	b = binary.BigEndian.AppendUint32(b, gen)
	b = binary.BigEndian.AppendUint64(b, uint64(time.Now().Add(tokenLife).Unix()))
	if c := h.cluster; c != nil {
		b[0] = tokenNodes
		b = append(b, c.id[:]...)
		owner := ownerOf(id, user)
		b = append(b, owner[:]...)
	}
	return base64.RawURLEncoding.EncodeToString(h.sign(b))
}

// ownerOf tells a session's user from others, where the session itself can't be asked any more.
func ownerOf(id ID, user string) (o [ownerSize]byte) {
	sum := sha256.Sum256(append(id[:], user...))
	copy(o[:], sum[:])
	return o
}

// signer signs with one key, again and again: to prepare for a key costs more than to sign.
type signer struct {
	key [32]byte
	mac hash.Hash
	sum [sha256.Size]byte
}

// signers are those that nobody uses just now.
var signers = sync.Pool{New: func() any { return new(signer) }}

// sign appends the half of an HMAC-SHA256 (RFC 2104 5 allows to truncate it so).
func (h *Hub) sign(b []byte) []byte {
	s := signers.Get().(*signer)
	defer signers.Put(s)
	if key := h.cfg().TokenKey; s.mac == nil || s.key != key {
		s.key, s.mac = key, hmac.New(sha256.New, key[:])
	}
	s.mac.Reset()
	s.mac.Write(b)
	return append(b, s.mac.Sum(s.sum[:0])[:16]...)
}

// Resume reads a token, which a client may have made up. Where the session isn't here, but may be on another node, that is
// all it says. Any goroutine.
func (h *Hub) Resume(token string) (r Resumption, ok bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) < tokenSize+16 || h.cfg().ResumeWindow == 0 {
		return r, false
	}
	signed := b[: len(b)-16 : len(b)-16]
	if !hmac.Equal(h.sign(signed), b) || time.Now().Unix() > int64(binary.BigEndian.Uint64(b[21:])) {
		return r, false
	}
	copy(r.ID[:], b[1:17])
	r.gen = binary.BigEndian.Uint32(b[17:])
	switch {
	case b[0] == tokenAlone && len(signed) == tokenSize:
		_, ok = h.wanted(&r)
		return r, ok
	case b[0] != tokenNodes || len(signed) != nodesSize:
		return r, false
	}
	copy(r.node[:], b[tokenSize:])
	copy(r.owner[:], b[tokenSize+len(r.node):])
	here, ok := h.wanted(&r)
	if c := h.cluster; c != nil && !here {
		_, moved := h.whereTo(r.ID)
		r.elsewhere = moved || r.node != c.id
		ok = r.elsewhere
	}
	return r, ok
}

// Elsewhere says that the session isn't here, so that Admit may take seconds.
func (r *Resumption) Elsewhere() bool { return r.elsewhere }

// wanted looks for the session here, and says whether the token is good for it.
func (h *Hub) wanted(r *Resumption) (here, ok bool) {
	sh := h.clientShard(r.ID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if p := sh.parked[r.ID]; p != nil {
		r.User = p.user
		return true, good(r.gen, p.oldest, p.gen)
	}
	if s := sh.sessions[r.ID]; s != nil {
		r.User = s.name()
		return true, good(r.gen, s.oldest(), s.gen())
	}
	return false, false
}
