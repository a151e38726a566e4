package entra

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// Provisioner carries out what operators ask for. Credentials are proved by
// getting a token with them before anything is stored, and every step can be
// repeated: a call that was interrupted is finished by the same call again.
type Provisioner struct {
	Store Store
	Entra *Client
	Now   func() time.Time
	Log   *slog.Logger
	// Changed is told what [Sweeper.Changed] is. It may be nil.
	Changed func(context.Context, Connection)
}

// ProvisionRequest asks for a connection.
type ProvisionRequest struct {
	TenantID   string // GUID or verified domain
	App        string
	Connection string     // empty: the tenant's GUID
	AppFields  *AppFields // nil: the named app must exist
}

// Validate reports an [*InvalidError] with every field that is wrong.
func (r ProvisionRequest) Validate(now time.Time) error {
	_, _, err := r.parse(now)
	return err
}

// parse returns the app that is asked for, with no more than its name where it
// is only named, and the tenant.
func (r ProvisionRequest) parse(now time.Time) (App, string, error) {
	var bad fieldErrors
	tenant, err := parseTenant(r.TenantID)
	bad.add("tenant_id", err)
	bad.add("app", CheckName(r.App))
	if r.Connection != "" {
		bad.add("connection", CheckName(r.Connection))
	}
	app := App{Name: r.App}
	if r.AppFields != nil {
		app = bad.app(r.App, *r.AppFields, now)
	}
	return app, tenant, bad.err()
}

// Provision proves the credentials, then stores app, connection and token. It
// reports whether the connection is new. Errors: [*InvalidError], [ErrNotFound]
// for an app that does not exist, [*ConflictError], [*Error], [*StoreError].
func (p *Provisioner) Provision(ctx context.Context, req ProvisionRequest) (Connection, bool, error) {
	asked, tenant, err := req.parse(p.Now())
	if err != nil {
		return Connection{}, false, err
	}
	if asked, err = p.identify(ctx, asked); err != nil {
		return Connection{}, false, err
	}
	app, change, err := p.appFor(ctx, asked)
	if err != nil {
		return Connection{}, false, err
	}
	tenantID, err := p.Entra.ResolveTenant(ctx, app.Cloud, tenant)
	if err != nil {
		return Connection{}, false, err
	}
	ref := ConnectionRef{App: app.Name, Name: req.Connection}
	if ref.Name == "" {
		ref.Name = tenantID
	}
	c, known, err := p.connectionFor(ctx, ref, tenantID)
	if err != nil {
		return Connection{}, false, err
	}
	token, err := p.proof(ctx, app, tenantID)
	if err == nil && token.Lifetime() < minLifetime {
		err = &Error{Class: Refused, Code: CodeShortLived}
	}
	if err != nil {
		return Connection{}, false, err
	}

	// The app goes first: a connection without its app could not be refreshed,
	// while an app without connections is what the next call finds in place.
	app.LastConnection = ref.Name
	if change == kept && !known {
		change = noted // the listing may not show the connection for minutes
	}
	if app, err = p.saveApp(ctx, app, change); err != nil {
		return Connection{}, false, err
	}
	return p.saveConnection(ctx, c, known, app, token)
}

// appChange is what provisioning does to an app.
type appChange int

const (
	kept appChange = iota
	noted
	created
	rotated
)

