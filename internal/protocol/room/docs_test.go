package room

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"

	"example.com/hubbub/internal/protocol"
)

// block is one fenced block of docs/protocol.md; info is what stands behind the fence.
type block struct{ info, text string }

func readDocument(t *testing.T) (document string, blocks []block) {
	t.Helper()
	text, err := os.ReadFile("../../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(text), "```")
	for i := 1; i < len(parts); i += 2 {
		info, text, _ := strings.Cut(parts[i], "\n")
		blocks = append(blocks, block{info, strings.TrimSpace(text)})
	}
	return string(text), blocks
}

func TestTheDocumentsExamplesAreWhatTheCodeDoes(t *testing.T) {
	_, blocks := readDocument(t)
	seen := map[string]bool{}
	for _, b := range blocks {
		if !strings.HasPrefix(b.info, "json ") {
			continue
		}
		for line := range strings.Lines(b.text) {
			line = strings.TrimSpace(line)
			if b.info == "json server" {
				var m message
				if err := json.Unmarshal([]byte(line), &m); err != nil {
					t.Errorf("%s: %v", line, err)
				}
				if got := encode(m); string(got) != line {
					t.Errorf("the document says %s\nthe code says     %s", line, got)
				}
				seen["server "+m.MsgType] = true
				continue
			}
			var c decoding
			err, want := decode([]byte(line), &c), strings.TrimPrefix(b.info, "json client")
			got := ""
			if err != nil {
				got = " error=" + err.Code.String()
			}
			if got != want {
				t.Errorf("%s: got %v, the document says%s", line, err, want)
			}
			seen["client "+string(c.Type)] = true
		}
	}
	for _, kind := range strings.Fields("chat join_room leave_room room_message direct_message presence history ping resume refresh request") {
		if !seen["client "+kind] {
			t.Errorf("the document has no example of a client's %s", kind)
		}
	}
	for _, kind := range strings.Fields("welcome chat room_message direct_message joined left ack history gap deleted presence member_joined member_left resumed pong error reconnect refreshed response") {
		if !seen["server "+kind] {
			t.Errorf("the document has no example of the server's %s", kind)
		}
	}
}

// The frames are read by RFC 6455 5.2 here, and not by internal/wire, which lies beside this package.
func TestTheDocumentsFramesHoldItsMessages(t *testing.T) {
	_, blocks := readDocument(t)
	frames := 0
	for i, b := range blocks {
		if !strings.HasPrefix(b.info, "hex ") {
			continue
		}
		frames++
		raw, err := hex.DecodeString(strings.Join(strings.Fields(b.text), ""))
		if err != nil || len(raw) < 2 || raw[0]&0xf0 != 0x80 || int(raw[1]&0x7f) > 125 {
			t.Fatalf("%s: %v", b.text, err)
		}
		masked, payload := raw[1]&0x80 != 0, raw[2:]
		if masked != (b.info == "hex client") {
			t.Errorf("%s: masked is %v", b.text, masked)
		}
		if masked {
			mask := payload[:4]
			payload = bytes.Clone(payload[4:])
			for k := range payload {
				payload[k] ^= mask[k%4]
			}
		}
		if len(payload) != int(raw[1]&0x7f) {
			t.Errorf("%s: %d bytes, the header says %d", b.text, len(payload), raw[1]&0x7f)
		}
		switch raw[0] & 0xf {
		case 1:
			if next := blocks[i+1]; next.text != string(payload) || next.info[len("json "):] != b.info[len("hex "):] {
				t.Errorf("the frame holds %s, below it stands %s", payload, next.text)
			}
		case 8:
			if binary.BigEndian.Uint16(payload) != protocol.CloseNoSignOfLife {
				t.Errorf("%s: closes with %d", b.text, binary.BigEndian.Uint16(payload))
			}
		}
	}
	if frames != 16 {
		t.Errorf("%d frames", frames)
	}
}

func TestTheDocumentsHandshakeIsReal(t *testing.T) {
	document, _ := readDocument(t)
	_, rest, _ := strings.Cut(document, "Sec-WebSocket-Key: ")
	key, rest, _ := strings.Cut(rest, "\n")
	_, rest, _ = strings.Cut(rest, "Sec-WebSocket-Accept: ")
	accept, _, _ := strings.Cut(rest, "\n")
	// RFC 6455 1.3 names this GUID.
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	if want := base64.StdEncoding.EncodeToString(sum[:]); accept != want {
		t.Errorf("Sec-WebSocket-Accept is %s, want %s", accept, want)
	}
}

// An application that took one of the page's names for messages of its own would be understood by nobody.
func TestNoApplicationMayTakeTheDocumentsNames(t *testing.T) {
	document, _ := readDocument(t)
	names := map[string]bool{}
	for _, heading := range []string{"\n## What a client sends\n", "\n## What the server sends\n"} {
		_, rest, _ := strings.Cut(document, heading)
		table, _, _ := strings.Cut(rest, "\n\n```")
		for line := range strings.Lines(table) {
			cells := strings.Split(line, "|")
			for i, name := range strings.Split(cells[min(1, len(cells)-1)], "`") {
				if i%2 == 1 && len(cells) > 2 {
					names[name] = true
				}
			}
		}
	}
	if len(names) < 20 {
		t.Fatalf("found %d names", len(names))
	}
	for name := range names {
		if !Defined(name) && name != "msg_type" {
			t.Errorf("an application may take %q", name)
		}
	}
	if Defined("move") || Defined("") {
		t.Error("an application may take no name")
	}
}

func TestTheDocumentsTablesAreComplete(t *testing.T) {
	document, _ := readDocument(t)
	_, document, _ = strings.Cut(document, "\n## Errors\n")
	for c := protocol.BadJSON; c <= protocol.Internal; c++ {
		row := "| `" + c.String() + "` |"
		_, rest, found := strings.Cut(document, row)
		line, _, _ := strings.Cut(rest, "\n")
		if !found || !strings.HasSuffix(line, "| "+strconv.FormatBool(c.Retry())+" |") {
			t.Errorf("the row of %s: %s", c, line)
		}
	}
	for _, code := range []int{protocol.CloseSlowConsumer, protocol.CloseTakenOver, protocol.CloseNoSignOfLife, protocol.CloseTokenExpired, protocol.CloseKicked, protocol.CloseRefused, protocol.CloseForbidden} {
		_, rest, found := strings.Cut(document, "\n| "+strconv.Itoa(code)+" |")
		line, _, _ := strings.Cut(rest, "\n")
		if !found || strings.Contains(line, "| come back") != (code < 4500) {
			t.Errorf("the row of %d: %s", code, line)
		}
	}
}
