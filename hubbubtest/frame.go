package hubbubtest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"example.com/hubbub/internal/wsclient"
)

// maxMessage bounds what a client takes in one message, in bytes.
const maxMessage = 1 << 30

// mask is always the same: nothing between the two ends could be fooled.
var mask = [4]byte{0x37, 0xfa, 0x21, 0x3d}

// reader puts the server's frames together. It was offered no extension.
type reader struct {
	r     *bufio.Reader
	parts wsclient.Parts
}

// next is the next whole message or control frame. io.EOF is an end between two frames.
func (r *reader) next() (op wsclient.Opcode, payload []byte, err error) {
	for {
		f, err := wsclient.Read(r.r, maxMessage)
		whole := f.Op.Control()
		if err == nil && !whole {
			f, whole, err = r.parts.Add(f, maxMessage)
		}
		switch {
		case err != nil:
			return 0, nil, err
		case !whole:
			continue
		case f.Deflated:
			return 0, nil, wsclient.ErrDeflated
		case f.Op == wsclient.Text && !utf8.Valid(f.Payload):
			return 0, nil, errors.New("a text that is not UTF-8")
		}
		return f.Op, f.Payload, nil
	}
}

// RefusedError says that the server did not upgrade.
type RefusedError struct {
	Status int    // of HTTP
	Body   string // what came with it
	Header http.Header
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the server answered the handshake with %d: %s", e.Status, strings.TrimSpace(e.Body))
}

// handshake upgrades a connection, and returns the reader that has what came behind the answer.
func handshake(nc io.ReadWriter, path string, header http.Header) (*reader, error) {
	var lines strings.Builder
	header.Write(&lines)
	extra := slices.DeleteFunc(strings.Split(lines.String(), "\r\n"), func(line string) bool { return line == "" })
	if _, err := io.WriteString(nc, wsclient.Upgrade(host, path, extra...)); err != nil {
		return nil, err
	}
	r := bufio.NewReader(nc)
	answer, err := http.ReadResponse(r, nil)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(io.LimitReader(answer.Body, 4096))
		return nil, &RefusedError{answer.StatusCode, string(body), answer.Header}
	}
	if got := answer.Header.Get("Sec-WebSocket-Accept"); got != wsclient.Accept {
		return nil, fmt.Errorf("Sec-WebSocket-Accept is %q, want %q", got, wsclient.Accept)
	}
	return &reader{r: r}, nil
}
