package secretstore

import (
	"cmp"
	"net/http"
	"strings"
	"testing"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"golang.org/x/time/rate"

	"entra-connector/internal/connector"
	"entra-connector/pkg/entra"
)

var now = time.Date(2026, 11, 23, 1, 0, 0, 0, time.UTC)

// A version's successors are the same in each release: an old and a new one may run at once.
func TestSuccessorsStay(t *testing.T) {
	for nth, want := range []string{"43c1dc1c-4c85-1e08-23d3-efae0ad8793f", "fd99b4d9-f2d6-0db1-01db-f10e3d4080d1"} {
		if got := successor("a version", nth); got != want {
			t.Errorf("successor %d is %s, want %s", nth, got, want)
		}
	}
}

// A throttled attempt lowers the limit by a quarter, but not twice for what had its turn before. A
// minute of success at the limit raises it from nothing to the ceiling again.
func TestLearning(t *testing.T) {
	throttled := &smithy.GenericAPIError{Code: "ThrottlingException"}
	for ceiling, full := range map[float64]float64{45: 45, 0: 50, 0.5: 0.5} {
		p := newPace(ceiling, writesQuota, 1)
		if got := float64(p.limiter.Limit()); got != cmp.Or(ceiling, float64(rate.Inf)) {
			t.Errorf("at first the limit is %v", got)
		}
		p.learn(throttled)
		p.learn(throttled)
		if got := float64(p.limiter.Limit()); got != max(full*3/4, min(1, full)) {
			t.Errorf("ceiling %v: once throttled the limit is %v", ceiling, got)
		}
		for range 20 {
			p.loweredAt = time.Now().Add(-3 * time.Second)
			p.learn(throttled)
		}
		if got := float64(p.limiter.Limit()); got != min(1, full) {
			t.Errorf("ceiling %v: throttled for ever the limit is %v", ceiling, got)
		}
		seconds := 0.0
		for ; float64(p.limiter.Limit()) < full; seconds += 1 / float64(p.limiter.Limit()) {
			p.learn(nil)
		}
		if full > 1 && (seconds < 30 || seconds > 61) || p.limiter.Limit() > rate.Limit(full) {
			t.Errorf("ceiling %v: the limit is back after %.0f seconds", ceiling, seconds)
		}
	}
}

// An answer with status 500 or more may be another one later, whatever its code.
func TestStrangeAnswers(t *testing.T) {
	for status, temporary := range map[int]bool{520: true, 501: true, 499: false, 400: false} {
		answer := &smithyhttp.Response{Response: &http.Response{StatusCode: status}}
		err := &awshttp.ResponseError{ResponseError: &smithyhttp.ResponseError{Response: answer, Err: &smithy.GenericAPIError{Code: "SomethingNew"}}}
		want := connector.StoreError{Op: "Op", Secret: "secret", Code: "SomethingNew", Temporary: temporary}
		if got, ok := storeError(t.Context(), "Op", "secret", err).(*connector.StoreError); !ok || *got != want {
			t.Errorf("status %d: %+v, want %+v", status, got, want)
		}
	}
}

// The longest of everything fits a Description, and advice of its own if there is room.
func TestDescriptionFits(t *testing.T) {
	c := connector.Connection{
		TenantID: strings.Repeat("d", 253), Scope: "https://" + strings.Repeat("&", 248) + "/.default", Cloud: entra.Public, TokenType: "Bearer",
		ExpiresAt: now, Lifetime: time.Hour, RefreshedAt: now.Add(1), Warnings: []string{connector.WarnDevOps, connector.WarnNoRoles},
		Failure: &connector.Failure{Status: connector.StatusRefused, Code: "AADSTS123456789", At: now.Add(1), Refusals: 1 << 30, RefusedSince: now.Add(1),
			NextAttempt: now.Add(1), TraceID: strings.Repeat("t", 36), CorrelationID: strings.Repeat("c", 36), ConsentURL: strings.Repeat("u", 200)},
	}
	usual := connector.Explain(c.Failure.Code)
	for action, kept := range map[string]bool{"Do this.": true, strings.Repeat("x", 2048): false, usual.Action: false} {
		c.Failure.Advice = entra.Advice{Title: usual.Title, Action: action}
		if d := describeConnection(c, strings.Repeat("v", 64)); len(d) > maxDescription || strings.Contains(d, action) != kept {
			t.Errorf("%d characters, with %q: %s", len(d), action, d)
		}
	}
}

