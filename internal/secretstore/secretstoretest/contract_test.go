package secretstoretest_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"entra-connector/internal/secretstore/secretstoretest"
)

// endpoint names another Secrets Manager to hold to this contract: the URL of one such as moto, or "aws" for AWS itself,
// with the credentials and Region of the environment. By default it is the stand-in.
var endpoint = os.Getenv("SECRETS_MANAGER_ENDPOINT")

const live = "aws"

// motoDiffers is where moto 5.2.1 answers otherwise than AWS: by the name of the check, what it gives instead, as this test
// found it and moto/secretsmanager/models.py has it. What AWS gives is from the Secrets Manager API Reference where nothing
// else is said. Another endpoint may answer either way.
var motoDiffers = map[string]string{
	// InvalidRequestException is among each operation's errors, for a secret that is scheduled for deletion. For the tags
	// it was recorded from AWS in github.com/localstack/localstack, 13662.
	"CreateSecret while deletion is pending":         "ResourceExistsException",
	"PutSecretValue while deletion is pending":       success,
	"TagResource while deletion is pending":          success,
	"UntagResource while deletion is pending":        success,
	"ListSecretVersionIds while deletion is pending": success,

	// ListSecretVersionIds: ResourceNotFoundException; IncludeDeprecated: false leaves out versions without a label.
	"ListSecretVersionIds of nothing": "HTTP 500",
	"versions with deprecated false":  "3",

	// UpdateSecret: a ClientRequestToken that is the ID of a version is a ResourceExistsException, whatever the value;
	// Description may be empty.
	"update again with v2":           success, // the value that is there
	"description after an empty one": "new",

	// The constraints of CreateSecret's and UpdateSecret's parameters. A token of the wrong length is a ValidationException,
	// as the constraints of all of them are.
	"value of 65,537 bytes":            success,
	"update to 65,537 bytes":           success,
	"empty value":                      success,
	"string and bytes":                 success,
	"description of 2,049":             success,
	"description of 2,049 on creation": success,
	"name of 513":                      success,
	"name with a colon":                success,
	"token of 31":                      "InvalidParameterException",
	"token of 65":                      "InvalidParameterException",

	// The constraints of ListSecrets' and BatchGetSecretValue's parameters; InvalidNextTokenException for a token that was
	// not issued.
	"filter without values": "InvalidParameterException",
	"filter with 11 values": success,
	"11 filters":            success,
	"made-up NextToken":     "HTTP 500",
	"MaxResults 0":          success,
	"MaxResults 101":        success,
	"batch of 21":           success,
	"batch of nothing":      success,
}

const success = "success"

// contract is one run against one endpoint. Its secrets are below a prefix of its own.
type contract struct {
	*testing.T
	*secretsmanager.Client
	prefix string
	settle func() // waits until a list has what there is
}

func newContract(t *testing.T) contract {
	c := contract{T: t, prefix: "contract/" + rand.Text() + "/", settle: func() {}}
	switch endpoint {
	case "":
		c.Client = newClient(secretstoretest.Start(t, secretstoretest.Options{}).URL(), 1)
	case live:
		cfg, err := config.LoadDefaultConfig(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c.Client = secretsmanager.NewFromConfig(cfg)
		c.settle = sync.OnceFunc(func() { time.Sleep(5 * time.Minute) }) // the API reference: within five minutes
	default:
		c.Client = newClient(endpoint, 3) // moto's server drops a connection now and then
	}
	return c
}

// CreateSecret makes sure that nothing stays on AWS.
func (c contract) CreateSecret(ctx context.Context, in *secretsmanager.CreateSecretInput) (*secretsmanager.CreateSecretOutput, error) {
	out, err := c.Client.CreateSecret(ctx, in)
	if err == nil && endpoint == live {
		c.Cleanup(func() {
			_, err := c.DeleteSecret(context.Background(), &secretsmanager.DeleteSecretInput{SecretId: in.Name, ForceDeleteWithoutRecovery: new(true)})
			var gone *types.ResourceNotFoundException
			if err != nil && !errors.As(err, &gone) {
				c.Errorf("%s is left behind: %v", *in.Name, err)
			}
		})
	}
	return out, err
}

// newClient is the real SDK's client, with so many attempts a call.
func newClient(url string, attempts int) *secretsmanager.Client {
	return secretsmanager.New(secretsmanager.Options{
		BaseEndpoint:     &url,
		Region:           "us-east-1",
		RetryMaxAttempts: attempts,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "example"}, nil
		}),
	})
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

