package connector

import (
	"context"

	"entra-connector/pkg/entra"
)

// Store keeps apps, connections and tokens. An error is one that the method names, a [*StoreError], or
// the context's where the context has ended. A deleted app or connection counts as absent, even while
// it can be restored.
//
// Whose a secret is changes only while nobody uses it. A write that replaces something names what it
// replaces, and fails where that is not there any more. So neither can undo what another caller did.
type Store interface {
	SweepStore

	// Apps returns every app, sorted by name, without credentials.
	Apps(ctx context.Context) ([]App, error)
	// LookAtApp returns an app without its credential, and who meets on it. It fails with ErrNotFound,
	// and with a [*ConflictError] where something else has its name.
	LookAtApp(ctx context.Context, name string) (AppUse, error)
	// CreateApp stores a new app and returns its Version. It fails with ErrExists, and with a
	// [*ConflictError] where something else has its name.
	CreateApp(ctx context.Context, app App) (version string, err error)
	// UpdateApp replaces the app of that Version and returns the next. It fails with ErrChanged where
	// that has been replaced since, and with ErrNotFound where it has been deleted.
	UpdateApp(ctx context.Context, use AppUse, app App) (version string, err error)
	// DeleteApp deletes an app. It fails with a [*ConflictError] where the state of its secret forbids it.
	DeleteApp(ctx context.Context, use AppUse) error
	// FinishDeletion deletes an app whose deletion was interrupted. It fails with ErrNotFound where
	// there is none, and with ErrExists where the app is in use again.
	FinishDeletion(ctx context.Context, app string) error

	// Announce says that a connection is about to be created on an app, in the place of what has the
	// connection's Version.
	Announce(ctx context.Context, use AppUse, c Connection) error
	// Hold says that an app is about to be deleted or replaced. Without release it ends by itself after a
	// minute.
	Hold(ctx context.Context, use AppUse) (release func(context.Context), err error)
	// Exists reports whether a connection exists that was announced, or listed if that is zero. It fails
	// where it may be about to be created.
	Exists(ctx context.Context, ref ConnectionRef, announced Announcement) (bool, error)

	// CreateConnection stores a new connection with its first token, and returns it with its secret's
	// name and ARN. It fails with ErrExists, and with a [*ConflictError] where something else has its
	// name.
	CreateConnection(ctx context.Context, c Connection, token entra.Token) (Connection, error)
	// DeleteConnection deletes a connection. It fails with ErrNotFound, and with a [*ConflictError] where
	// the state of its secret forbids it.
	DeleteConnection(ctx context.Context, ref ConnectionRef) error
}

// SweepStore is as much of a [Store] as a sweep needs. It reads no token, and creates and deletes
// nothing.
type SweepStore interface {
	// App returns an app with its credential. It fails with ErrNotFound, or with ErrUnreadable where
	// somebody else has edited what is stored.
	App(ctx context.Context, name string) (App, error)
	// Connection returns one connection. It fails with ErrNotFound, and then returns a Connection whose
	// Version stands for what is there of a deleted one.
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
	// SaveFailure records the connection's failure and leaves the token alone. Where another token is
	// current by now, what is known about the connection becomes unknown.
	SaveFailure(ctx context.Context, c Connection) error
}

// PageLimit is the most connections that one page holds.
const PageLimit = 100
