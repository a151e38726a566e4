package permissions

// needs says of each permission, as [permission.String] writes it, what the log or an answer says
// without it, and which steps of the scenario stop working. Whoever adds, removes or changes a
// permission in the template has to change this list.
var needs = map[string]struct{ told, stops string }{
	"ProvisionRole ListAppsAndConnections secretsmanager:ListSecrets on *": {"ListSecrets: entra/",
		"list connections, list apps, replace credential, create app, delete app, restore app"},
	"ProvisionRole KeepAppsAndConnections secretsmanager:CreateSecret on entra/apps/*": {"CreateSecret: entra/",
		"provision, create app, restore app, provision federated"},
	"ProvisionRole KeepAppsAndConnections secretsmanager:CreateSecret on entra/connections/*": {"CreateSecret: entra/",
		"provision, provision with known app, restore connection, restore it again, " +
			"provision federated, accept, accept again, accept federated"},
	"ProvisionRole KeepAppsAndConnections secretsmanager:DescribeSecret on entra/apps/*": {"DescribeSecret: entra/",
		"provision, provision again, provision with known app, provision with new secret, show app, " +
			"replace credential, create app, delete app, restore app, restore connection, restore it again, " +
			"provision federated, accept, accept again, accept federated"},
	"ProvisionRole KeepAppsAndConnections secretsmanager:DescribeSecret on entra/connections/*": {"DescribeSecret: entra/",
		"provision, provision again, provision with known app, provision with new secret, " +
			"show connection, refresh by hand, events by hand, refusal by hand, replace credential, " +
			"delete connection, restore connection, delete it again, " +
			"restore it again, provision federated, accept, accept again, accept federated"},
	"ProvisionRole KeepAppsAndConnections secretsmanager:UpdateSecret on entra/apps/*": {"UpdateSecret: entra/", "provision with new secret, replace credential, restore app"},
	"ProvisionRole KeepAppsAndConnections secretsmanager:UpdateSecret on entra/connections/*": {"UpdateSecret: entra/",
		"provision again, provision with new secret, refresh by hand, events by hand, refusal by hand, " +
			"restore connection, restore it again, accept again"},
	"ProvisionRole KeepAppsAndConnections secretsmanager:TagResource on entra/apps/*": {"TagResource: entra/",
		"provision, provision with known app, replace credential, create app, delete app, restore app, " +
			"restore connection, restore it again, provision federated, accept, accept again, " +
			"accept federated"},
	"ProvisionRole KeepAppsAndConnections secretsmanager:TagResource on entra/connections/*": {"TagResource: entra/",
		"provision, provision with known app, delete connection, restore connection, delete it again, " +
			"restore it again, provision federated, accept, accept again, accept federated"},
	"ProvisionRole KeepAppsAndConnections secretsmanager:UntagResource on entra/connections/*": {"UntagResource: entra/",
		"restore it again, accept again"},
	"ProvisionRole KeepAppsAndConnections secretsmanager:UntagResource on entra/apps/*": {"UntagResource: entra/", "restore app"},
	"ProvisionRole KeepAppsAndConnections secretsmanager:DeleteSecret on entra/apps/*":  {"DeleteSecret: entra/", "delete app"},
	"ProvisionRole KeepAppsAndConnections secretsmanager:DeleteSecret on entra/connections/*": {"DeleteSecret: entra/",
		"delete connection, delete it again, accept again"},
	"ProvisionRole KeepAppsAndConnections secretsmanager:RestoreSecret on entra/apps/*": {"RestoreSecret: entra/", "restore app"},
	"ProvisionRole KeepAppsAndConnections secretsmanager:RestoreSecret on entra/connections/*": {"RestoreSecret: entra/",
		"restore connection, restore it again, accept again"},
	"ProvisionRole LetOtherAccountsRead secretsmanager:PutResourcePolicy on entra/connections/*": {"PutResourcePolicy: entra/",
		"provision, provision with known app, restore connection, restore it again, provision federated, " +
			"accept, accept again, accept federated"},
	"ProvisionRole ReadCredentialsButNoToken secretsmanager:GetSecretValue on entra/apps/*": {"GetSecretValue: entra/",
		"provision again, provision with known app, provision with new secret, refresh by hand, " +
			"events by hand, refusal by hand, replace credential, restore connection, restore it again"},
	"ProvisionRole TellOfConnections events:PutEvents on event-bus/default" + onlyOurEvents:           {`"message":"events not published"`, "events by hand"},
	"ProvisionRole ProveWhoItIs sts:GetWebIdentityToken on *" + onlyForEntra:                          {"federation_denied", "provision federated"},
	"ConnectRole FindInvitations secretsmanager:DescribeSecret on entra/connections/*":                {"DescribeSecret: entra/", "accept, accept again, accept federated"},
	"ConnectRole FindInvitations secretsmanager:DescribeSecret on entra/apps/*":                       {"DescribeSecret: entra/", "accept, accept again, accept federated"},
	"ConnectRole AcceptInvitations secretsmanager:UpdateSecret on entra/connections/*" + onlyInvited:  {"UpdateSecret: entra/", "accept, accept again, accept federated"},
	"ConnectRole AcceptInvitations secretsmanager:TagResource on entra/connections/*" + onlyInvited:   {"TagResource: entra/", "accept, accept again, accept federated"},
	"ConnectRole AcceptInvitations secretsmanager:UntagResource on entra/connections/*" + onlyInvited: {"UntagResource: entra/", "accept again"},
	"ConnectRole ReadCredentialsButNoToken secretsmanager:GetSecretValue on entra/apps/*":             {"GetSecretValue: entra/", "accept, accept again, accept federated"},
	"ConnectRole TellOfConnections events:PutEvents on event-bus/default" + onlyConnected:             {`"message":"events not published"`, "accept, accept again, accept federated"},
	"ConnectRole ProveWhoItIs sts:GetWebIdentityToken on *" + onlyForEntra:                            {"federation_denied", "accept federated"},
	"RefreshRole ListConnections secretsmanager:ListSecrets on *": {"sweep failed: ListSecrets: entra/",
		"scheduled sweep, forced sweep, refusal in sweep"},
	"RefreshRole ReadCredentialsButNoToken secretsmanager:GetSecretValue on entra/apps/*": {`"code":"AccessDeniedException","status":"retrying"`,
		"scheduled sweep, named sweep, events of sweeps, forced sweep, refusal in sweep, sweep federated"},
	"RefreshRole FindNamedConnections secretsmanager:DescribeSecret on entra/connections/*": {"sweep failed: DescribeSecret: entra/",
		"named sweep, events of sweeps, refusal in sweep, sweep federated"},
	"RefreshRole StoreTokens secretsmanager:UpdateSecret on entra/connections/*": {`"message":"token not stored"`,
		"scheduled sweep, named sweep, events of sweeps, forced sweep, refusal in sweep, sweep federated"},
	"RefreshRole TellOfConnections events:PutEvents on event-bus/default" + onlyOurEvents: {`"message":"events not published"`, "events of sweeps"},
	"RefreshRole ProveWhoItIs sts:GetWebIdentityToken on *" + onlyForEntra:                {"federation_denied", "sweep federated"},
}

