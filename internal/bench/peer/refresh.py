"""The function that one would otherwise write. make bench measures it beside ours. On a schedule, it refreshes every
token in Secrets Manager that is near its expiry. It reads and writes the same secrets as ours."""

import json
import os
import time

import boto3
import msal
import requests

PREFIX = os.environ.get("SECRET_PREFIX", "entra")
AUTHORITY = os.environ.get("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com")
KEY = "PAN_SEC_MICROSOFT_ENTRA_"
WINDOW = 30 * 60  # seconds

secrets = boto3.client("secretsmanager")
session = requests.Session()
clients = {}  # (client ID, client secret, tenant) -> msal's client


def handler(event, context):
    report, apps = {"checked": 0, "refreshed": 0, "failed": 0}, {}
    pages = secrets.get_paginator("list_secrets").paginate(Filters=[{"Key": "name", "Values": [f"{PREFIX}/connections/"]}])
    for name in (secret["Name"] for page in pages for secret in page["SecretList"]):
        report["checked"] += 1
        try:
            report["refreshed"] += refresh(name, apps)
        except Exception as error:  # one connection's failure must not stop the others
            report["failed"] += 1
            print(f"{name}: {error}")
    return report


def refresh(name, apps):
    values = read(name)
    if int(values[KEY + "EXPIRES_AT"]) - time.time() > WINDOW:
        return False
    app = name.split("/")[-2]
    if app not in apps:
        apps[app] = read(f"{PREFIX}/apps/{app}")
    values.update(acquire(apps[app], values[KEY + "TENANT_ID"]))
    secrets.put_secret_value(SecretId=name, SecretString=json.dumps(values))
    return True


def read(name):
    return json.loads(secrets.get_secret_value(SecretId=name)["SecretString"])


def acquire(app, tenant):
    key = app["client_id"], app["client_secret"], tenant
    if key not in clients:
        clients[key] = msal.ConfidentialClientApplication(
            app["client_id"], client_credential=app["client_secret"], authority=f"{AUTHORITY}/{tenant}",
            instance_discovery=False, http_client=session)
    clients[key].remove_tokens_for_client()  # or msal would hand back the token that is about to expire
    sent = int(time.time())
    token = clients[key].acquire_token_for_client([app["scope"]])
    if "access_token" not in token:
        raise RuntimeError(token.get("error_codes") or token.get("error"))
    return {
        KEY + "TOKEN_TYPE": token["token_type"],
        KEY + "EXPIRES_AT": str(sent + token["expires_in"]),
        KEY + "EXPIRES_IN": str(token["expires_in"]),
        KEY + "EXT_EXPIRES_IN": str(token.get("ext_expires_in", token["expires_in"])),
        KEY + "ACCESS_TOKEN": token["access_token"],
    }
