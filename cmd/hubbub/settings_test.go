package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// docs/settings.md has every flag of serve, and no other.
func TestTheTableOfSettings(t *testing.T) {
	page, err := os.ReadFile("../../docs/settings.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented, flags []string
	for line := range strings.Lines(string(page)) {
		if cells := strings.Split(line, "|"); len(cells) > 3 {
			for _, m := range regexp.MustCompile("`--([a-z-]+)`").FindAllStringSubmatch(cells[1], -1) {
				documented = append(documented, m[1])
			}
		}
	}
	for _, flag := range serveFlags(t) {
		if flag.Name != "help" {
			flags = append(flags, flag.Name)
		}
	}
	slices.Sort(documented)
	slices.Sort(flags)
	if !slices.Equal(documented, flags) {
		t.Errorf("docs/settings.md has\n%s\nand hubbub serve\n%s", strings.Join(documented, " "), strings.Join(flags, " "))
	}
}
