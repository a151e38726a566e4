package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"entra-connector/cmd/entra-connector/internal/api"
	"entra-connector/cmd/entra-connector/internal/screen"
	"entra-connector/pkg/entra"
)

// services are the short names for scopes. Three of them stand for the same, which is called by the
// first.
var services = []string{"microsoft-graph", "microsoft-teams", "microsoft-365", "azure-devops", "azure-sql", "azure-storage", "business-central"}

// serviceOf is a scope as a person calls it.
func serviceOf(scope, cloud string) string {
	for _, name := range services {
		if known, err := entra.ServiceScope(name, entra.Cloud(cmp.Or(cloud, "public"))); err == nil && known == scope {
			return name
		}
	}
	return strings.TrimPrefix(strings.TrimSuffix(scope, "/.default"), "https://")
}

func addScope(cmd *cobra.Command, service, scope *string) {
	cmd.Flags().StringVar(service, "service", "", "`service`, a short name for a scope: "+strings.Join(services, ", "))
	cmd.Flags().StringVar(scope, "scope", "", "`scope` in place of a service: RESOURCE/.default")
	complete(cmd, "service", services...)
}

func (p *program) addConnections(root *cobra.Command) {
	p.addConnect(root)
	p.addInvite(root)
	p.addList(root)
	p.add(root, "show APP/CONNECTION", "Show a connection, what is wrong with it and what to do", names(connectionName, 1),
		func(ctx context.Context, c *api.Client, args []string) error {
			return p.show(ctx, c, request{method: "GET", path: "/connections/" + args[0]}, nil)
		})
	p.add(root, "refresh APP/CONNECTION…", "Refresh connections now, due or not", names(connectionName, math.MaxInt),
		func(ctx context.Context, c *api.Client, args []string) error {
			var requests []request
			for _, arg := range args {
				requests = append(requests, request{arg, "POST", "/connections/" + arg + "/refresh", nil})
			}
			return p.each(ctx, c, "refreshed", requests)
		})
	p.addDelete(root, "delete APP/CONNECTION…", "Delete connections, and the secrets that integrations read", names(connectionName, math.MaxInt),
		"/connections/", "Integrations will find no token there.")
}

func (p *program) addDelete(parent *cobra.Command, use, short string, names cobra.PositionalArgs, path, loss string) {
	var yes bool
	cmd := p.add(parent, use, short, names, func(ctx context.Context, c *api.Client, args []string) error {
		if err := p.confirm(ctx, yes, "Delete "+strings.Join(args, ", ")+"? "+loss); err != nil {
			return err
		}
		var requests []request
		for _, arg := range args {
			requests = append(requests, request{arg, "DELETE", path + arg, nil})
		}
		return p.each(ctx, c, "deleted", requests)
	})
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
}

// request is a call of the API, under the name that a person knows it by.
type request struct {
	name, method, path string
	body               any // nil for none
}

// show makes a call and shows the object that the API answers, below what a person is told of the
// status.
func (p *program) show(ctx context.Context, c *api.Client, r request, told map[int]string) error {
	var object json.RawMessage
	status, err := p.call(ctx, c, r, "Waiting for the answer…", &object)
	if err != nil {
		return err
	}
	return p.print(object, func() {
		p.out.Say(told[status])
		p.out.Pairs(members("", object)...)
	})
}

// patience is how long a call goes on before a person is told why.
const patience = 3 * time.Second

// call makes a call, with a text on the screen meanwhile.
func (p *program) call(ctx context.Context, c *api.Client, r request, text string, answer any) (status int, err error) {
	p.err.Progress(text)
	answered, told := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(told)
		select {
		case <-answered:
		case <-time.After(patience):
			if r.method == "POST" || r.method == "PUT" {
				p.err.Progress("Waiting: Entra takes some seconds to know a new secret or consent…")
			}
		}
	}()
	status, err = c.Call(ctx, r.method, r.path, nil, r.body, answer)
	close(answered)
	<-told
	p.err.Progress("")
	return status, err
}

// outcome is what became of one of several calls, as a program reads it.
type outcome struct {
	Name    string          `json:"name,omitempty"`
	Result  *api.Connection `json:"result,omitempty"`
	Problem *api.Error      `json:"problem,omitempty"`
}

// each makes one call after the other, and reports each. If some fail, the exit code is that of the
// first.
func (p *program) each(ctx context.Context, c *api.Client, done string, requests []request) error {
	outcomes, code := []outcome{}, 0
	for i, r := range requests {
		var answer *api.Connection
		_, err := p.call(ctx, c, r, fmt.Sprintf("%s (%d of %d)…", r.name, i+1, len(requests)), &answer)
		outcomes = append(outcomes, outcome{r.name, answer, problem(err)})
		switch {
		case err != nil:
			p.explain(r.name, err)
			code = cmp.Or(code, exitCode(err))
		case p.output == "json":
		case answer == nil:
			p.out.Line(r.name + " is " + done + ".")
		default:
			p.out.Say(fmt.Sprintf("%s is %s. Its token lasts %s.", answer, done, left(answer.ExpiresAt)))
			for _, w := range answer.Warnings {
				p.out.Pairs("warning", w.Title+" ("+w.Code+")", "to do", commands(w.Action, answer.App))
			}
		}
	}
	if err := p.print(outcomes, func() {}); err != nil || code == 0 {
		return err
	}
	return &exitError{code: code}
}

