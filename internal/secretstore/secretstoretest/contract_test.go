package secretstoretest_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	sm "github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"entra-connector/internal/secretstore/secretstoretest"
)

// endpoint names another Secrets Manager to hold to this contract: the URL of one such as moto, or
// "aws" for AWS itself, with the credentials and Region of the environment. By default it is the
// stand-in.
var endpoint = os.Getenv("SECRETS_MANAGER_ENDPOINT")

const live = "aws"

// motoDiffers is where moto 5.2.1 answers differently from AWS: by the name of the check, what moto
// answers. This test found it, and moto/secretsmanager/models.py shows it. What AWS answers is from
// the Secrets Manager API Reference unless another source is named. Another endpoint may answer
// either way.
var motoDiffers = map[string]string{
	// InvalidRequestException is among each operation's errors, for a secret that is scheduled for
	// deletion. For the tags it was recorded from AWS in github.com/localstack/localstack, 13662.
	"CreateSecret while deletion is pending":   "ResourceExistsException",
	"PutSecretValue while deletion is pending": success,
	"TagResource while deletion is pending":    success,
	"UntagResource while deletion is pending":  success,

	// UpdateSecret: Description may be empty.
	"description after an empty one": "new",

	// The constraints of CreateSecret's and UpdateSecret's parameters. A token of the wrong length
	// is a ValidationException, as the constraints of all of them are.
	"value of 65,537 bytes":            success,
	"update to 65,537 bytes":           success,
	"empty value":                      success,
	"description of 2,049":             success,
	"description of 2,049 on creation": success,
	"name of 513":                      success,
	"name with a colon":                success,
	"token of 31":                      "InvalidParameterException",
	"token of 65":                      "InvalidParameterException",

	// The constraints of ListSecrets' parameters; InvalidNextTokenException for a token that was
	// not issued.
	"list by name":          "99 98 97 96 95 94 93 92 91 90",
	"filter without values": "InvalidParameterException",
	"made-up NextToken":     "HTTP 500",
	"MaxResults 0":          success,
	"MaxResults 101":        success,
}

const success = "success"

// contract is one run against one endpoint. Its secrets are below a prefix of its own.
type contract struct {
	*testing.T
	*sm.Client
	prefix string
	settle func() // waits until a list shows the present
}

func newContract(t *testing.T) contract {
	c := contract{T: t, prefix: "contract/" + rand.Text() + "/", settle: func() {}}
	switch endpoint {
	case "":
		c.Client = clientOf(secretstoretest.Start(t, secretstoretest.Options{}).URL(), 1)
	case live:
		cfg, err := config.LoadDefaultConfig(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c.Client = sm.NewFromConfig(cfg)
		c.settle = sync.OnceFunc(func() { time.Sleep(5 * time.Minute) }) // the API reference: within five minutes
	default:
		c.Client = clientOf(endpoint, 3) // moto's server drops a connection now and then
	}
	return c
}

// CreateSecret makes sure that nothing stays on AWS.
func (c contract) CreateSecret(ctx context.Context, in *sm.CreateSecretInput) (*sm.CreateSecretOutput, error) {
	out, err := c.Client.CreateSecret(ctx, in)
	if err == nil && endpoint == live {
		c.Cleanup(func() {
			if err := call(context.Background(), c.Client, "forced DeleteSecret", *in.Name); err != nil {
				c.Errorf("%s is left behind: %v", *in.Name, err)
			}
		})
	}
	return out, err
}

// clientOf is the real SDK's client, which tries each call so often.
func clientOf(url string, attempts int) *sm.Client {
	return sm.New(sm.Options{
		BaseEndpoint:     &url,
		Region:           "us-east-1",
		RetryMaxAttempts: attempts,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "example"}, nil
		}),
	})
}

