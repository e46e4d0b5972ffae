package hubbub

// openFileLimit is a guess: Windows bounds handles by memory alone.
func openFileLimit() int { return 1 << 20 }
