"""Deploys what `sam build` left to ministack, an imitation of AWS that we did not write, and uses it.

usage: deployed.py <URL of the stand-in Entra of make local>

AWS_ENDPOINT_URL and the keys of ministack's administrator have to be set. ministack runs with AUTH=true: it checks
every signature and every policy, those of the functions' roles among them. It differs from AWS in this:

- CloudFormation refuses metric math in an alarm. Here NoSweepSucceeded gets a plain metric.
- CloudFormation ignores the OpenAPI body of an HTTP API, so the API has no routes. Here they are added from the
  template. internal/openapitest and scripts/template hold the body to account.
- The API answers at AWS_ENDPOINT_URL, for a Host that names it.
- Secrets Manager ignores ClientRequestToken, and does not check the filters and limits of lists. The contract tests
  of internal/secretstore are the place for its rules.
- There are no metrics from logs, and no access logs.
- IAM does not know the condition keys of events:PutEvents, so events are refused. The functions go on without.
"""

import json
import os
import subprocess
import sys
import time

import boto3
import botocore.exceptions
import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from samcli.yamlhelper import yaml_dump, yaml_parse

BUILT, COPY, STACK = ".aws-sam/build/template.yaml", ".aws-sam/build/ministack.yaml", "entra-connector"
ENDPOINT, REGION = os.environ["AWS_ENDPOINT_URL"], os.environ["AWS_REGION"]

# What cmd/local/directory.go makes Entra know.
APP = {"client_id": "11111111-aaaa-4aaa-8aaa-111111111111", "client_secret": "not-a-real-secret-1"}
ROTATED = APP | {"client_secret": "not-a-real-secret-2"}
FIRST = APP | {"tenant_id": "contoso.example", "connection": "first", "service": "microsoft-graph"}


def say(what):
    print(what, flush=True)


def sam(*args):
    done = subprocess.run(["sam", *args], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stdout + done.stderr)


def prepare(entra):
    template = yaml_parse(open(BUILT).read())
    alarm = template["Resources"]["NoSweepSucceeded"]["Properties"]
    del alarm["Metrics"]
    alarm |= {"Namespace": "EntraConnector", "MetricName": "SweepsSucceeded", "Period": 60, "Statistic": "Sum"}
    template["Globals"]["Function"]["Environment"]["Variables"] |= {
        "AZURE_AUTHORITY_HOST": entra,
        "AWS_ENDPOINT_URL_SECRETS_MANAGER": ENDPOINT,
        "AWS_ENDPOINT_URL_EVENTBRIDGE": ENDPOINT,
    }
    open(COPY, "w").write(yaml_dump(template))
    return template


def add_routes(template, outputs):
    api = boto3.client("apigatewayv2")
    api_id = outputs["ApiUrl"].split("//")[1].split(".")[0]
    function = boto3.client("lambda").get_function(FunctionName=outputs["ProvisionFunctionName"])["Configuration"]
    integration = api.create_integration(
        ApiId=api_id, IntegrationType="AWS_PROXY", IntegrationUri=function["FunctionArn"], PayloadFormatVersion="2.0"
    )
    for event in template["Resources"]["ProvisionFunction"]["Properties"]["Events"].values():
        route = event["Properties"]
        api.create_route(
            ApiId=api_id,
            RouteKey=f"{route['Method']} {route['Path']}" if "Path" in route else "$default",
            Target=f"integrations/{integration['IntegrationId']}",
            AuthorizationType=template["Resources"]["Api"]["Properties"]["Auth"]["DefaultAuthorizer"],
        )
    return api_id


class Caller:
    """A user with one of the stack's policies."""

    def __init__(self, name, policy):
        iam = boto3.client("iam")
        iam.create_user(UserName=name)
        iam.attach_user_policy(UserName=name, PolicyArn=policy)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        self.name, self.keys = name, Credentials(key["AccessKeyId"], key["SecretAccessKey"])

    def request(self, api_id, method, path, body=None):
        host = f"{api_id}.execute-api.localhost"
        data = json.dumps(body) if body is not None else None
        request = AWSRequest(method, ENDPOINT + path, {"Host": host, "Content-Type": "application/json"}, data)
        if self.keys:
            SigV4Auth(self.keys, "execute-api", REGION).add_auth(request)
        reply = requests.request(method, ENDPOINT + path, headers=dict(request.headers), data=data, timeout=30)
        say(f"  {self.name}: {method} {path} -> {reply.status_code}")
        return reply

    def secrets(self):
        return boto3.client(
            "secretsmanager", aws_access_key_id=self.keys.access_key, aws_secret_access_key=self.keys.secret_key
        )