// call makes a call about a secret that succeeds if the secret is live; CreateSecret does if there
// is none.
func call(ctx context.Context, c *sm.Client, op, id string) (err error) {
	switch op {
	case "CreateSecret":
		_, err = c.CreateSecret(ctx, &sm.CreateSecretInput{Name: &id, SecretString: new("v2"), Tags: []types.Tag{{Key: new("k"), Value: new("v")}}})
	case "UpdateSecret":
		_, err = c.UpdateSecret(ctx, &sm.UpdateSecretInput{SecretId: &id, SecretString: new("v2"), Description: new("d2")})
	case "PutSecretValue":
		_, err = c.PutSecretValue(ctx, &sm.PutSecretValueInput{SecretId: &id, SecretString: new("v2")})
	case "DeleteSecret":
		_, err = c.DeleteSecret(ctx, &sm.DeleteSecretInput{SecretId: &id})
	case "forced DeleteSecret":
		_, err = c.DeleteSecret(ctx, &sm.DeleteSecretInput{SecretId: &id, ForceDeleteWithoutRecovery: new(true)})
	case "RestoreSecret":
		_, err = c.RestoreSecret(ctx, &sm.RestoreSecretInput{SecretId: &id})
	case "TagResource":
		_, err = c.TagResource(ctx, &sm.TagResourceInput{SecretId: &id, Tags: []types.Tag{{Key: new("k"), Value: new("v")}}})
	case "UntagResource":
		_, err = c.UntagResource(ctx, &sm.UntagResourceInput{SecretId: &id, TagKeys: []string{"k"}})
	case "GetSecretValue":
		_, err = c.GetSecretValue(ctx, &sm.GetSecretValueInput{SecretId: &id})
	case "DescribeSecret":
		_, err = c.DescribeSecret(ctx, &sm.DescribeSecretInput{SecretId: &id})
	case "ListSecrets":
		_, err = c.ListSecrets(ctx, &sm.ListSecretsInput{})
	default:
		panic(op)
	}
	return err
}

// expect checks the outcome of a call: an exception type, or success.
func (c contract) expect(check, want string, err error) {
	c.Helper()
	if !c.same(check, outcome(err), want) && err != nil {
		c.Log(err)
	}
}

// same checks anything else that endpoints may differ in.
func (c contract) same(check string, got, want any) bool {
	c.Helper()
	g, w := fmt.Sprint(got), fmt.Sprint(want)
	if other, known := motoDiffers[check]; known && endpoint != "" && endpoint != live && g == other {
		c.Logf("%s: %s, AWS: %s", check, g, w)
		return true
	}
	if g != w {
		c.Errorf("%s: got %s, want %s", check, g, w)
	}
	return g == w
}

func outcome(err error) string {
	var api smithy.APIError
	var response *smithyhttp.ResponseError
	switch {
	case err == nil:
		return success
	case errors.As(err, &api):
		return api.ErrorCode()
	case errors.As(err, &response) && response.HTTPStatusCode() != 0:
		return fmt.Sprint("HTTP ", response.HTTPStatusCode())
	default:
		return "no answer"
	}
}

// create makes a secret that holds v1 and returns its name and ARN.
func (c contract) create(name string) (string, string) {
	c.Helper()
	name = c.prefix + name
	out, err := c.CreateSecret(c.Context(), &sm.CreateSecretInput{Name: &name, SecretString: new("v1")})
	if err != nil {
		c.Fatal(err)
	}
	return name, aws.ToString(out.ARN)
}

func (c contract) read(id string) *sm.GetSecretValueOutput {
	c.Helper()
	out, err := c.GetSecretValue(c.Context(), &sm.GetSecretValueInput{SecretId: &id})
	if err != nil {
		c.Fatal(err)
	}
	return out
}

// holds checks the current value of a secret.
func (c contract) holds(when, id, value string) {
	c.Helper()
	c.same("value "+when, aws.ToString(c.read(id).SecretString), value)
}

func (c contract) describe(id string) *sm.DescribeSecretOutput {
	c.Helper()
	out, err := c.DescribeSecret(c.Context(), &sm.DescribeSecretInput{SecretId: &id})
	if err != nil {
		c.Fatal(err)
	}
	return out
}

