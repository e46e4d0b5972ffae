package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// slowSync is a time for writing 4 KiB to the disk from which on a history on it is slow.
const slowSync = 20 * time.Millisecond

// dataFolder looks at the space of --data-dir, and how long its disk takes.
func dataFolder(ctx context.Context, s *Subject) []Finding {
	if s.DataDir == "" {
		return nil
	}
	const name = "data folder"
	folder := s.DataDir
	for { // it is made by the server where there is none
		if is, err := os.Stat(folder); err == nil && !is.IsDir() {
			return []Finding{fault(name, "--data-dir must be a folder", "%s is a file", folder)}
		} else if err == nil {
			break
		}
		above := filepath.Dir(folder)
		if above == folder {
			return []Finding{fault(name, "mkdir -p "+s.DataDir, "%s isn't there", s.DataDir)}
		}
		folder = above
	}
	var all []Finding
	if bytes, share, inodes, known := free(folder); known {
		left := fmt.Sprintf("%.1f GB, %.0f %% of the disk, are free", float64(bytes)/1e9, 100*share)
		const change = "make room: what is published to rooms with history is refused on a full disk"
		switch {
		case bytes < 100<<20 || inodes < 0.01:
			all = append(all, fault("disk space", change, "%s, and %.0f %% of its files", left, 100*inodes))
		case bytes < 1<<30 || share < 0.05:
			all = append(all, warning("disk space", change, "%s", left))
		default:
			all = append(all, ok("disk space", "%s", left))
		}
	}
	took, err := syncTime(ctx, folder)
	place, change := "", fmt.Sprintf("chown the folder to the server's user: chown -R hubbub %s", s.DataDir)
	if folder != s.DataDir { // the server makes it, if it may
		place = fmt.Sprintf("%s isn't there yet, and the server makes it: in %s ", s.DataDir, folder)
		change = fmt.Sprintf("make it, for the server's user: install -d -o hubbub -m 0700 %s", s.DataDir)
	}
	if of := noWrite(err); of != "" { // whosever the folder is
		change = of
	}
	switch sent := "a file of 4 KiB in " + folder + ", and took it away"; {
	case err != nil:
		all = append(all, fault(name, change, "%snothing can be written: %v", place, err))
	case took > slowSync:
		f := warning(name, "a faster disk, a local one: each publish to a room with history waits for it", "%sa write takes %s to be on the disk", place, took.Round(100*time.Microsecond))
		f.Sent = sent
		all = append(all, f)
	default:
		f := ok(name, "%sa write takes %s to be on the disk", place, took.Round(10*time.Microsecond))
		f.Sent = sent
		all = append(all, f)
	}
	return all
}

// noWrite is what to change where err says that nobody could write, whosever the folder is; else "".
func noWrite(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return "the disk is full: make room, or put --data-dir on a larger one"
	case errors.Is(err, syscall.EDQUOT):
		return "the disk is full as far as the quota goes: make room, or raise the quota"
	case errors.Is(err, syscall.EROFS):
		return "the disk is mounted read-only: mount it for writing, or put --data-dir on another; after an error of the disk the kernel does that by itself, and dmesg says so"
	default:
		return ""
	}
}

// syncTime is the middle one of some writes, each of them forced to the disk.
func syncTime(ctx context.Context, folder string) (middle time.Duration, err error) {
	f, err := os.CreateTemp(folder, ".doctor-*")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var all []time.Duration
	for range 11 {
		begin := time.Now()
		if _, err := f.WriteAt(make([]byte, 4<<10), 0); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		all = append(all, time.Since(begin))
		if ctx.Err() != nil {
			break
		}
	}
	slices.Sort(all)
	return all[len(all)/2], nil
}
