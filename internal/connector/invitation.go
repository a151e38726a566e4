package connector

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"regexp"
	"sync"
	"time"

	"entra-connector/pkg/entra"
)

// StatusInvited: an administrator of the customer has a link, and no tenant is connected yet.
const StatusInvited Status = "invited"

// Invitation lets whoever has its link connect a tenant. The link itself is not stored.
type Invitation struct {
	TenantID   string // the only tenant that may connect; empty: any
	ExpiresAt  time.Time
	OpenedAt   time.Time // when somebody first looked at its page
	SignedInAt time.Time // when somebody who may connect last signed in
}

// Link is the secret of an invitation, with the connection that it is for.
type Link struct {
	ConnectionRef
	secret string
}

// A link is app~connection~secret. No name has a tilde in it, and no character needs an escape in a
// URL.
var linkPattern = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^([a-z0-9._-]{1,64})~([a-z0-9._-]{1,64})~([A-Z2-7]{26})$`)
})

// ParseLink reports whether a text has the form of a link.
func ParseLink(s string) (Link, bool) {
	m := linkPattern().FindStringSubmatch(s)
	if m == nil || CheckName(m[1]) != nil || CheckName(m[2]) != nil {
		return Link{}, false
	}
	return Link{ConnectionRef{m[1], m[2]}, m[3]}, true
}

// Reveal returns the link's text. Every call is a place where it leaves the program.
func (l Link) Reveal() string { return l.App + "~" + l.Name + "~" + l.secret }

// Hash is what is stored of the link.
func (l Link) Hash() string {
	sum := sha256.Sum256([]byte(l.Reveal()))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Opens reports whether the link is the one with the hash.
func (l Link) Opens(hash string) bool {
	return subtle.ConstantTimeCompare([]byte(l.Hash()), []byte(hash)) == 1
}

// Guest is an invitation as its page sees it.
type Guest struct {
	ConnectionRef
	Invitation
	Scope  string
	State  GuestState
	Tenant string // which is connected, once State is Accepted
	// SignIns are the tenants that people have proved to come from, by the ID that the page gave
	// each sign-in.
	SignIns map[string]SignIn
}

// SignIn is one verified sign-in.
type SignIn struct {
	TenantID string
	At       time.Time
}

// GuestState is what can still become of an invitation.
type GuestState int

const (
	Open     GuestState = iota // can be accepted
	Expired                    // can be replaced by the operator
	Revoked                    // the operator has deleted the connection
	Accepted                   // a tenant is connected
)

// ConnectStore is the part of a store that the customer's page needs. It creates and deletes
// nothing, changes no app, and reads no token.
type ConnectStore interface {
	App(ctx context.Context, name string) (App, error)
	LookAtApp(ctx context.Context, name string) (AppUse, error)
	// Invited returns the invitation of a link. It fails with ErrNotFound for one that was never
	// issued, or that a newer one has replaced.
	Invited(ctx context.Context, link Link) (Guest, error)
	// NoteOpened, NoteSignIn and NoteRefusal record what has happened, if the link still opens its
	// invitation. They fail with ErrNotFound if it does not.
	NoteOpened(ctx context.Context, link Link) error
	NoteSignIn(ctx context.Context, link Link, id, tenantID string) error
	NoteRefusal(ctx context.Context, link Link, code string) error
	// Accept stores the first token of an invited connection. It fails with ErrExists if the link
	// does not open its invitation any more, or if others are at work on it. It asks allowed once
	// nobody can come between any more, and gives up if that fails.
	Accept(ctx context.Context, link Link, c Connection, token entra.Token, allowed func(context.Context) error) (Connection, error)
}

// Inviting is a valid request for an invitation; see [ParseInviting].
type Inviting struct {
	ref    ConnectionRef
	tenant string // GUID or domain, or empty
	scope  ScopeFields
	days   int
}

// InvitingFields is what a caller says about an invitation. Zero means absent.
type InvitingFields struct {
	TenantID      string
	ExpiresInDays int
	ScopeFields
}

const (
	// DefaultDays is for how many days an invitation is good unless somebody says so.
	DefaultDays = 7
	maxDays     = 30
)

// ParseInviting returns the request that the fields describe, or an [*InvalidError] with everything
// that is wrong.
func ParseInviting(ref ConnectionRef, f InvitingFields) (Inviting, error) {
	var bad InvalidError
	bad.Add("app", CheckName(ref.App))
	bad.Add("connection", CheckName(ref.Name))
	r := Inviting{ref: ref, scope: f.ScopeFields, days: cmp.Or(f.ExpiresInDays, DefaultDays)}
	if f.TenantID != "" {
		var err error
		r.tenant, err = entra.ParseTenant(f.TenantID)
		bad.Add("tenant_id", err)
	}
	if r.days < 1 || r.days > maxDays {
		bad.Add("expires_in_days", errors.New("must be a whole number from 1 to 30"))
	}
	checkScope(&bad, r.scope, "")
	return r, bad.Err()
}

// Invite makes a connection wait for its tenant, and returns the link for an administrator of the
// customer. It reports whether the connection is new; otherwise the link replaces an earlier one.
// Errors: [ErrNotFound] for an app that does not exist, [*ConflictError], [*InvalidError],
// [*entra.Error], [*StoreError].
func (p *Provisioner) Invite(ctx context.Context, req Inviting) (link Link, inv Invitation, isNew bool, err error) {
	link = Link{req.ref, rand.Text()}
	err = Retry(ctx, func() (beaten bool, err error) {
		inv, isNew, err = p.invite(ctx, req, link)
		return errors.Is(err, errAppChanged) || errors.Is(err, ErrExists) || atWork(err), err
	})
	return link, inv, isNew, err
}

func (p *Provisioner) invite(ctx context.Context, req Inviting, link Link) (inv Invitation, isNew bool, err error) {
	use, err := p.Store.LookAtApp(ctx, req.ref.App)
	if errors.Is(err, ErrNotFound) {
		return inv, false, &AppNotFoundError{req.ref.App}
	}
	if err != nil {
		return inv, false, err
	}
	inv.ExpiresAt = p.Now().AddDate(0, 0, req.days).UTC().Truncate(time.Second)
	if req.tenant != "" {
		if inv.TenantID, err = p.Prover.ResolveTenant(ctx, use.Cloud, req.tenant); err != nil {
			return inv, false, err
		}
	}
	scope, err := req.scope.in(use.Cloud)
	if err != nil {
		return inv, false, err
	}
	if scope = cmp.Or(scope, use.Scope); scope == "" {
		return inv, false, &InvalidError{[]FieldError{{"scope", "is required, or service: the app has none"}}}
	}
	found, err := p.Store.Connection(ctx, req.ref)
	switch {
	case err == nil && found.Blocked:
		return inv, false, &ConflictError{Reason: InTheWay, Secret: found.SecretName, Advice: found.Failure.Advice}
	case err == nil && found.TenantID != "":
		return inv, false, &ConflictError{Reason: Connected, App: req.ref.App, Connection: req.ref.Name}
	case err != nil && !errors.Is(err, ErrNotFound):
		return inv, false, err
	}
	isNew = found.Invitation == nil
	if isNew {
		if err := p.announce(ctx, usedApp{App: use.App, use: use}, found); err != nil {
			return inv, false, err
		}
	}
	c := Connection{ConnectionRef: req.ref, Scope: scope, Invitation: &inv, Version: found.Version}
	return inv, isNew, p.Store.Invite(ctx, c, link)
}

// Host receives the administrators who come with a link.
type Host struct {
	Store ConnectStore
	Entra *entra.Client
	Now   func() time.Time
}

// Accept connects the tenant of somebody who has signed in. It asks Entra once, and stores nothing
// unless the token carries permissions where the service goes by them. The caller must have
// verified the tenant. Errors: [*entra.Error], [ErrExists] for an invitation that is not open any
// more, [ErrNotFound], [*StoreError].
func (h *Host) Accept(ctx context.Context, link Link, guest Guest, tenantID string) (Connection, error) {
	app, err := h.Store.App(ctx, guest.App)
	if err != nil {
		return Connection{}, err
	}
	token, err := h.Entra.Token(ctx, app.Registration, guest.Scope, tenantID)
	switch {
	case err != nil:
		return Connection{}, err
	case entra.GrantsByRoles(guest.Scope) && token.HasNoRoles():
		return Connection{}, &entra.Error{Class: entra.Unsettled, Code: WarnNoRoles, Advice: own[WarnNoRoles]}
	case token.Lifetime() < minLifetime:
		return Connection{}, refusal(CodeShortLived)
	}
	c := Connection{ConnectionRef: guest.ConnectionRef, TenantID: tenantID, Scope: guest.Scope}.withToken(app, token)
	return h.Store.Accept(ctx, link, c, token, func(ctx context.Context) error {
		// Whoever replaces the app holds it, and then looks for connections that are about to be
		// made.
		use, err := h.Store.LookAtApp(ctx, app.Name)
		switch {
		case err != nil:
			return err
		case use.Held, use.Version != app.Version: // then what was proved is another app
			return AtWork("TagResource", app.Name, holdTime)
		}
		return nil
	})
}

// NeedsConsent reports whether an administrator's consent may be all that is missing. It may also
// have been given already, and not be known everywhere.
func NeedsConsent(err error) bool {
	var refused *entra.Error
	return errors.As(err, &refused) && (refused.ConsentURL != "" || refused.Code == WarnNoRoles)
}

// Passes reports whether the same may work in a moment.
func Passes(err error) bool {
	var refused *entra.Error
	if errors.As(err, &refused) {
		return refused.Class != entra.Refused && refused.Class != entra.Malformed
	}
	var failed *StoreError
	return errors.As(err, &failed) && failed.Temporary
}

// Codes of refusals on the customer's page.
const (
	CodeDeclined     = "consent_declined"
	CodeNotAdmin     = "not_an_administrator"
	CodeOtherTenant  = "other_tenant"
	CodePersonal     = "personal_account"
	CodeGuest        = "guest_account"
	CodeNoWids       = "wids_missing"
	CodeDeviceFilter = "AADSTS50097"
	CodeNotSpread    = "consent_not_spread"
	CodeTampered     = "answer_tampered"
	CodeLinkExpired  = "invitation_expired"
	CodeSignInFailed = "sign_in_failed"
	CodeUnverified   = "id_token_invalid"
)

// expired adds to an invited connection that its link is good for nothing any more.
func (c Connection) expired(now time.Time) Connection {
	if at := c.Invitation.ExpiresAt; !now.Before(at) {
		c.Failure = &Failure{Status: StatusInvited, Code: CodeLinkExpired, Advice: own[CodeLinkExpired], At: at}
	}
	return c
}

// CleanCode returns a code that came from outside, if it has the form of one of Entra's.
func CleanCode(oauthError, description string) string {
	if m := codePattern().FindString(description); m != "" {
		return m
	}
	if wordPattern().MatchString(oauthError) {
		return oauthError
	}
	return CodeSignInFailed
}

var (
	codePattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^AADSTS\d{4,9}\b`) })
	wordPattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z_]{1,40}$`) })
)
