package hubbub

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"runtime/metrics"
	"strings"

	"example.com/hubbub/internal/api"
	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/console"
	"example.com/hubbub/internal/protocol"
)

// APIKey is a key of the HTTP API. What it is itself only its owner knows.
type APIKey struct {
	Name   string   // 1 to 64 bytes; no two keys have one. What a key publishes once is known by it
	SHA256 string   // of the key, in hexadecimal digits
	Allow  []string // any of "publish", "read", "manage" and "tail"
}

const maxKeyName = 64 // bytes

// NewAPIKey makes a key: secret is what the backend sends, and key is for Config.APIKeys. The error is of the name, or
// of allow; without allow it has every right.
func NewAPIKey(name string, allow ...string) (secret string, key APIKey, err error) {
	secret = auth.NewSecret()
	key, err = APIKeyOf(name, secret, allow...)
	return secret, key, err
}

// APIKeyOf is the APIKey of a secret that was made elsewhere, of 16 to 512 visible ASCII characters.
func APIKeyOf(name, secret string, allow ...string) (APIKey, error) {
	digest, err := auth.DigestOf(secret)
	if err != nil {
		return APIKey{}, err
	}
	if len(allow) == 0 {
		allow = strings.Split(auth.AllRights.String(), ", ")
	}
	key := APIKey{name, hex.EncodeToString(digest[:]), allow}
	_, err = Config{APIKeys: []APIKey{key}}.apiKeys()
	return key, err
}

// apiKeys are the keys as the API takes them. The error names all that is wrong.
func (c Config) apiKeys() (keys auth.APIKeys, err error) {
	var bad faults
	for i, k := range c.APIKeys {
		at := fmt.Sprintf("api-keys[%d]", i)
		key := auth.APIKey{Name: k.Name}
		if err := protocol.CheckUser(k.Name); err != nil || len(k.Name) > maxKeyName {
			bad.add("%s.name %q: it must have 1 to %d bytes of UTF-8, without control characters", at, k.Name, maxKeyName)
		}
		if key.Digest, err = auth.ParseDigest(k.SHA256); err != nil {
			bad.add("%s.sha256: %w", at, err) // not what stands there: it may be the key itself
		}
		if key.Rights, err = auth.ParseRights(k.Allow); err != nil {
			bad.add("%s.allow: %w", at, err)
		}
		for j, other := range keys {
			switch {
			case other.Name == key.Name:
				bad.add("%s.name %q: api-keys[%d] has it already", at, k.Name, j)
			case other.Digest == key.Digest:
				bad.add("%s.sha256: it is that of api-keys[%d]", at, j)
			}
		}
		keys = append(keys, key)
	}
	return keys, errors.Join(bad...)
}

func (s *Server) newAPI() *api.API {
	return api.New(api.Config{
		Settings: s.cfg().apiSettings(), Hub: s.hub, Log: s.log,
		Info: s.info, Figures: s.figures, Samples: s.samples, InForce: s.inForce, Nodes: s.nodes, RecentLog: s.cfg().RecentLog,
		RemoveNode: s.removeNode, Renew: s.readAgain, Tracer: s.tracer,
		Why: func(room, user string) []api.Reason { return s.cfg().written.why(s.hub.Policies(), room, user) },
	})
}

func (c *Config) apiSettings() api.Settings {
	keys, _ := c.apiKeys() // Validate has looked
	return api.Settings{Keys: keys, MaxMessageBytes: c.MaxMessageBytes}
}

// isAPI says of a path below the server's own whether the API has it.
func isAPI(path string) bool {
	rest, ok := strings.CutPrefix(path, api.Path)
	return ok && (rest == "" || rest[0] == '/')
}

// AdminHandler is what Config.AdminApart takes away from the Server's public paths: /api/v1, /console and /metrics; and /healthz
// and /readyz, which stay there too. Its paths don't begin with Config.BasePath. Only the API asks for a key, so it
// belongs on a listener that strangers don't reach: see ServeAdmin.
func (s *Server) AdminHandler() http.Handler {
	calls := s.api.Handler("")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.Path
		if isAPI(path) {
			calls.ServeHTTP(w, r)
			return
		}
		ignoreBody(w, r)
		if console.Has(path) {
			s.showConsole(w, r, path)
			return
		}
		switch path {
		case "/metrics":
			s.Metrics().ServeHTTP(w, r)
		case "/healthz":
			s.aside(w, r, s.probes, s.health)
		case "/readyz":
			s.aside(w, r, s.probes, s.ready)
		default:
			s.refuse(w, r, refusal{status: http.StatusNotFound, detail: "there is nothing at this path of the admin listener; it has /api/v1, /console, /metrics, /healthz and /readyz"})
		}
	})
}

// info is what GET /info says.
func (s *Server) info() api.Info {
	var nodes []api.InfoNode
	if all, _ := s.knownNodes(); s.links != nil && !s.links.alone {
		for _, n := range all {
			nodes = append(nodes, api.InfoNode{Node: n.Name, Version: n.Version, Connections: n.Connections, Rooms: n.Rooms, Clients: n.Clients})
		}
	}
	return api.Info{
		Nodes:   nodes,
		Version: Version(), Node: s.node, Connections: s.Connections(), Rooms: s.RoomCount(), Clients: s.hub.Clients(),
		Memory: s.memory(),
	}
}

// newNode names this server until it stops.
func newNode() string { return strings.ToLower(rand.Text()[:12]) }

// version is what the linker was told, as make release does:
// -X example.com/hubbub.version=1.2.3
var version string

// Version is Hubbub's, where the build knows it: by the linker, or as the module that go.mod or go install names; else
// "development".
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "development"
	}
	version := info.Main.Version
	for _, m := range info.Deps {
		if m.Path == "example.com/hubbub" {
			version = m.Version
		}
	}
	if version == "" || version == "(devel)" {
		return "development"
	}
	return version
}

// processMemory is what the Go runtime has of the system and hasn't given back, in bytes.
func processMemory() int64 {
	of := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(of)
	return int64(of[0].Value.Uint64() - of[1].Value.Uint64())
}
