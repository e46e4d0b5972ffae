package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

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

// The address of a provider's keys, any part of which may be a secret, is shown neither to who reads the settings by the API,
// nor by hubbub config, with --diff, in a bundle, or where a fault is named.
func TestSecretsInTheAddressOfKeys(t *testing.T) {
	file := func(url string) string { return write(t, "jwt-audience: hubbub\njwt-jwks: "+url+"\n") }
	const plain = "https://id.example/plain/keys"
	for _, url := range []string{"https://us5ecret@id.example/keys", "https://user:pas5ecret@id.example/keys", "https://id.example/keys?token=que5ecret", "https://id.example/pat5ecret/keys"} {
		c, ctx, err := parseSettings([]string{"serve", "--config", file(url)})
		if err != nil {
			t.Fatal(err)
		}
		cfg, _, err := c.prepare(ctx, c.logger())
		if err != nil {
			t.Fatal(err)
		}
		for _, is := range c.settingsOf(ctx, cfg) {
			if strings.Contains(is.Value, "5ecret") || is.Name == "jwt-jwks" && !is.Hidden {
				t.Errorf("%s: the settings have %+v", url, is)
			}
		}
		config := configCmd{serveCmd: *c}
		if out, err := config.text(ctx, cfg); err != nil || strings.Contains(string(out), "5ecret") || !strings.Contains(string(out), "jwt-jwks: not shown") {
			t.Errorf("%s: hubbub config prints %s, %v", url, out, err)
		}
		now, next := byName(serveFlagsOf(t, file(url)), "jwt-jwks"), byName(serveFlagsOf(t, file(plain)), "jwt-jwks")
		if text := between(now, next) + between(next, now); text != "" {
			t.Errorf("%s: a diff has %s", url, text)
		}
		cfg.JWT.Audience = ""
		if err := cfg.Validate(); err == nil || strings.Contains(err.Error(), "5ecret") {
			t.Errorf("%s: a fault is named %v", url, err)
		}
	}
}

// serveFlagsOf are the flags of serve as a file sets them.
func serveFlagsOf(t *testing.T, file string) []*kong.Flag {
	t.Helper()
	_, ctx, err := parseSettings([]string{"serve", "--config", file})
	if err != nil {
		t.Fatal(err)
	}
	return ctx.Selected().Flags
}
