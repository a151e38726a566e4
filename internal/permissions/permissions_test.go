// Package permissions holds the roles in template.yaml to what the functions do: enough for
// everything, and nothing more.
package permissions

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"entra-connector/internal/awsidentity/ststest"
	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/signals"
	"entra-connector/internal/stack"
	. "entra-connector/internal/stack/stacktest"
	"entra-connector/internal/templatetest"
	"entra-connector/pkg/entra/entratest"
)

func TestMain(m *testing.M) { MainWithPage(m) }

const (
	secretARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:"
	audience  = "api://AzureADTokenExchange"
)

// everything are the parameters with which the roles get all permissions that they may get.
var everything = map[string]string{"Federation": "true", "KmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/secrets",
	"ReaderAccounts": "444455556666", "SubnetIds": "subnet-0", "SecurityGroupIds": "sg-0", "Tracing": "Active", "ConnectPage": "true"}

// action is something that a person relies on, done with some functions.
type action func(functions *Connector) error

type step struct {
	name string
	do   action
}

// scenario is all that the functions do with AWS. Each step needs those before it, and can be
// repeated. The stand-ins are c's.
func scenario(c *Connector) []step {
	call := func(method, path, body string, status int) action {
		return func(functions *Connector) error {
			if r := functions.Call(method, path, body); r.Status != status {
				return fmt.Errorf("status %d, want %d: %s", r.Status, status, r.Body)
			}
			return nil
		}
	}
	sweep := func(event string, refreshed, failed int) action {
		return func(functions *Connector) error {
			result := functions.Invoke(functions.Refresh, event)
			var got struct{ Refreshed, Failed int }
			err := json.Unmarshal(result.Payload, &got)
			if err != nil || result.FunctionError != "" || got.Refreshed != refreshed || got.Failed != failed {
				return fmt.Errorf("the sweep answers %s", result.Payload)
			}
			return nil
		}
	}
	// refused does something while Entra refuses, and wants the connections to show that.
	refused := func(do action, connections ...string) action {
		return func(functions *Connector) error {
			c.Entra.Fail(entratest.Fault{Response: entratest.Refused(7000112)})
			defer c.Entra.ClearFaults()
			if err := do(functions); err != nil {
				return err
			}
			for _, name := range connections {
				if d, _ := c.Secrets.Description("entra/connections/" + name); !strings.Contains(d, "AADSTS7000112") {
					return fmt.Errorf("%s shows %s", name, d)
				}
			}
			return nil
		}
	}
	// events does what works, then what fails, then what works again, and wants an event for each
	// change.
	events := func(works, fails action) action {
		return func(functions *Connector) error {
			if err := works(functions); err != nil {
				return err
			}
			before := len(c.Events.Events())
			err := errors.Join(refused(fails)(functions), works(functions))
			got := c.Events.Events()[before:]
			if err == nil && (len(got) != 2 || got[0].DetailType != signals.Refused || got[1].DetailType != signals.Recovered) {
				err = fmt.Errorf("the events are %+v", got)
			}
			return err
		}
	}
	const one = "/connections/default/one"
	bodyOfTwo := Object("tenant_id", "fabrikam.com", "connection", "two")
	refreshTwo := func(status int) action { return call("POST", "/connections/default/two/refresh", "", status) }
	federated := strings.TrimSuffix(Object("tenant_id", TenantA, "app", "federated", "connection", "one", "client_id", OtherID, "scope", Graph), "}") +
		`,"federation":{"audience":"` + audience + `"}}`
	const admin = "ada@contoso.com"
	// accept invites an administrator, who accepts.
	accept := func(app string) action {
		return func(functions *Connector) error {
			connection := "/connections/" + app + "/invited"
			functions.Call("DELETE", connection, "")
			before, said := len(c.Events.Events()), len(functions.Output())
			reply := functions.Call("POST", connection+"/invitation", Object("tenant_id", TenantA, "scope", Graph))
			link, err := url.Parse(Text(reply.JSON(functions.TB()), "url"))
			if err != nil || reply.Status != 201 {
				return fmt.Errorf("the invitation is answered %d %s", reply.Status, reply.Body)
			}
			b := functions.Browser().Open(link.Path)
			for _, press := range [][2]string{{"step", "start"}, {"account", admin}, {"step", "connect"}} {
				if !b.Has(press[0], press[1]) {
					return fmt.Errorf("there is no %s at %s", press, b.Title())
				}
				b.Press(press[0], press[1])
			}
			switch events := c.Events.Events()[before:]; {
			case b.Title() != "Connected":
				return fmt.Errorf("the page is %s", b.Title())
			case len(events) != 1 || events[0].DetailType != signals.Accepted:
				return fmt.Errorf("the events are %+v", events)
			case strings.Contains(functions.Output()[said:], `"not noted"`):
				return errors.New("it is not noted that the link was opened")
			}
			return nil
		}
	}
	const named = `{"connections":["default/two"],"force":true}`
	return []step{
		{"provision", call("POST", "/connections", Body("connection", "one"), 201)},
		{"provision again", call("POST", "/connections", Body("connection", "one"), 200)},
		{"provision with known app", call("POST", "/connections", bodyOfTwo, 201)},
		{"provision with new secret", call("POST", "/connections", Body("connection", "one", "client_secret", NewSecret), 200)},
		{"list connections", call("GET", "/connections", "", 200)},
		{"show connection", call("GET", one, "", 200)},
		{"refresh by hand", call("POST", one+"/refresh", "", 200)},
		{"events by hand", events(refreshTwo(200), refreshTwo(422))},
		{"refusal by hand", refused(call("POST", one+"/refresh", "", 422), "default/one")},
		{"list apps", call("GET", "/apps", "", 200)},
		{"show app", call("GET", "/apps/default", "", 200)},
		{"replace credential", call("PUT", "/apps/default", AppBody(), 200)},
		{"create app", call("PUT", "/apps/spare", AppBody(), 201)},
		{"delete app", call("DELETE", "/apps/spare", "", 204)},
		{"restore app", call("PUT", "/apps/spare", AppBody(), 201)},
		{"delete connection", call("DELETE", "/connections/default/two", "", 204)},
		{"restore connection", call("POST", "/connections", bodyOfTwo, 201)},
		{"delete it again", call("DELETE", "/connections/default/two", "", 204)},
		{"restore it again", call("POST", "/connections", bodyOfTwo, 201)},
		{"scheduled sweep", sweep(`{}`, 1, 0)}, // default/one has a token from before its app's new credential
		{"named sweep", sweep(named, 1, 0)},
		{"events of sweeps", events(sweep(named, 1, 0), sweep(named, 0, 1))},
		{"forced sweep", sweep(`{"force":true}`, 2, 0)},
		{"refusal in sweep", refused(sweep(`{"force":true}`, 0, 2), "default/one", "default/two")},
		{"provision federated", call("POST", "/connections", federated, 201)},
		{"sweep federated", sweep(`{"connections":["federated/one"],"force":true}`, 1, 0)},
		{"accept", accept("default")},
		{"accept again", accept("default")},
		{"accept federated", accept("federated")},
	}
}

