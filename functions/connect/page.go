package main

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"strconv"
	"strings"
)

//go:embed page.html
var pageText string

//go:embed style.css
var style string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// policy lets the page use its own style sheet and nothing else. form-action is left out: it would
// also apply to each redirect after a form, and the tenant may send the browser to a sign-in of its
// own.
var policy = func() string {
	sum := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; frame-ancestors 'none'"
}()

// fact is a line of the table on a page.
type fact struct{ Name, Value string }

func (v *visit) page(page end) {
	t := v.filled(page)
	data := struct {
		Product, Logo, Contact, ContactURL, Tone, Title string
		Style                                           template.CSS
		Lines                                           []string
		Facts                                           []fact
		Buttons                                         []button
	}{v.product, v.logo, v.contact, v.contact, t.tone, t.title, template.CSS(style), t.lines, nil, t.buttons}
	if strings.Contains(v.contact, "@") {
		data.ContactURL = "mailto:" + v.contact
	}
	if t.facts {
		data.Facts = v.facts(page)
	}
	v.headers()
	header := v.w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	if t.refresh > 0 {
		header.Set("Refresh", strconv.Itoa(t.refresh))
	}
	if page == busy {
		header.Set("Retry-After", "60")
	}
	v.w.WriteHeader(t.status)
	_ = pageTemplate.Execute(v.w, data) // into memory
}

func (v *visit) facts(page end) (facts []fact) {
	add := func(name, value string) {
		if value != "" {
			facts = append(facts, fact{name, value})
		}
	}
	if page != welcome {
		add("Account", v.pass.Account)
		add("Tenant", v.pass.Tenant)
	}
	add("Service", serviceName(v.guest.Scope))
	add("App ID", v.pass.ClientID)
	if page == welcome {
		add("For tenant", v.guest.TenantID)
		add("Good until", day(v.guest.ExpiresAt))
	}
	return facts
}

func (v *visit) headers() {
	for name, value := range map[string]string{
		"Cache-Control":             "no-store",
		"Content-Security-Policy":   policy,
		"Referrer-Policy":           "no-referrer",
		"Strict-Transport-Security": "max-age=31536000",
		"X-Content-Type-Options":    "nosniff",
		"X-Frame-Options":           "DENY",
		"X-Robots-Tag":              "noindex",
	} {
		v.w.Header().Set(name, value)
	}
}
