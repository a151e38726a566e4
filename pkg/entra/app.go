package entra

import (
	"cmp"
	"errors"
	"strings"
	"time"
)

// App is one Entra app registration with the resource that it asks for. Many
// tenants may share it.
type App struct {
	Name         string
	ClientID     string // GUID, as the caller wrote it
	ClientSecret Secret
	Scope        string // {resource}/.default
	Cloud        Cloud
	ChangedAt    time.Time // when any of the above was last put
}

// AppFields is what a caller says of an app. Empty means absent.
type AppFields struct {
	ClientID     string
	ClientSecret Secret
	Scope        string // this or Service
	Service      string
	Cloud        string // empty: Public
}

// IsZero reports whether the caller said nothing of the app.
func (f AppFields) IsZero() bool { return f == AppFields{} }

// NewApp checks the fields and returns the app that they describe, or an
// [InvalidError] with everything that is wrong.
func NewApp(name string, f AppFields) (App, error) {
	var bad fieldErrors
	bad.add("app", CheckName(name))
	app := bad.app(name, f)
	return app, bad.err()
}

func (bad *fieldErrors) app(name string, f AppFields) App {
	bad.add("client_id", checkGUID(f.ClientID))
	bad.add("client_secret", checkClientSecret(f.ClientSecret))
	cloud, err := parseCloud(f.Cloud)
	bad.add("cloud", err)

	scope := f.Scope
	switch {
	case f.Scope != "" && f.Service != "":
		bad.add("service", errors.New("stands for a scope: send scope or service, not both"))
		bad.add("scope", checkScope(f.Scope))
	case f.Service != "":
		// With a malformed cloud, an unknown service is still worth saying.
		scope, err = ServiceScope(f.Service, cmp.Or(cloud, Public))
		bad.add("service", err)
	case f.Scope == "":
		bad.add("scope", errors.New("is required, or service"))
	default:
		bad.add("scope", checkScope(f.Scope))
	}
	return App{Name: name, ClientID: f.ClientID, ClientSecret: f.ClientSecret, Scope: scope, Cloud: cloud}
}

// differences names the fields in which two apps are not the same app. The
// credential is not among them: a new one is a rotation.
func (a App) differences(b App) []string {
	var fields []string
	if !strings.EqualFold(a.ClientID, b.ClientID) {
		fields = append(fields, "client_id")
	}
	if a.Scope != b.Scope {
		fields = append(fields, "scope")
	}
	if a.Cloud != b.Cloud {
		fields = append(fields, "cloud")
	}
	return fields
}
