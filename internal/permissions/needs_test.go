package permissions

// needs says of each permission, in the words of [permission.String], what stops working without it, and what the log or the
// answer then says. A permission that is new, gone or changed in the template fails the tests until this list has it so.
var needs = map[string]struct {
	stops []string // steps of the scenario
	told  string
}{
	"ProvisionRole ListAppsAndConnections secretsmanager:ListSecrets on *": {[]string{
		"listing connections", "listing apps", "replacing an app's credential", "creating an app", "deleting an app",
		"restoring a deleted app",
	}, "listing secrets: AccessDeniedException"},
	"ProvisionRole KeepAppsAndConnections secretsmanager:CreateSecret on entra/apps/*": {[]string{
		"provisioning a connection with a new app", "creating an app", "restoring a deleted app",
		"provisioning without a stored credential",
	}, "creating secret: AccessDeniedException"},
	"ProvisionRole KeepAppsAndConnections secretsmanager:CreateSecret on entra/connections/*": {[]string{
		"provisioning a connection with a new app", "provisioning a connection of an app that exists",
		"restoring a deleted connection", "provisioning without a stored credential",
	}, "creating secret: AccessDeniedException"},
	"ProvisionRole KeepAppsAndConnections secretsmanager:DescribeSecret on entra/apps/*": {[]string{
		"provisioning a connection of an app that exists", "showing an app", "replacing an app's credential",
		"creating an app", "deleting an app", "restoring a deleted app", "restoring a deleted connection",
	}, "describing secret: AccessDeniedException"},
	"ProvisionRole KeepAppsAndConnections secretsmanager:DescribeSecret on entra/connections/*": {[]string{
		"provisioning a connection with a new app", "provisioning the same again",
		"provisioning a connection of an app that exists", "provisioning with a new client secret",
		"showing a connection", "refreshing a connection by hand", "telling of refusals and recoveries by hand",
		"showing why a refresh by hand was refused", "deleting a connection", "restoring a deleted connection",
		"provisioning without a stored credential",
	}, "describing secret: AccessDeniedException"},
	"ProvisionRole KeepAppsAndConnections secretsmanager:UpdateSecret on entra/apps/*": {[]string{
		"provisioning a connection of an app that exists", "provisioning with a new client secret",
		"replacing an app's credential", "deleting an app", "restoring a deleted app",
		"restoring a deleted connection",
	}, "updating secret: AccessDeniedException"},
	"ProvisionRole KeepAppsAndConnections secretsmanager:UpdateSecret on entra/connections/*": {[]string{
		"provisioning the same again", "provisioning with a new client secret", "refreshing a connection by hand",
		"telling of refusals and recoveries by hand", "showing why a refresh by hand was refused",
		"deleting a connection", "restoring a deleted connection",
	}, "updating secret: AccessDeniedException"},
	"ProvisionRole KeepAppsAndConnections secretsmanager:DeleteSecret on entra/apps/*": {[]string{
		"deleting an app",
	}, "deleting secret: AccessDeniedException"},
	"ProvisionRole KeepAppsAndConnections secretsmanager:DeleteSecret on entra/connections/*": {[]string{
		"deleting a connection",
	}, "deleting secret: AccessDeniedException"},
	"ProvisionRole KeepAppsAndConnections secretsmanager:RestoreSecret on entra/apps/*": {[]string{
		"restoring a deleted app",
	}, "restoring secret: AccessDeniedException"},
	"ProvisionRole KeepAppsAndConnections secretsmanager:RestoreSecret on entra/connections/*": {[]string{
		"restoring a deleted connection",
	}, "restoring secret: AccessDeniedException"},
	"ProvisionRole ReadCredentialsButNoToken secretsmanager:GetSecretValue on entra/apps/*": {[]string{
		"provisioning a connection with a new app", "provisioning the same again",
		"provisioning a connection of an app that exists", "provisioning with a new client secret",
		"refreshing a connection by hand", "telling of refusals and recoveries by hand",
		"showing why a refresh by hand was refused", "replacing an app's credential", "creating an app",
		"restoring a deleted app", "restoring a deleted connection", "provisioning without a stored credential",
	}, "reading app: AccessDeniedException"},
	"ProvisionRole TellOfConnections events:PutEvents on event-bus/default when events:detail-type StringEquals entra.connection.refused, entra.connection.recovered and events:source ForAllValues:StringEquals entra-connector": {[]string{
		"telling of refusals and recoveries by hand",
	}, `"message":"events not published"`},
	"ProvisionRole ProveWhoItIs sts:GetWebIdentityToken on * when sts:IdentityTokenAudience ForAllValues:StringEquals api://AzureADTokenExchange": {[]string{
		"provisioning without a stored credential",
	}, "federation_denied"},
	"RefreshRole ListConnections secretsmanager:ListSecrets on *": {[]string{
		"a scheduled sweep", "sweeping everything", "showing why a sweep was refused",
	}, "sweep failed: listing secrets: AccessDeniedException"},
	"RefreshRole ReadCredentialsButNoToken secretsmanager:GetSecretValue on entra/apps/*": {[]string{
		"a scheduled sweep", "sweeping what an event names", "telling of refusals and recoveries in sweeps",
		"sweeping everything", "showing why a sweep was refused", "sweeping what has no stored credential",
	}, `"code":"AccessDeniedException","status":"retrying"`},
	"RefreshRole FindNamedConnections secretsmanager:DescribeSecret on entra/connections/*": {[]string{
		"sweeping what an event names", "telling of refusals and recoveries in sweeps",
		"showing why a sweep was refused", "sweeping what has no stored credential",
	}, "sweep failed: describing secret: AccessDeniedException"},
	"RefreshRole StoreTokens secretsmanager:UpdateSecret on entra/connections/*": {[]string{
		"a scheduled sweep", "sweeping what an event names", "telling of refusals and recoveries in sweeps",
		"sweeping everything", "showing why a sweep was refused", "sweeping what has no stored credential",
	}, `"message":"token not stored"`},
	"RefreshRole TellOfConnections events:PutEvents on event-bus/default when events:detail-type StringEquals entra.connection.refused, entra.connection.recovered and events:source ForAllValues:StringEquals entra-connector": {[]string{
		"telling of refusals and recoveries in sweeps",
	}, `"message":"events not published"`},
	"RefreshRole ProveWhoItIs sts:GetWebIdentityToken on * when sts:IdentityTokenAudience ForAllValues:StringEquals api://AzureADTokenExchange": {[]string{
		"sweeping what has no stored credential",
	}, "federation_denied"},
}

