package entra

import (
	"errors"
	"net/url"
	"strings"
	"unicode"
)

// consumersTenant holds personal Microsoft accounts. No app-only token exists in it.
// Source: Microsoft identity platform, OpenID Connect.
const consumersTenant = "9188040d-6c67-4c5b-b112-36a304b66dad"

var labelPattern = pattern(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// ParseTenant accepts a tenant's GUID or one of its verified domains, and returns it in lower case.
// It refuses the names that stand for many tenants, since an app-only token is always for one.
func ParseTenant(s string) (string, error) {
	if err := CheckText(s); err != nil {
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
	// An IP address ends in a number. A domain does not (RFC 3696).
	return strings.ContainsFunc(labels[len(labels)-1], unicode.IsLetter)
}

// tenantOf returns the tenant's GUID, the first part of the path of one of Entra's URLs.
func tenantOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	if !guidPattern().MatchString(first) {
		return ""
	}
	return strings.ToLower(first)
}