// list is the names that a list has, without the prefix.
func (c contract) list(in *sm.ListSecretsInput) []string {
	c.Helper()
	c.settle()
	names, _ := list(c.T, c.Client, *in)
	for i := range names {
		names[i] = strings.TrimPrefix(names[i], c.prefix)
	}
	return names
}

// list lists page by page and returns the names in order, and how many each page had.
func list(t *testing.T, client *sm.Client, in sm.ListSecretsInput) (names []string, sizes string) {
	t.Helper()
	for pages := sm.NewListSecretsPaginator(client, &in); pages.HasMorePages(); {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.SecretList {
			names = append(names, aws.ToString(e.Name))
		}
		sizes += fmt.Sprint(" ", len(page.SecretList))
	}
	return names, sizes
}

// beginning is the filter for names that begin with one of these.
func beginning(names ...string) []types.Filter {
	return []types.Filter{{Key: types.FilterNameStringTypeName, Values: names}}
}

// token is a ClientRequestToken that was not used before.
func token() string { return rand.Text() + rand.Text() }

func TestContractCreate(t *testing.T) {
	c := newContract(t)
	name, id, arn := c.prefix+"a", token(), ""
	for _, x := range []struct{ check, token, value, want string }{
		{"create", id, "v1", success},
		{"create again", id, "v1", success},
		{"create again with another value", id, "v2", "ResourceExistsException"},
		{"create again with another token", token(), "v1", "ResourceExistsException"},
	} {
		out, err := c.CreateSecret(c.Context(), &sm.CreateSecretInput{
			Name: &name, ClientRequestToken: &x.token, SecretString: &x.value, Description: new("what it is"),
		})
		if c.expect(x.check, x.want, err); err == nil {
			arn = cmp.Or(arn, aws.ToString(out.ARN))
			c.same("answer to "+x.check, fmt.Sprint(aws.ToString(out.Name), aws.ToString(out.VersionId), aws.ToString(out.ARN)), fmt.Sprint(name, id, arn))
		}
		c.holds("after "+x.check, name, "v1")
	}
	if !regexp.MustCompile(`^arn:[a-z-]+:secretsmanager:[a-z0-9-]+:\d{12}:secret:` + regexp.QuoteMeta(name) + `-[A-Za-z0-9]{6}$`).MatchString(arn) {
		t.Errorf("ARN %q", arn)
	}
	got := c.read(arn)
	c.same("read by ARN", fmt.Sprint(aws.ToString(got.SecretString), aws.ToString(got.VersionId), got.VersionStages), fmt.Sprint("v1", id, "[AWSCURRENT]"))
	c.same("hours since the version's CreatedDate", time.Since(aws.ToTime(got.CreatedDate)).Round(time.Hour), 0*time.Hour)
	d := c.describe(arn)
	c.same("description", fmt.Sprint(aws.ToString(d.Description), aws.ToString(d.ARN), d.DeletedDate), fmt.Sprint("what it is", arn, nil))
}

func TestContractCreateEmpty(t *testing.T) {
	c := newContract(t)
	name := c.prefix + "a"
	out, err := c.CreateSecret(c.Context(), &sm.CreateSecretInput{Name: &name})
	if err != nil {
		t.Fatal(err)
	}
	c.same("version without a value", aws.ToString(out.VersionId), "")
	c.expect("read an empty secret", "ResourceNotFoundException", call(c.Context(), c.Client, "GetSecretValue", name))
	c.expect("fill an empty secret", success, call(c.Context(), c.Client, "UpdateSecret", name))
	c.holds("after filling", name, "v2")
}

