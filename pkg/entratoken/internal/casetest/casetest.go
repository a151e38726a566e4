// Package casetest runs the cases of clients/cases.json, which the clients of all languages share.
package casetest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/aws/smithy-go"

	"entra-connector/pkg/entra"
	"entra-connector/pkg/entratoken"
)

// Ask is what a caller wants of a credential.
type Ask struct {
	Scopes         []string
	Tenant, Claims string
}

// Answer is what a caller gets.
type Answer struct {
	Token       string
	Ends, Again time.Time
}

// Options say how a reader is asked, and what its errors are.
type Options struct {
	Ask   func(context.Context, *entratoken.Reader, Ask) (Answer, error)
	Kinds map[string]error
	Plain bool // leave out what only a credential can be asked
}

type store struct {
	Token, String, Error string
	Ends, Life           int64
	Set                  map[string]any
}

type table struct {
	Epoch int64
	Cases []struct {
		Name, Connection, Prefix, Scope, Secret string
		Window                                  int64
		ScopeTag                                json.RawMessage `json:"scope_tag"`
		Invalid                                 bool
		Steps                                   []struct {
			At               int64
			Store            *store
			Ask              *Ask
			Callers          int
			Reads, Describes *int
			Answer           struct {
				Token, Error, Says string
				Ends, Again        *int64
			}
		}
	}
}

// Run runs every case.
func Run(t *testing.T, file string, o Options) {
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all table
	if err := json.Unmarshal(raw, &all); err != nil {
		t.Fatal(err)
	}
	for _, c := range all.Cases {
		t.Run(c.Name, func(t *testing.T) {
			if o.Plain && strings.Contains(string(must(json.Marshal(c.Steps))), `"Ask":{`) {
				t.Skip("only a credential can be asked for a scope, a tenant or claims")
			}
			synctest.Test(t, func(t *testing.T) {
				m := &manager{t: t, epoch: all.Epoch, secret: cmp.Or(c.Secret, "entra/connections/default/contoso"), tag: c.ScopeTag}
				var at int64
				reader, err := entratoken.New(t.Context(), cmp.Or(c.Connection, "default/contoso"), entratoken.Options{
					Prefix: c.Prefix, Scope: c.Scope, Window: time.Duration(c.Window) * time.Second, Client: m,
					Now: func() time.Time { return time.Unix(all.Epoch+at, 0) },
				})
				if (err != nil) != c.Invalid {
					t.Fatalf("New: %v", err)
				}
				for _, step := range c.Steps {
					at = step.At
					if step.Store != nil {
						m.store = *step.Store
					}
					var callers sync.WaitGroup
					for range max(step.Callers, 1) {
						callers.Go(func() {
							got, err := o.Ask(t.Context(), reader, *cmp.Or(step.Ask, new(Ask)))
							want := step.Answer
							if err != nil {
								if text := err.Error(); want.Error == "" || !is(err, want.Error, o.Kinds) || !strings.Contains(text, want.Says) {
									t.Errorf("at %d: %v; want %+v", at, err, want)
								} else if !strings.Contains(text, "default/contoso") || strings.Contains(text, "token-") {
									t.Errorf("at %d: the error does not name the connection, or shows a token: %v", at, err)
								}
								return
							}
							if got.Token != "token-"+want.Token || differs(got.Ends, want.Ends, all.Epoch) || differs(got.Again, want.Again, all.Epoch) {
								t.Errorf("at %d: %s, ends %d, again %d; want %s", at, got.Token, got.Ends.Unix()-all.Epoch, got.Again.Unix()-all.Epoch, must(json.Marshal(want)))
							}
						})
					}
					callers.Wait()
					if step.Reads != nil && m.reads != *step.Reads || step.Describes != nil && m.describes != *step.Describes {
						t.Errorf("at %d: %d reads, %d looks at the tags; want %s", at, m.reads, m.describes, must(json.Marshal(step)))
					}
				}
			})
		})
	}
}

