package secretstoretest

import (
	"bytes"
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

// Versions: the newest hundred are kept, and all of the last day; past that a write fails (PutSecretValue, UpdateSecret).
const (
	maxVersions   = 100
	versionMinAge = 24 * time.Hour
)

const account = "123456789012"

// payload is what a version holds: a string or bytes.
type payload struct {
	SecretString *string `json:",omitempty"`
	SecretBinary []byte  `json:",omitempty"`
}

func (p payload) empty() bool { return p.SecretString == nil && p.SecretBinary == nil }

func (p payload) equal(q payload) bool {
	if p.SecretString == nil || q.SecretString == nil {
		return p.SecretString == q.SecretString && bytes.Equal(p.SecretBinary, q.SecretBinary)
	}
	return *p.SecretString == *q.SecretString
}

type version struct {
	ID string
	payload
	Created time.Time
	Labels  []string // sorted
}

type tag struct{ Key, Value string }

// secret is one secret from creation to final deletion. A name that is created again is another secret.
type secret struct {
	Name, ARN, Description string
	Tags                   []tag      `json:",omitempty"`
	Created, Changed       time.Time  // Changed: by any edit, tags and description included
	Accessed               time.Time  `json:",omitzero"` // a day, not a moment
	Deletion               time.Time  `json:",omitzero"` // end of the recovery window, if deletion is pending
	Versions               []*version // oldest first

	seq  int64 // order of creation
	gone bool  // deleted for good, and kept only while ListLag shows it
	past []glimpse
}

func (sec *secret) pending() bool { return !sec.Deletion.IsZero() }

func (sec *secret) version(id string) *version {
	for _, v := range sec.Versions {
		if v.ID == id {
			return v
		}
	}
	return nil
}

func (sec *secret) labelled(label string) *version {
	for _, v := range sec.Versions {
		if slices.Contains(v.Labels, label) {
			return v
		}
	}
	return nil
}

// stages are the versions that have labels; the others count as deprecated and are shown only on demand.
func (sec *secret) stages() map[string][]string {
	m := make(map[string][]string, 2)
	for _, v := range sec.Versions {
		if len(v.Labels) > 0 {
			m[v.ID] = slices.Clone(v.Labels)
		}
	}
	return m
}

// addVersion makes v the newest version and moves labels to it. AWSCURRENT leaves AWSPREVIOUS behind, and goes to a
// secret's first version whatever the labels.
func (sec *secret) addVersion(v *version, labels []string) error {
	for i := 0; len(sec.Versions) >= maxVersions && i < len(sec.Versions); {
		if old := sec.Versions[i]; len(old.Labels) == 0 && v.Created.Sub(old.Created) >= versionMinAge {
			sec.Versions = slices.Delete(sec.Versions, i, i+1)
		} else {
			i++
		}
	}
	if len(sec.Versions) >= maxVersions {
		return fail("LimitExceededException", "You have exceeded the quota of %d versions of a secret within 24 hours.", maxVersions)
	}
	if len(labels) == 0 || sec.labelled(current) == nil {
		labels = append(slices.Clone(labels), current)
	}
	sec.Versions = append(sec.Versions, v)
	for _, label := range labels {
		if holder := sec.labelled(label); label == current && holder != nil && holder != v {
			sec.move(previous, holder)
		}
		sec.move(label, v)
	}
	return nil
}

// move gives label to v alone.
func (sec *secret) move(label string, v *version) {
	if holder := sec.labelled(label); holder != nil {
		holder.Labels = slices.DeleteFunc(holder.Labels, func(l string) bool { return l == label })
	}
	v.Labels = append(v.Labels, label)
	slices.Sort(v.Labels)
}

// store is the state of one account in one Region. The Server's lock guards it.
type store struct {
	region string
	lag    time.Duration

	names   map[string]*secret // live and pending ones
	all     []*secret          // in order of creation, gone ones included
	byName  []*secret          // all, sorted; nil once all has changed
	removed int                // how many of all are gone
	seq     int64
	due     time.Time // when the first recovery window may end; zero if none runs
	dirty   bool      // changed since the last save
}

func newStore(region string, lag time.Duration) *store {
	return &store{region: region, lag: lag, names: make(map[string]*secret)}
}

// add makes a new secret with an ARN of its own, even where the name was used before.
func (st *store) add(name string, now time.Time) *secret {
	sec := &secret{Name: name, ARN: st.newARN(name), Created: now}
	st.enter(sec)
	return sec
}

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
	// Tidied in bulk, so that deleting everything does not cost the square of it.
	if st.removed++; st.removed > len(st.all)/2 {
		before := len(st.all)
		st.all = slices.DeleteFunc(st.all, func(sec *secret) bool { return sec.gone && st.forgotten(sec, now) })
		st.removed -= before - len(st.all)
		st.byName = nil
	}
}

// purge removes the secrets whose recovery window is over. AWS promises no time for it; here it is at once.
func (st *store) purge(now time.Time) {
	if st.due.IsZero() || now.Before(st.due) {
		return
	}
	st.due = time.Time{}
	for _, sec := range slices.Clone(st.all) {
		switch {
		case sec.gone || !sec.pending():
		case now.Before(sec.Deletion):
			st.awaitDeletion(sec)
		default:
			st.remove(sec, now)
		}
	}
}

func (st *store) awaitDeletion(sec *secret) {
	if st.due.IsZero() || sec.Deletion.Before(st.due) {
		st.due = sec.Deletion
	}
}

// find resolves a SecretId: a name, an ARN, or an ARN without the six characters at its end.
func (st *store) find(id string) (*secret, error) {
	if id == "" || len(id) > 2048 {
		return nil, invalid("secretId", "Member must have length between 1 and 2048")
	}
	sec := st.names[id]
	if prefix := st.arnPrefix(); strings.HasPrefix(id, prefix) {
		sec = st.names[nameOf(id)]
		if sec == nil || sec.ARN != id {
			sec = st.names[strings.TrimPrefix(id, prefix)]
		}
	}
	if sec == nil {
		return nil, fail("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
	}
	return sec, nil
}

// live is find for the operations that refuse a secret whose deletion is pending, which is nearly all of them.
func (st *store) live(id string) (*secret, error) {
	sec, err := st.find(id)
	if err == nil && sec.pending() {
		return nil, fail("InvalidRequestException", "You can't perform this operation on the secret because it was marked for deletion.")
	}
	return sec, err
}

func (st *store) arnPrefix() string {
	return "arn:aws:secretsmanager:" + st.region + ":" + account + ":secret:"
}

// arnOf is the ARN of the secret with that name, or one that it might get.
func (st *store) arnOf(name string) string {
	if sec := st.names[name]; sec != nil {
		return sec.ARN
	}
	return st.newARN(name)
}

func (st *store) newARN(name string) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	for i := range b {
		b[i] = letters[int(b[i])%len(letters)]
	}
	return st.arnPrefix() + name + "-" + string(b[:])
}

// nameOf is the name that a SecretId stands for: itself, or what an ARN has between ":secret:" and its last six
// characters.
func nameOf(id string) string {
	_, rest, ok := strings.Cut(id, ":secret:")
	if !ok {
		return id
	}
	if i := len(rest) - len("-AbCdEf"); i > 0 && rest[i] == '-' {
		return rest[:i]
	}
	return rest
}
