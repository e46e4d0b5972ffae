package main

import (
	"slices"
	"strings"
	"time"
)

// expected is which alarms are to fire during a drill, and which may besides: by how fast the machine is, or as the schedule
// falls. No others do.
type expected struct{ fires, may []string }

// alarmsOf is what is expected of each drill, in both forms. docs/monitoring.md says why.
var alarmsOf = map[string]expected{
	"load":        {},
	"fanout":      {},
	"slow":        {fires: []string{"HubbubSlowReaders"}},
	"line":        {},
	"storm":       {fires: []string{"HubbubConnectionsBreak", "HubbubClientsGone"}, may: []string{"HubbubRefusesClients"}},
	"resume":      {fires: []string{"HubbubConnectionsBreak", "HubbubClientsGone"}, may: []string{"HubbubRefusesClients"}},
	"connects":    {fires: []string{"HubbubConnectionsBreak"}, may: []string{"HubbubClientsGone", "HubbubRefusesClients"}},
	"descriptors": {fires: []string{"HubbubNearMaxConnections", "HubbubNearDescriptors", "HubbubRefusesClients"}, may: []string{"HubbubConnectionsBreak", "HubbubClientsGone"}},
	"memory":      {fires: []string{"HubbubBuffersFill", "HubbubOverloaded", "HubbubRefusesClients"}, may: []string{"HubbubNearMemoryLimit", "HubbubSlowReaders", "HubbubDown"}},
	"disk":        {fires: []string{"HubbubTurnsAway"}},
	"stopped":     {fires: []string{"HubbubDown"}},
	"webhooks":    {fires: []string{"HubbubWebhooksLate", "HubbubConnectionsBreak"}, may: []string{"HubbubClientsGone", "HubbubRefusesClients"}},
	"killed":      {fires: []string{"HubbubConnectionsBreak"}, may: []string{"HubbubClientsGone"}},
	"nodes":       {fires: []string{"HubbubMessagesMissed"}, may: slices.Concat([]string{"HubbubDown"}, comesAndGoes)},
	"rolling":     {may: slices.Concat([]string{"HubbubDown", "HubbubMessagesMissed"}, comesAndGoes)},
	"comers":      {fires: []string{"HubbubDown", "HubbubMessagesMissed"}, may: comesAndGoes},
	"frozen":      {fires: []string{"HubbubDown", "HubbubMessagesMissed"}, may: slices.Concat([]string{"HubbubLogsRefuse"}, comesAndGoes)},
	"bus":         {fires: []string{"HubbubCutOff", "HubbubLinksDown", "HubbubLogsLost", "HubbubMessagesMissed"}, may: []string{"HubbubLogsRefuse", "HubbubCommandsFail", "HubbubNodesDisagree", "HubbubNodeHangs"}},
	"partition":   {fires: []string{"HubbubCutOff", "HubbubNodesDisagree", "HubbubLogsRefuse", "HubbubMessagesMissed"}, may: []string{"HubbubCommandsFail", "HubbubLogsLost", "HubbubNodeHangs"}},
	"wide":        {},
	"many":        {may: []string{"HubbubClientsGone"}},
	"store":       {may: []string{"HubbubMessagesMissed", "HubbubCommandsFail"}},
}

// comesAndGoes may fire where a node goes, or is about to be one: that takes a cluster seconds, which are minutes here.
var comesAndGoes = []string{"HubbubCutOff", "HubbubNodesDisagree", "HubbubNodeHangs", "HubbubCommandsFail"}

// byLoad are alarms that are right where this machine has too much to do, in any drill.
var byLoad = []string{"HubbubSlowTurns", "HubbubWorkerBehind", "HubbubLinkOverruns"}

// missing is which should have fired and didn't, and others which fired and should not.
func (e expected) missing(fired []string) []string { return without(e.fires, fired) }
func (e expected) others(fired []string) []string {
	return without(fired, slices.Concat(e.fires, e.may, byLoad))
}

func without(names, those []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(those, name) })
}

// judgeAlarms judges the alarms that have fired during the drill. Those that should may be a few seconds behind its last
// fault.
func (d *drill) judgeAlarms() {
	p := d.prometheus
	if p == nil {
		return
	}
	if p.servers == 0 {
		d.must(false, "no server was scraped")
		return
	}
	p.until("it answers", p.ready) // else it would seem that none has fired
	fired := p.fired()
	for end := time.Now().Add(10 * time.Second); len(alarmsOf[d.name].missing(fired)) > 0 && time.Now().Before(end); fired = p.fired() {
		time.Sleep(200 * time.Millisecond)
		d.alive()
	}
	d.judgeFired(fired)
}

// judgeFired says which alarms have fired, and holds them against what is expected.
func (d *drill) judgeFired(fired []string) {
	d.say("alarms fired: %s", list(fired))
	missing, others := alarmsOf[d.name].missing(fired), alarmsOf[d.name].others(fired)
	d.must(len(missing) == 0, "alarms that should fire did not: %s", list(missing))
	d.must(len(others) == 0, "alarms fired that should not: %s", list(others))
}

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
