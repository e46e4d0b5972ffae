package wsclient

// Key and Accept are the Sec-WebSocket-Key of Upgrade and what answers it: RFC 6455's own sample (1.3).
const (
	Key    = "dGhlIHNhbXBsZSBub25jZQ=="
	Accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

// Upgrade is a good handshake, whole; extra are more header lines ("Origin: http://a.example").
func Upgrade(host, target string, extra ...string) string {
	head := "GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: " + Key + "\r\nSec-WebSocket-Version: 13\r\n"
	for _, line := range extra {
		head += line + "\r\n"
	}
	return head + "\r\n"
}
