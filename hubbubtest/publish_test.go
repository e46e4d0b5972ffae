package hubbubtest_test

import (
	"context"

	"example.com/hubbub"
)

// publisher is a Server, or the kit's.
type publisher interface {
	Publish(context.Context, hubbub.Publication) (hubbub.Position, error)
}

// publish sends content to a room, broadcast to everyone, and sendTo to one client.
func publish(s publisher, room string, content any) error {
	_, err := s.Publish(context.Background(), hubbub.Publication{Room: room, Content: content})
	return err
}

func broadcast(s publisher, content any) error {
	_, err := s.Publish(context.Background(), hubbub.Publication{Everyone: true, Content: content})
	return err
}

func sendTo(s publisher, client string, content any) error {
	_, err := s.Publish(context.Background(), hubbub.Publication{Client: client, Content: content})
	return err
}
