// Package permissions holds the roles in template.yaml to what the functions do: enough for everything, and nothing more.
package permissions

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"entra-connector/internal/awsidentity/ststest"
	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/signals"
	"entra-connector/internal/stack"
	. "entra-connector/internal/stack/stacktest"
	"entra-connector/pkg/entra"
	"entra-connector/pkg/entra/entratest"
)

func TestMain(m *testing.M) { Main(m) }

const (
	secretARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:"
	audience  = "api://AzureADTokenExchange"
)

// everything are the parameters with which the roles have all the permissions that they may have.
var everything = map[string]string{"Federation": "true", "KmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/secrets"}

// step is something that a person relies on.
type step struct {
	name string
	do   func(functions *Connector) error
}

// scenario is all that the functions do with AWS. Each step finds what those before it left behind, and may be repeated. The
// stand-ins are c's; the functions are those that a step is given.
func scenario(c *Connector) []step {
	call := func(method, path, body string, status int) func(*Connector) error {
		return func(functions *Connector) error {
			if r := functions.Call(method, path, body); r.Status != status {
				return fmt.Errorf("status %d, want %d: %s", r.Status, status, r.Body)
			}
			return nil
		}
	}
	sweep := func(event string, want entra.SweepReport) func(*Connector) error {
		return func(functions *Connector) error {
			result := functions.Invoke(functions.Refresh, event)
			var got entra.SweepReport
			if err := json.Unmarshal(result.Payload, &got); err != nil || result.FunctionError != "" ||
				got.Refreshed != want.Refreshed || got.Failed != want.Failed {
				return fmt.Errorf("the sweep answers %s", result.Payload)
			}
			return nil
		}
	}
	// refused does something while Entra refuses, and wants that to be shown with the connections.
	refused := func(do func(*Connector) error, connections ...string) func(*Connector) error {
		return func(functions *Connector) error {
			c.Entra.Fail(entratest.Fault{Response: entratest.Refused(7000222)})
			defer c.Entra.ClearFaults()
			if err := do(functions); err != nil {
				return err
			}
			for _, name := range connections {
				if d, _ := c.Secrets.Description("entra/connections/" + name); !strings.Contains(d, "AADSTS7000222") {
					return fmt.Errorf("%s shows %s", name, d)
				}
			}
			return nil
		}
	}
	// expiring makes the token of a connection one that is about to expire.
	expiring := func(name string) {
		value, _ := c.Secrets.Value("entra/connections/" + name)
		description, _ := c.Secrets.Description("entra/connections/" + name)
		c.Secrets.Put("entra/connections/"+name, value, regexp.MustCompile(`"expires_at":"[^"]*"`).
			ReplaceAllString(description, `"expires_at":"`+time.Now().Add(time.Minute).UTC().Format(time.RFC3339)+`"`))
	}
	// told does what works, then fails, then works again, and wants an event of each change.
	told := func(works, fails func(*Connector) error) func(*Connector) error {
		return func(functions *Connector) error {
			if err := works(functions); err != nil {
				return err
			}
			before := len(c.Events.Events())
			if err := errors.Join(refused(fails)(functions), works(functions)); err != nil {
				return err
			}
			var got []string
			for _, e := range c.Events.Events()[before:] {
				got = append(got, e.DetailType)
			}
			if !slices.Equal(got, []string{signals.Refused, signals.Recovered}) {
				return fmt.Errorf("the events are %q", got)
			}
			return nil
		}
	}
	federated := `{"tenant_id":"` + TenantA + `","app":"federated","connection":"one","client_id":"` + OtherID + `","scope":"` + Graph +
		`","federation":{"audience":"` + audience + `"}}`

	return []step{
		{"provisioning a connection with a new app", call("POST", "/connections", Body("connection", "one"), 201)},
		{"provisioning the same again", call("POST", "/connections", Body("connection", "one"), 200)},
		{"provisioning a connection of an app that exists", call("POST", "/connections", Object("tenant_id", "fabrikam.com", "connection", "two"), 201)},
		{"provisioning with a new client secret", call("POST", "/connections", Body("connection", "one", "client_secret", NewSecret), 200)},
		{"listing connections", call("GET", "/connections", "", 200)},
		{"showing a connection", call("GET", "/connections/default/one", "", 200)},
		{"refreshing a connection by hand", call("POST", "/connections/default/one/refresh", "", 200)},
		{"telling of refusals and recoveries by hand", told(
			call("POST", "/connections/default/two/refresh", "", 200), call("POST", "/connections/default/two/refresh", "", 422))},
		{"showing why a refresh by hand was refused", refused(call("POST", "/connections/default/one/refresh", "", 422), "default/one")},
		{"listing apps", call("GET", "/apps", "", 200)},
		{"showing an app", call("GET", "/apps/default", "", 200)},
		{"replacing an app's credential", call("PUT", "/apps/default", AppBody(), 200)},
		{"creating an app", call("PUT", "/apps/spare", AppBody(), 201)},
		{"deleting an app", call("DELETE", "/apps/spare", "", 204)},
		{"restoring a deleted app", call("PUT", "/apps/spare", AppBody(), 201)},
		{"deleting a connection", call("DELETE", "/connections/default/two", "", 204)},
		{"restoring a deleted connection", call("POST", "/connections", Object("tenant_id", "fabrikam.com", "connection", "two"), 201)},
		{"a scheduled sweep", func(functions *Connector) error {
			expiring("default/two") // and default/one is on a token from before the app's new credential
			return sweep(`{}`, entra.SweepReport{Refreshed: 2})(functions)
		}},
		{"sweeping what an event names", sweep(`{"connections":["default/two"],"force":true}`, entra.SweepReport{Refreshed: 1})},
		{"telling of refusals and recoveries in sweeps", told(
			sweep(`{"connections":["default/two"],"force":true}`, entra.SweepReport{Refreshed: 1}),
			sweep(`{"connections":["default/two"],"force":true}`, entra.SweepReport{Failed: 1}))},
		{"sweeping everything", sweep(`{"force":true}`, entra.SweepReport{Refreshed: 2})},
		{"showing why a sweep was refused", refused(sweep(`{"force":true}`, entra.SweepReport{Failed: 2}), "default/one", "default/two")},
		{"provisioning without a stored credential", call("POST", "/connections", federated, 201)},
		{"sweeping what has no stored credential", sweep(`{"connections":["federated/one"],"force":true}`, entra.SweepReport{Refreshed: 1})},
	}
}

