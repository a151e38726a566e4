package ststest_test

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"entra-connector/internal/awsidentity/ststest"
	"entra-connector/pkg/entra/entratest"
)

const exchange = "api://AzureADTokenExchange"

// now is the server's clock: in another zone and within a second, which no answer may show.
var now = time.Date(2026, 11, 23, 1, 2, 3, 456789000, time.FixedZone("", 3600))

func start(t *testing.T) *ststest.Server {
	return ststest.Start(t, ststest.Options{Now: func() time.Time { return now }})
}

// newClient is the real SDK's client, with so many attempts a call.
func newClient(url string, attempts int) *sts.Client {
	return sts.New(sts.Options{
		BaseEndpoint: &url,
		Region:       "eu-central-1",
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "c4nary", SessionToken: "c4nary"}, nil
		}),
		Retryer: retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts = attempts
			o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
		}),
	})
}

// input is a good request.
func input(change ...func(*sts.GetWebIdentityTokenInput)) *sts.GetWebIdentityTokenInput {
	in := &sts.GetWebIdentityTokenInput{Audience: []string{exchange}, SigningAlgorithm: new("RS256")}
	for _, c := range change {
		c(in)
	}
	return in
}

func TestToken(t *testing.T) {
	const role = "arn:aws-cn:iam::210987654321:role/team/refresh"
	for _, tt := range []struct {
		name    string
		options ststest.Options
		in      *sts.GetWebIdentityTokenInput
		claims  map[string]any // but for the times and jti
		life    int64
	}{
		{"default", ststest.Options{}, input(), map[string]any{
			"iss": "https://00000000-0000-4000-8000-000000000000.tokens.sts.global.api.aws",
			"sub": "arn:aws:iam::123456789012:role/entra-connector",
			"aud": exchange,
			"https://sts.amazonaws.com/": map[string]any{
				"aws_account": "123456789012", "source_region": "eu-central-1",
			},
		}, 300},
		{"configured", ststest.Options{Issuer: "https://issuer.example", Subject: role}, input(func(in *sts.GetWebIdentityTokenInput) {
			in.Audience, in.DurationSeconds = []string{"<a&b>", "ü c"}, new(int32(3600))
		}), map[string]any{
			"iss": "https://issuer.example", "sub": role,
			"aud": []any{"<a&b>", "ü c"},
			"https://sts.amazonaws.com/": map[string]any{
				"aws_account": "210987654321", "source_region": "eu-central-1",
			},
		}, 3600},
		{"largest", ststest.Options{}, input(func(in *sts.GetWebIdentityTokenInput) {
			in.Audience = slices.Repeat([]string{strings.Repeat("ü", 1000)}, 10)
		}), nil, 300},
		{"shortest", ststest.Options{}, input(func(in *sts.GetWebIdentityTokenInput) { in.DurationSeconds = new(int32(60)) }), nil, 60},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.options.Now = func() time.Time { return now }
			s := ststest.Start(t, tt.options)
			out, err := newClient(s.URL(), 1).GetWebIdentityToken(t.Context(), tt.in)
			if err != nil {
				t.Fatal(err)
			}
			c := verify(t, s.Key(), *out.WebIdentityToken)
			if want := time.Unix(now.Unix()+tt.life, 0).UTC(); *out.Expiration != want {
				t.Errorf("expiration %v, want %v", *out.Expiration, want)
			}
			for claim, want := range map[string]int64{"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Unix() + tt.life} {
				if c[claim] != float64(want) {
					t.Errorf("%s is %v, want %d", claim, c[claim], want)
				}
				delete(c, claim)
			}
			if len(c["jti"].(string)) != 36 {
				t.Errorf("jti is %q", c["jti"])
			}
			delete(c, "jti")
			if tt.claims != nil && !reflect.DeepEqual(c, tt.claims) {
				t.Errorf("claims %v, want %v", c, tt.claims)
			}
			if c["iss"] != s.Issuer() || c["sub"] != s.Subject() {
				t.Errorf("token of %v by %v, server says %s by %s", c["sub"], c["iss"], s.Subject(), s.Issuer())
			}
		})
	}
}

func TestTokensDiffer(t *testing.T) {
	s := start(t)
	seen := map[any]bool{}
	for range 3 {
		out, err := newClient(s.URL(), 1).GetWebIdentityToken(t.Context(), input())
		if err != nil {
			t.Fatal(err)
		}
		seen[verify(t, s.Key(), *out.WebIdentityToken)["jti"]] = true
	}
	if len(seen) != 3 || s.Count() != 3 {
		t.Errorf("%d different tokens of %d asked for, want 3 of 3", len(seen), s.Count())
	}
}