func differs(got time.Time, want *int64, epoch int64) bool {
	return want != nil && !got.IsZero() && got.Unix() != epoch+*want
}

// is reports whether err is of one kind and of no other.
func is(err error, want string, kinds map[string]error) bool {
	for kind, sentinel := range kinds {
		if errors.Is(err, sentinel) != (kind == want) {
			return false
		}
	}
	return true
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TenantID is the tenant of every token here.
const TenantID = "c0000000-0000-4000-8000-000000000001"

func six(token string, ends time.Time, life time.Duration) map[string]string {
	return entra.Token{
		Type: "Bearer", AccessToken: entra.NewSecret(token), TenantID: TenantID,
		ExpiresIn: int64(life.Seconds()), ExtExpiresIn: int64(life.Seconds()), RequestedAt: ends.Add(-life),
	}.Values()
}

// Value is what the connector stores.
func Value(token string, ends time.Time, life time.Duration) string {
	return string(must(json.Marshal(six(token, ends, life))))
}

// Manager is Secrets Manager with a single secret.
type Manager func() (value string, err error)

func (m Manager) GetSecretValue(ctx context.Context, _ *secretsmanager.GetSecretValueInput, _ ...func(*secretsmanager.Options)) (*secretsmanager.GetSecretValueOutput, error) {
	value, err := m()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return &secretsmanager.GetSecretValueOutput{SecretString: &value}, err
}

// manager is Secrets Manager as a case has it.
type manager struct {
	t                *testing.T
	epoch            int64
	secret           string
	tag              json.RawMessage
	store            store
	mu               sync.Mutex
	reads, describes int
}

func (m *manager) refuse(op, code string) error {
	if code == "" {
		return nil
	}
	return &smithy.GenericAPIError{Code: code, Message: "reader is not authorized to perform secretsmanager:" + op}
}

func (m *manager) count(n *int, secret string) {
	m.mu.Lock()
	*n++
	m.mu.Unlock()
	if secret != m.secret {
		m.t.Errorf("%s was read", secret)
	}
	time.Sleep(time.Second) // of the bubble's clock: everybody else who can run does so meanwhile
}

func (m *manager) GetSecretValue(_ context.Context, in *secretsmanager.GetSecretValueInput, _ ...func(*secretsmanager.Options)) (*secretsmanager.GetSecretValueOutput, error) {
	m.count(&m.reads, *in.SecretId)
	s := m.store
	if s.Error != "" {
		return nil, m.refuse("GetSecretValue", s.Error)
	}
	if s.Token == "" {
		return &secretsmanager.GetSecretValueOutput{SecretString: &s.String}, nil
	}
	values := make(map[string]any)
	for key, value := range six("token-"+s.Token, time.Unix(m.epoch+s.Ends, 0), time.Duration(s.Life)*time.Second) {
		values[key] = value
	}
	for key, value := range s.Set {
		if values[key] = value; value == nil {
			delete(values, key)
		}
	}
	value := string(must(json.Marshal(values)))
	return &secretsmanager.GetSecretValueOutput{SecretString: &value}, nil
}

func (m *manager) DescribeSecret(_ context.Context, in *secretsmanager.DescribeSecretInput, _ ...func(*secretsmanager.Options)) (*secretsmanager.DescribeSecretOutput, error) {
	m.count(&m.describes, *in.SecretId)
	key, tag := "entra-connector:scope", "https://graph.microsoft.com"
	var fails struct{ Error string }
	switch {
	case m.tag == nil:
	case string(m.tag) == "null":
		key = "another"
	case json.Unmarshal(m.tag, &fails) == nil:
		return nil, m.refuse("DescribeSecret", fails.Error)
	default:
		if err := json.Unmarshal(m.tag, &tag); err != nil {
			panic(err)
		}
	}
	return &secretsmanager.DescribeSecretOutput{Tags: []types.Tag{{Key: &key, Value: &tag}}}, nil
}