// Conditions of permissions.
const (
	onlyOurEvents = ` when {"ForAllValues:StringEquals":{"events:detail-type":["entra.connection.refused","entra.connection.recovered"],` +
		`"events:source":["entra-connector"]},"Null":{"events:detail-type":["false"],"events:source":["false"]}}`
	onlyConnected = ` when {"ForAllValues:StringEquals":{"events:detail-type":["entra.connection.connected"],` +
		`"events:source":["entra-connector"]},"Null":{"events:detail-type":["false"],"events:source":["false"]}}`
	onlyInvited    = ` when {"StringEquals":{"secretsmanager:ResourceTag/entra-connector:state":["invited"]}}`
	onlyForEntra   = ` when {"ForAllValues:StringEquals":{"sts:IdentityTokenAudience":["api://AzureADTokenExchange"]}}`
	onlyForSecrets = ` when {"StringEquals":{"kms:ViaService":["secretsmanager.us-east-1.amazonaws.com"]}}`
)

// usedElsewhere says what stops working without each permission that AWS uses on the functions'
// behalf, or that people and programs outside the stack use. The tests cannot see that.
var usedElsewhere = map[string]string{
	"ProvisionRole WriteLogs logs:CreateLogStream on ProvisionLogGroup.Arn":                            "logs, wherever Lambda starts a copy of the function",
	"ProvisionRole WriteLogs logs:PutLogEvents on ProvisionLogGroup.Arn":                               "logs",
	"RefreshRole WriteLogs logs:CreateLogStream on RefreshLogGroup.Arn":                                "logs, wherever Lambda starts a copy of the function",
	"RefreshRole WriteLogs logs:PutLogEvents on RefreshLogGroup.Arn":                                   "logs",
	"RefreshRole ReportFailedSweeps sqs:SendMessage on FailedSweeps.Arn":                               "the queue of failed sweeps, which Lambda fills in this role",
	"ConnectRole WriteLogs logs:CreateLogStream on ConnectLogGroup.Arn":                                "logs, wherever Lambda starts a copy of the function",
	"ConnectRole WriteLogs logs:PutLogEvents on ConnectLogGroup.Arn":                                   "logs",
	"ConnectRole HaveNetworkInterfaces ec2:CreateNetworkInterface on *":                                "running in a VPC",
	"ConnectRole HaveNetworkInterfaces ec2:DeleteNetworkInterface on *":                                "running in a VPC",
	"ConnectRole HaveNetworkInterfaces ec2:DescribeNetworkInterfaces on *":                             "running in a VPC",
	"ConnectRole HaveNetworkInterfaces ec2:DescribeSubnets on *":                                       "running in a VPC",
	"ConnectRole HaveNetworkInterfaces ec2:AssignPrivateIpAddresses on *":                              "running in a VPC",
	"ConnectRole HaveNetworkInterfaces ec2:UnassignPrivateIpAddresses on *":                            "running in a VPC",
	"ConnectRole SendTraces xray:PutTraceSegments on *":                                                "traces",
	"ConnectRole SendTraces xray:PutTelemetryRecords on *":                                             "traces",
	"ConnectRole UseTheKeyOfTheSecrets kms:Encrypt on key/secrets" + onlyForSecrets:                    "storing a token, by the API reference of UpdateSecret",
	"ConnectRole UseTheKeyOfTheSecrets kms:Decrypt on key/secrets" + onlyForSecrets:                    "reading an app, storing a token",
	"ConnectRole UseTheKeyOfTheSecrets kms:GenerateDataKey on key/secrets" + onlyForSecrets:            "storing a token",
	"ScheduleRole StartSweeps lambda:InvokeFunction on RefreshFunction.Arn":                            "every scheduled sweep",
	"ViewerPolicy ReadTheApi execute-api:Invoke on Api/$default/GET/*":                                 "looking at connections and apps",
	"OperatorPolicy KeepConnections execute-api:Invoke on Api/$default/GET/*":                          "looking at connections and apps",
	"OperatorPolicy KeepConnections execute-api:Invoke on Api/$default/POST/connections":               "provisioning",
	"OperatorPolicy KeepConnections execute-api:Invoke on Api/$default/POST/connections/*":             "refreshing by hand",
	"OperatorPolicy KeepConnections execute-api:Invoke on Api/$default/DELETE/connections/*":           "deleting a connection",
	"OperatorPolicy StartSweeps lambda:InvokeFunction on RefreshFunction.Arn":                          "starting a sweep by hand",
	"AppAdministratorPolicy KeepApps execute-api:Invoke on Api/$default/GET/*":                         "looking at apps",
	"AppAdministratorPolicy KeepApps execute-api:Invoke on Api/$default/PUT/apps/*":                    "creating and replacing an app",
	"AppAdministratorPolicy KeepApps execute-api:Invoke on Api/$default/DELETE/apps/*":                 "deleting an app",
	"ProvisionRole HaveNetworkInterfaces ec2:CreateNetworkInterface on *":                              "running in a VPC",
	"ProvisionRole HaveNetworkInterfaces ec2:DeleteNetworkInterface on *":                              "running in a VPC",
	"ProvisionRole HaveNetworkInterfaces ec2:DescribeNetworkInterfaces on *":                           "running in a VPC",
	"ProvisionRole HaveNetworkInterfaces ec2:DescribeSubnets on *":                                     "running in a VPC",
	"ProvisionRole HaveNetworkInterfaces ec2:AssignPrivateIpAddresses on *":                            "running in a VPC",
	"ProvisionRole HaveNetworkInterfaces ec2:UnassignPrivateIpAddresses on *":                          "running in a VPC",
	"ProvisionRole SendTraces xray:PutTraceSegments on *":                                              "traces",
	"ProvisionRole SendTraces xray:PutTelemetryRecords on *":                                           "traces",
	"RefreshRole HaveNetworkInterfaces ec2:CreateNetworkInterface on *":                                "running in a VPC",
	"RefreshRole HaveNetworkInterfaces ec2:DeleteNetworkInterface on *":                                "running in a VPC",
	"RefreshRole HaveNetworkInterfaces ec2:DescribeNetworkInterfaces on *":                             "running in a VPC",
	"RefreshRole HaveNetworkInterfaces ec2:DescribeSubnets on *":                                       "running in a VPC",
	"RefreshRole HaveNetworkInterfaces ec2:AssignPrivateIpAddresses on *":                              "running in a VPC",
	"RefreshRole HaveNetworkInterfaces ec2:UnassignPrivateIpAddresses on *":                            "running in a VPC",
	"RefreshRole SendTraces xray:PutTraceSegments on *":                                                "traces",
	"RefreshRole SendTraces xray:PutTelemetryRecords on *":                                             "traces",
	"IntegrationPolicy ReadTokens secretsmanager:GetSecretValue on entra/connections/default/*-??????": "an integration reading a token",
	"IntegrationPolicy ReadTokens secretsmanager:DescribeSecret on entra/connections/default/*-??????": "the Secrets Store CSI driver, which looks for a new version first",
	"ProvisionRole UseTheKeyOfTheSecrets kms:Decrypt on key/secrets" + onlyForSecrets:                  "reading an app, replacing a value",
	"ProvisionRole UseTheKeyOfTheSecrets kms:GenerateDataKey on key/secrets" + onlyForSecrets:          "creating and replacing an app or a connection",
	"ProvisionRole UseTheKeyOfTheSecrets kms:Encrypt on key/secrets" + onlyForSecrets:                  "creating and replacing an app or a connection, by the API reference of UpdateSecret",
	"RefreshRole UseTheKeyOfTheSecrets kms:Encrypt on key/secrets" + onlyForSecrets:                    "storing a token, by the API reference of UpdateSecret",
	"RefreshRole UseTheKeyOfTheSecrets kms:Decrypt on key/secrets" + onlyForSecrets:                    "reading an app, storing a token",
	"RefreshRole UseTheKeyOfTheSecrets kms:GenerateDataKey on key/secrets" + onlyForSecrets:            "storing a token",
	"IntegrationPolicy DecryptThem kms:Decrypt on key/secrets" + onlyForSecrets:                        "an integration reading a token",
}

