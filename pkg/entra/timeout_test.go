//go:build !race

// The Go runtime crashes now and then under the race detector where a test in a bubble selects on a
// timer's channel (runtime.(*timer).maybeRunChan). So tests in bubbles run without it.

package entra_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"entra-connector/pkg/entra"
)

// The client waits ten seconds for an answer, whether it does not begin or does not end.
func TestTenSecondsForAnAnswer(t *testing.T) {
	for _, begins := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			client := entra.NewClient(entra.ClientConfig{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				if begins {
					return &http.Response{StatusCode: 200, Header: http.Header{}, Body: endless{r.Context()}, Request: r}, nil
				}
				<-r.Context().Done()
				return nil, r.Context().Err()
			})})
			begin := time.Now()
			_, token := ask(t.Context(), client)
			_, tenant := client.ResolveTenant(t.Context(), entra.Public, "contoso.com")
			e, other := asEntraError(t, token), asEntraError(t, tenant)
			if took := time.Since(begin); took != 20*time.Second || e.Class != entra.Timeout || e.Code != "timeout" || other.Class != entra.Timeout {
				t.Errorf("an answer begins: %t: %v, %v after %v", begins, token, tenant, took)
			}
		})
	}
}

// endless is a body that sends nothing until its request ends.
type endless struct{ context.Context }

func (b endless) Read([]byte) (int, error) { <-b.Done(); return 0, b.Err() }
func (b endless) Close() error             { return nil }
