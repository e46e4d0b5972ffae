// Command webhook is a backend that Hubbub tells what happens. It verifies each request, knows what came already, and
// keeps which rooms are occupied. Try it:
//
//	export HUBBUB_WEBHOOK_SECRET="whsec_$(openssl rand -base64 32)" HUBBUB_API_KEY="$(openssl rand -hex 16)"
//	go run ./examples/webhook &
//	hubbub serve --webhook-url http://localhost:9000/
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"sync"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// receiver is what the backend knows of one node. A real one keeps it in its database, in one transaction a request.
type receiver struct {
	verifier *standardwebhooks.Webhook
	hubbub   string // for the snapshot, and the key of its API
	key      string

	mu    sync.Mutex
	node  string
	seq   uint64 // of what came last
	rooms map[string]bool
}

func (rc *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 8<<20))
	if err != nil || rc.verifier.Verify(body, r.Header) != nil {
		http.Error(w, "not signed by Hubbub", http.StatusUnauthorized)
		return
	}
	var told struct {
		Node             string
		Dropped, Missing json.RawMessage // there where something is not told
		Events           []struct {
			Type, Room string
			Seq        uint64
		}
	}
	if err := json.Unmarshal(body, &told); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	rc.mu.Lock()
	defer rc.mu.Unlock()
	unknown := rc.node != told.Node
	if unknown {
		rc.node, rc.seq, rc.rooms = told.Node, 0, map[string]bool{}
	}
	for _, e := range told.Events {
		switch {
		case e.Type == "node.started": // who was connected is not any more; without --data-dir seq begins anew
			clear(rc.rooms)
		case e.Seq <= rc.seq: // it came already
			continue
		case e.Type == "room.occupied":
			rc.rooms[e.Room] = true
		case e.Type == "room.vacated":
			delete(rc.rooms, e.Room)
		}
		rc.seq = e.Seq
	}
	if unknown || told.Dropped != nil || told.Missing != nil {
		if err := rc.mend(); err != nil {
			rc.node = ""                                              // all of it is to be mended then,
			http.Error(w, err.Error(), http.StatusServiceUnavailable) // when Hubbub sends this again
		}
	}
}

// mend reads from Hubbub itself which rooms are occupied.
func (rc *receiver) mend() error {
	clear(rc.rooms)
	for page := (struct {
		Rooms []struct {
			Room    string
			Members int
		}
		More bool
	}{More: true}); page.More; {
		after := ""
		if n := len(page.Rooms); n > 0 {
			after = page.Rooms[n-1].Room
		}
		req, err := http.NewRequest(http.MethodGet, rc.hubbub+"/api/v1/rooms?limit=1000&after="+url.QueryEscape(after), nil)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+rc.key)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		page.Rooms, page.More = nil, false
		err = json.NewDecoder(resp.Body).Decode(&page)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("the snapshot: status %d, %w", resp.StatusCode, err)
		}
		for _, r := range page.Rooms {
			if r.Members > 0 {
				rc.rooms[r.Room] = true
			}
		}
	}
	return nil
}

func main() {
	verifier, err := standardwebhooks.NewWebhook(os.Getenv("HUBBUB_WEBHOOK_SECRET"))
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe("localhost:9000", &receiver{verifier: verifier, hubbub: "http://localhost:8080", key: os.Getenv("HUBBUB_API_KEY")}))
}
