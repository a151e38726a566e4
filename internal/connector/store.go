package connector

import (
	"context"

	"entra-connector/pkg/entra"
)

// Store keeps apps, connections and tokens. An error is one that the method names, a [*StoreError],
// or the context's if it has ended. A deleted app or connection counts as absent, even while it can
// be restored.
//
// A secret changes its owner only while nobody uses it. A write names the version that it replaces,
// and fails if that is no longer the current one. So no caller can undo what another one did.
type Store interface {
	SweepStore

	// Apps returns every app, sorted by name, without credentials.
	Apps(ctx context.Context) ([]App, error)
	// LookAtApp returns an app without its credential, and who works on it. It fails with
	// ErrNotFound, and with a [*ConflictError] if something else has its name.
	LookAtApp(ctx context.Context, name string) (AppUse, error)
	// CreateApp stores a new app and returns its Version. It fails with ErrExists, and with a
	// [*ConflictError] if something else has its name.
	CreateApp(ctx context.Context, app App) (version string, err error)
	// UpdateApp replaces the app of that Version and returns the next. It fails with ErrChanged if
	// that has been replaced since, and with ErrNotFound if it has been deleted.
	UpdateApp(ctx context.Context, use AppUse, app App) (version string, err error)
	// DeleteApp deletes an app. It fails with a [*ConflictError] if its secret's state forbids
	// that.
	DeleteApp(ctx context.Context, use AppUse) error
	// FinishDeletion deletes an app whose deletion was interrupted. It fails with ErrNotFound if
	// there is none, and with ErrExists if the app is in use again.
	FinishDeletion(ctx context.Context, app string) error

	// Announce records on an app that a connection is about to be created. Its Version says
	// what it replaces.
	Announce(ctx context.Context, use AppUse, c Connection) error
	// Hold records that an app is about to be deleted or replaced. Without release it ends after a
	// minute.
	Hold(ctx context.Context, use AppUse) (release func(context.Context), err error)

	// Invite makes a connection wait for its tenant, under the link's hash. It fails with ErrExists
	// if the connection is there by now, or if others are at work on it.
	Invite(ctx context.Context, c Connection, link Link) error
	// CreateConnection stores a new connection with its first token, and returns it with its
	// secret's name and ARN. It fails with ErrExists, also if there is no longer what was there
	// when Connection returned its Version, and with a [*ConflictError] if something else has its
	// name.
	CreateConnection(ctx context.Context, c Connection, token entra.Token) (Connection, error)
	// DeleteConnection deletes a connection. It fails with ErrNotFound, and with a [*ConflictError]
	// if the state of its secret forbids it.
	DeleteConnection(ctx context.Context, ref ConnectionRef) error
}

// SweepStore is the part of a [Store] that a sweep needs. It reads no token, and creates and
// deletes nothing.
type SweepStore interface {
	// App returns an app with its credential. It fails with ErrNotFound, or with ErrUnreadable if
	// somebody else has edited what is stored.
	App(ctx context.Context, name string) (App, error)
	// Connection returns one connection. With ErrNotFound it returns one whose Version identifies
	// what a deletion has left, if anything.
	Connection(ctx context.Context, ref ConnectionRef) (Connection, error)
	// Connections returns a page of at most limit connections, of one app, or of all if app is
	// empty, and the cursor of the next page, empty on the last. It reads no token, and may be some
	// minutes behind the other methods. A cursor that it did not issue is an [*InvalidError].
	Connections(ctx context.Context, app string, limit int, cursor string) ([]Connection, string, error)
	// SaveToken stores a token with what it says about the connection, in one write: a reader sees
	// all of the old token or all of the new one. It replaces the token that was current when the
	// connection was read. It fails with ErrChanged if another one is current by now, and with
	// ErrNotFound if the connection has been deleted.
	SaveToken(ctx context.Context, c Connection, token entra.Token) error
	// SaveFailure records the connection's failure and leaves the token alone. If another token is
	// current by now, what is known about the connection becomes unknown.
	SaveFailure(ctx context.Context, c Connection) error
}

// PageLimit is the most connections that one page holds.
const PageLimit = 100
