package entratoken_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"golang.org/x/oauth2"

	"entra-connector/pkg/entratoken"
	"entra-connector/pkg/entratoken/internal/casetest"
)

// These stand for AWS and for a Microsoft API.
var (
	secretsManager = casetest.Manager(func() (string, error) { return casetest.Value("eyJ0…", time.Now().Add(time.Hour), time.Hour), nil })
	graph          = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "called with", r.Header.Get("Authorization"))
	}))
)

// Call an API with an HTTP client that always has a live token.
func Example() {
	ctx := context.Background()
	reader, err := entratoken.New(ctx, "default/contoso", entratoken.Options{Client: secretsManager})
	if err != nil {
		log.Fatal(err)
	}
	client := oauth2.NewClient(ctx, reader.TokenSource(ctx))
	response, err := client.Get(graph.URL + "/v1.0/users")
	if errors.Is(err, entratoken.ErrExpired) {
		log.Fatal("somebody should look at the connector: ", err)
	} else if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	fmt.Print(string(body), err)
	// Output:
	// called with Bearer eyJ0…
	// <nil>
}

// Take the token itself.
func ExampleReader_Token() {
	reader, err := entratoken.New(context.Background(), "default/contoso", entratoken.Options{Client: secretsManager})
	if err != nil {
		log.Fatal(err)
	}
	token, err := reader.Token(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(token.Type, token.AccessToken, token.AccessToken.Reveal())
	fmt.Println(token.TenantID, time.Until(token.ExpiresAt()).Round(time.Minute))
	// Output:
	// Bearer [redacted] eyJ0…
	// c0000000-0000-4000-8000-000000000001 1h0m0s
}
