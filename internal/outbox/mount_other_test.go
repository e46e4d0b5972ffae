//go:build !linux

package outbox

import "errors"

func mountSmall(string) error { return errors.ErrUnsupported }
func unmount(string)          {}
