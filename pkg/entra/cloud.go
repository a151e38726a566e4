package entra

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"strings"
)

// Cloud names one of Microsoft's national clouds. An app is registered in
// exactly one of them, and its tokens work only there.
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

// ParseCloud returns the cloud of that name, or Public if the name is empty.
func ParseCloud(s string) (Cloud, error) {
	if s == "" {
		return Public, nil
	}
	if _, ok := authorities[Cloud(s)]; !ok {
		return "", fmt.Errorf("must be one of %s", list(maps.Keys(authorities)))
	}
	return Cloud(s), nil
}

// ParseAuthority checks an authority host that replaces the clouds' own, as AZURE_AUTHORITY_HOST
// does in the Azure SDKs, and returns it without a trailing slash. It must be https, since client
// secrets travel over it. Plain http works on a loopback address, or anywhere if insecure is set.
func ParseAuthority(raw string, insecure bool) (string, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return "", errors.New("must be a URL such as https://login.microsoftonline.com")
	case u.Scheme == "https", u.Scheme == "http" && (insecure || isLoopback(u.Hostname())):
		return strings.TrimRight(u.String(), "/"), nil
	}
	return "", errors.New("must be https; http works only on a loopback address")
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}
