package entra

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/url"
	"slices"
	"strings"
	"unicode"
)

const (
	defaultSuffix     = "/.default"
	maxResourceLength = 256 // Entra allows 255 for an application ID URI
)

// uriPattern has the characters of a URI (RFC 3986), without those that begin a query or a
// fragment.
var uriPattern = pattern(`^[A-Za-z0-9._~:/@!$&'()*+,;=%\[\]-]+$`)

// CheckScope accepts one resource followed by "/.default". The client credentials grant has no
// other form. The resource is a GUID, or an absolute https or api URI without query or fragment.
func CheckScope(s string) error {
	if err := CheckText(s); err != nil {
		return err
	}
	resource, ok := strings.CutSuffix(s, defaultSuffix)
	if !ok || strings.ContainsFunc(s, unicode.IsSpace) || len(resource) > maxResourceLength {
		return fmt.Errorf("must be one {resource}%s, with a resource of at most %d characters", defaultSuffix, maxResourceLength)
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

// services maps a service's short name to its resource in each cloud where one is known. Teams and
// Microsoft 365 are reached through Microsoft Graph. Azure DevOps has no resource URI, so its
// application ID stands for it.
var services = map[string]map[Cloud]string{
	"azure-devops":     {Public: "499b84ac-1321-427f-aa17-267ca6975798"},
	"azure-storage":    {Public: "https://storage.azure.com", USGov: "https://storage.azure.com", China: "https://storage.azure.com"},
	"azure-sql":        {Public: "https://database.windows.net", USGov: "https://database.usgovcloudapi.net", China: "https://database.chinacloudapi.cn"},
	"business-central": {Public: "https://api.businesscentral.dynamics.com"},
	"microsoft-graph":  graph,
	"microsoft-teams":  graph,
	"microsoft-365":    graph,
}

var graph = map[Cloud]string{
	Public: "https://graph.microsoft.com",
	USGov:  "https://graph.microsoft.us",
	China:  "https://microsoftgraph.chinacloudapi.cn",
	Bleu:   "https://graph.svc.sovcloud.fr",
	Delos:  "https://graph.svc.sovcloud.de",
	GovSG:  "https://graph.svc.sovcloud.sg",
}

// ServiceScope returns the scope that a service's short name stands for in a cloud. Its error names
// the services, or the clouds, that do exist.
func ServiceScope(service string, cloud Cloud) (string, error) {
	byCloud, ok := services[service]
	if !ok {
		return "", fmt.Errorf("must be one of %s", list(maps.Keys(services)))
	}
	resource, ok := byCloud[cloud]
	if !ok {
		return "", fmt.Errorf("is not available in cloud %q, only in %s; that cloud has %s", cloud, list(maps.Keys(byCloud)), list(servicesIn(cloud)))
	}
	return resource + defaultSuffix, nil
}

func servicesIn(cloud Cloud) iter.Seq[string] {
	return func(yield func(string) bool) {
		for service, byCloud := range services {
			if _, ok := byCloud[cloud]; ok && !yield(service) {
				return
			}
		}
	}
}

func list[S ~string](seq iter.Seq[S]) string {
	var names []string
	for _, s := range slices.Sorted(seq) {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}

func resourceOf(scope string) string {
	return strings.ToLower(strings.TrimSuffix(strings.TrimSuffix(scope, defaultSuffix), "/"))
}

// rolesResources are the resources whose permissions for apps are roles in the token, by their URIs and
// application IDs. Azure DevOps, Storage and SQL keep permissions of their own instead.
// Sources: Microsoft's national cloud and endpoint tables; Exchange's scripts for app-only access.
var rolesResources = slices.Concat(slices.Collect(maps.Values(graph)), []string{
	"https://dod-graph.microsoft.us",
	"00000003-0000-0000-c000-000000000000", // Microsoft Graph
	services["business-central"][Public], "996def3d-b36c-4153-8607-a6fd3c01b89f",
	"https://manage.office.com", "https://manage-gcc.office.com", "https://manage.office365.us", "https://manage.protection.apps.mil",
	"https://manage.office.cn", "c5393580-f805-4401-95e8-94b7a6ef2fc2", // Office 365 Management APIs
	"https://outlook.office365.com", "https://outlook.office.com", "https://outlook.office365.us", "https://outlook-dod.office365.us",
	"https://partner.outlook.cn", "https://ps.outlook.com", "00000002-0000-0ff1-ce00-000000000000", // Exchange Online
})

// GrantsByRoles reports whether a token for the scope carries the app's permissions as roles.
func GrantsByRoles(scope string) bool { return slices.Contains(rolesResources, resourceOf(scope)) }

// devOpsResources are the names of Azure DevOps.
var devOpsResources = []string{services["azure-devops"][Public], "https://app.vssps.visualstudio.com", "https://dev.azure.com"}

// IsAzureDevOps reports whether the scope is that of Azure DevOps.
func IsAzureDevOps(scope string) bool { return slices.Contains(devOpsResources, resourceOf(scope)) }

var sharePoint = pattern(`^(https://[^/]+\.sharepoint(-mil)?\.(com|us|cn|de)|00000003-0000-0ff1-ce00-000000000000)$`)

// IsSharePoint reports whether the scope is that of SharePoint's own API, which takes only apps
// with a certificate. Source: SharePoint, "Granting access via Entra ID App-Only".
func IsSharePoint(scope string) bool { return sharePoint().MatchString(resourceOf(scope)) }
