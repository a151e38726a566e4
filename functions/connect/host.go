package main

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"entra-connector/internal/connector"
	"entra-connector/internal/setup"
	"entra-connector/internal/signals"
	"entra-connector/pkg/entra"
)

const (
	// replyTime leaves room in the 25 s within which every reply is out.
	replyTime = 24 * time.Second
	// patience is how long a consent may take to be known everywhere. Microsoft documents no limit;
	// seconds to ten minutes have been seen.
	patience = 15 * time.Minute
)

// host answers the requests of browsers.
type host struct {
	config
	url      string // where the page is, without /connect; empty: where the request came to
	store    connector.ConnectStore
	entra    *entra.Client
	accepter *connector.Host
	verifier verifier
	csrf     *http.CrossOriginProtection
	events   *signals.Events
	metrics  signals.Metrics
	log      *slog.Logger
	now      func() time.Time
}

func newHost(s *setup.Setup, lookup func(string) (string, bool)) (*host, error) {
	cfg, err := readConfig(lookup)
	return &host{
		config: cfg, url: s.ConnectURL, store: s.Store, entra: s.Entra,
		accepter: &connector.Host{Store: s.Store, Entra: s.Entra, Now: time.Now},
		verifier: verifier{s.Entra, time.Now, &http.Client{Timeout: entra.RequestTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}},
		csrf:   http.NewCrossOriginProtection(),
		events: s.Events, metrics: s.Metrics, log: s.Log, now: time.Now,
	}, err
}

// visit is one request.
type visit struct {
	*host
	w     *response
	r     *http.Request
	base  string // of the page's URLs
	link  connector.Link
	guest connector.Guest
	pass  pass
	code  string // for the log: how it ended, if it did
	// returning is set for an answer of Microsoft, whose address must not stay in the browser.
	returning bool
}

func (h *host) handle(ctx context.Context, event events.APIGatewayV2HTTPRequest) (events.APIGatewayV2HTTPResponse, error) {
	start := time.Now()
	work, cancel := context.WithDeadline(connector.WithCalls(ctx), start.Add(replyTime))
	defer cancel()
	v := &visit{host: h, w: &response{header: make(http.Header)}, r: request(work, event), base: h.url}
	if v.base == "" {
		v.base = "https://" + event.RequestContext.DomainName
	}
	// Only the route that API Gateway chose counts, since that is what it throttles and authorises.
	switch event.RouteKey {
	case "GET /connect/{invitation}":
		v.look(event.PathParameters["invitation"])
	case "POST /connect/{invitation}":
		v.goOn(event.PathParameters["invitation"])
	case "GET /connect/callback":
		v.comeBack()
	default:
		v.page(noLink)
	}
	h.events.Flush(work)
	attributes := []any{"route", event.RouteKey, "status", v.w.status, "duration_ms", time.Since(start).Milliseconds()}
	if v.guest.App != "" {
		attributes = append(attributes, "connection", v.guest.String())
	}
	if v.code != "" {
		attributes = append(attributes, "code", v.code)
	}
	h.log.InfoContext(ctx, "request", attributes...)
	return v.w.event(), nil
}

// enter finds the invitation of a link. Where that is not open, it answers and returns false.
func (v *visit) enter(text string) bool {
	link, ok := connector.ParseLink(text)
	if !ok {
		v.page(noLink)
		return false
	}
	guest, err := v.store.Invited(v.r.Context(), link)
	switch {
	case errors.Is(err, connector.ErrNotFound):
		v.page(noLink)
		return false
	case err != nil:
		v.trouble(err)
		return false
	}
	v.link, v.guest, v.pass = link, guest, passFor(v.r, link)
	switch {
	case guest.State == connector.Accepted && v.pass.Tenant == guest.Tenant: // also where the first answer was lost
		v.page(done)
	case guest.State == connector.Accepted:
		v.page(used)
	case guest.State == connector.Revoked:
		v.page(revoked)
	case guest.State == connector.Expired:
		v.page(expired)
	default:
		return true
	}
	return false
}

// look shows where somebody stands. Nothing is spent by looking, since programs look at mail.
func (v *visit) look(text string) {
	switch text { // where comeBack sends those whose invitation it does not know
	case string(elsewhere), string(lost), string(altered):
		v.page(end(text))
		return
	}
	if !v.enter(text) {
		return
	}
	if v.guest.OpenedAt.IsZero() {
		v.metrics.Connect(v.r.Context(), signals.InvitationsOpened)
		if err := v.store.NoteOpened(v.r.Context(), v.link); err != nil {
			v.logError("not noted", err)
		}
	}
	_, known := v.signIn()
	switch {
	case v.pass.End == string(busy), v.pass.End == string(broken): // which is over when somebody comes again
		page := end(v.pass.End)
		v.pass = pass{Link: v.pass.Link}
		v.pass.set(v.w)
		v.page(page)
	case v.pass.End != "":
		v.page(endOf(v.pass.End))
	case known && v.pass.Step == approved:
		v.accept(true)
	case known && v.pass.Step != begun:
		v.page(confirm)
	default:
		v.page(welcome)
	}
}

