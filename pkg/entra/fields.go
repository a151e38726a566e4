package entra

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// FieldError says what is wrong with one field that a caller sent. Detail never
// quotes the value, which may be a secret in the wrong place.
type FieldError struct {
	Field  string `json:"field"`
	Detail string `json:"detail"`
}

// InvalidError reports every field of a request that is missing or malformed.
type InvalidError struct{ Fields []FieldError }

func (e *InvalidError) Error() string {
	parts := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		parts[i] = f.Field + " " + f.Detail
	}
	return "invalid request: " + strings.Join(parts, "; ")
}

// fieldErrors gathers what is wrong with a request, so that the caller learns
// of everything at once.
type fieldErrors []FieldError

func (f *fieldErrors) add(field string, err error) {
	if err != nil {
		*f = append(*f, FieldError{Field: field, Detail: err.Error()})
	}
}

func (f fieldErrors) err() error {
	if len(f) == 0 {
		return nil
	}
	return &InvalidError{Fields: f}
}

const (
	defaultSuffix   = "/.default"
	maxScopeLength  = 512 // Entra allows 255 for an application ID URI
	maxSecretLength = 1024

	// consumersTenant holds personal Microsoft accounts, in which no app-only
	// token exists. Source: Microsoft identity platform, OpenID Connect.
	consumersTenant = "9188040d-6c67-4c5b-b112-36a304b66dad"
)

// pattern is a regular expression that is compiled when it is first needed: all
// of them at once would be a quarter of a cold start.
func pattern(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}

var (
	guidPattern  = pattern(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)
	namePattern  = pattern(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	labelPattern = pattern(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	// The characters of a URI (RFC 3986) without those that begin a query or a fragment.
	uriPattern = pattern(`^[A-Za-z0-9._~:/@!$&'()*+,;=%\[\]-]+$`)

	errRequired = errors.New("is required")
	errText     = errors.New("is not valid Unicode text")
	errSpace    = errors.New("has white space around it; send the value exactly as Entra shows it")
)

// checkText holds for every field: a pasted line break is the commonest way to
// a value that does not work, and trimming it would hide the mistake.
func checkText(s string) error {
	switch {
	case s == "":
		return errRequired
	case strings.TrimSpace(s) != s:
		return errSpace
	case strings.ContainsRune(s, utf8.RuneError):
		return errText
	}
	return nil
}

// CheckName reports what is wrong with the name of an app or a connection.
func CheckName(s string) error {
	if err := checkText(s); err != nil {
		return err
	}
	if !namePattern().MatchString(s) || strings.Contains(s, "..") {
		return errors.New("must be 1 to 64 of a-z, 0-9, '.', '_', '-', begin with a letter or digit, and not contain '..'")
	}
	return nil
}

func checkGUID(s string) error {
	if err := checkText(s); err != nil {
		return err
	}
	if !guidPattern().MatchString(s) {
		return errors.New("must be a GUID, such as 00000000-0000-0000-0000-000000000000")
	}
	return nil
}

func checkClientSecret(s Secret) error {
	value := s.Reveal()
	if err := checkText(value); err != nil {
		return err
	}
	if utf8.RuneCountInString(value) > maxSecretLength || strings.ContainsFunc(value, unicode.IsControl) {
		return fmt.Errorf("must be 1 to %d characters, none of them a control character", maxSecretLength)
	}
	return nil
}

// parseTenant accepts a tenant's GUID or one of its verified domains, and
// returns it in lower case. The names that stand for many tenants are refused,
// since an app-only token is always for one.
func parseTenant(s string) (string, error) {
	if err := checkText(s); err != nil {
		return "", err
	}
	tenant := strings.ToLower(s)
	switch tenant {
	case "common", "organizations", "consumers", consumersTenant:
		return "", errors.New("must name the customer's own tenant: an app-only token cannot be issued for common, organizations or consumers")
	}
	if guidPattern().MatchString(tenant) || isDomain(tenant) {
		return tenant, nil
	}
	return "", errors.New("must be the tenant's GUID or one of its verified domain names, such as contoso.onmicrosoft.com")
}

func isDomain(s string) bool {
	labels := strings.Split(s, ".")
	if len(s) > 253 || len(labels) < 2 {
		return false
	}
	for _, label := range labels {
		if !labelPattern().MatchString(label) {
			return false
		}
	}
	// The last label of a domain is not a number (RFC 3696); that of an address is.
	return strings.ContainsFunc(labels[len(labels)-1], unicode.IsLetter)
}

// checkScope accepts one resource and "/.default", the only form that the
// client credentials grant knows.
func checkScope(s string) error {
	if err := checkText(s); err != nil {
		return err
	}
	resource, ok := strings.CutSuffix(s, defaultSuffix)
	if !ok || strings.ContainsFunc(s, unicode.IsSpace) || len(s) > maxScopeLength {
		return fmt.Errorf("must be one {resource}%s of at most %d characters", defaultSuffix, maxScopeLength)
	}
	if guidPattern().MatchString(resource) {
		return nil
	}
	u, err := url.Parse(resource)
	absolute := strings.HasPrefix(resource, "https://") || strings.HasPrefix(resource, "api://")
	if err != nil || !absolute || u.Host == "" || u.User != nil || !uriPattern().MatchString(resource) {
		return errors.New("must name its resource as an absolute https:// or api:// URI without query or fragment, or as a GUID")
	}
	return nil
}