// uses are properties of the template, as text or JSON: which role each function has, what the
// permissions in usedElsewhere are for, and who may take on each role.
var uses = map[string]string{
	"ProvisionFunction.Role":                                                    "ProvisionRole.Arn",
	"ConnectFunction.Role":                                                      "ConnectRole.Arn",
	"ConnectFunction.LoggingConfig.LogGroup":                                    "ConnectLogGroup",
	"ConnectRole.AssumeRolePolicyDocument.Statement":                            `[{"Action":"sts:AssumeRole","Effect":"Allow","Principal":{"Service":"lambda.amazonaws.com"}}]`,
	"RefreshFunction.Role":                                                      "RefreshRole.Arn",
	"ProvisionFunction.LoggingConfig.LogGroup":                                  "ProvisionLogGroup",
	"RefreshFunction.LoggingConfig.LogGroup":                                    "RefreshLogGroup",
	"RefreshFunction.EventInvokeConfig.DestinationConfig.OnFailure.Destination": "FailedSweeps.Arn",
	"RefreshFunction.Events.Sweep.Properties.RoleArn":                           "ScheduleRole.Arn",
	"Api.Auth.DefaultAuthorizer":                                                "AWS_IAM",
	"ProvisionRole.AssumeRolePolicyDocument.Statement":                          `[{"Action":"sts:AssumeRole","Effect":"Allow","Principal":{"Service":"lambda.amazonaws.com"}}]`,
	"RefreshRole.AssumeRolePolicyDocument.Statement":                            `[{"Action":"sts:AssumeRole","Effect":"Allow","Principal":{"Service":"lambda.amazonaws.com"}}]`,
	"ScheduleRole.AssumeRolePolicyDocument.Statement": `[{"Action":"sts:AssumeRole","Condition":{"StringEquals":{"aws:SourceAccount":"123456789012"}},` +
		`"Effect":"Allow","Principal":{"Service":"scheduler.amazonaws.com"}}]`,
}

