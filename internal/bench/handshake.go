package bench

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strings"

	"example.com/hubbub/internal/wire"
)

// maxHead bounds the server's answer to the handshake.
const maxHead = 16 << 10

// refusal is an answer to the handshake that is no upgrade.
type refusal struct {
	status string // the status line without the version: "503 Service Unavailable"
	body   string // the beginning of what came with it
}

func (r *refusal) Error() string {
	if r.body == "" {
		return "refused with " + r.status
	}
	return "refused with " + r.status + ": " + r.body
}

// upgrade does the handshake of RFC 6455 on a connection whose deadline is set. rest is what came behind the answer.
func (d *dialer) upgrade(nc net.Conn) (rest []byte, deflate bool, err error) {
	var nonce [16]byte
	rand.Read(nonce[:]) // never fails
	key := base64.StdEncoding.EncodeToString(nonce[:])
	request := make([]byte, 0, len(d.head)+len(key)+4)
	request = append(append(append(request, d.head...), key...), "\r\n\r\n"...)
	if _, err := nc.Write(request); err != nil {
		return nil, false, err
	}
	head, rest, err := readHead(nc)
	if err != nil {
		return nil, false, err
	}
	deflate, err = d.checkAnswer(head, rest, key)
	return rest, deflate, err
}

// readHead reads up to and with the empty line.
func readHead(nc net.Conn) (head, rest []byte, err error) {
	buf := make([]byte, 1024)
	have := 0
	for {
		n, err := nc.Read(buf[have:])
		have += n
		if i := bytes.Index(buf[:have], []byte("\r\n\r\n")); i >= 0 {
			return buf[:i], buf[i+4 : have], nil
		}
		switch {
		case err != nil:
			return nil, nil, err
		case have == maxHead:
			return nil, nil, fmt.Errorf("the answer's head has more than %d bytes", maxHead)
		case have == len(buf):
			buf = append(buf, make([]byte, min(len(buf), maxHead-have))...)
		}
	}
}

// checkAnswer holds the answer against RFC 6455 4.1, and says whether compression was agreed on.
func (d *dialer) checkAnswer(head, body []byte, key string) (deflate bool, err error) {
	lines := strings.Split(string(head), "\r\n")
	version, status, _ := strings.Cut(lines[0], " ")
	if !strings.HasPrefix(version, "HTTP/1.") {
		return false, errors.New("the server does not speak HTTP/1.1")
	}
	if code, _, _ := strings.Cut(status, " "); code != "101" {
		return false, &refusal{status: status, body: strings.TrimSpace(string(body[:min(len(body), 200)]))}
	}
	var upgrade, connection, accepted bool
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.ToLower(name) {
		case "upgrade":
			upgrade = strings.EqualFold(value, "websocket")
		case "connection":
			for token := range strings.SplitSeq(value, ",") {
				connection = connection || strings.EqualFold(strings.TrimSpace(token), "upgrade")
			}
		case "sec-websocket-accept":
			accepted = value == wire.Accept(key)
		case "sec-websocket-extensions":
			if deflate, err = agreedDeflate(value); err == nil && deflate && !d.compression {
				err = errors.New("the server compresses without an offer")
			}
			if err != nil {
				return false, err
			}
		}
	}
	switch {
	case !upgrade || !connection:
		return false, errors.New("the answer 101 has no Upgrade: websocket, or no Connection: Upgrade")
	case !accepted:
		return false, errors.New("the answer's Sec-WebSocket-Accept is missing or wrong")
	}
	return deflate, nil
}

// deflateOffer asks that every message stand alone, in both directions.
const deflateOffer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

// agreedDeflate reads the answer to deflateOffer.
func agreedDeflate(value string) (bool, error) {
	name, params, _ := strings.Cut(value, ";")
	fresh := false
	for p := range strings.SplitSeq(params, ";") {
		p, _, _ := strings.Cut(strings.TrimSpace(p), "=")
		switch p {
		// A smaller window of its own is the server's affair.
		case "", "client_no_context_takeover", "server_max_window_bits":
		case "server_no_context_takeover":
			fresh = true
		default:
			return false, fmt.Errorf("the server answers Sec-WebSocket-Extensions: %s, which was not offered", value)
		}
	}
	if strings.TrimSpace(name) != "permessage-deflate" || !fresh {
		return false, fmt.Errorf("the server answers Sec-WebSocket-Extensions: %s; the offer was %s", value, deflateOffer)
	}
	return true, nil
}
