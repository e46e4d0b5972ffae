package hubbub

import (
	"net/http"

	"example.com/hubbub/internal/front"
)

// beyondTurns is said to whom the workers can't take in beside those who are in.
var beyondTurns = refusal{
	status: http.StatusServiceUnavailable, result: upgradeStorm, warn: true,
	detail: "more connect at once than can be let in beside those who are connected",
}

// inTurn takes a place for a connection as reserve does, when it is the upgrade's turn.
func (s *Server) inTurn(set *settings, r *http.Request) (*place, *refusal) {
	if no := s.closedToAll(set); no != nil {
		return nil, no
	}
	if no := takeTurn(r, s.comesBack(r)); no != nil {
		return nil, no
	}
	p, no := s.reserve(set, r)
	if no != nil {
		front.EndTurn(r)
	}
	return p, no
}

// comesBack says whether an upgrade's client has a session. A token that is made up goes before nobody.
func (s *Server) comesBack(r *http.Request) bool {
	_, ok := s.hub.Resume(first(inQuery(r, "resume")))
	return ok
}

// takeTurn waits for the upgrade's turn, as front.TakeTurn does.
func takeTurn(r *http.Request, comesBack bool) *refusal {
	if front.TakeTurn(r, comesBack) {
		return nil
	}
	no := beyondTurns
	no.warn = r.Context().Err() == nil // else its client has gone while it waited
	return &no
}
