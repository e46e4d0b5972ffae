package hubbub

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/front"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/protocol/room"
	"example.com/hubbub/internal/wire"
)

// JWT says which tokens tell who a client is: JSON Web Tokens (RFC 7519) signed with HS256, HS384, HS512, RS256, PS256,
// ES256 or EdDSA. Of one, "exp" must be there, "sub" is the user's name, and the object "hubbub" may have "rooms",
// "data", "join", "publish", "read", "chat" and "direct", the fields of Identity. The zero value takes none.
type JWT struct {
	// Key is what signatures are checked by: a secret of 32 bytes or more, a public key as PEM, or after an @ the path
	// of a file with one of these, which is read by New. Default: none.
	Key string
	// JWKS is, in Key's place, the URL of a provider's keys (RFC 7517), by https unless it is the loopback's. They are
	// fetched in the background: at once, when a token names a key that isn't among them, at most every 10 s, and every
	// few minutes. The last good ones stay in use whatever becomes of the provider. It needs Audience. Default: none.
	JWKS string
	// Issuer and Audience are what the claims "iss" and "aud" must be, or have among them. Default: anything.
	Issuer, Audience string
	// Leeway is how much the clocks of those who make tokens may be wrong: at most a minute; negative: not at all.
	// Default: 10 s.
	Leeway time.Duration
	// Cookie is the name of a cookie that may carry the token, beside the query's "token", "Authorization: Bearer" and
	// the subprotocols "hubbub, token.JWT". As browsers send cookies along with every page's requests, one that comes
	// without an Origin is refused then, and so are AllowedOrigins that every page can have. Default: none.
	Cookie string
}

// Identity is who a client is and what it may do, as Config.Authenticate says it.
type Identity struct {
	User    string          // by which others know the client: UTF-8 of at most 255 bytes, no controls. "" for no name
	Expires time.Time       // the connection ends then, unless the client has shown a newer token; zero: never
	Data    json.RawMessage // its presence data in all rooms, one JSON value, which it can't change; nil: its joins say
	Rooms   []string        // it is put into these at once, and needs no permission for that

	// Join, Publish and Read are patterns of the rooms in which it may do that where a policy says "granted". Chat and
	// Direct are the same for messages to everyone and to one client.
	Join, Publish, Read []string
	Chat, Direct        bool
}

// Credentials are what a client shows.
type Credentials struct {
	Token   string        // "" for none
	Request *http.Request // the handshake, as Connect has it; nil where a client that is connected shows a new token
}

// ErrTokenExpired is what Config.Authenticate returns of credentials that were good and are too old: the client is told
// to come back with newer ones.
var ErrTokenExpired = errors.New("the token has expired")

// identifies says whether there is a way of finding out who a client is before it is let in.
func (c Config) identifies() bool {
	return c.JWT.Key != "" || c.JWT.JWKS != "" || c.Authenticate != nil
}

const (
	defaultLeeway = 10 * time.Second
	maxLeeway     = time.Minute
)

// validateIdentity looks at the settings that say who may come in.
func (c Config) validateIdentity() (bad faults) {
	j := c.JWT
	if j.Key != "" {
		if _, err := auth.ReadKey(j.Key); err != nil {
			bad.add("jwt-key: %w", err)
		}
	}
	if j.JWKS != "" {
		at := auth.PublicURL(j.JWKS)
		if err := auth.CheckJWKS(j.JWKS); err != nil {
			bad.add("jwt-jwks %q: %w", at, err)
		}
		if j.Audience == "" {
			bad.add("jwt-jwks %q: it needs --jwt-audience, or whoever has a token of that provider for any other application gets in", at)
		}
		if j.Key != "" {
			bad.add("jwt-jwks %q: there is a --jwt-key too; use one of them", at)
		}
	}
	if c.Authenticate != nil && (j.Key != "" || j.JWKS != "") {
		bad.add("jwt: Config.Authenticate is set too; use one of them")
	}
	for name, value := range map[string]string{"jwt-issuer": j.Issuer, "jwt-audience": j.Audience} {
		if value != "" && j.Key == "" && j.JWKS == "" {
			bad.add("%s %q: it needs --jwt-key or --jwt-jwks", name, value)
		}
	}
	if j.Leeway > maxLeeway {
		bad.add("jwt-leeway %s: more than %s", j.Leeway, maxLeeway)
	}
	if c.Anonymous && !c.identifies() {
		bad.add("anonymous on: it needs --jwt-key or --jwt-jwks, by which there are tokens that one may lack")
	}
	return append(bad, c.validateCookie()...)
}

// validateCookie refuses what would let every page on the web act in the name of whoever is signed in.
func (c Config) validateCookie() (bad faults) {
	name := c.JWT.Cookie
	if name == "" {
		return nil
	}
	if !wire.IsToken(name) {
		bad.add("jwt-cookie %q: it is no name of a cookie", name)
	}
	if !c.identifies() {
		bad.add("jwt-cookie %q: it needs --jwt-key or --jwt-jwks", name)
	}
	for _, text := range c.AllowedOrigins {
		if p, err := front.ParseOriginPattern(text); err == nil && p.Open() {
			bad.add("jwt-cookie %q: with the allowed origin %s any page on the web could act in the name of your users; name the origins of your pages", name, text)
		}
	}
	return bad
}

// readKey is nil without Key. Validate has looked at it.
func (j *JWT) readKey() (*auth.Key, error) {
	if j.Key == "" {
		return nil, nil
	}
	key, err := auth.ReadKey(j.Key)
	if err != nil { // the file has changed since
		return nil, fmt.Errorf("jwt-key: %w", err)
	}
	return key, nil
}

// verifier is nil without tokens. It begins to fetch a provider's keys.
func (c *Config) verifier(key *auth.Key) *auth.Verifier {
	if key == nil && c.JWT.JWKS == "" {
		return nil
	}
	return auth.NewVerifier(auth.Options{
		Key: key, JWKS: c.JWT.JWKS, Issuer: c.JWT.Issuer, Audience: c.JWT.Audience, Leeway: max(0, c.JWT.Leeway), Log: c.Logger,
	})
}

// known makes of what the application says what the server goes by.
func (i *Identity) known() (who auth.Identity, err error) {
	who = auth.Identity{User: i.User, Expires: i.Expires, Data: slices.Clone(i.Data), Rooms: slices.Clone(i.Rooms)}
	if len(i.Join)+len(i.Publish)+len(i.Read) > 0 || i.Chat || i.Direct {
		who.Grants, err = auth.NewGrants(i.Join, i.Read, i.Publish, i.Chat, i.Direct)
	}
	return who, err
}

// checkIdentity holds what somebody has made up about a client against what the server takes.
func (c *Config) checkIdentity(who *auth.Identity) error {
	if err := who.Check(); err != nil {
		return err
	}
	if n := len(who.Rooms); n > c.MaxRoomsPerClient {
		return fmt.Errorf("rooms: %d of them, and --max-rooms-per-client is %d", n, c.MaxRoomsPerClient)
	}
	if who.Data == nil {
		return nil
	}
	if n := len(who.Data); n > protocol.MaxData {
		return fmt.Errorf("data: %d bytes, at most %d are allowed", n, protocol.MaxData)
	}
	data, err := room.CheckContent(who.Data)
	if err != nil {
		return fmt.Errorf("data: %w", err)
	}
	who.Data = data
	return nil
}