// appFor returns the app to use for what was asked, and what is to be done to
// the stored one once that has been proved. An app that was only named must
// exist; one that was given whole must not be somebody else's of the same name.
func (p *Provisioner) appFor(ctx context.Context, asked App) (App, appChange, error) {
	stored, err := p.Store.App(ctx, asked.Name)
	onlyNamed := asked.ClientID == ""
	said := asked.Credential.SecretExpiresAt
	switch {
	case errors.Is(err, ErrNotFound) && onlyNamed:
		return App{}, kept, fmt.Errorf("app %q: %w; send all of it with the request, or PUT /apps/%[1]s first", asked.Name, err)
	case errors.Is(err, ErrNotFound):
		return asked, created, nil
	case err != nil:
		return App{}, kept, err
	case onlyNamed, stored.same(asked) && (said.IsZero() || said.Equal(stored.Credential.SecretExpiresAt)):
		return stored, kept, nil
	}
	if fields := stored.differences(asked); len(fields) > 0 {
		return App{}, kept, &ConflictError{fmt.Sprintf(
			"App %q exists with another %s. Use another app name, or replace the app for all its connections with PUT /apps/%[1]s.",
			asked.Name, strings.Join(fields, ", "))}
	}
	asked.Version = stored.Version
	asked.RotatedAt = time.Time{}
	if stored.same(asked) {
		asked.RotatedAt = stored.RotatedAt // all that is new is when it expires
	}
	return asked, rotated, nil
}

// saveApp does what appFor found is to be done. Another call may have been first
// with it; then the app is judged anew, by the same rules.
func (p *Provisioner) saveApp(ctx context.Context, app App, change appChange) (App, error) {
	if change == created || change == rotated {
		app.ChangedAt = p.Now()
		if app.RotatedAt.IsZero() {
			app.RotatedAt = app.ChangedAt
		}
	}
	var err error
	switch change {
	case noted:
		err = p.Store.NoteConnection(ctx, ConnectionRef{App: app.Name, Name: app.LastConnection})
	case created:
		err = p.Store.CreateApp(ctx, app)
	case rotated:
		err = p.Store.UpdateApp(ctx, app)
	}
	if !beaten(err) || change == noted {
		return app, err
	}
	again, change, err := p.appFor(ctx, app)
	if err != nil {
		return App{}, err
	}
	again.LastConnection = app.LastConnection
	return p.saveApp(ctx, again, max(change, noted))
}

// beaten reports whether another call was first: with the same, with something
// else, or with a deletion.
func beaten(err error) bool {
	return errors.Is(err, ErrExists) || errors.Is(err, ErrChanged) || errors.Is(err, ErrNotFound)
}

// saveConnection stores a connection that connectionFor returned, with its
// token, and reports whether it is new.
func (p *Provisioner) saveConnection(ctx context.Context, found Connection, known bool, app App, token Token) (Connection, bool, error) {
	c := found.withToken(app, token)
	var err error
	if known {
		err = p.Store.SaveToken(ctx, c, token)
	} else {
		c, err = p.Store.CreateConnection(ctx, c, token)
	}
	if err == nil {
		p.refresher().tell(ctx, found, c)
	}
	if !beaten(err) {
		return c, !known, err
	}
	// Another call was first; it may be this very one, repeated.
	stored, still, err := p.connectionFor(ctx, c.ConnectionRef, c.TenantID)
	if err != nil {
		return Connection{}, false, err
	}
	if still {
		return stored, false, nil // with a token as good
	}
	return p.saveConnection(ctx, c, false, app, token)
}

// connectionFor returns the connection as it is stored, or a new one, and
// whether it was known. A name that stands for another tenant is a conflict.
func (p *Provisioner) connectionFor(ctx context.Context, ref ConnectionRef, tenantID string) (Connection, bool, error) {
	c, err := p.Store.Connection(ctx, ref)
	switch {
	case errors.Is(err, ErrNotFound):
		return Connection{ConnectionRef: ref}, false, nil
	case err != nil:
		return Connection{}, false, err
	case c.TenantID != "" && c.TenantID != tenantID:
		return Connection{}, false, &ConflictError{fmt.Sprintf(
			"Connection %q exists for another tenant. Use another connection name, or delete it first.", ref)}
	}
	return c, true, nil
}

// Refresh refreshes a connection now, due or not. Errors: [ErrNotFound],
// [*ConflictError] where its app is gone, [*Error], [*StoreError].
func (p *Provisioner) Refresh(ctx context.Context, ref ConnectionRef) (Connection, error) {
	c, err := p.Store.Connection(ctx, ref)
	if err != nil {
		return Connection{}, err
	}
	if c.TenantID == "" {
		return Connection{}, &ConflictError{fmt.Sprintf("What is stored of connection %q is unreadable. Provision it again with POST /connections.", ref)}
	}
	app, err := p.Store.App(ctx, ref.App)
	if errors.Is(err, ErrNotFound) {
		return Connection{}, &ConflictError{fmt.Sprintf("The connection's app does not exist. Create it again with PUT /apps/%s.", ref.App)}
	}
	if err != nil {
		return Connection{}, err
	}
	return p.refresher().refresh(ctx, app, c)
}

