//go:build !linux

package loop

import "errors"

// Supports says why the system can't read and write connections in a way, or nil.
func Supports(kind IO) error {
	if kind == Epoll || kind == Uring {
		return errors.New("only on Linux")
	}
	return nil
}

func newSender(kind IO) (sender, error) { return nil, nil }
