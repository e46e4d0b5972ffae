package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Symptoms of connections that end, by the headings of docs/troubleshooting.md.
var connectionEnds = map[string]func(*mishap){
	"Closed with 1001": func(tr *mishap) {
		tr.start()
		c := tr.enter()
		if err := tr.s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			tr.t.Fatal(err)
		}
		tr.hear(c)
		tr.ends(c)
	},
	"Closed with 1002": func(tr *mishap) {
		tr.start("--log-level", "debug")
		c := tr.enter()
		c.write("\x81\x02hi") // not masked
		tr.ends(c)
	},
	"Closed with 1007": func(tr *mishap) {
		tr.start("--log-level", "debug")
		c := tr.enter()
		c.write(text("a\xffb"))
		tr.ends(c)
		c = connect(tr.t, tr.s)
		c.write(strings.Replace(upgrade(tr.s, "/ws"), "\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n", 1))
		c.response("GET")
		c.expect(fin | opText)
		c.write(frame(fin|rsv1|opText, "\xff\xff")) // as one that refers to an earlier message
		tr.ends(c)
	},
	"Closed with 1008": func(tr *mishap) {
		tr.start("--config", configFile(tr.t, "limits:\n  client:\n    messages: 1/s burst 1\n"))
		c := tr.enter()
		stop := make(chan struct{})
		go func() { // on and on
			for {
				select {
				case <-stop:
					return
				default:
					if _, err := io.WriteString(c, strings.Repeat(text(`{"msg_type":"ping"}`), 100)); err != nil {
						return
					}
					time.Sleep(10 * time.Millisecond)
				}
			}
		}()
		tr.ends(c)
		close(stop)
	},
	"Closed with 1009": func(tr *mishap) {
		tr.start("--log-level", "debug")
		c := tr.enter()
		c.write(text(`{"msg_type":"chat","content":"` + strings.Repeat("x", 64<<10) + `"}`))
		tr.ends(c)
		s := start(tr.t, "--max-message-bytes", "128KiB")
		c = dialRaw(tr.t, s, "/ws", "")
		c.welcomed()
		c.write(text(`{"msg_type":"chat","content":"` + strings.Repeat("x", 64<<10) + `","id":1}`))
		c.message("ack")
	},
	"Closed with 1011": func(tr *mishap) {
		tr.broken("-panics")
		c := tr.enter()
		c.write("\x81\x02hi") // what is logged of it breaks the worker's turn
		tr.ends(c)
	},
	"Closed with 1013": func(tr *mishap) {
		tr.start("--max-buffered-bytes", "4MiB", "--send-queue-bytes", "16MiB", "--max-message-bytes", "16KiB")
		tr.isSlow("1013")
	},
	"Closed with 4000": func(tr *mishap) {
		tr.start("--send-queue-bytes", "64KiB", "--max-message-bytes", "16KiB")
		tr.isSlow("4000")
	},
	"Closed with 4001": func(tr *mishap) {
		tr.start()
		c := dialRaw(tr.t, tr.s, "/ws", "")
		again := dialRaw(tr.t, tr.s, "/ws?resume="+c.message("welcome").str("resume_token"), "")
		tr.hear(again)
		tr.ends(c)
	},
	"Closed with 4002": func(tr *mishap) {
		tr.start("--ping-interval", "1s", "--pong-timeout", "1s", "--log-level", "debug")
		tr.ends(dialRaw(tr.t, tr.s, "/ws", "")) // it answers no ping
	},
	"Closed with 4401": func(tr *mishap) {
		tr.start("--jwt-key", stageKey, "--jwt-leeway", "0s")
		c := dialRaw(tr.t, tr.s, "/ws?token="+token(3*time.Second), "")
		tr.ends(c)
		tr.see("/ws?errors=close")
		tr.ends(dialRaw(tr.t, tr.s, "/ws?errors=close", ""))
	},
	"Closed with 4500": func(tr *mishap) {
		tr.start("--api-key", stageKey)
		c := dialRaw(tr.t, tr.s, "/ws", "")
		id := c.welcomed()
		out, status := hubbub(tr.t, []string{"HUBBUB_API_KEY=" + stageKey}, "kick", "client:"+id, "--reason", "be kind", "--url", tr.s.http(""))
		if status != 0 {
			tr.t.Fatal(out)
		}
		tr.ends(c)
	},
	"Closed with 4501": func(tr *mishap) {
		url, _ := receiver(tr.t, hookSecret)
		tr.start("--hook-url", url, "--hook-events", "connect", "--webhook-secret", hookSecret)
		tr.ends(dialRaw(tr.t, tr.s, "/ws", ""))
	},
	"Closed with 4503": func(tr *mishap) {
		tr.start("--jwt-key", stageKey)
		tr.ends(dialRaw(tr.t, tr.s, "/ws?errors=close&token="+token(time.Hour)+"x", ""))
	},
	"1006: it ends while nobody speaks": func(tr *mishap) {
		tr.start("--trusted-proxies", "127.0.0.1", "--ping-interval", "1h")
		f := deploy(tr.t, "nginx", "TLS here, all paths", tr.s.addr, "proxy_read_timeout 75s", "proxy_read_timeout 1s")
		c := f.enter(tr.t)
		tr.ends(c)
		often := start(tr.t, "--trusted-proxies", "127.0.0.1", "--ping-interval", "1s")
		f = deploy(tr.t, "nginx", "TLS here, all paths", often.addr)
		c = f.enter(tr.t)
		c.write(text(`{"msg_type":"ping","id":1}`))
		c.message("pong")
	},
}