// TestEntraTakesIt presents a token to the stand-in Entra, as the connector will.
func TestEntraTakesIt(t *testing.T) {
	const tenant, client = "11111111-aaaa-4bbb-8ccc-000000000001", "22222222-aaaa-4bbb-8ccc-000000000001"
	s := start(t)
	out, err := newClient(s.URL(), 1).GetWebIdentityToken(t.Context(), input())
	if err != nil {
		t.Fatal(err)
	}
	e := entratest.Start(t, entratest.Options{Now: func() time.Time { return now }})
	e.AddTenant(entratest.Tenant{ID: tenant})
	e.AddApp(entratest.App{ClientID: client, Federated: []entratest.Federated{
		{Issuer: s.Issuer(), Subject: s.Subject(), Audience: exchange, Key: s.Key()},
	}})
	e.Consent(tenant, client)
	res, err := http.PostForm(e.URL()+"/"+tenant+"/oauth2/v2.0/token", url.Values{
		"grant_type": {"client_credentials"}, "client_id": {client}, "scope": {"https://graph.microsoft.com/.default"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {*out.WebIdentityToken},
	})
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if q := e.Requests()[0]; q.Status != http.StatusOK || q.CredentialKind != "federated" {
		t.Errorf("Entra answered %d, AADSTS%d to credential %q", q.Status, q.Code, q.CredentialKind)
	}
}

// TestInvalid goes by the API reference's constraints.
func TestInvalid(t *testing.T) {
	s := start(t)
	for name, change := range map[string]func(*sts.GetWebIdentityTokenInput){
		"no audience":        func(in *sts.GetWebIdentityTokenInput) { in.Audience = []string{} },
		"empty audience":     func(in *sts.GetWebIdentityTokenInput) { in.Audience = []string{exchange, ""} },
		"long audience":      func(in *sts.GetWebIdentityTokenInput) { in.Audience = []string{strings.Repeat("a", 1001)} },
		"11 audiences":       func(in *sts.GetWebIdentityTokenInput) { in.Audience = slices.Repeat([]string{"a"}, 11) },
		"duration of 59":     func(in *sts.GetWebIdentityTokenInput) { in.DurationSeconds = new(int32(59)) },
		"duration of 3601":   func(in *sts.GetWebIdentityTokenInput) { in.DurationSeconds = new(int32(3601)) },
		"algorithm":          func(in *sts.GetWebIdentityTokenInput) { in.SigningAlgorithm = new("PS256") },
		"algorithm in case":  func(in *sts.GetWebIdentityTokenInput) { in.SigningAlgorithm = new("rs256") },
		"unimplemented":      func(in *sts.GetWebIdentityTokenInput) { in.SigningAlgorithm = new("ES384") },
		"unimplemented tags": func(in *sts.GetWebIdentityTokenInput) { in.Tags = []types.Tag{{Key: new("a"), Value: new("b")}} },
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newClient(s.URL(), 3).GetWebIdentityToken(t.Context(), input(change))
			wantError(t, err, "ValidationError", http.StatusBadRequest)
			// What AWS would have granted is refused in words that send nobody to AWS's documentation.
			if ours := strings.HasPrefix(name, "unimplemented"); ours != strings.Contains(err.Error(), "stand-in STS") {
				t.Errorf("refused with %v", err)
			}
		})
	}
	if s.Count() != 10 {
		t.Errorf("%d tokens were asked for, want 10: nothing of this is to be retried", s.Count())
	}
}

