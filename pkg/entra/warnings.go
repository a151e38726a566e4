package entra

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Codes of warnings: a token was issued and stored, but may not do what it is
// for.
const (
	WarnNoRoles    = "no_roles"
	WarnDevOps     = "azure_devops_user"
	WarnShortLived = "short_lived_token"
)

// rolesResources are the resources whose permissions for apps are roles in the
// token. Azure DevOps, Storage and SQL keep permissions of their own instead.
var rolesResources = slices.Concat(slices.Collect(maps.Values(graph)), []string{
	"https://dod-graph.microsoft.us",
	"00000003-0000-0000-c000-000000000000", // Microsoft Graph's application ID
	services["business-central"][Public],
	"https://manage.office.com", "https://manage-gcc.office.com", "https://manage.office365.us", "https://manage.protection.apps.mil",
	"https://outlook.office365.com", "https://outlook.office.com", "https://outlook.office365.us", "https://partner.outlook.cn",
})

// warnings returns the codes of what is to be said of a token for a scope.
// Entra issues tokens without any permission.
func warnings(scope string, t Token) []string {
	var codes []string
	resource := strings.ToLower(strings.TrimSuffix(strings.TrimSuffix(scope, defaultSuffix), "/"))
	if resource == services["azure-devops"][Public] {
		codes = append(codes, WarnDevOps)
	}
	if slices.Contains(rolesResources, resource) && carriesNoRoles(t.AccessToken) {
		codes = append(codes, WarnNoRoles)
	}
	if t.Lifetime() < minLifetime {
		codes = append(codes, WarnShortLived)
	}
	return codes
}

// carriesNoRoles looks into a token, which is opaque by contract: only one that
// is readable, and plainly has none, counts.
func carriesNoRoles(token Secret) bool {
	var claims struct {
		jwt.RegisteredClaims
		Roles []string `json:"roles"`
	}
	_, _, err := jwt.NewParser().ParseUnverified(token.Reveal(), &claims)
	return err == nil && len(claims.Roles) == 0
}

// Secrets Manager keeps every version of the last 24 hours, and refuses writes
// beyond about a hundred.
const (
	versionsPerDay = 100
	// minLifetime is the shortest life of which half lasts, refreshed for a day.
	minLifetime = 2 * 24 * time.Hour / versionsPerDay

	// Writes are paced by a budget: as many as burst at any time, and over a day
	// no more than versionsPerDay with it.
	burst = 30
	pace  = 24 * time.Hour / (versionsPerDay - burst)
)

// spend returns the budget after a write: the time at which it will be whole
// again. (The generic cell rate algorithm, which needs no more than that.)
func spend(wholeAt, now time.Time) time.Time {
	if wholeAt.Before(now) {
		wholeAt = now
	}
	return wholeAt.Add(pace)
}

// spent reports whether the next write has to wait, before the store refuses it.
func spent(wholeAt, now time.Time) bool { return wholeAt.Sub(now) > (burst-1)*pace }
