package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v4"

	"example.com/hubbub"
)

// keyCmd makes a key of the HTTP API.
type keyCmd struct {
	Name  string   `env:"-" default:"backend" placeholder:"NAME" help:"What the key is called in the file; no two keys have one name (${default})."`
	Allow []string `env:"-" placeholder:"RIGHT" help:"What it may do: publish, read, manage, tail (all of them)."`
}

// Help is shown by hubbub key --help.
func (keyCmd) Help() string {
	return "What is printed is not kept anywhere: the first line is for the backend, and the lines below for the server's file, which can't be turned back into the key. Where one key with every right is enough, HUBBUB_API_KEY takes the first line's key instead."
}

// Run prints what the client sends, and what the server keeps.
func (c *keyCmd) Run(*kong.Context) error {
	secret, key, err := hubbub.NewAPIKey(c.Name, c.Allow...)
	if err != nil {
		return usageError{fmt.Errorf("--%s", strings.TrimPrefix(err.Error(), apiKeysKey+"[0]."))}
	}
	lines, err := apiKeyLines([]hubbub.APIKey{key}, func(int, string) string { return "" })
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(os.Stdout, "Authorization: Bearer %s\n\n%s:\n%s", secret, apiKeysKey, lines)
	return err
}

// apiKeysKey is a setting that is no flag: a list of keys, of which the file knows the digests alone.
const apiKeysKey = "api-keys"

// keys reads the value of "api-keys".
func (r *rulesReader) keys(n *yaml.Node) (all []hubbub.APIKey) {
	list := resolved(n)
	if list.Kind != yaml.SequenceNode {
		r.fail(n.Line, apiKeysKey, fmt.Errorf("a list of keys is wanted, each with a name, a sha256 and what it may do, allow"))
		return nil
	}
	for i, item := range list.Content {
		at := fmt.Sprintf("%s[%d]", apiKeysKey, i)
		r.lines[at] = item.Line
		var k hubbub.APIKey
		r.mapping(item, at, []fileKey{
			{"name", scalar(&k.Name, word)},
			{"sha256", scalar(&k.SHA256, word)},
			{"allow", func(v *yaml.Node) error {
				text, err := nodeText(v, true)
				if err == nil && text != "" {
					k.Allow = strings.Split(text, ",")
				}
				return err
			}},
		})
		all = append(all, k)
	}
	return all
}

// apiKeyLines are keys as the file has them; origin says where each part is from, behind a blank, or nothing.
func apiKeyLines(keys []hubbub.APIKey, origin func(i int, field string) string) (string, error) {
	var out strings.Builder
	for i, k := range keys {
		name, err := yamlValue(quoted(k.Name))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&out, "  - name: %s%s\n    sha256: %s%s\n    allow: [%s]%s\n",
			name, origin(i, "name"), k.SHA256, origin(i, "sha256"), strings.Join(k.Allow, ", "), origin(i, "allow"))
	}
	return out.String(), nil
}

// keyLines is the section api-keys.
func (c *configCmd) keyLines(ctx *kong.Context) (string, error) {
	head := comment("Keys of the HTTP API beside api-key, in the file alone: each has a name, the digest of the key and what it may do, allow: publish, read, manage, tail. hubbub key makes one.")
	if c.file == nil || len(c.file.apiKeys) == 0 {
		return head + apiKeysKey + ": [] # " + c.roomOrigin(apiKeysKey) + "\n", nil
	}
	lines, err := apiKeyLines(c.file.apiKeys, func(i int, field string) string {
		return " # " + c.roomOrigin(fmt.Sprintf("%s[%d].%s", apiKeysKey, i, field))
	})
	return fmt.Sprintf("%s%s: # %s\n%s", head, apiKeysKey, c.roomOrigin(apiKeysKey), lines), err
}

// apiKeys are all that the settings have. The error names all that is wrong with the flag's; what is wrong with the
// file's the library says.
func (c *serveCmd) apiKeys() (keys []hubbub.APIKey, err error) {
	if c.file != nil {
		keys = append(keys, c.file.apiKeys...)
	}
	if c.APIKey == "" {
		return keys, nil
	}
	key, err := hubbub.APIKeyOf(apiKeyName, string(c.APIKey))
	if err != nil {
		return keys, fmt.Errorf("%s: %w", apiKeyName, err)
	}
	return append(keys, key), nil // the last: so the others have the indexes that they have in the file
}

// apiKeyName is the setting, and the name that its key has.
const apiKeyName = "api-key"

// secret is a setting that hubbub config doesn't print, as is each of secrets.
type (
	secret  string
	secrets []string
)