func (p *Provisioner) refresher() refresher {
	ask := func(ctx context.Context, app App, tenantID string) (Token, error) { return p.proof(ctx, app, tenantID) }
	return refresher{store: p.Store, ask: ask, now: p.Now, log: p.Log, changed: p.Changed}
}

// PutApp creates an app or replaces it with all that it holds, and reports
// whether it is new. With connections on it, the app is first proved in one of
// their tenants. Errors: [*Error], [*StoreError].
func (p *Provisioner) PutApp(ctx context.Context, app App) (App, bool, error) {
	described, err := p.Store.DescribeApp(ctx, app.Name)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return App{}, false, err
	}
	if app, err = p.identify(ctx, app); err != nil {
		return App{}, false, err
	}
	app.LastConnection = described.LastConnection
	if err := p.prove(ctx, app); err != nil {
		return App{}, false, err
	}
	for {
		described, err := p.Store.DescribeApp(ctx, app.Name)
		if err == nil {
			app.LastConnection = described.LastConnection // may be newer by now
		}
		stored, err := p.Store.App(ctx, app.Name)
		var unreadable *StoreError
		app.ChangedAt, app.RotatedAt, app.Version = p.Now(), p.Now(), stored.Version
		switch {
		case errors.Is(err, ErrNotFound):
			err = p.Store.CreateApp(ctx, app)
			if err == nil {
				return app, true, nil
			}
		case err != nil && !(errors.As(err, &unreadable) && unreadable.Code == CodeUnreadable):
			return App{}, false, err
		default:
			if err == nil && stored.same(app) {
				// Nothing to rotate to: what was refused is tried again, no more.
				app.RotatedAt = stored.RotatedAt
			}
			err = p.Store.UpdateApp(ctx, app)
		}
		if !beaten(err) {
			return app, false, err
		}
	}
}

// identify finds out as whom a federated app presents itself, so that a person
// can see what to enter in Entra.
func (p *Provisioner) identify(ctx context.Context, app App) (App, error) {
	if app.Credential.Federation == nil {
		return app, nil
	}
	identified, err := p.Entra.Identify(ctx, *app.Credential.Federation)
	app.Credential.Federation = &identified
	return app, err
}

// maxProofs bounds how many tenants are asked to prove an app. More than one,
// since a tenant may refuse for reasons of its own, such as a withdrawn consent.
const maxProofs = 3

// prove is content with one of the app's tenants, the healthiest first.
func (p *Provisioner) prove(ctx context.Context, app App) error {
	connections, err := p.connectionsOf(ctx, app)
	if err != nil {
		return err
	}
	connections = slices.DeleteFunc(connections, func(c Connection) bool { return c.TenantID == "" })
	health := []Status{OK, Retrying, NeedsPerson}
	slices.SortStableFunc(connections, func(a, b Connection) int {
		return slices.Index(health, a.Status()) - slices.Index(health, b.Status())
	})
	var tenants []string
	for _, c := range connections[:min(maxProofs, len(connections))] {
		tenants = append(tenants, c.TenantID)
	}
	if len(tenants) == 0 {
		return nil
	}
	_, err = p.proof(ctx, app, tenants...)
	return err
}

