package secretstoretest

import (
	"regexp"
	"slices"
	"time"
	"unicode/utf8"
)

// operations are what the stand-in offers.
var operations = map[string]operation{
	"CreateSecret":         typed(createGroup, (*store).createSecret),
	"UpdateSecret":         typed(writeGroup, (*store).updateSecret),
	"PutSecretValue":       typed(writeGroup, (*store).putSecretValue),
	"DeleteSecret":         typed(deleteGroup, (*store).deleteSecret),
	"RestoreSecret":        typed(restoreGroup, (*store).restoreSecret),
	"TagResource":          typed(tagGroup, (*store).tagResource),
	"UntagResource":        typed(tagGroup, (*store).untagResource),
	"GetSecretValue":       typed(getGroup, (*store).getSecretValue),
	"BatchGetSecretValue":  typed(batchGetGroup, (*store).batchGetSecretValue),
	"DescribeSecret":       typed(describeGroup, (*store).describeSecret),
	"ListSecrets":          typed(listGroup, (*store).listSecrets),
	"ListSecretVersionIds": typed(listVersionsGroup, (*store).listSecretVersionIDs),
}

// Limits of the API reference.
const (
	maxName        = 512
	maxValue       = 65536 // bytes
	maxDescription = 2048
	minToken       = 32
	maxToken       = 64
	maxLabels      = 20
	maxTags        = 50
)

var namePattern = regexp.MustCompile(`^[A-Za-z0-9/_+=.@-]+$`)

type secretReply struct {
	ARN, Name     string
	VersionId     string   `json:",omitempty"`
	VersionStages []string `json:",omitempty"`
	DeletionDate  stamp    `json:",omitzero"`
}

type createSecretInput struct {
	Name               string
	ClientRequestToken string
	Description        string
	Tags               []tag
	payload
}

func (st *store) createSecret(now time.Time, in createSecretInput) (secretReply, error) {
	if in.Name == "" || len(in.Name) > maxName {
		return secretReply{}, invalid("name", "Member must have length between 1 and %d", maxName)
	}
	if !namePattern.MatchString(in.Name) {
		return secretReply{}, fail("ValidationException", "Invalid name. Must be a valid name containing alphanumeric characters, or any of the following: -/_+=.@!")
	}
	if err := checkDescription(in.Description); err != nil {
		return secretReply{}, err
	}
	if len(in.Tags) > maxTags {
		return secretReply{}, invalid("tags", "Member must have length less than or equal to %d", maxTags)
	}
	if err := checkValue(in.payload, in.ClientRequestToken); err != nil {
		return secretReply{}, err
	}

	if sec := st.names[in.Name]; sec != nil {
		if sec.pending() {
			return secretReply{}, fail("InvalidRequestException", "You can't create this secret because a secret with this name is already scheduled for deletion.")
		}
		// A creation that is sent again, because its answer was lost, succeeds again.
		if v := sec.version(in.ClientRequestToken); v != nil && v.equal(in.payload) {
			return secretReply{ARN: sec.ARN, Name: sec.Name, VersionId: v.ID}, nil
		}
		return secretReply{}, fail("ResourceExistsException", "The operation failed because the secret %s already exists.", in.Name)
	}

	sec := st.add(in.Name, now)
	sec.Description = in.Description
	sec.setTags(in.Tags)
	reply := secretReply{ARN: sec.ARN, Name: sec.Name}
	if !in.empty() {
		reply.VersionId = in.ClientRequestToken
		if err := sec.addVersion(&version{ID: in.ClientRequestToken, payload: in.payload, Created: now}, nil); err != nil {
			return secretReply{}, err
		}
	}
	st.touch(sec, now)
	return reply, nil
}

type updateSecretInput struct {
	SecretId           string
	ClientRequestToken string
	Description        *string
	payload
}

