package main

import (
	"cmp"
	_ "embed"
	"slices"
	"strings"
	"text/template"
)

// panel is the bars of one scenario, on a scale of their own that begins at 0.
type panel struct {
	Title string
	Bars  []bar
	Line  float64 // where a vertical line stands; 0: none
}

type bar struct {
	Label, Text      string
	Value, Low, High float64
	Own              bool // Hubbub's
}

func (r *report) cpuPanel(s *scenario) panel {
	base := s.result("limit").figure(cpu)
	p := r.bars(s, func(result *result) figure { return result.figure(cpu).ratio(base) }, multiple)
	p.Line = 1
	return p
}

func (r *report) memoryPanel(s *scenario) panel {
	return r.bars(s, func(result *result) figure { return result.figure(rss) }, thousands)
}

// bars makes a panel of all servers but the limit, the smallest figure first.
func (r *report) bars(s *scenario, of func(*result) figure, text func(float64) string) panel {
	p := panel{Title: s.title()}
	for _, result := range s.results {
		if f := of(result); result.server != "limit" && f.median > 0 {
			p.Bars = append(p.Bars, bar{r.title(result.server), result.mark(text(f.median)), f.median, f.low, f.high, isHubbub(result.server)})
		}
	}
	slices.SortStableFunc(p.Bars, func(a, b bar) int { return cmp.Compare(a.Value, b.Value) })
	return p
}

// Measures of a chart, in pixels.
const (
	chartWidth  = 760
	panelWidth  = chartWidth / 2
	headHeight  = 36
	titleHeight = 30
	barHeight   = 20
	panelGap    = 18
	barLeft     = 150 // within a panel: where bars begin
	barWidth    = 160 // the largest bar's
)

//go:embed chart.svg.tmpl
var chartText string

var chart = template.Must(template.New("chart").Parse(chartText))

// Where things stand, for the template.
type placedPanel struct {
	X, Y, TitleY    float64
	Title           string
	Bars            []placedBar
	LineX, LineEndY float64
}

type placedBar struct {
	bar
	Y, MiddleY, Width, LowX, HighX, TextX float64
}

// draw lays panels out in two columns, as one SVG.
func draw(title string, panels []panel) (string, error) {
	y, rowHeight := float64(headHeight), 0.0
	var placed []placedPanel
	for i, p := range panels {
		if i > 0 && i%2 == 0 {
			y, rowHeight = y+rowHeight+panelGap, 0
		}
		placed = append(placed, p.place(float64(i%2)*panelWidth, y))
		rowHeight = max(rowHeight, float64(titleHeight+barHeight*len(p.Bars)))
	}
	var b strings.Builder
	err := chart.Execute(&b, map[string]any{"Title": title, "Width": chartWidth, "Height": y + rowHeight + panelGap, "Panels": placed, "BarLeft": barLeft})
	return b.String(), err
}

func (p panel) place(x, y float64) placedPanel {
	most := p.Line
	for _, b := range p.Bars {
		most = max(most, b.High)
	}
	scale := func(v float64) float64 { return v / most * barWidth }
	placed := placedPanel{X: x, Y: y, Title: p.Title, LineX: barLeft + scale(p.Line), LineEndY: float64(titleHeight + barHeight*len(p.Bars))}
	for i, b := range p.Bars {
		top := float64(titleHeight + i*barHeight)
		placed.Bars = append(placed.Bars, placedBar{b, top, top + barHeight/2, scale(b.Value),
			barLeft + scale(b.Low), barLeft + scale(b.High), barLeft + scale(b.High) + 6})
	}
	if p.Line == 0 {
		placed.LineX = 0
	}
	return placed
}