// TestContractWrite is about the token, which makes a write safe to repeat.
func TestContractWrite(t *testing.T) {
	c := newContract(t)
	for op, write := range map[string]func(name, token, value *string) (string, error){
		"UpdateSecret": func(name, token, value *string) (string, error) {
			out, err := c.UpdateSecret(c.Context(), &sm.UpdateSecretInput{SecretId: name, ClientRequestToken: token, SecretString: value, Description: new("d2")})
			return aws.ToString(cmp.Or(out, new(sm.UpdateSecretOutput)).VersionId), err
		},
		"PutSecretValue": func(name, token, value *string) (string, error) {
			out, err := c.PutSecretValue(c.Context(), &sm.PutSecretValueInput{SecretId: name, ClientRequestToken: token, SecretString: value})
			return aws.ToString(cmp.Or(out, new(sm.PutSecretValueOutput)).VersionId), err
		},
	} {
		name, _ := c.create(op)
		labels := make(map[string][]string)
		for first := range c.describe(name).VersionIdsToStages {
			labels[first] = []string{"AWSPREVIOUS"}
		}
		id := token()
		labels[id] = []string{"AWSCURRENT"}
		for _, x := range []struct{ again, value, want, version string }{
			{"", "v2", success, id},
			{" again", "v2", success, id},
			{" again with another value", "v3", "ResourceExistsException", ""},
		} {
			version, err := write(&name, &id, &x.value)
			c.expect(op+x.again, x.want, err)
			c.same("version of "+op+x.again, version, x.version)
			c.holds("after "+op+x.again, name, "v2")
			c.same("labels after "+op+x.again, c.describe(name).VersionIdsToStages, labels)
		}
		if op == "UpdateSecret" {
			c.same("description after "+op, aws.ToString(c.describe(name).Description), "d2")
		}
	}
}

func TestContractUpdateDescription(t *testing.T) {
	c := newContract(t)
	name, _ := c.create("a")
	before := c.describe(name)
	for _, description := range []string{"new", ""} {
		out, err := c.UpdateSecret(c.Context(), &sm.UpdateSecretInput{SecretId: &name, Description: &description})
		if err != nil {
			t.Fatal(err)
		}
		c.same("version of a description", aws.ToString(out.VersionId), "")
		after := c.describe(name)
		c.same("description after "+cmp.Or(description, "an empty one"), aws.ToString(after.Description), description)
		c.same("versions after a description", after.VersionIdsToStages, before.VersionIdsToStages)
		c.holds("after a description", name, "v1")
	}
}

func TestContractPendingDeletion(t *testing.T) {
	c := newContract(t)
	ctx := c.Context()
	name, arn := c.create("a")
	var deletion time.Time
	for _, x := range []struct {
		check, want string
		in          sm.DeleteSecretInput
		days        int
	}{
		{"recovery window of 6 days", "InvalidParameterException", sm.DeleteSecretInput{RecoveryWindowInDays: new(int64(6))}, 0},
		{"recovery window of 31 days", "InvalidParameterException", sm.DeleteSecretInput{RecoveryWindowInDays: new(int64(31))}, 0},
		{"forced deletion with a recovery window", "InvalidParameterException",
			sm.DeleteSecretInput{RecoveryWindowInDays: new(int64(7)), ForceDeleteWithoutRecovery: new(true)}, 0},
		{"deletion", success, sm.DeleteSecretInput{}, 30},
		{"recovery window of 7 days", success, sm.DeleteSecretInput{RecoveryWindowInDays: new(int64(7))}, 7},
	} {
		c.expect("restore before "+x.check, success, call(ctx, c.Client, "RestoreSecret", name))
		x.in.SecretId = &name
		out, err := c.DeleteSecret(ctx, &x.in)
		if c.expect(x.check, x.want, err); err == nil {
			deletion = aws.ToTime(out.DeletionDate)
			c.same("days until "+x.check, int(time.Until(deletion).Round(time.Hour).Hours()), 24*x.days)
		}
	}
	for _, op := range []string{"CreateSecret", "GetSecretValue", "UpdateSecret", "PutSecretValue", "TagResource", "UntagResource", "DeleteSecret"} {
		err := call(ctx, c.Client, op, name)
		c.expect(op+" while deletion is pending", "InvalidRequestException", err)
		if op == "CreateSecret" && endpoint == "" && !strings.Contains(fmt.Sprint(err), "scheduled for deletion") {
			t.Errorf("CreateSecret does not say why: %v", err)
		}
	}
	c.same("DeletedDate while deletion is pending", aws.ToTime(c.describe(name).DeletedDate), deletion)
	for planned, want := range map[bool]string{false: "[]", true: "[a]"} {
		c.same(fmt.Sprint("list with planned deletions ", planned), c.list(&sm.ListSecretsInput{Filters: beginning(c.prefix), IncludePlannedDeletion: &planned}), want)
	}

	for range 2 { // restoring a live secret succeeds too
		restored, err := c.RestoreSecret(ctx, &sm.RestoreSecretInput{SecretId: &name})
		if err != nil {
			t.Fatal(err)
		}
		c.same("restored ARN", aws.ToString(restored.ARN), arn)
	}
	c.same("DeletedDate after the restore", c.describe(name).DeletedDate, (*time.Time)(nil))
	if endpoint == "" { // moto has let some of the calls above through
		c.holds("after the restore", name, "v1")
	}
}