// signIn returns the verified sign-in of this browser.
func (v *visit) signIn() (connector.SignIn, bool) {
	if v.pass.Key == "" {
		return connector.SignIn{}, false
	}
	signIn, ok := v.guest.SignIns[v.pass.signInID()]
	return signIn, ok
}

// goOn takes the next step that somebody chose.
func (v *visit) goOn(text string) {
	if v.csrf.Check(v.r) != nil {
		v.page(altered)
		return
	}
	if !v.enter(text) {
		return
	}
	app, err := v.store.App(v.r.Context(), v.guest.App)
	if err != nil {
		v.trouble(err)
		return
	}
	_, known := v.signIn()
	switch chosen := v.r.PostForm.Get("step"); {
	case chosen == "connect" && known:
		v.accept(false)
	case chosen == "check" && known:
		v.pass.Step, v.pass.End, v.pass.Since = approved, "", v.now().Unix()
		v.again()
	default:
		v.pass = pass{Link: v.link.Reveal(), ClientID: app.ClientID}.next(begun)
		v.leave(v.entra.SignInURL(app.Registration, v.callback(), v.pass.derive(forState), v.pass.derive(forNonce), v.pass.derive(forVerifier)))
	}
}

// comeBack takes Microsoft's answers. It always redirects, so that no code stays in the browser's
// history.
func (v *visit) comeBack() {
	v.returning = true
	answer, err := url.ParseQuery(v.r.URL.RawQuery)
	v.pass = passOf(v.r)
	link, ok := connector.ParseLink(v.pass.Link)
	switch {
	case err != nil, !single(answer):
		v.redirect(string(altered))
		return
	case !answer.Has("state") && answer.Get("admin_consent") != "" && !answer.Has("error"):
		v.redirect(string(elsewhere)) // from the portal's own button
		return
	case !ok || !answer.Has("state"):
		v.redirect(string(lost))
		return
	case !v.pass.expects(answer.Get("state")):
		// The cookie stays as it is: anybody can make a browser come here.
		v.redirect(string(altered))
		return
	}
	if v.guest, err = v.store.Invited(v.r.Context(), link); err != nil || v.guest.State != connector.Open {
		v.again() // which says why
		return
	}
	v.link = link
	if v.pass.Step == begun {
		v.afterSignIn(answer)
	} else {
		v.afterConsent(answer)
	}
}

// single reports whether each parameter stands once.
func single(answer url.Values) bool {
	for _, values := range answer {
		if len(values) != 1 {
			return false
		}
	}
	return true
}

func (v *visit) afterSignIn(answer url.Values) {
	if answer.Has("error") {
		v.endWith(refusedBy(answer))
		return
	}
	ctx := v.r.Context()
	app, err := v.store.App(ctx, v.guest.App)
	if err != nil {
		v.trouble(err)
		return
	}
	token, err := v.entra.RedeemCode(ctx, app.Registration, v.callback(), answer.Get("code"), v.pass.derive(forVerifier))
	if err != nil {
		var refused *entra.Error
		if errors.As(err, &refused) {
			v.endWith(refused.Code)
		} else {
			v.trouble(err)
		}
		return
	}
	id, err := v.verifier.verify(ctx, app.Registration, token, v.pass.derive(forNonce))
	switch {
	case errors.Is(err, errPersonal):
		v.endWith(connector.CodePersonal)
		return
	case errors.Is(err, errToken):
		v.endWith(connector.CodeUnverified)
		return
	case err != nil:
		v.trouble(err)
		return
	}
	v.pass.Account, v.pass.Tenant = shorten(id.Account), id.TenantID
	if code := id.refusal(v.guest); code != "" {
		v.endWith(code)
		return
	}
	// A new key, so that whoever knew the old one has not signed in.
	v.pass = v.pass.next(signedIn)
	if err := v.store.NoteSignIn(ctx, v.link, v.pass.signInID(), id.TenantID); err != nil {
		v.trouble(err)
		return
	}
	v.metrics.Connect(ctx, signals.SignedIn)
	v.again()
}

