package hubbub

import (
	"fmt"
	"log/slog"
	"reflect"
	"strings"

	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/front"
	"example.com/hubbub/internal/glob"
	"example.com/hubbub/internal/outbox"
	"example.com/hubbub/internal/webhook"
)

// settings are what a Server goes by from one reload to the next. Immutable once New has returned. A handshake loads them
// once, and goes by these to its end; what else there is loads them where it needs them.
type settings struct {
	Config         // valid, and without defaults
	written Config // as it was given, with no default in it

	origins   front.Origins
	proxies   front.Proxies      // who may say for whom it speaks
	key       *auth.Key          // what tokens are checked by; nil where that is a provider's keys
	tokens    *auth.Verifier     // nil without Config.JWT
	questions *webhook.Questions // nil where the backend is asked nothing
	webhooks  *outbox.Outbox     // nil where nothing is told
	policies  string             // the digest of those of rooms
	rules     []byte             // see policyDigests
}

// newSettings makes of a Config what is only another form of it.
func newSettings(cfg Config) *settings {
	set := &settings{Config: cfg}
	for _, text := range cfg.AllowedOrigins {
		p, _ := front.ParseOriginPattern(text) // Validate has looked
		set.origins = append(set.origins, p)
	}
	for _, text := range cfg.TrustedProxies {
		p, _ := front.ParseProxy(text) // the same
		set.proxies = append(set.proxies, p)
	}
	set.policies, set.rules = cfg.policyDigests()
	return set
}

// cfg is what the server goes by now.
func (s *Server) cfg() *settings { return s.settings.Load() }

// shape is what can't change at run time of the policies of rooms: where their logs lie elsewhere, which log each has; and
// where there are other nodes, whose members these must hear of. Rules at the end that say what the default does decide
// nothing of that.
func (c *Config) shape() string {
	if !c.keepsLog() && c.role() == roleAlone {
		return ""
	}
	of := func(r RoomPolicy) string {
		text := fmt.Sprint(r.History.Messages, r.History.Age, r.History.Replicas)
		if c.role() != roleAlone {
			text += fmt.Sprint(r.Presence == "full")
		}
		return text
	}
	def, lobby := of(RoomPolicy{}.withDefaults(disconnect)), of(RoomPolicy{Presence: "full"}.withDefaults(disconnect))
	var all []string
	last := 0
	for _, r := range c.Rooms {
		if r.personal() {
			continue
		}
		all = append(all, fmt.Sprintf("%q %s\n", r.Match, of(r)))
		if of(r) != def || def != lobby && glob.New(r.Match).Match("lobby") {
			last = len(all)
		}
	}
	return strings.Join(all[:last], "")
}

var loggerType = reflect.TypeFor[*slog.Logger]()