// connectionsOf returns some of the app's connections, healthy ones among them
// if there are any in the first pages. Where none is listed, that may be because
// the last one was just provisioned.
func (p *Provisioner) connectionsOf(ctx context.Context, app App) ([]Connection, error) {
	var found []Connection
	healthy := 0
	cursor := ""
	for range maxPages {
		page, next, err := p.Store.Connections(ctx, app.Name, PageLimit, cursor)
		if err != nil {
			return nil, err
		}
		found = append(found, page...)
		for _, c := range page {
			if c.Status() == OK {
				healthy++
			}
		}
		if cursor = next; cursor == "" || healthy >= maxProofs {
			break
		}
	}
	if len(found) > 0 || app.LastConnection == "" {
		return found, nil
	}
	c, err := p.Store.Connection(ctx, ConnectionRef{App: app.Name, Name: app.LastConnection})
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return []Connection{c}, err
}

// maxPages bounds the search for healthy connections. A page can be short, or
// empty, and not be the last.
const maxPages = 20

// proof gets a token in the first of the tenants that grants one. Refusals that
// pass shortly after a change are met by asking again, as long as there is time:
// the credential, or the consent, may be a minute old.
func (p *Provisioner) proof(ctx context.Context, app App, tenants ...string) (Token, error) {
	for round := 0; ; round++ {
		var first error
		unsettled := false
		for _, tenant := range tenants {
			token, err := p.Entra.Token(ctx, app, tenant)
			if err == nil {
				return token, nil
			}
			var refused *Error
			unsettled = unsettled || errors.As(err, &refused) && refused.Class == Unsettled
			first = cmp.Or(first, err)
		}
		if !unsettled || round == len(settleWaits) || !sleep(ctx, settleWaits[round]) {
			return Token{}, p.whereTenantLives(ctx, app, tenants[0], first)
		}
	}
}

// settleWaits are the pauses between proofs. Secrets have been seen to take 4 to
// 18 seconds until they are known everywhere.
var settleWaits = []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second}

// sleep waits unless the context would not leave time for another try after it.
func sleep(ctx context.Context, d time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < d+answerTime {
		return false
	}
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// answerTime is what a token request takes, with much to spare.
const answerTime = 3 * time.Second

// whereTenantLives turns a refusal of the tenant into one that names the cloud
// that the tenant is in, if its OpenID configuration tells.
func (p *Provisioner) whereTenantLives(ctx context.Context, app App, tenant string, err error) error {
	var refused, elsewhere *Error
	if errors.As(err, &refused) && isOneOf(refused.Code, otherCloudCodes) {
		if _, err := p.Entra.lookUp(ctx, app.Cloud, tenant); errors.As(err, &elsewhere) && elsewhere.TenantCloud != "" {
			refused.TenantCloud, refused.ConsentURL = elsewhere.TenantCloud, "" // no consent helps there
		}
	}
	return err
}

// DeleteApp deletes an app that no connection uses. Errors: [ErrNotFound],
// [*ConflictError], [*StoreError].
func (p *Provisioner) DeleteApp(ctx context.Context, name string) error {
	app, err := p.Store.DescribeApp(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return p.Store.DeleteApp(ctx, name) // which finishes what was interrupted
	}
	if err != nil {
		return err
	}
	used, err := p.inUse(ctx, app)
	if err != nil {
		return err
	}
	if used {
		return &ConflictError{fmt.Sprintf("Connections use app %q. Delete them first.", name)}
	}
	return p.Store.DeleteApp(ctx, name)
}

// inUse looks at each connection itself: the listing may not show the last one
// yet, and may still show what has just been deleted.
func (p *Provisioner) inUse(ctx context.Context, app App) (bool, error) {
	exists := func(name string) (bool, error) {
		_, err := p.Store.Connection(ctx, ConnectionRef{App: app.Name, Name: name})
		if errors.Is(err, ErrNotFound) {
			return false, nil
		}
		return err == nil, err
	}
	if app.LastConnection != "" {
		if used, err := exists(app.LastConnection); used || err != nil {
			return used, err
		}
	}
	for cursor := ""; ; {
		page, next, err := p.Store.Connections(ctx, app.Name, PageLimit, cursor)
		if err != nil {
			return false, err
		}
		for _, c := range page {
			if used, err := exists(c.Name); used || err != nil {
				return used, err
			}
		}
		if cursor = next; cursor == "" {
			return false, nil
		}
	}
}
