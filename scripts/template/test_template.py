"""What the template deploys: functions, routes, schedule, logs, outputs."""

import json
import re
import subprocess
import sys

import pytest
from cfnlint.api import lint_file

from stack import ROOT, TEMPLATE, Stack, source, transformed

VARIABLES = {
    "SECRET_PREFIX": "entra",
    "REFRESH_WINDOW": "30m",
    "WRITES_PER_SECOND": "45",
    "AZURE_AUTHORITY_HOST": "",
    "LOG_LEVEL": "INFO",
    "KMS_KEY_ID": "",
    "READER_ACCOUNTS": "",
    "SECRET_TAGS": "",
    "RECOVERY_WINDOW_DAYS": 30,
    "EVENT_BUS": "default",
    "CONNECT_PAGE": "false",
    "CONNECT_URL": "",
    "AWS_ENDPOINT_URL_SECRETS_MANAGER": "",
    "AWS_ENDPOINT_URL_EVENTBRIDGE": "",
}


def test_cfn_lint():
    assert lint_file(TEMPLATE) == []


def test_checkov():
    command = [sys.executable, "-m", "checkov.main", "-f", TEMPLATE, "--framework", "cloudformation"]
    scan = subprocess.run([*command, "--skip-download", "--compact", "-o", "json"], capture_output=True, text=True)
    results = json.loads(scan.stdout)["results"]
    failed = [f"{check['check_id']} {check['resource']}: {check['check_name']}" for check in results["failed_checks"]]
    assert scan.returncode == 0 and not failed, failed
    for check in results["skipped_checks"]:
        assert len(check["check_result"]["suppress_comment"]) > 20, (check["check_id"], "is skipped without a reason")


@pytest.mark.parametrize("function", ["ProvisionFunction", "RefreshFunction"])
class TestFunctions:
    def test_every_variable_is_set(self, function):
        assert Stack().resources[function]["Properties"]["Environment"]["Variables"] == VARIABLES

    def test_parameters_reach_the_variables(self, function):
        key = "arn:aws:kms:eu-west-1:123456789012:key/0"
        stack = Stack(
            SecretPrefix="team/a",
            RefreshWindow="45m",
            WritesPerSecond="20",
            LogLevel="WARN",
            KmsKeyArn=key,
            ReaderAccounts="111122223333,444455556666",
            SecretTags="team=a,cost centre=7",
            RecoveryWindowDays=7,
        )
        assert stack.resources[function]["Properties"]["Environment"]["Variables"] == VARIABLES | {
            "SECRET_PREFIX": "team/a",
            "REFRESH_WINDOW": "45m",
            "WRITES_PER_SECOND": "20",
            "LOG_LEVEL": "WARN",
            "KMS_KEY_ID": key,
            "READER_ACCOUNTS": "111122223333,444455556666",
            "SECRET_TAGS": "team=a,cost centre=7",
            "RECOVERY_WINDOW_DAYS": 7,
        }

    def test_logs_as_json_to_a_group_of_its_own(self, function):
        stack = Stack(LogRetentionDays=90)
        logging = stack.resources[function]["Properties"]["LoggingConfig"]
        group = function.replace("Function", "LogGroup")
        # A level above INFO would drop the metrics, which are log lines.
        assert logging == {"LogGroup": f"<{group}>", "LogFormat": "JSON", "ApplicationLogLevel": "DEBUG"}
        assert stack.resources[group]["Properties"]["RetentionInDays"] == 90

    def test_has_a_role_of_its_own(self, function):
        assert Stack().resources[function]["Properties"]["Role"] == f"<{function.replace('Function', 'Role')}.Arn>"

    def test_reserves_concurrency_only_when_asked(self, function):
        assert "ReservedConcurrentExecutions" not in Stack().resources[function]["Properties"]
        assert Stack(ReservedConcurrency=5).resources[function]["Properties"]["ReservedConcurrentExecutions"] == 5


    def test_runs_in_a_vpc_and_is_traced_only_when_asked(self, function):
        plain = Stack().resources[function]["Properties"]
        assert "VpcConfig" not in plain and plain["TracingConfig"] == {"Mode": "PassThrough"}
        stack = Stack(SubnetIds="subnet-1,subnet-2", SecurityGroupIds="sg-1", Tracing="Active")
        asked = stack.resources[function]["Properties"]
        assert asked["VpcConfig"] == {"SubnetIds": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}
        assert asked["TracingConfig"] == {"Mode": "Active"}


def test_every_role_has_the_boundary_that_was_given():
    boundary = "arn:aws:iam::123456789012:policy/boundary"
    for parameters, want in [({}, {None}), ({"PermissionsBoundaryArn": boundary}, {boundary})]:
        assert {r.get("PermissionsBoundary") for r in Stack(**parameters).of_type("AWS::IAM::Role").values()} == want


