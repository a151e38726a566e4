"""Runs ministack with one mend: a secret's version is named by the request's ClientRequestToken, as on AWS.

The connector finds out by that name whether a secret is still as it wrote it.
"""

import threading

from ministack.app import main
from ministack.services import secretsmanager

request = threading.local()
new_uuid = secretsmanager.new_uuid
secretsmanager.new_uuid = lambda: getattr(request, "token", None) or new_uuid()


def named(action):
    def answer(data):
        request.token = data.get("ClientRequestToken")
        try:
            return action(data)
        finally:
            request.token = None

    return answer


secretsmanager._create_secret = named(secretsmanager._create_secret)
secretsmanager._update_secret = named(secretsmanager._update_secret)
main()