def expect(reply, status):
    if reply.status_code != status:
        sys.exit(f"want {status}: {reply.text}")
    return reply.json() if reply.text else None


def main(entra):
    template = prepare(entra)
    say("sam deploy")
    config = f"--config-file={os.path.abspath('samconfig.toml')}"
    sam("deploy", config, "--template-file", COPY, "--no-confirm-changeset", "--no-progressbar",
        "--parameter-overrides", "Schedule='rate(1 minute)'")  # fmt: skip
    stack = boto3.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"][0]
    outputs = {o["OutputKey"]: o["OutputValue"] for o in stack["Outputs"]}
    api_id = add_routes(template, outputs)

    nobody = Caller.__new__(Caller)
    nobody.name, nobody.keys = "nobody", None
    viewer = Caller("viewer", outputs["ViewerPolicyArn"])
    operator = Caller("operator", outputs["OperatorPolicyArn"])
    administrator = Caller("administrator", outputs["AppAdministratorPolicyArn"])
    integration = Caller("integration", outputs["IntegrationPolicyArn"])

    expect(nobody.request(api_id, "GET", "/connections"), 403)
    expect(viewer.request(api_id, "POST", "/connections", FIRST), 403)
    expect(operator.request(api_id, "PUT", "/apps/default", APP), 403)
    expect(operator.request(api_id, "POST", "/connections", FIRST), 201)
    connection = expect(viewer.request(api_id, "GET", "/connections/default/first"), 200)
    assert connection["status"] == "ok", connection
    listed = expect(viewer.request(api_id, "GET", "/connections?app=default&limit=10"), 200)
    assert [c["connection"] for c in listed["connections"]] == ["first"], listed

    say("the integration reads the connection with boto3, and no app")
    secrets = integration.secrets()
    read = lambda: json.loads(secrets.get_secret_value(SecretId=connection["secret"]["name"])["SecretString"])
    before = read()
    assert len(before) == 6 and all(name.startswith("PAN_SEC_MICROSOFT_ENTRA_") for name in before), sorted(before)
    assert int(before["PAN_SEC_MICROSOFT_ENTRA_EXPIRES_AT"]) > time.time()
    try:
        secrets.get_secret_value(SecretId="entra/apps/default")
        sys.exit("the integration can read the app's client secret")
    except botocore.exceptions.ClientError as e:
        assert e.response["Error"]["Code"] == "AccessDeniedException", e

    expect(administrator.request(api_id, "PUT", "/apps/default", ROTATED), 200)
    say("the schedule sweeps within a minute or two, and replaces the token of before the rotation")
    deadline = time.monotonic() + 150
    while read()["PAN_SEC_MICROSOFT_ENTRA_ACCESS_TOKEN"] == before["PAN_SEC_MICROSOFT_ENTRA_ACCESS_TOKEN"]:
        if time.monotonic() > deadline:
            sys.exit("no sweep has replaced it")
        time.sleep(1)
    failed = boto3.client("sqs").receive_message(QueueUrl=outputs["FailedSweepsQueueUrl"]).get("Messages")
    assert not failed, failed

    expect(operator.request(api_id, "DELETE", "/connections/default/first"), 204)
    expect(operator.request(api_id, "DELETE", "/apps/default"), 403)
    expect(administrator.request(api_id, "DELETE", "/apps/default"), 204)
    for name in ("viewer", "operator", "administrator", "integration"):
        iam = boto3.client("iam")
        for policy in iam.list_attached_user_policies(UserName=name)["AttachedPolicies"]:
            iam.detach_user_policy(UserName=name, PolicyArn=policy["PolicyArn"])
    say("sam delete")
    sam("delete", config, "--no-prompts")
    os.remove(COPY)


if __name__ == "__main__":
    main(sys.argv[1])
