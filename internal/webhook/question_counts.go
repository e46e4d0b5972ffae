package webhook

import (
	"sync/atomic"
	"time"

	"example.com/hubbub/internal/sparselog"
)

// QuestionBounds are the upper bounds of the ranges in which the times of questions are counted.
var QuestionBounds = [...]time.Duration{
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second,
}

// questionCounts is what became of the questions, and how long those took that were put.
type questionCounts struct {
	lines [questionKinds]sparselog.Log // what is said of those that were not answered
	ended [questionKinds][results]atomic.Int64
	times [questionKinds]struct {
		ranges [len(QuestionBounds) + 1]atomic.Int64
		nanos  atomic.Int64
	}
}

func (c *questionCounts) took(k Question, d time.Duration) {
	i := 0
	for i < len(QuestionBounds) && d > QuestionBounds[i] {
		i++
	}
	c.times[k].ranges[i].Add(1)
	c.times[k].nanos.Add(int64(d))
}

// QuestionCounts is what became of one kind of question since the start.
type QuestionCounts struct {
	Question Question
	Results  map[string]int64
	Times    []int64 // how many took so long, by QuestionBounds; then those above all
	Sum      time.Duration
}

// Counts are those of the kinds that are asked.
func (q *Questions) Counts() (all []QuestionCounts) {
	for k := range questionKinds {
		if !q.Asks(k) {
			continue
		}
		times := &q.counts.times[k]
		c := QuestionCounts{Question: k, Results: map[string]int64{}, Sum: time.Duration(times.nanos.Load())}
		for what, name := range resultNames {
			c.Results[name] = q.counts.ended[k][what].Load()
		}
		for i := range times.ranges {
			c.Times = append(c.Times, times.ranges[i].Load())
		}
		all = append(all, c)
	}
	return all
}
