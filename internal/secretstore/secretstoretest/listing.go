package secretstoretest

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"hash/fnv"
	"regexp"
	"slices"
	"sort"
	"strings"
	"time"
)

const (
	maxPage    = 100
	maxFilters = 10

	// maxScan is how many secrets a page looks at. AWS documents that a page of a filtered list may be short or even
	// empty and yet have a NextToken; so may one here, where a filter leaves out thousands in a row.
	maxScan = 5000
)

var errNextToken = fail("InvalidNextTokenException", "The NextToken value is invalid.")

// query is what ListSecrets and BatchGetSecretValue take to find secrets.
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

// entry is a secret as ListSecrets shows it.
type entry struct {
	ARN, Name              string
	Description            string `json:",omitempty"`
	Tags                   []tag  `json:",omitempty"`
	CreatedDate            stamp
	LastChangedDate        stamp
	LastAccessedDate       stamp               `json:",omitzero"`
	DeletedDate            stamp               `json:",omitzero"`
	SecretVersionsToStages map[string][]string `json:",omitempty"`
}

func (sec *secret) entry() entry {
	return entry{
		ARN: sec.ARN, Name: sec.Name, Description: sec.Description, Tags: sec.Tags,
		CreatedDate: stamp{sec.Created}, LastChangedDate: stamp{sec.Changed}, LastAccessedDate: stamp{sec.Accessed},
		DeletedDate: stamp{sec.Deletion}, SecretVersionsToStages: sec.stages(),
	}
}

type listSecretsReply struct {
	SecretList []entry
	NextToken  string `json:",omitempty"`
}

func (st *store) listSecrets(now time.Time, in query) (listSecretsReply, error) {
	found, next, err := st.page(now, in, maxPage)
	return listSecretsReply{SecretList: found, NextToken: next}, err
}

// position is where a page ended, and of which list. It travels as the NextToken.
type position struct {
	Query uint64
	Key   string
	Seq   int64
}

// page finds the next secrets of q. It returns a token if there may be more.
func (st *store) page(now time.Time, q query, largest int) (found []entry, next string, err error) {
	limit, err := pageSize(q.MaxResults, largest)
	if err != nil {
		return nil, "", err
	}
	if err := checkFilters(q.Filters); err != nil {
		return nil, "", err
	}
	list, key, err := st.order(q.SortBy)
	if err != nil {
		return nil, "", err
	}
	sign := 1 // -1: downwards
	switch q.SortOrder {
	case "", "asc":
	case "desc":
		sign = -1
		list = slices.Clone(list)
		slices.Reverse(list)
	default:
		return nil, "", invalid("sortOrder", "Member must satisfy enum value set: [asc, desc]")
	}

	here := position{Query: q.hash()}
	start := 0
	if q.NextToken != "" {
		var after position
		raw, err := base64.RawURLEncoding.DecodeString(q.NextToken)
		if err != nil || json.Unmarshal(raw, &after) != nil || after.Query != here.Query {
			return nil, "", errNextToken
		}
		start = sort.Search(len(list), func(i int) bool {
			return sign*cmp.Or(cmp.Compare(key(list[i]), after.Key), cmp.Compare(list[i].seq, after.Seq)) > 0
		})
	}
	token := func(last *secret) string {
		here.Key, here.Seq = key(last), last.seq
		raw, _ := json.Marshal(here)
		return base64.RawURLEncoding.EncodeToString(raw)
	}

	found = make([]entry, 0, limit)
	last := start
	for i := start; i < len(list); i++ {
		if i-start == maxScan {
			return found, token(list[i-1]), nil
		}
		e, ok := st.shown(list[i], now)
		if !ok || !e.DeletedDate.IsZero() && !q.IncludePlannedDeletion || !e.matches(q.Filters) {
			continue
		}
		if len(found) == limit {
			return found, token(list[last]), nil
		}
		found, last = append(found, e), i
	}
	return found, "", nil
}