// Whatever stands in a Description is read without a panic, and can be written and read again.
func FuzzDescription(f *testing.F) {
	c := connector.Connection{ExpiresAt: now.Add(time.Hour), Lifetime: time.Hour, RefreshedAt: now}
	f.Add(describeConnection(c, "v"))
	c.Failure = &connector.Failure{Status: connector.StatusRefused, Code: "AADSTS7000112", Advice: entra.Advice{Title: "t", Action: "a"}, At: now}
	f.Add(describeConnection(c, "v"))
	f.Add(disowned)
	f.Add(`{"version":"v","status":"ok","lifetime":60,"refreshed_at":"9999-12-31T23:58:00-23:59","expires_at":"9999-12-31T23:59:00-23:59"}`)
	f.Add(`{"version":"v","failure":{"refusals":-9223372036854775808,"at":"0000-01-01T00:00:00+23:59"}}`)
	f.Add(`{"version":"v","status":"ok","lifetime":9223372036854775807,"expires_at":"0001-01-01T00:00:00Z"}`)
	tags := connectionTags(connector.ConnectionRef{App: "a", Name: "c"})
	const tenant = "aaaaaaaa-0000-4000-8000-000000000001"
	tags[tagTenant], tags[tagScope] = tenant, "https://graph.microsoft.com"
	f.Add(`{"version":"v","tenant_id":"bbbbbbbb-0000-4000-8000-000000000002","scope":"https://graph.microsoft.com/.default"}`)
	f.Fuzz(func(t *testing.T, description string) {
		read := func(description string) connector.Connection {
			return decodeConnection(connector.ConnectionRef{App: "a", Name: "c"}, secret{description: description, version: "v", tags: tags, now: now})
		}
		c := read(description)
		if c.TenantID == "" && c.Scope == "" && c.Failure != nil && c.Failure.Code == connector.CodeUnfinished {
			return // it is somebody else's, and nothing is written
		}
		if c.TenantID != tenant || c.Scope != "https://graph.microsoft.com/.default" {
			t.Errorf("a Description says whose a connection is: %+v", c)
		}
		if c.ExpiresAt.IsZero() && c.Failure == nil {
			t.Errorf("nothing is known, and nothing said: %+v", c)
		}
		written := describeConnection(c, "v")
		// A time that JSON cannot write is one that is not known.
		if again := read(written); describeConnection(again, "v") != written && again.Failure.Code != connector.CodeUnknown {
			t.Errorf("%s is read as %+v", written, again)
		}
	})
}

// The same for an app's value, and its Description.
func FuzzApp(f *testing.F) {
	for _, credential := range []string{`"client_secret":"s"`, `"credential":"federation","federation":{"audience":"a"}`, `"credential":"federation"`,
		`"credential":"certificate","certificate":"x"`, `"expires_at":"9999-12-31T23:59:59-23:59"`} {
		f.Add(`{"client_id":"c","version":"v","changed_at":"2026-11-23T01:00:00+01:00",` + credential + `}`)
	}
	f.Fuzz(func(t *testing.T, stored string) {
		if a, known := decodeAppDescription("a", secret{description: stored, version: "v"}); known {
			written := describeApp(a, "v")
			if again, _ := decodeAppDescription("a", secret{description: written, version: "v"}); len(written) < maxDescription && describeApp(again, "v") != written {
				t.Errorf("%s is read as %s", written, describeApp(again, "v"))
			}
		}
		a, err := decodeApp("a", stored, now)
		if err != nil {
			return
		}
		written := encodeApp(a)
		if again, err := decodeApp("a", written, now); err != nil || encodeApp(again) != written {
			t.Errorf("%s is read as %s, %v", written, encodeApp(again), err)
		}
	})
}

// A scope comes back from its tag as it was, and the tag has what AWS lets a tag have. What
// scopeTag did not write is no scope, or one that could have been given.
func FuzzScopeTag(f *testing.F) {
	for _, scope := range []string{"https://graph.microsoft.com", "api://a/b=ab&c%20'(d)", "499b84ac-1321-427f-aa17-267ca6975798", "=4", "=zz", "=C3=28", "="} {
		f.Add(scope)
	}
	f.Fuzz(func(t *testing.T, resource string) {
		if scope := parseScopeTag(resource); scope != "" && (entra.CheckScope(scope) != nil || parseScopeTag(scopeTag(scope)) != scope) {
			t.Errorf("the tag %q is the scope %q", resource, scope)
		}
		scope := resource + "/.default"
		if entra.CheckScope(scope) != nil {
			return
		}
		tag := scopeTag(scope)
		odd := strings.ContainsFunc(tag, func(r rune) bool {
			return !strings.ContainsRune("_.:/=+-@abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", r)
		})
		if got := parseScopeTag(tag); got != scope || odd {
			t.Errorf("%q comes back as %q from %q", scope, got, tag)
		}
	})
}
