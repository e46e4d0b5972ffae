//go:build unix

package datadir

import (
	"os"

	"golang.org/x/sys/unix"
)

// lockFile fails where another process has locked the file. The lock ends with the process, however that ends.
func lockFile(f *os.File) error {
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
}