// isSlow has clients read nothing until one has been closed with a code and, if that is 4000, told so: the server waits a
// second for its Close to be taken, which may pass on a busy machine. With 1013 a message that is half sent is cut off.
func (tr *mishap) isSlow(code string) {
	tr.t.Helper()
	publisher := tr.enter()
	for end := time.Now().Add(patience); tr.saw.String() == "" || code == "4000" && !strings.Contains(tr.saw.String(), "close 4000"); {
		if time.Now().After(end) {
			tr.t.Fatal("nobody is told " + code)
		}
		before := scrape(tr.t, tr.s)[`hubbub_closed_total{code="`+code+`"}`]
		slow := tr.enter()
		if err := slow.Conn.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
			tr.t.Fatal(err)
		}
		slow.write(text(`{"msg_type":"join_room","room":"r","id":1}`))
		slow.message("joined")
		for n := 0; scrape(tr.t, tr.s)[`hubbub_closed_total{code="`+code+`"}`] == before; {
			n = flood(publisher, "r", n, 50*time.Millisecond)
		}
		tr.ends(slow)
	}
}

// codeStory provokes an error of the protocol: it returns the answer.
type codeStory func(tr *mishap) (answer string)

// said starts a server and says one thing to it.
func said(message string, flags ...string) codeStory {
	return func(tr *mishap) string {
		tr.start(flags...)
		return tr.tell(tr.enter(), message)
	}
}

// rules are flags for a server with these policies of rooms.
func rules(tr *mishap, text string) []string {
	return []string{"--config", configFile(tr.t, text)}
}

