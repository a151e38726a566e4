package secretstore

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"

	"entra-connector/internal/connector"
)

// content is what is to be stored in a secret: its value, and a Description that holds for the
// version that the value becomes.
type content struct {
	value    string
	describe func(version string) string
	tags     map[string]string // whose it is
	over     string            // of a connection: the mark of what the name may be claimed from

	// allowed is asked once the secret is claimed. If it fails, so does the claim. It may be nil.
	allowed func(context.Context) error
}

func (c content) livesIn(found secret) bool {
	return found.state() == live && !found.deleted && found.has(c.tags)
}

// successor returns the ID of the version that follows one, in the form of a UUID as the SDK's own
// are. A version has several successors. If the first is taken although the version is current, a
// person has moved the staging label back.
func successor(version string, nth int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "successor %d of %s", nth, version))
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

// replace replaces a version by a new value and its Description, in one call. It fails with
// ErrChanged if that is no longer the current one, and with ErrNotFound if the secret is deleted.
//
// UpdateSecret has no condition of its own, but it refuses the ID of a version that exists. So the
// ID of each version follows from that of the version before it, and of several who replace the
// same version only the first succeeds. The secret is named by its ARN, which a new secret of the
// same name does not share. Where a person has moved the staging label back, mine says whether the
// secret is still the caller's to write.
func (s *Store) replace(ctx context.Context, name, arn, version string, c content, mine func(secret) bool) (written string, err error) {
	nth := 0
	err = connector.Retry(ctx, func() (again bool, err error) {
		written = successor(version, nth)
		nth++
		description := c.describe(written)
		err = s.update(ctx, name, &secretsmanager.UpdateSecretInput{
			SecretId: aws.String(arn), ClientRequestToken: aws.String(written), SecretString: aws.String(c.value), Description: aws.String(description),
		})
		if err == nil {
			return false, nil
		}
		var failed *connector.StoreError
		unanswered := ctx.Err() != nil || errors.As(err, &failed) && failed.Unanswered
		if !unanswered && !errors.Is(err, connector.ErrExists) {
			return false, err
		}
		late, cancel := graced(ctx)
		defer cancel()
		found, disownErr := s.disown(late, name, arn, description)
		switch {
		case unanswered:
			return false, err
		case disownErr != nil:
			return false, disownErr
		}
		return found.arn == arn && found.version == version && mine(found), connector.ErrChanged
	})
	return written, err
}

// graced returns a context that ends a second after the given one's deadline, to mend what a call
// that was cut off has left. A reply has that second to spare.
func graced(ctx context.Context) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok {
		end = time.Now()
	}
	return context.WithDeadline(context.WithoutCancel(ctx), end.Add(time.Second))
}

// disowned is the Description of a secret about which nothing is known.
const disowned = `{"status":"unknown"}`

// disown withdraws a Description, if it is there, and returns the secret. AWS does not say whether
// it writes the Description of an UpdateSecret that it refuses. If it does, a refused one now
// stands beside somebody else's value.
func (s *Store) disown(ctx context.Context, name, arn, description string) (found secret, err error) {
	err = connector.Retry(ctx, func() (again bool, err error) {
		found, err = s.look(ctx, name)
		if err == nil && found.arn == arn && found.description == description {
			err = s.writeDescription(ctx, name, arn, disowned)
		}
		var failed *connector.StoreError
		return errors.As(err, &failed) && failed.Temporary, err
	})
	return found, err
}

// writeDescription writes a description alone, which makes no version.
func (s *Store) writeDescription(ctx context.Context, name, arn, description string) error {
	return s.update(ctx, name, &secretsmanager.UpdateSecretInput{SecretId: aws.String(arn), Description: aws.String(description)})
}

// throttledWrites is how many times in a row the SDK may give up the same write because AWS
// throttles. Each attempt waits for its turn, so this does not speed up writes. A token that is not
// stored waits for the next sweep.
const throttledWrites = 5

// update calls UpdateSecret. It fails with ErrExists if the version exists, and with ErrNotFound if
// the secret is deleted.
func (s *Store) update(ctx context.Context, name string, in *secretsmanager.UpdateSecretInput) (err error) {
	for range throttledWrites {
		if _, err = s.client.UpdateSecret(ctx, in, s.writes.of); throttles.IsErrorThrottle(err) != aws.TrueTernary {
			break
		}
	}
	var exists *types.ResourceExistsException
	if errors.As(err, &exists) {
		return connector.ErrExists
	}
	return s.writeError(ctx, "UpdateSecret", name, err)
}

// writeError maps an error of a write. AWS answers InvalidRequestException for a deleted secret,
// and also for one that nobody may change. Only DescribeSecret tells them apart.
func (s *Store) writeError(ctx context.Context, op, name string, err error) error {
	var invalid *types.InvalidRequestException
	if errors.As(err, &invalid) {
		if found, lookErr := s.look(ctx, name); lookErr != nil {
			return lookErr
		} else if found.deleted {
			return connector.ErrNotFound
		} else if found.justChanged() { // it may have been restored since
			return connector.AtWork(op, name, connector.RequestTime)
		}
	}
	return storeError(ctx, op, name, err)
}

