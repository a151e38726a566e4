"""The template as CloudFormation sees it: transformed by SAM, and resolved for a set of parameters."""

import copy
import functools
import json
import pathlib
import re

import cfnlint.decode.cfn_yaml
from samtranslator.public.translator import ManagedPolicyLoader
from samtranslator.translator.transform import transform

ROOT = pathlib.Path(__file__).parents[2]
TEMPLATE = ROOT / "template.yaml"
STACK, REGION, ACCOUNT = "entra-connector", "eu-west-1", "123456789012"

PSEUDO = {
    "AWS::AccountId": ACCOUNT,
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
    "AWS::StackName": STACK,
    "AWS::URLSuffix": "amazonaws.com",
}
NO_VALUE = object()


@functools.cache
def source():
    """The template as it is written, with short intrinsics such as !Ref in their long form."""
    return json.loads(json.dumps(cfnlint.decode.cfn_yaml.load(str(TEMPLATE))))


@functools.cache
def transformed():
    """The template after SAM's transform, with code where `sam deploy` would put it."""
    template = copy.deepcopy(source())
    template["Globals"]["Function"]["CodeUri"] = "s3://code/bootstrap.zip"
    defaults = {name: p["Default"] for name, p in template["Parameters"].items()}
    template = transform(template, defaults | PSEUDO, ManagedPolicyLoader(None))
    return json.loads(json.dumps(template))


class Stack:
    """The resources and outputs for the given parameters, with defaults for the others. A reference to a
    resource becomes <LogicalId>, one to an attribute <LogicalId.Attribute>."""

    def __init__(self, **parameters):
        self.template = transformed()
        declared = self.template["Parameters"]
        assert parameters.keys() <= declared.keys()
        self.values = PSEUDO | {name: p["Default"] for name, p in declared.items()} | parameters
        self.conditions = {name: self._condition(c) for name, c in self.template["Conditions"].items()}
        self.resources = self._section("Resources")
        self.outputs = self._section("Outputs")

    def of_type(self, kind):
        return {name: r["Properties"] for name, r in self.resources.items() if r["Type"] == kind}

    def the(self, kind):
        (found,) = self.of_type(kind).values()
        return found

    def _section(self, name):
        kept = {k: v for k, v in self.template[name].items() if self.conditions.get(v.get("Condition"), True)}
        if name == "Resources":
            self.present = set(kept)
        return {k: self._resolve(v) for k, v in kept.items()}

    def _condition(self, c):
        ((function, of),) = c.items()
        if function == "Fn::Equals":
            left, right = (str(self._resolve(x)) for x in of)
            return left == right
        if function == "Fn::And":
            return all(map(self._condition, of))
        if function == "Fn::Not":
            return not self._condition(of[0])
        raise NotImplementedError(function)

    def _ref(self, name):
        if name == "AWS::NoValue":
            return NO_VALUE
        if name in self.values:
            return self.values[name]
        assert name.split(".")[0] in self.present, f"a reference to {name}, which is not in the stack"
        return f"<{name}>"

    def _resolve(self, x):
        if isinstance(x, list):
            return [v for v in map(self._resolve, x) if v is not NO_VALUE]
        if not isinstance(x, dict):
            return x
        if len(x) == 1:
            ((function, of),) = x.items()
            if function == "Ref":
                return self._ref(of)
            if function == "Fn::GetAtt":
                return self._ref(of if isinstance(of, str) else ".".join(of))
            if function == "Fn::If":
                return self._resolve(of[1] if self.conditions[of[0]] else of[2])
            if function == "Fn::Join":
                return of[0].join(map(str, self._resolve(of[1])))
            if function == "Fn::Split":
                return self._resolve(of[1]).split(of[0])
            if function == "Fn::Sub":
                text, extra = of if isinstance(of, list) else (of, {})
                extra = self._resolve(extra)
                return re.sub(r"\$\{([^!][^}]*)\}", lambda m: str(extra.get(m[1]) or self._ref(m[1])), text)
            assert not function.startswith("Fn::"), function
        return {k: v for k, v in ((k, self._resolve(v)) for k, v in x.items()) if v is not NO_VALUE}