// afterConsent believes nothing: the answer only says that it is time to look.
func (v *visit) afterConsent(answer url.Values) {
	signIn, known := v.signIn()
	switch {
	case answer.Has("error"):
		v.failWith(refusedBy(answer))
		return
	case !known:
		v.pass = pass{Link: v.pass.Link} // it took too long
		v.again()
		return
	case answer.Has("tenant") && !strings.EqualFold(answer.Get("tenant"), signIn.TenantID):
		v.failWith(connector.CodeTampered)
		return
	}
	v.pass.Step, v.pass.Since = approved, v.now().Unix()
	v.again()
}

// refusedBy returns the code of an error of Microsoft's pages. access_denied alone does not mean
// that somebody declined; see MicrosoftDocs/azure-docs issues 114009 and 41053.
func refusedBy(answer url.Values) string {
	code := connector.CleanCode(answer.Get("error"), answer.Get("error_description"))
	if code == "AADSTS65004" || code == "access_denied" || answer.Get("error_subcode") == "cancel" {
		return connector.CodeDeclined
	}
	return code
}

// accept tries to connect the tenant. Before the consent it sends on to Microsoft if that is what
// is missing. After it, it asks for patience.
func (v *visit) accept(consented bool) {
	ctx := v.r.Context()
	signIn, _ := v.signIn()
	c, err := v.accepter.Accept(ctx, v.link, v.guest, signIn.TenantID)
	switch {
	case err == nil:
		v.metrics.Connect(ctx, signals.Connected)
		v.events.Connected(ctx, c)
		v.log.InfoContext(ctx, "connected", "connection", c.String(), "tenant_id", c.TenantID)
		v.pass = pass{Link: v.pass.Link, Step: connected, Account: v.pass.Account, Tenant: c.TenantID, ClientID: v.pass.ClientID}
		v.pass.set(v.w)
		if consented {
			v.page(done)
		} else {
			v.again()
		}
	case errors.Is(err, connector.ErrExists), errors.Is(err, connector.ErrNotFound):
		v.again()
	case !consented && connector.NeedsConsent(err):
		app, err := v.store.App(ctx, v.guest.App)
		if err != nil {
			v.trouble(err)
			return
		}
		v.pass.Step, v.pass.End, v.pass.Round = consent, "", rand.Text()
		v.leave(v.entra.AdminConsentURL(app.Registration, signIn.TenantID, v.guest.Scope, v.callback(), v.pass.derive(forConsent+v.pass.Round)))
	case !connector.NeedsConsent(err) && !connector.Passes(err):
		var refused *entra.Error
		if !errors.As(err, &refused) {
			v.trouble(err)
			return
		}
		v.failWith(refused.Code)
	case !consented:
		v.trouble(err)
	case v.now().Sub(time.Unix(v.pass.Since, 0)) > patience:
		v.failWith(connector.CodeNotSpread)
	default:
		v.page(spreading)
	}
}

// endWith ends the way. The next one begins with a new sign-in.
func (v *visit) endWith(code string) {
	v.pass = v.pass.ended(code)
	v.refuse(code)
}

// failWith ends the way as far as it went: the sign-in still counts.
func (v *visit) failWith(code string) {
	v.pass.Step, v.pass.End = signedIn, code
	v.refuse(code)
}

func (v *visit) refuse(code string) {
	ctx := v.r.Context()
	v.code = code
	v.metrics.Connect(ctx, signals.ConnectRefused)
	if err := v.store.NoteRefusal(ctx, v.link, code); err != nil {
		v.logError("not noted", err)
	}
	v.again()
}

// again shows the page of the invitation, as the cookie now says.
func (v *visit) again() {
	v.pass.set(v.w)
	v.redirect(v.pass.Link)
}

// leave sends the browser to Microsoft.
func (v *visit) leave(to string) {
	v.pass.set(v.w)
	v.redirectTo(to)
}

// redirect goes to another page below /connect. A relative address holds below any base path.
func (v *visit) redirect(page string) { v.redirectTo("./" + page) }

func (v *visit) redirectTo(address string) {
	v.headers()
	v.w.Header().Set("Location", address)
	v.w.WriteHeader(http.StatusSeeOther)
}

func (v *visit) callback() string { return v.base + "/connect/callback" }

// trouble answers what only passes, or only the operator can mend.
func (v *visit) trouble(err error) {
	v.logError("request failed", err)
	page := broken
	if connector.Passes(err) || errors.Is(err, context.DeadlineExceeded) {
		page = busy
	}
	if v.returning {
		v.pass = v.pass.ended(string(page))
		v.again()
		return
	}
	v.page(page)
}

func (v *visit) logError(message string, err error) {
	v.log.WarnContext(v.r.Context(), message, "error", err.Error())
}

// shorten cuts a name that comes from outside, so that the cookie stays one.
func shorten(s string) string {
	const most = 100
	if runes := []rune(s); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return s
}