// create makes a secret that holds value and returns its name and ARN.
func (c contract) create(name, value string) (string, string) {
	c.Helper()
	out, err := c.CreateSecret(c.Context(), &secretsmanager.CreateSecretInput{Name: new(c.prefix + name), SecretString: &value})
	if err != nil {
		c.Fatal(err)
	}
	return *out.Name, *out.ARN
}

func (c contract) value(id string) string {
	c.Helper()
	out, err := c.GetSecretValue(c.Context(), &secretsmanager.GetSecretValueInput{SecretId: &id})
	if err != nil {
		c.Fatal(err)
	}
	return *out.SecretString
}

func (c contract) describe(id string) *secretsmanager.DescribeSecretOutput {
	c.Helper()
	out, err := c.DescribeSecret(c.Context(), &secretsmanager.DescribeSecretInput{SecretId: &id})
	if err != nil {
		c.Fatal(err)
	}
	return out
}

// list is the names that a filtered list has, without the prefix, sorted.
func (c contract) list(in *secretsmanager.ListSecretsInput) []string {
	c.Helper()
	c.settle()
	var names []string
	for pages := secretsmanager.NewListSecretsPaginator(c.Client, in); pages.HasMorePages(); {
		page, err := pages.NextPage(c.Context())
		if err != nil {
			c.Fatal(err)
		}
		for _, e := range page.SecretList {
			names = append(names, strings.TrimPrefix(*e.Name, c.prefix))
		}
	}
	slices.Sort(names)
	return names
}

func filter(key types.FilterNameStringType, values ...string) types.Filter {
	return types.Filter{Key: key, Values: values}
}

var tokens int

// token is a ClientRequestToken that was not used before.
func token() string {
	tokens++
	return fmt.Sprintf("%08x-%04x-4000-8000-000000000000", uint32(time.Now().UnixNano()), tokens)
}

func TestContractCreate(t *testing.T) {
	c := newContract(t)
	name, id := c.prefix+"a", token()
	create := func(id, value string) (*secretsmanager.CreateSecretOutput, error) {
		return c.CreateSecret(c.Context(), &secretsmanager.CreateSecretInput{
			Name: &name, ClientRequestToken: &id, SecretString: &value, Description: new("what it is"),
		})
	}
	first, err := create(id, "v1")
	if err != nil {
		t.Fatal(err)
	}
	stem := "arn:aws:secretsmanager:us-east-1:123456789012:secret:" + name + "-"
	if endpoint == live {
		parts := strings.SplitN(*first.ARN, ":", 6) // partition, Region and account are the caller's
		stem = strings.Join(parts[:5], ":") + ":secret:" + name + "-"
	}
	if arn := *first.ARN; !strings.HasPrefix(arn, stem) || len(arn) != len(stem)+6 {
		t.Errorf("ARN %q, want %q and six characters", arn, stem)
	}
	if *first.Name != name || *first.VersionId != id {
		t.Errorf("created %q version %q, want %q version %q", *first.Name, *first.VersionId, name, id)
	}

	got, err := c.GetSecretValue(c.Context(), &secretsmanager.GetSecretValueInput{SecretId: first.ARN})
	if err != nil {
		t.Fatal(err)
	}
	if *got.SecretString != "v1" || *got.VersionId != id || !slices.Equal(got.VersionStages, []string{"AWSCURRENT"}) {
		t.Errorf("read %q version %q %v", *got.SecretString, *got.VersionId, got.VersionStages)
	}
	if age := time.Since(*got.CreatedDate); age < -time.Minute || age > time.Minute {
		t.Errorf("CreatedDate %v is not now", got.CreatedDate)
	}
	if d := c.describe(name); *d.Description != "what it is" || *d.ARN != *first.ARN || d.DeletedDate != nil {
		t.Errorf("described as %q %q %v", *d.Description, *d.ARN, d.DeletedDate)
	}

	again, err := create(id, "v1")
	c.expect("create again", success, err)
	if err == nil && (*again.ARN != *first.ARN || *again.VersionId != id) {
		t.Errorf("created again as %q %q, want what was there", *again.ARN, *again.VersionId)
	}
	_, err = create(id, "v2")
	c.expect("create again with another value", "ResourceExistsException", err)
	_, err = create(token(), "v1")
	c.expect("create again with another token", "ResourceExistsException", err)
	if got := c.value(name); got != "v1" {
		t.Errorf("value is %q after refused creations, want v1", got)
	}
}

