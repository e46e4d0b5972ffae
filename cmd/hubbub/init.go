package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
)

// clusterCmd is about clusters that are to be.
type clusterCmd struct {
	Init initCmd `cmd:"" help:"Print the commands that start a cluster, with a fresh secret."`
}

// initCmd prints what to run on each machine.
type initCmd struct {
	Stores int      `env:"-" default:"3" placeholder:"N" help:"How many stores there are to be: 1, 3 or 5 (${default})."`
	Host   []string `env:"-" placeholder:"HOST" help:"Where each runs, by a name or an address that the others reach: again for each, or with commas. A port may stand behind it (7422)."`
}

// Help is shown by hubbub cluster init --help.
func (initCmd) Help() string {
	return "A store keeps the rooms' messages, and all nodes meet at the stores; with three of them any one may fail. Nothing is kept of what is printed, and nothing is started."
}

// clusterPort is that of stores whose host names none; the port above is for the other stores.
const clusterPort = 7422

// Run prints them.
func (c *initCmd) Run() error {
	if !slices.Contains([]int{1, 3, 5}, c.Stores) {
		return usageError{fmt.Errorf("--stores %d: it must be 1, 3 or 5: with an even number no more stores may fail than with one less", c.Stores)}
	}
	hosts := c.Host
	for i := len(hosts); i < c.Stores && len(c.Host) == 0; i++ {
		hosts = append(hosts, fmt.Sprint("host-", i+1))
	}
	if len(hosts) != c.Stores {
		return usageError{fmt.Errorf("--host: %d of them, and there are to be %d stores", len(hosts), c.Stores)}
	}
	var addresses []string
	var taken []string // the ports above included
	for _, h := range hosts {
		a, err := storeAddress(h)
		above := portAbove(a)
		if err == nil && (slices.Contains(taken, a) || slices.Contains(taken, above)) {
			err = errors.New("another store has its port, or the one above; stores on one machine need ports of their own, two apart")
		}
		if err != nil {
			return usageError{fmt.Errorf("--host %s: %w", h, err)}
		}
		addresses, taken = append(addresses, a), append(taken, a, above)
	}
	_, err := os.Stdout.WriteString(commands(addresses, rand.Text()))
	return err
}

// storeAddress is a host's, with the usual port where it names none.
func storeAddress(host string) (string, error) {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		name, port = strings.Trim(host, "[]"), strconv.Itoa(clusterPort)
	}
	n, err := strconv.Atoi(port)
	bare := name == "" || strings.ContainsAny(name, " /\"'$`\\,;&|<>()*?") // it goes into a shell
	if err != nil || n < 1 || n > 65534 || bare {
		return "", errors.New("a name or an address is wanted, such as store-1.example.com or 192.0.2.7:7422")
	}
	return net.JoinHostPort(name, port), nil
}

// portAbove is an address for other stores.
func portAbove(address string) string {
	host, port, _ := net.SplitHostPort(address)
	n, _ := strconv.Atoi(port)
	return net.JoinHostPort(host, strconv.Itoa(n+1))
}

// commands are what to run where, as a shell takes it.
func commands(addresses []string, secret string) string {
	var b strings.Builder
	join := strings.Join(addresses, ",")
	fmt.Fprintf(&b, "# On every machine, before the command below; keep it secret.\nexport HUBBUB_CLUSTER_SECRET=%s\n", secret)
	on := map[string]int{} // stores of each host: those on one machine need folders and ports of their own, too
	for _, a := range addresses {
		host, port, _ := net.SplitHostPort(a)
		_, above, _ := net.SplitHostPort(portAbove(a))
		dir, clients, listen := "hubbub-data", 8080+on[host], ""
		if on[host]++; on[host] > 1 {
			dir, listen = fmt.Sprint("hubbub-data-", on[host]), fmt.Sprint(" --listen :", clients)
		}
		fmt.Fprintf(&b, "\n# On %s. Other nodes must reach its ports %s and %s; clients come to :%d.\n", host, port, above, clients)
		fmt.Fprintf(&b, "hubbub serve --data-dir %s --cluster-listen %s%s", dir, a, listen)
		if len(addresses) > 1 {
			fmt.Fprintf(&b, " --join %s", join)
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "\n# More nodes, as many as you like, on any machine that reaches these: they keep no messages.\nhubbub serve --join %s\n", join)
	b.WriteString("\n# With an API key (HUBBUB_API_KEY): hubbub nodes shows them all.\n")
	return b.String()
}
