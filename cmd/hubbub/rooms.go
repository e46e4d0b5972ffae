package main

import (
	"encoding/json"
	"fmt"
	"net/url"
)

// roomsCmd lists the rooms that a server has.
type roomsCmd struct {
	Prefix   string `arg:"" optional:"" help:"What their names begin with."`
	apiFlags `embed:""`
}

// Help is shown by hubbub rooms --help.
func (roomsCmd) Help() string {
	return "A line for each room that has members or keeps messages, by name: how many members, the position of its newest message (- where it keeps none), its name. With --json an object a line."
}

// room is one of GET /rooms.
type room struct {
	Room    string `json:"room"`
	Members int64  `json:"members"`
	Epoch   string `json:"epoch"`
	Offset  uint64 `json:"offset"`
}

// Run prints them, a page at a time.
func (c *roomsCmd) Run() error {
	ctx, cancel := untilSignal()
	defer cancel()
	query := url.Values{"limit": {"1000"}}
	if c.Prefix != "" {
		query.Set("prefix", c.Prefix)
	}
	for {
		var page struct {
			Rooms []json.RawMessage
			More  bool
		}
		if _, err := c.call(ctx, "GET", "/rooms", query, nil, &page); err != nil {
			return err
		}
		var last string
		for _, raw := range page.Rooms {
			var r room
			if err := json.Unmarshal(raw, &r); err != nil {
				return fmt.Errorf("%s answers with what is no room: %w", c.URL, err)
			}
			last = r.Room
			c.print(raw, &r)
		}
		if !page.More || last == "" {
			return nil
		}
		query.Set("after", last)
	}
}

func (c *roomsCmd) print(raw []byte, r *room) {
	at := "-"
	switch {
	case c.JSON:
		fmt.Println(printableJSON(raw))
		return
	case r.Epoch != "":
		at = fmt.Sprintf("%s:%d", r.Epoch, r.Offset)
	}
	fmt.Printf("%8d  %-24s  %s\n", r.Members, printable(at), printable(r.Room))
}
