package datadir

import (
	"os"

	"golang.org/x/sys/windows"
)

// lockFile fails where another process has locked the file. The lock ends with the process, however that ends. It lies
// behind the file's end, so that others may read whose it is.
func lockFile(f *os.File) error {
	const farBehind = 1 << 20
	return windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &windows.Overlapped{Offset: farBehind})
}