// updateSecret changes the description, the value, or both at once. Unlike putSecretValue it is not idempotent: a token
// that already is a version is refused, whatever the value.
func (st *store) updateSecret(now time.Time, in updateSecretInput) (secretReply, error) {
	if in.Description != nil {
		if err := checkDescription(*in.Description); err != nil {
			return secretReply{}, err
		}
	}
	if err := checkValue(in.payload, in.ClientRequestToken); err != nil {
		return secretReply{}, err
	}
	sec, err := st.live(in.SecretId)
	if err != nil {
		return secretReply{}, err
	}
	reply := secretReply{ARN: sec.ARN, Name: sec.Name}
	if !in.empty() {
		if sec.version(in.ClientRequestToken) != nil {
			return secretReply{}, tokenInUse(in.ClientRequestToken, sec)
		}
		if err := sec.addVersion(&version{ID: in.ClientRequestToken, payload: in.payload, Created: now}, nil); err != nil {
			return secretReply{}, err
		}
		reply.VersionId = in.ClientRequestToken
	}
	if in.Description != nil {
		sec.Description = *in.Description
	}
	st.touch(sec, now)
	return reply, nil
}

type putSecretValueInput struct {
	SecretId           string
	ClientRequestToken string
	VersionStages      []string
	payload
}

// putSecretValue adds a version. With the token and the value of an existing one it succeeds and does nothing.
func (st *store) putSecretValue(now time.Time, in putSecretValueInput) (secretReply, error) {
	if in.empty() {
		return secretReply{}, fail("InvalidRequestException", "You must provide either SecretString or SecretBinary.")
	}
	if err := checkValue(in.payload, in.ClientRequestToken); err != nil {
		return secretReply{}, err
	}
	if len(in.VersionStages) > maxLabels {
		return secretReply{}, invalid("versionStages", "Member must have length less than or equal to %d", maxLabels)
	}
	sec, err := st.live(in.SecretId)
	if err != nil {
		return secretReply{}, err
	}
	v := sec.version(in.ClientRequestToken)
	switch {
	case v == nil:
		v = &version{ID: in.ClientRequestToken, payload: in.payload, Created: now}
		if err := sec.addVersion(v, in.VersionStages); err != nil {
			return secretReply{}, err
		}
		st.touch(sec, now)
	case !v.equal(in.payload):
		return secretReply{}, tokenInUse(in.ClientRequestToken, sec)
	}
	return secretReply{ARN: sec.ARN, Name: sec.Name, VersionId: v.ID, VersionStages: v.Labels}, nil
}

type deleteSecretInput struct {
	SecretId                   string
	RecoveryWindowInDays       *int
	ForceDeleteWithoutRecovery bool
}

// deleteSecret starts the recovery window, or deletes for good. The latter also works on a secret whose window is
// running, which is the usual way to free its name, and succeeds where there is no such secret.
func (st *store) deleteSecret(now time.Time, in deleteSecretInput) (secretReply, error) {
	days := 30
	if in.RecoveryWindowInDays != nil {
		if in.ForceDeleteWithoutRecovery {
			return secretReply{}, fail("InvalidParameterException", "You can't use ForceDeleteWithoutRecovery in conjunction with RecoveryWindowInDays.")
		}
		if days = *in.RecoveryWindowInDays; days < 7 || days > 30 {
			return secretReply{}, fail("InvalidParameterException", "RecoveryWindowInDays value must be between 7 and 30 days (inclusive).")
		}
	}
	sec, err := st.find(in.SecretId)
	if in.ForceDeleteWithoutRecovery && in.SecretId != "" {
		reply := secretReply{ARN: st.newARN(nameOf(in.SecretId)), Name: nameOf(in.SecretId), DeletionDate: stamp{now}}
		if err == nil {
			reply.ARN, reply.Name = sec.ARN, sec.Name
			st.remove(sec, now)
		}
		return reply, nil
	}
	if err != nil {
		return secretReply{}, err
	}
	if sec.pending() {
		return secretReply{}, fail("InvalidRequestException", "You can't perform this operation on the secret because it was already scheduled for deletion.")
	}
	sec.Deletion = now.Add(time.Duration(days) * 24 * time.Hour)
	st.awaitDeletion(sec)
	st.touch(sec, now)
	return secretReply{ARN: sec.ARN, Name: sec.Name, DeletionDate: stamp{sec.Deletion}}, nil
}