func TestContractForcedDeletion(t *testing.T) {
	c := newContract(t)
	ctx := c.Context()
	name, arn := c.create("a")
	c.expect("forced deletion", success, call(ctx, c.Client, "forced DeleteSecret", name))
	for _, op := range []string{"GetSecretValue", "DescribeSecret", "UpdateSecret", "PutSecretValue", "DeleteSecret", "RestoreSecret", "TagResource", "UntagResource"} {
		c.expect(op+" of nothing", "ResourceNotFoundException", call(ctx, c.Client, op, name))
	}
	c.expect("forced deletion of nothing", success, call(ctx, c.Client, "forced DeleteSecret", name))

	if _, second := c.create("a"); second == arn {
		t.Errorf("created again with the same ARN %q", arn)
	}
	c.expect("read by the former ARN", "ResourceNotFoundException", call(ctx, c.Client, "GetSecretValue", arn))
	c.expect("forced deletion by the former ARN", success, call(ctx, c.Client, "forced DeleteSecret", arn))
	c.expect("deletion", success, call(ctx, c.Client, "DeleteSecret", name))
	c.expect("forced deletion while deletion is pending", success, call(ctx, c.Client, "forced DeleteSecret", name))
	c.create("a")
}

func TestContractLimits(t *testing.T) {
	c := newContract(t)
	existing, _ := c.create("a")
	create := func(in sm.CreateSecretInput) error {
		in.Name = new(c.prefix + cmp.Or(aws.ToString(in.Name), token()))
		_, err := c.CreateSecret(c.Context(), &in)
		return err
	}
	update := func(in sm.UpdateSecretInput) error {
		in.SecretId = &existing
		_, err := c.UpdateSecret(c.Context(), &in)
		return err
	}
	full := strings.Repeat("x", 65536)
	for _, x := range []struct {
		check, want string
		err         error
	}{
		{"value of 65,536 bytes", success, create(sm.CreateSecretInput{SecretString: &full})},
		{"value of 65,537 bytes", "ValidationException", create(sm.CreateSecretInput{SecretString: new(full + "x")})},
		{"update to 65,537 bytes", "ValidationException", update(sm.UpdateSecretInput{SecretString: new(full + "x")})},
		{"empty value", "ValidationException", update(sm.UpdateSecretInput{SecretString: new("")})},
		{"description of 2,048", success, update(sm.UpdateSecretInput{Description: new(full[:2048])})},
		{"description of 2,049", "ValidationException", update(sm.UpdateSecretInput{Description: new(full[:2049])})},
		{"description of 2,049 on creation", "ValidationException", create(sm.CreateSecretInput{Description: new(full[:2049])})},
		{"name of 512", success, create(sm.CreateSecretInput{Name: new(full[:512-len(c.prefix)])})},
		{"name of 513", "ValidationException", create(sm.CreateSecretInput{Name: new(full[:513-len(c.prefix)])})},
		{"name with every character", success, create(sm.CreateSecretInput{Name: new("aZ09/_+=.@-")})},
		{"name with a colon", "ValidationException", create(sm.CreateSecretInput{Name: new("a:b")})},
		{"token of 31", "ValidationException", update(sm.UpdateSecretInput{SecretString: new("x"), ClientRequestToken: new(full[:31])})},
		{"token of 64", success, update(sm.UpdateSecretInput{SecretString: new("x"), ClientRequestToken: new(full[:64])})},
		{"token of 65", "ValidationException", update(sm.UpdateSecretInput{SecretString: new("x"), ClientRequestToken: new(full[:65])})},
	} {
		c.expect(x.check, x.want, x.err)
	}
}