// order is every secret in the order asked for, with the key of that order; the sequence of creation breaks ties. By
// creation (the default) and by name it costs nothing while no secret comes or goes.
func (st *store) order(by string) ([]*secret, func(*secret) string, error) {
	var key func(*secret) string
	const sortable = "20060102150405.000000000"
	switch by {
	case "", "created-date":
		return st.all, func(*secret) string { return "" }, nil
	case "name":
		key = func(sec *secret) string { return sec.Name }
		if st.byName == nil {
			st.byName = sortedBy(st.all, key)
		}
		return st.byName, key, nil
	case "last-changed-date":
		key = func(sec *secret) string { return sec.Changed.UTC().Format(sortable) }
	case "last-accessed-date":
		key = func(sec *secret) string { return sec.Accessed.UTC().Format(sortable) }
	default:
		return nil, nil, invalid("sortBy", "Member must satisfy enum value set: [created-date, last-accessed-date, last-changed-date, name]")
	}
	return sortedBy(st.all, key), key, nil
}

func sortedBy(all []*secret, key func(*secret) string) []*secret {
	return slices.SortedStableFunc(slices.Values(all), func(a, b *secret) int { return cmp.Compare(key(a), key(b)) })
}

// hash tells one list from another, so that a token is not used for a list it does not belong to. The page size may
// change on the way.
func (q query) hash() uint64 {
	q.MaxResults, q.NextToken = nil, ""
	raw, _ := json.Marshal(q)
	h := fnv.New64a()
	_, _ = h.Write(raw)
	return h.Sum64()
}

func pageSize(asked *int, largest int) (int, error) {
	if asked == nil {
		return largest, nil
	}
	if *asked < 1 || *asked > largest {
		return 0, invalid("maxResults", "Member must have value between 1 and %d", largest)
	}
	return *asked, nil
}

var (
	filterKeys  = []string{"description", "name", "tag-key", "tag-value", "primary-region", "owning-service", "all"}
	filterValue = regexp.MustCompile(`^!?[a-zA-Z0-9 :_@/+=.!-]*$`)
)

func checkFilters(filters []filter) error {
	if len(filters) > maxFilters {
		return invalid("filters", "Member must have length less than or equal to %d", maxFilters)
	}
	for _, f := range filters {
		if !slices.Contains(filterKeys, f.Key) {
			return invalid("filters.member.key", "Member must satisfy enum value set: %v", filterKeys)
		}
		if len(f.Values) == 0 || len(f.Values) > maxFilters {
			return invalid("filters.member.values", "Member must have length between 1 and %d", maxFilters)
		}
		for _, v := range f.Values {
			if len(v) > 512 || !filterValue.MatchString(v) {
				return invalid("filters.member.values", "Member must satisfy regular expression pattern: %s", filterValue)
			}
		}
	}
	return nil
}

// matches reports whether e passes every filter.
func (e *entry) matches(filters []filter) bool {
	for _, f := range filters {
		if !e.passes(f) {
			return false
		}
	}
	return true
}

// passes reports whether e matches one of f's values, if it has any, and none of those that "!" negates.
func (e *entry) passes(f filter) bool {
	wanted, found := false, false
	for _, v := range f.Values {
		if unwanted, negated := strings.CutPrefix(v, "!"); negated {
			if e.has(f.Key, unwanted) {
				return false
			}
			continue
		}
		wanted = true
		found = found || e.has(f.Key, v)
	}
	return found || !wanted
}

// has reports whether e has the value: a prefix, except for "all".
func (e *entry) has(key, value string) bool {
	prefix := func(s string) bool { return strings.HasPrefix(s, value) }
	switch key {
	case "name":
		return prefix(e.Name)
	case "description":
		value = strings.ToLower(value)
		return prefix(strings.ToLower(e.Description))
	case "tag-key":
		return slices.ContainsFunc(e.Tags, func(t tag) bool { return prefix(t.Key) })
	case "tag-value":
		return slices.ContainsFunc(e.Tags, func(t tag) bool { return prefix(t.Value) })
	case "all":
		return e.hasWords(value)
	}
	return false // no secret here is a replica or managed by a service
}

// hasWords reports whether every word of value stands in the name, the description or a tag, in whatever case.
func (e *entry) hasWords(value string) bool {
	text := []string{e.Name, e.Description}
	for _, t := range e.Tags {
		text = append(text, t.Key, t.Value)
	}
	all := strings.ToLower(strings.Join(text, "\n"))
	for _, word := range strings.Fields(strings.ToLower(value)) {
		if !strings.Contains(all, word) {
			return false
		}
	}
	return true
}
