// Command services calls each service by its own client, again and again, until the time is up.
// Each client is made once.
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	mssql "github.com/microsoft/go-mssqldb"
	abstractions "github.com/microsoft/kiota-abstractions-go"
	azureauth "github.com/microsoft/kiota-authentication-azure-go"
	msgraphcore "github.com/microsoftgraph/msgraph-sdk-go-core"
	"golang.org/x/oauth2"

	"entra-connector/pkg/entratoken"
	"entra-connector/pkg/entratoken/azuretoken"
)

// client makes a client of a service, and returns how to call it.
type client func(ctx context.Context, url string, r *entratoken.Reader) (func() error, error)

var clients = map[string]client{
	"azure-sql":        azureSQL,
	"azure-storage":    azureStorage,
	"business-central": businessCentral,
	"microsoft-365":    graph("sites/root Contoso"),
	"microsoft-graph":  graph("users Adele", "users?$skiptoken=2 Alex"),
	"microsoft-teams":  graph("teams/1/channels General"),
}

func azureSQL(ctx context.Context, address string, r *entratoken.Reader) (func() error, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	dsn := fmt.Sprintf("server=%s;port=%s;encrypt=disable", u.Hostname(), u.Port()) // so that the test can read the login
	connector, err := mssql.NewConnectorWithAccessTokenProvider(dsn, func(ctx context.Context) (string, error) {
		t, err := r.Token(ctx)
		return t.AccessToken.Reveal(), err
	})
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxIdleConns(0) // so that each call logs in
	return func() error {
		_, err := db.ExecContext(ctx, "SELECT 1")
		return err
	}, nil
}

func azureStorage(ctx context.Context, address string, r *entratoken.Reader) (func() error, error) {
	c, err := azblob.NewClient(address+"/devstoreaccount1", azuretoken.New(r), nil) // Azurite's account
	if err != nil {
		return nil, err
	}
	if _, err := c.CreateContainer(ctx, "golang", nil); err != nil {
		return nil, err
	}
	return func() error {
		text := time.Now().String()
		if _, err := c.UploadBuffer(ctx, "golang", "time", []byte(text), nil); err != nil {
			return err
		}
		response, err := c.DownloadStream(ctx, "golang", "time", nil)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		got, err := io.ReadAll(response.Body)
		return errors.Join(err, want(string(got), text))
	}, nil
}

func businessCentral(ctx context.Context, address string, r *entratoken.Reader) (func() error, error) {
	c := oauth2.NewClient(ctx, r.TokenSource(ctx))
	items := address + "/v2.0/" + os.Getenv("TENANT") + "/Production/ODataV4/Company('CRONUS')/Items?$top=1"
	return func() error {
		response, err := c.Get(items)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		var page struct {
			Value []struct{ Description string }
		}
		if err := json.NewDecoder(response.Body).Decode(&page); err != nil || len(page.Value) != 1 {
			return fmt.Errorf("%s: %w", response.Status, err)
		}
		return want(page.Value[0].Description, "Bicycle")
	}, nil
}

// graph uses what authenticates and sends in msgraph-sdk-go. The rest of that SDK is generated from
// the API's description, and takes more than ten minutes to compile.
func graph(paths ...string) client {
	return func(ctx context.Context, address string, r *entratoken.Reader) (func() error, error) {
		u, err := url.Parse(address)
		if err != nil {
			return nil, err
		}
		// With the whole SDK and the public cloud, msgraphsdk.NewGraphServiceClientWithCredentials
		// is enough.
		auth, err := azureauth.NewAzureIdentityAuthenticationProviderWithScopesAndValidHosts(azuretoken.New(r),
			[]string{"https://graph.microsoft.com/.default"}, []string{u.Hostname()})
		if err != nil {
			return nil, err
		}
		adapter, err := msgraphcore.NewGraphRequestAdapterBase(auth, msgraphcore.GraphClientOptions{})
		if err != nil {
			return nil, err
		}
		return func() error {
			for _, path := range paths {
				path, name, _ := strings.Cut(path, " ")
				at, err := url.Parse(address + "/v1.0/" + path)
				if err != nil {
					return err
				}
				request := abstractions.NewRequestInformation()
				request.SetUri(*at)
				answer, err := adapter.SendPrimitive(ctx, request, "[]byte", nil)
				if err != nil {
					return err
				}
				if text, _ := answer.([]byte); !strings.Contains(string(text), name) {
					return fmt.Errorf("%s: got %s", path, text)
				}
			}
			return nil
		}, nil
	}
}

func want(got, want string) error {
	if got != want {
		return fmt.Errorf("got %q, want %q", got, want)
	}
	return nil
}

func main() {
	var targets map[string]struct{ Connection, URL string }
	seconds, err1 := strconv.Atoi(os.Getenv("SECONDS_TO_RUN"))
	pause, err2 := strconv.Atoi(os.Getenv("PAUSE"))
	if err := errors.Join(err1, err2, json.Unmarshal([]byte(os.Getenv("SERVICES")), &targets)); err != nil {
		log.Fatal(err)
	}
	ctx, end := context.Background(), time.Now().Add(time.Duration(seconds)*time.Second)
	var running sync.WaitGroup
	for name, target := range targets {
		running.Go(func() {
			reader, err := entratoken.New(ctx, target.Connection, entratoken.Options{})
			if err != nil {
				log.Fatal(name, ": ", err)
			}
			call, err := clients[name](ctx, target.URL, reader)
			for err == nil && time.Now().Before(end) {
				err = call()
				time.Sleep(time.Duration(pause) * time.Second)
			}
			if err != nil {
				log.Fatal(name, ": ", err)
			}
		})
	}
	running.Wait()
}
