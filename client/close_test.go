package client_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/client"
)

// Whatever is under way when a client is closed, every call comes back and every loop ends, once.
func TestCloseAtAnyMoment(t *testing.T) {
	w := newWorld(t, hubbub.Config{})
	for range 40 {
		o := w.options()
		o.MinDelay, o.MaxDelay = time.Millisecond, 5*time.Millisecond
		h := must[*client.Hub](t)(client.New(address, o))
		ctx := within(t)
		var all sync.WaitGroup
		for n := range 8 {
			r := h.Room(string(rune('a' + n%3)))
			all.Go(func() {
				for range r.Events(ctx) {
				}
			})
			all.Go(func() {
				for range r.Members(ctx) {
				}
			})
			all.Go(func() {
				for {
					for _, err := range []error{r.Join(ctx), briefly(ctx, r), h.Chat(ctx, 1), r.Leave(ctx)} {
						if errors.Is(err, client.ErrClosed) {
							return
						}
						if ctx.Err() != nil {
							t.Error("it never was closed")
							return
						}
					}
				}
			})
		}
		time.Sleep(rand.N(20 * time.Millisecond)) // at any moment
		w.cut()
		time.Sleep(rand.N(20 * time.Millisecond))
		all.Go(func() { h.Close() })
		h.Close()
		all.Wait()
		if err := h.Chat(ctx, 1); !errors.Is(err, client.ErrClosed) {
			t.Errorf("behind Close: %v", err)
		}
	}
}

func briefly(ctx context.Context, r *client.Room) error {
	short, cancel := context.WithTimeout(ctx, rand.N(5*time.Millisecond))
	defer cancel()
	_, err := r.Publish(short, 1, client.PublishOptions{})
	return err
}
