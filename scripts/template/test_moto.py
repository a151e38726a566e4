"""The transformed template, deployed to moto, which reads it independently of our own tests and fills in the
references between resources.

moto's CloudFormation does not know some types. Alarms, dashboard and schedule go to moto through their own
APIs, which take the same properties. The HTTP API and EventInvokeConfig are left to the other tests."""

import json

import boto3
import pytest
import yaml
from moto import mock_aws

from stack import STACK, Stack, transformed

UNKNOWN_TO_MOTO = {
    "AWS::Scheduler::ScheduleGroup",
    "AWS::ApiGatewayV2::Api",
    "AWS::ApiGatewayV2::Stage",
    "AWS::CloudWatch::Alarm",
    "AWS::Lambda::EventInvokeConfig",
    "AWS::Scheduler::Schedule",
}
KEY = "arn:aws:kms:eu-west-1:123456789012:key/0"
EVERYTHING = {"AlarmEmail": "someone@contoso.example", "KmsKeyArn": KEY, "ReaderAccounts": "111122223333", "Federation": "true", "ReservedConcurrency": "2"}


def decided(x, conditions):
    """x with every Fn::If decided, since moto leaves null where AWS::NoValue should remove a list's item."""
    if isinstance(x, dict) and x.keys() == {"Fn::If"}:
        condition, yes, no = x["Fn::If"]
        return decided(yes if conditions[condition] else no, conditions)
    if isinstance(x, list):
        return [v for v in (decided(v, conditions) for v in x) if v != {"Ref": "AWS::NoValue"}]
    return {k: decided(v, conditions) for k, v in x.items()} if isinstance(x, dict) else x


def known_to_moto(conditions):
    """The template without the types that moto does not know, and without everything that refers to them."""
    template = decided(transformed(), conditions)
    resources, outputs = template["Resources"], template["Outputs"]
    assert {r["Type"] for r in resources.values()} > UNKNOWN_TO_MOTO
    gone = {
        name for name, r in resources.items() if r["Type"] in UNKNOWN_TO_MOTO or not conditions.get(r.get("Condition"), True)
    }
    while gone:
        for name in gone:
            del resources[name]
        mentioned = [f'"{name}"' for name in gone] + [f"${{{name}{end}" for name in gone for end in "}."]
        for name in [name for name, output in outputs.items() if any(m in json.dumps(output) for m in mentioned)]:
            del outputs[name]
        gone = {name for name, r in resources.items() if any(m in json.dumps(r["Properties"]) for m in mentioned)}
    return template


class Deployed:
    """The stack in moto, and the resources of Stack with moto's names in place of references."""

    def __init__(self, parameters):
        boto3.client("s3").create_bucket(Bucket="code", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        boto3.client("s3").put_object(Bucket="code", Key="bootstrap.zip", Body=b"")
        stack = Stack(**parameters)
        self.template = known_to_moto(stack.conditions)
        cloudformation = boto3.client("cloudformation")
        cloudformation.create_stack(
            StackName=STACK,
            TemplateBody=json.dumps(self.template),
            Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in parameters.items()],
            Capabilities=["CAPABILITY_IAM"],
        )
        (self.stack,) = cloudformation.describe_stacks(StackName=STACK)["Stacks"]
        resources = cloudformation.describe_stack_resources(StackName=STACK)["StackResources"]
        self.names = {r["LogicalResourceId"]: r["PhysicalResourceId"] for r in resources}
        text = json.dumps(stack.resources)
        for name, physical in self.names.items():
            text = text.replace(f"<{name}>", physical).replace(f"<{name}.QueueName>", physical.rsplit("/")[-1])
        for name in stack.resources.keys() - self.names.keys():
            text = text.replace(f"<{name}>", name)
        for name, arn in self.arns().items():
            text = text.replace(f"<{name}.Arn>", arn)
        self.resources = json.loads(text)

    def arns(self):
        logs, iam, functions = boto3.client("logs"), boto3.client("iam"), boto3.client("lambda")
        groups = {g["logGroupName"]: g["arn"].removesuffix(":*") for g in logs.describe_log_groups()["logGroups"]}
        roles = {r["RoleName"]: r["Arn"] for r in iam.list_roles()["Roles"]}
        code = {f["FunctionName"]: f["FunctionArn"] for f in functions.list_functions()["Functions"]}
        queues = {
            url: f"arn:aws:sqs:eu-west-1:123456789012:{url.rsplit('/')[-1]}" for url in self.names.values() if "/" in url
        }
        return {name: arn for name, p in self.names.items() if (arn := (queues | groups | roles | code).get(p))}

    def of_type(self, kind):
        return {name: r["Properties"] for name, r in self.resources.items() if r["Type"] == kind}


