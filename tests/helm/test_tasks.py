"""What the chart runs beside nodes, against what it talks to: the job for the secrets, `helm test`, Prometheus."""

from __future__ import annotations

import base64
import http.client
import json
import re
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from helm.redan.files import make_secret
from tests.harness.cluster_processes import ClusterProcesses
from tests.helm.charts import CHART, one, ran

PASSWORD = "correct horse"
SETTLED_SECONDS_MAX = 60.0


class FakeApi(HTTPServer):
    """As much of the Kubernetes API as creating a secret needs; every answer is its own."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.secrets: dict[str, Any] = {}
        self.seen: list[tuple[str, str | None]] = []
        self.refuses = False


class _Requests(BaseHTTPRequestHandler):
    server: FakeApi

    def _create(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, self.headers["Authorization"]))
        name = body["metadata"]["name"]
        if self.server.refuses:
            status, answer = 403, {"message": "secrets is forbidden"}
        elif name in self.server.secrets:
            status, answer = 409, {"message": f'secrets "{name}" already exists'}
        else:
            self.server.secrets[name] = body
            status, answer = 201, body
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    do_POST = _create  # noqa: N815 - the name under which http.server looks for it

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def api() -> Iterator[FakeApi]:
    server = FakeApi()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def created(api: FakeApi) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", api.server_port, timeout=10)
    try:
        secret = make_secret.manifest("keys-redan-auth", "password", "keys")
        return make_secret.create(connection, "a-token", "shop", secret)
    finally:
        connection.close()


def test_a_password_is_made_once_and_never_changed(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert created(api) == make_secret.CREATED
    first = api.secrets["keys-redan-auth"]
    assert created(api) == make_secret.CONFLICT
    assert api.secrets == {"keys-redan-auth": first}
    password = base64.b64decode(first["data"]["password"]).decode()
    assert re.fullmatch(r"[A-Za-z0-9]{32}", password)
    assert api.seen == [("/api/v1/namespaces/shop/secrets", "Bearer a-token")] * 2
    assert password not in "".join(capsys.readouterr())


def test_two_passwords_are_never_the_same() -> None:
    made = {json.dumps(make_secret.manifest("a", "password", "b")) for _ in range(100)}
    assert len(made) == 100


def test_a_refusal_of_the_api_is_told(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    api.refuses = True
    assert created(api) == 403
    assert "the API answers 403: secrets is forbidden" in capsys.readouterr().err


def test_the_job_runs_the_file_of_the_folder_with_what_it_asks_for() -> None:
    (container,) = one("Job")["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["python", "-c", (CHART / "files" / "make_secret.py").read_text(encoding="utf-8")]
    code, text = ran(sys.executable, *container["command"][1:], *container["args"], "--help")
    assert code == 0, text
    assert container["args"] == [
        "--namespace=shop",
        "--secret=keys-redan-auth/password",
        "--secret=keys-redan-cluster/cluster-secret",
        "--instance=keys",
    ]


def metrics_of(expressions: str) -> set[str]:
    """Return the names of metrics that stand in expressions."""
    return set(re.findall(r"\b(?:redan|process)_[a-z0-9_]+\b", expressions))


def metrics_named() -> set[str]:
    """Return every metric that an alert or the dashboard names."""
    groups = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text(encoding="utf-8"))
    alerts = [rule["expr"] for group in groups for rule in group["rules"]]
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    variables = [variable["query"]["query"] for variable in dashboard["templating"]["list"][1:]]
    assert len(alerts) > 10
    assert len(panels) > 30
    return metrics_of("\n".join([*alerts, *panels, *variables]))


def scraped(cluster: ClusterProcesses) -> set[str]:
    """Return the name of every sample that a node of the cluster has."""
    found = set()
    for node in cluster.nodes.values():
        host, port = node.addresses["admin"]
        with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=30) as answer:
            found |= {re.split(r"[{ ]", line)[0] for line in answer.read().decode().splitlines() if line[:1] != "#"}
    return found


@pytest.mark.timeout(240)
def test_helm_test_and_what_is_watched_fit_a_cluster_that_runs(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(PASSWORD + "\n")
    with ClusterProcesses(tmp_path, 3, "--requirepass", PASSWORD) as cluster:
        (container,) = one("Pod", ends="-test")["spec"]["containers"]
        assert container["command"][2] == (CHART / "files" / "round_trip.py").read_text(encoding="utf-8")
        planes = {plane: "{}:{}".format(*cluster["n1"].addresses[plane]) for plane in ("resp", "grpc")}
        # With the program of the manifest, and its arguments, which lead to a service there.
        assert [argument.partition("=")[0] for argument in container["args"]] == ["--resp", "--grpc", "--password-file"]
        places = {"--resp": planes["resp"], "--grpc": planes["grpc"], "--password-file": str(tmp_path / "password")}
        program = (sys.executable, *container["command"][1:])
        code, text = ran(*program, *(f"{option}={place}" for option, place in places.items()))
        assert code == 0, text
        assert "set over gRPC and read over RESP" in text

        (tmp_path / "password").write_text("wrong")
        code, text = ran(*program, *(f"{option}={place}" for option, place in places.items()))
        assert code == 1
        assert "WRONGPASS" in text

        with pytest.raises(redis.AuthenticationError):  # so that error replies were counted
            cluster["n2"].client().get("x")
        missing = metrics_named()
        assert "redan_raft_peer_lag_entries" in missing
        deadline = time.monotonic() + SETTLED_SECONDS_MAX
        while missing and time.monotonic() < deadline:
            missing = metrics_named() - scraped(cluster)
            time.sleep(0.2)
        assert missing == set()
