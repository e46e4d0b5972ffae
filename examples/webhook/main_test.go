package main

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
)

func TestMain(m *testing.M) { rawtest.Main(m) }

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// knows are the rooms that the receiver takes for occupied.
func (rc *receiver) knows() []string {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	return slices.Sorted(maps.Keys(rc.rooms))
}

func TestTheReceiverKnowsWhichRoomsAreOccupied(t *testing.T) {
	verifier, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	rc := &receiver{verifier: verifier, key: "0123456789abcdef"}
	told := httptest.NewServer(rc)
	t.Cleanup(told.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	apiKey, err := hubbub.APIKeyOf("backend", rc.key, "read")
	if err != nil {
		t.Fatal(err)
	}
	rc.mu.Lock() // it needs the server's address before it is told anything
	s := rawtest.Start(t, hubbub.Config{APIKeys: []hubbub.APIKey{apiKey}, Webhooks: hubbub.Webhooks{URL: told.URL, Secrets: []string{secret}}})
	rc.hubbub = "http://" + s.Addr
	rc.mu.Unlock()

	var want []string
	var c *rawtest.Client
	say := func(text string) {
		c.Text(text)
		c.NextJSON()
	}
	for i := range 1234 { // more than a page of the snapshot, and than one client may be in
		if i%900 == 0 {
			c = rawtest.Dial(t, s, "/ws")
			c.NextJSON()
		}
		want = append(want, fmt.Sprintf("room.%04d", i))
		say(fmt.Sprintf(`{"msg_type":"join_room","room":%q,"id":1}`, want[i]))
	}
	isRight := func() bool { return slices.Equal(rc.knows(), want) }
	rawtest.Eventually(t, "all rooms are known", isRight)
	say(`{"msg_type":"leave_room","room":"room.1000","id":2}`)
	want = slices.DeleteFunc(want, func(r string) bool { return r == "room.1000" })
	rawtest.Eventually(t, "the room that was left is not", isRight)

	// Something is not told: the receiver mends what it knows.
	rc.mu.Lock()
	clear(rc.rooms)
	rc.rooms["ghost"] = true
	body := fmt.Sprintf(`{"type":"hubbub.events","node":%q,"dropped":{"room.vacated":1},"events":[{"seq":%d,"type":"room.occupied","room":"lobby"}]}`, rc.node, rc.seq)
	rc.mu.Unlock()
	post := func(body, signedAs string) int {
		signature, _ := verifier.Sign("msg_1", time.Now(), []byte(signedAs))
		req, _ := http.NewRequest(http.MethodPost, told.URL, strings.NewReader(body))
		req.Header.Set("webhook-id", "msg_1")
		req.Header.Set("webhook-timestamp", fmt.Sprint(time.Now().Unix()))
		req.Header.Set("webhook-signature", signature)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if status := post(body, body+" "); status != http.StatusUnauthorized || len(rc.knows()) != 1 {
		t.Errorf("with another's signature: %d", status)
	}
	if status := post(body, body); status != http.StatusOK || !isRight() {
		t.Errorf("with what was dropped: %d, and %d rooms are known", status, len(rc.knows()))
	}
}
