package connector_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"entra-connector/internal/connector"

	"entra-connector/pkg/entra"
)

// shelf is a store in memory of one app, whose listing comes in the pages that a
// test says. It forgets what is saved, unless it keeps that.
type shelf struct {
	connector.Store
	app      connector.App
	pages    [][]connector.Connection
	unlisted []connector.Connection           // too young to be listed
	gone     map[connector.ConnectionRef]bool // deleted, and still listed
	hangs    int                              // the page that never comes; 0: none does

	pageTakes time.Duration
	keeps     *sync.Mutex // guards what is saved; nil: it is forgotten

	listed  int // how many pages were asked for
	deleted bool
}

func (s *shelf) App(context.Context, string) (connector.App, error) { return s.app, nil }

func (s *shelf) LookAtApp(context.Context, string) (connector.AppUse, error) {
	use := connector.AppUse{App: s.app, Announced: make(map[string]time.Time)}
	for _, c := range s.unlisted {
		use.Announced[c.Name] = time.Now()
	}
	return use, nil
}

func (s *shelf) UpdateApp(context.Context, connector.AppUse, connector.App) error { return nil }
func (s *shelf) DeleteApp(context.Context, string) error                          { s.deleted = true; return nil }

func (s *shelf) Hold(context.Context, connector.AppUse) (func(context.Context), error) {
	return func(context.Context) {}, nil
}

func (s *shelf) Exists(ctx context.Context, ref connector.ConnectionRef, _ time.Time) (bool, error) {
	_, err := s.Connection(ctx, ref)
	return err == nil, nil
}

func (s *shelf) SaveToken(_ context.Context, c connector.Connection, _ entra.Token) error {
	if s.keeps == nil {
		return nil
	}
	s.keeps.Lock()
	defer s.keeps.Unlock()
	for _, page := range s.pages {
		if i := slices.IndexFunc(page, func(on connector.Connection) bool { return on.ConnectionRef == c.ConnectionRef }); i >= 0 {
			page[i] = c
		}
	}
	return nil
}

func (s *shelf) SaveFailure(context.Context, connector.Connection) error { return nil }

func (s *shelf) Connections(ctx context.Context, _ string, _ int, cursor string) ([]connector.Connection, string, error) {
	s.listed++
	time.Sleep(s.pageTakes)
	if s.listed == s.hangs {
		<-ctx.Done()
		return nil, "", ctx.Err()
	}
	if len(s.pages) == 0 {
		return nil, "", nil
	}
	n, _ := strconv.Atoi(cursor)
	if n == len(s.pages)-1 {
		return s.pages[n], "", nil
	}
	return s.pages[n], strconv.Itoa(n + 1), nil
}

func (s *shelf) Connection(_ context.Context, ref connector.ConnectionRef) (connector.Connection, error) {
	for _, page := range append([][]connector.Connection{s.unlisted}, s.pages...) {
		for _, c := range page {
			if c.ConnectionRef == ref && !s.gone[ref] {
				return c, nil
			}
		}
	}
	return connector.Connection{}, connector.ErrNotFound
}

// tenant is the GUID of one of any number of tenants.
func tenant(n int) string { return fmt.Sprintf("dddddddd-0000-4000-8000-%012d", n) }

// numbered is the connection of that tenant, as it was last seen.
func numbered(n int, status connector.Status) connector.Connection {
	c := connector.Connection{
		ConnectionRef: connector.ConnectionRef{App: "default", Name: tenant(n)}, TenantID: tenant(n), Scope: graph, ExpiresAt: time.Unix(1, 0),
	}
	if status != connector.StatusOK {
		c.Failure = &connector.Failure{Status: status, Code: "AADSTS7000222"}
	}
	return c
}

// numberedFrom are so many connections, from that of tenant first.
func numberedFrom(first, many int, status connector.Status) (page []connector.Connection) {
	for n := range many {
		page = append(page, numbered(first+n, status))
	}
	return page
}