// create stores a new secret. If the name has been used before, it tries to claim it. It returns
// the secret's ARN and version, or fails with ErrExists.
func (s *Store) create(ctx context.Context, name string, c content) (arn, version string, err error) {
	version = successor(rand.Text(), 0)
	tags := s.tagsOf(c)
	state := cmp.Or(c.tags[tagState], stateLive)
	tags[tagState] = state // so that no other call needs room for one more tag
	if s.shares(c) {
		tags[tagState] = stateDeleting + " " + rand.Text() // not in use before its policy is there
	}
	out, err := s.client.CreateSecret(ctx, &secretsmanager.CreateSecretInput{
		Name: aws.String(name), ClientRequestToken: aws.String(version), SecretString: aws.String(c.value), Description: aws.String(c.describe(version)),
		Tags: tagList(tags), KmsKeyId: s.key,
	}, s.writes.of)
	if err == nil {
		arn = aws.ToString(out.ARN)
		if s.shares(c) {
			if err = s.share(ctx, name, arn); err == nil {
				err = s.tag(ctx, name, arn, map[string]string{tagState: state})
			}
		}
		return arn, version, err
	}
	// AWS answers InvalidRequestException if the name is pending deletion. Emulators answer
	// ResourceExistsException.
	var exists *types.ResourceExistsException
	var invalid *types.InvalidRequestException
	if !errors.As(err, &exists) && !errors.As(err, &invalid) {
		return "", "", storeError(ctx, "CreateSecret", name, err)
	}
	found, err := s.look(ctx, name)
	if errors.Is(err, connector.ErrNotFound) {
		return "", "", &connector.StoreError{Op: "CreateSecret", Secret: name, Code: connector.CodeNameTaken, Temporary: true}
	}
	if err != nil {
		return "", "", err
	}
	return s.claim(ctx, found, c)
}

// claim fills a secret that is there but not live: one that waits for the end of its recovery
// window, one without a value, or one whose deletion or claim did not end.
//
// It says so in a tag of its own and then looks again: if anything has changed, somebody else is at
// work, and it gives way. Nobody uses the secret until the last step, which sets the tags that say
// whose it now is. The value is written before that: of several who claim a name, the first to
// write wins, and a late refresh for the former owner fails.
func (s *Store) claim(ctx context.Context, found secret, c content) (arn, version string, err error) {
	st := found.state()
	switch {
	case st == live:
		return "", "", connector.ErrExists
	case st == foreign, st == locked, (st == untagged || st == emptied) && !found.belongsTo(c.tags):
		return "", "", found.conflict()
	case found.own[tagConnection] != "" && found.mark() != c.over:
		// Its announcement on the app speaks of another one, so nobody would wait for this claim.
		return "", "", connector.ErrExists
	case found.recent(tagHold) > 1, // one of them deleted it, and another may be about to
		found.claimed(),
		(st == deleting || st == untagged) && found.justChanged():
		return "", "", connector.AtWork("UpdateSecret", found.name, connector.RequestTime)
	case st == gone:
		if _, err := s.client.RestoreSecret(ctx, &secretsmanager.RestoreSecretInput{SecretId: aws.String(found.arn)}, s.writes.of); err != nil {
			return "", "", storeError(ctx, "RestoreSecret", found.name, err)
		}
	}
	// Of earlier claims, and of those who deleted it.
	left := found.keys(tagClaim, tagHold)
	if c.tags[tagState] == stateInvited {
		left = append(left, found.keys(tagProgress, tagTenant)...)
	}
	if len(left) > 0 {
		if err := s.untag(ctx, found.name, found.arn, left...); err != nil {
			return "", "", err
		}
		maps.DeleteFunc(found.tags, func(key, _ string) bool { return slices.Contains(left, key) })
	}
	key := tagClaim + rand.Text()
	if err := s.tag(ctx, found.name, found.arn, map[string]string{key: stamp(found.now)}); err != nil {
		return "", "", err
	}
	mine := func(now secret) bool { return now.tags[key] != "" }
	now, err := s.look(ctx, found.name)
	if err == nil && !(mine(now) && now.version == found.version && now.sameTags(found, key)) {
		err = connector.ErrExists // somebody else was first
	}
	// If a person deleted or made it, its tags do not say that it is not in use.
	hide := maps.Clone(found.own)
	hide[tagState] = stateDeleting + " " + rand.Text()
	// One that waits for its tenant is used by nobody anyway.
	hidden := err == nil && st != invited && !strings.HasPrefix(found.tags[tagState], stateDeleting)
	if hidden {
		err = s.tag(ctx, found.name, found.arn, hide)
	}
	if err == nil && c.allowed != nil {
		err = c.allowed(ctx)
	}
	if err == nil {
		version, err = s.replace(ctx, found.name, found.arn, found.version, c, mine)
	}
	// Infrastructure code has its own policies, and an invitation has had ours from the start.
	if err == nil && s.shares(c) && st != vacant && found.tags[tagState] != stateInvited {
		err = s.share(ctx, found.name, found.arn)
	}
	if errors.Is(err, connector.ErrChanged) {
		err = connector.ErrExists
	}
	if err != nil {
		late, cancel := graced(ctx)
		defer cancel()
		left := []string{key} // which lapses anyway
		if hidden && errors.Is(err, connector.ErrExists) {
			// Its owner uses it again.
			for key := range hide {
				if found.tags[key] == "" {
					left = append(left, key)
				}
			}
			if found.tags[tagState] == stateLive {
				_ = s.tag(late, found.name, found.arn, map[string]string{tagState: stateLive})
			}
		}
		_ = s.untag(late, found.name, found.arn, left...)
		return "", "", err
	}
	tags := s.tagsOf(c)
	tags[tagState], tags[key] = cmp.Or(c.tags[tagState], stateLive), stateDone
	return found.arn, version, s.tag(ctx, found.name, found.arn, tags)
}