// run is the scenario with some permissions.
type run struct {
	stopped []string // the steps that do not work
	output  string   // what the functions log and answer in these
}

// try runs the scenario with the permissions that are granted. A step that does not work is then done with all permissions,
// for those after it.
func try(t *testing.T, granted []permission) (r run) {
	t.Helper()
	const everyone = "local" // the access key ID of a twin, which may do everything
	may := func(accessKeyID, action, resource string, keys map[string][]string) bool {
		return accessKeyID == everyone || allowed(granted, accessKeyID, action, resource, keys)
	}
	c := Start(t, stack.Options{
		Secrets: secretstoretest.Options{Authorize: func(accessKeyID, action, resource string) bool {
			return may(accessKeyID, action, resource, nil)
		}},
		STS: ststest.Options{Authorize: func(accessKeyID, audience string) bool {
			return may(accessKeyID, "sts:GetWebIdentityToken", "*", map[string][]string{"sts:IdentityTokenAudience": {audience}})
		}},
		ProvisionEnv: []string{"AWS_ACCESS_KEY_ID=ProvisionRole"},
		RefreshEnv:   []string{"AWS_ACCESS_KEY_ID=RefreshRole"},
	})
	c.Entra.AddApp(entratest.App{ClientID: OtherID, Federated: []entratest.Federated{
		{Issuer: c.STS.Issuer(), Subject: c.STS.Subject(), Audience: audience, Key: c.STS.Key()},
	}})
	c.Events.Authorize(func(accessKeyID, bus, source, detailType string) bool {
		return may(accessKeyID, "events:PutEvents", bus, map[string][]string{"events:source": {source}, "events:detail-type": {detailType}})
	})
	var twin *Connector
	for _, s := range scenario(c) {
		before := len(c.Output())
		err := s.do(c)
		if err == nil {
			continue
		}
		output := c.Output()[before:]
		if !strings.Contains(output, "AccessDenied") && !strings.Contains(output, entra.CodeFederationDenied) {
			t.Errorf("%s: %v, and nobody is told that a permission is missing:\n%s", s.name, err, output)
		}
		r.stopped = append(r.stopped, s.name)
		r.output += output
		if twin == nil {
			twin = c.Twin()
		}
		if err := s.do(twin); err != nil {
			t.Fatalf("%s: %v, with all permissions", s.name, err)
		}
	}
	return r
}

