package entra

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
)

// Cloud names one of Microsoft's national clouds. An app is registered in
// exactly one, and its tokens are good in that one only.
type Cloud string

// The clouds, by the names that the API and the stored apps use.
const (
	Public Cloud = "public" // worldwide, Microsoft 365 GCC included
	USGov  Cloud = "usgov"  // US Government: GCC High and DoD
	China  Cloud = "china"  // operated by 21Vianet
	Bleu   Cloud = "bleu"   // France
	Delos  Cloud = "delos"  // Germany
	GovSG  Cloud = "govsg"  // Singapore's government
)

// Source: Microsoft Entra, "National clouds", authentication endpoints; for the
// last three, the known authorities in Microsoft's library for Go.
var authorities = map[Cloud]string{
	Public: "https://login.microsoftonline.com",
	USGov:  "https://login.microsoftonline.us",
	China:  "https://login.partner.microsoftonline.cn",
	Bleu:   "https://login.sovcloud-identity.fr",
	Delos:  "https://login.sovcloud-identity.de",
	GovSG:  "https://login.sovcloud-identity.sg",
}

// aliases are further hosts of the clouds' authorities, from the same library.
var aliases = map[string]Cloud{
	"login.windows.net":        Public,
	"login.microsoft.com":      Public,
	"sts.windows.net":          Public,
	"login.usgovcloudapi.net":  USGov,
	"login.chinacloudapi.cn":   China,
	"login.microsoftonline.cn": China,
	"sts.chinacloudapi.cn":     China,
}

// cloudOf returns the cloud that a URL of an authority belongs to.
func cloudOf(rawURL string) (Cloud, bool) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "", false
	}
	for cloud, authority := range authorities {
		if "https://"+u.Host == authority {
			return cloud, true
		}
	}
	cloud, ok := aliases[u.Host]
	return cloud, ok
}

// services maps a service's short name to its resource in each cloud where one
// is known. Teams and Microsoft 365 are reached through Microsoft Graph. Azure
// DevOps has no resource URI: its application ID stands for it.
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

func parseCloud(s string) (Cloud, error) {
	if s == "" {
		return Public, nil
	}
	if _, ok := authorities[Cloud(s)]; !ok {
		return "", fmt.Errorf("must be one of %s", list(maps.Keys(authorities)))
	}
	return Cloud(s), nil
}

// ServiceScope returns the scope that a service's short name stands for in a
// cloud. Its error names the services, or the clouds, that do exist.
func ServiceScope(service string, cloud Cloud) (string, error) {
	byCloud, ok := services[service]
	if !ok {
		return "", fmt.Errorf("must be one of %s", list(maps.Keys(services)))
	}
	resource, ok := byCloud[cloud]
	if !ok {
		return "", fmt.Errorf("is not offered in cloud %q, only in %s; that cloud has %s", cloud, list(maps.Keys(byCloud)), list(servicesIn(cloud)))
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

// ParseAuthority checks an authority host that replaces the clouds' own, as
// AZURE_AUTHORITY_HOST does in the Azure SDKs, and returns it without a
// trailing slash. Only https is accepted, since client secrets travel over it,
// except that http works on a loopback address, or anywhere with insecure.
func ParseAuthority(raw string, insecure bool) (string, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return "", errors.New("must be a URL such as https://login.microsoftonline.com")
	case u.Scheme == "https", u.Scheme == "http" && (insecure || isLoopback(u.Hostname())):
		return strings.TrimRight(u.String(), "/"), nil
	}
	return "", errors.New("must be https; http is accepted on a loopback address only")
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}
