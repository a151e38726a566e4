package secretstoretest

import (
	"slices"
	"time"
)

// glimpse is how ListSecrets was to show a secret from a moment on.
type glimpse struct {
	at    time.Time
	shown *entry // nil: not there any more
}

// shown is sec as ListSecrets shows it now, which is how it was one lag ago.
func (st *store) shown(sec *secret, now time.Time) (entry, bool) {
	if st.lag <= 0 {
		return sec.entry(), !sec.gone
	}
	if i := sec.glimpsed(now.Add(-st.lag)); i >= 0 && sec.past[i].shown != nil {
		return *sec.past[i].shown, true
	}
	return entry{}, false
}

// remember adds what sec is now to its past, and drops what no listing will show again.
func (st *store) remember(sec *secret, now time.Time) {
	if st.lag <= 0 {
		return
	}
	if i := sec.glimpsed(now.Add(-st.lag)); i > 0 {
		sec.past = slices.Delete(sec.past, 0, i)
	}
	g := glimpse{at: now}
	if !sec.gone {
		e := sec.entry()
		g.shown = &e
	}
	if n := len(sec.past); n > 0 && sec.past[n-1].at.Equal(now) {
		sec.past[n-1] = g
		return
	}
	sec.past = append(sec.past, g)
}

// forgotten reports whether no listing will show sec again, given that it is gone.
func (st *store) forgotten(sec *secret, now time.Time) bool {
	return st.lag <= 0 || sec.glimpsed(now.Add(-st.lag)) == len(sec.past)-1
}

// glimpsed is the index of what was to be shown at t, -1 if nothing was.
func (sec *secret) glimpsed(t time.Time) int {
	for i := len(sec.past) - 1; i >= 0; i-- {
		if !sec.past[i].at.After(t) {
			return i
		}
	}
	return -1
}
