package brokertest

import (
	"testing"
	"time"
)

func TestMemory(t *testing.T) {
	Run(t, func(*testing.T) System {
		m := NewMemory()
		return System{
			Node: m.Broker,
			Faults: []Fault{
				{"down", func() {
					m.Down(true)
					time.Sleep(20 * time.Millisecond)
					m.Down(false)
				}},
				{"no answers", func() {
					m.Hold(true)
					time.Sleep(20 * time.Millisecond)
					m.Hold(false)
				}},
			},
			Wipe:  m.Lose,
			Clock: m.Clock,
		}
	})
}
