package front

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/pires/go-proxyproto"
)

// header is one of version 2.
func header(command, family byte, size int, rest string) string {
	return signatureV2 + string([]byte{command, family, byte(size >> 8), byte(size)}) + rest
}

const (
	four  = "\xcb\x00\x71\x09\x0a\x00\x00\x01\x04\xd2\x01\xbb" // 203.0.113.9:1234 to 10.0.0.1:443
	six   = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x09\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x04\xd2\x01\xbb"
	noTLV = "\x04\x00\x03\x00\x00\x00" // PP2_TYPE_NOOP, three bytes
)

func TestHeadersOfTheProxyProtocol(t *testing.T) {
	known := func(addr string) source { return source{addr: netip.MustParseAddrPort(addr)} }
	proxy, unknown := source{kind: sourceProxy}, source{kind: sourceUnknown}
	unix := strings.Repeat("/", 216)
	for name, tt := range map[string]struct {
		header string
		want   source
	}{
		"IPv4":                          {"PROXY TCP4 203.0.113.9 10.0.0.1 1234 443\r\n", known("203.0.113.9:1234")},
		"IPv6":                          {"PROXY TCP6 2001:db8::9 2001:db8::1 1234 443\r\n", known("[2001:db8::9]:1234")},
		"IPv4 in IPv6":                  {"PROXY TCP6 ::ffff:203.0.113.9 ::1 1234 443\r\n", known("203.0.113.9:1234")},
		"the longest line":              {"PROXY UNKNOWN " + strings.Repeat("f", 107-16) + "\r\n", unknown},
		"unknown":                       {"PROXY UNKNOWN\r\n", unknown},
		"version 2, IPv4":               {header(0x21, 0x11, 12, four), known("203.0.113.9:1234")},
		"version 2, IPv6":               {header(0x21, 0x21, 36, six), known("[2001:db8::9]:1234")},
		"version 2, IPv4 with TLVs":     {header(0x21, 0x11, 18, four+noTLV), known("203.0.113.9:1234")},
		"version 2, many TLVs":          {header(0x21, 0x11, 4096, four+strings.Repeat("x", 4084)), known("203.0.113.9:1234")},
		"version 2, LOCAL":              {header(0x20, 0x00, 0, ""), proxy},
		"version 2, LOCAL with a block": {header(0x20, 0x11, 3, "abc"), proxy},
		"version 2, no family":          {header(0x21, 0x00, 3, "abc"), unknown},
		"version 2, a Unix socket":      {header(0x21, 0x31, 216, unix), unknown},
		"version 2, datagrams":          {header(0x21, 0x12, 12, four), unknown},
		"version 2, datagrams, IPv6":    {header(0x21, 0x22, 36, six), unknown},
		"version 2, Unix datagrams":     {header(0x21, 0x32, 216, unix), unknown},
	} {
		for _, way := range []string{"at once", "byte by byte"} {
			r := io.Reader(strings.NewReader(tt.header + "GET /"))
			if way == "byte by byte" {
				r = iotest.OneByteReader(r)
			}
			got, err := readProxyHeader(r)
			rest, _ := io.ReadAll(r)
			if err != nil || got != tt.want || string(rest) != "GET /" {
				t.Errorf("%s, %s: %v, %v, and %q is left", name, way, got, err, rest)
			}
		}
		for n := range len(tt.header) {
			if _, err := readProxyHeader(strings.NewReader(tt.header[:n])); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%s cut after %d bytes: %v", name, n, err)
			}
		}
	}
	for name, bad := range map[string]string{
		"HTTP":                      "GET / HTTP/1.1\r\n\r\n",
		"small letters":             "proxy TCP4 203.0.113.9 10.0.0.1 1234 443\r\n",
		"another protocol":          "PROXY UDP4 203.0.113.9 10.0.0.1 1234 443\r\n",
		"IPv6 as IPv4":              "PROXY TCP4 2001:db8::9 2001:db8::1 1234 443\r\n",
		"IPv4 as IPv6":              "PROXY TCP6 203.0.113.9 10.0.0.1 1234 443\r\n",
		"a zone":                    "PROXY TCP6 fe80::1%a fe80::2 1234 443\r\n",
		"a word too many":           "PROXY TCP4 203.0.113.9 10.0.0.1 1234 443 1\r\n",
		"two blanks":                "PROXY TCP4  203.0.113.9 10.0.0.1 1234 443\r\n",
		"a port with a zero":        "PROXY TCP4 203.0.113.9 10.0.0.1 01234 443\r\n",
		"a port too large":          "PROXY TCP4 203.0.113.9 10.0.0.1 65536 443\r\n",
		"no destination":            "PROXY TCP4 203.0.113.9 x 1234 443\r\n",
		"a line too long":           "PROXY UNKNOWN " + strings.Repeat("f", 200) + "\r\n",
		"a line without a CR":       "PROXY TCP4 203.0.113.9 10.0.0.1 1234 443\n" + strings.Repeat("x", 107),
		"version 3":                 header(0x31, 0x11, 12, four),
		"another command":           header(0x22, 0x11, 12, four),
		"another family":            header(0x21, 0x41, 12, four),
		"another transport":         header(0x21, 0x13, 12, four),
		"too short for its address": header(0x21, 0x11, 11, four),
		"too long":                  header(0x21, 0x11, 4097, four+strings.Repeat("x", 5000)),
	} {
		if got, err := readProxyHeader(strings.NewReader(bad)); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// Whatever comes, we take what the reference takes, read as many bytes of it, and see the same client.
func FuzzProxyHeader(f *testing.F) {
	for _, s := range []string{
		"", "GET / HTTP/1.1\r\n", "PROXY UNKNOWN\r\n", "PROXY UNKNOWN x y\r\nrest", "PROXY TCP4 203.0.113.9 10.0.0.1 1234 443\r\n", "PROXY TCP6 2001:db8::9 ::1 1 2\r\nrest",
		header(0x21, 0x11, 12, four), header(0x21, 0x21, 36, six), header(0x21, 0x11, 18, four+noTLV), header(0x20, 0, 0, ""), header(0x20, 0x11, 3, "abc"),
		header(0x21, 0x31, 216, strings.Repeat("/", 216)), header(0x21, 0x00, 0, ""), header(0x21, 0x12, 12, four), header(0x21, 0x11, 0xffff, four),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		got, err := readProxyHeader(r)
		theirs := bufio.NewReaderSize(bytes.NewReader(b), 1<<17)
		want, wantErr := proxyproto.Read(theirs)
		if err == nil && got.kind == sourceUnknown && wantErr != nil {
			return // PROXY without a family: the standard leaves it open, and the reference refuses
		}
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: we say %v, the reference %v", b, err, wantErr)
		}
		if err != nil {
			return
		}
		left, _ := io.Copy(io.Discard, theirs)
		if int64(r.Len()) != left {
			t.Fatalf("%q: we leave %d bytes, the reference %d", b, r.Len(), left)
		}
		tcp, ok := want.SourceAddr.(*net.TCPAddr)
		ok = ok && !want.Command.IsLocal()
		if ok != (got.kind == sourceKnown) || ok && unmapped(tcp.AddrPort()) != got.addr {
			t.Fatalf("%q: we see %v, the reference %v", b, got, want)
		}
	})
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
