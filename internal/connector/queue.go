package connector

import (
	"container/heap"
	"sync"
	"time"
)

// queue hands out what is due, nearest expiry first among what has been listed so far. At most
// maxOut previously failed connections are out at once, so that hanging tenants cannot hold up
// healthy ones. Failed connections that need a person, or whose token has expired, come last: after
// the listing has ended, the one tried longest ago first.
type queue struct {
	now     time.Time // decides whose token has run out
	maxOut  int       // of failed, at a time
	mu      sync.Mutex
	changed sync.Cond
	healthy dueHeap
	failed  dueHeap
	out     int  // how many of failed have been taken and are not done
	listed  bool // nothing more will come
}

// dueConnection is a connection that waits for its refresh, with what the refresh needs.
type dueConnection struct {
	Connection
	app    *sweptApp
	need   *need
	failed bool      // the last refresh did
	last   bool      // comes after all others
	rank   time.Time // the earliest comes first
}

func newQueue(now time.Time, maxOut int) *queue {
	q := &queue{now: now, maxOut: maxOut}
	q.changed.L = &q.mu
	return q
}

func (q *queue) put(c *dueConnection) {
	q.mu.Lock()
	defer q.mu.Unlock()
	c.rank = c.ExpiresAt
	into := &q.healthy
	if f := c.Failure; f != nil && c.known() {
		into, c.failed = &q.failed, true
		if f.Status == StatusRefused || !c.ExpiresAt.After(q.now) {
			c.last, c.rank = true, f.At
		}
	}
	heap.Push(into, c)
	q.changed.Signal()
}

func (q *queue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.listed = true
	q.changed.Broadcast()
}

// take waits for the next connection. It returns nil when there will be none.
func (q *queue) take() *dueConnection {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		mayFail := len(q.failed) > 0 && q.out < q.maxOut && (q.listed || !q.failed[0].last)
		switch {
		case len(q.healthy) > 0 && !(mayFail && q.failed[0].before(q.healthy[0])):
			return heap.Pop(&q.healthy).(*dueConnection)
		case mayFail:
			q.out++
			return heap.Pop(&q.failed).(*dueConnection)
		case q.listed && len(q.failed) == 0:
			return nil
		}
		q.changed.Wait()
	}
}

// done must be called for each connection that was taken, once its refresh is over.
func (q *queue) done(c *dueConnection) {
	if !c.failed {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.out--
	q.changed.Broadcast()
}

func (c *dueConnection) before(other *dueConnection) bool {
	if c.last != other.last {
		return other.last
	}
	return c.rank.Before(other.rank)
}

// dueHeap is a [heap.Interface] with the first to be taken on top.
type dueHeap []*dueConnection

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].before(h[j]) }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(c any)        { *h = append(*h, c.(*dueConnection)) }
func (h *dueHeap) Pop() (last any) {
	old := *h
	last, *h = old[len(old)-1], old[:len(old)-1]
	old[len(old)-1] = nil // lets go of what it holds
	return last
}