func TestContractCreateEmpty(t *testing.T) {
	c := newContract(t)
	name := c.prefix + "a"
	out, err := c.CreateSecret(c.Context(), &secretsmanager.CreateSecretInput{Name: &name})
	if err != nil {
		t.Fatal(err)
	}
	if out.VersionId != nil {
		t.Errorf("version %q of a secret without a value", *out.VersionId)
	}
	_, err = c.GetSecretValue(c.Context(), &secretsmanager.GetSecretValueInput{SecretId: &name})
	c.expect("read an empty secret", "ResourceNotFoundException", err)
	_, err = c.PutSecretValue(c.Context(), &secretsmanager.PutSecretValueInput{
		SecretId: &name, SecretString: new("v1"), VersionStages: []string{"mine"},
	})
	c.expect("fill an empty secret", success, err)
	if got := c.value(name); got != "v1" {
		t.Errorf("value is %q, want v1", got)
	}
}

func TestContractUpdate(t *testing.T) {
	c := newContract(t)
	name, _ := c.create("a", "v1")
	before := c.describe(name)
	id := token()
	out, err := c.UpdateSecret(c.Context(), &secretsmanager.UpdateSecretInput{
		SecretId: &name, ClientRequestToken: &id, SecretString: new("v2"), Description: new("d2"),
	})
	if err != nil {
		t.Fatal(err)
	}
	if *out.VersionId != id {
		t.Errorf("version %q, want %q", *out.VersionId, id)
	}
	after := c.describe(name)
	if got := c.value(name); got != "v2" || *after.Description != "d2" {
		t.Errorf("holds %q, %q, want v2, d2", got, *after.Description)
	}
	if got := after.VersionIdsToStages[id]; !slices.Equal(got, []string{"AWSCURRENT"}) {
		t.Errorf("new version is %v", got)
	}
	for old := range before.VersionIdsToStages {
		if got := after.VersionIdsToStages[old]; !slices.Equal(got, []string{"AWSPREVIOUS"}) {
			t.Errorf("old version is %v, want AWSPREVIOUS", got)
		}
	}

	for _, value := range []string{"v2", "v3"} {
		_, err = c.UpdateSecret(c.Context(), &secretsmanager.UpdateSecretInput{
			SecretId: &name, ClientRequestToken: &id, SecretString: &value, Description: new("d3"),
		})
		c.expect("update again with "+value, "ResourceExistsException", err)
	}
	if got, d := c.value(name), *c.describe(name).Description; got != "v2" || d != "d2" {
		t.Errorf("holds %q, %q after refused updates, want v2, d2", got, d)
	}
}

func TestContractUpdateDescription(t *testing.T) {
	c := newContract(t)
	name, _ := c.create("a", "v1")
	before := c.describe(name)
	for _, description := range []string{"new", ""} {
		out, err := c.UpdateSecret(c.Context(), &secretsmanager.UpdateSecretInput{SecretId: &name, Description: &description})
		if err != nil {
			t.Fatal(err)
		}
		if out.VersionId != nil {
			t.Errorf("version %q came of a description", *out.VersionId)
		}
		after := c.describe(name)
		c.same("description after "+cmp.Or(description, "an empty one"), aws.ToString(after.Description), description)
		if fmt.Sprint(after.VersionIdsToStages) != fmt.Sprint(before.VersionIdsToStages) || c.value(name) != "v1" {
			t.Errorf("versions %v became %v", before.VersionIdsToStages, after.VersionIdsToStages)
		}
	}
}

