package hub

import "example.com/hubbub/broker"

func answerTail(_ *Hub, _ broker.NodeID, _ []byte, reply func(any, error)) {
	reply(nil, errUnknownCall)
}