// try runs the scenario with the permissions that are granted. It returns the steps that do not
// work, and what the functions log and answer in these. Such a step is then done with all
// permissions, for the steps after it.
func try(t *testing.T, granted []permission) (stopped []string, output string) {
	t.Helper()
	// Twins of the functions have another access key ID, and may do everything.
	tagged := func(tags map[string]string) map[string][]string {
		keys := make(map[string][]string)
		for key, value := range tags {
			keys["secretsmanager:ResourceTag/"+key] = []string{value}
		}
		return keys
	}
	may := func(accessKeyID, action, resource string, keys map[string][]string) bool {
		return accessKeyID == "local" || allowed(granted, accessKeyID, action, resource, keys)
	}
	var waited atomic.Int64
	c := Start(t, stack.Options{
		Secrets: secretstoretest.Options{Now: func() time.Time { return time.Now().Add(time.Duration(waited.Load())) }, AuthorizeTagged: func(accessKeyID, action, resource string, tags map[string]string) bool {
			return may(accessKeyID, action, resource, tagged(tags))
		}},
		STS: ststest.Options{Now: time.Now, Authorize: func(accessKeyID, audience string) bool {
			return may(accessKeyID, "sts:GetWebIdentityToken", "*", map[string][]string{"sts:IdentityTokenAudience": {audience}})
		}},
		ProvisionEnv: []string{"AWS_ACCESS_KEY_ID=ProvisionRole"},
		RefreshEnv:   []string{"AWS_ACCESS_KEY_ID=RefreshRole"},
		Connect:      ConnectBinary,
		ConnectEnv:   []string{"AWS_ACCESS_KEY_ID=ConnectRole"},
		Env:          []string{"CONNECT_PAGE=true", "READER_ACCOUNTS=444455556666"},
	})
	c.Entra.AddUser(entratest.User{Account: "ada@contoso.com", TenantID: TenantA, Roles: []string{entratest.GlobalAdministrator}})
	redirect := []string{"https://" + PageHost + "/connect/callback"}
	c.Entra.AddApp(entratest.App{ClientID: ClientID, Secrets: []entratest.Secret{{Value: Secret}, {Value: NewSecret}}, RedirectURIs: redirect})
	c.Entra.AddApp(entratest.App{ClientID: OtherID, RedirectURIs: redirect, Federated: []entratest.Federated{
		{Issuer: c.STS.Issuer(), Subject: c.STS.Subject(), Audience: audience, Key: c.STS.Key()},
	}})
	c.Events.Authorize(func(accessKeyID, bus, source, detailType string) bool {
		return may(accessKeyID, "events:PutEvents", bus, map[string][]string{"events:source": {source}, "events:detail-type": {detailType}})
	})
	twin := sync.OnceValue(func() *Connector { return c.Twin("AWS_ACCESS_KEY_ID=local") })
	for _, s := range scenario(c) {
		before := len(c.Output())
		err := s.do(c)
		if err == nil {
			continue
		}
		said := c.Output()[before:]
		if !strings.Contains(said, "AccessDenied") && !strings.Contains(said, "federation_denied") {
			t.Errorf("%s: %v, and nobody is told that a permission is missing:\n%s", s.name, err, said)
		}
		stopped, output = append(stopped, s.name), output+said
		waited.Add(int64(2 * time.Minute)) // for what was begun and left
		if err := s.do(twin()); err != nil {
			t.Fatalf("%s: %v, with all permissions", s.name, err)
		}
	}
	return stopped, output
}

