package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"entra-connector/internal/connector"
	"entra-connector/pkg/entra"
)

// object says how to read the fields of a JSON object, by their names. A field's error follows its
// name.
type object map[string]func(json.RawMessage) error

// text reads a string that must not be empty. What cannot be read is set to an empty one: it was
// given.
func text(set func(string)) func(json.RawMessage) error {
	return func(raw json.RawMessage) error {
		set("")
		var value *string
		switch err := json.Unmarshal(raw, &value); {
		case err != nil || value == nil:
			return errors.New("must be a string")
		case *value == "":
			return errors.New("must not be empty")
		}
		set(*value)
		return nil
	}
}

func plain(to *string) func(json.RawMessage) error {
	return text(func(value string) { *to = value })
}

func secret(to *entra.Secret) func(json.RawMessage) error {
	return text(func(value string) { *to = entra.NewSecret(value) })
}

// provisioning reads the body of POST /connections. With any field of an app, the request describes
// the whole app.
func provisioning(f *connector.ProvisionFields) object {
	o := object{"tenant_id": plain(&f.TenantID), "app": plain(&f.App), "connection": plain(&f.Connection)}
	maps.Copy(o, scope(&f.ScopeFields))
	var app connector.AppFields
	for name, read := range appAlone(&app) {
		o[name] = func(raw json.RawMessage) error {
			f.AppFields = &app
			return read(raw)
		}
	}
	return o
}

func wholeApp(f *connector.AppFields) object {
	o := appAlone(f)
	maps.Copy(o, scope(&f.ScopeFields))
	return o
}

func appAlone(f *connector.AppFields) object {
	return object{
		"client_id":                plain(&f.ClientID),
		"client_secret":            secret(&f.ClientSecret),
		"client_secret_expires_at": plain(&f.ClientSecretExpiresAt),
		"certificate":              secret(&f.Certificate),
		"cloud":                    plain(&f.Cloud),
		"federation": func(raw json.RawMessage) error {
			f.Federation = &connector.FederationFields{}
			bad, err := object{"audience": plain(&f.Federation.Audience)}.read(raw)
			if err != nil {
				return errors.New("must be an object")
			}
			return bad.Err()
		},
	}
}

func scope(f *connector.ScopeFields) object {
	return object{"scope": plain(&f.Scope), "service": plain(&f.Service)}
}

// inviting reads the body of an invitation. Nothing in it is required.
func inviting(f *connector.InvitingFields) object {
	o := object{"tenant_id": plain(&f.TenantID), "expires_in_days": func(raw json.RawMessage) error {
		var days float64 // JSON does not tell 7 from 7.0
		if json.Unmarshal(raw, &days) != nil || days != math.Trunc(days) || days < 1 || days > 30 {
			return errors.New("must be a whole number from 1 to 30")
		}
		f.ExpiresInDays = int(days)
		return nil
	}}
	maps.Copy(o, scope(&f.ScopeFields))
	return o
}

// readFields reads the body of a request, and returns what is wrong with its fields. The error is
// for a body that is no JSON object at all.
func readFields(r *http.Request, fields object) (bad connector.InvalidError, err error) {
	if header := r.Header.Get("Content-Type"); header != "" {
		mediaType, params, err := mime.ParseMediaType(header)
		if charset, given := params["charset"]; err != nil || mediaType != "application/json" || given && !strings.EqualFold(charset, "utf-8") {
			return bad, errMediaType
		}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || !utf8.Valid(body) {
		return bad, errNotJSON
	}
	if _, optional := fields["expires_in_days"]; optional && len(body) == 0 {
		return bad, nil
	}
	return fields.read(bytes.TrimPrefix(body, []byte("\ufeff"))) // as some editors save it
}

// maxErrors bounds the answer to a body of nothing but unknown fields.
const maxErrors = 50

// read reads a JSON object. encoding/json alone would match names in any case, let the last of two
// win, and stop at the first error.
func (o object) read(body []byte) (bad connector.InvalidError, err error) {
	d := json.NewDecoder(bytes.NewReader(body))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return bad, errNotJSON
	}
	reject := func(name string, err error) {
		if len(bad.Fields) < maxErrors && !bad.Has(name) {
			bad.Add(name, err)
		}
	}
	seen := make(map[string]bool)
	for d.More() {
		token, err := d.Token()
		var raw json.RawMessage
		if err != nil || d.Decode(&raw) != nil {
			return bad, errNotJSON
		}
		name := token.(string)
		var members *connector.InvalidError
		switch read, known := o[name]; {
		case !known:
			reject(shorten(name), errors.New("is not a field of this request"))
		case seen[name]:
			_ = read(nil) // as if it had not been sent
			reject(name, errors.New("appears more than once"))
		default:
			if err = read(raw); !errors.As(err, &members) {
				reject(name, err)
				break
			}
			for _, e := range members.Fields {
				reject(name+"."+e.Field, errors.New(e.Detail))
			}
		}
		seen[name] = true
	}
	if _, err := d.Token(); err != nil { // the closing brace
		return bad, errNotJSON
	}
	if _, err := d.Token(); err != io.EOF {
		return bad, errNotJSON
	}
	return bad, nil
}

// shorten cuts a name that the caller made up, so that it cannot fill the answer.
func shorten(name string) string {
	const most = 64
	if utf8.RuneCountInString(name) <= most {
		return name
	}
	return string([]rune(name)[:most]) + "…"
}

// join adds what is wrong with the values to what is wrong with the JSON. A field that could not be
// read is not reported as missing too.
func join(unread connector.InvalidError, err error) error {
	var invalid *connector.InvalidError
	if !errors.As(err, &invalid) {
		return cmp.Or(err, unread.Err())
	}
	all := unread
	for _, e := range invalid.Fields {
		// A malformed service was meant to stand for the scope.
		if !unread.Has(e.Field) && !(e.Field == "scope" && unread.Has("service")) {
			all.Fields = append(all.Fields, e)
		}
	}
	return all.Err()
}

type listQuery struct {
	app    string // empty: every app
	limit  int
	cursor string
}

func readListQuery(r *http.Request) (listQuery, error) {
	q := listQuery{limit: connector.PageLimit}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return q, &problem{Status: http.StatusBadRequest, Type: typeInvalid, Detail: "The query is malformed."}
	}
	var bad connector.InvalidError
	for _, name := range slices.Sorted(maps.Keys(values)) {
		switch given, value := values[name], values.Get(name); {
		case len(given) > 1:
			bad.Add(name, errors.New("appears more than once"))
		case name == "app":
			bad.Add(name, connector.CheckName(value))
			q.app = value
		case name == "limit":
			if q.limit, err = strconv.Atoi(value); err != nil || q.limit < 1 || q.limit > connector.PageLimit {
				bad.Add(name, fmt.Errorf("must be a whole number from 1 to %d", connector.PageLimit))
			}
		case name == "cursor" && value == "":
			bad.Add(name, errors.New("must not be empty"))
		case name == "cursor":
			q.cursor = value
		default:
			bad.Add(shorten(name), errors.New("is not a parameter of this request"))
		}
	}
	return q, bad.Err()
}
