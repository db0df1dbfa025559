"""Makes the secrets of clients and of nodes, unless they exist: a job runs this before the first pods.

Guarantees: a secret that exists is neither read nor changed, so what is in it stays the same for the life of the
    namespace's secret. Each has 190 bits from the system's generator, and is printed nowhere. Exit code 0 only when all
    secrets are there.
Leaves to the caller: the right to create secrets, and taking them away when nobody needs them any more.
Reference: Kubernetes API, core/v1 Secret; how a pod finds the API: KUBERNETES_SERVICE_HOST and the mounted token.
"""

import argparse
import base64
import http.client
import json
import os
import secrets
import ssl
import sys
from pathlib import Path

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PASSWORD_CHARACTERS = 32  # letters and digits: they need no quotes in a shell, a URL or a TOML file
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
CREATED = 201
CONFLICT = 409
ANSWER_SECONDS = 30
ANSWER_BYTES_MAX = 65536


def manifest(name: str, key: str, instance: str) -> dict[str, object]:
    """Return a secret with a new password under the key."""
    password = "".join(secrets.choice(ALPHABET) for _ in range(PASSWORD_CHARACTERS))
    labels = {"app.kubernetes.io/name": "redan", "app.kubernetes.io/instance": instance}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": labels},
        "type": "Opaque",
        "data": {key: base64.b64encode(password.encode()).decode()},
    }


def create(connection: http.client.HTTPConnection, token: str, namespace: str, secret: dict[str, object]) -> int:
    """Ask the API to create a secret; return the status. Raises OSError, http.client.HTTPException."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection.request("POST", f"/api/v1/namespaces/{namespace}/secrets", json.dumps(secret), headers)
    response = connection.getresponse()
    answer = response.read(ANSWER_BYTES_MAX)
    if response.status not in (CREATED, CONFLICT):
        try:
            reason = json.loads(answer).get("message", "")
        except ValueError:
            reason = answer[:200].decode(errors="replace")
        print(f"secret: the API answers {response.status}: {reason}", file=sys.stderr)
    return response.status


def main() -> None:
    """Create the secrets; exit code 1 if one could not be."""
    parser = argparse.ArgumentParser(description="Make secrets with a random password each, unless they exist.")
    for option in ("namespace", "instance"):
        parser.add_argument(f"--{option}", required=True)
    parser.add_argument("--secret", required=True, action="append", metavar="NAME/KEY", help="may be given again")
    arguments = parser.parse_args()
    trusted = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ.get("KUBERNETES_SERVICE_PORT", "443"))
    token = (ACCOUNT / "token").read_text(encoding="ascii")
    is_missing = False
    for named in arguments.secret:
        name, _, key = named.partition("/")
        connection = http.client.HTTPSConnection(host, port, timeout=ANSWER_SECONDS, context=trusted)
        status = create(connection, token, arguments.namespace, manifest(name, key, arguments.instance))
        connection.close()
        if status == CREATED:
            print(f"secret: {name} made")
        elif status == CONFLICT:
            print(f"secret: {name} exists and stays as it is")
        else:
            is_missing = True
    sys.exit(1 if is_missing else 0)


if __name__ == "__main__":
    main()