func TestRolesAreExactlyEnough(t *testing.T) {
	resources := templatetest.Read(t, everything)
	granted := permissions(t, resources)
	compare(t, resources, granted)
	if stopped, output := try(t, granted); len(stopped) > 0 {
		t.Errorf("this does not work: %q\n%s", stopped, output)
	}
	if t.Failed() {
		return // the permissions that are too many come later
	}
	for i, p := range granted {
		need, ok := needs[p.String()]
		if !ok {
			continue
		}
		t.Run("without "+p.String(), func(t *testing.T) {
			t.Parallel()
			stopped, output := try(t, slices.Delete(slices.Clone(granted), i, i+1))
			if got := strings.Join(stopped, ", "); got == "" {
				t.Error("nothing stops working: take it out of the template")
			} else if got != need.stops {
				t.Errorf("what stops working is\n\t%s\nbut in the list it is\n\t%s", got, need.stops)
			} else if !strings.Contains(output, need.told) {
				t.Errorf("nobody is told %q:\n%s", need.told, output)
			}
		})
	}
}

// compare wants the permissions in the template to be those in the lists, and to be for what they
// say.
func compare(t *testing.T, resources map[string]templatetest.Resource, granted []permission) {
	t.Helper()
	missing, unused := maps.Clone(usedElsewhere), maps.Clone(wildcards)
	for name, need := range needs {
		missing[name] = need.stops
	}
	for _, p := range granted {
		if missing[p.String()] == "" {
			t.Errorf("the template has a permission twice, or one that is in no list; say what stops working without it: %s", p)
		}
		delete(missing, p.String())
		what := here.ReplaceAllString(p.resource, "")
		if what == "*" {
			what = p.action
		}
		if strings.ContainsAny(p.action, "*?") || strings.ContainsAny(p.resource, "*?") && wildcards[what] == "" {
			t.Errorf("this is more than one action, or has a wildcard without a reason: %s", p)
		}
		delete(unused, what)
	}
	for name, stops := range missing {
		t.Errorf("the template lacks %s\nwithout which this stops working: %s", name, stops)
	}
	if len(unused) > 0 {
		t.Errorf("no permission has the wildcards %v", unused)
	}
	for path, want := range uses {
		id, rest, _ := strings.Cut(path, ".")
		got := any(resources[id].Properties)
		for name := range strings.SplitSeq(rest, ".") {
			object, _ := got.(map[string]any)
			got = object[name]
		}
		if text, _ := json.Marshal(got); strings.Trim(string(text), `"`) != want {
			t.Errorf("%s is %s, want %s", path, text, want)
		}
	}
	for id, r := range resources {
		switch {
		case r.Type == "AWS::Serverless::Function" && (uses[id+".Role"] == "" || r.Properties["Policies"] != nil):
			t.Errorf("%s has permissions besides those of its role", id)
		case r.Type == "AWS::IAM::Role" && uses[id+".AssumeRolePolicyDocument.Statement"] == "":
			t.Errorf("say who may take on %s", id)
		}
	}
}

