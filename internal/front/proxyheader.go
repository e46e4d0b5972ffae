package front

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// The header of the PROXY protocol, versions 1 and 2, by haproxy.org/download/3.0/doc/proxy-protocol.txt. Nothing is read
// beyond it: what follows it is TLS's or HTTP's, and later the loop's, which takes the bare descriptor. That, and the
// bounds, is why this is no library's; the tests hold it against one.

const (
	signatureV2 = "\r\n\r\n\x00\r\nQUIT\n"
	prefixV1    = "PROXY "
	// maxV1 is its section 2.1's; the lines of TCP have 15 bytes at least, so whatever it is, 12 can be read.
	maxV1 = 107
	// maxV2 bounds what follows version 2's first 16 bytes. Addresses take 216 at most; certificates of clients, which
	// some proxies add, 1 to 2 KiB.
	maxV2 = 4096
)

// sourceKind says what a header tells of the client.
type sourceKind uint8

const (
	sourceKnown   sourceKind = iota
	sourceProxy              // none: the proxy asks on its own behalf, such as a probe
	sourceUnknown            // one that has no address of TCP, or that the proxy doesn't tell
)

// source is on whose behalf a proxy connects.
type source struct {
	kind sourceKind
	addr netip.AddrPort // where it is known
}

var errNoProxyHeader = errors.New("there is no header of the PROXY protocol")

// readProxyHeader reads a header and not a byte more.
func readProxyHeader(r io.Reader) (source, error) {
	var begin [len(signatureV2)]byte
	if _, err := io.ReadFull(r, begin[:]); err != nil {
		return source{}, err
	}
	switch {
	case string(begin[:]) == signatureV2:
		return readV2(r)
	case strings.HasPrefix(string(begin[:]), prefixV1):
		return readV1(r, begin[:])
	}
	return source{}, errNoProxyHeader
}

func readV1(r io.Reader, begin []byte) (source, error) {
	line := append(make([]byte, 0, maxV1), begin...)
	for !strings.HasSuffix(string(line), "\r\n") {
		if len(line) == maxV1 {
			return source{}, fmt.Errorf("its line has no end in %d bytes", maxV1)
		}
		if _, err := io.ReadFull(r, line[len(line):len(line)+1]); err != nil {
			return source{}, err
		}
		line = line[:len(line)+1]
	}
	return parseV1(string(line[:len(line)-2]))
}

// parseV1 takes "PROXY TCP4 SOURCE DESTINATION SOURCE-PORT DESTINATION-PORT", without the line's end.
func parseV1(line string) (source, error) {
	words := strings.Split(line, " ")
	if words[1] == "UNKNOWN" { // "the receiver must ignore anything presented before the CRLF"
		return source{kind: sourceUnknown}, nil
	}
	if len(words) != 6 || words[1] != "TCP4" && words[1] != "TCP6" {
		return source{}, fmt.Errorf("its line, %.*q, isn't of version 1", maxV1, line)
	}
	var addrs [2]netip.AddrPort
	for i := range addrs {
		a, err := netip.ParseAddr(words[2+i])
		if err != nil || a.Is6() != (words[1] == "TCP6") || a.Zone() != "" {
			return source{}, fmt.Errorf("%q is no address of %s", words[2+i], words[1])
		}
		port := words[4+i]
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || len(port) > 1 && port[0] == '0' {
			return source{}, fmt.Errorf("%q is no port", port)
		}
		addrs[i] = netip.AddrPortFrom(a.Unmap(), uint16(n))
	}
	return source{addr: addrs[0]}, nil
}

// The bytes of version 2: its version and command, then its family and transport.
const (
	commandLocal = 0x20
	commandProxy = 0x21

	overTCP4 = 0x11
	overTCP6 = 0x21
)

// families are what section 2.2 defines, with the bytes of their addresses.
var families = map[byte]int{0x00: 0, overTCP4: 12, 0x12: 12, overTCP6: 36, 0x22: 36, 0x31: 216, 0x32: 216}

func readV2(r io.Reader) (source, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return source{}, err
	}
	command, family, size := head[0], head[1], int(binary.BigEndian.Uint16(head[2:]))
	least, defined := families[family]
	switch {
	case command != commandLocal && command != commandProxy:
		return source{}, fmt.Errorf("it has the version and command %#02x", command)
	case !defined: // "must be rejected as invalid by receivers"
		return source{}, fmt.Errorf("it has the family and transport %#02x", family)
	case size > maxV2:
		return source{}, fmt.Errorf("it has %d bytes, more than %d", size, maxV2)
	case command == commandProxy && size < least:
		return source{}, fmt.Errorf("it has %d bytes, and its addresses have %d", size, least)
	}
	var addrs [36]byte
	n := min(size, len(addrs))
	if _, err := io.ReadFull(r, addrs[:n]); err != nil {
		return source{}, err
	}
	if _, err := io.CopyN(io.Discard, r, int64(size-n)); err != nil { // TLVs
		return source{}, err
	}
	switch {
	case command == commandLocal:
		return source{kind: sourceProxy}, nil
	case family == overTCP4:
		a := netip.AddrFrom4([4]byte(addrs[:4]))
		return source{addr: netip.AddrPortFrom(a, binary.BigEndian.Uint16(addrs[8:]))}, nil
	case family == overTCP6:
		a := netip.AddrFrom16([16]byte(addrs[:16])).Unmap()
		return source{addr: netip.AddrPortFrom(a, binary.BigEndian.Uint16(addrs[32:]))}, nil
	}
	return source{kind: sourceUnknown}, nil
}