// shares reports whether other accounts may read what is stored: a connection, and never an app.
func (s *Store) shares(c content) bool { return s.policy != nil && c.tags[tagConnection] != "" }

func (s *Store) share(ctx context.Context, name, arn string) error {
	_, err := s.client.PutResourcePolicy(ctx, &secretsmanager.PutResourcePolicyInput{
		SecretId: aws.String(arn), ResourcePolicy: s.policy, BlockPublicPolicy: aws.Bool(true),
	}, s.writes.of)
	return s.writeError(ctx, "PutResourcePolicy", name, err)
}

// readersPolicy lets accounts read a secret and see whether it has changed. Each account still
// decides which of its principals may.
func readersPolicy(accounts []string) string {
	return encode(map[string]any{"Version": "2012-10-17", "Statement": []any{map[string]any{
		"Sid": "ReadersOfOtherAccounts", "Effect": "Allow", "Principal": map[string]any{"AWS": accounts},
		"Action": []string{"secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"}, "Resource": "*",
	}}})
}

func (s *Store) tagsOf(c content) map[string]string {
	tags := maps.Clone(s.tags)
	maps.Copy(tags, c.tags)
	return tags
}

// tag sets tags. It fails with ErrNotFound if the secret is deleted.
func (s *Store) tag(ctx context.Context, name, arn string, tags map[string]string) error {
	_, err := s.client.TagResource(ctx, &secretsmanager.TagResourceInput{SecretId: aws.String(arn), Tags: tagList(tags)}, s.writes.of)
	return s.writeError(ctx, "TagResource", name, err)
}

// delete deletes a secret with a recovery window. It destroys nothing before AWS has agreed: the
// tag that it sets first only hides the secret, and is removed if AWS refuses. A deletion that was
// interrupted is finished by the next. It fails with ErrNotFound, and if it is only to finish a
// deletion, with ErrExists for what is in use.
func (s *Store) delete(ctx context.Context, name string, onlyFinish bool) error {
	found, err := s.look(ctx, name)
	if err != nil {
		return err
	}
	st := found.state()
	switch {
	case found.absent(), onlyFinish && st == emptied:
		return connector.ErrNotFound
	case st == foreign, st == locked:
		return found.conflict()
	case onlyFinish && st != deleting:
		return connector.ErrExists
	case len(found.replicas) > 0:
		return &connector.ConflictError{Reason: connector.Replicated, Secret: name, Fields: found.replicas}
	}
	if found.claimed() {
		return connector.AtWork("DeleteSecret", name, connector.RequestTime)
	}
	if err := s.tag(ctx, name, found.arn, map[string]string{tagState: stateDeleting + " " + rand.Text()}); err != nil {
		return err
	}
	if st == deleting {
		// A claim that looked before the tag was set may be at work.
		now, err := s.look(ctx, name)
		if err != nil {
			return err
		}
		if now.version != found.version || !now.sameTags(found, tagState) {
			return errors.Join(connector.ErrExists, s.live(ctx, now))
		}
	}
	_, err = s.client.DeleteSecret(ctx, &secretsmanager.DeleteSecretInput{
		SecretId: aws.String(found.arn), RecoveryWindowInDays: s.days,
	}, s.writes.of)
	if err == nil {
		return nil
	}
	err = storeError(ctx, "DeleteSecret", name, err)
	// It may have taken effect all the same.
	ctx, cancel := graced(ctx)
	defer cancel()
	after, lookErr := s.look(ctx, name)
	if errors.Is(lookErr, connector.ErrNotFound) || lookErr == nil && after.deleted {
		return nil
	}
	err = errors.Join(err, s.live(ctx, found))
	if len(after.replicas) > 0 {
		return &connector.ConflictError{Reason: connector.Replicated, Secret: name, Fields: after.replicas}
	}
	return err
}

// live takes a deletion back, unless a claim is at work or nobody knows what the secret holds.
func (s *Store) live(ctx context.Context, found secret) error {
	if found.claimed() || found.changesHands() || !found.describesCurrent() {
		return nil
	}
	state := stateLive
	if _, _, ok := found.identity(); !ok && found.tags[tagInvitation] != "" {
		state = stateInvited
	}
	return s.tag(ctx, found.name, found.arn, map[string]string{tagState: state})
}
