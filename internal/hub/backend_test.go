package hub

import (
	"context"
	"errors"
	"testing"
)

func TestAVisitThatIsGivenUpIsNotMade(t *testing.T) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	v := &visit{do: func(*session) { t.Error("it was made") }, done: make(chan bool, 1)}
	if done, err := v.wait(ended, nil); done || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, %v", done, err)
	}
	v.Run(nil)
}
