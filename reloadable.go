package hubbub

import (
	"reflect"
)

// setting is a part of Config that a reload changes, or keeps, as a whole.
type setting struct {
	name    string            // its flag's, or that of the section of the file; of Go alone, the field's
	of      func(*Config) any // a pointer to it
	reloads bool              // it takes effect at run time
}

// settingsOf are all of them.
func settingsOf() []setting {
	const reloads, keeps = true, false
	all := []setting{
		{"max-connections", func(c *Config) any { return &c.MaxConnections }, reloads},
		{"max-connections-per-ip", func(c *Config) any { return &c.MaxConnectionsPerIP }, reloads},
		{"max-rooms-per-client", func(c *Config) any { return &c.MaxRoomsPerClient }, reloads},
		{"max-message-bytes", func(c *Config) any { return &c.MaxMessageBytes }, reloads},
		{"max-buffered-bytes", func(c *Config) any { return &c.MaxBufferedBytes }, reloads},
		{"send-queue-bytes", func(c *Config) any { return &c.SendQueueBytes }, reloads},
		{"send-queue-age", func(c *Config) any { return &c.SendQueueAge }, reloads},
		{"slow-consumer", func(c *Config) any { return &c.SlowConsumer }, reloads},
		{"rooms", func(c *Config) any { return &c.Rooms }, reloads}, // but see shape
		{"chat", func(c *Config) any { return &c.Chat }, reloads},
		{"direct", func(c *Config) any { return &c.Direct }, reloads},
		{"shutdown-delay", func(c *Config) any { return &c.ShutdownDelay }, reloads},
		{"allowed-origins", func(c *Config) any { return &c.AllowedOrigins }, reloads},
		{"trusted-proxies", func(c *Config) any { return &c.TrustedProxies }, reloads},
		{"subprotocols", func(c *Config) any { return &c.Subprotocols }, reloads},
		{"page", func(c *Config) any { return &c.Page }, reloads},
		{"compression", func(c *Config) any { return &c.Compression }, reloads},
		{"jwt-key", func(c *Config) any { return &c.JWT.Key }, reloads},
		{"jwt-jwks", func(c *Config) any { return &c.JWT.JWKS }, reloads},
		{"jwt-issuer", func(c *Config) any { return &c.JWT.Issuer }, reloads},
		{"jwt-audience", func(c *Config) any { return &c.JWT.Audience }, reloads},
		{"jwt-leeway", func(c *Config) any { return &c.JWT.Leeway }, reloads},
		{"jwt-cookie", func(c *Config) any { return &c.JWT.Cookie }, reloads},
		{"anonymous", func(c *Config) any { return &c.Anonymous }, reloads},
		{"api-keys", func(c *Config) any { return &c.APIKeys }, reloads},
		{"webhook-url", func(c *Config) any { return &c.Webhooks.URL }, reloads},
		{"webhook-events", func(c *Config) any { return &c.Webhooks.Events }, reloads},
		{"webhook-rooms", func(c *Config) any { return &c.Webhooks.Rooms }, reloads},
		{"webhook-secret", func(c *Config) any { return &c.Webhooks.Secrets }, reloads},
		{"hook-url", func(c *Config) any { return &c.Questions.URL }, reloads},
		{"hook-events", func(c *Config) any { return &c.Questions.Events }, reloads},
		{"webhook-secret", func(c *Config) any { return &c.Questions.Secrets }, reloads},
		{"Questions.Timeout", func(c *Config) any { return &c.Questions.Timeout }, reloads},
		{"Questions.AtOnce", func(c *Config) any { return &c.Questions.AtOnce }, reloads},
		{"HookTimeout", func(c *Config) any { return &c.HookTimeout }, reloads},
		{"limits.user.connections", func(c *Config) any { return &c.Limits.User.Connections }, reloads},

		{"workers", func(c *Config) any { return &c.Workers }, keeps},
		{"io", func(c *Config) any { return &c.IO }, keeps},
		{"ping-interval", func(c *Config) any { return &c.PingInterval }, keeps}, // clients were told these three
		{"pong-timeout", func(c *Config) any { return &c.PongTimeout }, keeps},
		{"resume-window", func(c *Config) any { return &c.ResumeWindow }, keeps},
		{"dedup-window", func(c *Config) any { return &c.DedupWindow }, keeps},
		{"handshake-timeout", func(c *Config) any { return &c.HandshakeTimeout }, keeps},
		{"proxy-protocol", func(c *Config) any { return &c.ProxyProtocol }, keeps},
		{"base-path", func(c *Config) any { return &c.BasePath }, keeps},
		{"admin-listen", func(c *Config) any { return &c.AdminApart }, keeps},
		{"data-dir", func(c *Config) any { return &c.DataDir }, keeps},
		{"node-name", func(c *Config) any { return &c.NodeName }, keeps},
		{"cluster-name", func(c *Config) any { return &c.Cluster.Name }, keeps},
		{"cluster-secret", func(c *Config) any { return &c.Cluster.Secret }, keeps},
		{"cluster-listen", func(c *Config) any { return &c.Cluster.Listen }, keeps},
		{"cluster-advertise", func(c *Config) any { return &c.Cluster.Advertise }, keeps},
		{"join", func(c *Config) any { return &c.Cluster.Join }, keeps},
		{"replicas", func(c *Config) any { return &c.Cluster.Replicas }, keeps},
		{"cluster-tls-cert", func(c *Config) any { return &c.Cluster.TLSCert }, keeps},
		{"cluster-tls-key", func(c *Config) any { return &c.Cluster.TLSKey }, keeps},
		{"cluster-tls-ca", func(c *Config) any { return &c.Cluster.TLSCA }, keeps},
		{"nats", func(c *Config) any { return &c.NATS.URLs }, keeps},
		{"nats-creds", func(c *Config) any { return &c.NATS.Creds }, keeps},
		{"nats-ca", func(c *Config) any { return &c.NATS.CA }, keeps},
		{"MaxHookCalls", func(c *Config) any { return &c.MaxHookCalls }, keeps},
		{"Authenticate", func(c *Config) any { return &c.Authenticate }, keeps},
		{"Broker", func(c *Config) any { return &c.Broker }, keeps},
		{"Handlers", func(c *Config) any { return &c.Handlers }, keeps},
		{"Hooks", func(c *Config) any { return &c.Hooks }, keeps},
		{"TracerProvider", func(c *Config) any { return &c.TracerProvider }, keeps},
		{"Logger", func(c *Config) any { return &c.Logger }, keeps},
		{"RecentLog", func(c *Config) any { return &c.RecentLog }, keeps},
		{"Settings", func(c *Config) any { return &c.Settings }, keeps},
		{"ReadAgain", func(c *Config) any { return &c.ReadAgain }, keeps},
	}
	for i, r := range new(Limits).rates() {
		all = append(all, setting{r.name, func(c *Config) any { return c.Limits.rates()[i].rate }, reloads})
	}
	return all
}

