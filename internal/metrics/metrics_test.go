package metrics_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"

	"example.com/hubbub/internal/metrics"
)

const names = "connections max_connections rooms messages_received_total messages_sent_total received_bytes_total sent_bytes_total dropped_total " +
	"closed_total errors_total upgrades_total buffered_bytes max_buffered_bytes history_bytes kept_bytes parked_sessions mailbox_depth turn_seconds panics_total questions_total question_seconds"

func full() metrics.Snapshot {
	return metrics.Snapshot{
		Connections: 3, MaxConnections: 17, Rooms: 2, MessagesReceived: 10, MessagesSent: 20, BytesReceived: 100, BytesSent: 200,
		Dropped: map[string]int64{"disconnect": 4}, Closed: map[string]int64{"1000": 5, "other": 1}, Errors: map[string]int64{"bad_json": 6},
		Upgrades: map[string]int64{"accepted": 7}, Panics: 8, BufferedBytes: 9, MaxBufferedBytes: 18, HistoryBytes: 14, Kept: map[string]int64{"parked": 15}, Parked: 13, MailboxDepth: []int{11, 12},
		Turns:         metrics.Histogram{Bounds: []float64{0.001, 0.01}, Counts: []int64{5, 3, 1}, Sum: 0.5},
		Questions:     map[string]map[string]int64{"join": {"allowed": 16}},
		QuestionTimes: map[string]metrics.Histogram{"join": {Bounds: []float64{1}, Counts: []int64{16, 1}, Sum: 17.5}},
	}
}

func TestEveryFigureHasItsName(t *testing.T) {
	r := metrics.Registry(full)
	want := `
hubbub_connections 3
hubbub_max_connections 17
hubbub_rooms 2
hubbub_messages_received_total 10
hubbub_messages_sent_total 20
hubbub_received_bytes_total 100
hubbub_sent_bytes_total 200
hubbub_dropped_total{policy="disconnect"} 4
hubbub_closed_total{code="1000"} 5
hubbub_closed_total{code="other"} 1
hubbub_errors_total{code="bad_json"} 6
hubbub_upgrades_total{result="accepted"} 7
hubbub_buffered_bytes 9
hubbub_max_buffered_bytes 18
hubbub_history_bytes 14
hubbub_kept_bytes{kind="parked"} 15
hubbub_parked_sessions 13
hubbub_mailbox_depth{worker="0"} 11
hubbub_mailbox_depth{worker="1"} 12
hubbub_turn_seconds_bucket{le="0.001"} 5
hubbub_turn_seconds_bucket{le="0.01"} 8
hubbub_turn_seconds_bucket{le="+Inf"} 9
hubbub_turn_seconds_sum 0.5
hubbub_turn_seconds_count 9
hubbub_panics_total 8
hubbub_questions_total{kind="join",result="allowed"} 16
hubbub_question_seconds_bucket{kind="join",le="1"} 16
hubbub_question_seconds_count{kind="join"} 17
hubbub_question_seconds_sum{kind="join"} 17.5
`
	out, err := testutil.CollectAndFormat(r, expfmt.TypeTextPlain, prefixed()...)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(want), "\n") {
		if !strings.Contains("\n"+string(out), "\n"+line+"\n") {
			t.Errorf("%q is missing in\n%s", line, out)
		}
	}
}

func TestTheRuntimeAndTheProcessAreThere(t *testing.T) {
	families, err := metrics.Registry(full).Gather()
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, f := range families {
		have[f.GetName()] = true
	}
	for _, name := range strings.Fields(names) {
		if !have["hubbub_"+name] {
			t.Errorf("hubbub_%s is missing", name)
		}
	}
	for _, name := range []string{"go_goroutines", "go_memstats_heap_alloc_bytes", "process_open_fds", "process_resident_memory_bytes"} {
		if !have[name] {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestOneScrapeTakesOneSnapshot(t *testing.T) {
	n := 0
	r := metrics.Registry(func() metrics.Snapshot { n++; return full() })
	for range 3 {
		if _, err := r.Gather(); err != nil {
			t.Fatal(err)
		}
	}
	if n != 3 {
		t.Errorf("3 scrapes took %d snapshots", n)
	}
}

func TestTheHelpKeepsTheNamingRules(t *testing.T) {
	problems, err := testutil.GatherAndLint(metrics.Registry(full), prefixed()...)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func prefixed() (all []string) {
	for _, n := range strings.Fields(names) {
		all = append(all, "hubbub_"+n)
	}
	return all
}
