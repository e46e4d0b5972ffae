package hubbub_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"example.com/hubbub"
	"example.com/hubbub/broker/brokertest"
	"example.com/hubbub/internal/rawtest"
)

// twoNodes are servers that know each other, and call has the API of one of them do something: it gives the status and
// the body.
func twoNodes(t *testing.T) (m *brokertest.Memory, nodes []*rawtest.Server, call func(node int, method, path, body string) (int, map[string]any)) {
	m = brokertest.NewMemory()
	secret, key, err := hubbub.NewAPIKey("backend")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		nodes = append(nodes, rawtest.Start(t, hubbub.Config{Broker: m.Broker(), Cluster: hubbub.Cluster{Secret: secretOfTests}, APIKeys: []hubbub.APIKey{key}}))
	}
	call = func(node int, method, path, body string) (int, map[string]any) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+nodes[node].Addr+"/api/v1"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+secret)
		if body != "" {
			req.Header.Set("Content-Type", "application/json")
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]any{}
		if len(b) > 0 {
			if err := json.Unmarshal(b, &got); err != nil {
				t.Fatalf("%s: %v", b, err)
			}
		}
		return resp.StatusCode, got
	}
	return m, nodes, call
}

// next is what a client hears, but that it may have missed chats before its node heard of the other one.
func next(c *rawtest.Client) map[string]any {
	for {
		if m := c.NextJSON(); m["msg_type"] != "gap" {
			return m
		}
	}
}

// The API of each node reaches who is on the other one.
func TestTheAPIOfAnyNode(t *testing.T) {
	t.Parallel()
	_, nodes, call := twoNodes(t)
	here, there := rawtest.Dial(t, nodes[0], "/ws"), rawtest.Dial(t, nodes[1], "/ws")
	here.NextJSON()
	id := there.NextJSON()["client_id"].(string)
	rawtest.Eventually(t, "each node lists the clients of both", func() bool {
		for node := range nodes {
			if status, got := call(node, "GET", "/clients", ""); status != 200 || len(got["clients"].([]any)) != 2 {
				return false
			}
		}
		return true
	})
	rawtest.Eventually(t, "each node says of both how many clients they have", func() bool {
		_, got := call(0, "GET", "/info", "")
		all, _ := got["nodes"].([]any)
		return len(all) == 2 && all[0].(map[string]any)["clients"] == 1.0 && all[1].(map[string]any)["clients"] == 1.0
	})
	if status, got := call(0, "PUT", "/rooms/lobby/members/"+id, ""); status != 204 {
		t.Fatal(status, got)
	}
	if m := next(there); m["msg_type"] != "joined" || m["room"] != "lobby" {
		t.Fatal(m)
	}
	if status, got := call(0, "GET", "/clients/"+id, ""); status != 200 || fmt.Sprint(got["rooms"]) != "[lobby]" {
		t.Errorf("the client: %d %v", status, got)
	}
	if status, got := call(0, "GET", "/rooms/lobby", ""); status != 200 || got["members"] != 1.0 {
		t.Errorf("the room: %d %v", status, got)
	}
	if status, got := call(0, "GET", "/rooms?prefix=lob", ""); status != 200 || len(got["rooms"].([]any)) != 1 {
		t.Errorf("the rooms: %d %v", status, got)
	}
	if status, got := call(0, "POST", "/publish", `{"client":"`+id+`","content":"psst"}`); status != 200 {
		t.Errorf("publish: %d %v", status, got)
	}
	if m := next(there); m["msg_type"] != "direct_message" || m["content"] != "psst" {
		t.Error(m)
	}
	here.Text(`{"msg_type":"direct_message","to":"` + id + `","content":"from afar","id":1}`)
	if m := next(here); m["msg_type"] != "ack" {
		t.Error(m)
	}
	if m := next(there); m["content"] != "from afar" {
		t.Error(m)
	}
	if status, got := call(0, "POST", "/batch", `{"calls":[{"leave":{"room":"lobby","client":"`+id+`"}},{"leave":{"room":"lobby","client":"`+id+`"}},{"disconnect":{"user":"nobody"}}]}`); status != 200 ||
		!strings.Contains(fmt.Sprint(got), "not_member") || !strings.Contains(fmt.Sprint(got), "not_found") {
		t.Errorf("batch: %d %v", status, got)
	}
	if status, got := call(0, "DELETE", "/clients/"+id, ""); status != 204 {
		t.Errorf("disconnect: %d %v", status, got)
	}
	if status, got := call(0, "GET", "/clients/"+id, ""); status != 404 || got["code"] != "unknown_client" {
		t.Errorf("who is gone: %d %v", status, got)
	}
}

// A node that can't ask the others says so, and never that somebody isn't there.
func TestTheAPIOfANodeThatIsCutOff(t *testing.T) {
	m, nodes, call := twoNodes(t)
	there := rawtest.Dial(t, nodes[1], "/ws")
	id := there.NextJSON()["client_id"].(string)
	rawtest.Eventually(t, "the nodes know each other", func() bool {
		status, _ := call(0, "GET", "/clients/"+id, "")
		return status == 200
	})
	m.Down(true)
	rawtest.Eventually(t, "the node knows that it is cut off", func() bool {
		status, _ := call(0, "GET", "/clients", "")
		return status == 503
	})
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/clients/" + id, ""}, {"DELETE", "/clients/" + id, ""}, {"PUT", "/rooms/r/members/" + id, ""}, {"DELETE", "/rooms/r/members/" + id, ""},
		{"GET", "/users", ""}, {"GET", "/users/ann", ""}, {"DELETE", "/users/ann", ""}, {"GET", "/rooms", ""}, {"GET", "/rooms/r", ""},
		{"POST", "/publish", `{"client":"` + id + `","content":1}`}, {"POST", "/publish", `{"user":"ann","content":1}`},
	} {
		if status, got := call(0, c.method, c.path, c.body); status != 503 || got["code"] != "unavailable" || got["retry"] != true {
			t.Errorf("%s %s: %d %v", c.method, c.path, status, got)
		}
	}
	m.Down(false)
	rawtest.Eventually(t, "the client is found again", func() bool {
		status, _ := call(0, "GET", "/clients/"+id, "")
		return status == 200
	})
}
