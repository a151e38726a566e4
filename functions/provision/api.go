package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"entra-connector/internal/connector"
	"entra-connector/internal/setup"
	"entra-connector/internal/signals"
)

// replyTime leaves room in the 25 s within which every reply is out.
const replyTime = 24 * time.Second

// api answers the HTTP API's requests. Routing is net/http's, so that methods and paths follow HTTP
// without rules of our own.
type api struct {
	store       connector.Store
	provisioner *connector.Provisioner
	refresher   *connector.Refresher
	apps        *connector.Apps
	events      *signals.Events
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
		now:         time.Now,
		log:         s.Log,
		mux:         http.NewServeMux(),
	}
	for pattern, e := range map[string]endpoint{
		"POST /connections":                            a.provision,
		"GET /connections":                             a.listConnections,
		"GET /connections/{app}/{connection}":          a.getConnection,
		"POST /connections/{app}/{connection}/refresh": a.refreshConnection,
		"DELETE /connections/{app}/{connection}":       a.deleteConnection,
		"PUT /apps/{app}":                              a.putApp,
		"GET /apps":                                    a.listApps,
		"GET /apps/{app}":                              a.getApp,
		"DELETE /apps/{app}":                           a.deleteApp,
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

// endpoint answers a route: with a status and what to send as JSON (nil for no body), or with an error
// that becomes a problem document.
type endpoint func(w http.ResponseWriter, r *http.Request) (int, any, error)

func (e endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status, body, err := e(w, r)
	switch {
	case err != nil:
		writeProblem(w.(*response), err)
	case body == nil:
		w.WriteHeader(status)
	default:
		writeJSON(w, "application/json", status, body)
	}
}

func writeJSON(w http.ResponseWriter, mediaType string, status int, body any) {
	w.Header().Set("Content-Type", mediaType)
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(body) // the caller has gone
}

func (a *api) view(c connector.Connection) connectionView { return viewConnection(c.Seen(a.now())) }

func (a *api) provision(w http.ResponseWriter, r *http.Request) (int, any, error) {
	fields, bad, err := readFields(r, slices.Concat(appFields, scopeFields, []string{"tenant_id", "app", "connection"})...)
	if err != nil {
		return 0, nil, err
	}
	given := connector.ProvisionFields{
		TenantID:   fields["tenant_id"],
		App:        "default",
		Connection: fields["connection"],
		AppFields:  appFieldsOf(fields),

		ScopeFields: scopeFieldsOf(fields),
	}
	if app, ok := fields["app"]; ok {
		given.App = app
	}
	request, err := connector.ParseProvisioning(given, a.now())
	if err := join(bad, err); err != nil {
		return 0, nil, err
	}
	c, created, err := a.provisioner.Provision(r.Context(), request)
	if err != nil {
		return 0, nil, err
	}
	if created {
		w.Header().Set("Location", "/connections/"+c.String())
		return http.StatusCreated, a.view(c), nil
	}
	return http.StatusOK, a.view(c), nil
}

func (a *api) listConnections(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	query, err := readListQuery(r)
	if err != nil {
		return 0, nil, err
	}
	connections, next, err := a.store.Connections(r.Context(), query.app, query.limit, query.cursor)
	if err != nil {
		return 0, nil, err
	}
	views := make([]connectionView, len(connections))
	for i, c := range connections {
		views[i] = a.view(c)
	}
	return http.StatusOK, connectionsView{views, next}, nil
}

func (a *api) getConnection(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	ref, err := pathConnection(r)
	if err != nil {
		return 0, nil, err
	}
	c, err := a.store.Connection(r.Context(), ref)
	if err != nil {
		return 0, nil, absent("connection", ref.String(), err)
	}
	return http.StatusOK, a.view(c), nil
}

func (a *api) refreshConnection(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	ref, err := pathConnection(r)
	if err != nil {
		return 0, nil, err
	}
	c, err := a.refresher.Refresh(r.Context(), ref)
	if err != nil {
		return 0, nil, absent("connection", ref.String(), err)
	}
	return http.StatusOK, a.view(c), nil
}

func (a *api) deleteConnection(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	ref, err := pathConnection(r)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusNoContent, nil, absent("connection", ref.String(), a.store.DeleteConnection(r.Context(), ref))
}

func (a *api) putApp(w http.ResponseWriter, r *http.Request) (int, any, error) {
	fields, bad, err := readFields(r, slices.Concat(appFields, scopeFields)...)
	if err != nil {
		return 0, nil, err
	}
	given := appFieldsOf(fields)
	if given == nil {
		given = &connector.AppFields{ScopeFields: scopeFieldsOf(fields)}
	}
	request, err := connector.ParseAppRequest(r.PathValue("app"), *given, a.now())
	if err := join(bad, err); err != nil {
		return 0, nil, err
	}
	app, created, err := a.apps.Put(r.Context(), request)
	if err != nil {
		return 0, nil, err
	}
	if created {
		w.Header().Set("Location", "/apps/"+app.Name)
		return http.StatusCreated, viewApp(app, a.now()), nil
	}
	return http.StatusOK, viewApp(app, a.now()), nil
}

func (a *api) listApps(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	apps, err := a.store.Apps(r.Context())
	if err != nil {
		return 0, nil, err
	}
	views := make([]appView, len(apps))
	for i, app := range apps {
		views[i] = viewApp(app, a.now())
	}
	return http.StatusOK, appsView{views}, nil
}

func (a *api) getApp(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	name, err := pathApp(r)
	if err != nil {
		return 0, nil, err
	}
	use, err := a.store.LookAtApp(r.Context(), name)
	if err != nil {
		return 0, nil, absent("app", name, err)
	}
	return http.StatusOK, viewApp(use.App, a.now()), nil
}

func (a *api) deleteApp(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	name, err := pathApp(r)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusNoContent, nil, absent("app", name, a.apps.Delete(r.Context(), name))
}
