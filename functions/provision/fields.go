package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
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

// appFields are the fields that say what an app is. A scope alone is a connection's own.
var (
	appFields   = []string{"client_id", "client_secret", "client_secret_expires_at", "certificate", federation, "cloud"}
	scopeFields = []string{"scope", "service"}
)

// federation is the one field that holds an object. Its members are read as fields with names such as
// federation.audience.
const federation = "federation"

// expiresInDays is the one field that holds a number. It is read as its digits.
const expiresInDays = "expires_in_days"

func scopeFieldsOf(fields map[string]string) connector.ScopeFields {
	return connector.ScopeFields{Scope: fields["scope"], Service: fields["service"]}
}

// appFieldsOf returns what the request says about an app, nil if that is nothing.
func appFieldsOf(fields map[string]string) *connector.AppFields {
	if !slices.ContainsFunc(appFields, func(name string) bool { _, given := fields[name]; return given }) {
		return nil
	}
	f := &connector.AppFields{
		ClientID:              fields["client_id"],
		ClientSecretExpiresAt: fields["client_secret_expires_at"],
		Cloud:                 fields["cloud"],
		ScopeFields:           scopeFieldsOf(fields),
	}
	if secret, given := fields["client_secret"]; given {
		f.ClientSecret = entra.NewSecret(secret)
	}
	if file, given := fields["certificate"]; given {
		f.Certificate = entra.NewSecret(file)
	}
	if _, given := fields[federation]; given {
		f.Federation = &connector.FederationFields{Audience: fields[federation+".audience"]}
	}
	return f
}

// readFields reads a JSON object of strings. It returns the fields that are there, and what is wrong
// with them; a field that is wrong is returned empty. encoding/json alone would match names in any case,
// let the last of two win, and stop at the first error. The error is for a body that is no JSON object
// at all.
func readFields(r *http.Request, known ...string) (map[string]string, []connector.FieldError, error) {
	if header := r.Header.Get("Content-Type"); header != "" {
		mediaType, params, err := mime.ParseMediaType(header)
		if charset, given := params["charset"]; err != nil || mediaType != "application/json" || given && !strings.EqualFold(charset, "utf-8") {
			return nil, nil, errMediaType
		}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || !utf8.Valid(body) {
		return nil, nil, errNotJSON
	}
	if len(body) == 0 && slices.Contains(known, expiresInDays) { // of an invitation everything is optional
		body = []byte("{}")
	}
	return readObject(bytes.TrimPrefix(body, []byte("\ufeff")), known) // as some editors save it
}

// maxErrors bounds the answer to a body of nothing but unknown fields.
const maxErrors = 50

func readObject(body []byte, known []string) (map[string]string, []connector.FieldError, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return nil, nil, errNotJSON
	}
	fields := make(map[string]string)
	var bad []connector.FieldError
	reject := func(name, detail string) {
		fields[name] = "" // it was given, so it must not be reported as missing
		if len(bad) < maxErrors && !slices.ContainsFunc(bad, func(e connector.FieldError) bool { return e.Field == name }) {
			bad = append(bad, connector.FieldError{Field: name, Detail: detail})
		}
	}
	seen := make(map[string]bool)
	for d.More() {
		token, err := d.Token()
		var raw json.RawMessage
		if err != nil || d.Decode(&raw) != nil {
			return nil, nil, errNotJSON
		}
		name := token.(string)
		var value *string
		switch err := json.Unmarshal(raw, &value); {
		case !slices.Contains(known, name):
			reject(shorten(name), "is not a field of this request")
		case seen[name]:
			reject(name, "appears more than once")
		case name == expiresInDays:
			if n := json.Number(""); json.Unmarshal(raw, &n) != nil || raw[0] == '"' || strings.Contains(string(n), ".") {
				reject(name, "must be a whole number")
				break
			}
			fields[name] = string(raw)
		case name == federation:
			members, wrong, err := readObject(raw, []string{"audience"})
			if err != nil {
				reject(name, "must be an object")
				break
			}
			fields[name] = ""
			for member, value := range members {
				fields[name+"."+member] = value
			}
			for _, e := range wrong {
				reject(name+"."+e.Field, e.Detail)
			}
		case err != nil || value == nil:
			reject(name, "must be a string")
		case *value == "":
			reject(name, "must not be empty")
		default:
			fields[name] = *value
		}
		seen[name] = true
	}
	if _, err := d.Token(); err != nil { // the closing brace
		return nil, nil, errNotJSON
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, nil, errNotJSON
	}
	return fields, bad, nil
}

// shorten cuts a name that the caller made up, so that it cannot fill the answer.
func shorten(name string) string {
	const most = 64
	if utf8.RuneCountInString(name) <= most {
		return name
	}
	return string([]rune(name)[:most]) + "…"
}

// join adds what is wrong with the values to what is wrong with the JSON. A field that could not be read
// is not reported as missing too.
func join(bad []connector.FieldError, err error) error {
	var invalid *connector.InvalidError
	switch {
	case errors.As(err, &invalid):
		unread := bad
		for _, e := range invalid.Fields {
			if !slices.ContainsFunc(unread, func(b connector.FieldError) bool {
				// A malformed service was meant to stand for the scope.
				return b.Field == e.Field || b.Field == "service" && e.Field == "scope"
			}) {
				bad = append(bad, e)
			}
		}
	case err != nil:
		return err
	}
	if len(bad) == 0 {
		return nil
	}
	return &connector.InvalidError{Fields: bad}
}

func pathApp(r *http.Request) (string, error) {
	name := r.PathValue("app")
	return name, join(checkName(nil, "app", name), nil)
}

func pathConnection(r *http.Request) (connector.ConnectionRef, error) {
	ref := connector.ConnectionRef{App: r.PathValue("app"), Name: r.PathValue("connection")}
	return ref, join(checkName(checkName(nil, "app", ref.App), "connection", ref.Name), nil)
}

func checkName(bad []connector.FieldError, field, name string) []connector.FieldError {
	if err := connector.CheckName(name); err != nil {
		bad = append(bad, connector.FieldError{Field: field, Detail: err.Error()})
	}
	return bad
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
	var bad []connector.FieldError
	for _, name := range slices.Sorted(maps.Keys(values)) {
		detail := ""
		switch given, value := values[name], values.Get(name); {
		case len(given) > 1:
			detail = "appears more than once"
		case name == "app":
			if err := connector.CheckName(value); err != nil {
				detail = err.Error()
			}
			q.app = value
		case name == "limit":
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 || n > connector.PageLimit {
				detail = "must be a whole number from 1 to " + strconv.Itoa(connector.PageLimit)
			}
			q.limit = n
		case name == "cursor":
			if value == "" {
				detail = "must not be empty"
			}
			q.cursor = value
		default:
			name, detail = shorten(name), "is not a parameter of this request"
		}
		if detail != "" {
			bad = append(bad, connector.FieldError{Field: name, Detail: detail})
		}
	}
	return q, join(bad, nil)
}
