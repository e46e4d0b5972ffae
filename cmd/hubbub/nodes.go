package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"
)

// nodesCmd is about the nodes that there are.
type nodesCmd struct {
	List   listNodesCmd  `cmd:"" default:"withargs" help:"Show the nodes and the stores."`
	Remove removeNodeCmd `cmd:"" help:"Have the cluster forget a store that won't come back."`
}

// listNodesCmd asks one node of all.
type listNodesCmd struct {
	apiFlags `embed:""`
}

// Help is shown by hubbub nodes list --help.
func (listNodesCmd) Help() string {
	return "A line for each node: its name, whether it is ready, its clients and rooms, its version and age; then one for each store and for the logs of rooms, and what isn't well. A ? stands for what isn't known, since who would say it doesn't answer. It ends with 1 where something isn't well. With --json what the API answers."
}

// clusterNodes is GET /nodes.
type clusterNodes struct {
	Nodes []clusterNode
	Cut   bool
	Error string `json:"stores_error"`

	Stores *struct {
		Leader  string
		Stores  []clusterStore
		Streams []struct {
			Name, Leader string
			Messages     uint64
			Bytes        uint64
			Replicas     int
			Copies       []struct{ Current, Offline bool }
		}
		Problems []string
	}
}

type clusterNode struct {
	ID, Name, Version, Role, Store, Policies string
	Started                                  int64
	Connections, Clients, Rooms              int
	NotReady                                 string `json:"not_ready"`
}

type clusterStore struct {
	Name, Address string
	Up, Leader    bool
	Routes        int
	Streams       int
	Bytes         uint64
	LastSeen      time.Duration `json:"last_seen"`
}

// Run prints them.
func (c *listNodesCmd) Run() error {
	ctx, cancel := untilSignal()
	defer cancel()
	var n clusterNodes
	raw, err := c.call(ctx, "GET", "/nodes", nil, nil, &n)
	if err != nil {
		return err
	}
	if c.JSON {
		fmt.Println(printableJSON(raw))
		return nil
	}
	if wrong := n.print(time.Now()); wrong > 0 {
		return errors.New("not all is well: see above, behind each !")
	}
	return nil
}

// print shows all, and says how many things are wrong.
func (n *clusterNodes) print(now time.Time) (wrong int) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tREADY\tCLIENTS\tROOMS\tVERSION\tUP FOR\tSTORE")
	policies := map[string]bool{}
	var notes []string
	for i, is := range n.Nodes {
		ready := "yes"
		if n.Cut && i > 0 { // the first is the one that is asked
			ready = "?"
		}
		if is.NotReady != "" {
			ready = "no"
			notes = append(notes, fmt.Sprintf("%s is not ready: %s", printable(is.Name), printable(is.NotReady)))
		}
		policies[is.Policies] = true
		age := max(0, now.Sub(time.UnixMilli(is.Started))).Round(time.Second)
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%s\t%s\n", printable(is.Name), ready, is.Clients, is.Rooms, printable(is.Version), age, printable(cmp.Or(is.Store, "-")))
	}
	if s := n.Stores; s != nil {
		fmt.Fprintln(w, "\nSTORE\tUP\tROUTES\tSTREAMS\tON DISK\tADDRESS\t")
		var messages uint64
		for _, is := range s.Stores {
			address := printable(cmp.Or(is.Address, "-"))
			if !is.Up { // and so it says nothing
				fmt.Fprintf(w, "%s\tno\t?\t?\t?\t%s\t\n", printable(is.Name), address)
				continue
			}
			up := "yes"
			if is.Leader {
				up += ", leads"
			}
			fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%s\t\n", printable(is.Name), up, is.Routes, is.Streams, fmt.Sprintf("%.1f MB", float64(is.Bytes)/1e6), address)
		}
		whole, unknown := 0, 0
		for _, is := range s.Streams {
			messages += is.Messages
			current := 0
			for _, c := range is.Copies {
				if c.Current && !c.Offline {
					current++
				}
			}
			switch {
			case is.Leader == "":
				unknown++
			case current >= is.Replicas:
				whole++
			}
		}
		fmt.Fprintf(w, "\nstreams: %d, with all their copies: %d", len(s.Streams), whole)
		if unknown > 0 {
			fmt.Fprintf(w, ", without a leader, so that it isn't known: %d", unknown)
		}
		fmt.Fprintf(w, "; messages: %d\n", messages)
		notes = append(notes, s.Problems...)
	}
	w.Flush()
	if n.Cut {
		notes = append(notes, "this node can't hear of the others: they are the last that it knew of")
	}
	if n.Error != "" {
		notes = append(notes, "the stores: "+n.Error)
	}
	if len(policies) > 1 {
		notes = append(notes, "nodes have different policies of rooms")
	}
	for _, note := range notes {
		fmt.Println("! " + printable(strings.TrimSpace(note)))
	}
	return len(notes)
}

// removeNodeCmd takes a store out for good.
type removeNodeCmd struct {
	Name     string `arg:"" help:"The store's name, as hubbub nodes shows it."`
	apiFlags `embed:""`
}

// Help is shown by hubbub nodes remove --help.
func (removeNodeCmd) Help() string {
	return "For a store that is gone for good; other stores then get the copies that it had, where there are enough. One that is up is refused: stop it first. One that was removed is refused with its old --data-dir, and comes in as a new store with an empty one."
}

// Run removes it.
func (c *removeNodeCmd) Run() error {
	ctx, cancel := untilSignal()
	defer cancel()
	if _, err := c.call(ctx, "DELETE", "/nodes/"+segment(c.Name), nil, nil, nil); err != nil {
		return err
	}
	if c.JSON {
		out, _ := json.Marshal(map[string]string{"removed": c.Name})
		fmt.Println(string(out))
		return nil
	}
	fmt.Printf("%s is forgotten\n", printable(c.Name))
	return nil
}
