package hubbub_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wsclient"
)

// Limits over real sockets; what time does to them is in hubbubtest/limits_test.go.

func TestLimitsOverSockets(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io, Workers: 2, Limits: hubbub.Limits{
			Client:  hubbub.ClientLimits{Messages: hubbub.Rate{N: 5, Per: time.Hour}},
			Address: hubbub.AddressLimits{Connects: hubbub.Rate{N: 3, Per: time.Hour}, Messages: hubbub.Rate{N: 8, Per: time.Hour}},
		}})
		// ask pings n times, and says how many were refused, and because of whom.
		ask := func(c *rawtest.Client, n int) (client, address int) {
			for i := range n {
				c.Text(fmt.Sprintf(`{"msg_type":"ping","id":%d}`, i))
				m := c.NextJSON()
				switch {
				case m["msg_type"] == "pong":
				case m["code"] != "rate_limited" || m["retry"] != true || m["id"] != float64(i) || m["retry_after_ms"].(float64) < 60_000:
					t.Fatal(m)
				case strings.Contains(m["message"].(string), "limits.client.messages"):
					client++
				case strings.Contains(m["message"].(string), "limits.address.messages"):
					address++
				}
			}
			return client, address
		}
		one, two := rawtest.Dial(t, s, "/ws"), rawtest.Dial(t, s, "/ws")
		one.NextJSON()
		two.NextJSON()
		if client, address := ask(one, 9); client != 4 || address != 0 {
			t.Errorf("the first client: %d and %d of 9 were refused", client, address)
		}
		if client, address := ask(two, 9); client != 0 || address != 6 {
			t.Errorf("the second client: %d and %d of 9 were refused", client, address)
		}
		rawtest.Dial(t, s, "/echo")
		for _, method := range []string{"GET", "POST"} { // by a POST the page asks why
			c := rawtest.Connect(t, s)
			c.SendRaw([]byte(rawtest.Request(s, method, "/ws", "HTTP/1.1", map[string]string{"Content-Length": "0"})))
			r := c.Response(method)
			if after, _ := strconv.Atoi(r.Header.Get("Retry-After")); r.StatusCode != http.StatusTooManyRequests || after < 1000 || after > 1210 {
				t.Errorf("%s after the third connect: %s, Retry-After %d", method, r.Status, after)
			}
		}
		rawtest.Eventually(t, "the refusal is logged", func() bool {
			return strings.Contains(s.Log.String(), `would_allow="a higher limits.address.connects`)
		})
		all := scrape(t, s)
		for series, want := range map[string]float64{
			`hubbub_limited_total{by="client",limit="messages"}`: 4, `hubbub_limited_total{by="address",limit="messages"}`: 6,
			`hubbub_limited_total{by="address",limit="connects"}`: 1, `hubbub_limited_total{by="user",limit="connections"}`: 0,
			`hubbub_upgrades_total{result="rate_limited"}`: 2, `hubbub_errors_total{code="rate_limited"}`: 10,
		} {
			if got, ok := all[series]; !ok || got != want {
				t.Errorf("%s is %v, want %v", series, got, want)
			}
		}
	})
}