// Reloadable are the names of all settings that Server.Reload changes, as it and Diff give them.
func Reloadable() (names []string) {
	for _, s := range settingsOf() {
		if s.reloads {
			names = appendOnce(names, s.name)
		}
	}
	return names
}

// Diff is what Server.Reload(next) would do to a Server of c: the names of the settings that it would change, and of those
// that can't change at run time, which it would keep as they are in c. A name is the flag's, such as "max-connections", or
// that of a section of the file, such as "rooms"; a setting that only Go has is named as its field. Zero stands for the
// default. Neither is validated.
func (c Config) Diff(next Config) (changed, kept []string) {
	changed, kept, _ = c.withDefaults().reloaded(next.withDefaults())
	return changed, kept
}

// reloaded is Diff, and what comes of it: next, where it may change. There are no defaults left in either.
func (c Config) reloaded(next Config) (changed, kept []string, is Config) {
	for _, s := range settingsOf() {
		was, is := reflect.ValueOf(s.of(&c)).Elem(), reflect.ValueOf(s.of(&next)).Elem()
		switch {
		case same(was, is):
		case s.reloads && (s.name != "rooms" || c.shape() == next.shape()):
			changed = appendOnce(changed, s.name)
		default:
			kept = appendOnce(kept, s.name)
			is.Set(was)
		}
	}
	return changed, kept, next
}

func appendOnce(names []string, name string) []string {
	for _, n := range names {
		if n == name {
			return names
		}
	}
	return append(names, name)
}

// same says whether two values of a type are alike; functions where they are the same code, whatever that refers to.
func same(a, b reflect.Value) bool {
	switch a.Kind() {
	case reflect.Func:
		return a.UnsafePointer() == b.UnsafePointer()
	case reflect.Struct:
		for i := range a.NumField() {
			if !same(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	case reflect.Map:
		if a.Len() != b.Len() {
			return false
		}
		for _, key := range a.MapKeys() {
			if of := b.MapIndex(key); !of.IsValid() || !same(a.MapIndex(key), of) {
				return false
			}
		}
		return true
	case reflect.Slice:
		if a.Len() == 0 && b.Len() == 0 {
			return true // nil or not
		}
	case reflect.Pointer:
		if a.Type() == loggerType {
			return a.UnsafePointer() == b.UnsafePointer()
		}
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}