func TestContractTags(t *testing.T) {
	c := newContract(t)
	name := c.prefix + "a"
	_, err := c.CreateSecret(c.Context(), &sm.CreateSecretInput{
		Name: &name, Tags: []types.Tag{{Key: new("a"), Value: new("1")}, {Key: new("k"), Value: new("2")}, {Key: new("kept"), Value: new("5")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	c.expect("tag", success, call(c.Context(), c.Client, "TagResource", name))
	_, err = c.UntagResource(c.Context(), &sm.UntagResourceInput{SecretId: &name, TagKeys: []string{"a", "none"}})
	c.expect("untag", success, err)
	got := make(map[string]string)
	for _, tag := range c.describe(name).Tags {
		got[aws.ToString(tag.Key)] = aws.ToString(tag.Value)
	}
	c.same("tags", got, map[string]string{"k": "v", "kept": "5"})
}

func TestContractList(t *testing.T) {
	c := newContract(t)
	var all []string
	for i := range 25 {
		name := fmt.Sprintf("%02d", 99-i)
		c.create(name)
		all = append(all, name)
	}
	c.create("A")
	list := func(check, want string, in sm.ListSecretsInput) {
		t.Helper()
		names := c.list(&in)
		if in.SortBy == "" {
			slices.Sort(names) // by creation; the reference does not say in which direction
		}
		c.same("list "+check, strings.Join(names, " "), want)
	}
	slices.Sort(all)
	list("in pages", strings.Join(all, " "), sm.ListSecretsInput{Filters: beginning(c.prefix+"9", c.prefix+"8", c.prefix+"7"), MaxResults: new(int32(10))})
	list("by name", "90 91 92 93 94 95 96 97 98 99", sm.ListSecretsInput{Filters: beginning(c.prefix + "9"), SortBy: "name", SortOrder: "asc"})
	list("by a name in another case", "", sm.ListSecretsInput{Filters: beginning(c.prefix + "a")})
	list("by an inner part of a name", "", sm.ListSecretsInput{Filters: beginning(strings.TrimPrefix(c.prefix, "contract"))})
	list("by two filters", "91", sm.ListSecretsInput{Filters: slices.Concat(beginning(c.prefix), beginning(c.prefix+"91"))})

	first, err := c.ListSecrets(c.Context(), &sm.ListSecretsInput{Filters: beginning(c.prefix), MaxResults: new(int32(10))})
	if err != nil {
		t.Fatal(err)
	}
	c.same("first page", fmt.Sprint(len(first.SecretList), first.NextToken != nil), "10 true")
	for _, e := range first.SecretList {
		created, changed := time.Since(aws.ToTime(e.CreatedDate)), time.Since(aws.ToTime(e.LastChangedDate))
		if !strings.HasPrefix(aws.ToString(e.ARN), "arn:") || max(created.Abs(), changed.Abs()) > time.Hour || len(e.SecretVersionsToStages) != 1 {
			t.Errorf("entry %+v lacks something", e)
		}
	}
	for check, in := range map[string]sm.ListSecretsInput{
		"filter by an unknown key": {Filters: []types.Filter{{Key: "colour", Values: []string{"red"}}}},
		"filter without values":    {Filters: beginning()},
		"MaxResults 0":             {MaxResults: new(int32(0))},
		"MaxResults 101":           {MaxResults: new(int32(101))},
	} {
		_, err := c.ListSecrets(c.Context(), &in)
		c.expect(check, "ValidationException", err)
	}
	_, err = c.ListSecrets(c.Context(), &sm.ListSecretsInput{NextToken: new("made-up")})
	c.expect("made-up NextToken", "InvalidNextTokenException", err)
}