// Who goes on is closed, over real sockets in real time; one beside it at the same address is served.
func TestWhoGoesOnBeyondLimitsIsClosedOverSockets(t *testing.T) {
	t.Parallel()
	s := rawtest.Start(t, hubbub.Config{Workers: 2, Limits: hubbub.Limits{
		Client: hubbub.ClientLimits{Messages: hubbub.Rate{N: 10}}, Address: hubbub.AddressLimits{Messages: hubbub.Rate{N: 100}},
	}})
	abuser, other := rawtest.Dial(t, s, "/ws"), rawtest.Dial(t, s, "/ws")
	other.NextJSON()
	ended := make(chan int, 1)
	go func() {
		for {
			op, p, err := abuser.TryNext()
			switch {
			case err != nil:
				ended <- 0
				return
			case op == wsclient.Close:
				ended <- int(binary.BigEndian.Uint16(p))
				return
			}
		}
	}()
	some := bytes.Repeat(rawtest.Text(`{"msg_type":"ping"}`), 5)
	began := time.Now()
	for pings := 0; ; pings++ {
		select {
		case code := <-ended:
			if took := time.Since(began); code != 1008 || took < 10*time.Second {
				t.Errorf("closed with %d after %s", code, took)
			}
			abuser.CloseNow()
			return
		case <-time.After(10 * time.Millisecond):
		}
		abuser.TrySend(some)
		if pings%20 == 0 {
			other.Text(`{"msg_type":"ping","id":1}`)
			if m := other.NextJSON(); m["msg_type"] != "pong" {
				t.Fatalf("beside it: %v", m)
			}
		}
		if time.Since(began) > rawtest.Patience {
			t.Fatal("it goes on for ever")
		}
	}
}

func TestLimitsThatCantBeUsed(t *testing.T) {
	second := time.Second
	for want, l := range map[string]hubbub.Limits{
		"limits.client.messages -1/s":          {Client: hubbub.ClientLimits{Messages: hubbub.Rate{N: -1}}},
		"limits.client.messages 0/s burst 7":   {Client: hubbub.ClientLimits{Messages: hubbub.Rate{Per: second, Burst: 7}}},
		"limits.client.joins 2000000000/s":     {Client: hubbub.ClientLimits{Joins: hubbub.Rate{N: 2_000_000_000}}},
		"limits.user.connects 1/2h0m0s":        {User: hubbub.UserLimits{Connects: hubbub.Rate{N: 1, Per: 2 * time.Hour}}},
		"limits.user.joins 1/1.5ms":            {User: hubbub.UserLimits{Joins: hubbub.Rate{N: 1, Per: 1500 * time.Microsecond}}},
		"limits.user.messages 1/-1s":           {User: hubbub.UserLimits{Messages: hubbub.Rate{N: 1, Per: -second}}},
		"limits.user.connections -1":           {User: hubbub.UserLimits{Connections: -1}},
		"limits.address.connects 1/s burst -1": {Address: hubbub.AddressLimits{Connects: hubbub.Rate{N: 1, Burst: -1}}},
		"limits.address.bytes 1024/s burst 1024: the burst is less than max-message-bytes, 65536": {Address: hubbub.AddressLimits{Bytes: hubbub.Rate{N: 1024, Burst: 1024}}},
	} {
		if err := (hubbub.Config{Limits: l}).Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", l, err, want)
		}
	}
}

func TestALimitsBurstIsWhatMayComeAtOnce(t *testing.T) {
	l := hubbub.Limits{
		Client: hubbub.ClientLimits{Messages: hubbub.Rate{N: 5}, Bytes: hubbub.Rate{N: 1000}, Joins: hubbub.Rate{N: 5, Per: time.Minute}},
		User:   hubbub.UserLimits{Bytes: hubbub.Rate{N: 1 << 20}, Joins: hubbub.Rate{N: 5, Burst: 6}},
	}
	got := hubbub.Config{Limits: l, MaxRoomsPerClient: 50}.Effective().Limits
	for _, r := range []struct{ got, want hubbub.Rate }{
		{got.Client.Messages, hubbub.Rate{N: 5, Per: time.Second, Burst: 5}},
		{got.Client.Bytes, hubbub.Rate{N: 1000, Per: time.Second, Burst: 64 << 10}},
		{got.Client.Joins, hubbub.Rate{N: 5, Per: time.Minute, Burst: 50}},
		{got.User.Bytes, hubbub.Rate{N: 1 << 20, Per: time.Second, Burst: 1 << 20}},
		{got.User.Joins, hubbub.Rate{N: 5, Per: time.Second, Burst: 6}},
		{got.Address.Connects, hubbub.Rate{}},
	} {
		if r.got != r.want {
			t.Errorf("%s, want %s", r.got, r.want)
		}
	}
}
