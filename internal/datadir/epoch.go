package datadir

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
)

// Epoch is a mark for all epochs of what the folder keeps by some rules. It stays from process to process, and is another
// one where the rules were others, since rooms may then come back to logs that they had left, and where its file, "epoch",
// was removed. It reads and writes files.
func (d *Dir) Epoch(rules string) (mark string, err error) {
	sum := sha256.Sum256([]byte(rules))
	rules = hex.EncodeToString(sum[:8])
	path := filepath.Join(d.path, "epoch")
	b, _ := os.ReadFile(path)
	if was := strings.Fields(string(b)); len(was) == 2 && was[1] == rules {
		return was[0], nil
	}
	mark = rand.Text()[:6]
	return mark, writeFile(path, mark+" "+rules+"\n")
}
