package main

import (
	"errors"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// config is what the operator says about the page.
type config struct {
	product string // what the customer knows the operator's product as
	logo    string // text in the place of a logo
	contact string // an e-mail address or an https URL
}

// readConfig reads what only this function's environment has. The error names every variable that
// is wrong.
func readConfig(lookup func(string) (string, bool)) (config, error) {
	var errs []error
	get := func(name, otherwise string, most int) string {
		value, _ := lookup(name)
		if value == "" {
			value = otherwise
		}
		if utf8.RuneCountInString(value) > most || strings.ContainsFunc(value, unicode.IsControl) {
			errs = append(errs, errors.New(name+" is too long, or has a control character"))
		}
		return value
	}
	c := config{product: get("CONNECT_PRODUCT", "Entra connector", 80), contact: get("CONNECT_CONTACT", "", 200)}
	c.logo = get("CONNECT_LOGO", c.product, 40)
	if u, err := url.Parse(c.contact); c.contact != "" && !strings.Contains(c.contact, "@") && (err != nil || u.Scheme != "https") {
		errs = append(errs, errors.New("CONNECT_CONTACT must be an e-mail address or an https URL"))
	}
	return c, errors.Join(errs...)
}
