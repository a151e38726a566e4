package connector

import (
	"context"

	"entra-connector/pkg/entra"
)

// Store keeps apps, connections and tokens. An error is one that the method names, a [*StoreError], or
// the context's where the context has ended. A deleted app or connection counts as absent, even while
// it can be restored.
type Store interface {
	SweepStore

	// Apps returns every app, sorted by name, without credentials.
	Apps(ctx context.Context) ([]App, error)
	// AppWithoutCredential returns an app without its credential, or ErrNotFound.
	AppWithoutCredential(ctx context.Context, name string) (App, error)
	// CreateApp stores a new app, or fails with ErrExists.
	CreateApp(ctx context.Context, app App) error
	// UpdateApp replaces the app that was read. It fails with ErrChanged where that has been replaced
	// since, and with ErrNotFound where it has been deleted.
	UpdateApp(ctx context.Context, app App) error
	// NoteConnection records the app's LastConnection.
	NoteConnection(ctx context.Context, ref ConnectionRef) error
	// DeleteApp deletes an app, or fails with ErrNotFound.
	DeleteApp(ctx context.Context, name string) error

	// CreateConnection stores a new connection with its first token, and returns it with its secret's
	// name and ARN. It fails with ErrExists.
	CreateConnection(ctx context.Context, c Connection, token entra.Token) (Connection, error)
	// DeleteConnection deletes a connection, or fails with ErrNotFound.
	DeleteConnection(ctx context.Context, ref ConnectionRef) error
}

// SweepStore is as much of a [Store] as a sweep needs. It reads no token, and creates and deletes
// nothing.
type SweepStore interface {
	// App returns an app with its credential. It fails with ErrNotFound, or with ErrUnreadable where
	// somebody else has edited what is stored.
	App(ctx context.Context, name string) (App, error)
	// Connection returns one connection, or ErrNotFound.
	Connection(ctx context.Context, ref ConnectionRef) (Connection, error)
	// Connections returns a page of at most limit connections, of one app or of all where app is empty,
	// and the cursor of the next page, empty on the last. It reads no token, and may be some minutes
	// behind the other methods. A cursor that it did not issue is an [*InvalidError].
	Connections(ctx context.Context, app string, limit int, cursor string) ([]Connection, string, error)
	// SaveToken stores a token with what it says about the connection, in one write: a reader sees all
	// of the old token or all of the new one. It replaces the token that was current when the
	// connection was read. It fails with ErrChanged where another one is current by now, and with
	// ErrNotFound where the connection has been deleted.
	SaveToken(ctx context.Context, c Connection, token entra.Token) error
	// SaveFailure records the connection's failure and leaves the token alone.
	SaveFailure(ctx context.Context, c Connection) error
}

// PageLimit is the most connections that one page holds.
const PageLimit = 100
