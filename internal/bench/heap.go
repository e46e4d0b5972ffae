package bench

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// heap asks a Hubbub's /metrics how much its Go heap holds: what lives, and what the collector has not got to yet. 0:
// it does not say.
func (r *runner) heap(ctx context.Context) int64 {
	if !r.o.hubbub || len(r.server.pids) == 0 {
		return 0
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	scheme := map[string]string{"ws": "http", "wss": "https"}[r.url.Scheme]
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+r.d.addr.String()+"/metrics", nil)
	if err != nil {
		return 0
	}
	request.Host = r.url.Host
	transport := &http.Transport{TLSClientConfig: r.d.tls, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK { // a body after 101 has no end, and does not end with ctx
		return 0
	}
	lines := bufio.NewScanner(io.LimitReader(response.Body, 1<<20))
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "go_memstats_heap_alloc_bytes "); ok {
			bytes, _ := strconv.ParseFloat(value, 64)
			return int64(bytes)
		}
	}
	return 0
}
