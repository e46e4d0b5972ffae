// Package alarms has a real Prometheus fire the alarms of deploy/prometheus within seconds, for tests and drills: the
// rules with their times cut short, its configuration, its targets and its answers.
//
// It is pure: the caller runs Prometheus, writes its files and asks it.
package alarms

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// Hurry is by how much times are cut short: a thirtieth is left.
const Hurry = 30

// Config is a prometheus.yml for rules.yaml and targets.json beside it, that scrapes and judges once a second.
const Config = `global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [rules.yaml]
scrape_configs:
  - job_name: none
    file_sd_configs: [{files: [targets.json], refresh_interval: 1s}]
`

// A Target is what targets.json has a list of: addresses, and the labels of their figures, job among them.
type Target struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

var (
	waits   = regexp.MustCompile(`(?m)^( +for: )(\w+)$()`)
	windows = regexp.MustCompile(`(\[)(\w+)(:?\])`)
	ages    = regexp.MustCompile(`(_oldest_seconds > )(\d+)()`)
)

// Sooner has each alarm fire after a thirtieth of the time for which it has to be so; nothing else of the rules is
// changed.
func Sooner(rules string) string { return shorten(waits, rules) }

// Faster has all times of the rules pass thirty times as fast: how long an alarm has to be so, how far it looks back, and
// how old an event may be that a backend isn't told of. Counts stay what they are, and so do the times of an answer
// and of a turn.
func Faster(rules string) string {
	for _, times := range []*regexp.Regexp{waits, windows, ages} {
		rules = shorten(times, rules)
	}
	return rules
}

// shorten replaces the second group of each match, a time that may lack its unit, seconds.
func shorten(times *regexp.Regexp, rules string) string {
	return times.ReplaceAllStringFunc(rules, func(match string) string {
		parts := times.FindStringSubmatch(match)
		unit := "s"
		d, err := time.ParseDuration(parts[2])
		if n, bare := strconv.Atoi(parts[2]); bare == nil {
			unit, d, err = "", time.Duration(n)*time.Second, nil
		}
		if err != nil {
			panic(err) // the rules are ours
		}
		return fmt.Sprintf("%s%d%s%s", parts[1], max(1, int(d.Seconds()/Hurry)), unit, parts[3])
	})
}

// A Sample is one of what a query gives.
type Sample struct {
	Metric map[string]string
	Value  [2]any // when, and what as text
}

// Samples reads the answer to a query; where that gives a scalar they are none. The error is Prometheus's, or that of
// what is no answer.
func Samples(answer []byte) ([]Sample, error) {
	var said struct {
		Status, Error string
		Data          struct {
			ResultType string
			Result     json.RawMessage
		}
	}
	if err := json.Unmarshal(answer, &said); err != nil {
		return nil, fmt.Errorf("Prometheus's answer: %w", err)
	}
	if said.Status != "success" {
		return nil, fmt.Errorf("Prometheus says %s: %s", said.Status, said.Error)
	}
	if said.Data.ResultType != "vector" {
		return nil, nil
	}
	var samples []Sample
	if err := json.Unmarshal(said.Data.Result, &samples); err != nil {
		return nil, fmt.Errorf("Prometheus's samples: %w", err)
	}
	return samples, nil
}