def test_the_transform_adds_no_permission():
    """internal/permissions compares those in the template with a reviewed list."""

    def roles_and_policies(template):
        return {name: r for name, r in template["Resources"].items() if r["Type"].startswith("AWS::IAM::")}

    written = roles_and_policies(source())
    assert len(written) == 8 and roles_and_policies(transformed()) == written
    stack = Stack(AlarmEmail="someone@contoso.example")
    others = [r["Properties"] for name, r in stack.resources.items() if name not in written]
    assert not any("Polic" in name for properties in others for name in properties)
    for permission in stack.of_type("AWS::Lambda::Permission").values():
        assert permission["FunctionName"] == "<ProvisionFunction>"
        assert permission["Principal"] == "apigateway.amazonaws.com"
        assert permission["SourceArn"].startswith("arn:aws:execute-api:eu-west-1:123456789012:<Api>/")


def test_every_route_of_the_function_is_there_and_requires_a_signature():
    served = re.findall(r'"([A-Z]+ /[^"]*)":', (ROOT / "functions/provision/api.go").read_text())
    assert len(served) == 10
    body = Stack().the("AWS::ApiGatewayV2::Api")["Body"]
    routes = {}
    for path, methods in body["paths"].items():
        for method, route in methods.items():
            routes[f"{method.upper()} {path}" if path.startswith("/") else path] = route
    assert routes.keys() == {*served, "$default"}
    for name, route in routes.items():
        assert route["security"] == [{"AWS_IAM": []}], name
        assert "<ProvisionFunction.Arn>" in route["x-amazon-apigateway-integration"]["uri"], name
        assert route["x-amazon-apigateway-integration"]["payloadFormatVersion"] == "2.0", name
    assert body["components"]["securitySchemes"]["AWS_IAM"]["x-amazon-apigateway-authtype"] == "awsSigv4"


def test_the_page_for_customers_is_there_if_asked_for():
    assert "ConnectFunction" not in Stack().resources
    stack = Stack(ConnectPage="true", ConnectProduct="Acme", ConnectContact="help@acme.example", ConnectUrl="https://c.example")
    variables = stack.resources["ConnectFunction"]["Properties"]["Environment"]["Variables"]
    assert variables == VARIABLES | {
        "CONNECT_PAGE": "true",
        "CONNECT_URL": "https://c.example",
        "CONNECT_PRODUCT": "Acme",
        "CONNECT_LOGO": "",
        "CONNECT_CONTACT": "help@acme.example",
    }
    public = set()
    for path, methods in stack.the("AWS::ApiGatewayV2::Api")["Body"]["paths"].items():
        for method, route in methods.items():
            if "<ConnectFunction.Arn>" in route["x-amazon-apigateway-integration"]["uri"]:
                assert route["security"] == [{"NONE": []}], path
                public.add(f"{method.upper()} {path}".replace("X-AMAZON-APIGATEWAY-ANY-METHOD", "ANY"))
            else:
                assert route["security"] == [{"AWS_IAM": []}], path
    served = re.findall(r'case "([A-Z]+ /[^"]*)":', (ROOT / "functions/connect/host.go").read_text())
    assert public == {*served, "ANY /connect/{proxy+}"}
    assert stack.outputs["ConnectRedirectUri"]["Value"] == "https://c.example/connect/callback"
    assert '"<ConnectFunction>"' in stack.the("AWS::CloudWatch::Dashboard")["DashboardBody"]
    settings = stack.the("AWS::ApiGatewayV2::Stage")["RouteSettings"]
    assert settings == dict.fromkeys(public, {"ThrottlingRateLimit": 10, "ThrottlingBurstLimit": 10})
    assert "RouteSettings" not in Stack().the("AWS::ApiGatewayV2::Stage")


def test_the_api_is_throttled():
    settings = Stack(ApiRequestsPerSecond=35).the("AWS::ApiGatewayV2::Stage")["DefaultRouteSettings"]
    assert settings == {"ThrottlingRateLimit": 35, "ThrottlingBurstLimit": 35}


def test_the_api_logs_who_did_what_but_no_secret():
    stack = Stack()
    settings = stack.the("AWS::ApiGatewayV2::Stage")["AccessLogSettings"]
    assert settings["DestinationArn"] == "<ApiLogGroup.Arn>"
    assert stack.resources["ApiLogGroup"]["Properties"]["RetentionInDays"] == 30
    # No $context.path, because a caller may have put a secret there, and nothing of headers, query and body.
    assert json.loads(settings["Format"]) == {
        "requestId": "$context.requestId",
        "time": "$context.requestTime",
        "caller": "$context.identity.userArn",
        "sourceIp": "$context.identity.sourceIp",
        "routeKey": "$context.routeKey",
        "status": "$context.status",
        "latency": "$context.responseLatency",
        "integrationStatus": "$context.integrationStatus",
    }


