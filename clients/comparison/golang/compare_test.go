// Package golang lives through the days of ../../days.json with each Go client, and prints a line
// of JSON for each.
package golang

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-secretsmanager-caching-go/v2/secretcache"

	"entra-connector/pkg/entra"
	"entra-connector/pkg/entratoken"
)

type day struct {
	Name            string
	Life            int64
	Stored, Failing [][2]int64
}

// manager is Secrets Manager on the clock of a synctest bubble.
type manager struct {
	secretcache.SecretsManagerAPIClient // what nobody calls here
	day
	start time.Time
	calls int
}

func (m *manager) now() int64 { return int64(time.Since(m.start).Seconds()) }

// current is the token that is stored now.
func (m *manager) current() int {
	n := 0
	for n+1 < len(m.Stored) && m.Stored[n+1][0] <= m.now() {
		n++
	}
	return n
}

func (m *manager) stored() (int, error) {
	m.calls++
	for _, f := range m.Failing {
		if f[0] <= m.now() && m.now() < f[1] {
			return 0, errors.New("InternalServiceError")
		}
	}
	return m.current(), nil
}

func (m *manager) GetSecretValue(context.Context, *secretsmanager.GetSecretValueInput, ...func(*secretsmanager.Options)) (*secretsmanager.GetSecretValueOutput, error) {
	n, err := m.stored()
	if err != nil {
		return nil, err
	}
	life := time.Duration(m.Life) * time.Second
	value, err := json.Marshal(entra.Token{
		Type: "Bearer", AccessToken: entra.NewSecret("x"), TenantID: "x", ExpiresIn: m.Life, ExtExpiresIn: m.Life,
		RequestedAt: m.start.Add(time.Duration(m.Stored[n][1])*time.Second - life),
	}.Values())
	text := string(value)
	return &secretsmanager.GetSecretValueOutput{SecretString: &text}, err
}

func (m *manager) DescribeSecret(context.Context, *secretsmanager.DescribeSecretInput, ...func(*secretsmanager.Options)) (*secretsmanager.DescribeSecretOutput, error) {
	n, err := m.stored()
	if err != nil {
		return nil, err
	}
	return &secretsmanager.DescribeSecretOutput{VersionIdsToStages: map[string][]string{strconv.Itoa(n): {"AWSCURRENT"}}}, nil
}

// clients return when the token that they hand out ends.
var clients = []struct {
	name string
	make func(*manager) func(context.Context) (time.Time, error)
}{
	{"this client, Go", func(m *manager) func(context.Context) (time.Time, error) {
		reader, err := entratoken.New(context.Background(), "default/contoso", entratoken.Options{Client: m})
		if err != nil {
			panic(err)
		}
		return func(ctx context.Context) (time.Time, error) {
			token, err := reader.Token(ctx)
			return token.ExpiresAt(), err
		}
	}},
	{"aws-secretsmanager-caching, Go", func(m *manager) func(context.Context) (time.Time, error) {
		cache, err := secretcache.New(func(c *secretcache.Cache) { c.Client = m })
		if err != nil {
			panic(err)
		}
		return func(ctx context.Context) (time.Time, error) {
			var values map[string]string
			text, err := cache.GetSecretStringWithContext(ctx, "entra/connections/default/contoso")
			if err == nil {
				err = json.Unmarshal([]byte(text), &values)
			}
			ends, _ := strconv.ParseInt(values[entra.KeyExpiresAt], 10, 64)
			return time.Unix(ends, 0), err
		}
	}},
}

func TestDays(t *testing.T) {
	raw, err := os.ReadFile("../../days.json")
	if err != nil {
		t.Fatal(err)
	}
	var days []day
	if err := json.Unmarshal(raw, &days); err != nil {
		t.Fatal(err)
	}
	for _, d := range days {
		for _, client := range clients {
			synctest.Test(t, func(t *testing.T) {
				m := &manager{day: d, start: time.Now()}
				ask := client.make(m)
				expired, failed := 0, 0
				for range 24 * 60 * 6 {
					ends, err := ask(t.Context())
					switch {
					case err != nil && m.Stored[m.current()][1] > m.now():
						failed++
					case err != nil: // rightly
					case !time.Now().Before(ends):
						expired++
					}
					time.Sleep(10 * time.Second)
				}
				fmt.Printf("{\"client\": %q, \"day\": %q, \"calls\": %d, \"expired\": %d, \"errors\": %d}\n", client.name, d.Name, m.calls, expired, failed)
			})
		}
	}
}
