package client

import (
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// maxRetryAfter is the longest that a client waits because somebody says so.
const maxRetryAfter = 10 * time.Minute

// refusal is what an answer says that isn't 101: why, and after how long to come back, -1 where it doesn't say.
func refusal(answer *http.Response) (refused *HandshakeError, after time.Duration) {
	refused = &HandshakeError{Status: answer.StatusCode, Detail: http.StatusText(answer.StatusCode)}
	var problem struct{ Detail string }
	var body []byte
	if answer.Body != nil {
		body, _ = io.ReadAll(io.LimitReader(answer.Body, 4<<10))
	}
	if json.Unmarshal(body, &problem) == nil && problem.Detail != "" {
		refused.Detail = problem.Detail
	}
	return refused, retryAfter(answer.Header.Get("Retry-After"), time.Now())
}

// retryAfter reads the header of this name. As it counts whole seconds, less than one more is added, at random: a crowd
// that was told the same doesn't come back as one.
func retryAfter(header string, now time.Time) time.Duration {
	var d time.Duration
	if seconds, err := strconv.ParseUint(header, 10, 31); err == nil {
		d = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(header); err == nil {
		d = max(0, at.Sub(now))
	} else {
		return -1
	}
	return min(d, maxRetryAfter) + rand.N(time.Second)
}
