//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "the drills need Linux: they count on epoll, namespaces and /proc")
	os.Exit(1)
}
