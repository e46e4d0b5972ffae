// Api measures what a POST /publish costs the server: Hubbub's processor time a call, beside a net/http handler that
// reads and writes as much and does nothing, and beside Centrifugo's library in a small server with the same call. Each
// server is a process of its own; the rounds go in turns, and the medians count.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

const (
	key  = "a-key-for-the-benchmark"
	room = "bench"
	body = `{"room":"bench","content":{"text":"what an application's backend says, about a hundred bytes of it"}}`
)

// server is one that is measured.
type server struct {
	name    string
	addr    string
	command []string
	members int // of the room
	micros  []float64
}

func main() {
	log.SetFlags(0)
	if len(os.Args) == 3 && os.Args[1] != "" && os.Args[1][0] != '-' {
		serve(os.Args[1], os.Args[2])
		return
	}
	hubbub := flag.String("hubbub", "../bin/hubbub", "the server")
	rounds := flag.Int("rounds", 9, "of each server; the medians count")
	calls := flag.Int("calls", 40_000, "in a round")
	conns := flag.Int("connections", 16, "kept alive, each with one call at a time")
	flag.Parse()

	self, err := os.Executable()
	if err != nil {
		log.Fatal(err)
	}
	servers := []*server{
		{name: "net/http alone", addr: "127.0.0.1:18471", command: []string{self, "bare", "127.0.0.1:18471"}},
		{name: "hubbub", addr: "127.0.0.1:18472", command: []string{*hubbub, "serve", "--listen", "127.0.0.1:18472"}},
		{name: "centrifuge", addr: "127.0.0.1:18473", command: []string{self, "centrifuge", "127.0.0.1:18473"}},
		{name: "hubbub, 100 members", addr: "127.0.0.1:18474", command: []string{*hubbub, "serve", "--listen", "127.0.0.1:18474"}, members: 100},
	}
	var pids []int
	for _, s := range servers {
		cmd := exec.Command(s.command[0], s.command[1:]...)
		cmd.Env = append(os.Environ(), "HUBBUB_API_KEY="+key)
		if err := cmd.Start(); err != nil {
			log.Fatal(err)
		}
		defer cmd.Wait()
		defer cmd.Process.Kill()
		pids = append(pids, cmd.Process.Pid)
		await(s.addr)
		for range s.members {
			join(s.addr)
		}
		load(s.addr, *conns, *calls/4) // warm
	}
	for range *rounds {
		for i, s := range servers {
			before := processorTime(pids[i])
			load(s.addr, *conns, *calls)
			s.micros = append(s.micros, float64((processorTime(pids[i])-before).Microseconds())/float64(*calls))
		}
	}
	report(servers)
}

func report(servers []*server) {
	median := func(s *server) float64 {
		slices.Sort(s.micros)
		return s.micros[len(s.micros)/2]
	}
	bare := median(servers[0])
	for _, s := range servers {
		m := median(s)
		fmt.Printf("%-20s %6.2f us a call (%.2f to %.2f), %.2f of net/http alone\n", s.name, m, s.micros[0], s.micros[len(s.micros)-1], m/bare)
	}
	hubbub, rival, full := median(servers[1]), median(servers[2]), median(servers[3])
	fmt.Printf("hubbub is %.2f of centrifuge; each of 100 members adds %.2f us\n", hubbub/rival, (full-hubbub)/100)
}

// await waits until somebody listens.
func await(addr string) {
	for range 1000 {
		nc, err := net.Dial("tcp", addr)
		if err == nil {
			nc.Close()
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	log.Fatalf("nobody listens on %s", addr)
}

// load makes calls, over connections that stay open.
func load(addr string, conns, calls int) {
	request := fmt.Sprintf("POST /api/v1/publish HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", addr, key, len(body), body)
	var all sync.WaitGroup
	for range conns {
		all.Go(func() {
			nc, err := net.Dial("tcp", addr)
			if err != nil {
				log.Fatal(err)
			}
			defer nc.Close()
			r := bufio.NewReader(nc)
			for range calls / conns {
				io.WriteString(nc, request)
				got, err := http.ReadResponse(r, nil)
				if err != nil || got.StatusCode != http.StatusOK {
					log.Fatal(addr, got, err)
				}
				io.Copy(io.Discard, got.Body)
				got.Body.Close()
			}
		})
	}
	all.Wait()
}

// join has a client in the room that reads on.
func join(addr string) {
	c, _, err := websocket.Dial(context.Background(), "ws://"+addr+"/ws", &websocket.DialOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Write(context.Background(), websocket.MessageText, []byte(`{"msg_type":"join_room","room":"`+room+`","id":1}`)); err != nil {
		log.Fatal(err)
	}
	for range 2 { // welcome and joined
		c.Read(context.Background())
	}
	go func() {
		for {
			_, r, err := c.Reader(context.Background())
			if err != nil {
				return
			}
			io.Copy(io.Discard, r)
		}
	}()
}

// processorTime is what a process has used, by /proc: user and system, in ticks of 10 ms.
func processorTime(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		log.Fatal(err)
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+2:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}