func (p *program) addConnect(root *cobra.Command) {
	var app, name, scope string
	var wanted []string
	cmd := p.add(root, "connect TENANT", "Connect a customer's tenant: get a token there, and keep it fresh", cobra.ExactArgs(1),
		func(ctx context.Context, c *api.Client, args []string) error {
			var requests []request
			for _, service := range append(wanted, "")[:max(len(wanted), 1)] {
				connection := name
				if len(wanted) > 1 {
					connection = cmp.Or(name, strings.ToLower(args[0])) + "-" + service
				}
				requests = append(requests, request{app + "/" + cmp.Or(connection, args[0]), "POST", "/connections",
					with(nil, "tenant_id", args[0], "app", app, "connection", connection, "service", service, "scope", scope)})
			}
			return p.each(ctx, c, "connected", requests)
		})
	cmd.Long = `Connects a tenant, given by its GUID or a verified domain, to an app that
exists. Nothing is stored unless a token could be got. Several services make a
connection each, NAME-SERVICE.`
	cmd.Example = `  entra-connector connect contoso.onmicrosoft.com --name contoso
  entra-connector connect contoso.onmicrosoft.com --name contoso \
    --service microsoft-graph --service azure-devops`
	cmd.Flags().StringVar(&app, "app", "default", "the `app`")
	cmd.Flags().StringVar(&name, "name", "", "the connection's `name` (default the tenant's GUID)")
	cmd.Flags().StringVar(&scope, "scope", "", "`scope` in place of a service: RESOURCE/.default")
	cmd.Flags().StringArrayVar(&wanted, "service", nil, "`service`, or several (default the app's): "+strings.Join(services, ", "))
	complete(cmd, "service", services...)
}

func (p *program) addInvite(root *cobra.Command) {
	var tenant, service, scope string
	var days int
	cmd := p.add(root, "invite APP/CONNECTION", "Print a link with which a customer connects the tenant", names(connectionName, 1),
		func(ctx context.Context, c *api.Client, args []string) error {
			fields := with(map[string]any{}, "tenant_id", tenant, "service", service, "scope", scope)
			if days != 0 {
				fields["expires_in_days"] = days
			}
			err := p.show(ctx, c, request{"", "POST", "/connections/" + args[0] + "/invitation", fields},
				map[int]string{
					200: "Send this link to the customer's administrator. It replaces the earlier one, works once, and is not shown again.",
					201: "Send this link to the customer's administrator. It works once, and is not shown again.",
				})
			if e := (*api.Error)(nil); errors.As(err, &e) && e.Status == 404 {
				e.Action = "Deploy the stack with ConnectPage=true: the link leads to a page of its own."
			}
			return err
		})
	cmd.Long = `Prints a link for an administrator of the customer. It works once. The next
invitation to the connection replaces it, deleting the connection revokes it.`
	cmd.Flags().StringVar(&tenant, "tenant", "", "the only `tenant` that may connect, a GUID or verified domain")
	cmd.Flags().IntVar(&days, "days", 0, "for how many `days` the link is good, 1 to 30 (default 7)")
	addScope(cmd, &service, &scope)
}

func (p *program) addList(root *cobra.Command) {
	var app, status string
	cmd := p.add(root, "list", "List the connections", cobra.NoArgs, func(ctx context.Context, c *api.Client, _ []string) error {
		connections, err := p.connections(ctx, c, app)
		if err != nil {
			return err
		}
		connections = slices.DeleteFunc(connections, func(c api.Connection) bool { return status != "" && c.Status != status })
		return p.print(connections, func() {
			if len(connections) == 0 {
				p.out.Say("There are no such connections. Make one: entra-connector connect TENANT")
				return
			}
			var rows [][]string
			for _, c := range connections {
				rows = append(rows, []string{c.String(), c.Status, left(c.ExpiresAt), serviceOf(c.Scope, c.Cloud), c.TenantID})
			}
			p.out.Table([]string{"CONNECTION", "STATUS", "LEFT", "SERVICE", "TENANT"}, rows, colourOf)
		})
	})
	cmd.Flags().StringVar(&app, "app", "", "only those of this `app`")
	cmd.Flags().StringVar(&status, "status", "", "only those with this `status`: ok, retrying, refused or invited")
	complete(cmd, "status", "ok", "retrying", "refused", "invited")
}

func (p *program) connections(ctx context.Context, c *api.Client, app string) ([]api.Connection, error) {
	defer p.err.Progress("")
	return c.Connections(ctx, app, func(n int) { p.err.Progress(plural(n, "connection") + "…") })
}

// colourOf is the colour of a status, and of what else has a word of its own.
func colourOf(word string) string {
	return map[string]string{"ok": screen.Green, "retrying": screen.Magenta, "refused": screen.Red, "expired": screen.Red}[word]
}
