package secretstore

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsarn "github.com/aws/aws-sdk-go-v2/aws/arn"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/aws/smithy-go/middleware"

	"entra-connector/internal/connector"
	"entra-connector/pkg/entra"
)

// Tags say whose a secret is. They are set when it is created, and changed only while it is not
// live.
const (
	tagApp        = "entra-connector:app"
	tagConnection = "entra-connector:connection"
	tagTenant     = "entra-connector:tenant"
	tagScope      = "entra-connector:scope"
	tagState      = "entra-connector:state"
	tagClaim      = "entra-connector:claim:" // and an ID: since when somebody has been taking the name again

	stateLive     = "live"
	stateDeleting = "deleting" // and an ID, until the name is taken again
	stateDone     = "done"     // of a claim
	stateInvited  = "invited"
)

// secret is what Secrets Manager tells about a secret besides its value.
type secret struct {
	name, arn   string
	description string
	version     string // ID of the current one; empty if there is none
	tags        map[string]string
	own         map[string]string // the tags that the owner of this name must carry
	replicas    []string          // Regions
	primary     string            // Region of the original, if this secret is a replica
	owner       string            // the AWS service that manages it, if one does
	deleted     bool              // waits for the end of its recovery window
	changed     time.Time
	now         time.Time // by the same clock as changed
}

// secret reads what an answer says about a secret.
func (s *Store) secret(e types.SecretListEntry, answer middleware.Metadata) secret {
	found := secret{
		name: aws.ToString(e.Name), arn: aws.ToString(e.ARN), description: aws.ToString(e.Description), version: current(e.SecretVersionsToStages),
		owner: aws.ToString(e.OwningService), deleted: e.DeletedDate != nil, changed: aws.ToTime(e.LastChangedDate), tags: make(map[string]string, len(e.Tags)),
	}
	found.own = s.ownTags(found.name)
	for _, tag := range e.Tags {
		found.tags[aws.ToString(tag.Key)] = aws.ToString(tag.Value)
	}
	if parsed, err := awsarn.Parse(found.arn); err == nil && aws.ToString(e.PrimaryRegion) != parsed.Region {
		found.primary = aws.ToString(e.PrimaryRegion)
	}
	var ok bool
	if found.now, ok = awsmiddleware.GetServerTime(answer); !ok {
		found.now = s.now()
	}
	return found
}

// ownTags returns the tags by which the secret of that name is known to be the app's or the
// connection's.
func (s *Store) ownTags(name string) map[string]string {
	if app, ok := strings.CutPrefix(name, s.appsPrefix()); ok {
		return appTags(app)
	}
	ref, _ := connector.ParseConnectionRef(strings.TrimPrefix(name, s.connectionsPrefix()))
	return connectionTags(ref)
}

func current(versions map[string][]string) string {
	for id, stages := range versions {
		if slices.Contains(stages, "AWSCURRENT") {
			return id
		}
	}
	return ""
}

// state is what a secret is to the connector.
type state int

const (
	live     state = iota // ours, and in use
	gone                  // ours, and waits for the end of its recovery window
	invited               // ours, and waits for its tenant
	deleting              // ours, and not in use: a deletion or a claim has begun and not ended
	vacant                // has no value and no tags of ours, as infrastructure code creates it
	emptied               // ours, but has no value any more
	untagged              // ours by its Description, but tags of it are gone or make no sense
	foreign               // holds something that the connector did not write
	locked                // AWS lets nobody write it here
)

// state classifies the secret.
func (s secret) state() state {
	ours, tagged := s.has(s.own), false
	for key := range s.own {
		tagged = tagged || s.tags[key] != ""
	}
	_, _, named := s.identity()
	named = named || s.own[tagConnection] == ""
	switch {
	case s.primary != "" || s.owner != "":
		return locked
	case s.deleted && (ours || !tagged && (s.version == "" || s.describesCurrent())):
		return gone
	case s.version == "" && !tagged:
		return vacant
	case s.version == "" && ours:
		return emptied
	case ours && (strings.HasPrefix(s.tags[tagState], stateDeleting) || s.claimed() || s.tags[tagState] == stateInvited && s.changesHands()):
		return deleting
	case ours && s.tags[tagState] == stateInvited:
		return invited
	case ours && named:
		return live
	case ours, !tagged && s.describesCurrent():
		return untagged
	}
	return foreign
}

// identity returns whose a connection's secret is, if its tags tell.
func (s secret) identity() (tenantID, scope string, ok bool) {
	tenantID, err := entra.ParseTenant(s.tags[tagTenant])
	scope = parseScopeTag(s.tags[tagScope])
	return tenantID, scope, err == nil && scope != "" && !strings.Contains(tenantID, ".") // which only a domain has
}

// changesHands reports whether a connection's secret holds a token for another owner than its tags name:
// a claim has written the value, and not yet the tags.
func (s secret) changesHands() bool {
	var d connection
	tenantID, scope, ok := s.identity()
	ok = ok || s.tags[tagState] == stateInvited // which has no tenant before it is accepted
	return ok && s.describesCurrent() && json.Unmarshal([]byte(s.description), &d) == nil &&
		d.TenantID != "" && (d.TenantID != tenantID || d.Scope != scope)
}

// mark identifies what there was under a name: a version, or one deletion.
func (s secret) mark() string {
	switch {
	case s.deleted:
		return strconv.FormatInt(s.changed.UnixMilli(), 36)
	case s.absent():
		return ""
	}
	return s.version
}

func (s secret) has(tags map[string]string) bool {
	for key, value := range tags {
		if s.tags[key] != value {
			return false
		}
	}
	return true
}

