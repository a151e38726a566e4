package secretstoretest

import (
	"errors"
	"time"
)

type getSecretValueInput struct{ SecretId, VersionId, VersionStage string }

type secretValue struct {
	ARN, Name, VersionId string
	VersionStages        []string
	CreatedDate          stamp // of the version
	payload
}

func (st *store) getSecretValue(now time.Time, in getSecretValueInput) (secretValue, error) {
	sec, err := st.live(in.SecretId)
	if err != nil {
		return secretValue{}, err
	}
	v, err := sec.choose(in.VersionId, in.VersionStage)
	if err != nil {
		return secretValue{}, err
	}
	// LastAccessedDate has the resolution of a day.
	if day := now.UTC().Truncate(24 * time.Hour); !day.Equal(sec.Accessed) {
		sec.Accessed = day
		st.dirty = true
	}
	return secretValue{
		ARN: sec.ARN, Name: sec.Name, VersionId: v.ID, VersionStages: v.Labels, CreatedDate: stamp{v.Created}, payload: v.payload,
	}, nil
}

// choose finds the version by ID, by label, or by both; by AWSCURRENT if neither is given.
func (sec *secret) choose(id, label string) (*version, error) {
	if id == "" && label == "" {
		label = current
	}
	if id == "" {
		if v := sec.labelled(label); v != nil {
			return v, nil
		}
		return nil, fail("ResourceNotFoundException", "Secrets Manager can't find the specified secret value for staging label: %s", label)
	}
	v := sec.version(id)
	switch {
	case v == nil:
		return nil, fail("ResourceNotFoundException", "Secrets Manager can't find the specified secret value for VersionId: %s", id)
	case label != "" && sec.labelled(label) != v:
		return nil, fail("InvalidRequestException", "You provided a VersionStage that is not associated to the provided VersionId.")
	}
	return v, nil
}

type batchGetSecretValueInput struct {
	SecretIdList []string
	query
}

type batchGetSecretValueReply struct {
	SecretValues []secretValue
	Errors       []batchError
	NextToken    string `json:",omitempty"`
}

type batchError struct{ ErrorCode, Message, SecretId string }

const maxBatch = 20

// batchGetSecretValue reads up to twenty secrets, by name or by filter. One that cannot be read is in Errors and fails
// nothing else.
func (st *store) batchGetSecretValue(now time.Time, in batchGetSecretValueInput) (batchGetSecretValueReply, error) {
	reply := batchGetSecretValueReply{SecretValues: []secretValue{}, Errors: []batchError{}}
	ids := in.SecretIdList
	switch {
	case (len(ids) > 0) == (len(in.Filters) > 0):
		return reply, fail("InvalidParameterException", "You must include either SecretIdList or Filters, but not both.")
	case len(ids) > maxBatch:
		return reply, invalid("secretIdList", "Member must have length less than or equal to %d", maxBatch)
	case len(ids) > 0 && in.MaxResults != nil:
		return reply, fail("InvalidParameterException", "You can only use MaxResults together with Filters.")
	case len(ids) == 0:
		found, next, err := st.page(now, in.query, maxBatch)
		if err != nil {
			return reply, err
		}
		reply.NextToken = next
		for _, e := range found {
			ids = append(ids, e.ARN)
		}
	}
	for _, id := range ids {
		v, err := st.getSecretValue(now, getSecretValueInput{SecretId: id})
		if e := (*apiError)(nil); errors.As(err, &e) {
			reply.Errors = append(reply.Errors, batchError{e.Type, e.Message, id})
			continue
		}
		reply.SecretValues = append(reply.SecretValues, v)
	}
	return reply, nil
}

type description struct {
	entry
	VersionIdsToStages map[string][]string `json:",omitempty"`
}

// describeSecret works while deletion is pending too, and is never behind.
func (st *store) describeSecret(_ time.Time, in secretIDInput) (description, error) {
	sec, err := st.find(in.SecretId)
	if err != nil {
		return description{}, err
	}
	d := description{entry: sec.entry()}
	// The same map goes by another name in ListSecrets.
	d.VersionIdsToStages, d.SecretVersionsToStages = d.SecretVersionsToStages, nil
	return d, nil
}

type listSecretVersionIDsInput struct {
	SecretId          string
	IncludeDeprecated bool
	MaxResults        *int
	NextToken         string
}

type listSecretVersionIDsReply struct {
	ARN, Name string
	Versions  []versionEntry
	NextToken string `json:",omitempty"`
}

type versionEntry struct {
	VersionId     string
	VersionStages []string `json:",omitempty"`
	CreatedDate   stamp
	KmsKeyIds     []string
}

func (st *store) listSecretVersionIDs(_ time.Time, in listSecretVersionIDsInput) (listSecretVersionIDsReply, error) {
	limit, err := pageSize(in.MaxResults, maxVersions)
	if err != nil {
		return listSecretVersionIDsReply{}, err
	}
	sec, err := st.live(in.SecretId)
	if err != nil {
		return listSecretVersionIDsReply{}, err
	}
	reply := listSecretVersionIDsReply{ARN: sec.ARN, Name: sec.Name, Versions: []versionEntry{}}
	after := in.NextToken // the ID of the last version of the page before
	for _, v := range sec.Versions {
		switch {
		case after != "":
			if v.ID == after {
				after = ""
			}
		case len(v.Labels) == 0 && !in.IncludeDeprecated:
		case len(reply.Versions) == limit:
			reply.NextToken = reply.Versions[limit-1].VersionId
			return reply, nil
		default:
			reply.Versions = append(reply.Versions, versionEntry{v.ID, v.Labels, stamp{v.Created}, []string{"DefaultEncryptionKey"}})
		}
	}
	if after != "" {
		return listSecretVersionIDsReply{}, errNextToken
	}
	return reply, nil
}
