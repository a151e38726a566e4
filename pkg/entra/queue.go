package entra

import (
	"container/heap"
	"sync"
	"time"
)

// queue hands out what is due, of what has been listed so far the nearest expiry
// first. Many connections that hang must not use up the time of those that would
// work: of those whose last refresh failed, only some are out at a time. The ones
// among them that a person has to mend, or whose token has run out, come last,
// after the listing has ended, the one tried longest ago first.
type queue struct {
	now     time.Time // decides whose token has run out
	maxOut  int       // of failed
	mu      sync.Mutex
	changed sync.Cond
	healthy dueHeap
	failed  dueHeap
	out     int  // how many of failed have been taken and are not done
	listed  bool // nothing more will be put
}

// dueConnection is a connection that waits for its refresh, and what it is
// refreshed with.
type dueConnection struct {
	Connection
	app  *sweptApp
	need *need
	last bool      // comes after all that are not
	rank time.Time // the earlier the sooner
}

func newQueue(now time.Time, maxOut int) *queue {
	q := &queue{now: now, maxOut: maxOut}
	q.changed.L = &q.mu
	return q
}

func (q *queue) put(c dueConnection) {
	q.mu.Lock()
	defer q.mu.Unlock()
	c.rank = c.ExpiresAt
	into := &q.healthy
	if f := c.Failure; f != nil {
		into = &q.failed
		if f.Status == NeedsPerson || !c.ExpiresAt.After(q.now) {
			c.last, c.rank = true, f.At
		}
	}
	heap.Push(into, c)
	q.changed.Signal()
}

// end says that nothing more will be put.
func (q *queue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.listed = true
	q.changed.Broadcast()
}

// take waits for the next connection. It reports false when there will be none.
func (q *queue) take() (dueConnection, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		mayFail := len(q.failed) > 0 && q.out < q.maxOut && (q.listed || !q.failed[0].last)
		switch {
		case len(q.healthy) > 0 && !(mayFail && q.failed[0].before(q.healthy[0])):
			return heap.Pop(&q.healthy).(dueConnection), true
		case mayFail:
			q.out++
			return heap.Pop(&q.failed).(dueConnection), true
		case q.listed && len(q.failed) == 0:
			return dueConnection{}, false
		}
		q.changed.Wait()
	}
}

// done is to be called for each connection that was taken.
func (q *queue) done(c dueConnection) {
	if c.Failure == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.out--
	q.changed.Broadcast()
}

func (c dueConnection) before(other dueConnection) bool {
	if c.last != other.last {
		return other.last
	}
	return c.rank.Before(other.rank)
}

// dueHeap is a [heap.Interface], the first to be taken at its top.
type dueHeap []dueConnection

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].before(h[j]) }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(c any)        { *h = append(*h, c.(dueConnection)) }
func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	c := (*h)[last]
	(*h)[last] = dueConnection{} // lets go of what it holds
	*h = (*h)[:last]
	return c
}