func TestRolesAreExactlyEnough(t *testing.T) {
	tmpl := read(t, everything)
	for function, role := range map[string]string{"ProvisionFunction": "ProvisionRole.Arn", "RefreshFunction": "RefreshRole.Arn"} {
		if got := tmpl.property(function + ".Role"); got != role {
			t.Errorf("%s has the role %v, want %s", function, got, role)
		}
	}
	granted := tmpl.permissions()
	compare(t, tmpl, granted)
	t.Run("as they are", func(t *testing.T) {
		if got := try(t, granted); len(got.stopped) > 0 {
			t.Errorf("this does not work:\n\t%s\n%s", strings.Join(got.stopped, "\n\t"), got.output)
		}
	})
	if t.Failed() {
		return // what it takes comes before what it does not
	}
	for i, p := range granted {
		need, ok := needs[p.String()]
		if !ok {
			continue
		}
		t.Run("without "+p.String(), func(t *testing.T) {
			t.Parallel()
			got := try(t, slices.Delete(slices.Clone(granted), i, i+1))
			switch {
			case len(got.stopped) == 0:
				t.Error("nothing stops working: take it out of the template")
			case !slices.Equal(got.stopped, need.stops):
				t.Errorf("this stops working:\n\t%s\nand not, as the list has it:\n\t%s", strings.Join(got.stopped, "\n\t"), strings.Join(need.stops, "\n\t"))
			case !strings.Contains(got.output, need.told):
				t.Errorf("nobody is told %q:\n%s", need.told, got.output)
			}
		})
	}
}

