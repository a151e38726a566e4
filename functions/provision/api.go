package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"entra-connector/internal/connector"
	"entra-connector/internal/setup"
	"entra-connector/internal/signals"
)

// replyTime leaves room in the 25 s within which every reply is out: a second to mend what was cut
// off.
const replyTime = 23500 * time.Millisecond

// api answers the HTTP API's requests. Routing is net/http's, so that methods and paths follow HTTP
// without rules of our own.
type api struct {
	store       connector.Store
	provisioner *connector.Provisioner
	refresher   *connector.Refresher
	apps        *connector.Apps
	events      *signals.Events
	invites     bool   // whether there is a page for customers
	pageURL     string // where it is; empty: where the request came to
	now         func() time.Time
	log         *slog.Logger
	mux         *http.ServeMux
}

func newAPI(s *setup.Setup) *api {
	prover := connector.Prover{Entra: s.Entra}
	a := &api{
		store:       s.Store,
		provisioner: &connector.Provisioner{Store: s.Store, Prover: prover, Now: time.Now, Changed: s.Events.Changed},
		refresher:   &connector.Refresher{Store: s.Store, Prover: prover, Now: time.Now, Log: s.Log, Changed: s.Events.Changed},
		apps:        &connector.Apps{Store: s.Store, Prover: prover, Now: time.Now},
		events:      s.Events,
		invites:     s.ConnectPage,
		pageURL:     s.ConnectURL,
		now:         time.Now,
		log:         s.Log,
		mux:         http.NewServeMux(),
	}
	for pattern, e := range map[string]endpoint{
		"POST /connections":                               a.provision,
		"GET /connections":                                a.listConnections,
		"GET /connections/{app}/{connection}":             onConnection(a.getConnection),
		"POST /connections/{app}/{connection}/refresh":    onConnection(a.refreshConnection),
		"DELETE /connections/{app}/{connection}":          onConnection(a.deleteConnection),
		"POST /connections/{app}/{connection}/invitation": a.invite,

		"PUT /apps/{app}":    a.putApp,
		"GET /apps":          a.listApps,
		"GET /apps/{app}":    onApp(a.getApp),
		"DELETE /apps/{app}": onApp(a.deleteApp),
	} {
		a.mux.Handle(pattern, e)
	}
	return a
}

func (a *api) handle(ctx context.Context, event events.APIGatewayV2HTTPRequest) (events.APIGatewayV2HTTPResponse, error) {
	start := time.Now()
	deadline := start.Add(replyTime)
	if end, ok := ctx.Deadline(); ok && end.Add(-time.Second).Before(deadline) {
		deadline = end.Add(-time.Second)
	}
	work, cancel := context.WithDeadline(connector.WithCalls(ctx), deadline)
	defer cancel()

	w := &response{header: make(http.Header)}
	route := ""
	if r, err := request(work, event); err != nil {
		writeProblem(w, err)
	} else {
		r.Host = event.RequestContext.DomainName
		a.mux.ServeHTTP(w, r)
		if route = r.Pattern; route == "" {
			w = unrouted(w)
		}
	}
	a.events.Flush(work)
	a.log.InfoContext(ctx, "request", "route", route, "status", w.status, "caller", caller(event),
		"duration_ms", time.Since(start).Milliseconds())
	if w.cause != nil && w.status >= http.StatusUnprocessableEntity {
		a.log.WarnContext(ctx, "request failed", "route", route, "status", w.status, "error", w.cause.Error())
	}
	return w.event(), nil
}

// unrouted replaces net/http's own text for an unknown path or method. For a method, Allow stays.
func unrouted(w *response) *response {
	replaced := &response{header: make(http.Header)}
	if w.status == http.StatusMethodNotAllowed {
		replaced.header.Set("Allow", w.header.Get("Allow"))
		writeProblem(replaced, errMethod)
	} else {
		writeProblem(replaced, errNoRoute)
	}
	return replaced
}

// endpoint answers a route: with what to send as JSON (nil for no body), or with an error that
// becomes a problem document. What it has created is at the header Location.
type endpoint func(w http.ResponseWriter, r *http.Request) (any, error)

func (e endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := e(w, r)
	switch {
	case err != nil:
		writeProblem(w.(*response), err)
	case body == nil:
		w.WriteHeader(http.StatusNoContent)
	case w.Header().Get("Location") != "":
		writeJSON(w, "application/json", http.StatusCreated, body)
	default:
		writeJSON(w, "application/json", http.StatusOK, body)
	}
}

func writeJSON(w http.ResponseWriter, mediaType string, status int, body any) {
	w.Header().Set("Content-Type", mediaType)
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(body) // strings and numbers, to a caller who may have gone
}