@pytest.fixture(scope="module", params=[{}, EVERYTHING], ids=["defaults", "everything"])
def deployed(request):
    with mock_aws():
        yield Deployed(request.param)


def test_it_deploys(deployed):
    assert deployed.stack["StackStatus"] == "CREATE_COMPLETE"
    expected = {name for name in deployed.resources if name in deployed.template["Resources"]}
    assert deployed.names.keys() == expected and len(expected) >= 10
    assert all(output["OutputValue"] for output in deployed.stack["Outputs"])


def as_json(document):
    return yaml.safe_load(document) if isinstance(document, str) else document  # moto may use Python quotes


def test_roles_and_policies(deployed):
    iam = boto3.client("iam")
    for name, role in deployed.of_type("AWS::IAM::Role").items():
        (policy,) = role["Policies"]
        if "<" in json.dumps(policy):
            continue  # it refers to something that moto does not know
        got = iam.get_role_policy(RoleName=deployed.names[name], PolicyName=policy["PolicyName"])
        assert as_json(got["PolicyDocument"]) == policy["PolicyDocument"], name
    integration = iam.get_policy(PolicyArn=deployed.names["IntegrationPolicy"])["Policy"]
    version = iam.get_policy_version(PolicyArn=integration["Arn"], VersionId=integration["DefaultVersionId"])
    assert (
        as_json(version["PolicyVersion"]["Document"])
        == deployed.resources["IntegrationPolicy"]["Properties"]["PolicyDocument"]
    )


def test_functions(deployed):
    for name, function in deployed.of_type("AWS::Lambda::Function").items():
        got = boto3.client("lambda").get_function_configuration(FunctionName=deployed.names[name])
        assert got["Timeout"] == function["Timeout"] and got["Role"] == function["Role"]
        assert got["Environment"] == function["Environment"]


def test_queue_and_logs(deployed):
    queue = boto3.client("sqs").get_queue_attributes(QueueUrl=deployed.names["FailedSweeps"], AttributeNames=["All"])
    assert queue["Attributes"]["SqsManagedSseEnabled"] == "true"
    groups = boto3.client("logs").describe_log_groups()["logGroups"]
    assert {g["logGroupName"]: g["retentionInDays"] for g in groups} == {
        "/aws/lambda/entra-connector-provision": 30,
        "/aws/lambda/entra-connector-refresh": 30,
        "/aws/vendedlogs/entra-connector-api": 30,
    }


def test_alarms(deployed):
    cloudwatch = boto3.client("cloudwatch")
    for alarm in deployed.of_type("AWS::CloudWatch::Alarm").values():
        cloudwatch.put_metric_alarm(**alarm)
    alarms = cloudwatch.describe_alarms()["MetricAlarms"]
    assert len(alarms) == 9
    topics = [t["TopicArn"] for t in boto3.client("sns").list_topics()["Topics"]]
    assert len(topics) == ("AlarmTopic" in deployed.names)
    for alarm in alarms:
        assert alarm["AlarmActions"] == topics
        assert "<" not in json.dumps(alarm, default=str)


def test_dashboard(deployed):
    cloudwatch = boto3.client("cloudwatch")
    (dashboard,) = deployed.of_type("AWS::CloudWatch::Dashboard").values()
    cloudwatch.put_dashboard(**dashboard)
    got = cloudwatch.get_dashboard(DashboardName="entra-connector-eu-west-1")
    assert deployed.names["RefreshFunction"] in json.dumps(json.loads(got["DashboardBody"]))


def test_schedule(deployed):
    scheduler = boto3.client("scheduler")
    (schedule,) = deployed.of_type("AWS::Scheduler::Schedule").values()
    group = schedule["GroupName"]
    scheduler.create_schedule_group(Name=group)
    scheduler.create_schedule(Name="sweep", **schedule)
    target = scheduler.get_schedule(Name="sweep", GroupName=group)["Target"]
    assert target["Arn"] == deployed.arns()["RefreshFunction"] and target["RoleArn"] == deployed.arns()["ScheduleRole"]
