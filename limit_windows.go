package hubbub

// hasUnread isn't known here.
func hasUnread(uintptr) bool { return true }

// openFileLimit is a guess: Windows bounds handles by memory alone.
func openFileLimit() int { return 1 << 20 }