// wildcards are the resources with a wildcard, or the actions whose only resource is *, and why
// each has to be so wide. Whoever adds a wildcard to the template has to add it here.
var wildcards = map[string]string{
	"secretsmanager:ListSecrets":         "it takes no other resource; it shows names and Descriptions, and no values",
	"sts:GetWebIdentityToken":            "it takes no other resource; the audience narrows it",
	"entra/apps/*":                       "apps are created while the functions run",
	"entra/connections/*":                "connections are created while the functions run",
	"entra/connections/default/*-??????": "the connections of one app are created while the stack exists",
	"Api/$default/GET/*":                 "all that can be read",
	"Api/$default/POST/connections/*":    "the connections of one API, for refreshes",
	"Api/$default/DELETE/connections/*":  "the connections of one API",
	"Api/$default/PUT/apps/*":            "the apps of one API",
	"Api/$default/DELETE/apps/*":         "the apps of one API",
	"ec2:CreateNetworkInterface":         "Lambda makes them",
	"ec2:DeleteNetworkInterface":         "their IDs are not known before",
	"ec2:AssignPrivateIpAddresses":       "their IDs are not known before",
	"ec2:UnassignPrivateIpAddresses":     "their IDs are not known before",
	"ec2:DescribeNetworkInterfaces":      "it takes no other resource",
	"ec2:DescribeSubnets":                "it takes no other resource",
	"xray:PutTraceSegments":              "it takes no other resource",
	"xray:PutTelemetryRecords":           "it takes no other resource",
}
