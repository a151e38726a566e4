package secretstore

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"entra-connector/internal/connector"
)

// Tags on an app's secret, for callers who work on it at once. Each writes keys of its own, so
// nobody overwrites what somebody else has written.
const (
	tagNew  = "entra-connector:new:"  // and a connection's name: when it was announced, and what was there
	tagBusy = "entra-connector:busy"  // until when connections are expected that were not announced
	tagHold = "entra-connector:hold:" // and an ID: since when somebody wants to delete or replace the app

	// maxNotes leaves room for other tags, of which a secret can have 50.
	maxNotes = 20
	// listLag is twice the time that ListSecrets may be behind.
	listLag = 10 * time.Minute
)

func (s *Store) App(ctx context.Context, name string) (connector.App, error) {
	out, err := s.client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: aws.String(s.appName(name))}, s.reads.of)
	if err == nil && out.ARN == nil {
		err = errEmpty
	}
	if err = s.writeError(ctx, "GetSecretValue", s.appName(name), err); err != nil {
		return connector.App{}, err
	}
	app, err := decodeApp(name, aws.ToString(out.SecretString), s.now())
	app.Version = aws.ToString(out.VersionId)
	return app, err
}

func (s *Store) LookAtApp(ctx context.Context, name string) (connector.AppUse, error) {
	found, err := s.look(ctx, s.appName(name))
	if err != nil {
		return connector.AppUse{}, err
	}
	st := found.state()
	switch st {
	case gone, deleting, vacant:
		return connector.AppUse{}, connector.ErrNotFound
	case foreign, locked:
		return connector.AppUse{}, found.conflict()
	}
	use := connector.AppUse{ID: found.arn, Untagged: st == untagged, Announced: make(map[string]connector.Announcement)}
	for key, value := range found.tags {
		since, version, _ := strings.Cut(value, " ")
		at, _ := time.Parse(time.RFC3339, since)
		connection, announced := strings.CutPrefix(key, tagNew)
		switch {
		case announced && found.now.Sub(at) < listLag:
			use.Announced[connection] = connector.Announcement{At: at, Version: version}
		case key == tagBusy:
			use.Busy = at.Sub(found.now)
		case strings.HasPrefix(key, tagHold) && found.now.Sub(at) < connector.RequestTime:
			use.Held = true
		case announced, strings.HasPrefix(key, tagHold):
			use.Stale = append(use.Stale, key)
		}
	}
	use.Now = found.now
	use.App, err = s.described(ctx, name, found)
	use.Version = found.version
	return use, err
}

// described returns what an app's Description says, or else its value. Of an unreadable app it
// returns the name.
func (s *Store) described(ctx context.Context, name string, found secret) (connector.App, error) {
	if app, known := decodeAppDescription(name, found); known {
		return app, nil
	}
	app, err := s.App(ctx, name)
	if errors.Is(err, connector.ErrUnreadable) {
		return connector.App{Name: name}, nil
	}
	return app, err
}

func (s *Store) Apps(ctx context.Context) ([]connector.App, error) {
	var apps []connector.App
	for cursor := ""; ; {
		page, next, err := s.list(ctx, s.appsPrefix(), connector.PageLimit, cursor)
		if err != nil {
			return nil, err
		}
		for _, sec := range page {
			name := strings.TrimPrefix(sec.name, s.appsPrefix())
			if connector.CheckName(name) != nil { // a secret that merely lies below the prefix
				continue
			}
			if st := sec.state(); st != live && st != untagged {
				continue
			}
			app, err := s.described(ctx, name, sec)
			var failed *connector.StoreError
			switch {
			case errors.Is(err, connector.ErrNotFound):
				continue
			case errors.As(err, &failed) && failed.Code == connector.CodeTooManyCalls:
				app.Name = name // the call budget may not suffice for many edited Descriptions
			case err != nil:
				return nil, err
			}
			apps = append(apps, app)
		}
		if cursor = next; cursor == "" {
			return apps, nil
		}
	}
}

func appContent(app connector.App) content {
	return content{
		value:    encodeApp(app),
		describe: func(version string) string { return describeApp(app, version) },
		tags:     appTags(app.Name),
	}
}

func (s *Store) CreateApp(ctx context.Context, app connector.App) (version string, err error) {
	_, version, err = s.create(ctx, s.appName(app.Name), appContent(app))
	return version, err
}

func (s *Store) UpdateApp(ctx context.Context, use connector.AppUse, app connector.App) (version string, err error) {
	if use.Untagged { // its Description alone would say whose it is
		if err := s.tag(ctx, s.appName(app.Name), use.ID, appTags(app.Name)); err != nil {
			return "", err
		}
	}
	content := appContent(app)
	return s.replace(ctx, s.appName(app.Name), use.ID, app.Version, content, content.livesIn)
}

func (s *Store) Announce(ctx context.Context, use connector.AppUse, c connector.Connection) error {
	if err := s.prune(ctx, use); err != nil {
		return err
	}
	tags := appTags(use.App.Name) // in case somebody has removed them
	if _, known := use.Announced[c.Name]; len(use.Announced) >= maxNotes && !known {
		tags[tagBusy] = stamp(use.Now.Add(listLag))
	} else {
		tags[tagNew+c.Name] = stamp(use.Now) + " " + c.Version
	}
	return s.tag(ctx, s.appName(use.App.Name), use.ID, tags)
}

// prune removes notes that no longer count, if there is little room for new ones.
func (s *Store) prune(ctx context.Context, use connector.AppUse) error {
	if len(use.Stale) == 0 || len(use.Announced)+len(use.Stale) < maxNotes {
		return nil
	}
	return s.untag(ctx, s.appName(use.App.Name), use.ID, use.Stale...)
}

func (s *Store) Hold(ctx context.Context, use connector.AppUse) (release func(context.Context), err error) {
	name, key := s.appName(use.App.Name), tagHold+rand.Text()
	if err := s.prune(ctx, use); err != nil {
		return nil, err
	}
	release = func(ctx context.Context) {
		late, cancel := graced(ctx)
		defer cancel()
		_ = s.untag(late, name, use.ID, key) // it lapses anyway
	}
	tags := appTags(use.App.Name) // in case somebody has removed them
	tags[key] = stamp(use.Now)
	return release, s.tag(ctx, name, use.ID, tags)
}

func (s *Store) DeleteApp(ctx context.Context, use connector.AppUse) error {
	return s.delete(ctx, s.appName(use.Name), false)
}

func (s *Store) FinishDeletion(ctx context.Context, app string) error {
	return s.delete(ctx, s.appName(app), true)
}

func (s *Store) untag(ctx context.Context, name, arn string, keys ...string) error {
	_, err := s.client.UntagResource(ctx, &secretsmanager.UntagResourceInput{SecretId: aws.String(arn), TagKeys: slices.Sorted(slices.Values(keys))}, s.writes.of)
	return s.writeError(ctx, "UntagResource", name, err)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