def test_the_schedule_sweeps_everything_and_does_not_retry():
    schedule = Stack(Schedule="rate(10 minutes)").the("AWS::Scheduler::Schedule")
    assert schedule["ScheduleExpression"] == "rate(10 minutes)"
    assert "Name" not in schedule, "SAM would use the same name in every stack"
    assert schedule["GroupName"] == "<ScheduleGroup>"
    assert schedule.get("State", "ENABLED") == "ENABLED"
    target = {"Arn": "<RefreshFunction.Arn>", "RoleArn": "<ScheduleRole.Arn>", "Input": "{}"}
    assert schedule["Target"] == target | {"RetryPolicy": {"MaximumRetryAttempts": 0}}


def test_a_failed_sweep_is_not_retried_but_goes_to_the_queue():
    stack = Stack()
    config = stack.the("AWS::Lambda::EventInvokeConfig")
    assert config["FunctionName"] == "<RefreshFunction>"
    assert config["MaximumRetryAttempts"] == 0
    assert config["DestinationConfig"] == {"OnFailure": {"Destination": "<FailedSweeps.Arn>"}}
    assert stack.the("AWS::SQS::Queue") == {"SqsManagedSseEnabled": True, "MessageRetentionPeriod": 1209600}


def test_outputs_resolve():
    assert {name: output["Value"] for name, output in Stack(SecretPrefix="x").outputs.items()} == {
        "ApiUrl": "<Api.ApiEndpoint>",
        "ViewerPolicyArn": "<ViewerPolicy>",
        "OperatorPolicyArn": "<OperatorPolicy>",
        "AppAdministratorPolicyArn": "<AppAdministratorPolicy>",
        "IntegrationPolicyArn": "<IntegrationPolicy>",
        "DashboardName": "<Dashboard>",
        "ProvisionFunctionName": "<ProvisionFunction>",
        "RefreshFunctionName": "<RefreshFunction>",
        "FailedSweepsQueueUrl": "<FailedSweeps>",
        "ConnectionSecretName": "x/connections/{app}/{connection}",
        "ConnectionSecretArn": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:x/connections/{app}/*",
        "ProvisionSubject": "<ProvisionRole.Arn>",
        "RefreshSubject": "<RefreshRole.Arn>",
    }


def allows(parameter, value):
    p = source()["Parameters"][parameter]
    if "AllowedValues" in p:
        return value in p["AllowedValues"]
    if p["Type"] == "Number":
        return p["MinValue"] <= value <= p["MaxValue"]
    return re.search(p["AllowedPattern"], str(value)) is not None


@pytest.mark.parametrize("parameter", source()["Parameters"])
def test_parameters_are_described_and_allow_their_default(parameter):
    p = source()["Parameters"][parameter]
    assert p["Description"].endswith(".")
    assert allows(parameter, p["Default"])


@pytest.mark.parametrize(
    "parameter, good, bad",
    [
        ("SecretPrefix", "team/entra", "/entra"),
        ("SecretPrefix", "entra", "entra/*"),
        ("RefreshWindow", "1h15m", "0m"),
        ("Schedule", "rate(1 minute)", "rate(5 minute)"),
        ("Schedule", "cron(0/5 * * * ? *)", "5 minutes"),
        ("SilenceMinutes", 180, 1441),
        (
            "KmsKeyArn",
            "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab",
            "arn:aws:kms:eu-west-1:123456789012:alias/secrets",
        ),
        ("KmsKeyArn", "arn:aws-cn:kms:cn-north-1:123456789012:key/mrk-1234", "*"),
        ("AlarmTopicArn", "arn:aws:sns:eu-west-1:123456789012:alarms", "alarms"),
        ("AlarmEmail", "someone@contoso.example", "someone"),
        ("RecoveryWindowDays", 7, 6),
        ("IntegrationApp", "graph-1.prod", "*"),
        ("IntegrationConnection", "*", "a*"),
        ("IntegrationConnection", "contoso-graph", "a/b"),
        ("SecretTags", "team=a,cost centre=7", "team"),
        ("PermissionsBoundaryArn", "arn:aws:iam::123456789012:policy/team/boundary", "boundary"),
        ("SubnetIds", "subnet-0a1b,subnet-2c3d", "subnet-0a1b, subnet-2c3d"),
        ("SecurityGroupIds", "sg-0a1b", "default"),
        ("ApiRequestsPerSecond", 100, 0),
        ("FederationAudience", "api://AzureADTokenExchange", "a b"),
    ],
)
def test_parameters_allow_what_works_and_refuse_the_rest(parameter, good, bad):
    assert allows(parameter, good)
    assert not allows(parameter, bad)