func TestContractPut(t *testing.T) {
	c := newContract(t)
	name, _ := c.create("a", "v1")
	id := token()
	put := func(value string) (*secretsmanager.PutSecretValueOutput, error) {
		return c.PutSecretValue(c.Context(), &secretsmanager.PutSecretValueInput{SecretId: &name, ClientRequestToken: &id, SecretString: &value})
	}
	for range 2 { // the second time nothing happens
		out, err := put("v2")
		if err != nil {
			t.Fatal(err)
		}
		if *out.VersionId != id || !slices.Equal(out.VersionStages, []string{"AWSCURRENT"}) {
			t.Errorf("put %q %v", *out.VersionId, out.VersionStages)
		}
		if n := len(c.describe(name).VersionIdsToStages); n != 2 {
			t.Errorf("%d labelled versions, want 2", n)
		}
	}
	_, err := put("v3")
	c.expect("put again with another value", "ResourceExistsException", err)
	if got := c.value(name); got != "v2" {
		t.Errorf("value is %q, want v2", got)
	}
	_, err = c.PutSecretValue(c.Context(), &secretsmanager.PutSecretValueInput{SecretId: &name})
	c.expect("put nothing", "InvalidRequestException", err)
}

func TestContractBinary(t *testing.T) {
	c := newContract(t)
	name, _ := c.create("a", "v1")
	id := token()
	put := func(value ...byte) error {
		_, err := c.PutSecretValue(c.Context(), &secretsmanager.PutSecretValueInput{SecretId: &name, ClientRequestToken: &id, SecretBinary: value})
		return err
	}
	c.expect("put bytes", success, put(0, 255))
	c.expect("put the same bytes again", success, put(0, 255))
	c.expect("put other bytes again", "ResourceExistsException", put(0, 254))
	out, err := c.GetSecretValue(c.Context(), &secretsmanager.GetSecretValueInput{SecretId: &name})
	if err != nil {
		t.Fatal(err)
	}
	if out.SecretString != nil || string(out.SecretBinary) != "\x00\xff" {
		t.Errorf("read %v, %v", out.SecretString, out.SecretBinary)
	}
}

