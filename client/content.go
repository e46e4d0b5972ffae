package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is the protocol's, of a message with its content.
const maxDepth = 128

// contentOf is v as JSON, where the server takes it. For the rest of what json takes the server would close the
// connection for good, or answer without saying what.
func contentOf(v any) (json.RawMessage, error) {
	raw, err := encode(v)
	if err == nil {
		err = checkContent(raw)
	}
	if err != nil {
		return nil, fmt.Errorf("content: %w", err)
	}
	return raw, nil
}

// checkContent holds what is JSON to the protocol's own rules.
func checkContent(raw []byte) error {
	if !utf8.Valid(raw) {
		return errors.New("it is no UTF-8")
	}
	depth, text := 1, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case c == '"':
			text = !text
		case c == '\\':
			n := escaped(raw[i:])
			if n == 0 {
				return errors.New("it has half of a surrogate pair")
			}
			i += n - 1
		case text:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return fmt.Errorf("it is more than %d levels deep", maxDepth-1)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

// escaped is how long the escape at the front of b is; 0 for half of a surrogate pair.
func escaped(b []byte) int {
	unit := func(b []byte) rune {
		if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
			return -1
		}
		n, _ := strconv.ParseUint(string(b[2:6]), 16, 16)
		return rune(n)
	}
	first := unit(b)
	switch {
	case first < 0:
		return 2
	case !utf16.IsSurrogate(first):
		return 6
	case utf16.DecodeRune(first, unit(b[6:])) == utf8.RuneError:
		return 0
	}
	return 12
}