func TestFail(t *testing.T) {
	s := start(t)
	for _, tt := range []struct {
		code   string
		status int
		as     any // the SDK's own type for it
		count  int // attempts of 2 that the SDK makes
	}{
		{"OutboundWebIdentityFederationDisabledException", 403, new(*types.OutboundWebIdentityFederationDisabledException), 1},
		{"SessionDurationEscalationException", 403, new(*types.SessionDurationEscalationException), 1},
		{"JWTPayloadSizeExceededException", 400, new(*types.JWTPayloadSizeExceededException), 1},
		{"AccessDenied", 403, nil, 1},
		{"Throttling", 400, nil, 2},
		{"ServiceUnavailable", 503, nil, 2},
	} {
		t.Run(tt.code, func(t *testing.T) {
			s.Fail(tt.code, tt.status)
			before := s.Count()
			_, err := newClient(s.URL(), 2).GetWebIdentityToken(t.Context(), input())
			wantError(t, err, tt.code, tt.status)
			if tt.as != nil && !errors.As(err, tt.as) {
				t.Errorf("got %T, want %T", errors.Unwrap(err), tt.as)
			}
			if n := s.Count() - before; n != tt.count {
				t.Errorf("%d requests were counted, want %d", n, tt.count)
			}
			s.Fail("", 0)
			if _, err := newClient(s.URL(), 1).GetWebIdentityToken(t.Context(), input()); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

// The SDK does not look at whose fault an error is, others may.
func TestAuthorize(t *testing.T) {
	var asked []string
	s := ststest.Start(t, ststest.Options{Authorize: func(accessKeyID, action string, audience []string) bool {
		asked = append([]string{accessKeyID, action}, audience...)
		return slices.Equal(audience, []string{exchange})
	}})
	client := newClient(s.URL(), 1)
	if _, err := client.GetWebIdentityToken(t.Context(), input()); err != nil {
		t.Error(err)
	}
	_, err := client.GetWebIdentityToken(t.Context(), input(func(in *sts.GetWebIdentityTokenInput) { in.Audience = []string{exchange, "another"} }))
	wantError(t, err, "AccessDenied", http.StatusForbidden)
	if want := []string{"AKIDEXAMPLE", "sts:GetWebIdentityToken", exchange, "another"}; !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
}

func TestTypeOfFault(t *testing.T) {
	s := start(t)
	for status, want := range map[int]string{403: "<Type>Sender</Type>", 503: "<Type>Receiver</Type>"} {
		s.Fail("Trouble", status)
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil)
		r.Header.Set("Authorization", signature)
		w := httptest.NewRecorder()
		if s.ServeHTTP(w, r); w.Code != status || !strings.Contains(w.Body.String(), want) {
			t.Errorf("got %d %s, want %d %s", w.Code, w.Body, status, want)
		}
	}
}

func TestOtherOperation(t *testing.T) {
	s := start(t)
	_, err := newClient(s.URL(), 1).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	wantError(t, err, "InvalidAction", http.StatusBadRequest)
	if s.Count() != 0 {
		t.Errorf("%d tokens were asked for", s.Count())
	}
}

const signature = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261123/us-east-1/sts/aws4_request, SignedHeaders=host;x-amz-date, Signature=00ff"

// TestProtocol sends what the SDK never would.
func TestProtocol(t *testing.T) {
	s := start(t)
	good := url.Values{
		"Action": {"GetWebIdentityToken"}, "Version": {"2011-06-15"}, "Audience.member.1": {exchange}, "SigningAlgorithm": {"RS256"},
	}
	for name, tt := range map[string]struct {
		request func(*http.Request)
		form    string
		code    string
		status  int
		count   int
	}{
		"as it should be":   {nil, good.Encode(), "", 200, 1},
		"unsigned":          {func(r *http.Request) { r.Header.Del("Authorization") }, good.Encode(), "MissingAuthenticationToken", 403, 0},
		"other scheme":      {func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") }, good.Encode(), "IncompleteSignature", 400, 0},
		"half a signature":  {func(r *http.Request) { r.Header.Set("Authorization", signature[:100]) }, good.Encode(), "IncompleteSignature", 400, 0},
		"for other service": {func(r *http.Request) { r.Header.Set("Authorization", strings.Replace(signature, "/sts/", "/iam/", 1)) }, good.Encode(), "SignatureDoesNotMatch", 403, 0},
		"other method":      {func(r *http.Request) { r.Method = http.MethodPut }, good.Encode(), "MissingAction", 400, 0},
		"other type":        {func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }, good.Encode(), "MissingAction", 400, 0},
		"not a form":        {nil, "a=%zz", "MalformedQueryString", 404, 0},
		"too long":          {nil, strings.Repeat("a", 1<<20+1), "MalformedQueryString", 404, 0},
		"no version":        {nil, strings.Replace(good.Encode(), "Version=2011-06-15", "", 1), "NoSuchVersion", 400, 1},
		"other version":     {nil, strings.Replace(good.Encode(), "2011-06-15", "2010-05-08", 1), "NoSuchVersion", 400, 1},
		"no audience":       {nil, strings.Replace(good.Encode(), "Audience.member.1", "Audience", 1), "ValidationError", 400, 1},
		"audience of 0":     {nil, strings.Replace(good.Encode(), "member.1", "member.0", 1), "ValidationError", 400, 1},
		"gap":               {nil, good.Encode() + "&Audience.member.3=a", "ValidationError", 400, 1},
		"no algorithm":      {nil, strings.Replace(good.Encode(), "RS256", "", 1), "ValidationError", 400, 1},
		"not a duration":    {nil, good.Encode() + "&DurationSeconds=5m", "ValidationError", 400, 1},
	} {
		t.Run(name, func(t *testing.T) {
			before := s.Count()
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(tt.form))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set("Authorization", signature)
			if tt.request != nil {
				tt.request(r)
			}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			var reply struct {
				XMLName xml.Name
				Token   string `xml:"GetWebIdentityTokenResult>WebIdentityToken"`
				Expires string `xml:"GetWebIdentityTokenResult>Expiration"`
				Type    string `xml:"Error>Type"`
				Code    string `xml:"Error>Code"`
				Message string `xml:"Error>Message"`
			}
			if err := xml.Unmarshal(w.Body.Bytes(), &reply); err != nil {
				t.Fatal(err)
			}
			if w.Code != tt.status || reply.Code != tt.code || reply.XMLName.Space != "https://sts.amazonaws.com/doc/2011-06-15/" {
				t.Errorf("got %d %s", w.Code, w.Body)
			}
			if tt.code == "" && (reply.Token == "" || reply.Expires != "2026-11-23T00:07:03Z") {
				t.Errorf("got token %q until %q", reply.Token, reply.Expires)
			}
			if tt.code != "" && (reply.Token != "" || reply.Message == "" || reply.Type != "Sender") {
				t.Errorf("refused with %s", w.Body)
			}
			if n := s.Count() - before; n != tt.count {
				t.Errorf("counted %d, want %d", n, tt.count)
			}
		})
	}
}

func TestListen(t *testing.T) {
	s := ststest.New(ststest.Options{})
	if s.URL() != "" {
		t.Errorf("URL %q before Listen", s.URL())
	}
	if err := s.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if err := s.Listen("127.0.0.1:0"); err == nil {
		t.Error("it listens twice")
	}
	if _, err := newClient(s.URL(), 1).GetWebIdentityToken(t.Context(), input()); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := newClient(s.URL(), 1).GetWebIdentityToken(t.Context(), input()); err == nil {
		t.Error("it answers after Close")
	}
}

func TestSubjectIsARN(t *testing.T) {
	for _, subject := range []string{"refresh", "arn:aws:iam:::role/refresh", "arn:aws:sts::123456789012:assumed-role/refresh/session"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("subject %q is taken", subject)
				}
			}()
			ststest.New(ststest.Options{Subject: subject})
		}()
	}
}