// compare wants the permissions in the template to be those in the lists.
func compare(t *testing.T, tmpl *template, granted []permission) {
	t.Helper()
	inTemplate := make(map[string]bool)
	for _, p := range granted {
		name := p.String()
		if inTemplate[name] {
			t.Errorf("the template has this twice: %s", name)
		}
		inTemplate[name] = true
		if _, ok := needs[name]; ok {
			continue
		}
		use, ok := usedElsewhere[name]
		if !ok {
			t.Errorf("the template has a permission that is in neither list; say what stops working without it: %s", name)
			continue
		}
		if use.property == "" {
			continue
		}
		if got := tmpl.property(use.property); got != use.value {
			t.Errorf("%s is for %s, where the template has %v, want %s", name, use.property, got, use.value)
		}
	}
	lacks := func(name string, stops ...string) {
		if !inTemplate[name] {
			t.Errorf("the template lacks %s\nwithout which this stops working:\n\t%s", name, strings.Join(stops, "\n\t"))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(needs)) {
		lacks(name, needs[name].stops...)
	}
	for _, name := range slices.Sorted(maps.Keys(usedElsewhere)) {
		lacks(name, usedElsewhere[name].stops)
	}
}

func TestRolesReachNoFurther(t *testing.T) {
	const app, connection = secretARN + "entra/apps/default-AbCdEf", secretARN + "entra/connections/default/one-AbCdEf"
	granted := read(t, everything).permissions()
	may := func(role, action, resource string) bool {
		return allowed(granted, role, "secretsmanager:"+action, resource, nil)
	}
	if !may("RefreshRole", "GetSecretValue", app) || !may("RefreshRole", "UpdateSecret", connection) {
		t.Fatal("the refresh function cannot do its work")
	}
	for _, role := range []string{"ProvisionRole", "RefreshRole"} {
		if may(role, "GetSecretValue", connection) || may(role, "BatchGetSecretValue", "*") {
			t.Errorf("%s can read a token", role)
		}
		for _, name := range []string{"other", "entra", "entra/other", "entra-2/apps/default", "other/entra/apps/default", "entra/apps"} {
			for _, action := range []string{"GetSecretValue", "DescribeSecret", "CreateSecret", "UpdateSecret", "DeleteSecret", "RestoreSecret"} {
				if may(role, action, secretARN+name+"-AbCdEf") {
					t.Errorf("%s can do %s with the secret %s, which is not the connector's", role, action, name)
				}
			}
		}
		for audience, want := range map[string]bool{audience: true, "api://another": false} {
			if got := allowed(granted, role, "sts:GetWebIdentityToken", "*", map[string][]string{"sts:IdentityTokenAudience": {audience}}); got != want {
				t.Errorf("%s gets an identity token for %s: %t", role, audience, got)
			}
		}
	}
	if may("IntegrationPolicy", "GetSecretValue", app) || may("IntegrationPolicy", "GetSecretValue", secretARN+"entra/connections/default2/one-AbCdEf") ||
		may("IntegrationPolicy", "UpdateSecret", connection) {
		t.Error("an integration can do more than read the connections of its app")
	}
	for _, action := range []string{"CreateSecret", "DeleteSecret", "RestoreSecret"} {
		if may("RefreshRole", action, app) || may("RefreshRole", action, connection) {
			t.Errorf("the refresh function can do %s", action)
		}
	}
	if may("RefreshRole", "UpdateSecret", app) {
		t.Error("the refresh function can change an app")
	}
}

func TestEveryWildcardHasAReason(t *testing.T) {
	granted := read(t, everything).permissions()
	unused := maps.Clone(wildcards)
	for _, p := range granted {
		if strings.ContainsAny(p.action, "*?") {
			t.Errorf("%s is more than one action", p)
		}
		what := here.ReplaceAllString(p.resource, "")
		if what == "*" {
			what = p.action
		}
		if strings.ContainsAny(p.resource, "*?") && wildcards[what] == "" {
			t.Errorf("say why the resource has to have a wildcard: %s", p)
		}
		delete(unused, what)
	}
	for what := range unused {
		t.Errorf("no permission is for the wildcard of %s", what)
	}
}

func TestRolesTrustOneServiceEach(t *testing.T) {
	tmpl := read(t, everything)
	for name, r := range tmpl.resources {
		if r.Type != "AWS::IAM::Role" {
			continue
		}
		want := map[string]any{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": map[string]any{"Service": trusted[name].service}}
		if condition := trusted[name].condition; condition != nil {
			want["Condition"] = condition
		}
		document := tmpl.property(name + ".AssumeRolePolicyDocument").(map[string]any)
		if got := document["Statement"]; !reflect.DeepEqual(got, []any{want}) {
			t.Errorf("%s may be taken on by %v, want %v", name, got, want)
		}
	}
}

func TestRolesFollowTheParameters(t *testing.T) {
	for _, p := range read(t, map[string]string{"SecretPrefix": "team/tokens"}).permissions() {
		if strings.HasPrefix(p.action, "sts:") || strings.HasPrefix(p.action, "kms:") {
			t.Errorf("without federation and a key, there is %s", p)
		}
		if strings.HasPrefix(p.action, "secretsmanager:") && p.resource != "*" && !strings.HasPrefix(p.resource, secretARN+"team/tokens/") {
			t.Errorf("with another prefix, there is %s", p)
		}
	}
}