func TestRolesReachNoFurther(t *testing.T) {
	const app, connection = "entra/apps/default", "entra/connections/default/one"
	granted := permissions(t, templatetest.Read(t, everything))
	never := map[string][]string{ // actions by role and secret
		"RefreshRole " + app:          {"CreateSecret", "UpdateSecret", "DeleteSecret", "RestoreSecret", "TagResource", "UntagResource"},
		"RefreshRole " + connection:   {"CreateSecret", "GetSecretValue", "DeleteSecret", "RestoreSecret", "TagResource", "UntagResource"},
		"ProvisionRole " + connection: {"GetSecretValue"},
		"ConnectRole " + app:          {"CreateSecret", "UpdateSecret", "DeleteSecret", "RestoreSecret", "TagResource", "UntagResource"},
		// But for one whose tags say that it is invited.
		"ConnectRole " + connection:                        {"CreateSecret", "GetSecretValue", "UpdateSecret", "DeleteSecret", "RestoreSecret", "TagResource", "UntagResource"},
		"IntegrationPolicy " + app:                         {"GetSecretValue"},
		"IntegrationPolicy " + connection:                  {"UpdateSecret"},
		"IntegrationPolicy entra/connections/default2/one": {"GetSecretValue"},
	}
	for _, role := range []string{"ProvisionRole", "RefreshRole", "ConnectRole"} {
		for _, name := range []string{"other", "entra", "entra/other", "entra-2/apps/default", "other/entra/apps/default", "entra/apps"} {
			never[role+" "+name] = []string{"GetSecretValue", "DescribeSecret", "CreateSecret", "UpdateSecret", "DeleteSecret", "RestoreSecret", "TagResource"}
		}
		for audience, want := range map[string]bool{audience: true, "api://another": false} {
			if allowed(granted, role, "sts:GetWebIdentityToken", "*", map[string][]string{"sts:IdentityTokenAudience": {audience}}) != want {
				t.Errorf("%s gets an identity token for %s: %t", role, audience, !want)
			}
		}
	}
	for who, actions := range never {
		role, name, _ := strings.Cut(who, " ")
		for _, action := range append(actions, "BatchGetSecretValue") {
			if allowed(granted, role, "secretsmanager:"+action, secretARN+name+"-AbCdEf", nil) {
				t.Errorf("%s can do %s with %s", role, action, name)
			}
		}
	}
}

func TestRolesFollowTheParameters(t *testing.T) {
	for action, name := range map[string]string{"kms:": "KmsKeyArn", "sts:": "Federation", "ec2:": "SubnetIds", "xray:": "Tracing"} {
		without := maps.Clone(everything)
		without["SecretPrefix"] = "team/tokens"
		delete(without, name)
		for _, p := range permissions(t, templatetest.Read(t, without)) {
			if strings.HasPrefix(p.action, action) {
				t.Errorf("without %s, there is %s", name, p)
			}
			if strings.HasPrefix(p.action, "secretsmanager:") && p.resource != "*" && !strings.HasPrefix(p.resource, secretARN+"team/tokens/") {
				t.Errorf("with another prefix, there is %s", p)
			}
		}
	}
}
