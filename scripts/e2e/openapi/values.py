"""Puts what the stand-in Entra of `make local` knows where schemathesis made up something valid.

Otherwise Entra would refuse every valid request, and only refusals would be tested. What is meant to be
invalid stays as it is.
"""

import os
import pathlib

import jsonschema_rs
import schemathesis

KNOWN = {
    "tenant_id": "contoso.example",
    "client_id": "11111111-aaaa-4aaa-8aaa-111111111111",
    "client_secret": "not-a-real-secret-1",
    "client_secret_expires_at": "2100-01-01",
    "certificate": pathlib.Path(os.environ["CERTIFICATE"]).read_text(),
    "federation": {},
    "scope": "https://graph.microsoft.com/.default",
    "cloud": "public",
}


@schemathesis.hook
def before_call(context, case, kwargs):
    if not isinstance(case.body, dict):
        return
    components = case.operation.schema.raw_schema["components"]
    for name in KNOWN.keys() & case.body.keys():
        schema = {"$ref": f"#/components/schemas/ProvisionRequest/properties/{name}", "components": components}
        if jsonschema_rs.is_valid(schema, case.body[name]):
            case.body[name] = KNOWN[name]
