"""What the stack permits is what permissions.yaml lists, and nothing more."""

import pathlib

import pytest
import yaml

from stack import Stack

REVIEWED = yaml.safe_load((pathlib.Path(__file__).parent / "permissions.yaml").read_text())

EVERYTHING = {
    "Federation": "true",
    "KmsKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/0",
    "AlarmEmail": "someone@contoso.example",
    "AlarmTopicArn": "arn:aws:sns:eu-west-1:123456789012:alarms",
}


def listed(x):
    return x if isinstance(x, list) else [x]


def permitted(resource):
    """The statements of a role or managed policy, by Sid."""
    documents = [p["PolicyDocument"] for p in resource.get("Policies", [])]
    documents += [resource["PolicyDocument"]] if "PolicyDocument" in resource else []
    statements = {}
    for document in documents:
        for s in document["Statement"]:
            assert s["Effect"] == "Allow" and s.keys() <= {"Sid", "Effect", "Action", "Resource", "Condition"}
            assert s["Sid"] not in statements
            statements[s["Sid"]] = {
                "actions": sorted(listed(s["Action"])),
                "resources": sorted(listed(s["Resource"])),
                "conditions": s.get("Condition", {}),
            }
    return statements


@pytest.mark.parametrize("parameters", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_permissions_are_the_reviewed_ones(parameters):
    stack = Stack(**parameters)
    found = stack.of_type("AWS::IAM::Role") | stack.of_type("AWS::IAM::ManagedPolicy")
    want = {
        name: {
            sid: {
                "actions": sorted(s["actions"]),
                "resources": sorted(s["resources"]),
                "conditions": s.get("conditions", {}),
            }
            for sid, s in entry["statements"].items()
            if s.get("when") is None or s["when"] in parameters
        }
        for name, entry in REVIEWED.items()
    }
    assert {name: permitted(resource) for name, resource in found.items()} == want


def test_roles_trust_one_service_each():
    found = Stack().of_type("AWS::IAM::Role")
    assert found.keys() == {name for name, entry in REVIEWED.items() if "trusts" in entry}
    for name, role in found.items():
        trusts = REVIEWED[name]["trusts"]
        want = {"Effect": "Allow", "Principal": {"Service": trusts["service"]}, "Action": "sts:AssumeRole"}
        if "conditions" in trusts:
            want["Condition"] = trusts["conditions"]
        assert role["AssumeRolePolicyDocument"]["Statement"] == [want], name
        assert "ManagedPolicyArns" not in role


def test_nothing_else_permits_anything():
    stack = Stack(**EVERYTHING)
    permitting = {name: r["Type"] for name, r in stack.resources.items() if "Polic" in str(r["Properties"].keys())}
    assert permitting.keys() - REVIEWED.keys() == set()
    for permission in stack.of_type("AWS::Lambda::Permission").values():
        assert permission["FunctionName"] == "<ProvisionFunction>"
        assert permission["Principal"] == "apigateway.amazonaws.com"
        assert permission["SourceArn"].startswith("arn:aws:execute-api:eu-west-1:123456789012:<Api>/")


def test_every_permission_has_a_reason_and_every_wildcard_one_more():
    for name, entry in REVIEWED.items():
        for sid, s in entry["statements"].items():
            assert s["why"], (name, sid)
            assert not any("*" in action for action in s["actions"]), (name, sid)
            assert bool(s.get("wildcard")) == any("*" in resource for resource in s["resources"]), (name, sid)


def test_refresh_reads_no_token_creates_nothing_deletes_nothing():
    reads = REVIEWED["RefreshRole"]["statements"]
    for sid, s in reads.items():
        for action in s["actions"]:
            assert not action.endswith(("CreateSecret", "DeleteSecret", "RestoreSecret", "PutSecretValue")), sid
            assert not (action.endswith("GetSecretValue") and any("connections" in r for r in s["resources"])), sid
