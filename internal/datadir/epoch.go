package datadir

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
)

const (
	epochFile = "epoch"
	stopped   = "stopped"
)

// Epoch is a mark for all epochs of what the folder keeps by some rules. It stays from process to process, and is another
// one where it can't be proved that what is there goes on from what clients have seen: the rules were others, so that a
// log may come back which rooms were in before; the system went down before the last process had ended, and the disk may
// not have all that was acknowledged; or the file was removed. It reads and writes files.
func (d *Dir) Epoch(rules string) (mark string, err error) {
	sum := sha256.Sum256([]byte(rules))
	rules = hex.EncodeToString(sum[:8])
	b, _ := os.ReadFile(filepath.Join(d.path, epochFile))
	was := strings.Fields(string(b))
	kept := len(was) == 3 && was[1] == rules && (was[2] == stopped || was[2] == boot())
	if kept {
		mark = was[0]
	} else {
		mark = rand.Text()[:6]
	}
	d.epoch = mark + " " + rules + " "
	if err = d.noteEpoch(boot()); kept {
		err = nil // a full disk is no reason not to begin
	}
	return mark, err
}

// Ended notes that all of what Epoch was asked for is on the disk.
func (d *Dir) Ended() {
	if d != nil && d.epoch != "" {
		_ = d.noteEpoch(stopped) // or the next Epoch is another one, if the system goes down before
	}
}

// clusterFile is for a folder that is one of several which keep the same.
const clusterFile = "cluster"

// Cluster is the mark that all of them had when this folder was noted to be one of them. doubt says that the system went down
// since, so that the folder may lack the end of what was acknowledged; Epoch was called before.
func (d *Dir) Cluster() (mark string, doubt bool) {
	b, _ := os.ReadFile(filepath.Join(d.path, clusterFile))
	own, _, _ := strings.Cut(d.epoch, " ")
	was := strings.Fields(string(b))
	if len(was) != 2 {
		return "", false
	}
	return was[1], was[0] != own
}

// NoteCluster notes the mark that all have now.
func (d *Dir) NoteCluster(mark string) error {
	own, _, _ := strings.Cut(d.epoch, " ")
	path, text := filepath.Join(d.path, clusterFile), own+" "+mark+"\n"
	if b, err := os.ReadFile(path); err == nil && string(b) == text {
		return nil
	}
	return d.write(path, text)
}

func (d *Dir) noteEpoch(state string) error {
	path, text := filepath.Join(d.path, epochFile), d.epoch+state+"\n"
	if b, err := os.ReadFile(path); err == nil && string(b) == text {
		return nil
	}
	return d.write(path, text)
}

// boot is a text that the system has anew each time that it starts; the same one ever, where it tells none.
func boot() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if id := strings.TrimSpace(string(b)); err == nil && id != "" {
		return id
	}
	return "running"
}