// onConnection is the endpoint of a route that names a connection.
func onConnection(answer func(context.Context, connector.ConnectionRef) (any, error)) endpoint {
	return func(_ http.ResponseWriter, r *http.Request) (any, error) {
		ref := connector.ConnectionRef{App: r.PathValue("app"), Name: r.PathValue("connection")}
		var bad connector.InvalidError
		bad.Add("app", connector.CheckName(ref.App))
		bad.Add("connection", connector.CheckName(ref.Name))
		if err := bad.Err(); err != nil {
			return nil, err
		}
		body, err := answer(r.Context(), ref)
		return body, absent("connection", ref.String(), err)
	}
}

// onApp is the endpoint of a route that names an app.
func onApp(answer func(context.Context, string) (any, error)) endpoint {
	return func(_ http.ResponseWriter, r *http.Request) (any, error) {
		name := r.PathValue("app")
		var bad connector.InvalidError
		bad.Add("app", connector.CheckName(name))
		if err := bad.Err(); err != nil {
			return nil, err
		}
		body, err := answer(r.Context(), name)
		return body, absent("app", name, err)
	}
}

func (a *api) provision(w http.ResponseWriter, r *http.Request) (any, error) {
	fields := connector.ProvisionFields{App: "default"}
	bad, err := readFields(r, provisioning(&fields))
	if err != nil {
		return nil, err
	}
	if fields.AppFields != nil {
		fields.AppFields.ScopeFields = fields.ScopeFields
	}
	request, err := connector.ParseProvisioning(fields, a.now())
	if err := join(bad, err); err != nil {
		return nil, err
	}
	c, created, err := a.provisioner.Provision(r.Context(), request)
	if created && err == nil {
		w.Header().Set("Location", "/connections/"+c.String())
	}
	return viewConnection(c, a.now()), err
}

func (a *api) listConnections(_ http.ResponseWriter, r *http.Request) (any, error) {
	query, err := readListQuery(r)
	if err != nil {
		return nil, err
	}
	connections, next, err := a.store.Connections(r.Context(), query.app, query.limit, query.cursor)
	views := make([]connectionView, len(connections))
	for i, c := range connections {
		views[i] = viewConnection(c, a.now())
	}
	return connectionsView{views, next}, err
}

func (a *api) getConnection(ctx context.Context, ref connector.ConnectionRef) (any, error) {
	c, err := a.store.Connection(ctx, ref)
	return viewConnection(c, a.now()), err
}

func (a *api) refreshConnection(ctx context.Context, ref connector.ConnectionRef) (any, error) {
	c, err := a.refresher.Refresh(ctx, ref)
	return viewConnection(c, a.now()), err
}

func (a *api) deleteConnection(ctx context.Context, ref connector.ConnectionRef) (any, error) {
	return nil, a.store.DeleteConnection(ctx, ref)
}

func (a *api) invite(w http.ResponseWriter, r *http.Request) (any, error) {
	if !a.invites {
		return nil, errNoPage
	}
	var fields connector.InvitingFields
	bad, err := readFields(r, inviting(&fields))
	if err != nil {
		return nil, err
	}
	ref := connector.ConnectionRef{App: r.PathValue("app"), Name: r.PathValue("connection")}
	request, err := connector.ParseInviting(ref, fields)
	if err := join(bad, err); err != nil {
		return nil, err
	}
	link, invitation, isNew, err := a.provisioner.Invite(r.Context(), request)
	if isNew && err == nil {
		w.Header().Set("Location", "/connections/"+ref.String())
	}
	base := a.pageURL
	if base == "" {
		base = "https://" + r.Host
	}
	return invitationView{base + "/connect/" + link.Reveal(), invitation.ExpiresAt}, err
}

func (a *api) putApp(w http.ResponseWriter, r *http.Request) (any, error) {
	var fields connector.AppFields
	bad, err := readFields(r, wholeApp(&fields))
	if err != nil {
		return nil, err
	}
	request, err := connector.ParseAppRequest(r.PathValue("app"), fields, a.now())
	if err := join(bad, err); err != nil {
		return nil, err
	}
	app, created, err := a.apps.Put(r.Context(), request)
	if created && err == nil {
		w.Header().Set("Location", "/apps/"+app.Name)
	}
	return viewApp(app, a.now()), err
}

func (a *api) listApps(_ http.ResponseWriter, r *http.Request) (any, error) {
	apps, err := a.store.Apps(r.Context())
	views := make([]appView, len(apps))
	for i, app := range apps {
		views[i] = viewApp(app, a.now())
	}
	return map[string][]appView{"apps": views}, err
}

func (a *api) getApp(ctx context.Context, name string) (any, error) {
	use, err := a.store.LookAtApp(ctx, name)
	return viewApp(use.App, a.now()), err
}

func (a *api) deleteApp(ctx context.Context, name string) (any, error) {
	return nil, a.apps.Delete(ctx, name)
}