// make local uses the stand-in, and it must not share a mistake with the SDK: it needs the standard library only, and
// no flags of testing.
func TestImportsStandardLibraryOnly(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}{{if eq .ImportPath \"testing\"}}testing{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(string(out)); !slices.Equal(got, []string{"entra-connector/internal/awsidentity/ststest"}) {
		t.Errorf("it depends on %v", got)
	}
}

// wantError checks for what the SDK made of an answer.
func wantError(t *testing.T, err error, code string, status int) {
	t.Helper()
	var api smithy.APIError
	var res *smithyhttp.ResponseError
	if !errors.As(err, &api) || !errors.As(err, &res) {
		t.Fatalf("got %v, want %s", err, code)
	}
	if api.ErrorCode() != code || api.ErrorMessage() == "" || res.HTTPStatusCode() != status {
		t.Errorf("got %d %s %q, want %d %s", res.HTTPStatusCode(), api.ErrorCode(), api.ErrorMessage(), status, code)
	}
}

// verify checks a token's signature and returns its claims.
func verify(t *testing.T, key *rsa.PublicKey, token string) map[string]any {
	t.Helper()
	part := strings.Split(token, ".")
	if len(part) != 3 {
		t.Fatalf("token has %d parts, want 3", len(part))
	}
	var raw [3][]byte
	for i := range part {
		var err error
		if raw[i], err = base64.RawURLEncoding.DecodeString(part[i]); err != nil {
			t.Fatal(err)
		}
	}
	var header struct{ Alg, Typ, Kid string }
	var claims map[string]any
	if err := errors.Join(json.Unmarshal(raw[0], &header), json.Unmarshal(raw[1], &claims)); err != nil {
		t.Fatal(err)
	}
	if header.Alg != "RS256" || header.Typ != "JWT" || header.Kid == "" {
		t.Errorf("header %+v", header)
	}
	sum := sha256.Sum256([]byte(part[0] + "." + part[1]))
	if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], raw[2]); err != nil {
		t.Error(err)
	}
	return claims
}
