package outbox

import "golang.org/x/sys/unix"

func mountSmall(dir string) error { return unix.Mount("hubbub-test", dir, "tmpfs", 0, "size=256k") }
func unmount(dir string)          { _ = unix.Unmount(dir, unix.MNT_DETACH) }
