package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"math"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"entra-connector/cmd/entra-connector/internal/api"
	"entra-connector/cmd/entra-connector/internal/screen"
)

func (p *program) addApps(root *cobra.Command) {
	app := &cobra.Command{Use: "app", Short: "Manage apps: registrations in Entra, with their credentials", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	root.AddCommand(app)
	p.addPut(app)
	p.add(app, "list", "List the apps", cobra.NoArgs, p.listApps)
	p.add(app, "show NAME", "Show an app, without its credential", names(appName, 1),
		func(ctx context.Context, c *api.Client, args []string) error {
			return p.show(ctx, c, request{method: "GET", path: "/apps/" + args[0]}, nil)
		})
	p.addDelete(app, "delete NAME…", "Delete apps that no connection uses", names(appName, math.MaxInt), "/apps/", "The credential goes with it.")
}

func (p *program) addPut(app *cobra.Command) {
	var credential credentialFlags
	var clientID, service, scope, cloud string
	put := p.add(app, "put NAME", "Create an app, or replace it, as with a new client secret", names(appName, 1),
		func(ctx context.Context, c *api.Client, args []string) error {
			path := "/apps/" + args[0]
			if clientID == "" { // a rotation
				var stored api.App
				if status, err := c.Call(ctx, "GET", path, nil, nil, &stored); status == 404 {
					return usage("app %s is new: give its --client-id", args[0])
				} else if err != nil {
					return err
				}
				clientID = stored.ClientID
			}
			fields, err := credential.read(ctx, p, args[0])
			if err != nil {
				return err
			}
			return p.show(ctx, c, request{"", "PUT", path, with(fields, "client_id", clientID, "service", service, "scope", scope, "cloud", cloud)},
				map[int]string{201: "The app is created. Its credential is proved with the first connection.",
					200: "The app is replaced. The next sweep takes its connections over."})
		})
	put.Long = `Creates an app or replaces it. With connections on it, the new credential is
proved in one of their tenants first, and the next sweep takes all of them over.
What is left out stays.

The client secret is asked for, or comes from standard input or a file.`
	put.Example = `  entra-connector app put default --client-id GUID --service microsoft-graph
  entra-connector app put default   # rotate its client secret
  vault read … | entra-connector app put default --secret-stdin
  entra-connector app put default --certificate-file app.pem`
	put.Flags().StringVar(&clientID, "client-id", "", "the application (client) `ID` (default the stored one)")
	put.Flags().StringVar(&cloud, "cloud", "", "`cloud` of the registration: public, usgov, china, bleu, delos or govsg")
	addScope(put, &service, &scope)
	complete(put, "cloud", "public", "usgov", "china", "bleu", "delos", "govsg")
	credential.add(put)
}

// credentialFlags say where an app's credential comes from. None holds a secret: command lines are
// in the shell's history and in the list of processes.
type credentialFlags struct {
	stdin, federation                    bool
	file, certificate, audience, expires string
}

func (f *credentialFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&f.stdin, "secret-stdin", false, "read the client secret from standard input, less a line break at its end")
	flags.StringVar(&f.file, "secret-file", "", "read the client secret from a `file`, less a line break at its end")
	flags.StringVar(&f.expires, "secret-expires", "", "`date` on which the client secret expires, as 2027-01-31, to be warned before")
	flags.StringVar(&f.certificate, "certificate-file", "", "a `file` with a certificate and its private key, in PEM")
	flags.BoolVar(&f.federation, "federation", false, "no stored credential, but the function's identity in AWS")
	flags.StringVar(&f.audience, "audience", "", "`audience` of the federation (default api://AzureADTokenExchange)")
	cmd.MarkFlagsMutuallyExclusive("secret-stdin", "secret-file", "certificate-file", "federation")
}

// asks reports whether the secret comes from a person.
func (f *credentialFlags) asks() bool {
	return !f.stdin && f.file == "" && f.certificate == "" && !f.federation
}

// read returns the API's fields for the credential of an app.
func (f *credentialFlags) read(ctx context.Context, p *program, app string) (map[string]any, error) {
	if f.federation {
		return map[string]any{"federation": with(nil, "audience", f.audience)}, nil
	}
	var secret string
	var b []byte
	var err error
	switch {
	case f.certificate != "":
		b, err = os.ReadFile(f.certificate)
		return with(nil, "certificate", string(b)), err
	case f.file != "":
		b, err = os.ReadFile(f.file)
	case f.stdin:
		b, err = io.ReadAll(os.Stdin)
	default:
		secret, err = p.err.Ask(ctx, "Client secret of app "+app+": ", true)
		if errors.Is(err, screen.ErrNoTerminal) {
			err = usage("there is no terminal to ask for the client secret on: give --secret-stdin or --secret-file")
		}
	}
	if secret += strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r"); secret == "" && err == nil {
		err = usage("the client secret is empty")
	}
	return with(nil, "client_secret", secret, "client_secret_expires_at", f.expires), err
}

// with adds pairs of names and values to fields, but for values that are empty.
func with(fields map[string]any, pairs ...string) map[string]any {
	if fields == nil {
		fields = make(map[string]any)
	}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fields[pairs[i]] = pairs[i+1]
		}
	}
	return fields
}

func (p *program) listApps(ctx context.Context, c *api.Client, _ []string) error {
	apps, err := c.Apps(ctx)
	if err != nil {
		return err
	}
	return p.print(apps, func() {
		if len(apps) == 0 {
			p.out.Say("There are no apps yet. Create one: entra-connector app put NAME")
			return
		}
		drawApps(&p.out, apps)
	})
}

func drawApps(out *screen.Pane, apps []api.App) {
	var rows [][]string
	for _, a := range apps {
		rows = append(rows, []string{a.Name, a.ClientID, a.Credential, cmp.Or(left(a.ExpiresAt), map[string]string{"client_secret": "not known"}[a.Credential]), serviceOf(a.Scope, a.Cloud)})
	}
	out.Table([]string{"APP", "CLIENT ID", "CREDENTIAL", "LEFT", "SERVICE"}, rows, colourOf)
}