type secretIDInput struct{ SecretId string }

// restoreSecret ends the recovery window. The secret is the one it was, ARN, versions and labels included.
func (st *store) restoreSecret(now time.Time, in secretIDInput) (secretReply, error) {
	sec, err := st.find(in.SecretId)
	if err != nil {
		return secretReply{}, err
	}
	if sec.pending() {
		sec.Deletion = time.Time{}
		st.touch(sec, now)
	}
	return secretReply{ARN: sec.ARN, Name: sec.Name}, nil
}

type tagResourceInput struct {
	SecretId string
	Tags     []tag
}

func (st *store) tagResource(now time.Time, in tagResourceInput) (struct{}, error) {
	sec, err := st.live(in.SecretId)
	if err != nil {
		return struct{}{}, err
	}
	before := sec.Tags
	if sec.setTags(in.Tags); len(sec.Tags) > maxTags {
		sec.Tags = before
		return struct{}{}, fail("LimitExceededException", "A secret can have up to %d tags.", maxTags)
	}
	st.touch(sec, now)
	return struct{}{}, nil
}

type untagResourceInput struct {
	SecretId string
	TagKeys  []string
}

func (st *store) untagResource(now time.Time, in untagResourceInput) (struct{}, error) {
	sec, err := st.live(in.SecretId)
	if err != nil {
		return struct{}{}, err
	}
	sec.Tags = slices.DeleteFunc(slices.Clone(sec.Tags), func(t tag) bool { return slices.Contains(in.TagKeys, t.Key) })
	st.touch(sec, now)
	return struct{}{}, nil
}

// setTags adds tags, or gives them new values. It leaves the old slice alone, which a listing may still show.
func (sec *secret) setTags(tags []tag) {
	all := slices.Clone(sec.Tags)
	for _, t := range tags {
		if i := slices.IndexFunc(all, func(old tag) bool { return old.Key == t.Key }); i >= 0 {
			all[i] = t
		} else {
			all = append(all, t)
		}
	}
	sec.Tags = all
}

func checkDescription(d string) error {
	if utf8.RuneCountInString(d) > maxDescription {
		return invalid("description", "Member must have length less than or equal to %d", maxDescription)
	}
	return nil
}

// checkValue checks a new version's value, if there is one, and its token. The SDKs make up a token where the caller
// gave none; a bare HTTP request has to (observed).
func checkValue(p payload, token string) error {
	if token != "" && (len(token) < minToken || len(token) > maxToken) {
		return invalid("clientRequestToken", "Member must have length between %d and %d", minToken, maxToken)
	}
	switch {
	case p.empty():
		return nil
	case p.SecretString != nil && p.SecretBinary != nil:
		return fail("InvalidParameterException", "You can't specify both a binary secret value and a string secret value in the same secret.")
	case p.SecretString != nil && (*p.SecretString == "" || len(*p.SecretString) > maxValue):
		return invalid("secretString", "Member must have length between 1 and %d", maxValue)
	case p.SecretString == nil && (len(p.SecretBinary) == 0 || len(p.SecretBinary) > maxValue):
		return invalid("secretBinary", "Member must have length between 1 and %d", maxValue)
	case token == "":
		return fail("InvalidRequestException", "You must provide a ClientRequestToken value. We recommend a UUID-type value.")
	}
	return nil
}

// invalid is AWS's answer to a member that breaks the service model. It never quotes the value.
func invalid(member, format string, args ...any) error {
	return fail("ValidationException", "1 validation error detected: Value at '"+member+"' failed to satisfy constraint: "+format, args...)
}

func tokenInUse(token string, sec *secret) error {
	return fail("ResourceExistsException", "You can't use ClientRequestToken %s because that value is already in use for a version of secret %s.", token, sec.ARN)
}
