package secretstore_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"entra-connector/internal/connector"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"entra-connector/internal/secretstore"
	"entra-connector/internal/secretstore/secretstoretest"
)

// An account at AWS's quotas, on a bubble's clock.
func openAtQuota(t *testing.T, writesPerSecond float64) (*secretstore.Store, *secretsmanager.Client, *secretstoretest.Server) {
	return openOn(t, secretstoretest.Options{Quotas: secretstoretest.AWSQuotas, Latency: 15 * time.Millisecond},
		secretstore.Config{Prefix: "entra", WritesPerSecond: writesPerSecond}, nil)
}

// Others in the account write too. Then the store lives on what they leave, with
// few attempts in vain, and once they are gone has its ceiling back.
func TestOthersUseTheQuota(t *testing.T) {
	for name, ceiling := range map[string]float64{"default": 45, "no ceiling": 0} {
		synctest.Test(t, func(t *testing.T) {
			store, client, server := openAtQuota(t, ceiling)
			if _, err := store.CreateConnection(t.Context(), connection(), token); err != nil {
				t.Fatal(err)
			}
			// refresh writes so many times, 64 at a time, and says how many attempts
			// a second there were and how many were throttled.
			refresh := func(writes int) (perSecond, throttled float64) {
				server.ResetCalls()
				begin := time.Now()
				queue := make(chan bool)
				var workers sync.WaitGroup
				for range 64 {
					workers.Go(func() {
						for range queue {
							if err := store.SaveFailure(t.Context(), connection()); err != nil {
								t.Errorf("%s: %v", name, err)
							}
						}
					})
				}
				for range writes {
					queue <- true
				}
				close(queue)
				workers.Wait()
				for _, call := range server.Calls() {
					if call.Op == "UpdateSecret" && call.Error != "" {
						throttled++
					}
				}
				return float64(writes) / time.Since(begin).Seconds(), throttled / float64(writes)
			}
			refresh(100) // what AWS allows as a burst

			stop := make(chan bool)
			var others sync.WaitGroup
			others.Go(func() {
				for range 30 * 600 {
					select {
					case <-stop:
						return
					case <-time.After(time.Second / 30):
						others.Go(func() {
							client.PutSecretValue(t.Context(), &secretsmanager.PutSecretValueInput{SecretId: aws.String("others"), SecretString: aws.String("v")},
								func(o *secretsmanager.Options) { o.Retryer = aws.NopRetryer{} })
						})
					}
				}
			})
			if perSecond, throttled := refresh(2000); perSecond < 18 || throttled > 0.1 {
				t.Errorf("%s, with 20 a second left: %.1f writes a second, %.0f%% throttled", name, perSecond, 100*throttled)
			}
			close(stop)
			others.Wait()

			refresh(2000) // a minute at the most
			perSecond, throttled := refresh(2000)
			if want := 44.0; perSecond < want || throttled > 0.01 && ceiling > 0 {
				t.Errorf("%s, alone again: %.1f writes a second, want %.0f; %.1f%% throttled", name, perSecond, want, 100*throttled)
			}
		})
	}
}

// A secret with too many versions is that secret's trouble. The SDK takes AWS's
// answer for throttling.
func TestTooManyVersionsSlowNobody(t *testing.T) {
	for code, slower := range map[string]bool{"LimitExceededException": false, "ThrottlingException": true} {
		synctest.Test(t, func(t *testing.T) {
			store, _, server := openInMemory(t, secretstore.Config{Prefix: "entra", WritesPerSecond: 10}, nil)
			for _, name := range []string{"full", "acme"} {
				c := connection()
				c.Name = name
				if _, err := store.CreateConnection(t.Context(), c, token); err != nil {
					t.Fatal(err)
				}
			}
			server.Fail(secretstoretest.Fault{Op: "UpdateSecret", Secret: "entra/connections/default/full", Error: code})
			c := connection()
			c.Name = "full"
			if err := store.SaveFailure(t.Context(), c); err == nil {
				t.Fatal("the fault does not show")
			}
			time.Sleep(time.Second)
			begin := time.Now()
			for range 11 {
				if err := store.SaveFailure(t.Context(), connection()); err != nil {
					t.Fatal(err)
				}
			}
			if took := time.Since(begin); took > time.Second != slower {
				t.Errorf("after %s eleven writes take %v at 10 a second", code, took)
			}
		})
	}
}

// A write that is throttled for longer than the SDK goes on is stored all the
// same; only one that is throttled for ever is given up.
func TestThrottledWriteIsNotGivenUpSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, _, server := openAtQuota(t, 45)
		if _, err := store.CreateConnection(t.Context(), connection(), token); err != nil {
			t.Fatal(err)
		}
		server.Fail(secretstoretest.Fault{Op: "UpdateSecret", Error: "ThrottlingException", Times: 10})
		if err := store.SaveFailure(t.Context(), connection()); err != nil {
			t.Errorf("throttled ten times: %v", err)
		}
		server.Fail(secretstoretest.Fault{Op: "UpdateSecret", Error: "ThrottlingException"})
		if err := store.SaveFailure(t.Context(), connection()); err == nil {
			t.Error("throttled for ever: no error")
		}
	})
}

// A ceiling below one write a second is kept as well.
func TestLowCeilingOutlastsThrottling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, _, server := openInMemory(t, secretstore.Config{Prefix: "entra", WritesPerSecond: 0.5}, nil)
		if _, err := store.CreateConnection(t.Context(), connection(), token); err != nil {
			t.Fatal(err)
		}
		server.Fail(secretstoretest.Fault{Op: "UpdateSecret", Error: "ThrottlingException", Times: 1})
		begin := time.Now()
		for range 4 {
			if err := store.SaveFailure(t.Context(), connection()); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begin); took < 10*time.Second {
			t.Errorf("five attempts take %v at one in two seconds", took)
		}
	})
}

// A listing leaves others some of AWS's hundred calls a second.
func TestListsLeaveSomeOfTheQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, _, _ := openInMemory(t, secretstore.Config{Prefix: "entra"}, nil)
		begin := time.Now()
		for range 101 {
			if _, _, err := store.Connections(t.Context(), "", connector.PageLimit, ""); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begin); took < 1100*time.Millisecond {
			t.Errorf("101 calls take %v", took)
		}
	})
}
