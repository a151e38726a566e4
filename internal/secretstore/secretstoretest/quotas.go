package secretstoretest

import "time"

// Quotas are requests per second and API, each with a burst of one second's worth. Zero is no limit.
type Quotas struct {
	Write        int // PutSecretValue and UpdateSecret together
	Create       int // CreateSecret
	Delete       int // DeleteSecret
	Restore      int // RestoreSecret
	Tag          int // TagResource and UntagResource together
	Get          int // GetSecretValue
	BatchGet     int // BatchGetSecretValue
	Describe     int // DescribeSecret
	List         int // ListSecrets
	ListVersions int // ListSecretVersionIds
}

// AWSQuotas are those that AWS documents per account and Region (Secrets Manager User Guide, "Quotas", and the
// announcements of 2022-11-11 and 2025-03-04).
var AWSQuotas = Quotas{
	Write: 50, Create: 50, Delete: 50, Restore: 50, Tag: 50,
	Get: 10000, BatchGet: 100, Describe: 40000, List: 100, ListVersions: 50,
}

// group is a set of operations that share a quota.
type group int

const (
	writeGroup group = iota
	createGroup
	deleteGroup
	restoreGroup
	tagGroup
	getGroup
	batchGetGroup
	describeGroup
	listGroup
	listVersionsGroup
)

func (q Quotas) buckets() map[group]*bucket {
	m := make(map[group]*bucket)
	for g, rate := range map[group]int{
		writeGroup: q.Write, createGroup: q.Create, deleteGroup: q.Delete, restoreGroup: q.Restore, tagGroup: q.Tag,
		getGroup: q.Get, batchGetGroup: q.BatchGet, describeGroup: q.Describe, listGroup: q.List, listVersionsGroup: q.ListVersions,
	} {
		m[g] = &bucket{rate: float64(rate), tokens: float64(rate)}
	}
	return m
}

// bucket is a token bucket that holds one second's worth and starts full.
type bucket struct {
	rate, tokens float64
	last         time.Time
}

func (b *bucket) take(now time.Time) bool {
	if b.rate <= 0 {
		return true
	}
	if elapsed := now.Sub(b.last); elapsed > 0 {
		b.tokens = min(b.rate, b.tokens+elapsed.Seconds()*b.rate)
		b.last = now
	}
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
