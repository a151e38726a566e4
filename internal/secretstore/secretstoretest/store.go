package secretstoretest

import (
	"crypto/rand"
	"slices"
	"strings"
	"time"
)

// Staging labels that Secrets Manager moves by itself.
const (
	current  = "AWSCURRENT"
	previous = "AWSPREVIOUS"
)

// AWS keeps the newest hundred versions, and all of the last day. Beyond that a write fails
// (PutSecretValue, UpdateSecret).
const (
	maxVersions   = 100
	versionMinAge = 24 * time.Hour
)

const account = "123456789012"

type version struct {
	ID      string
	Value   string `json:"SecretString"`
	Created time.Time
	Labels  []string
}

// secret is one secret from creation to final deletion. A name that is created again is another
// secret.
type secret struct {
	Name, ARN, Description string
	Tags                   map[string]string `json:",omitempty"`
	Policy                 string            `json:",omitempty"` // the resource policy
	Created, Changed       time.Time         // Changed: by any edit, tags and description included
	Deletion               time.Time         `json:",omitzero"` // end of the recovery window, if deletion is pending
	Versions               []*version        // oldest first

	// What a test has made of it; see Secret.
	replicas                     []string
	primaryRegion, owningService string

	seq  int64 // order of creation
	gone bool  // deleted for good, and kept only while ListLag shows it
	past []glimpse
}

func (sec *secret) pending() bool { return !sec.Deletion.IsZero() }

// version returns the version with this ID, nil if there is none.
func (sec *secret) version(id string) *version {
	for _, v := range sec.Versions {
		if v.ID == id {
			return v
		}
	}
	return nil
}

// current returns the version that is AWSCURRENT, nil if there is none.
func (sec *secret) current() *version {
	for _, v := range sec.Versions {
		if slices.Contains(v.Labels, current) {
			return v
		}
	}
	return nil
}

// stages are the versions that have labels. AWS does not show the others.
func (sec *secret) stages() map[string][]string {
	m := make(map[string][]string, 2)
	for _, v := range sec.Versions {
		if len(v.Labels) > 0 {
			m[v.ID] = v.Labels
		}
	}
	return m
}

// addVersion makes v the newest version and the current one.
func (sec *secret) addVersion(v *version) error {
	excess := len(sec.Versions) - maxVersions + 1
	sec.Versions = slices.DeleteFunc(sec.Versions, func(old *version) bool {
		drop := excess > 0 && len(old.Labels) == 0 && v.Created.Sub(old.Created) >= versionMinAge
		if drop {
			excess--
		}
		return drop
	})
	if excess > 0 {
		return fail("LimitExceededException", "You have exceeded the quota of %d versions of a secret within 24 hours.", maxVersions)
	}
	sec.Versions = append(sec.Versions, v)
	sec.promote(v)
	return nil
}

// promote moves AWSCURRENT to v, and AWSPREVIOUS to the version that had AWSCURRENT. A listing may
// still show the old labels, so they are replaced, not changed.
func (sec *secret) promote(v *version) {
	for _, other := range sec.Versions {
		if slices.Contains(other.Labels, current) {
			other.Labels = []string{previous}
		} else {
			other.Labels = nil
		}
	}
	v.Labels = []string{current}
}

// store is the state of one account in one Region. The Server's lock guards it.
type store struct {
	Options
	names   map[string]*secret // live and pending ones
	all     []*secret          // in order of creation, gone ones included
	byName  []*secret          // all, sorted; nil once all has changed
	pending []*secret          // all whose deletion is pending, and some others
	seq     int64
	dirty   bool // changed since the last save
}

// enter adds a secret that is new.
func (st *store) enter(sec *secret) {
	st.seq++
	sec.seq = st.seq
	st.names[sec.Name] = sec
	st.all = append(st.all, sec)
	st.byName = nil
}

// touch notes that sec was edited.
func (st *store) touch(sec *secret, now time.Time) {
	sec.Changed = now
	st.dirty = true
	st.remember(sec, now)
}

// remove deletes sec for good.
func (st *store) remove(sec *secret, now time.Time) {
	delete(st.names, sec.Name)
	sec.gone = true
	st.dirty = true
	st.remember(sec, now)
}

// purge removes the secrets whose recovery window is over. AWS promises no time for that; here it
// is at once.
func (st *store) purge(now time.Time) {
	st.pending = slices.DeleteFunc(st.pending, func(sec *secret) bool {
		over := sec.pending() && !sec.gone && !now.Before(sec.Deletion)
		if over {
			st.remove(sec, now)
		}
		return over || sec.gone || !sec.pending()
	})
}

// arnOf is the ARN of the secret with that name, or one that it might get.
func (st *store) arnOf(name string) string {
	if sec := st.names[name]; sec != nil {
		return sec.ARN
	}
	return st.newARN(name)
}

func (st *store) newARN(name string) string {
	return "arn:aws:secretsmanager:" + st.Region + ":" + account + ":secret:" + name + "-" + rand.Text()[:6]
}

// nameOf is the name that a SecretId stands for: itself, or what an ARN has between ":secret:" and
// its last six characters.
func nameOf(id string) string {
	_, rest, ok := strings.Cut(id, ":secret:")
	if i := len(rest) - len("-AbCdEf"); ok && i > 0 && rest[i] == '-' {
		return rest[:i]
	}
	return id
}
