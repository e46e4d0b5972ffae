package api

import (
	"net/http"
	"slices"
	"sync/atomic"
)

// answers are the statuses of answers; what isn't among them is counted as the last.
var answers = []int{
	http.StatusOK, http.StatusNoContent, http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound,
	http.StatusMethodNotAllowed, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusTooManyRequests,
	http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusInternalServerError,
}

// counts are of answers since the start. Any goroutine.
type counts struct {
	calls        []atomic.Int64 // by route and status, those of no route last
	unauthorized atomic.Int64
	tails        atomic.Int64 // that are open
}

func newCounts() counts { return counts{calls: make([]atomic.Int64, (len(routes)+1)*len(answers))} }

// add counts an answer; to is nil for what is no call.
func (c *counts) add(to *route, status int) {
	call := len(routes)
	if to != nil {
		call = to.index
	}
	answer := slices.Index(answers, status)
	if answer < 0 {
		answer = len(answers) - 1
	}
	c.calls[call*len(answers)+answer].Add(1)
}

// CallCount is how often a call was answered with a status. Call is "none" for what is no call.
type CallCount struct {
	Call   string
	Status int
	Count  int64
}

// Counts are all answers so far, and of each call that of its success in any case; how many calls had no key that
// counts; and how many tails are open.
func (a *API) Counts() (calls []CallCount, unauthorized, tails int64) {
	for i := range a.counts.calls {
		call, status := i/len(answers), answers[i%len(answers)]
		name, usual := "none", http.StatusNotFound
		if call < len(routes) {
			name, usual = routes[call].name, routes[call].success()
		}
		if n := a.counts.calls[i].Load(); n > 0 || status == usual {
			calls = append(calls, CallCount{name, status, n})
		}
	}
	return calls, a.counts.unauthorized.Load(), a.counts.tails.Load()
}
