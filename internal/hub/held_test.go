package hub

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub/broker/brokertest"
	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/protocol"
)

func aDirect(content string) *protocol.Message {
	return &protocol.Message{Kind: protocol.DirectMessage, Content: []byte(fmt.Sprintf("%q", content))}
}

// drainDirects is what direct messages have come, in virtual time.
func drainDirects(c *client) (all []string) {
	synctest.Wait()
	for {
		select {
		case m, ok := <-c.got:
			if !ok {
				return all
			}
			if m["msg_type"] == "direct_message" {
				s := fmt.Sprint(m["content"])
				all = append(all, s[:min(len(s), 12)])
			}
		default:
			return all
		}
	}
}

// What was held comes once, also where the node in between hears late, or not at all, that a third one has it.
func TestWhatWasHeldComesOnceBehindASlowNode(t *testing.T) {
	for _, how := range []string{"late", "lost once"} {
		t.Run(how, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				memory := brokertest.NewMemory()
				t.Cleanup(memory.Wait)
				nodes := nodesOf(t, memory, 3, func(*Config) {})
				a, b, c := nodes[0], nodes[1], nodes[2]
				ann := b.comes("", "ann")
				ann.lose(b.h)
				back := c.comes(ann.token(), "ann") // has gone on to c
				back.say(`{"msg_type":"resume","rooms":{},"id":"resume"}`)
				back.answer("resume", func(map[string]any) {})
				time.Sleep(3 * time.Second)
				expectOn(t, idOf(ann), 2, nodes...)
				if how == "late" {
					b.mu.Lock()
					b.slow = 2500 * time.Millisecond // b hears answers late
					b.mu.Unlock()
				} else {
					var mu sync.Mutex
					n := 0
					b.losing(func(k callKind) (bool, bool) {
						mu.Lock()
						defer mu.Unlock()
						if k == callDirect && n == 0 {
							n++
							return false, true
						}
						return false, false
					})
				}
				a.h.cluster.sendHeld(b.inner.ID(), idOf(ann), []waitingDirect{{message: aDirect("once")}})
				time.Sleep(30 * time.Second)
				if got := drainDirects(back); len(got) != 1 {
					t.Errorf("came %d times: %v", len(got), got)
				}
			})
		})
	}
}

// What was held follows a client that goes on before it has come, when its node ends or is unseen for a moment.
func TestWhatWasHeldFollowsAClientFurtherOn(t *testing.T) {
	for _, how := range []string{"leaves", "unseen for a moment"} {
		t.Run(how, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				memory := brokertest.NewMemory()
				t.Cleanup(memory.Wait)
				nodes := nodesOf(t, memory, 3, func(*Config) {})
				a, b, c := nodes[0], nodes[1], nodes[2]
				ann := a.comes("", "ann")
				ann.lose(a.h)
				// the claim's answer is made, then somebody sends something, which a holds, and acknowledges
				var mu sync.Mutex
				n := 0
				a.losing(func(k callKind) (bool, bool) { // one question is lost between the nodes
					mu.Lock()
					defer mu.Unlock()
					if k == callDirects && n < 1 {
						n++
						return true, false
					}
					return false, false
				})
				b.losing(func(k callKind) (bool, bool) { return k == callArrived, false }) // a asks, then, a second later
				onB := b.comes(ann.token(), "ann")
				if onB.id != ann.id {
					t.Fatal("not resumed")
				}
				if err := a.h.sendToClient(context.Background(), &Publication{Client: idOf(ann), Content: []byte(`"held"`)}); err != nil {
					t.Fatal(err)
				}
				onB.lose(b.h)
				last := b
				if how == "leaves" {
					for a.h.handing(idOf(ann)) != nil {
						time.Sleep(10 * time.Millisecond)
					}
					b.h.Leave(t.Context())
					b.dies(a, c)
					on := alive(idOf(ann), nodes...)
					t.Log("on", on)
					last = nodes[on[0]]
				} else {
					for a.h.handing(idOf(ann)) != nil {
						time.Sleep(10 * time.Millisecond)
					}
					a.sees(b, false)
					time.Sleep(500 * time.Millisecond)
					a.sees(b, true)
				}
				time.Sleep(25 * time.Second)
				back := last.comes(onB.token(), "ann")
				t.Log("welcome", back.welcome["resumed"])
				back.say(`{"msg_type":"resume","rooms":{},"id":"resume"}`)
				back.answer("resume", func(map[string]any) {})
				time.Sleep(time.Second)
				if got := drainDirects(back); len(got) != 1 {
					t.Errorf("came %v, and resumed is %v", got, back.welcome["resumed"])
				}
			})
		})
	}
}

