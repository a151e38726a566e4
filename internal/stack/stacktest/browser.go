package stacktest

import (
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// PageHost is where a [Browser] finds the customer's page. Anything else is Microsoft's.
const PageHost = "connect.example"

// Browser is what a browser does on its way: it keeps cookies, and follows redirects.
type Browser struct {
	T       testing.TB
	c       *Connector
	Cookies map[string]map[string]string // by host
	Where   *url.URL                     // the page that it shows, and what that is
	Status  int
	Header  http.Header
	Body    string
	Visited []string // addresses that stay in its history
}

// Browser is a new browser, in front of the customer's page and of Microsoft's.
func (c *Connector) Browser() *Browser {
	return &Browser{T: c.t, c: c, Cookies: map[string]map[string]string{}}
}

// Do sends one request, and keeps its cookies.
func (b *Browser) Do(method string, to *url.URL, form url.Values) {
	b.T.Helper()
	r := httptest.NewRequest(method, to.String(), strings.NewReader(form.Encode()))
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	if b.Where == nil || b.Where.Host != to.Host {
		r.Header.Set("Sec-Fetch-Site", "cross-site")
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for name, value := range b.Cookies[to.Host] {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	recorder := httptest.NewRecorder()
	if to.Host == PageHost {
		b.c.API().ServeHTTP(recorder, r)
	} else {
		b.c.Entra.ServeHTTP(recorder, r)
	}
	if b.Cookies[to.Host] == nil {
		b.Cookies[to.Host] = map[string]string{}
	}
	for _, cookie := range recorder.Result().Cookies() {
		b.Cookies[to.Host][cookie.Name] = cookie.Value
	}
	b.Where, b.Status, b.Header, b.Body = to, recorder.Code, recorder.Header(), recorder.Body.String()
}

// Follow goes on until there is no redirect.
func (b *Browser) Follow() *Browser {
	b.T.Helper()
	for range 10 {
		location := b.Header.Get("Location")
		if location == "" {
			b.Visited = append(b.Visited, b.Where.String())
			b.save()
			return b
		}
		to, err := b.Where.Parse(location)
		if err != nil {
			b.T.Fatal(err)
		}
		to.Fragment = ""
		b.Do("GET", to, nil)
	}
	b.T.Fatal("too many redirects")
	return nil
}

// save keeps the page in the folder PAGES, if there is one, for a validator.
func (b *Browser) save() {
	if dir := os.Getenv("PAGES"); dir != "" && b.Where.Host == PageHost {
		name := regexp.MustCompile(`\W+`).ReplaceAllString(b.Title(), "-") + ".html"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(b.Body), 0o600); err != nil {
			b.T.Error(err)
		}
	}
}

// Open goes to an address.
func (b *Browser) Open(to string) *Browser {
	b.T.Helper()
	if strings.HasPrefix(to, "/") {
		to = "https://" + PageHost + to
	}
	address, err := url.Parse(to)
	if err != nil {
		b.T.Fatal(err)
	}
	b.Where = nil
	b.Do("GET", address, nil)
	return b.Follow()
}

// Has reports whether the page has a button.
func (b *Browser) Has(name, value string) bool {
	return strings.Contains(b.Body, fmt.Sprintf(`name="%s" value="%s"`, name, html.EscapeString(value)))
}

// Press sends the page's form with a button of it.
func (b *Browser) Press(name, value string) *Browser {
	b.T.Helper()
	if !b.Has(name, value) {
		b.T.Fatalf("there is no %s %q on %d %s", name, value, b.Status, b.Text())
	}
	b.Do("POST", b.Where, url.Values{name: {value}})
	return b.Follow()
}

// SignIn goes from the first page through Microsoft's sign-in.
func (b *Browser) SignIn(account string) *Browser {
	b.T.Helper()
	return b.Press("step", "start").Press("account", account)
}

var heading = regexp.MustCompile(`<h1>(.*?)</h1>`)

func (b *Browser) Title() string {
	if m := heading.FindStringSubmatch(b.Body); m != nil {
		return html.UnescapeString(m[1])
	}
	return b.Text()
}

var tag = regexp.MustCompile(`(?s)<style>.*?</style>|<[^>]*>`)

func (b *Browser) Text() string { return html.UnescapeString(tag.ReplaceAllString(b.Body, "")) }

// Want checks the page's status and title.
func (b *Browser) Want(status int, title string) *Browser {
	b.T.Helper()
	if b.Status != status || b.Title() != title {
		b.T.Fatalf("at %s: %d %q, want %d %q", b.Where.Path, b.Status, b.Title(), status, title)
	}
	return b
}
