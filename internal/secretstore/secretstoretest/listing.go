package secretstoretest

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"sort"
	"strings"
	"time"
)

const maxPage = 100

// query is the parameters of ListSecrets.
type query struct {
	Filters                []filter
	IncludePlannedDeletion bool
	MaxResults             *int
	NextToken              string
	SortBy, SortOrder      string
}

type filter struct {
	Key    string
	Values []string
}

type listSecretsReply struct {
	SecretList []*entry
	NextToken  string `json:",omitempty"`
}

// entry is a secret as ListSecrets shows it, and DescribeSecret, which never lags and works while
// deletion is pending too.
type entry struct {
	ARN, Name              string
	Description            string `json:",omitempty"`
	Tags                   []tag  `json:",omitempty"`
	CreatedDate            stamp
	LastChangedDate        stamp
	DeletedDate            stamp               `json:",omitzero"`
	SecretVersionsToStages map[string][]string `json:",omitempty"`
	VersionIdsToStages     map[string][]string `json:",omitempty"` // the same as DescribeSecret calls it
	OwningService          string              `json:",omitempty"`
	PrimaryRegion          string              `json:",omitempty"`
	ReplicationStatus      []replica           `json:",omitempty"` // of DescribeSecret alone; the SDK ignores it in a list
}

type replica struct{ Region, Status string }

func (sec *secret) entry() entry {
	e := entry{
		ARN: sec.ARN, Name: sec.Name, Description: sec.Description, CreatedDate: stamp{sec.Created},
		LastChangedDate: stamp{sec.Changed}, DeletedDate: stamp{sec.Deletion}, SecretVersionsToStages: sec.stages(),
		OwningService: sec.owningService, PrimaryRegion: sec.primaryRegion,
	}
	for _, region := range sec.replicas {
		e.ReplicationStatus = append(e.ReplicationStatus, replica{region, "InSync"})
	}
	e.VersionIdsToStages = e.SecretVersionsToStages
	for _, key := range slices.Sorted(maps.Keys(sec.Tags)) {
		e.Tags = append(e.Tags, tag{key, sec.Tags[key]})
	}
	return e
}

// position is where a page ended, and of which list, so that nobody goes on with the token of
// another list. It travels as the NextToken.
type position struct {
	List query // without NextToken and MaxResults, which may change on the way
	Name string
	Seq  int64
}

// list lists in order of creation, or by name. Neither order costs anything while no secret comes
// or goes. Filters match the beginning of the name.
func (st *store) list(now time.Time, q query) (any, error) {
	if err := q.check(); err != nil {
		return nil, err
	}
	limit := maxPage
	if q.MaxResults != nil {
		limit = *q.MaxResults
	}
	list, compare := st.all, bySeq
	if q.SortBy != "" {
		if st.byName == nil {
			st.byName = slices.SortedFunc(slices.Values(st.all), byName)
		}
		list, compare = st.byName, byName
	}

	here := position{List: q}
	here.List.NextToken, here.List.MaxResults = "", nil
	start := 0
	if q.NextToken != "" {
		var last position
		raw, err := base64.RawURLEncoding.DecodeString(q.NextToken)
		if err != nil || json.Unmarshal(raw, &last) != nil || !reflect.DeepEqual(last.List, here.List) {
			return nil, fail("InvalidNextTokenException", "The NextToken value is invalid.")
		}
		start = sort.Search(len(list), func(i int) bool { return compare(list[i], &secret{Name: last.Name, seq: last.Seq}) > 0 })
	}

	reply := listSecretsReply{SecretList: make([]*entry, 0, limit)}
	for _, sec := range list[start:] {
		e := st.shown(sec, now)
		if e == nil || !e.DeletedDate.IsZero() && !q.IncludePlannedDeletion || !q.wants(e.Name) {
			continue
		}
		if len(reply.SecretList) == limit {
			raw, _ := json.Marshal(here)
			reply.NextToken = base64.RawURLEncoding.EncodeToString(raw)
			break
		}
		reply.SecretList = append(reply.SecretList, e)
		here.Name, here.Seq = sec.Name, sec.seq
	}
	return reply, nil
}

func bySeq(a, b *secret) int { return cmp.Compare(a.seq, b.seq) }

func byName(a, b *secret) int { return cmp.Or(strings.Compare(a.Name, b.Name), bySeq(a, b)) }

var filterValue = regexp.MustCompile(`^[a-zA-Z0-9 :_@/+=.-][a-zA-Z0-9 :_@/+=.!-]*$`)

func (q query) check() error {
	switch {
	case q.MaxResults != nil && (*q.MaxResults < 1 || *q.MaxResults > maxPage):
		return invalid("maxResults", 1, maxPage)
	case q.SortBy != "" && q.SortBy != "name", q.SortOrder != "" && q.SortOrder != "asc":
		return fail("ValidationException", "The stand-in does not offer the order %q %q.", q.SortBy, q.SortOrder)
	}
	for _, f := range q.Filters {
		if f.Key != "name" {
			return fail("ValidationException", "The stand-in does not offer the filter %q.", f.Key)
		}
		// AWS takes a "!" at the beginning for a negation, which the stand-in does not offer.
		if len(f.Values) == 0 || slices.ContainsFunc(f.Values, func(v string) bool { return len(v) > 512 || !filterValue.MatchString(v) }) {
			return fail("ValidationException", "The values of a filter must satisfy the pattern %s.", filterValue)
		}
	}
	return nil
}

// wants reports whether every filter has a value that name begins with.
func (q query) wants(name string) bool {
	for _, f := range q.Filters {
		if !slices.ContainsFunc(f.Values, func(v string) bool { return strings.HasPrefix(name, v) }) {
			return false
		}
	}
	return true
}

// glimpse is how ListSecrets is to show a secret from a moment on.
type glimpse struct {
	at    time.Time
	shown *entry // nil: not there any more
}

// shown is sec as ListSecrets shows it now, which is how it was one lag ago; nil if it was not
// there.
func (st *store) shown(sec *secret, now time.Time) *entry {
	if i := st.seen(sec, now); i >= 0 {
		return sec.past[i].shown
	}
	return nil
}

// remember adds what sec is now to its past, and drops what no listing will show again.
func (st *store) remember(sec *secret, now time.Time) {
	if i := st.seen(sec, now); i > 0 {
		sec.past = slices.Delete(sec.past, 0, i)
	}
	g := glimpse{at: now}
	if !sec.gone {
		e := sec.entry()
		g.shown = &e
	}
	sec.past = append(sec.past, g)
}

// seen is the index of what ListSecrets shows of sec's past, -1 if nothing.
func (st *store) seen(sec *secret, now time.Time) int {
	i := len(sec.past) - 1
	for st.ListLag > 0 && i >= 0 && sec.past[i].at.After(now.Add(-st.ListLag)) {
		i--
	}
	return i
}
