package secretstoretest

import (
	"maps"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

var operations = []string{
	"CreateSecret", "UpdateSecret", "PutSecretValue", "DeleteSecret", "RestoreSecret", "TagResource", "UntagResource",
	"PutResourcePolicy", "GetSecretValue", "DescribeSecret", "ListSecrets",
}

type secretReply struct {
	ARN, Name     string
	VersionId     string   `json:",omitempty"`
	SecretString  string   `json:",omitempty"`
	VersionStages []string `json:",omitempty"`
	CreatedDate   stamp    `json:",omitzero"` // of the version
	DeletionDate  stamp    `json:",omitzero"`
}

// perform carries out one of the operations.
func (st *store) perform(now time.Time, op string, in input) (any, error) {
	if err := in.check(op); err != nil {
		return nil, err
	}
	switch op {
	case "CreateSecret":
		return st.create(now, in)
	case "ListSecrets":
		return st.list(now, in.query)
	}

	sec := st.names[nameOf(in.SecretId)]
	if sec != nil && in.SecretId != sec.Name && in.SecretId != sec.ARN {
		sec = nil // the ARN of a secret that had this name before
	}
	switch {
	case in.ForceDeleteWithoutRecovery && in.RecoveryWindowInDays != nil:
		return nil, fail("InvalidParameterException", "You can't use ForceDeleteWithoutRecovery in conjunction with RecoveryWindowInDays.")
	case in.ForceDeleteWithoutRecovery && sec == nil:
		return secretReply{ARN: st.newARN(nameOf(in.SecretId)), Name: nameOf(in.SecretId), DeletionDate: stamp{now}}, nil
	case sec == nil:
		return nil, fail("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
	}
	if err := sec.refuses(op, in); err != nil {
		return nil, err
	}

	reply := secretReply{ARN: sec.ARN, Name: sec.Name}
	switch {
	case in.ForceDeleteWithoutRecovery: // frees the name, also while a recovery window is running
		st.remove(sec, now)
		reply.DeletionDate = stamp{now}
		return reply, nil
	case op == "DescribeSecret":
		return sec.entry(), nil
	case op == "RestoreSecret":
		if sec.pending() {
			sec.Deletion = time.Time{}
			st.touch(sec, now)
		}
		return reply, nil
	case sec.pending():
		return nil, fail("InvalidRequestException", "You can't perform this operation on the secret because it was marked for deletion.")
	}
	switch op {
	case "GetSecretValue":
		v := sec.current()
		if v == nil {
			return nil, fail("ResourceNotFoundException", "Secrets Manager can't find the specified secret value for staging label: %s", current)
		}
		reply.VersionId, reply.SecretString, reply.VersionStages, reply.CreatedDate = v.ID, v.Value, v.Labels, stamp{v.Created}
		return reply, nil
	case "UpdateSecret", "PutSecretValue":
		return st.write(now, sec, in)
	case "DeleteSecret":
		days := 30
		if in.RecoveryWindowInDays != nil {
			days = *in.RecoveryWindowInDays
		}
		if days < 7 || days > 30 {
			return nil, fail("InvalidParameterException", "RecoveryWindowInDays value must be between 7 and 30 days (inclusive).")
		}
		sec.Deletion = now.Add(time.Duration(days) * 24 * time.Hour)
		st.pending = append(st.pending, sec)
		reply.DeletionDate = stamp{sec.Deletion}
	case "TagResource":
		if err := sec.setTags(in.Tags); err != nil {
			return nil, err
		}
	case "PutResourcePolicy":
		sec.Policy = in.ResourcePolicy
	case "UntagResource":
		for _, key := range in.TagKeys {
			delete(sec.Tags, key)
		}
	}
	st.touch(sec, now)
	return reply, nil
}

func (st *store) create(now time.Time, in input) (any, error) {
	if !namePattern.MatchString(in.Name) {
		return nil, fail("ValidationException", "Invalid name. Must be a valid name containing alphanumeric characters, or any of the following: -/_+=.@!")
	}
	if sec := st.names[in.Name]; sec != nil {
		if sec.pending() {
			return nil, fail("InvalidRequestException", "You can't create this secret because a secret with this name is already scheduled for deletion.")
		}
		// If the answer to a creation is lost and the caller sends it again, it succeeds again.
		if v := sec.version(in.ClientRequestToken); v != nil && in.SecretString != nil && v.Value == *in.SecretString {
			return secretReply{ARN: sec.ARN, Name: sec.Name, VersionId: v.ID}, nil
		}
		return nil, fail("ResourceExistsException", "The operation failed because the secret %s already exists.", in.Name)
	}
	sec := &secret{Name: in.Name, ARN: st.newARN(in.Name), Created: now}
	if err := sec.setTags(in.Tags); err != nil {
		return nil, err
	}
	st.enter(sec)
	return st.write(now, sec, in)
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9/_+=.@-]+$`)

// write changes the value, the description, or both at once. A token that is the ID of a version
// already adds none: with the value of that version the call succeeds, and with another value it
// fails. The API reference says so of PutSecretValue. Of UpdateSecret it says that it always fails,
// but AWS was seen to succeed (moto's tests that are verified against AWS, getmoto/moto 9741).
func (st *store) write(now time.Time, sec *secret, in input) (any, error) {
	reply := secretReply{ARN: sec.ARN, Name: sec.Name}
	if in.SecretString != nil {
		v := sec.version(in.ClientRequestToken)
		if v == nil {
			v = &version{ID: in.ClientRequestToken, Value: *in.SecretString, Created: now}
			if err := sec.addVersion(v); err != nil {
				return nil, err
			}
		}
		if v.Value != *in.SecretString {
			if st.RefusedUpdateWritesDescription && in.Description != nil {
				sec.Description = *in.Description
				st.touch(sec, now)
			}
			return nil, fail("ResourceExistsException", "You can't use ClientRequestToken %s because that value is already in use for a version of secret %s.", v.ID, sec.ARN)
		}
		reply.VersionId, reply.VersionStages = v.ID, v.Labels
	}
	if in.Description != nil {
		sec.Description = *in.Description
	}
	st.touch(sec, now)
	return reply, nil
}

// refuses is AWS's answer to writes to a secret that is replicated, that is a replica (both
// observed: cloud-nuke 435), or that another service manages (API reference,
// InvalidRequestException; the user guide names updates and forced deletion; tags are allowed:
// terraform-provider-aws 43073).
func (sec *secret) refuses(op string, in input) error {
	switch {
	case op == "GetSecretValue", op == "DescribeSecret":
		return nil
	case sec.primaryRegion != "" && !strings.Contains(sec.ARN, ":"+sec.primaryRegion+":"):
		return fail("InvalidParameterException", "Operation not permitted on a replica secret. Call must be made in primary secret's region.")
	case op == "DeleteSecret" && len(sec.replicas) > 0:
		return fail("InvalidParameterException", "You can't delete secret %s that still has replica regions [%s].", sec.ARN, strings.Join(sec.replicas, ", "))
	case sec.owningService != "" && (op == "UpdateSecret" || op == "PutSecretValue" || in.ForceDeleteWithoutRecovery):
		return fail("InvalidRequestException", "The secret is managed by another service, and you must use that service to update it.")
	}
	return nil
}

var tagPattern = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$`)

// setTags adds tags, or gives them new values. The API reference and the General Reference,
// "Service quotas for tagging", name the limits but not the errors. For lengths this is the error
// of other parameters, for the rest the one that TagResource has for parameters.
func (sec *secret) setTags(tags []tag) error {
	all := make(map[string]string)
	maps.Copy(all, sec.Tags)
	for _, t := range tags {
		switch {
		case t.Key == "", utf8.RuneCountInString(t.Key) > 128, utf8.RuneCountInString(t.Value) > 256:
			return fail("ValidationException", "A tag has a key of 1 to 128 characters and a value of up to 256.")
		case strings.HasPrefix(strings.ToLower(t.Key), "aws:"), !tagPattern.MatchString(t.Key), !tagPattern.MatchString(t.Value):
			return fail("InvalidParameterException", "A tag has a reserved prefix or a character that is not allowed.")
		}
		all[t.Key] = t.Value
	}
	if len(all) > 50 {
		return fail("InvalidParameterException", "A secret can have up to 50 tags.")
	}
	sec.Tags = all
	return nil
}

// check applies the constraints of the API reference. The SDKs make up a token if the caller gives
// none; a bare HTTP request has to give one (observed).
func (in *input) check(op string) error {
	value, token := in.SecretString, in.ClientRequestToken
	switch {
	case op == "CreateSecret" && (in.Name == "" || len(in.Name) > 512):
		return invalid("name", 1, 512)
	case op != "CreateSecret" && op != "ListSecrets" && (in.SecretId == "" || len(in.SecretId) > 2048):
		return invalid("secretId", 1, 2048)
	case token != "" && (len(token) < 32 || len(token) > 64):
		return invalid("clientRequestToken", 32, 64)
	case value != nil && (*value == "" || len(*value) > 65536):
		return invalid("secretString", 1, 65536)
	case in.Description != nil && utf8.RuneCountInString(*in.Description) > 2048:
		return invalid("description", 0, 2048)
	case value == nil && op == "PutSecretValue":
		return fail("InvalidRequestException", "You must provide either SecretString or SecretBinary.")
	case value != nil && token == "":
		return fail("InvalidRequestException", "You must provide a ClientRequestToken value. We recommend a UUID-type value.")
	}
	return nil
}