var errorCodes = map[string]codeStory{
	"bad_json":     said(`{"msg_type":"chat",}`),
	"bad_message":  said(`{"msg_type":"join_room","room":7}`),
	"unknown_type": said(`{"msg_type":"jion_room","room":"r"}`),
	"bad_room":     said(`{"msg_type":"join_room","room":" "}`),
	"too_deep":     said(`{"msg_type":"chat","content":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`),
	"binary": func(tr *mishap) string {
		tr.start()
		c := tr.enter()
		c.write(frame(fin|opBinary, "x"))
		return tr.hear(c)
	},
	"unknown_client": said(`{"msg_type":"direct_message","to":"0b0e8f1c-5d6e-4f70-8192-a3b4c5d6e7f8","content":1}`),
	"not_member": func(tr *mishap) string {
		return said(`{"msg_type":"room_message","room":"r","content":1}`, rules(tr, "rooms: [{match: r, publish: members}]\n")...)(tr)
	},
	"forbidden": func(tr *mishap) string {
		return said(`{"msg_type":"room_message","room":"r","content":1}`, rules(tr, "rooms: [{match: r, publish: server}]\n")...)(tr)
	},
	"bad_position": said(`{"msg_type":"history","room":"r","since":{"epoch":"old.1","offset":17},"id":1}`),
	"rate_limited": func(tr *mishap) string {
		tr.start("--config", configFile(tr.t, "limits:\n  client:\n    messages: 1/h burst 1\n"))
		c := tr.enter()
		tr.tell(c, `{"msg_type":"ping"}`)
		return tr.tell(c, `{"msg_type":"ping"}`)
	},
	"limit_reached": func(tr *mishap) string {
		tr.start("--max-rooms-per-client", "1")
		c := tr.enter()
		tr.tell(c, `{"msg_type":"join_room","room":"a","id":1}`)
		return tr.tell(c, `{"msg_type":"join_room","room":"b","id":2}`)
	},
	"overloaded": func(tr *mishap) string { // more direct messages than are kept for one who is away
		tr.start("--resume-window", "1h")
		away := dialRaw(tr.t, tr.s, "/ws", "")
		id := away.welcomed()
		away.Close()
		becomes(tr.t, tr.s, "hubbub_parked_sessions", 1)
		c := tr.enter()
		for range 100 {
			c.write(text(fmt.Sprintf(`{"msg_type":"direct_message","to":%q,"content":%q,"id":1}`, id, strings.Repeat("x", 10_000))))
			if answer := c.expect(fin | opText); !strings.HasPrefix(answer, `{"msg_type":"ack"`) {
				tr.see("%s", answer)
				return answer
			}
		}
		return ""
	},
	"unavailable": said(`{"msg_type":"request","method":"m","id":1}`),
	"timeout": func(tr *mishap) string {
		tr.broken()
		return tr.tell(tr.enter(), `{"msg_type":"wait","id":1}`)
	},
	"internal": func(tr *mishap) string {
		tr.broken()
		answer := tr.tell(tr.enter(), `{"msg_type":"fail","id":1}`)
		tr.s.says(tr.t, `msg="a hook failed"`)
		return answer
	},
}

// Each row of the page's table of codes is provoked, and the message that it quotes is what clients are told.
func TestTroubleshootingErrors(t *testing.T) {
	t.Parallel()
	_, table, found := strings.Cut(readDoc(t, "docs/troubleshooting.md").text, "\n| `code` |")
	if !found {
		t.Fatal("docs/troubleshooting.md has no table of codes")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	rows := map[string][]string{}
	for _, line := range strings.Split(table, "\n") {
		if cells := strings.Split(line, " | "); strings.HasPrefix(line, "| `") && len(cells) == 4 {
			rows[strings.Trim(cells[0], "| `")] = cells
		}
	}
	for code, provoke := range errorCodes {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			tr := &mishap{t: t}
			answer := provoke(tr)
			t.Log(tr.saw.String())
			if rows[code] == nil {
				t.Fatalf("docs/troubleshooting.md has no row for %s", code)
			}
			quotes := codeSpan.FindAllStringSubmatch(rows[code][1], -1)
			if len(quotes) == 0 || !strings.Contains(answer, `"code":"`+code+`"`) {
				t.Errorf("the answer is %s; the row quotes %v", answer, quotes)
			}
			for _, m := range quotes {
				if !has(answer, `"message":"…`+m[1]) {
					t.Errorf("the answer is %s, the page says %s", answer, m[1])
				}
			}
			if name := `hubbub_errors_total{code="` + code + `"}`; scrape(t, tr.s)[name] <= tr.before[name] {
				t.Errorf("%s didn't rise", name)
			}
		})
	}
	for code := range rows {
		if errorCodes[code] == nil {
			t.Errorf("nothing provokes %s", code)
		}
	}
}

// statusOf is what a GET is answered.
func statusOf(t *testing.T, url string) int {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode
}