// keys returns the keys of the tags with one of the prefixes.
func (s secret) keys(prefixes ...string) (keys []string) {
	for key := range s.tags {
		if slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(key, prefix) }) {
			keys = append(keys, key)
		}
	}
	return keys
}

// claimed reports whether a claim may be at work.
func (s secret) claimed() bool { return s.recent(tagClaim) > 0 }

// recent is how many callers may be at work, who say so in tags of this prefix.
func (s secret) recent(prefix string) (n int) {
	for _, key := range s.keys(prefix) {
		if since, err := time.Parse(time.RFC3339, s.tags[key]); err == nil && s.within(since, connector.RequestTime) {
			n++
		}
	}
	return n
}

// within reports whether it is no longer than d since then. What lies in the future by more than
// clocks are apart does not count: nobody may be kept waiting for ever.
func (s secret) within(since time.Time, d time.Duration) bool {
	age := s.now.Sub(since)
	return age < d && age > -connector.MaxSkew
}

// sameTags reports whether both have the same tags, but for one key and the progress of
// invitations.
func (s secret) sameTags(other secret, but string) bool {
	without := func(tags map[string]string) map[string]string {
		tags = maps.Clone(tags)
		maps.DeleteFunc(tags, func(key, _ string) bool { return key == but || strings.HasPrefix(key, tagProgress) })
		return tags
	}
	return maps.Equal(without(s.tags), without(other.tags))
}

// absent reports whether a secret counts as missing.
func (s secret) absent() bool { return s.deleted || s.state() == vacant }

// describesCurrent reports whether the connector wrote the Description, and did so for the current
// version.
func (s secret) describesCurrent() bool {
	var d struct {
		Version string `json:"version"`
	}
	return json.Unmarshal([]byte(s.description), &d) == nil && d.Version != "" && d.Version == s.version
}

// belongsTo reports whether a secret belongs to the owner that these tags name: by its own tags, or
// if they are gone by its Description.
func (s secret) belongsTo(tags map[string]string) bool {
	var d connection
	scope := parseScopeTag(tags[tagScope])
	if tenant, own, ok := s.identity(); ok {
		return tenant == tags[tagTenant] && own == scope
	}
	if json.Unmarshal([]byte(s.description), &d) == nil && d.TenantID != "" {
		return d.TenantID == tags[tagTenant] && d.Scope == scope
	}
	return s.version == "" || tags[tagConnection] == "" // an app names no tenant
}

// justChanged reports whether whoever changed a secret that is not live may still be working on it.
func (s secret) justChanged() bool { return s.now.Sub(s.changed) < connector.RequestTime }

func (s secret) unreadable() *connector.Failure {
	const again = "Provision the connection again with POST /connections."
	f := &connector.Failure{Status: connector.StatusRefused, Code: connector.CodeUnreadable, At: s.changed}
	switch s.state() {
	case deleting:
		f.Code, f.Advice = connector.CodeUnfinished, connector.Explain(connector.CodeUnfinished)
		if s.justChanged() {
			f.Status = connector.StatusRetrying
		}
	case emptied:
		f.Advice = advice("The connection's secret has no value", again)
	case untagged:
		f.Advice = advice("The tags of the connection's secret are gone or were edited", again)
	default:
		f.Advice = s.inTheWay()
	}
	return f
}

// conflict reports a secret that the connector must not touch.
func (s secret) conflict() error {
	return &connector.ConflictError{Reason: connector.InTheWay, App: s.own[tagApp], Secret: s.name, Advice: s.inTheWay()}
}

// inTheWay says what is wrong with a secret that the connector must not touch.
func (s secret) inTheWay() entra.Advice {
	switch {
	case s.primary != "":
		return advice("The secret is a replica of one in "+s.primary, "Provision in that Region, or stop the replication to this one and delete the copy.")
	case s.owner != "":
		return advice("The secret is managed by the AWS service "+s.owner, "Use another name, or delete the secret through that service.")
	}
	if _, _, ok := s.identity(); ok {
		return advice("The secret belongs to another connection, tenant or scope", "Use another name, or delete the secret in Secrets Manager.")
	}
	return advice("The secret holds something that the connector did not write", "Use another name, or move the secret out of the way.")
}

func advice(title, action string) entra.Advice { return entra.Advice{Title: title, Action: action} }

func appTags(app string) map[string]string { return map[string]string{tagApp: app} }

func connectionTags(ref connector.ConnectionRef) map[string]string {
	return map[string]string{tagApp: ref.App, tagConnection: ref.Name}
}

func tagList(tags map[string]string) []types.Tag {
	var list []types.Tag
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		list = append(list, types.Tag{Key: aws.String(key), Value: aws.String(tags[key])})
	}
	return list
}

// look returns what there is under a name, even if it has been deleted: Secrets Manager goes on
// describing that until the recovery window ends. It fails with ErrNotFound.
func (s *Store) look(ctx context.Context, name string) (secret, error) {
	out, err := s.client.DescribeSecret(ctx, &secretsmanager.DescribeSecretInput{SecretId: aws.String(name)}, s.reads.of)
	if err == nil && out.ARN == nil {
		err = errEmpty
	}
	if err != nil {
		return secret{}, storeError(ctx, "DescribeSecret", name, err)
	}
	found := s.secret(types.SecretListEntry{
		Name: out.Name, ARN: out.ARN, Description: out.Description, SecretVersionsToStages: out.VersionIdsToStages, Tags: out.Tags,
		PrimaryRegion: out.PrimaryRegion, OwningService: out.OwningService, DeletedDate: out.DeletedDate, LastChangedDate: out.LastChangedDate,
	}, out.ResultMetadata)
	for _, replica := range out.ReplicationStatus {
		found.replicas = append(found.replicas, aws.ToString(replica.Region))
	}
	return found, nil
}
