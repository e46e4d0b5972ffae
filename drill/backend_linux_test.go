package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// Each fault that is planted in what the backend is told is found, and what is right is none.
func TestTheBackendFindsEachFault(t *testing.T) {
	verifier, err := standardwebhooks.NewWebhook(webhookSecret)
	if err != nil {
		t.Fatal(err)
	}
	right := []string{
		"1 node.started", "2 client.connected - c", "3 room.occupied r", "4 member.joined r c", "4 member.joined r c", "5 member.left r c",
		"6 room.vacated r", "7 client.disconnected - c", "8 client.connected - d", "9 room.occupied r", "10 node.started", "11 room.occupied r",
	}
	change := func(at int, to ...string) []string {
		return append(append(append([]string{}, right[:at]...), to...), right[at+1:]...)
	}
	for name, c := range map[string]struct {
		told  []string
		extra string
		fault string
	}{
		"nothing":                {told: right},
		"a hole":                 {told: change(5), fault: "seq 6 comes behind 4"},
		"two meanings":           {told: change(4, "4 member.joined r d"), fault: "seq 4 is"},
		"joined, not connected":  {told: change(1, "2 client.connected - x"), fault: "member.joined"},
		"vacated with a member":  {told: change(5, "5 client.connected - e"), fault: "room.vacated"},
		"occupied twice":         {told: change(6, "6 room.occupied r"), fault: "room.occupied"},
		"disconnected, not here": {told: change(7, "7 client.disconnected - x"), fault: "client.disconnected"},
		"an unknown event":       {told: change(7, "7 room.closed r"), fault: "room.closed"},
		"something dropped":      {told: right, extra: `"dropped":{"member.left":1},`, fault: "not told"},
	} {
		t.Run(name, func(t *testing.T) {
			b := &backend{verifier: verifier, rooms: map[string]map[string]bool{}, clients: map[string]bool{}}
			var events []string
			for _, line := range c.told {
				var seq uint64
				var kind, room, client string
				fmt.Sscan(line, &seq, &kind, &room, &client)
				e, _ := json.Marshal(map[string]any{"seq": seq, "type": kind, "room": strings.Trim(room, "-"), "client": client})
				events = append(events, string(e))
			}
			body := []byte("{" + c.extra + `"events":[` + strings.Join(events, ",") + "]}")
			signature, _ := verifier.Sign("msg_1", time.Now(), body)
			header := http.Header{}
			header.Set("webhook-id", "msg_1")
			header.Set("webhook-timestamp", fmt.Sprint(time.Now().Unix()))
			header.Set("webhook-signature", signature)
			b.take(body, header)
			faults := strings.Join(b.faults, "; ")
			if (faults == "") != (c.fault == "") || !strings.Contains(faults, c.fault) {
				t.Errorf("the faults are %q, want %q", faults, c.fault)
			}
			before := len(b.faults)
			b.take(append(body, ' '), header)
			if len(b.faults) != before+1 {
				t.Error("another's signature is no fault")
			}
		})
	}
}
