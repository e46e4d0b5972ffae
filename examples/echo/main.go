// Echo is the smallest server: every message comes back as it was sent.
//
//	go run ./examples/echo
package main

import (
	"log"
	"net/http"

	"example.com/hubbub"
)

func main() {
	srv, err := hubbub.New(hubbub.Config{})
	if err != nil {
		log.Fatal(err)
	}
	log.Print("ws://localhost:8080")
	log.Fatal(http.ListenAndServe(":8080", srv.Echo()))
}
