package api

import (
	"errors"

	"example.com/hubbub/internal/protocol"
)

// Reloaded is what POST /reload says: the names of the settings that have changed, and of those that can't at run time and
// were kept.
type Reloaded struct {
	Changed []string `json:"changed"`
	Kept    []string `json:"kept"`
}

// ErrNoReload is why there is nothing to read again.
var ErrNoReload = errors.New("this server reads its settings from nowhere: its program has to give it others (in Go Server.Reload)")

// reload waits for the server to have read its settings and to go by them. Where one of them is wrong nothing changes.
func (a *API) reload(c *call) ([]byte, *problem) {
	done, err := a.Renew(c.r.Context())
	switch {
	case errors.Is(err, ErrNoReload):
		return nil, fault(protocol.Unavailable, err.Error())
	case err != nil:
		return nil, bad("nothing has changed: %v", err)
	}
	if done.Changed == nil {
		done.Changed = []string{}
	}
	if done.Kept == nil {
		done.Kept = []string{}
	}
	return encode(done)
}
