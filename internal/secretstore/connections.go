package secretstore

import (
	"context"
	"errors"
	"strings"

	"entra-connector/internal/connector"
	"entra-connector/pkg/entra"
)

func (s *Store) Connection(ctx context.Context, ref connector.ConnectionRef) (connector.Connection, error) {
	found, err := s.look(ctx, s.connectionName(ref))
	if err == nil && found.absent() {
		err = connector.ErrNotFound
	}
	if err != nil {
		return connector.Connection{ConnectionRef: ref, Version: found.mark()}, err
	}
	return decodeConnection(ref, found), nil
}

// Connections returns a page of connections from ListSecrets, which may be five minutes behind.
func (s *Store) Connections(ctx context.Context, app string, limit int, cursor string) ([]connector.Connection, string, error) {
	prefix := s.connectionsPrefix()
	if app != "" {
		prefix += app + "/"
	}
	page, next, err := s.list(ctx, prefix, limit, cursor)
	if err != nil {
		return nil, "", err
	}
	connections := make([]connector.Connection, 0, len(page))
	for _, sec := range page {
		ref, err := connector.ParseConnectionRef(strings.TrimPrefix(sec.name, s.connectionsPrefix()))
		if err != nil || sec.absent() { // a secret that merely lies below the prefix
			continue
		}
		connections = append(connections, decodeConnection(ref, sec))
	}
	return connections, next, nil
}

func connectionContent(c connector.Connection, token entra.Token) content {
	tags := connectionTags(c.ConnectionRef)
	tags[tagTenant], tags[tagScope] = c.TenantID, scopeTag(c.Scope)
	return content{
		value:    encode(token.Values()),
		describe: func(version string) string { return describeConnection(c, version) },
		tags:     tags,
	}
}

func (s *Store) CreateConnection(ctx context.Context, c connector.Connection, token entra.Token) (_ connector.Connection, err error) {
	c.SecretName = s.connectionName(c.ConnectionRef)
	content := connectionContent(c, token)
	content.over = c.Version
	c.SecretARN, c.Version, err = s.create(ctx, c.SecretName, content)
	return c, err
}

func (s *Store) SaveToken(ctx context.Context, c connector.Connection, token entra.Token) error {
	content := connectionContent(c, token)
	_, err := s.replace(ctx, c.SecretName, c.SecretARN, c.Version, content, content.livesIn)
	return err
}

// SaveFailure records a failure in the Description, which makes no new version of the secret.
func (s *Store) SaveFailure(ctx context.Context, c connector.Connection) error {
	return s.writeDescription(ctx, c.SecretName, c.SecretARN, describeConnection(c, c.Version))
}

func (s *Store) DeleteConnection(ctx context.Context, ref connector.ConnectionRef) error {
	return connector.Retry(ctx, func() (again bool, err error) {
		err = s.delete(ctx, s.connectionName(ref), false)
		return errors.Is(err, connector.ErrExists), err // a claim was faster than the end of a deletion
	})
}
