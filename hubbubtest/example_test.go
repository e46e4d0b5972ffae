package hubbubtest_test

import (
	"context"
	"fmt"

	"example.com/hubbub"
	"example.com/hubbub/hubbubtest"
)

// t stands in for the *testing.T that a test has.
type t struct{ cleanups []func() }

func (*t) Helper()                           {}
func (*t) Logf(format string, args ...any)   { fmt.Printf(format+"\n", args...) }
func (*t) Errorf(format string, args ...any) { fmt.Printf(format+"\n", args...) }
func (*t) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (t *t) Cleanup(f func())                { t.cleanups = append(t.cleanups, f) }

func (t *t) end() {
	for i := len(t.cleanups) - 1; i >= 0; i-- {
		t.cleanups[i]()
	}
}

// A client loses its line in the middle of a message.
func Example() {
	t := &t{}
	defer t.end()

	srv := hubbubtest.NewServer(t, hubbub.Config{})
	ann, bob := srv.Connect("ann"), srv.Connect("bob")
	ann.Join("kitchen")
	bob.Join("kitchen")
	ann.Publish("kitchen", "dinner is ready")
	fmt.Println("bob reads", string(bob.ExpectMessage("kitchen", "dinner is ready").Content))

	bob.Link.CutAfter(hubbubtest.ToClient, 20)
	ann.Publish("kitchen", "it is getting cold")
	bob.ExpectClosed(0)
	bob = bob.Reconnect()
	fmt.Println("bob reads", string(bob.Receive().Content))
	srv.Publish(context.Background(), hubbub.Publication{Room: "kitchen", Content: "it is cold"})
	fmt.Println("bob reads", string(bob.Receive().Content))
	srv.Check()
	// Output:
	// bob reads "dinner is ready"
	// bob reads "it is getting cold"
	// bob reads "it is cold"
}
