package entratest

// cloud is what a national cloud says of itself in its OpenID configuration, and the resources that
// every tenant in it is taken to have.
type cloud struct {
	authority, instance, region string
	graph, msgraph              string
	resources                   []string
}

// Hosts and scopes are those of Microsoft's pages on national clouds, and of the products. Azure DevOps and Business Central are public only:
// no address of theirs in another cloud was found.
var clouds = map[string]cloud{
	"public": {
		authority: "https://login.microsoftonline.com", instance: "microsoftonline.com", region: "WW",
		graph: "graph.windows.net", msgraph: "graph.microsoft.com",
		resources: []string{
			graphID, "https://graph.microsoft.com",
			"499b84ac-1321-427f-aa17-267ca6975798", // Azure DevOps
			"https://storage.azure.com",
			"https://database.windows.net",
			"https://api.businesscentral.dynamics.com",
			"48ac35b8-9aa8-4d74-927d-1f4a14a0b239", // Skype and Teams Tenant Admin API
			"https://manage.office.com", "https://manage-gcc.office.com",
			"https://outlook.office365.com", "https://outlook.office.com",
		},
	},
	"usgov": {
		authority: "https://login.microsoftonline.us", instance: "microsoftonline.us", region: "USGov",
		graph: "graph.windows.net", msgraph: "graph.microsoft.us",
		resources: []string{
			graphID, "https://graph.microsoft.us", "https://dod-graph.microsoft.us",
			"https://storage.azure.com",
			"https://database.usgovcloudapi.net",
			"https://manage.office365.us", "https://manage.protection.apps.mil",
			"https://outlook.office365.us", "https://outlook-dod.office365.us",
		},
	},
	"china": {
		authority: "https://login.partner.microsoftonline.cn", instance: "partner.microsoftonline.cn", region: "CN",
		graph: "graph.chinacloudapi.cn", msgraph: "microsoftgraph.chinacloudapi.cn",
		resources: []string{
			graphID, "https://microsoftgraph.chinacloudapi.cn",
			"https://storage.azure.com",
			"https://database.chinacloudapi.cn",
			"https://manage.office.cn",
			"https://partner.outlook.cn",
		},
	},
}

// graphID is Microsoft Graph's application ID, which names it as well as its URI does.
const graphID = "00000003-0000-0000-c000-000000000000"
