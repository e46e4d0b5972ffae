package metrics

import "github.com/prometheus/client_golang/prometheus"

// Links are the figures of a node's links with others and with the logs of rooms; all 0 of one that has none.
type Links struct {
	Up, Peers, Apart              int
	Cut                           bool
	Reconnects, Came, Cuts        int64
	Publishing, WaitingBytes      int64
	Calling, Topics               int64
	Unpublished, Uncalled         int64
	Untold, Missed, Lost, Overrun int64
}

func gauge(name, help string, of func(l *Links) int64) figure {
	return one(name, help, prometheus.GaugeValue, func(s *Snapshot) float64 { return float64(of(&s.Links)) })
}

func total(name, help string, of func(l *Links) int64) figure {
	return one(name, help, prometheus.CounterValue, func(s *Snapshot) float64 { return float64(of(&s.Links)) })
}

var linkFigures = []figure{
	gauge("links_up", "Connections to the stores or NATS servers that are up, of two.", func(l *Links) int64 { return int64(l.Up) }),
	total("link_reconnects_total", "How often one of them was made again.", func(l *Links) int64 { return l.Reconnects }),
	gauge("peers", "Other nodes that are there, as far as this one knows.", func(l *Links) int64 { return int64(l.Peers) }),
	total("peers_seen_total", "Other nodes that have come.", func(l *Links) int64 { return l.Came }),
	gauge("peers_apart", "Other nodes that have other policies of rooms.", func(l *Links) int64 { return int64(l.Apart) }),
	gauge("cut_off", "1 while this node can't hear of the others, or too few stores hear each other to serve it.", func(l *Links) int64 { return int64(oneIf(l.Cut)) }),
	total("cut_off_total", "How often this node could no longer hear of the others.", func(l *Links) int64 { return l.Cuts }),
	gauge("log_publishes_waiting", "Messages on their way to the logs of rooms.", func(l *Links) int64 { return l.Publishing }),
	gauge("log_waiting_bytes", "Bytes of these.", func(l *Links) int64 { return l.WaitingBytes }),
	total("log_publishes_failed_total", "Messages that a log didn't take, or of which nobody knows.", func(l *Links) int64 { return l.Unpublished }),
	total("logs_lost_total", "How often a room's members were told that messages are gone from its log, or that the log is another one.", func(l *Links) int64 { return l.Lost }),
	gauge("topics", "What this node listens to of other nodes: rooms that have members here.", func(l *Links) int64 { return l.Topics }),
	total("topics_missed_total", "How often a room was told that something of other nodes may be lost.", func(l *Links) int64 { return l.Missed }),
	total("untold_total", "Messages that couldn't be told to other nodes.", func(l *Links) int64 { return l.Untold }),
	gauge("node_calls_waiting", "Questions to other nodes that aren't answered yet.", func(l *Links) int64 { return l.Calling }),
	total("node_calls_failed_total", "Questions to other nodes that weren't answered.", func(l *Links) int64 { return l.Uncalled }),
	total("link_overruns_total", "How often this node was too slow to take what arrived, so that some of it was dropped and read again.", func(l *Links) int64 { return l.Overrun }),
}

func init() { figures = append(figures, linkFigures...) }
