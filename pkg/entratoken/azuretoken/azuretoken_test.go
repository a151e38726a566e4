package azuretoken_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"entra-connector/pkg/entratoken"
	"entra-connector/pkg/entratoken/azuretoken"
	"entra-connector/pkg/entratoken/internal/casetest"
)

func TestCases(t *testing.T) {
	casetest.Run(t, "../../../clients/cases.json", casetest.Options{
		Kinds: map[string]error{
			"not_found": entratoken.ErrNotFound, "not_permitted": entratoken.ErrNotPermitted, "malformed": entratoken.ErrMalformed,
			"expired": entratoken.ErrExpired, "refused": azuretoken.ErrRefused,
		},
		Ask: func(ctx context.Context, r *entratoken.Reader, a casetest.Ask) (casetest.Answer, error) {
			token, err := azuretoken.New(r).GetToken(ctx, policy.TokenRequestOptions{
				Scopes: a.Scopes, TenantID: a.Tenant, Claims: a.Claims, EnableCAE: true, // as the SDK always sets it
			})
			return casetest.Answer{Token: token.Token, Ends: token.ExpiresOn, Again: token.RefreshOn}, err
		},
	})
}

// The SDK's pipeline keeps a token itself. It presents a newer one when RefreshOn has passed, and
// does not repeat a call that no stored token can satisfy.
func TestPipeline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		token, ends := "one", time.Now().Add(time.Hour)
		reader, err := entratoken.New(t.Context(), "default/contoso", entratoken.Options{
			Scope:  "https://graph.microsoft.com/.default",
			Client: casetest.Manager(func() (string, error) { return casetest.Value(token, ends, time.Hour), nil }),
		})
		if err != nil {
			t.Fatal(err)
		}
		api := &api{}
		pipeline := runtime.NewPipeline("test", "v1", runtime.PipelineOptions{PerRetry: []policy.Policy{
			runtime.NewBearerTokenPolicy(azuretoken.New(reader), []string{"https://graph.microsoft.com/.default"}, nil),
		}}, &policy.ClientOptions{Transport: api})
		call := func() error {
			request, err := runtime.NewRequest(t.Context(), http.MethodGet, "https://graph.microsoft.com/v1.0/users")
			if err == nil {
				_, err = pipeline.Do(request)
			}
			return err
		}
		expect := func(want string) {
			t.Helper()
			if err := call(); err != nil || api.saw != "Bearer "+want {
				t.Errorf("the API saw %q, %v; want %q", api.saw, err, want)
			}
		}
		expect("one")
		token, ends = "two", ends.Add(30*time.Minute)
		time.Sleep(36 * time.Minute)
		expect("one")
		time.Sleep(time.Second)
		expect("two")

		api.challenge = `Bearer realm="", error="insufficient_claims", claims="eyJhY2Nlc3NfdG9rZW4iOnt9fQ=="`
		api.calls = 0
		if err := call(); !errors.Is(err, azuretoken.ErrRefused) || api.calls != 1 {
			t.Errorf("after a challenge: %v, %d calls", err, api.calls)
		}
	})
}

type api struct {
	saw, challenge string
	calls          int
}

func (a *api) Do(r *http.Request) (*http.Response, error) {
	a.saw = r.Header.Get("Authorization")
	a.calls++
	response := &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r, Header: http.Header{}}
	if a.challenge != "" {
		response.StatusCode = http.StatusUnauthorized
		response.Header.Set("WWW-Authenticate", a.challenge)
	}
	return response, nil
}
