//go:build !linux

package outbox

import "errors"

func mountSmall(string) error { return errors.New("only on Linux") }
func unmount(string)          {}
