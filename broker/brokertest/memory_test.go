package brokertest

import (
	"testing"

	"example.com/hubbub/broker"
)

func TestMemory(t *testing.T) {
	Run(t, func(*testing.T) func() broker.Broker { return NewMemory().Broker })
}
