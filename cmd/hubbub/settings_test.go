package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"example.com/hubbub"
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

// docs/settings.md names the settings that a reload keeps: all that neither the library nor the command changes.
func TestSettingsThatAReloadKeeps(t *testing.T) {
	page, err := os.ReadFile("../../docs/settings.md")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^A \[reload\].* keeps until a restart: .*$`).FindString(string(page))
	var documented, kept []string
	for _, m := range regexp.MustCompile("`--([a-z-]+)`").FindAllStringSubmatch(line, -1) {
		documented = append(documented, m[1])
	}
	changes := append(hubbub.Reloadable(), "help", "config", "api-key") // which is one of api-keys
	for _, own := range new(serveCmd).own() {
		if own.reloads {
			changes = append(changes, own.name)
		}
	}
	for _, flag := range serveFlags(t) {
		if !slices.Contains(changes, flag.Name) {
			kept = append(kept, flag.Name)
		}
	}
	slices.Sort(documented)
	slices.Sort(kept)
	if !slices.Equal(documented, kept) {
		t.Errorf("docs/settings.md says that a reload keeps\n%s\nand it keeps\n%s", strings.Join(documented, " "), strings.Join(kept, " "))
	}
}
