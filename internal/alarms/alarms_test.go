package alarms_test

import (
	"os"
	"strings"
	"testing"

	"example.com/hubbub/internal/alarms"
)

const rules = `
      - alert: A
        expr: max_over_time(up[1m]) == 0 and sum(hubbub_peers[10m:]) < 3 and increase(x{code=~"1006|4002"}[5m]) > 10
        for: 30s
      - alert: B
        expr: hubbub_webhook_oldest_seconds > 60 or hubbub_turn_seconds > 60
        for: 5m
        annotations:
          summary: for 5m
`

// How long an alarm has to be so is cut short, and in a time that passes faster also what it looks back on; nothing else.
func TestTimesAreCutShort(t *testing.T) {
	sooner := strings.NewReplacer("for: 30s\n", "for: 1s\n", "  for: 5m\n", "  for: 10s\n").Replace(rules)
	if got := alarms.Sooner(rules); got != sooner {
		t.Errorf("sooner they are\n%s, want\n%s", got, sooner)
	}
	faster := strings.NewReplacer("[1m]", "[2s]", "[10m:]", "[20s:]", "[5m]", "[10s]", "oldest_seconds > 60", "oldest_seconds > 2").Replace(sooner)
	if got := alarms.Faster(rules); got != faster {
		t.Errorf("faster they are\n%s, want\n%s", got, faster)
	}
}

// Of our own rules no time is left as it was.
func TestNoTimeOfTheRulesIsForgotten(t *testing.T) {
	b, err := os.ReadFile("../../deploy/prometheus/hubbub.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	before, after := strings.Split(string(b), "\n"), strings.Split(alarms.Faster(string(b)), "\n")
	changed := 0
	for i, line := range before {
		if timed := strings.Contains(line, " for: ") || strings.Contains(line, "m]") || strings.Contains(line, "h]") || strings.Contains(line, "m:]") || strings.Contains(line, "oldest_seconds >"); timed != (line != after[i]) {
			t.Errorf("%q became %q", line, after[i])
		} else if timed {
			changed++
		}
	}
	if changed < 40 {
		t.Errorf("only %d lines have a time", changed)
	}
}

func TestSamples(t *testing.T) {
	got, err := alarms.Samples([]byte(`{"status":"success","data":{"resultType":"vector","result":[{"metric":{"alertname":"HubbubDown"},"value":[1.5,"1"]}]}}`))
	if err != nil || len(got) != 1 || got[0].Metric["alertname"] != "HubbubDown" || got[0].Value[1] != "1" {
		t.Errorf("a vector is %v, %v", got, err)
	}
	if got, err := alarms.Samples([]byte(`{"status":"success","data":{"resultType":"scalar","result":[1.5,"1"]}}`)); err != nil || len(got) != 0 {
		t.Errorf("a scalar is %v, %v", got, err)
	}
	if _, err := alarms.Samples([]byte(`{"status":"error","error":"parse error"}`)); err == nil || !strings.Contains(err.Error(), "parse error") {
		t.Errorf("a refusal is the error %v", err)
	}
	if _, err := alarms.Samples([]byte(`<html>`)); err == nil {
		t.Error("what is no answer is no error")
	}
}