func TestContractVersions(t *testing.T) {
	c := newContract(t)
	name, _ := c.create("a", "v1")
	ids := []string{token(), token()}
	for i, id := range ids {
		_, err := c.PutSecretValue(c.Context(), &secretsmanager.PutSecretValueInput{
			SecretId: &name, ClientRequestToken: &id, SecretString: new(fmt.Sprint("v", i+2)),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	get := func(id, stage string) (string, error) {
		in := &secretsmanager.GetSecretValueInput{SecretId: &name}
		if id != "" {
			in.VersionId = &id
		}
		if stage != "" {
			in.VersionStage = &stage
		}
		out, err := c.GetSecretValue(c.Context(), in)
		if err != nil {
			return "", err
		}
		return *out.SecretString, nil
	}
	for _, x := range []struct{ check, id, stage, want, outcome string }{
		{"version by ID", ids[0], "", "v2", success},
		{"version by stage", "", "AWSPREVIOUS", "v2", success},
		{"version by both", ids[1], "AWSCURRENT", "v3", success},
		{"version by both, differing", ids[1], "AWSPREVIOUS", "", "InvalidRequestException"},
		{"version by unknown ID", token(), "", "", "ResourceNotFoundException"},
		{"version by unknown stage", "", "NONE", "", "ResourceNotFoundException"},
	} {
		got, err := get(x.id, x.stage)
		c.expect(x.check, x.outcome, err)
		if got != x.want {
			t.Errorf("%s: got %q, want %q", x.check, got, x.want)
		}
	}

	// The first version has lost its labels.
	for deprecated, want := range map[bool]int{false: 2, true: 3} {
		out, err := c.ListSecretVersionIds(c.Context(), &secretsmanager.ListSecretVersionIdsInput{SecretId: &name, IncludeDeprecated: &deprecated})
		if err != nil {
			t.Fatal(err)
		}
		c.same(fmt.Sprint("versions with deprecated ", deprecated), len(out.Versions), want)
	}

	// A label of one's own leaves AWSCURRENT where it is.
	_, err := c.PutSecretValue(c.Context(), &secretsmanager.PutSecretValueInput{
		SecretId: &name, SecretString: new("v4"), VersionStages: []string{"mine"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := get("", "mine"); got != "v4" || c.value(name) != "v3" {
		t.Errorf("mine is %q, AWSCURRENT is %q, want v4, v3; %v", got, c.value(name), err)
	}
}

func TestContractPendingDeletion(t *testing.T) {
	c := newContract(t)
	ctx := c.Context()
	name, arn := c.create("a", "v1")
	deleted, err := c.DeleteSecret(ctx, &secretsmanager.DeleteSecretInput{SecretId: &name, RecoveryWindowInDays: new(int64(7))})
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(*deleted.DeletionDate) - 7*24*time.Hour; left < -time.Minute || left > time.Minute {
		t.Errorf("deletion at %v, want in 7 days", deleted.DeletionDate)
	}

	calls := map[string]func() error{
		"CreateSecret": func() error {
			_, err := c.CreateSecret(ctx, &secretsmanager.CreateSecretInput{Name: &name, SecretString: new("v2")})
			return err
		},
		"GetSecretValue": func() error {
			_, err := c.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &name})
			return err
		},
		"PutSecretValue": func() error {
			_, err := c.PutSecretValue(ctx, &secretsmanager.PutSecretValueInput{SecretId: &name, SecretString: new("v1")})
			return err
		},
		"UpdateSecret": func() error {
			_, err := c.UpdateSecret(ctx, &secretsmanager.UpdateSecretInput{SecretId: &name, Description: new("x")})
			return err
		},
		"ListSecretVersionIds": func() error {
			_, err := c.ListSecretVersionIds(ctx, &secretsmanager.ListSecretVersionIdsInput{SecretId: &name})
			return err
		},
		"TagResource": func() error {
			_, err := c.TagResource(ctx, &secretsmanager.TagResourceInput{SecretId: &name, Tags: []types.Tag{{Key: new("k"), Value: new("v")}}})
			return err
		},
		"UntagResource": func() error {
			_, err := c.UntagResource(ctx, &secretsmanager.UntagResourceInput{SecretId: &name, TagKeys: []string{"k"}})
			return err
		},
		"DeleteSecret": func() error {
			_, err := c.DeleteSecret(ctx, &secretsmanager.DeleteSecretInput{SecretId: &name})
			return err
		},
	}
	for op, call := range calls {
		err := call()
		c.expect(op+" while deletion is pending", "InvalidRequestException", err)
		if op == "CreateSecret" && endpoint == "" && !strings.Contains(err.Error(), "scheduled for deletion") {
			t.Errorf("CreateSecret does not say why: %v", err)
		}
	}
	batch, err := c.BatchGetSecretValue(ctx, &secretsmanager.BatchGetSecretValueInput{SecretIdList: []string{name}})
	if err != nil {
		t.Fatal(err)
	}
	if len(batch.Errors) != 1 || *batch.Errors[0].ErrorCode != "InvalidRequestException" {
		t.Errorf("BatchGetSecretValue: %d values, errors %v", len(batch.SecretValues), batch.Errors)
	}
	if d := c.describe(name); d.DeletedDate == nil || !d.DeletedDate.Equal(*deleted.DeletionDate) {
		t.Errorf("DeletedDate %v, want %v", d.DeletedDate, deleted.DeletionDate)
	}
	for planned, want := range map[bool]int{false: 0, true: 1} {
		got := c.list(&secretsmanager.ListSecretsInput{
			Filters: []types.Filter{filter("name", c.prefix)}, IncludePlannedDeletion: &planned,
		})
		if len(got) != want {
			t.Errorf("listed with planned deletions %v: %v", planned, got)
		}
	}

	for range 2 { // what is not being deleted may be restored all the same
		restored, err := c.RestoreSecret(ctx, &secretsmanager.RestoreSecretInput{SecretId: &name})
		if err != nil {
			t.Fatal(err)
		}
		if *restored.ARN != arn {
			t.Errorf("restored as %q, was %q", *restored.ARN, arn)
		}
	}
	if d := c.describe(name); d.DeletedDate != nil {
		t.Errorf("DeletedDate %v after the restore", d.DeletedDate)
	}
	if got := c.value(name); got != "v1" {
		t.Errorf("value is %q, want v1", got)
	}
}

func TestContractForcedDeletion(t *testing.T) {
	c := newContract(t)
	remove := func(id string) error {
		_, err := c.DeleteSecret(c.Context(), &secretsmanager.DeleteSecretInput{SecretId: &id, ForceDeleteWithoutRecovery: new(true)})
		return err
	}
	name, arn := c.create("a", "v1")
	c.expect("forced deletion", success, remove(name))
	_, err := c.DescribeSecret(c.Context(), &secretsmanager.DescribeSecretInput{SecretId: &name})
	c.expect("describe what is gone", "ResourceNotFoundException", err)
	_, err = c.RestoreSecret(c.Context(), &secretsmanager.RestoreSecretInput{SecretId: &name})
	c.expect("restore what is gone", "ResourceNotFoundException", err)
	c.expect("forced deletion of what is gone", success, remove(name))

	_, second := c.create("a", "v2")
	if second == arn {
		t.Errorf("created again with the same ARN %q", arn)
	}
	_, err = c.GetSecretValue(c.Context(), &secretsmanager.GetSecretValueInput{SecretId: &arn})
	c.expect("read by the former ARN", "ResourceNotFoundException", err)

	if _, err := c.DeleteSecret(c.Context(), &secretsmanager.DeleteSecretInput{SecretId: &name}); err != nil {
		t.Fatal(err)
	}
	c.expect("forced deletion while deletion is pending", success, remove(name))
	c.create("a", "v3")
}

func TestContractDeletionParameters(t *testing.T) {
	c := newContract(t)
	name, _ := c.create("a", "v1")
	for _, days := range []int64{6, 31} {
		_, err := c.DeleteSecret(c.Context(), &secretsmanager.DeleteSecretInput{SecretId: &name, RecoveryWindowInDays: &days})
		c.expect(fmt.Sprintf("recovery window of %d days", days), "InvalidParameterException", err)
	}
	_, err := c.DeleteSecret(c.Context(), &secretsmanager.DeleteSecretInput{
		SecretId: &name, RecoveryWindowInDays: new(int64(7)), ForceDeleteWithoutRecovery: new(true),
	})
	c.expect("forced deletion with a recovery window", "InvalidParameterException", err)
	deleted, err := c.DeleteSecret(c.Context(), &secretsmanager.DeleteSecretInput{SecretId: &name})
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(*deleted.DeletionDate) - 30*24*time.Hour; left < -time.Minute || left > time.Minute {
		t.Errorf("deletion at %v, want in 30 days", deleted.DeletionDate)
	}
}

func TestContractNotFound(t *testing.T) {
	c := newContract(t)
	ctx, name := c.Context(), new(c.prefix+"none")
	_, err := c.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: name})
	c.expect("GetSecretValue of nothing", "ResourceNotFoundException", err)
	_, err = c.DescribeSecret(ctx, &secretsmanager.DescribeSecretInput{SecretId: name})
	c.expect("DescribeSecret of nothing", "ResourceNotFoundException", err)
	_, err = c.UpdateSecret(ctx, &secretsmanager.UpdateSecretInput{SecretId: name, SecretString: new("v")})
	c.expect("UpdateSecret of nothing", "ResourceNotFoundException", err)
	_, err = c.PutSecretValue(ctx, &secretsmanager.PutSecretValueInput{SecretId: name, SecretString: new("v")})
	c.expect("PutSecretValue of nothing", "ResourceNotFoundException", err)
	_, err = c.DeleteSecret(ctx, &secretsmanager.DeleteSecretInput{SecretId: name})
	c.expect("DeleteSecret of nothing", "ResourceNotFoundException", err)
	_, err = c.RestoreSecret(ctx, &secretsmanager.RestoreSecretInput{SecretId: name})
	c.expect("RestoreSecret of nothing", "ResourceNotFoundException", err)
	_, err = c.ListSecretVersionIds(ctx, &secretsmanager.ListSecretVersionIdsInput{SecretId: name})
	c.expect("ListSecretVersionIds of nothing", "ResourceNotFoundException", err)
}

func TestContractLimits(t *testing.T) {
	c := newContract(t)
	existing, _ := c.create("a", "v1")
	create := func(in secretsmanager.CreateSecretInput) error {
		in.Name = new(c.prefix + cmp.Or(aws.ToString(in.Name), token()))
		_, err := c.CreateSecret(c.Context(), &in)
		return err
	}
	update := func(in secretsmanager.UpdateSecretInput) error {
		in.SecretId = &existing
		_, err := c.UpdateSecret(c.Context(), &in)
		return err
	}
	full := strings.Repeat("x", 65536)
	for _, x := range []struct {
		check, want string
		err         error
	}{
		{"value of 65,536 bytes", success, create(secretsmanager.CreateSecretInput{SecretString: &full})},
		{"value of 65,537 bytes", "ValidationException", create(secretsmanager.CreateSecretInput{SecretString: new(full + "x")})},
		{"update to 65,537 bytes", "ValidationException", update(secretsmanager.UpdateSecretInput{SecretString: new(full + "x")})},
		{"empty value", "ValidationException", update(secretsmanager.UpdateSecretInput{SecretString: new("")})},
		{"string and bytes", "InvalidParameterException", update(secretsmanager.UpdateSecretInput{SecretString: new("x"), SecretBinary: []byte("x")})},
		{"description of 2,048", success, update(secretsmanager.UpdateSecretInput{Description: new(full[:2048])})},
		{"description of 2,049", "ValidationException", update(secretsmanager.UpdateSecretInput{Description: new(full[:2049])})},
		{"description of 2,049 on creation", "ValidationException", create(secretsmanager.CreateSecretInput{Description: new(full[:2049])})},
		{"name of 512", success, create(secretsmanager.CreateSecretInput{Name: new(full[:512-len(c.prefix)])})},
		{"name of 513", "ValidationException", create(secretsmanager.CreateSecretInput{Name: new(full[:513-len(c.prefix)])})},
		{"name with every character", success, create(secretsmanager.CreateSecretInput{Name: new("aZ09/_+=.@-")})},
		{"name with a colon", "ValidationException", create(secretsmanager.CreateSecretInput{Name: new("a:b")})},
		{"token of 31", "ValidationException", update(secretsmanager.UpdateSecretInput{SecretString: new("x"), ClientRequestToken: new(full[:31])})},
		{"token of 64", success, update(secretsmanager.UpdateSecretInput{SecretString: new("x"), ClientRequestToken: new(full[:64])})},
		{"token of 65", "ValidationException", update(secretsmanager.UpdateSecretInput{SecretString: new("x"), ClientRequestToken: new(full[:65])})},
	} {
		c.expect(x.check, x.want, x.err)
	}
}

func TestContractTags(t *testing.T) {
	c := newContract(t)
	name := c.prefix + "a"
	_, err := c.CreateSecret(c.Context(), &secretsmanager.CreateSecretInput{
		Name: &name, Tags: []types.Tag{{Key: new("a"), Value: new("1")}, {Key: new("b"), Value: new("2")}, {Key: new("kept"), Value: new("5")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.TagResource(c.Context(), &secretsmanager.TagResourceInput{
		SecretId: &name, Tags: []types.Tag{{Key: new("b"), Value: new("3")}, {Key: new("c"), Value: new("4")}},
	})
	c.expect("tag", success, err)
	_, err = c.UntagResource(c.Context(), &secretsmanager.UntagResourceInput{SecretId: &name, TagKeys: []string{"a", "none"}})
	c.expect("untag", success, err)
	var got []string
	for _, tag := range c.describe(name).Tags {
		got = append(got, *tag.Key+"="+*tag.Value)
	}
	slices.Sort(got)
	if want := []string{"b=3", "c=4", "kept=5"}; !slices.Equal(got, want) {
		t.Errorf("tags %v, want %v", got, want)
	}
}

func TestContractFilters(t *testing.T) {
	c := newContract(t)
	for _, s := range []struct{ name, description, key, value string }{
		{"apps/one", "First App", "env", "prod"},
		{"apps/two", "second app", "env", "Test"},
		{"Apps/three", "third app", "owner", "prod"},
	} {
		_, err := c.CreateSecret(c.Context(), &secretsmanager.CreateSecretInput{
			Name: new(c.prefix + s.name), Description: &s.description, Tags: []types.Tag{{Key: &s.key, Value: &s.value}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	mine := filter("name", c.prefix)
	for _, x := range []struct {
		check   string
		filters []types.Filter
		want    string
	}{
		{"name", []types.Filter{filter("name", c.prefix+"apps/")}, "apps/one apps/two"},
		{"name of a part", []types.Filter{filter("name", c.prefix+"apps/o")}, "apps/one"},
		{"names", []types.Filter{filter("name", c.prefix+"apps/o", c.prefix+"Apps")}, "Apps/three apps/one"},
		{"not a name", []types.Filter{mine, filter("name", "!"+c.prefix+"apps/")}, "Apps/three"},
		{"inner part of a name", []types.Filter{mine, filter("name", "one")}, ""},
		{"description", []types.Filter{mine, filter("description", "fIRST a")}, "apps/one"},
		{"tag-key", []types.Filter{mine, filter("tag-key", "en")}, "apps/one apps/two"},
		{"tag-key in another case", []types.Filter{mine, filter("tag-key", "ENV")}, ""},
		{"tag-value", []types.Filter{mine, filter("tag-value", "prod")}, "Apps/three apps/one"},
		{"both tags", []types.Filter{mine, filter("tag-key", "env"), filter("tag-value", "prod")}, "apps/one"},
		{"all", []types.Filter{mine, filter("all", "SECOND")}, "apps/two"},
	} {
		c.same("filter by "+x.check, strings.Join(c.list(&secretsmanager.ListSecretsInput{Filters: x.filters}), " "), x.want)
	}

	refused := func(check string, filters ...types.Filter) {
		_, err := c.ListSecrets(c.Context(), &secretsmanager.ListSecretsInput{Filters: filters})
		c.expect(check, "ValidationException", err)
	}
	refused("filter by an unknown key", filter("colour", "red"))
	refused("filter without values", filter("name"))
	refused("filter with 11 values", filter("name", slices.Repeat([]string{"a"}, 11)...))
	refused("11 filters", slices.Repeat([]types.Filter{mine}, 11)...)
}

func TestContractPages(t *testing.T) {
	c := newContract(t)
	var want []string
	for i := range 25 {
		name := fmt.Sprintf("%02d", i)
		c.create(name, "v")
		want = append(want, name)
	}
	mine := []types.Filter{filter("name", c.prefix)}
	if got := c.list(&secretsmanager.ListSecretsInput{Filters: mine, MaxResults: new(int32(10))}); !slices.Equal(got, want) {
		t.Errorf("listed in pages: %v", got)
	}
	first, err := c.ListSecrets(c.Context(), &secretsmanager.ListSecretsInput{Filters: mine, MaxResults: new(int32(10))})
	if err != nil {
		t.Fatal(err)
	}
	if len(first.SecretList) != 10 || first.NextToken == nil {
		t.Errorf("first page has %d secrets, NextToken %v", len(first.SecretList), first.NextToken)
	}
	e := first.SecretList[0]
	if !strings.HasPrefix(*e.ARN, "arn:") || e.CreatedDate == nil || e.LastChangedDate == nil || len(e.SecretVersionsToStages) != 1 {
		t.Errorf("entry %+v lacks something", e)
	}

	_, err = c.ListSecrets(c.Context(), &secretsmanager.ListSecretsInput{NextToken: new("made-up")})
	c.expect("made-up NextToken", "InvalidNextTokenException", err)
	for _, n := range []int32{0, 101} {
		_, err = c.ListSecrets(c.Context(), &secretsmanager.ListSecretsInput{MaxResults: &n})
		c.expect(fmt.Sprint("MaxResults ", n), "ValidationException", err)
	}
}

func TestContractBatch(t *testing.T) {
	c := newContract(t)
	a, arn := c.create("a", "va")
	b, _ := c.create("b", "vb")
	out, err := c.BatchGetSecretValue(c.Context(), &secretsmanager.BatchGetSecretValueInput{SecretIdList: []string{arn, c.prefix + "none", b}})
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, v := range out.SecretValues {
		got[*v.Name] = *v.SecretString
	}
	if len(got) != 2 || got[a] != "va" || got[b] != "vb" {
		t.Errorf("read %v", got)
	}
	if len(out.Errors) != 1 || *out.Errors[0].ErrorCode != "ResourceNotFoundException" || *out.Errors[0].SecretId != c.prefix+"none" {
		t.Errorf("errors %+v", out.Errors)
	}

	c.settle()
	filtered, err := c.BatchGetSecretValue(c.Context(), &secretsmanager.BatchGetSecretValueInput{Filters: []types.Filter{filter("name", c.prefix+"b")}})
	if err != nil {
		t.Fatal(err)
	}
	if len(filtered.SecretValues) != 1 || *filtered.SecretValues[0].SecretString != "vb" {
		t.Errorf("read %d secrets by filter", len(filtered.SecretValues))
	}

	_, err = c.BatchGetSecretValue(c.Context(), &secretsmanager.BatchGetSecretValueInput{SecretIdList: slices.Repeat([]string{a}, 21)})
	c.expect("batch of 21", "ValidationException", err)
	_, err = c.BatchGetSecretValue(c.Context(), &secretsmanager.BatchGetSecretValueInput{})
	c.expect("batch of nothing", "InvalidParameterException", err)
}