// usedElsewhere are the permissions that are not used by the functions' own code, but by AWS on their behalf and by people and
// programs outside. What stops working without one cannot be seen here; that the template has the use for it, a property of
// that value, can.
var usedElsewhere = map[string]struct{ stops, property, value string }{
	"ProvisionRole WriteLogs logs:CreateLogStream on ProvisionLogGroup.Arn": {
		"the provision function's logs, wherever Lambda starts a copy of it",
		"ProvisionFunction.LoggingConfig.LogGroup", "ProvisionLogGroup",
	},
	"ProvisionRole WriteLogs logs:PutLogEvents on ProvisionLogGroup.Arn": {
		"the provision function's logs",
		"ProvisionFunction.LoggingConfig.LogGroup", "ProvisionLogGroup",
	},
	"RefreshRole WriteLogs logs:CreateLogStream on RefreshLogGroup.Arn": {
		"the refresh function's logs, wherever Lambda starts a copy of it",
		"RefreshFunction.LoggingConfig.LogGroup", "RefreshLogGroup",
	},
	"RefreshRole WriteLogs logs:PutLogEvents on RefreshLogGroup.Arn": {
		"the refresh function's logs",
		"RefreshFunction.LoggingConfig.LogGroup", "RefreshLogGroup",
	},
	"RefreshRole ReportFailedSweeps sqs:SendMessage on FailedSweeps.Arn": {
		"the queue of failed sweeps, which Lambda fills with the function's role",
		"RefreshFunction.EventInvokeConfig.DestinationConfig.OnFailure.Destination", "FailedSweeps.Arn",
	},
	"ScheduleRole StartSweeps lambda:InvokeFunction on RefreshFunction.Arn": {
		"every scheduled sweep: EventBridge Scheduler starts the function with this role",
		"RefreshFunction.Events.Sweep.Properties.RoleArn", "ScheduleRole.Arn",
	},
	"ProvisionRole UseTheKeyOfTheSecrets kms:Decrypt on key/secrets when kms:ViaService StringEquals secretsmanager.us-east-1.amazonaws.com": {
		"with a customer managed key: reading an app and replacing a value",
		"", "",
	},
	"ProvisionRole UseTheKeyOfTheSecrets kms:GenerateDataKey on key/secrets when kms:ViaService StringEquals secretsmanager.us-east-1.amazonaws.com": {
		"with a customer managed key: creating and replacing an app or a connection",
		"", "",
	},
	"RefreshRole UseTheKeyOfTheSecrets kms:Decrypt on key/secrets when kms:ViaService StringEquals secretsmanager.us-east-1.amazonaws.com": {
		"with a customer managed key: reading an app and storing a token",
		"", "",
	},
	"RefreshRole UseTheKeyOfTheSecrets kms:GenerateDataKey on key/secrets when kms:ViaService StringEquals secretsmanager.us-east-1.amazonaws.com": {
		"with a customer managed key: storing a token",
		"", "",
	},
	"OperatorPolicy CallTheApi execute-api:Invoke on Api/$default/*": {
		"every call of the API by an operator",
		"Api.Auth.DefaultAuthorizer", "AWS_IAM",
	},
	"OperatorPolicy StartSweeps lambda:InvokeFunction on RefreshFunction.Arn": {
		"starting a sweep by hand",
		"", "",
	},
	"IntegrationPolicy ReadTokens secretsmanager:GetSecretValue on entra/connections/default/*": {
		"an integration reading a token",
		"", "",
	},
	"IntegrationPolicy ReadTokens secretsmanager:DescribeSecret on entra/connections/default/*": {
		"an integration that looks for a new version first, such as the Secrets Store CSI driver",
		"", "",
	},
	"IntegrationPolicy DecryptThem kms:Decrypt on key/secrets when kms:ViaService StringEquals secretsmanager.us-east-1.amazonaws.com": {
		"with a customer managed key: an integration reading a token",
		"", "",
	},
}

// wildcards are the resources that hold one, or the actions that have nothing else for a resource, and why that is. A wildcard
// that is new fails the tests until this list has it.
var wildcards = map[string]string{
	"secretsmanager:ListSecrets":  "it takes no other resource; it shows names and Descriptions, and no values",
	"sts:GetWebIdentityToken":     "it takes no other resource; the audience narrows it",
	"entra/apps/*":                "apps are created while the functions run",
	"entra/connections/*":         "connections are created while the functions run",
	"entra/connections/default/*": "the connections of one app, which are created while the stack stands",
	"Api/$default/*":              "every route of this API's only stage",
}

// trusted is who takes on each role, and on what condition.
var trusted = map[string]struct {
	service   string
	condition any
}{
	"ProvisionRole": {"lambda.amazonaws.com", nil},
	"RefreshRole":   {"lambda.amazonaws.com", nil},
	"ScheduleRole": {"scheduler.amazonaws.com", map[string]any{
		"StringEquals": map[string]any{"aws:SourceAccount": pseudoParameters["AWS::AccountId"]},
	}},
}
