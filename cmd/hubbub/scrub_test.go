package main

import (
	"strings"
	"testing"
)

// A secret is found in each form in which it may stand in a text, and what looks like one is, too.
func TestSecretsAreTakenOut(t *testing.T) {
	c := &serveCmd{APIKey: "s3cret key \"of\" the/API", WebhookSecret: secrets{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}, JWTKey: "0123456789abcdef0123456789abcdef", JWTJWKS: "https://idp.example/keys?tenant=tenant77"}
	c.WebhookURL, c.HookURL = "https://who:pass77@app.example/hooks/path77?tok=query77", "https://app.example/questions/hook77hook77hook77"
	c.NATS = natsURLs{"nats://user77:pass78@nats.example:4222", "nats://tokentoken79@nats.example:4222"}
	c.ClusterSecret = "cluster secret 80"
	s := newScrubber(c, false)
	for _, text := range []string{
		`key s3cret key "of" the/API`, `"s3cret key \"of\" the/API"`, "?k=s3cret+key+%22of%22+the%2FAPI", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "0123456789abcdef0123456789abcdef",
		"https://who:pass77@app.example/hooks/path77?tok=query77", "POST /hooks/path77", "pass78", "user77", "tokentoken79", "cluster secret 80", "at hook77hook77hook77", "query77", "tenant77",
		"Authorization: Bearer other77", "hub_NO5X2GWYTZ4HPFKUQ3CJ7RVLAE", "whsec_b3RoZXI3Nw==", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm43NyJ9.c2lnbmF0dXJl", "https://a:b77@host/", "/ws?token=tok77&x=1", "password=pw77",
		"-----BEGIN PRIVATE KEY-----\nMIG77\n-----END PRIVATE KEY-----", "-----BEGIN EC PRIVATE KEY-----\nMIG77 cut",
	} {
		if got := s.text("before " + text + " behind"); strings.Contains(got, "77") || !strings.Contains(got, hiddenSecret) || !strings.HasPrefix(got, "before ") {
			t.Errorf("%q became %q", text, got)
		}
	}
	if got := s.text("nothing of note: keys=3, a token is missing"); got != "nothing of note: keys=3, a token is missing" {
		t.Errorf("it became %q", got)
	}
}

// Lines of the log lose names and addresses, and keep what says what happened.
func TestNamesAreTakenOutOfTheLog(t *testing.T) {
	s, all := newScrubber(&serveCmd{}, false), newScrubber(&serveCmd{}, true)
	for _, tt := range []struct{ line, want string }{
		{`time=2026-01-01T00:00:00.000Z level=WARN msg="upgrade refused" status=403 why="the page is of \"https://ann.example\"" remote=192.0.2.7:1234 path=/ws would_allow="--allowed-origins=https://ann.example" more_like_it=3`,
			`time=2026-01-01T00:00:00.000Z level=WARN msg="upgrade refused" status=403 why="the page is of \"(name)\"" remote=(name) path=(name) would_allow="(name)" more_like_it=3`},
		{`time=t level=WARN msg="upgrade refused" why="pages of https://shop.ann.example:8443 may not connect, and the server was asked for as \"ann.example\""`,
			`time=t level=WARN msg="upgrade refused" why="pages of https://(name) may not connect, and the server was asked for as \"(name)\""`},
		{`time=t level=INFO msg="hubbub listens" page=http://localhost:8080/ websocket=ws://ann.example:8080/ws err="dial tcp: lookup ann.example on 10.0.0.2:53: no such host"`,
			`time=t level=INFO msg="hubbub listens" page=http://localhost:8080/ websocket=ws://(name) err="dial tcp: lookup (name) on (name):53: no such host"`},
		{`time=t level=INFO msg="slow client closed" client=0b0e8f1c-5d6e-4f70-8192-a3b4c5d6e7f8 user="ann b" unsent=77 after=3.2s`,
			`time=t level=INFO msg="slow client closed" client=(name) user="(name)" unsent=77 after=3.2s`},
		{`time=t level=ERROR msg=x err="read tcp 10.1.2.3:80->[2001:db8::1]:5: the room \"secret plans\" of 0b0e8f1c-5d6e-4f70-8192-a3b4c5d6e7f8"`,
			`time=t level=ERROR msg=x err="read tcp (name):80->(name):5: the room \"(name)\" of (name)"`},
		{`time=t level=WARN msg="upgrade refused" status=404 why="the WebSocket is at /ws. If the server's paths begin with /ann_b, set --base-path=/ann_b (in Go Config.BasePath, or mount http.StripPrefix(\"/ann_b\", server))"`,
			`time=t level=WARN msg="upgrade refused" status=404 why="the WebSocket is at /(name) If the server's paths begin with /(name), set --base-path=/(name) (in Go Config.BasePath, or mount http.StripPrefix(\"(name)\", server))"`},
		{`{"time":"t","level":"INFO","msg":"m","why":"at /ann/ws"}`, `{"level":"INFO","msg":"m","time":"t","why":"at /(name)"}`},
		{`time=t level=WARN msg=x proxy=127.0.0.1:4242 err="open /data/outbox: dial tcp 10.1.2.3:4242: refused" why="dial tcp 127.0.0.1:80: refused"`,
			`time=t level=WARN msg=x proxy=(name) err="open /data/outbox: dial tcp (name):4242: refused" why="dial tcp 127.0.0.1:80: refused"`},
		{`{"time":"t","level":"INFO","msg":"m","user":"ann","n":3,"deep":{"user":"ann"},"why":"of \"ann\""}`,
			`{"deep":"(name)","level":"INFO","msg":"m","n":3,"time":"t","user":"(name)","why":"of \"(name)\""}`},
		{"ann says hello", "(name)"},
		{`time=t user="cut in the mid`, "time=t user=(name)"},
	} {
		if got := s.logLine(tt.line); got != tt.want {
			t.Errorf("%s\nbecame %s\nwant   %s", tt.line, got, tt.want)
		}
		if got := all.logLine(tt.line); got != tt.line {
			t.Errorf("with names %s\nbecame %s", tt.line, got)
		}
	}
}

// What looks like everybody's address may have a client's word in it.
func TestWhatIsOnThisMachineIsNoExcuse(t *testing.T) {
	s := &scrubber{}
	for text, leaks := range map[string]string{
		"refused http://localhost:3000/rooms/of-ann":       "of-ann",
		"Get http://127.evil-corp.example/x: no such host": "evil-corp",
		"from 2001:db8::1 too many":                        "2001:db8",
	} {
		if got := s.withoutNames(text); strings.Contains(got, leaks) {
			t.Errorf("%q", got)
		}
	}
	if text := "at 12:30:45 http://localhost:3000/ went"; s.withoutNames(text) != text {
		t.Errorf("%q", s.withoutNames(text))
	}
}
