package model

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// filled is a room with five messages of 10 bytes, a second apart, "ann" and "bob" by turns.
func filled(h History) (r *Room, now time.Time) {
	r = NewRoom("e", Policy{History: h})
	now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 5 {
		r.Publish(Message{Text: fmt.Sprint(i + 1), From: []string{"ann", "bob"}[i%2], Bytes: 10, At: now})
		now = now.Add(time.Second)
	}
	return r, now.Add(-time.Second)
}

func texts(all []Message) string {
	var s []string
	for _, m := range all {
		s = append(s, m.Text)
	}
	return strings.Join(s, " ")
}

func TestHistoryIsBoundedByCountAgeAndBytes(t *testing.T) {
	for _, c := range []struct {
		h     History
		later time.Duration
		want  string
	}{
		{History{}, 0, ""},
		{History{10, time.Minute, 1000}, 0, "1 2 3 4 5"},
		{History{3, time.Minute, 1000}, 0, "3 4 5"},
		{History{10, 2 * time.Second, 1000}, 0, "3 4 5"},
		{History{10, 2 * time.Second, 1000}, time.Second, "4 5"},
		{History{10, 2 * time.Second, 1000}, time.Minute, ""},
		{History{10, time.Minute, 29}, 0, "4 5"},
		{History{10, time.Minute, 5}, 0, "5"}, // the newest in any case
	} {
		r, now := filled(c.h)
		if got := texts(r.Kept(now.Add(c.later))); got != c.want {
			t.Errorf("%+v keeps %q %s later, want %q", c.h, got, c.later, c.want)
		}
	}
}

func TestPagesOfHistory(t *testing.T) {
	for _, c := range []struct {
		since, before int64
		limit         int
		want          string
		more          bool
	}{
		{0, 0, 100, "2 3 4 5", false},
		{0, 0, 2, "4 5", true},
		{3, 0, 100, "4 5", false},
		{1, 0, 2, "2 3", true},
		{0, 4, 1, "3", true},
		{0, 4, 2, "2 3", false},
		{5, 0, 1, "", false},
	} {
		r, now := filled(History{4, time.Minute, 1000})
		page, more := r.Page(c.since, c.before, c.limit, now)
		if got := texts(page); got != c.want || more != c.more {
			t.Errorf("since %d before %d limit %d: %q %v, want %q %v", c.since, c.before, c.limit, got, more, c.want, c.more)
		}
	}
}

func TestJoiningSinceAPosition(t *testing.T) {
	for _, c := range []struct {
		name  string
		h     History
		since Position
		want  string // what "ann" gets, whose own are 1, 3 and 5; or why not
	}{
		{"all of it", History{10, time.Minute, 1000}, Position{"e", 1}, "2 4"},
		{"nothing missed", History{10, time.Minute, 1000}, Position{"e", 5}, ""},
		{"from the very beginning", History{10, time.Minute, 1000}, Position{"e", 0}, "2 4"},
		{"exactly what is kept", History{3, time.Minute, 1000}, Position{"e", 2}, "4"},
		{"one too old", History{3, time.Minute, 1000}, Position{"e", 1}, "expired"},
		{"another epoch", History{10, time.Minute, 1000}, Position{"d", 1}, "epoch"},
		{"a position to come", History{10, time.Minute, 1000}, Position{"e", 6}, "epoch"},
		{"no history", History{}, Position{"e", 1}, "no_history"},
	} {
		r, now := filled(c.h)
		a := r.JoinSince("ann", c.since, now)
		items, _ := r.Read("ann")
		var got []Message
		for _, i := range items {
			got = append(got, i.Message)
		}
		if is := a.Reason + texts(got); is != c.want || a.Recovered != (a.Reason == "") || a.Missed != len(got) || a.Position != (Position{"e", 5}) {
			t.Errorf("%s: %q, %+v; want %q", c.name, is, a, c.want)
		}
	}
}

func TestWhatAStalledMemberReads(t *testing.T) {
	for policy, want := range map[string]string{
		"disconnect":    "closed",
		"drop-oldest":   "gap 4-5, 6 7 8 9",
		"latest":        "gap 4-7, 8 9",
		"latest-by-key": "gap 4-6, 7 8 9",
	} {
		r := NewRoom("e", Policy{SlowConsumer: policy, QueueBytes: 45})
		r.Join("bob")
		for i := 1; i <= 3; i++ {
			r.Publish(Message{Text: fmt.Sprint(i), From: "ann", Bytes: 10})
		}
		r.Read("bob")
		r.Stall("bob")
		for i := 4; i <= 9; i++ {
			r.Publish(Message{Text: fmt.Sprint(i), From: "ann", Bytes: 10, Key: []string{"x", "y"}[i%2]})
		}
		items, closed := r.Read("bob")
		got := ""
		for _, i := range items {
			if i.Gap > 0 {
				got += fmt.Sprintf("gap %d-%d,", i.FromOffset, i.ToOffset)
			} else {
				got += i.Text
			}
			got += " "
		}
		if closed {
			got = "closed"
		}
		if got = strings.TrimSpace(got); got != want {
			t.Errorf("%s: %q, want %q", policy, got, want)
		}
	}
}

func TestOffsetsMustIncrease(t *testing.T) {
	r, _ := filled(History{})
	if err := r.Publish(Message{Text: "x", Offset: 5}); err == nil {
		t.Error("offset 5 came twice")
	}
	if err := r.Publish(Message{Text: "x", Offset: 9}); err != nil {
		t.Error("offsets may leave some out: ", err)
	}
}

func TestANewEpochForgets(t *testing.T) {
	r, now := filled(History{10, time.Minute, 1000})
	since := r.Position()
	r.Lose("f")
	if a := r.JoinSince("ann", since, now); a.Recovered || a.Reason != "epoch" {
		t.Errorf("got %+v", a)
	}
}
