package api

import (
	"context"
	"errors"
	"time"

	"example.com/hubbub/internal/hub"
	"example.com/hubbub/internal/protocol"
)

// Nodes is what GET /nodes says.
type Nodes struct {
	Nodes  []hub.NodeInfo `json:"nodes"` // the one that was asked first
	Cut    bool           `json:"cut"`   // it can't hear of the others: they are the last that it knew of
	Stores any            `json:"stores,omitempty"`
	Error  string         `json:"stores_error,omitempty"` // why there are no Stores where there should be
}

// ErrUnknownNode and ErrNoRemoval are why a node isn't removed.
var (
	ErrUnknownNode = errors.New("no store of this name belongs to the cluster; GET /nodes has them")
	ErrNoRemoval   = errors.New("not removed")
)

// nodesTime is how long stores are asked.
const nodesTime = 20 * time.Second

func (a *API) nodes(c *call) ([]byte, *problem) {
	ctx, cancel := context.WithTimeout(c.r.Context(), nodesTime)
	defer cancel()
	return encode(a.Nodes(ctx))
}

func (a *API) removeNode(c *call) ([]byte, *problem) {
	ctx, cancel := context.WithTimeout(c.r.Context(), nodesTime)
	defer cancel()
	switch err := a.RemoveNode(ctx, c.args[0]); {
	case errors.Is(err, ErrUnknownNode):
		return nil, nothing("node: " + err.Error())
	case errors.Is(err, ErrNoRemoval):
		return nil, bad("node: %v", err)
	case err != nil:
		return nil, fault(protocol.Unavailable, "node: "+err.Error())
	}
	return nil, nil
}
