package hubbubtest

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub"
)

// Probes, scrapes and upgrades don't wait for those who don't read what they asked for, and these have their ten seconds
// all the same.
func TestNobodyWaitsForSlowReaders(t *testing.T) {
	for _, slow := range []string{"/metrics", "/", "/healthz", "/readyz"} {
		t.Run(slow, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := NewServer(t, hubbub.Config{})
				began := time.Now()
				for range 300 { // more than may be between Accept and the upgrade
					l, err := srv.network.dial(t.Context(), srv.nextAddr(""), 1)
					if err != nil {
						t.Fatal(err)
					}
					defer l.Cut()
					fmt.Fprintf(l.client, "GET %s HTTP/1.1\r\nHost: a.example\r\n\r\n", slow)
				}
				for _, path := range []string{"/healthz", "/readyz", "/metrics", "/"} {
					r, err := srv.HTTPClient().Get("http://a.example" + path)
					if err != nil {
						t.Fatal(err)
					}
					io.Copy(io.Discard, r.Body)
					r.Body.Close()
					if r.StatusCode != http.StatusOK && path != slow { // those have as many places as they need, and no more
						t.Errorf("%s: %s", path, r.Status)
					}
				}
				srv.Connect("ann")
				if took := time.Since(began); took > 0 {
					t.Errorf("they wait for %s", took)
				}
			})
		})
	}
}
