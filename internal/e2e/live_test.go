package e2e

import (
	"cmp"
	"errors"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/golang-jwt/jwt/v5"

	"entra-connector/internal/stack"
	"entra-connector/internal/stack/stacktest"
)

// TestLive takes the scenario through real Entra and real AWS, if ENTRA_LIVE=1 is set. It reads
//
//   - AZURE_TENANT_ID (a GUID), AZURE_CLIENT_ID, AZURE_CLIENT_SECRET: an app with consent in that tenant. It
//     gets tokens and is not changed
//   - ENTRA_LIVE_SCOPE and ENTRA_LIVE_CLOUD: Microsoft Graph's, and "public", if empty
//   - AWS credentials and a Region, as the AWS SDK reads them. They need secretsmanager:GetSecretValue and
//     DeleteSecret
//   - ENTRA_LIVE_API_URL and ENTRA_LIVE_REFRESH_FUNCTION: the outputs ApiUrl and RefreshFunctionName of a
//     deployed stack, with execute-api:Invoke and lambda:InvokeFunction. Without them the functions run on
//     this machine, and need everything that the two roles of the template allow
//   - SECRET_PREFIX: "entra" if empty
//
// The scenario makes one app, whose name is e2e- and twelve random characters, and one connection,
// and deletes both for good at the end.
func TestLive(t *testing.T) {
	if os.Getenv("ENTRA_LIVE") != "1" {
		t.Skip("ENTRA_LIVE=1 runs it against real Entra and AWS, with credentials for both")
	}
	var missing []string
	need := func(name string) string {
		value := os.Getenv(name)
		if value == "" {
			missing = append(missing, name)
		}
		return value
	}
	d := deployment{
		tenantID: strings.ToLower(need("AZURE_TENANT_ID")), clientID: need("AZURE_CLIENT_ID"), secret: need("AZURE_CLIENT_SECRET"),
		scope:  cmp.Or(os.Getenv("ENTRA_LIVE_SCOPE"), stacktest.Graph),
		cloud:  cmp.Or(os.Getenv("ENTRA_LIVE_CLOUD"), "public"),
		prefix: cmp.Or(os.Getenv("SECRET_PREFIX"), "entra"),
		api:    strings.TrimSuffix(os.Getenv("ENTRA_LIVE_API_URL"), "/"),
		out:    new(stacktest.Output),
	}
	d.tenant = d.tenantID
	d.issued = func(token string) error { return issuedTo(token, d.tenantID, d.clientID) }
	if d.api != "" {
		d.refresh = need("ENTRA_LIVE_REFRESH_FUNCTION")
	}
	var err error
	if d.aws, err = config.LoadDefaultConfig(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d.aws.Region == "" {
		missing = append(missing, "AWS_REGION")
	}
	if missing != nil {
		t.Fatal("ENTRA_LIVE=1 also needs ", strings.Join(missing, ", "))
	}
	t.Cleanup(func() { t.Log("\n" + d.out.Take(t)) })
	if d.api != "" {
		endpoint, err := secretsmanager.NewDefaultEndpointResolverV2().ResolveEndpoint(t.Context(),
			secretsmanager.EndpointParameters{Region: &d.aws.Region})
		if err != nil {
			t.Fatal(err)
		}
		d.lambda = cmp.Or(os.Getenv("AWS_ENDPOINT_URL_LAMBDA"), strings.Replace(endpoint.URI.String(), "secretsmanager", "lambda", 1))
	} else {
		d.local = hosted(t, d)
		api := httptest.NewServer(d.local.API())
		defer api.Close()
		d.api = api.URL
	}
	scenario(t, d)
}

// issuedTo checks what an access token for one of Microsoft's resources says about itself, as a
// JWT. Only that resource can verify its signature; for Graph nobody else can.
func issuedTo(token, tenant, client string) error {
	var claims struct {
		jwt.RegisteredClaims
		Tenant string `json:"tid"`
		V1     string `json:"appid"`
		V2     string `json:"azp"`
	}
	if _, _, err := jwt.NewParser().ParseUnverified(token, &claims); err != nil {
		return errors.New("the token is no JWT")
	}
	if claims.Tenant != tenant || !strings.EqualFold(cmp.Or(claims.V1, claims.V2), client) {
		return errors.New("the token was issued to another app or in another tenant")
	}
	return nil
}

// hosted runs the functions on this machine, between real Entra and AWS.
func hosted(t *testing.T, d deployment) *stack.Stack {
	provision, refresh, err := stack.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := stack.Start(stack.Options{
		Provision: provision, Refresh: refresh, Log: d.out,
		// No stand-ins. Where the variables are empty, the functions know the addresses.
		Authority: "Entra's own", SecretsEndpoint: "AWS's own",
		Env: []string{"SECRET_PREFIX=" + d.prefix, "AZURE_AUTHORITY_HOST=" + os.Getenv("AZURE_AUTHORITY_HOST"),
			"AWS_ENDPOINT_URL_SECRETS_MANAGER=" + os.Getenv("AWS_ENDPOINT_URL_SECRETS_MANAGER")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
