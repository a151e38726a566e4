package secretstore

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"entra-connector/internal/connector"
	"entra-connector/pkg/entra"
)

// Tags of a connection that waits for its tenant. What has happened so far has keys of its own, so
// that two people with one link do not overwrite each other.
const (
	tagInvitation = "entra-connector:invitation" // the link's hash, its expiry and the tenant that it is for, if any

	tagProgress = "entra-connector:progress:"
	tagOpened   = tagProgress + "opened"  // when
	tagRefused  = tagProgress + "refused" // when, and the code
	tagSignIn   = tagProgress + "at:"     // and the page's ID of a sign-in: when, and the tenant

	// maxSignIns leaves room for other tags.
	maxSignIns = 5
	// signInLife is how long somebody who has signed in may take to finish.
	signInLife = time.Hour
)

// noToken is the value of a secret before its invitation has been accepted.
const noToken = "{}"

// Invite makes a connection wait for its tenant.
func (s *Store) Invite(ctx context.Context, c connector.Connection, link connector.Link) error {
	tags := connectionTags(c.ConnectionRef)
	tags[tagScope], tags[tagState] = scopeTag(c.Scope), stateInvited
	tags[tagInvitation] = strings.TrimSpace(link.Hash() + " " + stamp(c.Invitation.ExpiresAt) + " " + c.Invitation.TenantID)
	content := content{value: noToken, tags: tags, over: c.Version, describe: func(version string) string {
		return encode(map[string]any{"status": connector.StatusInvited, "version": version})
	}}
	_, _, err := s.create(ctx, s.connectionName(c.ConnectionRef), content)
	return err
}

// Invited returns the invitation of a link.
func (s *Store) Invited(ctx context.Context, link connector.Link) (connector.Guest, error) {
	found, guest, err := s.invited(ctx, link)
	if err == nil && guest.State == connector.Open && !found.now.Before(guest.ExpiresAt) {
		guest.State = connector.Expired
	}
	return guest, err
}

func (s *Store) invited(ctx context.Context, link connector.Link) (found secret, guest connector.Guest, err error) {
	if found, err = s.look(ctx, s.connectionName(link.ConnectionRef)); err != nil {
		return found, guest, err
	}
	hash, inv, ok := found.invite()
	if !ok || !link.Opens(hash) || !found.has(found.own) {
		return found, guest, connector.ErrNotFound
	}
	guest = connector.Guest{ConnectionRef: link.ConnectionRef, Invitation: inv, Scope: parseScopeTag(found.tags[tagScope]), SignIns: found.signIns()}
	switch st := found.state(); {
	case found.deleted, strings.HasPrefix(found.tags[tagState], stateDeleting):
		guest.State = connector.Revoked
	case st == live:
		guest.State = connector.Accepted
		guest.Tenant, _, _ = found.identity()
	case guest.Scope == "":
		return found, guest, connector.ErrNotFound // somebody has edited the tags
	}
	return found, guest, nil
}

// invite decodes the tags of an invitation.
func (s secret) invite() (hash string, inv connector.Invitation, ok bool) {
	parts := append(strings.Split(s.tags[tagInvitation], " "), "")
	if len(parts) < 3 {
		return "", inv, false
	}
	hash, inv.TenantID = parts[0], parts[2]
	inv.ExpiresAt, _ = time.Parse(time.RFC3339, parts[1])
	inv.OpenedAt, _ = time.Parse(time.RFC3339, s.tags[tagOpened])
	for _, signIn := range s.signIns() {
		if signIn.At.After(inv.SignedInAt) {
			inv.SignedInAt = signIn.At
		}
	}
	return hash, inv, hash != "" && !inv.ExpiresAt.IsZero()
}

// signIns are those that still count.
func (s secret) signIns() map[string]connector.SignIn {
	all := make(map[string]connector.SignIn)
	for _, key := range s.keys(tagSignIn) {
		since, tenantID, _ := strings.Cut(s.tags[key], " ")
		if at, err := time.Parse(time.RFC3339, since); err == nil && s.now.Sub(at) < signInLife {
			all[strings.TrimPrefix(key, tagSignIn)] = connector.SignIn{TenantID: tenantID, At: at}
		}
	}
	return all
}

// invitation adds what the tags say to a connection that waits for its tenant.
func (s secret) invitation(c connector.Connection) connector.Connection {
	_, inv, _ := s.invite()
	c.Invitation, c.Scope = &inv, parseScopeTag(s.tags[tagScope])
	if since, code, ok := strings.Cut(s.tags[tagRefused], " "); ok {
		at, _ := time.Parse(time.RFC3339, since)
		c.Failure = &connector.Failure{Status: connector.StatusInvited, Code: code, Advice: connector.Explain(code), At: at}
	}
	return c
}

// note sets a tag of an invitation that is still open.
func (s *Store) note(ctx context.Context, link connector.Link, note func(found secret) (key, value string, outdated []string)) error {
	found, guest, err := s.invited(ctx, link)
	switch {
	case err != nil:
		return err
	case guest.State != connector.Open:
		return connector.ErrNotFound
	}
	key, value, outdated := note(found)
	if len(outdated) > 0 {
		if err := s.untag(ctx, found.name, found.arn, outdated...); err != nil {
			return err
		}
	}
	if key == "" {
		return nil
	}
	return s.tag(ctx, found.name, found.arn, map[string]string{key: value})
}

// NoteOpened records when somebody first looked at the page.
func (s *Store) NoteOpened(ctx context.Context, link connector.Link) error {
	return s.note(ctx, link, func(found secret) (string, string, []string) { return tagOpened, stamp(found.now), nil })
}

// NoteRefusal records why it did not go on.
func (s *Store) NoteRefusal(ctx context.Context, link connector.Link, code string) error {
	return s.note(ctx, link, func(found secret) (string, string, []string) { return tagRefused, stamp(found.now) + " " + code, nil })
}

// NoteSignIn records a verified sign-in. If there are many, it drops the oldest.
func (s *Store) NoteSignIn(ctx context.Context, link connector.Link, id, tenantID string) error {
	return s.note(ctx, link, func(found secret) (string, string, []string) {
		keys := found.keys(tagSignIn)
		slices.SortFunc(keys, func(a, b string) int { return cmp.Compare(found.tags[b], found.tags[a]) }) // by time, latest first
		return tagSignIn + id, stamp(found.now) + " " + tenantID, keys[min(len(keys), maxSignIns-1):]
	})
}

// Accept stores the first token of an invited connection.
func (s *Store) Accept(ctx context.Context, link connector.Link, c connector.Connection, token entra.Token, allowed func(context.Context) error) (connector.Connection, error) {
	err := connector.Retry(ctx, func() (beaten bool, err error) {
		found, guest, err := s.invited(ctx, link)
		switch {
		case err != nil:
			return false, err
		case guest.State != connector.Open || !found.now.Before(guest.ExpiresAt) || guest.Scope != c.Scope,
			guest.TenantID != "" && guest.TenantID != c.TenantID:
			return false, connector.ErrExists
		}
		c.SecretName = found.name
		if st := found.state(); st != invited && st != deleting { // of which an interrupted one is an instance
			return false, connector.ErrExists
		}
		content := connectionContent(c, token)
		content.over, content.allowed = found.mark(), allowed
		c.SecretARN, c.Version, err = s.claim(ctx, found, content)
		return errors.Is(err, connector.ErrExists), err
	})
	return c, err
}

var _ connector.ConnectStore = (*Store)(nil)
