package hubbub_test

import (
	"fmt"
	"strings"
	"testing"

	"example.com/hubbub"
	"example.com/hubbub/broker/brokertest"
	"example.com/hubbub/internal/rawtest"
)

// secretOfTests is what the nodes of tests have in common.
const secretOfTests = "a secret of sixteen bytes or more"

// Two servers with brokers of the application's own have one log for each room.
func TestTwoServersWithABrokerOfOnesOwn(t *testing.T) {
	memory := brokertest.NewMemory()
	var nodes []*rawtest.Server
	for range 2 {
		nodes = append(nodes, rawtest.Start(t, hubbub.Config{Broker: memory.Broker(), Cluster: hubbub.Cluster{Secret: secretOfTests}}))
	}
	c := rawtest.Dial(t, nodes[1], "/ws")
	c.NextJSON() // the welcome
	c.Text(`{"msg_type":"join_room","room":"r","id":1}`)
	joined := c.NextJSON()
	at, err := nodes[0].Publish(t.Context(), hubbub.Publication{Room: "r", Content: 1})
	if err != nil || at.Epoch != joined["epoch"] {
		t.Fatalf("published at %+v, %v; the member has %v", at, err, joined)
	}
	if m := c.NextJSON(); m["content"] != float64(1) || m["offset"] != float64(at.Offset) {
		t.Errorf("got %v, want what was published on the other node at %+v", m, at)
	}
}

func TestSettingsOfClustersThatCantBe(t *testing.T) {
	for _, test := range []struct {
		cfg  hubbub.Config
		want string
	}{
		{hubbub.Config{Broker: brokertest.NewMemory().Broker()}, "cluster-secret: it is missing"},
		{hubbub.Config{Cluster: hubbub.Cluster{Secret: "fifteen letters"}}, "cluster-secret: it has 15 bytes"},
	} {
		err := test.cfg.Validate()
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v, want %q", test.cfg.Cluster, err, test.want)
		}
		if secret := test.cfg.Cluster.Secret; secret != "" && strings.Contains(fmt.Sprint(err), secret) {
			t.Errorf("the secret is in the error: %v", err)
		}
	}
}
