package entra_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"entra-connector/pkg/entra"
)

func TestServiceScope(t *testing.T) {
	clouds := []entra.Cloud{entra.Public, entra.USGov, entra.China, entra.Bleu, entra.Delos, entra.GovSG}
	graphs := []string{"https://graph.microsoft.com", "https://graph.microsoft.us", "https://microsoftgraph.chinacloudapi.cn",
		"https://graph.svc.sovcloud.fr", "https://graph.svc.sovcloud.de", "https://graph.svc.sovcloud.sg"}
	for service, want := range map[string][]string{ // by cloud; empty: not offered
		"azure-devops":     {"499b84ac-1321-427f-aa17-267ca6975798", "", "", "", "", ""},
		"azure-storage":    {"https://storage.azure.com", "https://storage.azure.com", "https://storage.azure.com", "", "", ""},
		"azure-sql":        {"https://database.windows.net", "https://database.usgovcloudapi.net", "https://database.chinacloudapi.cn", "", "", ""},
		"business-central": {"https://api.businesscentral.dynamics.com", "", "", "", "", ""},
		"microsoft-graph":  graphs,
		"microsoft-teams":  graphs,
		"microsoft-365":    graphs,
	} {
		for i, cloud := range clouds {
			scope := want[i] + "/.default"
			if want[i] == "" {
				scope = ""
			}
			if got, err := entra.ServiceScope(service, cloud); got != scope || (err == nil) != (scope != "") {
				t.Errorf("%s in cloud %s is %q, %v, want %q", service, cloud, got, err, scope)
			}
		}
	}
	if _, err := entra.ServiceScope("business-central", entra.China); err == nil || !strings.Contains(err.Error(), "public") {
		t.Errorf("error %v does not name the clouds that offer the service", err)
	}
	if _, err := entra.ServiceScope("x", entra.Public); err == nil || !strings.Contains(err.Error(), "azure-devops, azure-sql") {
		t.Errorf("error %v does not name the services", err)
	}
}

func TestParseAuthority(t *testing.T) {
	tests := []struct {
		raw      string
		insecure bool
		want     string // empty: refused
	}{
		{"https://login.microsoftonline.us/", false, "https://login.microsoftonline.us"},
		{"http://127.0.0.1:8080", false, "http://127.0.0.1:8080"},
		{"http://[::1]:8080/", false, "http://[::1]:8080"},
		{"http://localhost:1", false, "http://localhost:1"},
		{"http://entra.test", false, ""},
		{"http://entra.test", true, "http://entra.test"},
		{"http://127.0.0.1.example.com", false, ""},
		{"http://localhost.example.com", false, ""},
		{"ftp://localhost", true, ""},
		{"login.microsoftonline.com", false, ""},
		{"https://user@login.microsoftonline.com", false, ""},
		{"https://login.microsoftonline.com?x=y", false, ""},
		{"https://", false, ""},
	}
	for _, tt := range tests {
		got, err := entra.ParseAuthority(tt.raw, tt.insecure)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("ParseAuthority(%q, %t) = %q, %v, want %q", tt.raw, tt.insecure, got, err, tt.want)
		}
	}
}

// Every cloud has an authority of its own, where the token is asked for.
func TestCloudsHaveTheirAuthorities(t *testing.T) {
	for cloud, want := range map[entra.Cloud]string{
		entra.Public: "login.microsoftonline.com", entra.USGov: "login.microsoftonline.us", entra.China: "login.partner.microsoftonline.cn",
		entra.Bleu: "login.sovcloud-identity.fr", entra.Delos: "login.sovcloud-identity.de", entra.GovSG: "login.sovcloud-identity.sg",
	} {
		asked := ""
		client := entra.NewClient(entra.ClientConfig{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			asked = r.URL.String()
			return nil, errors.New("not sent")
		})})
		scope, err := entra.ServiceScope("microsoft-graph", cloud)
		if err != nil {
			t.Errorf("%s: %v", cloud, err)
		}
		client.Token(t.Context(), entra.Registration{ClientID: clientID, Cloud: cloud}, scope, tenantA)
		if asked != "https://"+want+"/"+tenantA+"/oauth2/v2.0/token" {
			t.Errorf("%s asks %s", cloud, asked)
		}
	}
}
