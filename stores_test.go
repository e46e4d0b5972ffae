package hubbub_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"example.com/hubbub"
	"example.com/hubbub/broker/nats"
	"example.com/hubbub/internal/rawtest"
)

// startStores starts stores of one cluster, which have their data in folders below cfg.DataDir, or of the test.
func startStores(t *testing.T, n int, cfg hubbub.Config) (all []*rawtest.Server, addresses []string) {
	t.Helper()
	for range n {
		addresses = append(addresses, freePair(t))
	}
	for i, address := range addresses {
		cfg := cfg
		cfg.DataDir, cfg.NodeName = filepath.Join(cmp.Or(cfg.DataDir, t.TempDir()), fmt.Sprint(i)), fmt.Sprint("node-", i)
		cfg.Cluster = hubbub.Cluster{Secret: secretOfTests, Listen: address}
		if n > 1 {
			cfg.Cluster.Join = addresses
		}
		all = append(all, rawtest.Start(t, cfg))
	}
	return all, addresses
}

var givenPairs sync.Map // of freePair

// freePair is an address whose port nobody has, as the one above, and which isn't given to who doesn't ask for one.
func freePair(t *testing.T) string {
	t.Helper()
	for range 1000 {
		port := 12000 + 2*rand.IntN(3000)
		address := fmt.Sprint("127.0.0.1:", port)
		if _, given := givenPairs.LoadOrStore(port, true); given {
			continue
		}
		first, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		second, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port+1))
		first.Close()
		if err == nil {
			second.Close()
			return address
		}
	}
	t.Fatal("no two ports are free")
	return ""
}

func isReady(s *rawtest.Server) bool {
	answer, err := http.Get("http://" + s.Addr + "/readyz")
	if err != nil {
		return false
	}
	answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

// The epochs of a cluster stay over a restart of all its stores, and are others where their machines may have lost what
// was acknowledged last, or where the bounds of history have changed.
func TestEpochsOfAClusterThatWasDown(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	epoch := func(rooms ...hubbub.RoomPolicy) string {
		t.Helper()
		s := rawtest.Start(t, hubbub.Config{DataDir: dir, Rooms: rooms, Cluster: hubbub.Cluster{Secret: secretOfTests, Listen: freePair(t)}})
		rawtest.Eventually(t, "the store is ready", func() bool { return isReady(s) })
		at, err := s.Publish(t.Context(), hubbub.Publication{Room: "r", Content: 1})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Shutdown(context.Background()); err != nil {
			t.Fatal(err)
		}
		return at.Epoch
	}
	first := epoch()
	if again := epoch(); again != first {
		t.Errorf("after a restart the epoch is %s, it was %s", again, first)
	}
	file := filepath.Join(dir, "epoch")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// As it is when the machine has gone down meanwhile: the state is another boot's.
	if err := os.WriteFile(file, []byte(strings.Replace(string(b), "stopped", "another-boot", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	crashed := epoch()
	if crashed == first {
		t.Errorf("the machine went down, and the epoch is still %s", crashed)
	}
	if again := epoch(); again != crashed {
		t.Errorf("after that and a restart the epoch is %s, it was %s", again, crashed)
	}
	if changed := epoch(hubbub.RoomPolicy{Match: "other", History: &hubbub.History{Messages: 7}}); changed == crashed {
		t.Errorf("bounds of history have changed, and the epoch is still %s", changed)
	}
}

// allOfNodes has the API tell of stores, and forget one.
func allOfNodes(t *testing.T, d *description) {
	cfg, secrets := keyed(t, hubbub.Config{})
	kept := cfg
	kept.DataDir = t.TempDir()
	stores, addresses := startStores(t, 3, kept)
	b := &backend{t: t, base: "http://" + stores[0].Addr, key: secrets["all"], desc: d}
	lost := cfg
	lost.Cluster = hubbub.Cluster{Secret: secretOfTests, Join: []string{freePair(t)}}
	alone := &backend{t: t, base: "http://" + rawtest.Start(t, lost).Addr, key: secrets["all"], desc: d}
	if n := alone.ok("GET", "/nodes", ""); n["stores_error"] == nil {
		t.Errorf("without its stores a node says %v", n)
	}
	for i, s := range stores {
		rawtest.Eventually(t, fmt.Sprintf("the store %d is ready", i), func() bool { return isReady(s) })
	}
	known := b.ok("GET", "/nodes", "")["stores"].(map[string]any)["stores"].([]any)
	if len(known) != 3 {
		t.Errorf("three stores are %v", known)
	}
	rawtest.Eventually(t, "a store knows of the others", func() bool { return len(b.ok("GET", "/info", "")["nodes"].([]any)) == 3 })
	b.fails(400, "bad_message", "is up", "DELETE", "/nodes/"+addresses[2], "")
	if err := stores[2].Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, of := range known { // its address nobody knows once it is away
		if of := of.(map[string]any); of["address"] == addresses[2] {
			rawtest.Eventually(t, "it is forgotten", func() bool { return b.call("DELETE", "/nodes/"+of["name"].(string), "").status == http.StatusNoContent })
		}
	}
	kept.DataDir = filepath.Join(kept.DataDir, "2")
	kept.Cluster = hubbub.Cluster{Secret: secretOfTests, Listen: addresses[2], Join: addresses}
	if s, err := hubbub.New(kept); !errors.Is(err, nats.ErrRemoved) {
		t.Errorf("it comes back with its old folder: %v", err)
		if err == nil {
			s.Shutdown(context.Background())
		}
	}
	if problems := fmt.Sprint(b.ok("GET", "/nodes", "")["stores"].(map[string]any)["problems"]); !strings.Contains(problems, "give it an empty data-dir") {
		t.Errorf("the others say %s", problems)
	}
}
