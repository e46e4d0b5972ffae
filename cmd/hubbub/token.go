package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"example.com/hubbub/internal/auth"
)

// tokenCmd makes a token for trying. Its settings are those of serve with these names, and may be in the same file.
type tokenCmd struct {
	Config      configFile    `placeholder:"FILE" help:"YAML file of the server's settings; its jwt-key, jwt-issuer and jwt-audience count."`
	User        string        `required:"" env:"-" placeholder:"NAME" help:"Whose token it is: the claim sub."`
	Join        []string      `env:"-" placeholder:"PATTERN" help:"Rooms that may be joined where their policy says granted, such as chat.*."`
	Publish     []string      `env:"-" placeholder:"PATTERN" help:"The same for publishing."`
	Read        []string      `env:"-" placeholder:"PATTERN" help:"The same for history and presence, without joining."`
	Rooms       []string      `env:"-" placeholder:"ROOM" help:"Rooms that the client is put into at once."`
	Data        string        `env:"-" placeholder:"JSON" help:"Its presence data in all rooms, which it can't change."`
	Chat        bool          `env:"-" help:"It may send chat where the server's policy for that says granted."`
	Direct      bool          `env:"-" help:"The same for direct_message."`
	Expires     time.Duration `env:"-" default:"1h" placeholder:"TIME" help:"How long the token is good (${default})."`
	JWTKey      string        `name:"jwt-key" placeholder:"KEY" help:"Signs it: the server's secret, or @FILE, a secret or the private key, PEM, to the server's public one."`
	JWTIssuer   string        `name:"jwt-issuer" placeholder:"TEXT" help:"The claim iss."`
	JWTAudience string        `name:"jwt-audience" placeholder:"TEXT" help:"The claim aud."`
}

// Help is shown by hubbub token --help.
func (tokenCmd) Help() string {
	return "For trying: hubbub token --user ann --join 'chat.*' prints a token, to be shown as ws://localhost:8080/ws?token=TOKEN. Your application makes its own, with any JWT library. The key comes from the flag, HUBBUB_JWT_KEY or the file, in this order."
}

// Run prints the token.
func (c *tokenCmd) Run(ctx *kong.Context) error {
	if err := c.fromFile(ctx); err != nil {
		return usageError{err}
	}
	token, err := c.sign()
	if err != nil {
		return usageError{err}
	}
	fmt.Println(token)
	return nil
}

// fromFile takes from the server's file what neither a flag nor the environment has set.
func (c *tokenCmd) fromFile(ctx *kong.Context) error {
	if c.Config == "" {
		return nil
	}
	f, err := readFile(string(c.Config), "--config", settingsOf(ctx))
	if err != nil {
		return err
	}
	for name, to := range map[string]*string{"jwt-key": &c.JWTKey, "jwt-issuer": &c.JWTIssuer, "jwt-audience": &c.JWTAudience} {
		if *to == "" {
			*to = f.values[name].text
		}
	}
	if _, jwks := f.values["jwt-jwks"]; jwks && c.JWTKey == "" {
		return fmt.Errorf("%s has jwt-jwks: its tokens are made by that provider, who alone has the keys", c.Config)
	}
	return nil
}

// settingsOf are the server's settings.
func settingsOf(ctx *kong.Context) []*kong.Flag {
	for _, command := range ctx.Model.Children {
		if command.Name == "serve" {
			return command.Flags
		}
	}
	return nil
}

// maxData is how many bytes of data a server takes.
const maxData = 4096

func (c *tokenCmd) sign() (string, error) {
	if c.JWTKey == "" {
		return "", errors.New("there is no key to sign with: set --jwt-key, HUBBUB_JWT_KEY, or jwt-key in the file that --config names, to the server's secret (openssl rand -hex 32 makes one), or to @FILE with the private key to its public one")
	}
	signer, err := auth.ReadSigner(c.JWTKey)
	if err != nil {
		return "", fmt.Errorf("--jwt-key: %w", err)
	}
	if c.User == "" {
		return "", errors.New("--user: its value is empty")
	}
	if c.Expires <= 0 {
		return "", fmt.Errorf("--expires %s: must be greater than 0s", c.Expires)
	}
	data := json.RawMessage(strings.TrimSpace(c.Data))
	if len(data) > maxData {
		return "", fmt.Errorf("--data: %d bytes, a server takes %d at most", len(data), maxData)
	}
	if len(data) > 0 && !json.Valid(data) {
		return "", fmt.Errorf("--data %s: it is no JSON; write '{\"color\":\"red\"}', or '\"text\"' with both kinds of quotes", c.Data)
	}
	return signer.Sign(auth.Draft{
		User: c.User, Expires: time.Now().Add(c.Expires), Issuer: c.JWTIssuer, Audience: c.JWTAudience, Data: data,
		Rooms: c.Rooms, Join: c.Join, Publish: c.Publish, Read: c.Read, Chat: c.Chat, Direct: c.Direct,
	})
}
