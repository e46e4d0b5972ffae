package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// alarm is one of the rules.
type alarm struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

func readRules(t *testing.T) (all []alarm) {
	t.Helper()
	b, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Rules []alarm
		}
	}
	if err := yaml.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) < 20 {
		t.Fatalf("found %d alarms", len(all))
	}
	return all
}

// Each alarm says what to do, and docs/monitoring.md has the same list.
func TestTheDocsListTheAlarms(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for _, r := range readRules(t) {
		url, isDoc := strings.CutPrefix(r.Annotations["runbook_url"], "docs/")
		if !isDoc || r.Annotations["summary"] == "" || r.Annotations["description"] == "" || !strings.HasPrefix(r.Alert, "Hubbub") {
			t.Errorf("%s has no page of the docs, summary or description, or another name", r.Alert)
		}
		if s := r.Labels["severity"]; s != "critical" && s != "warning" {
			t.Errorf("%s has the severity %q", r.Alert, s)
		}
		long := ""
		if r.For != "" {
			long = ", for " + r.For
		}
		fmt.Fprintf(&want, "| `%s` | %s | %s%s | %s: [more](%s) |\n", r.Alert, r.Labels["severity"], r.Annotations["summary"], long, r.Annotations["description"], url)
	}
	var got strings.Builder
	for line := range strings.Lines(string(doc)) {
		if strings.HasPrefix(line, "| `Hubbub") {
			got.WriteString(line)
		}
	}
	if got.String() != want.String() {
		t.Errorf("docs/monitoring.md has\n%s\nand the rules are\n%s", got.String(), want.String())
	}
}

// dashboard is what is used of Grafana's format.
type dashboard struct {
	ID         *int
	UID        string
	Templating struct {
		List []struct{ Name, Type string }
	}
	Panels []panel
}

type panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               *struct{ Type, UID string }
	GridPos                  struct{ X, Y, W, H int }
	FieldConfig              struct{ Defaults struct{ Unit string } }
	Targets                  []struct{ RefID, Expr string }
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	b, err := os.ReadFile("../deploy/grafana/hubbub.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// charts are the panels that aren't heads of rows.
func (d dashboard) charts() []panel {
	return slices.DeleteFunc(slices.Clone(d.Panels), func(p panel) bool { return p.Type == "row" })
}

// overlaps says that two panels want one place.
func (p panel) overlaps(o panel) bool {
	a, b := p.GridPos, o.GridPos
	return a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H
}

// What can be said of the dashboard without Grafana.
func TestTheDashboard(t *testing.T) {
	t.Parallel()
	d := readDashboard(t)
	if d.ID != nil || d.UID != "hubbub" {
		t.Errorf("id %v, uid %q: a provisioned dashboard has no id, and a uid that stays", d.ID, d.UID)
	}
	var variables, rows []string
	for _, v := range d.Templating.List {
		variables = append(variables, v.Type+" "+v.Name)
	}
	if want := []string{"datasource datasource", "query job", "query instance"}; !slices.Equal(variables, want) {
		t.Errorf("its variables are %q, want %q", variables, want)
	}
	units := []string{"none", "short", "ops", "cps", "s", "bytes", "Bps", "percentunit"} // Grafana's names
	for i, p := range d.Panels {
		for _, o := range d.Panels[:i] {
			if p.ID == o.ID || p.Title == o.Title || p.overlaps(o) || p.GridPos.Y < o.GridPos.Y {
				t.Errorf("%q and %q have one id or title, or lie upon or before each other", o.Title, p.Title)
			}
		}
		if g := p.GridPos; g.X < 0 || g.W <= 0 || g.H <= 0 || g.X+g.W > 24 {
			t.Errorf("%q lies outside of the 24 columns", p.Title)
		}
		if p.Type == "row" {
			rows = append(rows, p.Title)
			continue
		}
		if !strings.HasSuffix(p.Title, "?") || p.Description == "" || !slices.Contains(units, p.FieldConfig.Defaults.Unit) {
			t.Errorf("%q is no question, has no description, or the unit %q", p.Title, p.FieldConfig.Defaults.Unit)
		}
		if p.Datasource == nil || p.Datasource.UID != "${datasource}" || p.Datasource.Type != "prometheus" {
			t.Errorf("%q doesn't follow the variable datasource", p.Title)
		}
		refs := map[string]bool{}
		for _, target := range p.Targets {
			whose := strings.Contains(target.Expr, `job=~"$job"`) && (strings.Contains(target.Expr, `instance=~"$instance"`) || strings.HasPrefix(target.Expr, "ALERTS"))
			if refs[target.RefID] || !whose {
				t.Errorf("%q: %s has the name of another, or shows what isn't chosen", p.Title, target.Expr)
			}
			refs[target.RefID] = true
		}
		if len(refs) == 0 {
			t.Errorf("%q shows nothing", p.Title)
		}
	}
	want := []string{"Alarms", "Clients", "Rooms", "Messages", "Latency", "Memory and its bounds", "Loss and gaps told", "Refusals", "Hooks and webhooks", "Cluster"}
	if !slices.Equal(rows, want) {
		t.Errorf("its rows are %q, want %q", rows, want)
	}
}

var (
	metricNames = regexp.MustCompile(`\b(?:hubbub|go|process)_\w+`)
	selectors   = regexp.MustCompile(`(\w+)\{([^}]*)\}`)
	matchers    = regexp.MustCompile(`(\w+)=~?"([^"]*)"`)
)

// names asks Prometheus whether an expression is one, and whether a server serves every metric in it, and every value of a
// label that it picks.
func (p *prometheus) names(t *testing.T, who, expr, job string) {
	t.Helper()
	expr = strings.NewReplacer("$job", job, "$instance", ".*", "$__rate_interval", "1m").Replace(expr)
	p.query(t, expr)
	has := func(selector string) bool { // also where the last scrape took too long
		return len(p.query(t, "count(last_over_time("+selector+"[10m]))")) > 0
	}
	for _, name := range metricNames.FindAllString(expr, -1) {
		if !has(fmt.Sprintf("%s{job=%q}", name, job)) {
			t.Errorf("%s speaks of %s, which isn't served", who, name)
		}
	}
	for _, s := range selectors.FindAllStringSubmatch(expr, -1) {
		for _, m := range matchers.FindAllStringSubmatch(s[2], -1) {
			// A status is there only once it was answered.
			if m[1] == "job" || m[1] == "instance" || m[1] == "status" || s[1] == "ALERTS" {
				continue
			}
			for value := range strings.SplitSeq(m[2], "|") {
				if !has(fmt.Sprintf("%s{job=%q, %s=%q}", s[1], job, m[1], value)) {
					t.Errorf("%s speaks of %s of %s %s, which isn't served", who, value, m[1], s[1])
				}
			}
		}
	}
}
