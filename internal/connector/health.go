package connector

import "time"

// Health is how the connections of one app, or of all apps, are after a sweep. It is for metrics.
type Health struct {
	Refused      int            // connections that need a person
	NewlyRefused int            // connections that have come to need a person
	Recovered    int            // connections that no longer need a person
	FailedBy     map[string]int // refreshes that failed, by their [entra.Class] or "store"
	Healthy      int            // connections that need nobody
	FirstExpiry  time.Time      // of the tokens of Healthy; zero if there is none
}

// failedInStore is the class of failures that are the store's, not Entra's.
const failedInStore = "store"

func (h *Health) fail(class string) {
	if h.FailedBy == nil {
		h.FailedBy = make(map[string]int)
	}
	h.FailedBy[class]++
}

// see counts a connection, as it was before the sweep and as it is after it.
func (h *Health) see(before, after Connection) {
	since := after.refusedSince()
	switch {
	case after.TenantID == "", since.After(before.refusedSince()) && since.Equal(after.Failure.At):
		// An unreadable connection counts as new each time, since nothing can be recorded about it.
		h.NewlyRefused++
	case since.IsZero() && !before.refusedSince().IsZero():
		h.Recovered++
	}
	switch {
	case after.Status() == StatusRefused:
		h.Refused++
	case after.known():
		if h.Healthy == 0 || after.ExpiresAt.Before(h.FirstExpiry) {
			h.FirstExpiry = after.ExpiresAt
		}
		h.Healthy++
	}
}
