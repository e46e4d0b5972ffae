// Command webhook is a backend that Hubbub tells what happens. It verifies each request, knows what came already, and
// keeps which rooms are occupied; snapshot.go mends that where something was not told. Try it:
//
//	export HUBBUB_WEBHOOK_SECRET="whsec_$(openssl rand -base64 32)" HUBBUB_API_KEY="$(openssl rand -hex 16)"
//	go run ./examples/webhook &
//	hubbub serve --webhook-url http://localhost:9000/
package main

import (
	"encoding/json"
	"io"
	"log"
	"net/http"
	"os"
	"sync"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// receiver is what the backend knows of one node. A real one keeps it in its database, in one transaction a request.
type receiver struct {
	verifier    *standardwebhooks.Webhook
	hubbub, key string // for the snapshot

	mu    sync.Mutex
	node  string
	seq   uint64 // of what came last
	rooms map[string]bool
}

// told is the body of a request.
type told struct {
	Node             string
	Dropped, Missing json.RawMessage // there where something is not told
	Events           []struct {
		Type, Room string
		Seq        uint64
	}
}

func (rc *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var t told
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 8<<20))
	if err != nil || rc.verifier.Verify(body, r.Header) != nil || json.Unmarshal(body, &t) != nil {
		http.Error(w, "not signed by Hubbub", http.StatusUnauthorized)
		return
	}
	rc.mu.Lock()
	defer rc.mu.Unlock()
	unknown := rc.node != t.Node
	if unknown {
		rc.node, rc.seq, rc.rooms = t.Node, 0, map[string]bool{}
	}
	for _, e := range t.Events {
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
	if unknown || t.Dropped != nil || t.Missing != nil {
		if rc.rooms, err = occupied(rc.hubbub, rc.key); err != nil {
			rc.node = ""                                              // all of it is to be mended then,
			http.Error(w, err.Error(), http.StatusServiceUnavailable) // when Hubbub sends this again
		}
	}
}

func main() {
	verifier, err := standardwebhooks.NewWebhook(os.Getenv("HUBBUB_WEBHOOK_SECRET"))
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe("localhost:9000", &receiver{verifier: verifier, hubbub: "http://localhost:8080", key: os.Getenv("HUBBUB_API_KEY")}))
}
