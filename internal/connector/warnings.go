package connector

import "entra-connector/pkg/entra"

// warnings returns the codes of the warnings about a token for a scope. Entra issues tokens that
// carry no permission at all, and tokens that the service never accepts.
func warnings(scope, credential string, t entra.Token) []string {
	var codes []string
	if entra.IsAzureDevOps(scope) {
		codes = append(codes, WarnDevOps)
	}
	if entra.IsSharePoint(scope) && credential == entra.KindClientSecret {
		codes = append(codes, WarnSharePoint)
	}
	if entra.GrantsByRoles(scope) && t.HasNoRoles() {
		codes = append(codes, WarnNoRoles)
	}
	if t.Lifetime() < minLifetime {
		codes = append(codes, WarnShortLived)
	}
	return codes
}
