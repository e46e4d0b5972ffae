package main

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/centrifugal/centrifuge"
)

// serve is what Hubbub is compared with.
func serve(name, addr string) {
	var h http.Handler
	switch name {
	case "bare":
		h = http.HandlerFunc(bare)
	case "centrifuge":
		h = rival()
	default:
		log.Fatalf("%s: use bare or centrifuge", name)
	}
	log.Fatal((&http.Server{Addr: addr, Handler: h, ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute, IdleTimeout: 30 * time.Second}).ListenAndServe())
}

var count atomic.Int64

// bare reads the body and writes as much as Hubbub does.
func bare(w http.ResponseWriter, r *http.Request) {
	if _, err := io.ReadAll(r.Body); err != nil {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(append(strconv.AppendInt([]byte(`{"epoch":"ABCDEFGHIJKL.1","offset":`), count.Add(1), 10), '}'))
}

// rival is the same call on Centrifugo's library: a key, strict enough JSON, a channel with a history of a hundred.
func rival() http.Handler {
	node, err := centrifuge.New(centrifuge.Config{})
	if err != nil {
		log.Fatal(err)
	}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{Credentials: &centrifuge.Credentials{}}, nil
	})
	if err := node.Run(); err != nil {
		log.Fatal(err)
	}
	want := sha256.Sum256([]byte(key))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent := sha256.Sum256([]byte(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")))
		if subtle.ConstantTimeCompare(sent[:], want[:]) != 1 {
			http.Error(w, "unauthorized", http.StatusUnauthorized)
			return
		}
		var call struct {
			Room    string          `json:"room"`
			Content json.RawMessage `json:"content"`
		}
		d := json.NewDecoder(r.Body)
		d.DisallowUnknownFields()
		if err := d.Decode(&call); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		got, err := node.Publish(call.Room, call.Content, centrifuge.WithHistory(100, 2*time.Minute))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{"epoch": got.Epoch, "offset": got.Offset})
	})
}
