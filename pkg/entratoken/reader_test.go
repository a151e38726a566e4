package entratoken_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/pkg/entra"
	"entra-connector/pkg/entratoken"
	"entra-connector/pkg/entratoken/internal/casetest"
)

func TestCases(t *testing.T) {
	casetest.Run(t, "../../clients/cases.json", casetest.Options{
		Plain: true,
		Kinds: map[string]error{
			"not_found": entratoken.ErrNotFound, "not_permitted": entratoken.ErrNotPermitted,
			"malformed": entratoken.ErrMalformed, "expired": entratoken.ErrExpired,
		},
		Ask: func(ctx context.Context, r *entratoken.Reader, _ casetest.Ask) (casetest.Answer, error) {
			token, err := r.Token(ctx)
			return casetest.Answer{Token: token.AccessToken.Reveal(), Ends: token.ExpiresAt(), Again: token.RefreshAt}, err
		},
	})
}

func newReader(tb testing.TB, o entratoken.Options) *entratoken.Reader {
	tb.Helper()
	r, err := entratoken.New(tb.Context(), "default/contoso", o)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// A program that asks every ten seconds of a whole day always gets a live token, if there is one,
// and costs few reads.
func TestDay(t *testing.T) {
	raw, err := os.ReadFile("../../clients/days.json")
	if err != nil {
		t.Fatal(err)
	}
	var days []struct {
		Name    string
		Life    int64
		Stored  [][2]int64
		Failing [][2]int64
	}
	if err := json.Unmarshal(raw, &days); err != nil {
		t.Fatal(err)
	}
	for i, day := range days {
		t.Run(day.Name, func(t *testing.T) {
			var now int64
			reads, expired, refused, last := 0, 0, 0, int64(-60)
			r := newReader(t, entratoken.Options{
				Now: func() time.Time { return time.Unix(now, 0) },
				Client: casetest.Manager(func() (string, error) {
					if reads++; now-last < 60 {
						t.Errorf("read at %d and at %d", last, now)
					}
					last = now
					for _, f := range day.Failing {
						if f[0] <= now && now < f[1] {
							return "", errors.New("no answer")
						}
					}
					n := 0
					for n+1 < len(day.Stored) && day.Stored[n+1][0] <= now {
						n++
					}
					return casetest.Value(strconv.Itoa(n), time.Unix(day.Stored[n][1], 0), time.Duration(day.Life)*time.Second), nil
				}),
			})
			for now = 0; now < 86400; now += 10 {
				token, err := r.Token(t.Context())
				switch {
				case err != nil:
					refused++
				case day.Stored[must(strconv.Atoi(token.AccessToken.Reveal()))][1] <= now:
					expired++
				}
			}
			life := float64(reads) * float64(day.Life) / 86400
			t.Logf("%d reads, %.2f times a token's life; %d expired tokens handed out, %d refused", reads, life, expired, refused)
			if expired > 0 {
				t.Error("an expired token was handed out")
			}
			if i == 0 && (refused > 0 || life > 2.2) {
				t.Error("on an ordinary day there is always a token, for 2.2 reads of its life at most")
			}
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Secrets Manager hangs: who holds a valid token does not wait, and who gives up spoils nothing.
func TestHangingRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start, token := time.Now(), "first"
		r := newReader(t, entratoken.Options{Client: casetest.Manager(func() (string, error) {
			time.Sleep(5 * time.Second)
			return casetest.Value(token, start.Add(time.Hour), time.Hour), nil
		})})
		hasty, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Token(hasty); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the hasty caller got %v", err)
		}
		if got, err := r.Token(t.Context()); err != nil || time.Since(start) != 5*time.Second {
			t.Errorf("the patient one got %v, %v after %v", got, err, time.Since(start))
		}

		time.Sleep(40 * time.Minute)
		start, token = time.Now(), "second"
		answers := make(chan string, 3)
		for range cap(answers) {
			go func() {
				got, _ := r.Token(t.Context())
				answers <- fmt.Sprint(got.AccessToken.Reveal(), " ", time.Since(start))
			}()
		}
		got := []string{<-answers, <-answers, <-answers}
		if want := "[first 0s first 0s second 5s]"; fmt.Sprint(got) != want {
			t.Errorf("three callers got %v; want %s", got, want)
		}
	})
}

// The SDK's own client, the user's own HTTP client: what oauth2.NewClient makes presents each new
// token as soon as the reader has it, and long before the old one expires.
func TestHTTPClient(t *testing.T) {
	allowed, start, passed := true, time.Now(), time.Duration(0)
	secrets := secretstoretest.Start(t, secretstoretest.Options{Authorize: func(string, string, string) bool { return allowed }})
	for key, value := range map[string]string{
		"AWS_ENDPOINT_URL_SECRETS_MANAGER": secrets.URL(), "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none",
	} {
		t.Setenv(key, value)
	}
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("Authorization"))
	}))
	defer api.Close()
	r := newReader(t, entratoken.Options{Now: func() time.Time { return start.Add(passed) }})
	client := oauth2.NewClient(t.Context(), r.TokenSource(t.Context()))
	get := func() string {
		response, err := client.Get(api.URL)
		if err != nil {
			return err.Error()
		}
		defer response.Body.Close()
		var b bytes.Buffer
		_, _ = b.ReadFrom(response.Body)
		return b.String()
	}
	expect := func(want string) {
		t.Helper()
		if got := get(); !strings.Contains(got, want) {
			t.Errorf("after %v: %s; want %s", passed, got, want)
		}
	}

	const name = "entra/connections/default/contoso"
	expect(entratoken.ErrNotFound.Error())
	secrets.Put(name, casetest.Value("one", start.Add(20*time.Minute), time.Hour), "")
	passed += time.Minute
	expect("Bearer one")
	secrets.Put(name, casetest.Value("two", start.Add(23*time.Minute), time.Hour), "")
	passed += 59 * time.Second
	expect("Bearer one")
	passed += time.Second
	expect("Bearer two")
	allowed = false
	passed += time.Minute
	expect("Bearer two")
	passed += 20 * time.Minute
	expect(entratoken.ErrNotPermitted.Error())
	if reads := secrets.Count("GetSecretValue"); reads != 5 {
		t.Errorf("%d reads", reads)
	}
}

func TestTokenNeverPrints(t *testing.T) {
	const canary = "eyJ.canary.token"
	r := newReader(t, entratoken.Options{Client: casetest.Manager(func() (string, error) {
		return casetest.Value(canary, time.Now().Add(time.Hour), time.Hour), nil
	})})
	token, err := r.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	values, err := r.Values(t.Context())
	if err != nil || len(values) != 6 || values[entra.KeyAccessToken].Reveal() != canary || values[entra.KeyTenantID].Reveal() != casetest.TenantID {
		t.Errorf("values %v, %v", values, err)
	}
	var printed bytes.Buffer
	for _, v := range []any{token, &token, values, r} {
		fmt.Fprintf(&printed, "%v %+v %#v %s %q", v, v, v, v, v)
		_ = json.NewEncoder(&printed).Encode(v)
		slog.New(slog.NewTextHandler(&printed, nil)).Info("", "v", v)
		slog.New(slog.NewJSONHandler(&printed, nil)).Info("", "v", v)
	}
	if strings.Contains(printed.String(), canary) {
		t.Errorf("%s", &printed)
	}
}

func BenchmarkKeptToken(b *testing.B) {
	r := newReader(b, entratoken.Options{Client: casetest.Manager(func() (string, error) {
		return casetest.Value("token", time.Now().Add(time.Hour), time.Hour), nil
	})})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Token(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