// What was held waits for a node that can't be seen, or reached, for a while.
func TestWhatWasHeldWaitsForANodeThatIsUnseen(t *testing.T) {
	for _, how := range []string{"unseen for 2 s", "unreachable for 25 s"} {
		t.Run(how, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				memory := brokertest.NewMemory()
				t.Cleanup(memory.Wait)
				nodes := nodesOf(t, memory, 2, func(*Config) {})
				a, b := nodes[0], nodes[1]
				ann := a.comes("", "ann")
				ann.lose(a.h)
				var hold sync.Mutex
				held := true
				b.losing(func(k callKind) (bool, bool) { // its word comes later
					hold.Lock()
					defer hold.Unlock()
					return k == callArrived && held, false
				})
				onB := b.comes(ann.token(), "ann")
				if onB.id != ann.id {
					t.Fatal("not resumed")
				}
				must(t, a.h.sendToClient(context.Background(), &Publication{Client: idOf(ann), Content: []byte(`"held"`)}))
				nonce := a.h.nonceOf(a.h.handing(idOf(ann)))
				a.reaches(b, false)
				b.h.cluster.ask(a.inner.ID(), callSession+1, hasQuestion{idOf(ann), nonce}, func([]byte, error) {})
				hold.Lock()
				held = false
				hold.Unlock()
				b.h.cluster.arrived(idOf(ann), nonce, a.inner.ID())
				for a.h.handing(idOf(ann)) != nil {
					time.Sleep(10 * time.Millisecond)
				}
				if how == "unseen for 2 s" {
					a.sees(b, false)
					time.Sleep(2 * time.Second)
				} else {
					time.Sleep(25 * time.Second)
				}
				a.reaches(b, true)
				a.sees(b, true)
				onB.say(`{"msg_type":"resume","rooms":{},"id":"resume"}`)
				time.Sleep(60 * time.Second)
				if got := drainDirects(onB); len(got) != 1 {
					t.Errorf("came %v, and resumed is %v, on nodes %v", got, onB.welcome["resumed"], alive(idOf(ann), nodes...))
				}
			})
		})
	}
}

// A node whose answers come late hands a large session over as it does a small one.
func TestALargeSessionOfABusyNodeMoves(t *testing.T) {
	for _, rooms := range []int{1, 100} {
		t.Run(fmt.Sprint(rooms), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				memory := brokertest.NewMemory()
				t.Cleanup(memory.Wait)
				nodes := nodesOf(t, memory, 2, func(c *Config) { fullRooms(c); c.MaxRoomsPerClient = 300 })
				busy, comer := nodes[0], nodes[1]
				who := auth.Identity{User: "ann", Data: []byte(`"` + strings.Repeat("d", 4000) + `"`)}
				ann := busy.comesAs("", who)
				for i := range rooms {
					ann.joinsWith(fmt.Sprint("r", i), "null")
				}
				comer.mu.Lock()
				comer.slow = 700 * time.Millisecond
				comer.mu.Unlock()
				back := comer.comesAs(ann.token(), who)
				if back.id != ann.id || back.welcome["resumed"] != true {
					t.Errorf("welcome %v, it was %s", back.welcome, ann.id)
				}
				time.Sleep(5 * time.Second)
				t.Log(alive(idOf(ann), nodes...))
			})
		})
	}
}

// What waits on a node that stops is taken by the next one, also where that has the session already.
func TestWhatWaitedOnANodeThatStopsIsTakenWhereItsSessionIs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		memory := brokertest.NewMemory()
		t.Cleanup(memory.Wait)
		nodes := nodesOf(t, memory, 2, func(*Config) {})
		a, b := nodes[0], nodes[1]
		ann := a.comes("", "ann")
		ann.lose(a.h)
		b.losing(func(k callKind) (bool, bool) { return k == callArrived, false })
		back := b.comes(ann.token(), "ann")
		back.say(`{"msg_type":"resume","rooms":{},"id":"resume"}`)
		back.answer("resume", func(map[string]any) {})
		a.reaches(b, false)
		a.sees(b, false)
		time.Sleep(3 * time.Second)
		t.Log("on", alive(idOf(ann), nodes...))
		must(t, a.h.sendToClient(context.Background(), &Publication{Client: idOf(ann), Content: []byte(`"acknowledged"`)}))
		b.losing(nil)
		a.reaches(b, true)
		a.sees(b, true)
		a.h.Leave(t.Context()) // it stops just then
		t.Log("on", alive(idOf(ann), nodes...))
		time.Sleep(2*claimMost + 10*time.Second)
		if got := drainDirects(back); len(got) != 1 {
			t.Errorf("came %v", got)
		}
	})
}
