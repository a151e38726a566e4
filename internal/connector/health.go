package connector

import (
	"maps"
	"time"
)

// Health is how the connections of one app, or of all apps, are after a sweep. It is for metrics.
type Health struct {
	Refused      int            // connections that need a person
	NewlyRefused int            // connections that have come to need a person
	Recovered    int            // connections that no longer need a person
	FailedBy     map[string]int // refreshes that failed, by their [entra.Class] or "store"
	Healthy      int            // connections that need nobody
	// ShortestLife is what is left of the token that expires first among Healthy. It is negative if
	// that has expired, and zero if there is none.
	ShortestLife time.Duration
}

// failedInStore is the class of failures that are the store's, not Entra's.
const failedInStore = "store"

// tally adds up connections as a sweep leaves them.
type tally struct {
	Health
	expiry time.Time // the first of Healthy
}

func (t *tally) fail(class string) {
	if t.FailedBy == nil {
		t.FailedBy = make(map[string]int)
	}
	t.FailedBy[class]++
}

// see counts a connection, as it was before the sweep and as it is after it.
func (t *tally) see(before, after Connection) {
	since := after.refusedSince()
	switch {
	case after.TenantID == "", since.After(before.refusedSince()) && since.Equal(after.Failure.At):
		// An unreadable connection counts as new each time, since nothing can be recorded about it.
		t.NewlyRefused++
	case since.IsZero() && !before.refusedSince().IsZero():
		t.Recovered++
	}
	if after.Status() == StatusRefused {
		t.Refused++
		return
	}
	if after.known() {
		if t.Healthy == 0 || after.ExpiresAt.Before(t.expiry) {
			t.expiry = after.ExpiresAt
		}
		t.Healthy++
	}
}

// add adds another tally to this one.
func (t *tally) add(other tally) {
	for class, n := range other.FailedBy {
		t.fail(class)
		t.FailedBy[class] += n - 1
	}
	if t.Healthy == 0 || other.Healthy > 0 && other.expiry.Before(t.expiry) {
		t.expiry = other.expiry
	}
	t.Refused += other.Refused
	t.NewlyRefused += other.NewlyRefused
	t.Recovered += other.Recovered
	t.Healthy += other.Healthy
}

func (t *tally) health(now time.Time) Health {
	h := t.Health
	h.FailedBy = maps.Clone(h.FailedBy)
	if h.Healthy > 0 {
		h.ShortestLife = t.expiry.Sub(now)
	}
	return h
}
